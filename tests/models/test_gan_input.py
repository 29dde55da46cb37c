"""What the GANs and their step are given and cannot use, and the forms that integers may take."""

import numpy as np
import pytest
import torch
from fusegen.gan import GanOptions, Optimizers, gan_step
from fusegen.models import DCGAN, MLPGAN, RecurrentGAN
from gan_models import MODELS, N, T, dcgan, labels_of, mlp, real_of, series, text
from torch import nn

BAD_MODELS = {
    "noise": (lambda: MLPGAN(noise_size=0), ValueError, "noise_size"),
    "one class": (lambda: MLPGAN(num_classes=1), ValueError, "num_classes"),
    "ema": (lambda: DCGAN(ema=1.0), ValueError, "ema"),
    "size": (lambda: DCGAN(size=30), ValueError, "size: expected one of 28, 32, 64, got 30"),
    "channels": (lambda: DCGAN(channels=2), ValueError, "channels"),
    "hidden": (lambda: MLPGAN(hidden=()), ValueError, "hidden"),
    "hidden type": (lambda: MLPGAN(hidden=3), TypeError, "hidden"),
    "neither": (lambda: RecurrentGAN(), ValueError, "features, vocab_size"),
    "both": (lambda: RecurrentGAN(3, vocab_size=3), ValueError, "features, vocab_size"),
    "cell": (lambda: RecurrentGAN(3, cell="rnn"), ValueError, "cell"),
    "output": (lambda: RecurrentGAN(3, output="relu"), ValueError, "output"),
    "temperature": (lambda: RecurrentGAN(vocab_size=3, temperature=0), ValueError, "temperature"),
    "spectral norm": (lambda: MLPGAN(spectral_norm=1), TypeError, "spectral_norm"),
    "loss": (lambda: GanOptions(loss="gan"), ValueError, "loss"),
    "penalty": (lambda: GanOptions(r1=-1), ValueError, "r1"),
    "interval": (lambda: GanOptions(penalty_every=0), ValueError, "penalty_every"),
    "interval of no penalty": (lambda: GanOptions(penalty_every=4), ValueError, "penalty_every: .* give r1="),
    "weight beyond floats": (lambda: GanOptions(r1=10**400), ValueError, "r1: expected a number at least 0"),
    "clip beyond floats": (
        lambda: GanOptions(clip=10**400),
        ValueError,
        "clip: expected a number at least 0",
    ),
    "lazy weight beyond floats": (
        lambda: GanOptions(gp=1e308, penalty_every=100),
        ValueError,
        r"gp, penalty_every: .* 1e\+308 and 100",
    ),
    "no features": (lambda: RecurrentGAN(0), ValueError, "features: expected an integer at least 1, got 0"),
    "cells": (lambda: RecurrentGAN(3, cell=["lstm"]), ValueError, r"cell: .* got \['lstm'\]"),
    "outputs": (lambda: RecurrentGAN(3, output=["tanh"]), ValueError, r"output: .* got \['tanh'\]"),
    "size of float": (lambda: DCGAN(28.0), TypeError, "size: expected an integer, got float 28.0"),
    "sizes": (lambda: DCGAN([28]), TypeError, r"size: expected an integer, got list \[28\]"),
    "channels of bool": (lambda: DCGAN(28, True), TypeError, "channels: expected an integer, got bool True"),
    "channels of float": (lambda: DCGAN(28, 1.0), TypeError, "channels: expected an integer, got float 1.0"),
}
BAD_CALLS = {
    "no labels": (lambda: step_of(mlp(num_classes=2)), ValueError, "labels: this model has 2 classes"),
    "labels": (lambda: step_of(mlp(), labels=torch.zeros(N).long()), ValueError, "labels: this model has no"),
    "label range": (
        lambda: step_of(mlp(num_classes=2), labels=torch.arange(N)), ValueError, "from 0 to 1, got 0 to 5"
    ),
    "label count": (
        lambda: step_of(mlp(num_classes=2), labels=torch.zeros(2).long()), ValueError, r"\[6\], got \[2\]"
    ),
    "label type": (lambda: step_of(mlp(num_classes=2), labels=torch.zeros(N)), TypeError, "labels"),
    "shape": (lambda: step_of(mlp(), real=torch.zeros(N, 1, 5, 5)), ValueError, r"expected shape \[N, 1, 6"),
    "dtype": (lambda: step_of(mlp(), real=torch.zeros(N, 1, 6, 6).long()), TypeError, "samples"),
    "lengths of images": (lambda: step_of(dcgan(), lengths=torch.ones(N)), ValueError, "lengths"),
    "lengths": (lambda: step_of(series(), lengths=torch.arange(N)), ValueError, "from 1 to 5, got 0 to 5"),
    "token": (lambda: step_of(text(), real=torch.full((T, N), 7)), ValueError, "tokens from 0 to 6, got 7"),
    "eval": (lambda: step_of(mlp().eval()), RuntimeError, "training mode"),
    "n": (lambda: mlp().sample(0), ValueError, "n: expected"),
    "sample label": (lambda: mlp(num_classes=3).sample(2, labels=3), ValueError, "from 0 to 2, got 3"),
    "unclassed": (lambda: mlp().sample(2, labels=3), ValueError, "no classes"),
    "truncation": (lambda: mlp().sample(2, truncation=0), ValueError, "truncation"),
    "sample lengths": (lambda: series().sample(2, lengths=[1, 9]), ValueError, "from 1 to 5"),
    "options": (lambda: step_of(mlp(), options={}), TypeError, "options: expected GanOptions, got dict"),
    "model": (
        lambda: gan_step(nn.Linear(4, 1), torch.randn(6, 4), None), TypeError, "model: .* got Linear without"
    ),
    "no grad": (lambda: torch.no_grad()(step_of)(mlp()), RuntimeError, "gan_step: expected gradients"),
    "inference": (lambda: torch.inference_mode()(step_of)(mlp()), RuntimeError, "expected gradients"),
    "sparse": (lambda: step_of(mlp(), real_of(mlp()).to_sparse()), TypeError, "samples: .* torch.sparse_coo"),
    "device": (
        lambda: step_of(mlp(), real_of(mlp()).to("meta")), RuntimeError, "same device, got meta and cpu"
    ),
    "complex tokens": (
        lambda: step_of(text(), torch.zeros(T, N).cfloat()), TypeError, "samples: .* torch.complex64"
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", [mlp, dcgan, series], ids=["mlp", "dcgan", "series"])
def test_another_dtype_than_the_models_is_named(make):
    model = make()
    with pytest.raises(RuntimeError, match=r"same dtype, got torch.float64 and torch.float32"):
        step_of(model, real_of(model).double())


def step_of(model, real=None, **kw):
    return gan_step(model, real_of(model) if real is None else real, Optimizers.adam(model), **kw)


@pytest.mark.parametrize(
    ("call", "error", "message"), [*BAD_MODELS.values(), *BAD_CALLS.values()], ids=[*BAD_MODELS, *BAD_CALLS]
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 2])
def test_no_samples_are_named(make, classes):
    model = make(num_classes=classes)
    real = real_of(model)
    empty = [real.narrow(model.sample_dim, 0, 0)]
    if make in (series, text):
        empty.append(real[:0])
    for x in empty:
        labels = labels_of(model, x.shape[model.sample_dim])
        lengths = torch.ones(x.shape[1], dtype=torch.int64) if make in (series, text) else None
        for call in (model.critic_input, lambda x, **kw: step_of(model, x, **kw)):
            with pytest.raises(
                ValueError, match=rf"samples: expected at least one, got shape \[{x.shape[0]}, "
            ):
                call(x, labels=labels, lengths=lengths)


ANY_FORM = "expected an integer, a sequence of them or an integer tensor, got"
WRONG_INTEGERS = [
    (torch.zeros(N, dtype=torch.complex64), TypeError, "expected an integer tensor, got torch.complex64"),
    (torch.tensor(torch.nan), TypeError, "expected an integer tensor, got torch.float32"),
    (2.5, TypeError, f"{ANY_FORM} float 2.5"),
    (True, TypeError, f"{ANY_FORM} bool True"),
    ("abc", TypeError, f"{ANY_FORM} str 'abc'"),
    (np.array(1), TypeError, f"{ANY_FORM} ndarray"),
    ([1.5] * N, TypeError, "expected an integer, got float 1.5"),
    ([True] * N, TypeError, "expected an integer, got bool True"),
    (np.ones(N), TypeError, "expected an integer, got float64"),
    (2**70, ValueError, f"expected an integer from . to ., got {2**70}"),
    ([1] * (N - 1) + [2**70], ValueError, rf"\[{N - 1}\]: expected .*, got {2**70}"),
    (torch.full((N,), 2**63 + 1, dtype=torch.uint64), ValueError, "expected values from . to ., got -"),
    ([1], ValueError, r"expected shape \[6\], got \[1\]"),
]
INTEGERS = {
    "int": 1,
    "numpy int": np.int64(1),
    "list": [1] * N,
    "tuple": (1,) * N,
    "numpy": np.ones(N, dtype=np.int32),
    "scalar": torch.tensor(1),
    "unsigned": torch.ones(N, dtype=torch.uint16),
    "tensor": torch.ones(N, dtype=torch.int64),
}


def takes_integers(model, name):
    """Every call that takes labels or lengths (``name``), by its own name."""
    besides = {} if name == "labels" else {"labels": labels_of(model)}
    seeded = lambda: torch.Generator().manual_seed(0)
    drawing = {"generator": seeded()} if isinstance(model, RecurrentGAN) else {}
    real, noise = real_of(model), model.noise(N, generator=seeded())
    return {
        "critic_input": lambda x: model.critic_input(real, **besides, **{name: x}),
        "generate": lambda x: model.generate(noise, **besides, **drawing, **{name: x}),
        "sample": lambda x: model.sample(N, generator=seeded(), **besides, **{name: x}),
        "gan_step": lambda x: step_of(model, real, generator=seeded(), **besides, **{name: x}),
    }


TAKERS = [(mlp, "labels"), (dcgan, "labels"), (series, "labels"), (series, "lengths"), (text, "lengths")]


@pytest.mark.parametrize("call", ["critic_input", "generate", "sample", "gan_step"])
@pytest.mark.parametrize(("make", "name"), TAKERS, ids=lambda x: getattr(x, "__name__", x))
def test_labels_and_lengths_are_integers_in_any_form(make, name, call):
    want = None
    for form, given in INTEGERS.items():
        torch.manual_seed(0)
        got = takes_integers(make(num_classes=3), name)[call](given)
        if call == "gan_step":
            got = torch.tensor([got.discriminator_loss, got.generator_loss])
        want = got if want is None else want
        assert torch.equal(got, want), form


@pytest.mark.parametrize("call", ["critic_input", "generate", "sample", "gan_step"])
@pytest.mark.parametrize(("make", "name"), TAKERS, ids=lambda x: getattr(x, "__name__", x))
def test_labels_and_lengths_of_other_types_are_named(make, name, call):
    taker = takes_integers(make(num_classes=3), name)[call]
    for given, error, message in WRONG_INTEGERS:
        with pytest.raises(error, match=rf"^{name}.*{message}"):
            taker(given)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 2])
