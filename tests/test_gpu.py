"""fusegen's layers, cells and discriminator step on an NVIDIA GPU, against float64 on the CPU: `make gpu
STAGE=test`."""

import copy
import itertools
import os

import cases
import fusegen
import pytest
import torch
from fusegen import gan, losses
from fusegen.ops import gpu
from tolerances import close
from torch import nn

HAVE = torch.cuda.is_available() and bool(fusegen._C.build_info()["cuda_archs"])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAVE, reason="needs an NVIDIA GPU and a build with CUDA kernels"),
]

WAYS = ("launch", "block", "l2", "cluster")
SHAPES = (
    (7, 33, 5, 9),
    (64, 128, 17, 12),
    (64, 256, 8, 20),
    (32, 512, 16, 8),
    (16, 1024, 3, 4),
    (5, 777, 33, 5),
)


@pytest.fixture(autouse=True)
def true_float32(monkeypatch):
    """float32 is float32 in the recurrence and in torch's products around it."""
    monkeypatch.setattr(gpu, "uses_tf32", lambda dtype: False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(gpu, "transport", "best")


def run(module, x, hx, lengths=None):
    """(outputs, gradients of a weighted sum of them, on the CPU in float64)."""
    x = x.detach().requires_grad_()
    hx = cases.tree(lambda t: t.detach().requires_grad_(), hx)
    out = cases.flat(module(x, hx) if lengths is None else module(x, hx, lengths=lengths))
    torch.manual_seed(5)
    weights = [torch.randn(o.shape, dtype=torch.float64) for o in out]
    inputs = (x, *cases.flat(hx), *module.parameters())
    return out, cases.grads(out, inputs, [w.to(x.device) for w in weights])


def both(kind, I, H, B, T, dtype, lengths=None, **options):
    """Results of our module on the GPU and of torch.nn in float64 on the CPU."""
    mine, oracle = cases.pair(cases.layer, kind, I, H, dtype, **options)
    x = torch.randn(T, B, I).to(dtype)
    hx = cases.hidden(kind, mine, B, dtype)
    x64, hx64 = cases.oracle_of(x, hx)
    got = run(mine.cuda(), x.cuda(), cases.tree(torch.Tensor.cuda, hx), lengths)
    return got, run(oracle, x64, hx64)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ("LSTM", "GRU", "RNN_TANH"))
def test_shapes(kind, dtype, way, monkeypatch):
    monkeypatch.setattr(gpu, "transport", way)
    for shape in SHAPES:
        (got, grads), (want, want_grads) = both(kind, *shape, dtype)
        close(cases.tree(torch.Tensor.cpu, got), tuple(want), "value", f"{shape}")
        close(cases.tree(torch.Tensor.cpu, grads), tuple(want_grads), "grad", f"{shape}")


@pytest.mark.parametrize("kind", cases.KINDS)
def test_options(kind):
    for options in cases.options_of(kind):
        if "batch_first" in options:
            continue
        (got, grads), (want, want_grads) = both(kind, *cases.SMALL, torch.float32, **options)
        close(cases.tree(torch.Tensor.cpu, got), tuple(want), "value", cases.label(options))
        close(cases.tree(torch.Tensor.cpu, grads), tuple(want_grads), "grad", cases.label(options))


@pytest.mark.parametrize("on_gpu", [False, True], ids=["list", "tensor"])
@pytest.mark.parametrize("kind", cases.KINDS)
def test_lengths(kind, on_gpu):
    lengths = [9, 0, 3, 1, 7]
    mine, oracle = cases.pair(cases.layer, kind, 7, 33, torch.float32, bidirectional=True, num_layers=2)
    x, hx = torch.randn(9, 5, 7), cases.hidden(kind, mine, 5, torch.float32)
    x64, hx64 = cases.oracle_of(x, hx)
    given = torch.tensor(lengths, device="cuda") if on_gpu else lengths
    got, _ = run(mine.cuda(), x.cuda(), cases.tree(torch.Tensor.cuda, hx), given)
    want = cases.flat(cases.by_sequence(oracle, x64, hx64, lengths))
    close(cases.tree(torch.Tensor.cpu, got), tuple(want), "value")


