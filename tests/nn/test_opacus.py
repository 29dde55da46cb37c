"""fusegen's layers under Opacus' GradSampleModule: gradients of each sample, against a loop over samples."""

import copy

import fusegen
import pytest
import torch
from cases import layer
from fusegen.nn import _opacus
from tolerances import close
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

opacus = pytest.importorskip("opacus", reason="opacus is not installed (pip install 'fusegen[privacy]')")
from opacus import GradSampleModule  # noqa: E402

B, T, I, H = 4, 6, 3, 5
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing", "ignore:.*non-full backward")


class Model(nn.Module):
    """A layer, and what makes of the input its input and of the output a row a sample."""

    def __init__(self, name, batch_first=True, **options):
        super().__init__()
        self.embed = nn.Linear(2, I)
        self.layer = layer(name, I, H, batch_first=batch_first, **options)
        D = 2 if options.get("bidirectional") else 1
        self.out = nn.Linear(D * (options.get("proj_size") or H), 2)
        self.batch_first = batch_first

    def forward(self, x, **more):
        y, _ = self.layer(self.embed(x), **more)
        return self.out(y).square().mean(1 if self.batch_first else 0).sum(-1)  # [B]


def samples(model, x, at, **more):
    """The gradient of each sample, one after the other; ``more`` of the whole batch."""
    found = []
    for b in range(x.shape[at]):
        own = {key: value(b) for key, value in more.items()}
        loss = model(x.narrow(at, b, 1), **own).sum()
        found.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
    return [torch.stack(g) for g in zip(*found, strict=True)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


OPTIONS = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, options) for name in ("LSTM", "GRU", "RNN_RELU") for options in OPTIONS],
        ("LSTM", {"proj_size": 2}),
    ],
    ids=str,
)
def test_gradients_of_each_sample(name, options, batch_first, reduction):
    model = Model(name, batch_first, **options).double()
    x = torch.randn(B, T, 2, dtype=torch.float64)
    x = x if batch_first else x.transpose(0, 1)
    want = samples(model, x, 0 if batch_first else 1)
    wrapped = GradSampleModule(copy.deepcopy(model), batch_first=batch_first, loss_reduction=reduction)
    getattr(wrapped(x), reduction)().backward()
    close([p.grad_sample for p in wrapped.parameters()], want, "grad")


def test_lengths_and_states_of_the_call():
    model = Model("GRU").double()
    x = torch.randn(B, T, 2, dtype=torch.float64)
    lengths, hx = torch.tensor([6, 2, 1, 4]), torch.randn(1, B, H, dtype=torch.float64)
    want = samples(model, x, 0, lengths=lambda b: lengths[b : b + 1], hx=lambda b: hx[:, b : b + 1])
    wrapped = GradSampleModule(model, loss_reduction="sum")
    wrapped(x, lengths=lengths, hx=hx).sum().backward()
    close([p.grad_sample for p in wrapped.parameters()], want, "grad")


def test_two_calls_before_one_backward():
    """What a call was given stays with it: Opacus goes back through the last call first."""
    m = layer("LSTM", I, H, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, B, T, I, dtype=torch.float64)
    lengths = torch.tensor([[6, 5, 4, 3], [1, 2, 3, 4]])

    def run(layer, x, lengths):
        return sum(layer(one, lengths=own)[0].square().sum() for one, own in zip(x, lengths, strict=True))

    want = [
        torch.autograd.grad(run(m, x[:, b : b + 1], lengths[:, b : b + 1]), list(m.parameters()))
        for b in range(B)
    ]
    wrapped = GradSampleModule(m, loss_reduction="sum")
    run(wrapped, x, lengths).backward()
    close(
        [p.grad_sample for p in wrapped.parameters()],
        [torch.stack(g) for g in zip(*want, strict=True)],
        "grad",
    )


def test_dropout_between_layers_is_the_forward_passes():
    """The samples' gradients add up to the batch's, whose masks only it has drawn; later draws are as if
    nothing had run twice."""
    m = layer("LSTM", I, H, num_layers=3, dropout=0.5, batch_first=True, dtype=torch.float64)
    wrapped = GradSampleModule(m, loss_reduction="sum")
    x = torch.randn(B, T, I, dtype=torch.float64)
    y, _ = wrapped(x)
    before = torch.get_rng_state()
    y.square().sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    close(
        [p.grad_sample.sum(0) for p in wrapped.parameters()], [p.grad for p in wrapped.parameters()], "grad"
    )


@pytest.mark.parametrize(("name", "options"), [("LSTM", {"num_layers": 2, "dropout": 0.5}), ("RNN_TANH", {})])
def test_forward_does_not_run_again(name, options, monkeypatch):
    """What it kept is in autograd's graph, and goes with it."""
    m = layer(name, I, H, batch_first=True, **options)
    wrapped = GradSampleModule(m, loss_reduction="sum")
    monkeypatch.setattr(_opacus, "_run_again", None)
    x = torch.randn(B, T, I)
    for given in (x, x.requires_grad_()):
        wrapped.zero_grad()
        wrapped(given)[0].square().sum().backward()
        close([p.grad_sample.sum(0) for p in m.parameters()], [p.grad for p in m.parameters()], "grad")
    y = wrapped(x)[0]
    nodes = m._given[-1].nodes
    assert len(nodes) == m.num_layers and all(node() for node in nodes)
    del y
    assert not any(node() for node in nodes)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("other", ["torch", "autocast", "recompute"])