def test_noise_that_does_not_fit_is_named(make, classes):
    model = make(num_classes=classes)
    labels, good = labels_of(model), model.noise(N)
    expected = rf"\[{'T, B' if model.sample_dim else 'N'}, {model.noise_size}\]"
    for noise in (good[0], good[..., 1:], good[:0], good.unsqueeze(0)):
        with pytest.raises(ValueError, match=rf"^noise: expected shape {expected}.*, got \[{noise.shape[0]}"):
            model.generate(noise, labels)
    for noise, got in (([1.0], "list"), (good.long(), "torch.int64")):
        with pytest.raises(TypeError, match=f"^noise: expected a .*tensor, got {got}"):
            model.generate(noise, labels)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 2])
def test_a_generator_of_another_type_is_named(make, classes):
    model = make(num_classes=classes)
    takers = [lambda: model.noise(2, generator=0), lambda: model.sample(2, generator=0)]
    takers.append(lambda: step_of(model, labels=labels_of(model), generator=0))
    if make is text:
        takers.append(lambda: model.generate(model.noise(N), labels_of(model), generator=0))
    for call in takers:
        with pytest.raises(TypeError, match=r"^generator: expected a torch.Generator, got int"):
            call()


@pytest.mark.parametrize(
    ("given", "error", "got"),
    [
        (lambda a, b: None, TypeError, "NoneType"),
        (lambda a, b: a, TypeError, "Adam"),
        (lambda a, b: "ab", TypeError, "str"),
        (lambda a, b: (a,), ValueError, "1"),
        (lambda a, b: (a, b, a), ValueError, "3"),
        (lambda a, b: ("a", "b"), TypeError, "str and str"),
        (lambda a, b: (a, None), TypeError, "Adam and NoneType"),
    ],
)
def test_optimizers_are_two(given, error, got):
    model = mlp()
    optimizers = given(*Optimizers.adam(model))
    with pytest.raises(error, match=f"^optimizers: expected two, .*, got {got}$"):
        gan_step(model, real_of(model), optimizers)


@pytest.mark.parametrize("make", [mlp, dcgan, series], ids=["mlp", "dcgan", "series"])
@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_real_samples_receive_no_gradient(make, loss):
    model = make()
    leaf = real_of(model).requires_grad_()
    for real in (leaf, leaf * 1):
        gan_step(model, real, Optimizers.adam(model), GanOptions(loss, r1=1.0))
    assert leaf.grad is None


def test_swapped_optimizers_are_refused():
    model = MLPGAN((4,), 3, (5,), (5,))
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (model.discriminator, model.generator)]
    with pytest.raises(ValueError, match=r"optimizers: expected the generator's and the discriminator's"):
        gan_step(model, torch.randn(6, 4), tuple(optimizers))


@pytest.mark.parametrize("labels", [torch.tensor(1.7), torch.tensor(True)])
def test_a_single_label_is_an_integer(labels):
    with pytest.raises(TypeError, match="labels: expected an integer tensor"):
        MLPGAN((4,), 3, (5,), (5,), num_classes=3).sample(2, labels=labels)
