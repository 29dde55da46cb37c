"""What a call on a GPU costs its host: the operators of torch beside the kernels, plans made once, no way
round by the dispatcher; and what a CUDA graph cannot capture, refused by name."""

import fusegen
import pytest
import torch
from fusegen import _precision
from fusegen.ops import checks, layers, route
from fusegen.ops.cuda import engine as cuda_engine
from fusegen.ops.cuda import layers as cuda_layers
from fusegen.ops.spec import GRU, LSTM, RNN
from torch.utils._python_dispatch import TorchDispatchMode

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

VIEWS = ("t", "transpose", "view", "unbind", "slice", "select", "detach", "expand", "reshape", "unsqueeze",
         "split", "alias", "_unsafe_view", "as_strided")  # fmt: skip


class Counted(TorchDispatchMode):
    """The operators that run, without those that only make views or memory."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        if name not in VIEWS and not name.startswith(("empty", "new_empty")):
            self.ran.append(name)
        return func(*args, **(kwargs or {}))


def given(spec, D, bias=True, H=24, I=5):
    torch.manual_seed(1)
    G, weights = spec.gates, []
    for _ in range(D):
        weights += [torch.randn(G * H, I), torch.randn(G * H, H) / 5]
        weights += [torch.randn(G * H), torch.randn(G * H)] if bias else [None, None]
        weights += [None] if spec is LSTM else []
    return torch.randn(4, 3, I), weights


# ---- the operators of a call: products, sums of biases, and where directions lie side by side their joins

FORWARD = {
    (LSTM, 1): ["add", "addmm"],
    (RNN, 1): ["add", "addmm"],
    (GRU, 1): ["clone", "add_", "addmm"],
    (LSTM, 2): ["add", "add", "cat", "cat", "addmm"],
}


@pytest.mark.parametrize("spec, D", FORWARD, ids=lambda v: getattr(v, "name", v))
@pytest.mark.parametrize("train", [False, True])
def test_operators_of_a_forward_call(spec, D, train):
    passes, (x, weights) = cuda_layers.passes(cuda_engine.Engine(simt), spec), given(spec, D)
    with Counted() as counted:
        passes.forward(x, None, None, weights, False, None, None, train)
    assert sorted(counted.ran) == sorted(FORWARD[spec, D])


@pytest.mark.parametrize("spec", [LSTM, GRU, RNN], ids=lambda s: s.name)
def test_operators_without_biases(spec):
    passes, (x, weights) = cuda_layers.passes(cuda_engine.Engine(simt), spec), given(spec, 1, bias=False)
    with Counted() as counted:
        passes.forward(x, None, None, weights, False, None, None, False)
    assert counted.ran == ["mm"]


@pytest.mark.parametrize(
    "spec, sums, copies", [(LSTM, 1, 1), (GRU, 2, 0), (RNN, 1, 1)], ids=lambda v: getattr(v, "name", v)
)
def test_operators_of_a_backward_call(spec, sums, copies):
    """dx, dW, dR and the biases' sums, of which LSTM and RNN have one."""
    passes, (x, weights) = cuda_layers.passes(cuda_engine.Engine(simt), spec), given(spec, 1)
    y, _, _, gates, cells = passes.forward(x, None, None, weights, False, None, None, True)
    grads = (torch.randn_like(y), None, None)
    call, wanted = (
        (x, None, None, weights, False, None, None),
        [True, False, False, *(w is not None for w in weights)],
    )
    with Counted() as counted:
        passes.backward(call, (y, gates, cells), grads, wanted)
    assert counted.ran.count("mm") == 3 and counted.ran.count("sum") == sums
    in_order = ["cat"] * 3 if spec is GRU else []  # W, dW and db_ih: the kernels write n first
    others = [op for op in counted.ran if op not in ("mm", "sum")]
    assert others.count("clone") <= copies + (spec is GRU) and [o for o in others if o != "clone"] == in_order


def test_biases_of_one_direction_alone():
    """What nn never makes, and ``functional`` takes."""
    x, weights = given(LSTM, 2)
    weights[7] = weights[8] = None
    gx, _ = cuda_layers.gate_inputs(LSTM, x, weights)
    zeros = [torch.zeros(96) if w is None and i % 5 < 4 else w for i, w in enumerate(weights)]
    assert torch.equal(gx, cuda_layers.gate_inputs(LSTM, x, zeros)[0])


# ---- plans


def test_a_plan_is_made_once(monkeypatch):
    made = []

    class Kernels:
        def gpu_plan(self, *asked):
            made.append(asked)
            return object()

    engine = cuda_engine.Engine(Kernels())
    asked = ("lstm", "float32", False, False, 3, 24, 24, 1, 0)
    assert engine.plan(asked) is engine.plan(asked) and len(made) == 1
    for i, other in enumerate(("gru", "bfloat16", True, True, 4, 25, 23, 2, 1)):
        engine.plan((*asked[:i], other, *asked[i + 1 :]))
    assert len(made) == 10, "a plan depends on every argument"
    engine.transport = "l2"
    engine.plan(asked)
    assert len(made) == 11
    monkeypatch.setattr(cuda_engine, "_PLANS", 16)
    for B in range(100):
        engine.plan((*asked[:4], B, *asked[5:]))
    assert len(engine._plans) <= 16


def test_the_recurrence_precision_is_part_of_the_plan(monkeypatch):
    engine, (x, weights) = cuda_engine.Engine(simt), given(RNN, 1)
    passes = cuda_layers.passes(engine, RNN)
    for tf32 in (False, True, False):
        monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda dtype, tf32=tf32: tf32)
        passes.forward(x, None, None, weights, False, None, None, False)
    assert len(engine._plans) == 2


# ---- the way of a call


class OnGpu:
    """What the route asks of a tensor; none is here."""

    is_cpu, is_cuda, device = False, True, torch.device("cuda", 0)


def test_a_call_on_a_gpu_goes_round_the_dispatcher(monkeypatch):
    monkeypatch.setattr(route, "_own", lambda t: True)
    assert route.of_call((OnGpu(), None)) == route.DIRECT
    op = layers.OPS[LSTM]
    assert op.directly(OnGpu()) is op.direct_cuda and op.directly(torch.empty(1)) is op.direct
    assert op.direct_cuda is not op.direct


# ---- CUDA graphs


@pytest.fixture
def capturing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)


class Sequence(OnGpu):
    shape, is_floating_point = (5, 2, 3), lambda self: True


@pytest.mark.parametrize("lengths", [[3, 5], torch.tensor([3, 5])], ids=["list", "CPU tensor"])
def test_lengths_on_the_host_are_not_captured(lengths, capturing):
    with pytest.raises(
        RuntimeError, match=r"lstm: lengths in a list or a CPU tensor .* captured.* on cuda:0"
    ):
        checks.as_lengths("lstm", lengths, Sequence())


def test_lengths_on_the_host_are_taken_on_the_cpu(capturing):
    assert checks.as_lengths("lstm", [3, 5], torch.empty(5, 2, 3)).tolist() == [3, 5]


def test_packed_rows_are_not_captured(capturing, monkeypatch):
    class Data(OnGpu):
        shape = (7, 3)

    with pytest.raises(RuntimeError, match=r"PackedSequence: the places of its rows .*captured"):
        fusegen.nn._packed.pad(Data(), torch.tensor([2, 2, 1, 1, 1]))


def test_the_first_call_is_not_captured(capturing):
    with pytest.raises(RuntimeError, match="first call on a GPU cannot be captured"):
        cuda_engine.error_word(torch.device("cuda", 63))