def test_forward_runs_again_where_it_kept_nothing_of_use(name, other):
    options = {"recompute": 2} if other == "recompute" else {}
    m = layer(name, I, H, num_layers=2, batch_first=True, **options)
    wrapped = GradSampleModule(m, loss_reduction="sum")
    fusegen.set_backend("torch" if other == "torch" else "fused")
    with torch.autocast("cpu", torch.bfloat16, enabled=other == "autocast"):
        y = wrapped(torch.randn(B, T, I))[0]
    assert not m._given[-1].nodes
    y.float().square().sum().backward()
    # under autocast the samples' are of float32
    dtype = torch.bfloat16 if other == "autocast" else torch.float32
    own = [p.grad.to(dtype) for p in m.parameters()]
    close(own, [p.grad_sample.sum(0) for p in m.parameters()], "grad")


def test_frozen_weights_have_none():
    m = layer("GRU", I, H, batch_first=True)
    m.weight_ih_l0.requires_grad_(False)
    wrapped = GradSampleModule(m, loss_reduction="sum")
    wrapped(torch.randn(B, T, I))[0].sum().backward()
    assert getattr(m.weight_ih_l0, "grad_sample", None) is None
    assert m.weight_hh_l0.grad_sample.shape == (B, 3 * H, H)


class OwnLSTM(nn.LSTM):
    """A type that Opacus has never heard of."""


@pytest.mark.parametrize("kind", [nn.LSTM, OwnLSTM])
def test_converted_models(kind):
    model = fusegen.convert(nn.Sequential(kind(I, H, batch_first=True))).double()
    wrapped = GradSampleModule(model, loss_reduction="sum")
    x = torch.randn(B, T, I, dtype=torch.float64)
    wrapped(x)[0].square().sum().backward()
    close([p.grad_sample.sum(0) for p in model.parameters()], [p.grad for p in model.parameters()], "grad")


def test_private_training():
    """PrivacyEngine, DPOptimizer and Poisson sampling: steps run, and the loss falls."""
    from torch.utils.data import DataLoader, TensorDataset

    model = Model("LSTM")
    x = torch.randn(64, T, 2)
    loader = DataLoader(TensorDataset(x), batch_size=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    engine = opacus.PrivacyEngine()
    model, optimizer, loader = engine.make_private(
        module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=0.1, max_grad_norm=1.0
    )
    with torch.no_grad():
        first = model(x).mean().item()
    for _ in range(6):
        for (batch,) in loader:
            optimizer.zero_grad()
            model(batch).mean().backward()
            optimizer.step()
    with torch.no_grad():
        assert model(x).mean().item() < 0.7 * first
    assert engine.get_epsilon(1e-5) > 0


def test_register_says_so_beforehand():
    import fusegen.opacus

    fusegen.opacus.register()
    samplers = (
        GradSampleModule.GRAD_SAMPLERS
        if hasattr(GradSampleModule, "GRAD_SAMPLERS")
        else opacus.grad_sample.GradSampleHooks.GRAD_SAMPLERS
    )
    assert all(
        samplers[t] is fusegen.opacus.grad_sampler for t in (fusegen.nn.LSTM, fusegen.nn.GRU, fusegen.nn.RNN)
    )


# ---------------------------------------------------------------- what hooks cannot tell is refused


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_a_gradient_of_the_final_state_is_refused(name):
    wrapped = GradSampleModule(layer(name, I, H, batch_first=True))
    y, state = wrapped(torch.randn(B, T, I))
    last = state[0] if name == "LSTM" else state
    with pytest.raises(RuntimeError, match=f"{name} under Opacus: a gradient reached the final states"):
        (y.sum() + last.sum()).backward()


def test_what_else_is_refused():
    wrapped = GradSampleModule(layer("LSTM", I, H, batch_first=True))
    x = torch.randn(B, T, I)
    with pytest.raises(RuntimeError, match="expected padded input and lengths=, got a PackedSequence"):
        wrapped(pack_padded_sequence(x, [T] * B, batch_first=True))
    with pytest.raises(RuntimeError, match="expected a batch of 3 dimensions, got 2"):
        wrapped(x[0])
    with pytest.raises(ValueError, match="expected hx and lengths alone, got resets"):
        wrapped(x, resets=torch.zeros(B, T, dtype=torch.bool))
    with pytest.raises(
        ValueError, match="expected one order of dims, got batch_first=False of the layer and True"
    ):
        GradSampleModule(layer("LSTM", I, H))(x)
    with pytest.raises(ValueError, match="recurrent_dropout"):
        GradSampleModule(layer("LSTM", I, H, batch_first=True, recurrent_dropout=0.2))(x)
    wrapped.eval()(x[0])  # nobody asks for samples there
