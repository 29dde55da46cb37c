"""fusegen's layers and cells on an NVIDIA GPU, against float64 on the CPU: `make gpu STAGE=test`.
FUSEGEN_REPETITIONS (10,000) says how often a call is repeated, graphs a tenth of that."""

import os
import time

import cases
import fusegen
import pytest
import torch
from fusegen import _C, _backend, _precision
from fusegen.ops import layers
from fusegen.ops.cuda import engine as cuda_engine
from fusegen.ops.cuda import layers as cuda_layers
from tolerances import TOLERANCE, close

DEVICE = "cuda"
HAVE = torch.cuda.is_available() and bool(fusegen._C.build_info()["cuda_archs"])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAVE, reason="needs an NVIDIA GPU and a build with CUDA kernels"),
    pytest.mark.usefixtures("true_float32"),
]
REPETITIONS = int(os.environ.get("FUSEGEN_REPETITIONS", "10000"))

WAYS = ("launch", "block", "l2", "cluster")
CELL_NAMES = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh"}
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
SHAPES = (
    (7, 33, 5, 9),
    (64, 128, 17, 12),
    (64, 256, 8, 20),
    (32, 512, 16, 8),
    (16, 1024, 3, 4),
    (5, 777, 33, 5),
)


class Engine(cuda_engine.Engine):
    """The engine of layers, asked for one transport; what it was given and took is kept."""

    def __init__(self):
        super().__init__(self, patience=2 * 10**9)
        self.ways, self.workspaces = [], []

    def gpu_plan(self, *args):
        return _C.gpu_plan(*args)

    def gpu_boundary_bytes(self, *args):
        return _C.gpu_boundary_bytes(*args)

    def gpu_mask(self, *args):
        return _C.gpu_mask(*args)

    def gpu_forward(self, *args):
        return self._run(_C.gpu_forward, args, 15)

    def gpu_backward(self, *args):
        return self._run(_C.gpu_backward, args, 18)

    def _run(self, kernel, args, workspace):
        self.workspaces.append(args[workspace])
        self.ways.append(kernel(*args))
        return self.ways[-1]


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    """In place of the layers' own, where direct calls and the dispatcher look."""
    engine, library = Engine(), torch.library.Library("fusegen", "IMPL")
    for spec, op in layers.OPS.items():
        passes = cuda_layers.passes(engine, spec)
        monkeypatch.setattr(op, "direct_cuda", passes)
        for name, run in op.kernels(passes).items():
            library.impl(name, run, "CUDA", allow_override=True)
    yield engine
    library._destroy()


@pytest.fixture
def ways(engine):
    """The ways that calls took, in order."""
    return engine.ways


def plans(cell_name, dtype, H, B, way):
    """What the engine would do forward and backward, asked for ``way``."""
    name = str(DTYPES[dtype]).removeprefix("torch.")
    return [
        _C.gpu_plan(CELL_NAMES[cell_name], name, dtype == "tf32", backward, B, H, H, 1, 0, way)
        for backward in (False, True)
    ]


def smallest(cell_name, dtype, way, B):
    """The least H that goes ``way`` forward and backward, over several blocks where blocks exchange."""
    for H in (8, 24, 64, 96, 128, 200, 256, 384, 512):
        both = plans(cell_name, dtype, H, B, way)
        if all(p.transport == way and (p.blocks > 1 or way in ("launch", "block")) for p in both):
            return H
    if way == "cluster" and torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("this GPU has no clusters")
    raise AssertionError(f"no size of {cell_name} in {dtype} goes by {way}")


def on(t):
    return t.to(DEVICE)


def back(ts):
    return cases.tree(torch.Tensor.cpu, ts)


def run(module, x, hx, lengths=None):
    """(outputs, gradients of a weighted sum of them)."""
    x = x.detach().requires_grad_()
    hx = cases.tree(lambda t: t.detach().requires_grad_(), hx)
    out = cases.flat(module(x, hx) if lengths is None else module(x, hx, lengths=lengths))
    return out, gradients(out, (x, *cases.flat(hx), *module.parameters()))


