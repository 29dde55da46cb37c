"""Convolutions and batch norms in blocks of samples, each pass against torch."""

import pytest
import torch
import torch.nn.functional as F
from fusegen.ops import convolution
from fusegen.ops.convolution import Geometry
from tolerances import same

THREADS = 2  # a call's work is divided
LANES = convolution.lanes(torch.float64)

# x [C, h, w], W [O, C / groups, kh, kw], stride, padding, dilation
GEOMETRIES = {
    "one value": ((1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1)),
    "few channels": ((3, 8, 6), (7, 3, 4, 4), (2, 2), (1, 1), (1, 1)),
    "three by three": ((40, 3, 5), (70, 40, 3, 3), (1, 1), (1, 1), (1, 1)),
    "longer than a block": ((300, 2, 2), (5, 300, 1, 1), (1, 1), (0, 0), (1, 1)),
    "groups, odd everything": ((24, 5, 9), (16, 12, 2, 3), (3, 2), (2, 0), (1, 2)),
    "whole picture": ((9, 4, 4), (1, 9, 4, 4), (1, 1), (0, 0), (1, 1)),
    "padding past the kernel": ((5, 3, 3), (4, 5, 5, 5), (2, 2), (3, 3), (1, 1)),
    "pixels that no tap meets": ((2, 7, 7), (3, 2, 1, 1), (3, 3), (0, 0), (1, 1)),
}


