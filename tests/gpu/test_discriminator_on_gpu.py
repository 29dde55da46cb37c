"""The discriminator step on an NVIDIA GPU, against float64 on the CPU: `make gpu STAGE=test`."""

import copy
import itertools
import os

import fusegen
import pytest
import torch
from fusegen import gan, losses
from fusegen.ops.discriminator import ACTIVATIONS, MlpOptions, mlp_discriminator_step
from tolerances import TOLERANCE, close, same
from torch import nn

HAVE = torch.cuda.is_available() and bool(fusegen._C.build_info()["cuda_archs"])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAVE, reason="needs an NVIDIA GPU and a build with CUDA kernels"),
    pytest.mark.usefixtures("true_float32"),
]


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


def check_step(sizes, n, dtype, offset=0, **options):
    """Against the CPU's op in float64, and torch's own operators in the same dtype. In 16 bits, rounding puts
    some units on zero's other side, theirs as well as ours, so that gradients are compared by the norms of
    their errors. Samples begin `offset` numbers into their rows."""
    D, exact = discriminator(dtype, sizes)
    wide = [torch.randn(n, sizes[0] + offset).to(dtype) for _ in range(2)]
    samples = [x.cuda()[:, offset:] for x in wide]
    out, logits, gradients = step(D, *samples, **options)
    want, want_logits, want_gradients = step(exact, *(x[:, offset:].double() for x in wide), **options)
    assert out.path == "fused_mlp", out.reason
    close(logits.cpu(), want_logits, "value on tensor cores", f"logits, {sizes}")
    fusegen.set_backend("torch")
    _, _, theirs = step(D, *samples, **options)
    fusegen.set_backend("fused")
    limit = TOLERANCE[dtype, "norm on tensor cores"]
    assert abs(out.loss.item() - want.loss.item()) <= limit * max(1.0, abs(want.loss.item()))
    for i, (g, t, w) in enumerate(zip(gradients, theirs, want_gradients, strict=True)):
        ours, torchs = ((x.cpu().double() - w).norm() for x in (g, t))
        assert ours <= 3 * torchs + limit * w.norm().clamp(min=1e-3), (sizes, i)


@pytest.mark.parametrize("penalty", [{}, {"r1": 10.0}, {"r1": 2.0, "r2": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_discriminator_step(loss, dtype, penalty):
    for sizes, n in (((784, 256, 256, 1), 64), ((13, 70, 1), 5), ((784, 1024, 512, 1), 256), ((9, 1), 3)):
        check_step(sizes, n, dtype, loss=loss, **penalty)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("n, offset", [(1024, 0), (1000, 0), (1024, 1)])
def test_large_discriminator_step(n, offset, dtype):
    """On GPUs of capability 9.0 by warpgroups: operands by bulk copies; with tiles in which lanes copy, of
    real and of fake samples; with samples that do not begin on 16 bytes."""
    check_step((1024, 2048, 2048, 1), n, dtype, offset, loss="hinge", r1=2.0)


BEYOND = {  # activations, and what is dropped of samples and behind each of the hidden layers
    "dropout": (("piecewise_linear",) * 2, (0.2, 0.5, 0.3)),
    **{name: ((name,) * 2, ()) for name in ACTIVATIONS[1:]},
    "all": (("gelu", "piecewise_linear"), (0.0, 0.3, 0.5)),
}


@pytest.mark.parametrize("penalty", [{}, {"r1": 2.0}, {"r1": 2.0, "gp": 5.0}, {"near_real": 3.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", BEYOND)
def test_discriminator_step_beyond_plain_chains(name, dtype, penalty):
    """Against the CPU's kernels in float32, by the same masks, noise and interpolates; with small
    tiles and with large ones. In 16 bits rounding puts some units on zero's other side."""
    (activations, dropouts), key = BEYOND[name], torch.tensor(12345)
    options = MlpOptions("least_squares", **penalty, counted=61)
    for sizes, n in (((69, 130, 33, 1), 64), ((1024, 512, 512, 1), 600)):
        given = [torch.randn(n, sizes[0]) for _ in range(3)]
        given += [torch.randn(b, a) * (2 / a) ** 0.5 for a, b in itertools.pairwise(sizes)]
        given += [0.3 * torch.randn(b) for b in sizes[1:]]
        given = [t.to(dtype) for t in given]
        results = []
        for move in (torch.Tensor.float, torch.Tensor.cuda):
            real, fake, mixed, *p = (move(t).requires_grad_() for t in given)
            loss, _, logits = mlp_discriminator_step(
                real, fake, mixed.detach() if options.gp else None, p[:3], p[3:], [0.2, 0.2], options,
                activations, dropouts, key if dropouts else None,
            )  # fmt: skip
            results.append([logits, *torch.autograd.grad(loss, [real, fake, *p])])
        kind = "norm on tensor cores" if dtype == torch.float32 else "norm at a kink"
        for i, (want, got) in enumerate(zip(*results, strict=True)):
            same(got.cpu(), want, f"result {i} of {sizes}", kind)


def test_conditions_on_a_gpu():
    """Labels that do not count in ||grad D||, and get no gradient."""
    D = nn.Sequential(nn.Linear(79, 128), nn.SiLU(), nn.Linear(128, 1))
    real, fake = torch.randn(64, 79), torch.randn(64, 79)
    _, want_logits, wanted = step(gan.HeldLabels(D, 69), real, fake, r1=2.0)
    out, logits, got = step(gan.HeldLabels(D.cuda(), 69), real.cuda(), fake.cuda(), r1=2.0)
    assert out.path == "fused_mlp"
    for g, w in zip((logits, *got), (want_logits, *wanted), strict=True):
        same(g.cpu(), w, "what a step gives", "norm on tensor cores")


def test_dropout_in_a_graph_is_refused():
    D = nn.Sequential(nn.Linear(13, 40), nn.Dropout(0.5), nn.Linear(40, 1)).cuda()
    x = torch.randn(4, 13, device="cuda")
    gan.discriminator_step(D, x, x)
    with pytest.raises(RuntimeError, match="Dropout cannot be captured"):  # noqa: SIM117
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            gan.discriminator_step(D, x, x)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_generator_step(loss):
    D, exact = discriminator(torch.float32)
    real, fake = torch.randn(64, 784), torch.randn(64, 784)
    ours, theirs = fake.cuda().requires_grad_(), fake.double().requires_grad_()
    (got,) = torch.autograd.grad(gan.generator_step(D, ours, loss, real=real.cuda()).loss, ours)
    (want,) = torch.autograd.grad(gan.generator_step(exact, theirs, loss, real=real.double()).loss, theirs)
    same(got.cpu(), want, "gradient", "benchmark on GPU")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_smallest_discriminator_step(dtype):
    """Small enough for compute-sanitizer; every kernel of the step runs."""
    D, exact = discriminator(dtype, (13, 70, 33, 1))
    real, fake = torch.randn(5, 13).to(dtype), torch.randn(5, 13).to(dtype)
    out, logits, gradients = step(D, real.cuda(), fake.cuda(), r1=1.0)
    _, want, _ = step(exact, real.double(), fake.double(), r1=1.0)
    close(logits.cpu(), want, "value on tensor cores")
    assert out.path == "fused_mlp" and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize(
    "sizes, n", [((784, 256, 256, 1), 64), ((37, 1030, 519, 1), 600), ((1024, 2048, 2048, 1), 1000)], ids=str
)
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