def gradients(out, inputs):
    g = torch.Generator().manual_seed(5)
    weights = [torch.randn(o.shape, dtype=torch.float64, generator=g) for o in out]
    return cases.grads(out, inputs, [w.to(inputs[0].device) for w in weights])


def both(cell_name, I, H, B, T, dtype, lengths=None, **options):
    """Results of our module on the GPU and of torch.nn in float64 on the CPU."""
    mine, oracle = cases.pair(cases.layer, cell_name, I, H, dtype, **options)
    x = torch.randn(T, B, I).to(dtype)
    hx = cases.hidden(cell_name, mine, B, dtype)
    x64, hx64 = cases.oracle_of(x, hx)
    got = run(mine.to(DEVICE), on(x), cases.tree(on, hx), lengths)
    return got, run(oracle, x64, hx64)


def agree(got, want, what):
    """(outputs, gradients) of the GPU with those of the oracle."""
    close(back(got[0]), tuple(want[0]), "value on tensor cores", what)
    close(back(got[1]), tuple(want[1]), "grad on tensor cores", what)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_smallest(cell_name, dtype, way, ways, monkeypatch, engine):
    """Every kernel once, forward and backward, by every way, as small as it gets: what the sanitizers run."""
    engine.transport = way
    monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda _: dtype == "tf32")
    H = smallest(cell_name, dtype, way, 3)
    got, want = both(cell_name, 5, H, 3, 3, DTYPES[dtype])
    assert ways == [way, way]
    if dtype != "tf32":
        return agree(got, want, f"H{H}")
    for ours, theirs, what in zip(got, want, ("value", "grad"), strict=True):
        for a, b in zip(back(ours), theirs, strict=True):
            scale = b.abs().max().clamp(min=1e-3 if what == "grad" else 1)
            assert (a.double() - b).abs().max() / scale <= TOLERANCE["tf32", what]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_shapes(cell_name, dtype, way, engine):
    engine.transport = way
    for shape in SHAPES:
        agree(*both(cell_name, *shape, dtype), f"{shape}")


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_inside_the_recurrence(cell_name, dtype, way, masks, engine):
    """Sequences that start anew by every way, and under masks by a launch a step: the CPU's are the same."""
    engine.transport = way
    T, B, H = 12, 20, 128
    options = (
        {"recurrent_dropout": 0.2, "zoneout": (0.2, 0.1) if cell_name == "LSTM" else 0.2} if masks else {}
    )
    mine = cases.layer(cell_name, 7, H, dtype=dtype, bidirectional=True, **options)
    formula = cases.layer(cell_name, 7, H, dtype=torch.float64, bidirectional=True, **options)
    formula.load_state_dict(mine.state_dict())
    x, hx = torch.randn(T, B, 7).to(dtype), cases.hidden(cell_name, mine, B, dtype)
    resets, into = torch.rand(T, B) < 0.2, cases.hidden(cell_name, mine, B, dtype)
    lengths = torch.randint(0, T + 1, (B,))

    def of(module, x, hx, into, at, lengths):
        x, hx, into = cases.tree(lambda t: t.detach().requires_grad_(), (x, hx, into))
        torch.manual_seed(3)  # of the masks' key
        out = cases.flat(module(x, hx, lengths=lengths, resets=at, reset_to=into))
        return out, gradients(out, (x, *cases.flat(hx), *module.parameters(), *cases.flat(into)))

    got = of(mine.to(DEVICE), on(x), cases.tree(on, hx), cases.tree(on, into), on(resets), on(lengths))
    agree(got, of(formula, *cases.tree(torch.Tensor.double, (x, hx, into)), resets, lengths), f"{way}")


@pytest.mark.parametrize("cell_name", cases.CELL_NAMES)
def test_options(cell_name):
    for options in cases.options_of(cell_name):
        if "batch_first" not in options:
            agree(*both(cell_name, *cases.SMALL, torch.float32, **options), cases.label(options))


