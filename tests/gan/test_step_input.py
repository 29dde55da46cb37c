"""What the GAN step is given and cannot use: each error names the argument, what was expected, what came."""

import pytest
import torch
from fusegen.gan import DiscriminatorStep, discriminator_step, generator_step
from gan_networks import PATHS, Recurrent, conv, dense, samples
from torch import nn


def given():
    """A discriminator and samples that it takes."""
    return dense(), torch.randn(4, 13), torch.randn(4, 13)


def bad_options():
    D, x, y = given()
    yield "unknown loss", ValueError, "loss", lambda: discriminator_step(D, x, y, "softplus")
    yield "negative penalty", ValueError, "r1", lambda: discriminator_step(D, x, y, r1=-1.0)
    yield "nan penalty", ValueError, "gp", lambda: discriminator_step(D, x, y, gp=float("nan"))
    yield "penalty of words", TypeError, "r2", lambda: discriminator_step(D, x, y, r2="1")
    yield (
        "penalty beyond floats",
        ValueError,
        "r1: expected a finite",
        lambda: discriminator_step(D, x, y, r1=10**400),
    )
    yield "smoothing", TypeError, "label_smoothing", lambda: discriminator_step(D, x, y, label_smoothing="a")
    yield "smoothing", ValueError, "label_smoothing", lambda: discriminator_step(D, x, y, label_smoothing=1.0)
    yield (
        "smoothing without targets",
        ValueError,
        "targets",
        lambda: discriminator_step(D, x, y, "hinge", label_smoothing=0.1),
    )
    tensor = torch.tensor(0.1)
    text = "label_smoothing: expected a number, got Tensor"
    yield "smoothing tensor", TypeError, text, lambda: discriminator_step(D, x, y, label_smoothing=tensor)
    yield "smoothing tensor of module", TypeError, text, lambda: DiscriminatorStep(D, label_smoothing=tensor)
    for gp in (0.0, 1.0):
        yield (
            f"generator, gp={gp}",
            TypeError,
            "generator: expected a torch.Generator, got int",
            lambda gp=gp: discriminator_step(D, x, y, gp=gp, generator=0),
        )


def bad_sample_dims():
    D, x, y = given()
    smooth = dense(activation=nn.Softplus)
    for dim in (True, 0.0, "0", [0], torch.tensor(0)):
        text = f"sample_dim: expected an integer, got {type(dim).__name__}"
        yield (
            f"sample_dim {dim!r}",
            TypeError,
            text,
            lambda dim=dim: discriminator_step(smooth, x, y, sample_dim=dim),
        )
        yield (
            f"generator's {dim!r}",
            TypeError,
            text,
            lambda dim=dim: generator_step(smooth, x, sample_dim=dim),
        )
        yield f"module's {dim!r}", TypeError, text, lambda dim=dim: DiscriminatorStep(smooth, sample_dim=dim)
    yield (
        "dim of D",
        TypeError,
        "sample_dim: expected an integer, got str",
        lambda: generator_step(_Sideways(), x),
    )
    yield (
        "negative dim",
        ValueError,
        "sample_dim: expected .* at least 0",
        lambda: DiscriminatorStep(D, sample_dim=-1),
    )


def bad_samples():
    D, x, y = given()
    smooth = dense(activation=nn.Softplus)
    yield "features", ValueError, "same shape", lambda: discriminator_step(D, x, y[:, :5])
    yield "features of D", ValueError, "13 features", lambda: discriminator_step(D, x[:, :5], y[:, :5])
    yield "dtype", RuntimeError, "same dtype", lambda: discriminator_step(D, x, y.double())
    yield "dtype of D", RuntimeError, "torch.float32", lambda: discriminator_step(D, x.double(), y.double())
    yield "device", RuntimeError, "same device", lambda: discriminator_step(D, x, y.to("meta"))
    yield "integers", TypeError, "floating-point", lambda: discriminator_step(D, x.long(), y.long())
    yield "no samples", ValueError, "at least one", lambda: discriminator_step(D, x[:0], y)
    yield "no tensor", TypeError, "real", lambda: discriminator_step(D, None, y)
    yield "sizes, gp", ValueError, "equal sizes", lambda: discriminator_step(D, x, y[:3], gp=1.0)
    yield "sizes, pairs", ValueError, "equal sizes", lambda: discriminator_step(D, x, y[:3], "relativistic")
    yield "no real", ValueError, "real", lambda: generator_step(D, x, "relativistic")
    sparse = x.to_sparse()
    yield "sparse", TypeError, "real: .* torch.sparse_coo", lambda: discriminator_step(smooth, sparse, sparse)
    yield "sparse fakes", TypeError, "fake: .* torch.sparse_coo", lambda: generator_step(D, sparse)
    for name, net in (("dense", D), ("smooth", smooth), ("conv", conv())):
        text = r": expected samples of features, \[N, ...\], got shape \[13\]"
        yield (
            f"one dim, {name}",
            ValueError,
            f"real{text}",
            lambda net=net: discriminator_step(net, x[0], y[0], r1=1.0),
        )
        yield (
            f"one dim, {name}, generator",
            ValueError,
            f"fake{text}",
            lambda net=net: generator_step(net, x[0]),
        )


