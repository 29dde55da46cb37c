"""Ragged batches: ``lengths=`` and PackedSequence against torch.nn in float64, each sequence by itself."""

import cases
import fusegen
import pytest
import torch
from cases import CELL_NAMES, DTYPES, flat, hidden, label, layer, options_of, pair
from tolerances import close
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

pytestmark = pytest.mark.usefixtures("poisoned")
THREADS = 2  # a call's work is divided

LENGTHS = ([4, 0, 9, 1, 7], [9, 9, 9, 9, 9], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [9, 8, 6, 3, 2])


def compare(cell_name, mine, oracle, x, hx, lengths):
    """Values and all gradients of a ragged call on time-major x; what lies past the ends is NaN."""
    dirty = x.clone()
    for b, n in enumerate(lengths):
        dirty[n:, b] = torch.nan
    x64, hx64 = cases.oracle_of(x, hx)
    dirty.requires_grad_()
    hx = cases.tree(lambda t: t.detach().requires_grad_(), hx)
    given = dirty.transpose(0, 1) if mine.batch_first else dirty
    y, final = mine(given, hx, lengths=lengths)
    got = (y.transpose(0, 1) if mine.batch_first else y), final
    want = cases.by_sequence(oracle, x64, hx64, lengths)
    close(got, want, "value")
    for b, n in enumerate(lengths):
        assert (got[0][n:, b] == 0).all(), "output past the end is not zero"
    with torch.no_grad():
        y, final = mine(given, hx, lengths=lengths)
        close(((y.transpose(0, 1) if mine.batch_first else y), final), want, "value", "inference")
    w = [torch.randn_like(t) for t in flat(want)]
    inputs, inputs64 = [dirty, *flat(hx), *mine.parameters()], [x64, *flat(hx64), *oracle.parameters()]
    if cell_name == "RNN_RELU" and x.dtype in (torch.bfloat16, torch.float16):
        with cases.through_reference():  # relu's derivative jumps where rounding moves h across 0
            y, final = mine(given, hx, lengths=lengths)
            want, inputs64 = ((y.transpose(0, 1) if mine.batch_first else y), final), inputs
    ours, theirs = cases.grads(got, inputs, w), cases.grads(want, inputs64, w)
    theirs = [torch.zeros_like(i) if g is None else g for g, i in zip(theirs, inputs64, strict=True)]
    close(ours, theirs, "grad", "gradient")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_lengths(cell_name, lengths, dtype):
    mine, oracle = pair(layer, cell_name, 7, 17, dtype, bidirectional=True)
    compare(
        cell_name, mine, oracle, torch.randn(9, 5, 7).to(dtype), hidden(cell_name, mine, 5, dtype), lengths
    )


