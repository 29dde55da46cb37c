"""torch.compile(fullgraph=True), training too, and torch.export with dynamic batch and time."""

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, flat, grads, label, layer
from tolerances import close
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

OPTIONS = ({}, {"num_layers": 2, "bidirectional": True, "batch_first": True})


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(m, **more):
    """The module compiled as one graph; AOT's own backend suffices for the graphs, "inductor" is tried
    once."""
    return torch.compile(m, fullgraph=True, backend=more.pop("backend", "aot_eager"), **more)


@pytest.mark.parametrize("options", OPTIONS, ids=label)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_layers(cell_name, options):
    m = layer(cell_name, 5, 6, **options)
    c = compiled(m)
    x = torch.randn(4, 3, 5, requires_grad=True)
    B = 4 if m.batch_first else 3
    for lengths in (None, torch.arange(B) % 4):
        want, got = m(x, lengths=lengths), c(x, lengths=lengths)
        close(got, want, "value")
        w = [torch.randn_like(t) for t in flat(want)]
        leaves = [x, *m.parameters()]
        close(grads(got, leaves, w), grads(want, leaves, w), "grad")
        with torch.no_grad():
            close(c(x, lengths=lengths), want, "value")


@pytest.mark.parametrize("cell_name", CELLS)
def test_cells(cell_name):
    m = cell(cell_name, 5, 6)
    x = torch.randn(3, 5, requires_grad=True)
    want, got = m(x), compiled(m)(x)
    close(got, want, "value")
    w = [torch.randn_like(t) for t in flat(want)]
    close(grads(got, [x, *m.parameters()], w), grads(want, [x, *m.parameters()], w), "grad")


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_dynamic_shapes(cell_name):
    """One graph for every batch and length: nothing is compiled again."""
    m = layer(cell_name, 5, 6)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    c = compiled(m, backend=counter, dynamic=True)
    for T, B in ((4, 3), (7, 2), (5, 9)):
        x = torch.randn(T, B, 5)
        close(c(x), m(x), "value")
    assert counter.frame_count == 1


class Tagger(nn.Module):
    """A model with layers of its own around the recurrent one."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.rnn = layer("LSTM", 5, 6, batch_first=True, num_layers=2, dropout=0.1)
        self.out = nn.Linear(6, 3)

    def forward(self, words, lengths=None):
        return self.out(self.rnn(self.embed(words), lengths=lengths)[0])


def test_inductor_training_step():
    model = Tagger().eval()
    step = torch.compile(lambda words: model(words).square().mean(), fullgraph=True)
    words = torch.randint(11, (3, 4))
    step(words).backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(words).square().mean().backward()
    close(got, [p.grad for p in model.parameters()], "grad")


def test_compiled_autocast():
    m, x = layer("GRU", 5, 6), torch.randn(4, 3, 5)
    c = compiled(m)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = c(x), m(x)
    assert got[0].dtype == want[0].dtype == torch.float32  # as torch.nn.GRU's
    close(got[0].bfloat16(), want[0], "value")


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_export(cell_name):
    """Dynamic batch and time, with lengths; the program holds fusegen's op and reads other sizes."""
    m = layer(cell_name, 5, 6, num_layers=2, bidirectional=True).eval()
    batch, time = torch.export.Dim("batch", min=2), torch.export.Dim("time", min=2)
    with torch.no_grad():
        program = torch.export.export(m, (torch.randn(4, 3, 5),), dynamic_shapes=({0: time, 1: batch},))
        assert any("fusegen" in str(n.target) for n in program.graph.nodes)
        for T, B in ((4, 3), (9, 7)):
            x = torch.randn(T, B, 5)
            close(program.module()(x), m(x), "value")


def test_export_of_a_model_with_lengths():
    model = Tagger().eval()
    batch, time = torch.export.Dim("batch", min=2), torch.export.Dim("time", min=2)
    example = (torch.randint(11, (3, 4)), torch.tensor([4, 2, 1]))
    program = torch.export.export(model, example, dynamic_shapes=({0: batch, 1: time}, {0: batch}))
    words, lengths = torch.randint(11, (5, 7)), torch.tensor([7, 0, 3, 1, 5])
    with torch.no_grad():
        close(program.module()(words, lengths), model(words, lengths), "value")
        close(program.run_decompositions().module()(words, lengths), model(words, lengths), "value")


def test_lengths_are_checked_when_the_graph_runs():
    m = layer("GRU", 5, 6)
    c = compiled(m)
    x = torch.randn(4, 3, 5)
    c(x, lengths=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="lengths"):
        c(x, lengths=torch.tensor([1, 2, 5]))


@pytest.mark.parametrize("cell_name", ["LSTM", "GRUCell"])
def test_frozen(cell_name):
    """Compiled calls read the weights themselves: a change inside the block is seen, not refused."""
    m = cell(cell_name, 5, 6) if cell_name in CELLS else layer(cell_name, 5, 6)
    c, x = compiled(m), torch.randn(3, 5)
    with torch.no_grad():
        with fusegen.frozen(m):
            close(c(x), m(x), "value")
            next(m.parameters()).mul_(2)
            got = c(x)
        close(got, m(x), "value")


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_changed_output(cell_name):
    m, x = layer(cell_name, 5, 6), torch.randn(4, 3, 5, requires_grad=True)

    def run(x):
        y = m(x)[0]
        y.mul_(2)
        return y.sin().sum()

    leaves = [x, *m.parameters()]
    close(torch.autograd.grad(compiled(run)(x), leaves), torch.autograd.grad(run(x), leaves), "grad")