@pytest.mark.parametrize("on_gpu", [False, True], ids=["list", "tensor"])
@pytest.mark.parametrize("cell_name", cases.CELL_NAMES)
def test_lengths(cell_name, on_gpu):
    lengths = [9, 0, 3, 1, 7]
    mine, oracle = cases.pair(cases.layer, cell_name, 7, 33, torch.float32, bidirectional=True, num_layers=2)
    x, hx = torch.randn(9, 5, 7), cases.hidden(cell_name, mine, 5, torch.float32)
    x64, hx64 = cases.oracle_of(x, hx)
    given = torch.tensor(lengths, device=DEVICE) if on_gpu else lengths
    got = run(mine.to(DEVICE), on(x), cases.tree(on, hx), given)
    want = cases.flat(cases.by_sequence(oracle, x64, hx64, lengths))
    agree(got, (want, gradients(want, (x64, *cases.flat(hx64), *oracle.parameters()))), "lengths")


@pytest.mark.parametrize("cell_name", cases.CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("B", [5, 40])
def test_cells(cell_name, dtype, B):
    """Few rows, which a kernel of ours multiplies, and more, which torch does."""
    mine, oracle = cases.pair(cases.cell, cell_name, 7, 130, dtype)
    x, h = torch.randn(B, 7).to(dtype), torch.randn(B, 130).to(dtype) * 0.5
    hx = (h, h + 0.1) if cell_name == "LSTMCell" else h
    x64, hx64 = cases.oracle_of(x, hx)
    if cell_name == "RNNCell_relu" and dtype != torch.float32:
        with torch.no_grad():  # relu's side of zero is open to 16-bit rounding: values alone
            return close(
                back(cases.flat(mine.to(DEVICE)(on(x), on(h)))), (oracle(x64, hx64),), "value on tensor cores"
            )
    agree(run(mine.to(DEVICE), on(x), cases.tree(on, hx)), run(oracle, x64, hx64), cell_name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("LSTM", "GRU"))
def test_repetitions_are_bit_equal(cell_name, way, ways, engine):
    """Forward and backward, 10,000 times; differences are counted on the GPU, so that it is kept busy."""
    engine.transport = way
    H = smallest(cell_name, "bfloat16", way, 24)
    m = cases.layer(cell_name, 64, H, dtype=torch.bfloat16, device=DEVICE)
    x = torch.randn(32, 24, 64, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
    dy = torch.randn(32, 24, H, dtype=torch.bfloat16, device=DEVICE)

    def once():
        y, h = m(x)
        return [y, *cases.flat(h), *torch.autograd.grad(y, (x, *m.parameters()), dy)]

    first, wrong = once(), torch.zeros((), dtype=torch.int64, device=DEVICE)
    for _ in range(REPETITIONS):
        for a, b in zip(once(), first, strict=True):
            wrong += (a != b).any()
    assert wrong.item() == 0 and set(ways) == {way}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_graph_replays(cell_name, way, ways, engine):
    """A training step captured in a CUDA graph, replayed with other inputs: bit-equal to eager."""
    engine.transport = way
    H = smallest(cell_name, "bfloat16", way, 8)
    m = cases.layer(cell_name, 64, H, dtype=torch.bfloat16, device=DEVICE)
    x = torch.randn(16, 8, 64, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
    dy = torch.randn(16, 8, H, dtype=torch.bfloat16, device=DEVICE)

    def step():
        y = m(x)[0]
        return [y.detach(), *torch.autograd.grad(y, (x, *m.parameters()), dy)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        captured = step()
    wrong = torch.zeros((), dtype=torch.int64, device=DEVICE)
    with torch.no_grad():
        for _ in range(max(1, REPETITIONS // 10)):
            x.copy_(torch.randn_like(x))
            graph.replay()
            with torch.enable_grad():
                eager = step()
            for a, b in zip(captured, eager, strict=True):
                wrong += (a != b).any()
    assert wrong.item() == 0 and set(ways) == {way}


@pytest.mark.parametrize("cell_name", cases.CELL_NAMES)
def test_compile(cell_name):
    m = cases.layer(cell_name, 7, 33, device=DEVICE)
    x = torch.randn(9, 5, 7, device=DEVICE)
    torch.testing.assert_close(torch.compile(m, fullgraph=True)(x)[0], m(x)[0])


@pytest.mark.parametrize("cell_name", cases.CELL_NAMES)
def test_autocast(cell_name):
    m = cases.layer(cell_name, 7, 33, device=DEVICE)
    x = torch.randn(9, 5, 7, device=DEVICE, requires_grad=True)
    with torch.autocast(DEVICE, torch.bfloat16):
        y = m(x)[0]
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    want = m(x.detach())[0]
    assert (y - want).abs().max() < TOLERANCE[torch.bfloat16, "benchmark"] and x.grad.isfinite().all()


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_backward_under_autocast_of_a_float32_forward(cell_name):
    m = cases.layer(cell_name, 7, 33, device=DEVICE)
    x = torch.randn(9, 5, 7, device=DEVICE, requires_grad=True)
    want = torch.autograd.grad(m(x)[0].sum(), (x, *m.parameters()))
    y = m(x)[0].sum()
    with torch.autocast(DEVICE, torch.bfloat16):
        got = torch.autograd.grad(y, (x, *m.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_streams(cell_name, way, engine):
    """Calls on several streams at once, forward and backward, give what they give one by one."""
    engine.transport = way
    H = smallest(cell_name, "float32", way, 8)
    m = cases.layer(cell_name, 64, H, device=DEVICE)
    xs = [torch.randn(50, 8, 64, device=DEVICE, requires_grad=True) for _ in range(6)]

    def step(x):
        y = m(x)[0]
        return [y.detach(), *torch.autograd.grad(y.square().sum(), (x, *m.parameters()))]

    want = [step(x) for x in xs]
    streams = [torch.cuda.Stream() for _ in xs]
    torch.cuda.synchronize()
    got = []
    for x, s in zip(xs, streams, strict=True):
        with torch.cuda.stream(s):
            got.append(step(x))
    torch.cuda.synchronize()
    for ours, alone in zip(got, want, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, alone, strict=True))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_another_device_than_the_current_one(cell_name):
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    m = cases.layer(cell_name, 64, 256, device="cuda:1")
    x = torch.randn(20, 8, 64, device="cuda:1")
    got = run(m, x, None)
    assert torch.cuda.current_device() == 0 and got[0][0].device.index == 1
    with torch.cuda.device(1):
        again = run(m, x, None)
    same = zip(cases.flat(got), cases.flat(again), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    here = run(m.to("cuda:0"), x.to("cuda:0"), None)
    close(back(cases.flat(here)), tuple(t.cpu().double() for t in cases.flat(got)), "value")


def test_a_converted_model(ways):
    """Someone else's model, converted and then moved, with the same Parameters; and back again."""
    layers = {"encoder": torch.nn.GRU(7, 33, num_layers=2), "step": torch.nn.LSTMCell(33, 41)}
    model = torch.nn.ModuleDict(layers).double()
    x = torch.randn(9, 5, 7, dtype=torch.float64)

    def outputs(x):
        y = model["encoder"](x)[0]
        return y, *model["step"](y[-1])

    want = outputs(x)
    fusegen.convert(model.float()).to(DEVICE)
    got = outputs(on(x.float()))
    assert len(ways) == 2  # the layers'; a cell is one launch
    close(back(got), want, "value")
    fusegen.revert(model)
    close(back(outputs(on(x.float()))), want, "value")


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_tensors_on_different_devices_are_refused(cell_name):
    m = cases.layer(cell_name, 7, 33, device=DEVICE)
    with pytest.raises(RuntimeError, match="are not on the same device"):
        m(torch.randn(9, 5, 7))


def test_no_host_synchronisation():
    m = cases.layer("LSTM", 64, 256, device=DEVICE)
    x, lengths = (
        torch.randn(50, 8, 64, device=DEVICE, requires_grad=True),
        torch.full((8,), 30, device=DEVICE),
    )
    m(x, lengths=lengths)[0].sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        m(x, lengths=lengths)[0].sum().backward()
        m(x)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_bad_length_is_told():
    m = cases.layer("GRU", 7, 33, device=DEVICE)
    x = torch.randn(9, 5, 7, device=DEVICE)
    y, _ = m(x, lengths=torch.tensor([9, 10, 3, -1, 7], device=DEVICE))
    torch.cuda.synchronize()
    assert y[:, [1, 3]].isnan().all() and not y[:, [0, 2, 4]].isnan().any()
    with pytest.raises(ValueError, match=r"outside 0\.\.T"):
        m(x)
    m(x)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("cell_name", ("LSTM", "GRU"))
def test_a_hang_is_ended(cell_name, backward, ways, engine):
    """Flags of a kernel under way are cleared again and again from another stream, until its blocks wait for
    each other for ever. The watchdog ends it after 2 s: outputs are NaN, the next call raises, the one after
    works."""
    engine.transport = "l2"
    H = smallest(cell_name, "bfloat16", "l2", 3)
    m = cases.layer(cell_name, 8, H, dtype=torch.bfloat16, device=DEVICE)
    short = torch.randn(9, 3, 8, dtype=torch.bfloat16, device=DEVICE)
    with torch.no_grad():
        want = m(short)[0]
    x = torch.randn(100_000, 3, 8, dtype=torch.bfloat16, device=DEVICE, requires_grad=backward)
    m.requires_grad_(False)
    y = m(x)[0]
    if backward:
        torch.cuda.synchronize()
        (spoilt,) = torch.autograd.grad(y, x, torch.ones_like(y))
    else:
        spoilt = y
    other = torch.cuda.Stream()
    start = time.perf_counter()
    with torch.cuda.stream(other):
        for _ in range(3000):
            engine.workspaces[-1].zero_()
    torch.cuda.synchronize()
    assert time.perf_counter() - start > 1.5, "the kernel ended before its flags were cleared"
    assert spoilt.isnan().any() and set(ways) == {"l2"}
    with pytest.raises(RuntimeError, match=r"block \d+ of group 0, .* in vain for block \d+ at turn \d+"):
        m(short)
    assert torch.equal(m(short)[0], want)


def test_out_of_memory_is_torchs_own_error():
    m = cases.layer("LSTM", 8, 1024, device=DEVICE)
    x = torch.zeros(512, 16, 8, device=DEVICE)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (8 << 20)) / total)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            m(x)  # its gate inputs alone are 134 MB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert free and m(x)[0].isfinite().all()


def test_more_than_65535_steps():
    m = cases.layer("RNN_TANH", 3, 16, device=DEVICE)
    x = torch.randn(70_001, 1, 3, device=DEVICE)
    with torch.no_grad():
        y = m(x)[0]
        limit = TOLERANCE[torch.float32, "benchmark on GPU"]
        torch.testing.assert_close(y[-100:], m(x[-1000:])[0][-100:], atol=limit, rtol=0)


def test_float64_goes_to_torch():
    m = cases.layer("LSTM", 7, 33, dtype=torch.float64, device=DEVICE)
    with pytest.raises(RuntimeError, match="no fused kernels of float64"):
        m(torch.randn(9, 5, 7, dtype=torch.float64, device=DEVICE))
    fusegen.set_backend("auto")
    before = sum(_backend.fallbacks.values())
    m(torch.randn(9, 5, 7, dtype=torch.float64, device=DEVICE))
    assert sum(_backend.fallbacks.values()) == before + 1


def test_auto_leaves_a_gpu_that_was_not_measured_to_torch(ways, monkeypatch):
    from fusegen import _choice

    monkeypatch.setattr(_choice, "MEASURED_GPUS", ())
    m, x = cases.layer("LSTM", 7, 33, device=DEVICE), torch.randn(9, 5, 7, device=DEVICE)
    fusegen.set_backend("auto")
    m(x)
    assert ways == []
    monkeypatch.setattr(_choice, "MEASURED_GPUS", (_choice.slug(torch.cuda.get_device_name()),))
    m(x)
    torch.compile(m, fullgraph=True)(x)
    assert len(ways) == 2


def test_second_order():
    m = cases.layer("GRU", 7, 33, device=DEVICE)
    x = torch.randn(9, 5, 7, device=DEVICE, requires_grad=True)
    (g,) = torch.autograd.grad(m(x)[0].sum(), x, create_graph=True)
    g.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in m.parameters())