def blocked(x, width):
    """[N, C, h, w] -> [blocks, h * w, C, width]"""
    return x.reshape(len(x) // width, width, x.shape[1], -1).permute(0, 3, 2, 1).contiguous()


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_passes_equal_torch(geometry, vectors):
    size, kernel, stride, padding, dilation = GEOMETRIES[geometry]
    groups, width = size[0] // kernel[1], vectors * LANES
    at = Geometry(*size[1:], *stride, *padding, *dilation, groups)
    x = torch.randn(2 * width, *size, dtype=torch.float64)
    W, b = torch.randn(kernel, dtype=torch.float64), torch.randn(kernel[0], dtype=torch.float64)
    want = F.conv2d(x, W, b, stride, padding, dilation, groups)
    got = convolution.forward(at, blocked(x, width), W, b, 0.2, want[0, 0].numel())
    same(got, blocked(F.leaky_relu(want, 0.2), width), "output", "pass")
    got = convolution.forward(at, blocked(x, width), W, None, 1.0, want[0, 0].numel())
    same(got, blocked(want - b[:, None, None], width), "output without an activation", "pass")

    dy = torch.randn_like(want)
    dx, dW, _ = torch.ops.aten.convolution_backward(
        dy, x, W, None, stride, padding, dilation, False, [0, 0], groups, [True, True, False]
    )
    got = convolution.input_gradient(at, blocked(dy, width), W, None, 1.0)
    same(got, blocked(dx, width), "gradient by the input", "pass")
    got = convolution.input_gradient(at, blocked(dy, width), W, blocked(x, width), 0.2)
    same(got, blocked(torch.where(x > 0, dx, 0.2 * dx), width), "the same behind an activation", "pass")
    got = convolution.weight_gradient(at, blocked(dy, width), blocked(x, width), W)
    same(got, dW, "gradient by the weights", "pass")


@pytest.mark.parametrize(("slope", "sign"), [(0.0, 1.0), (0.2, -1.0)], ids=["relu", "leaky relu"])
def test_gradients_pass_nan_as_in_torch(slope, sign):
    """To the gradient, NaN that an activation gave is positive with ReLU, negative with LeakyReLU."""
    size, kernel, stride, padding, dilation = GEOMETRIES["few channels"]
    at = Geometry(*size[1:], *stride, *padding, *dilation)
    x, W = torch.randn(LANES, *size, dtype=torch.float64), torch.randn(kernel, dtype=torch.float64)
    y = F.conv2d(x, W, None, stride, padding)
    assert (
        convolution.forward(at, blocked(x * torch.nan, LANES), W, None, slope, y[0, 0].numel()).isnan().all()
    )
    dirty, clean = x.clone(), x.clone()
    dirty[1, 2, 3, 4], clean[1, 2, 3, 4] = torch.nan, sign
    dy = blocked(torch.randn_like(y), LANES)
    got, want = (convolution.input_gradient(at, dy, W, blocked(t, LANES), slope) for t in (dirty, clean))
    assert torch.equal(got, want)

    of = torch.randn_like(blocked(x, LANES))
    mean, var = convolution.batch_norm(of, LANES, None, None, 1e-3, slope, torch.empty_like(of))
    results = []
    for t in (dirty, clean):
        dx = torch.empty_like(of)
        results.append([dx, *convolution.batch_norm_backward(
            torch.ones_like(of), blocked(t, LANES), of, LANES, None, mean, var, 1e-3, slope, dx
        )])  # fmt: skip
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("n", sorted({2 * LANES, 2 * LANES - 1, LANES + 1}))
def test_batch_norm_equals_torch(n, slope, affine):
    width, C = LANES, 5
    x = torch.randn(2 * width, C, 3, 7, dtype=torch.float64)
    weight, bias = torch.randn(2, C, dtype=torch.float64) if affine else (None, None)
    inputs = [t.clone().requires_grad_() for t in (x[:n], weight, bias) if t is not None]
    want = F.batch_norm(inputs[0], None, None, *inputs[1:], training=True, eps=1e-3)
    want = F.leaky_relu(want, slope)
    dy = torch.randn_like(want)
    wanted = torch.autograd.grad(want, inputs, dy)

    y = torch.empty_like(blocked(x, width))
    of = blocked(x, width), n, weight, bias, 1e-3, slope
    mean, var = convolution.batch_norm(*of, y)
    plain = y.permute(0, 3, 2, 1).reshape(x.shape)
    same(plain[:n], want, "output", "pass")
    assert not plain[n:].any()
    same(mean, x[:n].mean((0, 2, 3)), "mean", "pass")
    same(var, x[:n].var((0, 2, 3), correction=0), "variance", "pass")
    dx, all_dy = torch.full_like(y, torch.nan), torch.full_like(x, torch.nan)
    all_dy[:n] = dy  # what lies past the samples counts for nothing
    found = convolution.batch_norm_backward(
        blocked(all_dy, width), y, of[0], n, weight, mean, var, 1e-3, slope, dx
    )
    plain = dx.permute(0, 3, 2, 1).reshape(x.shape)
    same(plain[:n], wanted[0], "gradient by the input", "pass")
    assert not plain[n:].any()
    for got, wish, name in zip(found, wanted[1:], ("weight", "bias"), strict=False):
        same(got, wish, f"gradient by the {name}", "pass")


def bad_calls():
    W, a = torch.randn(4, 2, 3, 3), convolution.lanes(torch.float32)
    b = torch.randn(1, 64, 2, a)
    at = Geometry(8, 8)
    yield "width", ValueError, "vectors", lambda: convolution.forward(at, b[..., :-1], W, None, 1.0, 36)
    yield (
        "pixels",
        ValueError,
        "x: expected shape",
        lambda: convolution.forward(at, b[:, 1:], W, None, 1.0, 36),
    )
    yield "outputs", ValueError, "y: expected shape", lambda: convolution.forward(at, b, W, None, 1.0, 35)
    yield (
        "kernel",
        ValueError,
        "kernel",
        lambda: convolution.forward(Geometry(8, 8, dilation_h=9), b, W, None, 1.0, 36),
    )
    yield (
        "groups",
        ValueError,
        "x: expected shape",
        lambda: convolution.forward(Geometry(8, 8, groups=2), b, W, None, 1.0, 36),
    )
    yield (
        "half",
        ValueError,
        "float32 or float64",
        lambda: convolution.forward(at, b.half(), W.half(), None, 1.0, 36),
    )
    yield (
        "not contiguous",
        ValueError,
        "contiguous",
        lambda: convolution.forward(at, b, W.transpose(2, 3), None, 1.0, 36),
    )
    n = a + 1
    yield (
        "samples",
        ValueError,
        "samples in every block",
        lambda: convolution.batch_norm(b, n, None, None, 1e-5, 1.0, torch.empty_like(b)),
    )
    huge = 2**31 - 1
    for name, geometry in (
        ("padding", Geometry(8, 8, padding_h=huge, padding_w=huge)),
        ("padding past 64 bits", Geometry(8, 8, padding_h=2**63 - 1)),
        ("dilation", Geometry(8, 8, dilation_h=2**62)),
        ("sizes", Geometry(2**32, 2**32)),
        ("stride", Geometry(8, 8, stride_w=0)),
        ("negative groups", Geometry(8, 8, groups=-2)),
    ):
        yield name, ValueError, "expected", lambda at=geometry: convolution.forward(at, b, W, None, 1.0, 36)
        yield (
            f"{name}, gradient",
            ValueError,
            "expected",
            lambda at=geometry: (
                convolution.input_gradient(at, torch.randn(1, 36, 4, a), W, None, 1.0)
                if at.height < 2**31 and at.groups > 0
                else convolution.weight_gradient(at, b, b, W)
            ),
        )


@pytest.mark.parametrize("call", list(bad_calls()), ids=lambda call: call[0])
def test_bad_input(call):
    _, kind, text, run = call
    with pytest.raises(kind, match=text):
        run()