def bad_discriminators():
    _, x, y = given()
    yield "no module", TypeError, "nn.Module", lambda: discriminator_step(lambda x: x, x, y)
    yield (
        "module of None",
        TypeError,
        "D: expected an nn.Module, got NoneType",
        lambda: DiscriminatorStep(None),
    )
    sigmoid = nn.Sequential(nn.Linear(13, 1), nn.Sigmoid())
    yield "sigmoid", ValueError, "Sigmoid", lambda: discriminator_step(sigmoid, x, y)
    yield "module of Sigmoid", ValueError, "Sigmoid", lambda: DiscriminatorStep(sigmoid)
    wide = nn.Sequential(nn.Linear(13, 2))
    yield "two logits", ValueError, "logits of shape", lambda: discriminator_step(wide, x, y)
    frozen_input = _Detached()
    yield "no gradient", RuntimeError, "r1", lambda: discriminator_step(frozen_input, x, y, r1=1.0)
    normed = nn.Sequential(nn.Linear(13, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    yield (
        "batch norm of one",
        ValueError,
        "more than 1 value",
        lambda: discriminator_step(normed, x[:1], y[:1]),
    )


def discriminators_of_another_dtype_or_device():
    for name, dim in (("softplus", 0), ("conv", 0), ("recurrent", 1), ("torch's LSTM", 1)):
        make, shape = PATHS[name][:2] if name in PATHS else (lambda: Recurrent(nn.LSTM), (4, 3))
        z = samples(shape, 3, dim, torch.float32)
        for where, net, other in (("torch.float64", make().double(), z), ("cpu", make(), z.to("meta"))):
            text = f"D: (its parameters are|weight of map 0 is) (on )?{where}, "
            text += "the samples (are torch.float32|on meta)"
            for weights in ({}, {"r1": 1.0}):
                yield (
                    f"{name}, {where}, {weights}",
                    RuntimeError,
                    text,
                    lambda net=net, other=other, weights=weights: discriminator_step(
                        net, other, other, **weights
                    ),
                )
            yield (
                f"{name}, {where}, generator",
                RuntimeError,
                text,
                lambda net=net, x=other: generator_step(net, x),
            )


def penalties_without_gradients():
    _, x, y = given()
    unknown = dense(activation=nn.Mish)
    for off in (torch.no_grad, torch.inference_mode):
        for penalty in ("r1", "r2", "gp"):
            yield (
                f"{penalty} under {off.__name__}",
                RuntimeError,
                f"{penalty}: a penalty is a gradient, but gradients are switched off",
                lambda off=off, penalty=penalty: off()(discriminator_step)(unknown, x, y, **{penalty: 1.0}),
            )


class _Detached(nn.Module):
    def forward(self, x):
        return x.detach().sum(1)


class _Sideways(nn.Module):
    sample_dim = "0"


class _Casting(nn.Module):
    """A discriminator in double that takes any floats, and may raise for a reason of its own."""

    def __init__(self, message=None):
        super().__init__()
        self.net, self.message = dense(activation=nn.Softplus).double(), message

    def forward(self, x):
        if self.message:
            raise RuntimeError(self.message)
        return self.net(x.double()).float()


def test_a_discriminator_may_cast():
    x = torch.randn(3, 13, requires_grad=True)
    discriminator_step(_Casting(), x, x, r1=1.0).loss.backward()
    generator_step(_Casting(), x).loss.backward()
    with pytest.raises(RuntimeError, match="no such words"):
        generator_step(_Casting("no such words"), x)
    with torch.autocast("cpu", torch.bfloat16):
        discriminator_step(dense(activation=nn.Softplus), x.bfloat16(), x.bfloat16())


def test_samples_of_one_dim_for_a_discriminator_that_takes_them():
    class Net(nn.Module):
        def forward(self, x):
            return x**2

    assert discriminator_step(Net(), torch.randn(3), torch.randn(3), r1=1.0).penalty > 0


def test_a_generator_of_another_device_is_named():
    """Where it draws; without data nothing is drawn, and any will do."""
    x = torch.randn(3, 13)

    class Elsewhere(torch.Generator):
        device = torch.device("cuda", 0)

    with pytest.raises(
        RuntimeError, match="generator: expected one of cpu, as the samples, got one of cuda:0"
    ):
        discriminator_step(dense(), x, x, gp=1.0, generator=Elsewhere())
    discriminator_step(dense(), x, x, generator=Elsewhere())
    discriminator_step(dense().to("meta"), x.to("meta"), x.to("meta"), gp=1.0, generator=torch.Generator())


BAD = (
    bad_options,
    bad_sample_dims,
    bad_samples,
    bad_discriminators,
    discriminators_of_another_dtype_or_device,
    penalties_without_gradients,
)


@pytest.mark.parametrize(
    ("error", "text", "call"), [pytest.param(*b[1:], id=b[0]) for subject in BAD for b in subject()]
)
def test_bad_input(error, text, call):
    with pytest.raises(error, match=text):
        call()