@pytest.mark.parametrize(
    ("cell_name", "options"),
    [(k, o) for k in CELL_NAMES for o in options_of(k)],
    ids=lambda v: v if isinstance(v, str) else label(v),
)
def test_options(cell_name, options):
    mine, oracle = pair(layer, cell_name, 7, 33, torch.float32, **options)
    for lengths in LENGTHS[:2]:
        compare(cell_name, mine, oracle, torch.randn(9, 5, 7), None, lengths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_gradients_past_the_end_are_not_read(cell_name, dtype):
    m = layer(cell_name, 7, 17, bidirectional=True, dtype=dtype)
    lengths, x = torch.tensor([4, 0, 9, 1, 7]), torch.randn(9, 5, 7).to(dtype).requires_grad_()
    past = torch.arange(9).unsqueeze(1) >= lengths
    y, _ = m(x, lengths=lengths)
    given = torch.randn(y.shape).to(dtype)
    dirty = given.masked_fill(past.unsqueeze(2), torch.nan)
    want = torch.autograd.grad(y, [x, *m.parameters()], given, retain_graph=True)
    got = torch.autograd.grad(y, [x, *m.parameters()], dirty)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert (got[0][past] == 0).all()


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_many_sequences(cell_name):
    mine, oracle = pair(layer, cell_name, 3, 8, torch.float32, bidirectional=True)
    lengths = torch.randint(0, 8, (67,)).tolist()
    compare(
        cell_name, mine, oracle, torch.randn(7, 67, 3), hidden(cell_name, mine, 67, torch.float32), lengths
    )


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_forms_of_lengths(cell_name):
    """A list, a tuple, any integer dtype, a non-contiguous tensor, a range: the same bits."""
    m = layer(cell_name, 3, 8)
    x = torch.randn(6, 4, 3)
    want = flat(m(x, lengths=[2, 3, 4, 5]))
    strided = torch.tensor([[2, 0], [3, 0], [4, 0], [5, 0]])[:, 0]
    for form in (
        (2, 3, 4, 5),
        range(2, 6),
        torch.tensor([2, 3, 4, 5]),
        torch.tensor([2, 3, 4, 5], dtype=torch.uint8),
        torch.tensor([2, 3, 4, 5], dtype=torch.int32),
        strided,
        strided.numpy(),
    ):
        assert all(torch.equal(a, b) for a, b in zip(flat(m(x, lengths=form)), want, strict=True))
    one = m(x[:, 0], lengths=2)[0]
    close(one, want[0][:, 0], "value")
    assert torch.equal(m(x[:, 0], lengths=[2])[0], one)
    assert torch.equal(m(x[:, 0], lengths=torch.tensor(2))[0], one)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_a_sequence_does_not_depend_on_its_company(cell_name):
    """A row of a ragged batch equals the same row alone, to rounding, and NaN in one row stays there."""
    mine, _ = pair(layer, cell_name, 7, 17)
    x = torch.randn(9, 5, 7, dtype=torch.float64)
    x[2, 1] = torch.nan
    y, _ = mine(x, lengths=[9, 4, 3, 9, 1])
    assert y[2:4, 1].isnan().all()
    assert y[:, [0, 2, 3, 4]].isfinite().all()
    close(y[:3, 2], mine(x[:3, 2])[0], "value")


@pytest.mark.parametrize("form", ["numpy", "tensor"])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_lengths_are_copied(cell_name, form):
    """A loader may write the next batch's lengths into the same memory before backward."""
    m, x = layer(cell_name, 3, 8), torch.randn(6, 2, 3, requires_grad=True)
    lengths = torch.tensor([6, 3])
    memory = lengths.numpy() if form == "numpy" else lengths
    want = torch.autograd.grad(m(x, lengths=[6, 3])[0].sum(), x)
    y = m(x, lengths=lengths)[0]
    memory[0] = 1
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], want[0])


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_torch_backend_reads_nothing_of_empty_sequences(cell_name):
    m = layer(cell_name, 3, 8, num_layers=2, bidirectional=True)
    x, hx = torch.randn(6, 3, 3), hidden(cell_name, m, 3, torch.float32)
    for t in (x, *flat(hx)):
        t[:, 1] = torch.nan
    x.requires_grad_()
    results = []
    for backend in ("fused", "torch"):
        fusegen.set_backend(backend)
        y = m(x, hx, lengths=[6, 0, 2])[0]
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *m.parameters()])])
    assert all(t.isfinite().all() for t in results[1])
    close(results[1], results[0], "grad")


def packed_cases(x):
    yield pack_padded_sequence(x, [9, 8, 6, 3, 2])
    yield pack_padded_sequence(x, [4, 1, 9, 1, 7], enforce_sorted=False)
    yield pack_padded_sequence(x, [5, 5, 5, 5, 5])
    yield pack_sequence([x[:9, 0], x[:2, 1], x[:2, 2]])


@pytest.mark.parametrize(
    ("cell_name", "options"),
    [(k, o) for k in CELL_NAMES for o in options_of(k)],
    ids=lambda v: v if isinstance(v, str) else label(v),
)
def test_packed(cell_name, options):
    mine, oracle = pair(layer, cell_name, 7, 9, **options)
    for p in packed_cases(torch.randn(9, 5, 7, dtype=torch.float64)):
        B = int(p.batch_sizes[0])
        for hx in (None, hidden(cell_name, mine, B)):
            a, b = cases.oracle_of(p.data, hx), cases.oracle_of(p.data, hx)
            got, want = mine(p._replace(data=a[0]), a[1]), oracle(p._replace(data=b[0]), b[1])
            assert isinstance(got[0], PackedSequence)
            for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
                assert getattr(got[0], field) is getattr(p, field)
            out, expected = (got[0].data, got[1]), (want[0].data, want[1])
            close(out, expected, "value")
            w = [torch.randn_like(t) for t in flat(expected)]
            close(
                cases.grads(out, [*flat(a), *mine.parameters()], w),
                cases.grads(expected, [*flat(b), *oracle.parameters()], w),
                "grad",
            )


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_packed_twice_differentiable(cell_name):
    m = layer(cell_name, 2, 3, dtype=torch.float64).requires_grad_(False)
    p = pack_padded_sequence(torch.randn(4, 2, 2, dtype=torch.float64), [4, 2])

    def run(data):
        return m(p._replace(data=data))[0].data

    assert torch.autograd.gradgradcheck(run, p.data.requires_grad_())


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_packed_under_anomaly_detection(cell_name):
    """The fixture fills fresh memory with NaN: none of it may stand in a gradient."""
    m, x = layer(cell_name, 3, 8), torch.randn(6, 2, 3, requires_grad=True)
    with pytest.warns(UserWarning, match="Anomaly Detection"):
        context = torch.autograd.detect_anomaly(check_nan=True)
    with context:
        m(pack_padded_sequence(x, [6, 2]))[0].data.sum().backward()
    assert x.grad.isfinite().all()