@pytest.mark.parametrize("kind", cases.CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cells(kind, dtype):
    mine, oracle = cases.pair(cases.cell, kind, 7, 130, dtype)
    x, h = torch.randn(5, 7).to(dtype), torch.randn(5, 130).to(dtype) * 0.5
    hx = (h, h + 0.1) if kind == "LSTMCell" else h
    x64, hx64 = cases.oracle_of(x, hx)
    got, grads = run(mine.cuda(), x.cuda(), cases.tree(torch.Tensor.cuda, hx))
    want, want_grads = run(oracle, x64, hx64)
    close(cases.tree(torch.Tensor.cpu, got), tuple(want), "value")
    close(cases.tree(torch.Tensor.cpu, grads), tuple(want_grads), "grad")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ("LSTM", "GRU"))
def test_repetitions_are_bit_equal(kind, way, monkeypatch):
    monkeypatch.setattr(gpu, "transport", way)
    m = cases.layer(kind, 64, 256, dtype=torch.bfloat16, device="cuda")
    x = torch.randn(32, 24, 64, dtype=torch.bfloat16, device="cuda")
    first = run(m, x, None)
    for _ in range(int(os.environ.get("FUSEGEN_REPETITIONS", "50"))):
        again = run(m, x, None)
        assert all(torch.equal(a, b) for a, b in zip(cases.flat(again), cases.flat(first), strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ("LSTM", "GRU", "RNN_TANH"))
def test_graph_replays(kind, way, monkeypatch):
    """Captured in a CUDA graph, replayed with other inputs: bit-equal to eager."""
    monkeypatch.setattr(gpu, "transport", way)
    m = cases.layer(kind, 64, 256, dtype=torch.bfloat16, device="cuda")
    x = torch.randn(16, 8, 64, dtype=torch.bfloat16, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        m(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        y = m(x)[0]
    for seed in range(int(os.environ.get("FUSEGEN_REPETITIONS", "50"))):
        torch.manual_seed(seed)
        x.copy_(torch.randn_like(x))
        graph.replay()
        with torch.no_grad():
            assert torch.equal(y, m(x)[0])


@pytest.mark.parametrize("kind", cases.KINDS)
def test_compile(kind):
    m = cases.layer(kind, 7, 33, device="cuda")
    x = torch.randn(9, 5, 7, device="cuda")
    torch.testing.assert_close(torch.compile(m, fullgraph=True)(x)[0], m(x)[0])


@pytest.mark.parametrize("kind", cases.KINDS)
def test_autocast(kind):
    m = cases.layer(kind, 7, 33, device="cuda")
    x = torch.randn(9, 5, 7, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        y = m(x)[0]
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    want = m(x.detach())[0]
    assert (y - want).abs().max() < 3e-2 and x.grad.isfinite().all()


@pytest.mark.parametrize("kind", ("LSTM", "GRU", "RNN_TANH"))
def test_streams(kind):
    """Calls on several streams at once give what they give one by one."""
    m = cases.layer(kind, 64, 256, device="cuda")
    xs = [torch.randn(50, 8, 64, device="cuda") for _ in range(4)]
    with torch.no_grad():
        want = [m(x)[0] for x in xs]
        streams = [torch.cuda.Stream() for _ in xs]
        torch.cuda.synchronize()
        got = []
        for x, s in zip(xs, streams, strict=True):
            with torch.cuda.stream(s):
                got.append(m(x)[0])
        torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_no_host_synchronisation():
    m = cases.layer("LSTM", 64, 256, device="cuda")
    x, lengths = (
        torch.randn(50, 8, 64, device="cuda", requires_grad=True),
        torch.full((8,), 30, device="cuda"),
    )
    m(x, lengths=lengths)[0].sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        m(x, lengths=lengths)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_bad_length_is_told():
    m = cases.layer("GRU", 7, 33, device="cuda")
    x = torch.randn(9, 5, 7, device="cuda")
    y, _ = m(x, lengths=torch.tensor([9, 10, 3, -1, 7], device="cuda"))
    torch.cuda.synchronize()
    assert y[:, [1, 3]].isnan().all() and not y[:, [0, 2, 4]].isnan().any()
    with pytest.raises(ValueError, match=r"outside 0\.\.T"):
        m(x)
    m(x)


def test_more_than_65535_steps():
    m = cases.layer("RNN_TANH", 3, 16, device="cuda")
    x = torch.randn(70_001, 1, 3, device="cuda")
    with torch.no_grad():
        y = m(x)[0]
        torch.testing.assert_close(y[-100:], m(x[-1000:])[0][-100:], atol=1e-4, rtol=0)


def test_float64_goes_to_torch():
    m = cases.layer("LSTM", 7, 33, dtype=torch.float64, device="cuda")
    with pytest.raises(RuntimeError, match="no fused kernels of float64"):
        m(torch.randn(9, 5, 7, dtype=torch.float64, device="cuda"))
    fusegen.set_backend("auto")
    m(torch.randn(9, 5, 7, dtype=torch.float64, device="cuda"))


# -- The discriminator step ---------------------------------------------------------------------------


def discriminator(dtype, sizes=(784, 256, 256, 1)):
    """A dense discriminator on the GPU, and the same in float64 on the CPU."""
    D = nn.Sequential()
    for n, m in itertools.pairwise(sizes):
        D.extend([nn.Linear(n, m), nn.LeakyReLU(0.2)])
    D = D[:-1].to(dtype)
    return copy.deepcopy(D).cuda(), D.double()


def step(D, real, fake, **options):
    """(loss, logits, gradients of D's parameters and of both samples)."""
    real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
    out = gan.discriminator_step(D, real, fake, **options)
    gradients = torch.autograd.grad(out.loss, [*D.parameters(), real, fake])
    return out, torch.cat((out.real_logits, out.fake_logits)), gradients


@pytest.mark.parametrize("penalty", [{}, {"r1": 10.0}, {"r1": 2.0, "r2": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_discriminator_step(loss, dtype, penalty):
    """Against the CPU's op in float64, and torch's own operators in the same dtype. In 16 bits, rounding puts
    some units on zero's other side, theirs as well as ours, so that gradients are compared by the norms of
    their errors."""
    for sizes, n in (((784, 256, 256, 1), 64), ((13, 70, 1), 5), ((784, 1024, 512, 1), 256), ((9, 1), 3)):
        D, exact = discriminator(dtype, sizes)
        real, fake = torch.randn(n, sizes[0]).to(dtype), torch.randn(n, sizes[0]).to(dtype)
        out, logits, gradients = step(D, real.cuda(), fake.cuda(), loss=loss, **penalty)
        want, want_logits, want_gradients = step(exact, real.double(), fake.double(), loss=loss, **penalty)
        assert out.path == "fused_mlp", out.reason
        close(logits.cpu(), want_logits, "value", f"logits, {sizes}")
        fusegen.set_backend("torch")
        _, _, theirs = step(D, real.cuda(), fake.cuda(), loss=loss, **penalty)
        fusegen.set_backend("fused")
        limit = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}[dtype]
        assert abs(out.loss.item() - want.loss.item()) <= limit * max(1.0, abs(want.loss.item()))
        for i, (g, t, w) in enumerate(zip(gradients, theirs, want_gradients, strict=True)):
            ours, torchs = ((x.cpu().double() - w).norm() for x in (g, t))
            assert ours <= 3 * torchs + limit * w.norm().clamp(min=1e-3), (sizes, i)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_generator_step(loss):
    D, exact = discriminator(torch.float32)
    real, fake = torch.randn(64, 784), torch.randn(64, 784)
    ours, theirs = fake.cuda().requires_grad_(), fake.double().requires_grad_()
    (got,) = torch.autograd.grad(gan.generator_step(D, ours, loss, real=real.cuda()).loss, ours)
    (want,) = torch.autograd.grad(gan.generator_step(exact, theirs, loss, real=real.double()).loss, theirs)
    assert (got.cpu().double() - want).norm() <= 1e-4 * want.norm()


@pytest.mark.parametrize("sizes, n", [((784, 256, 256, 1), 64), ((37, 1030, 519, 1), 600)], ids=str)
def test_discriminator_steps_are_bit_equal(sizes, n):
    D, _ = discriminator(torch.bfloat16, sizes)
    real, fake = (torch.randn(n, sizes[0], dtype=torch.bfloat16, device="cuda") for _ in range(2))
    first = step(D, real, fake, r1=1.0)
    for _ in range(int(os.environ.get("FUSEGEN_REPETITIONS", "50"))):
        again = step(D, real, fake, r1=1.0)
        assert torch.equal(again[0].loss, first[0].loss) and torch.equal(again[1], first[1])
        assert all(torch.equal(a, b) for a, b in zip(again[2], first[2], strict=True))


@pytest.mark.parametrize("penalty", [{}, {"r1": 10.0}], ids=str)
def test_discriminator_step_in_a_graph(penalty):
    """The whole step, backward included, captured once and replayed with other samples: bit-equal."""
    D, _ = discriminator(torch.bfloat16)
    real, fake = (torch.randn(64, 784, dtype=torch.bfloat16, device="cuda") for _ in range(2))

    def run():
        out = gan.discriminator_step(D, real, fake, "hinge", **penalty)
        return out.loss, torch.autograd.grad(out.loss, list(D.parameters()))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, gradients = run()
    for _ in range(10):
        real.normal_()
        fake.normal_()
        graph.replay()
        want, want_gradients = run()
        assert torch.equal(loss, want)
        assert all(torch.equal(a, b) for a, b in zip(gradients, want_gradients, strict=True))


def test_discriminator_step_does_not_synchronise():
    D, _ = discriminator(torch.float32)
    real, fake = (torch.randn(64, 784, device="cuda") for _ in range(2))
    gan.discriminator_step(D, real, fake, r1=1.0).loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gan.discriminator_step(D, real, fake, r1=1.0).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_discriminator_step_leaves_the_choice():
    D, _ = discriminator(torch.float32, (13, 40, 1))
    x = torch.randn(4, 13, device="cuda")
    fusegen.set_backend("auto")
    out = gan.discriminator_step(D, x, x)
    assert out.path == "autograd" and "not measured" in out.reason
    fusegen.set_backend("fused")
    with pytest.raises(RuntimeError, match="no fused kernels of float64"):
        gan.discriminator_step(D.double(), x.double(), x.double())


def test_discriminator_step_refuses():
    D, _ = discriminator(torch.float32, (13, 40, 1))
    x = torch.randn(4, 13, device="cuda")
    with pytest.raises(RuntimeError, match="is on cuda:0, the samples on cpu"):
        gan.discriminator_step(D, x.cpu(), x.cpu())
    with pytest.raises(RuntimeError, match="expected the same device"):
        gan.discriminator_step(D, x, x.cpu())
    with pytest.raises(RuntimeError, match=r"the samples are torch\.bfloat16"):
        gan.discriminator_step(D, x.bfloat16(), x.bfloat16())
    with pytest.raises(ValueError, match="13 features"):
        gan.discriminator_step(D, x[:, :5], x[:, :5])


def test_second_order():
    m = cases.layer("GRU", 7, 33, device="cuda")
    x = torch.randn(9, 5, 7, device="cuda", requires_grad=True)
    (g,) = torch.autograd.grad(m(x)[0].sum(), x, create_graph=True)
    g.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in m.parameters())
