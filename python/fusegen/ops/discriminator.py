"""torch.ops.fusegen.mlp_discriminator_step: the loss of a dense discriminator on real and fake samples, its
penalties, and the gradients of both, in closed form.

For a network whose activations are piecewise linear, with one logit a sample, all weight gradients are one
product a layer: dW_l = U_l^T (s H_{l-1} + c T_{l-1}), where H are the activations, U the adjoints of one
logit, s the derivative of the loss by the logit, and T the tangents of the input gradient v = U_1 W_1 through
the same masks. Forward computes H, U and v, backward T and the products. Smooth activations add R_l^T H_{l-1}
to a penalty's gradient, of what their second derivatives send back: docs/penalties.md derives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _C, _backend, reference
from . import route
from .cuda import discriminator as cuda_discriminator
from .cuda.engine import ENGINE, Engine
from .differentiate import Differentiable, Forward, autograd_function
from .layout import dense_all, empty_grads, present, rows, wider
from .register import Kernel, below_autograd, register, register_autograd

PIECEWISE = "piecewise_linear"
ACTIVATIONS = (PIECEWISE, "tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "elu")

SCALARS = (
    "loss", "penalty", "mean_real", "mean_fake", "sign_real", "sign_fake",
    "norm_real", "norm_fake", "norm_mixed",
)  # fmt: skip


class MlpOptions(NamedTuple):
    """What an MLP step computes; ``target`` is that of real samples, 1 less the label smoothing.

    near_real and near_fake: weights w of w/2 mean (D(x + noise) - D(x))^2, in place of r1 and r2; 0 for none.
    Such a group is twice as long, its samples with noise behind those without, of the same dropout masks.
    counted: the first of the inputs, which count in ||grad D|| and get a gradient; 0 for all.
    """

    loss: str
    generator: bool = False
    target: float = 1.0
    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0
    near_real: float = 0.0
    near_fake: float = 0.0
    counted: int = 0


class Passes(NamedTuple):
    """Forward and backward on one device, with the arguments of the schemas."""

    forward: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    backward: Callable[..., list[Tensor]]


_INPUTS = (
    "Tensor? real, Tensor fake, Tensor? mixed, Tensor[] weights, Tensor?[] biases, float[] slopes, "
    "str[] activations, float[] dropouts, Tensor? key"
)
_OPTIONS = (
    "str loss, bool generator, float target, float r1, float r2, float gp, "
    "float near_real, float near_fake, int counted, bool[] gradients"
)
_OUTPUTS = "(Tensor loss, Tensor scalars, Tensor logits, Tensor saved)"
_KEPT = "Tensor scale, Tensor saved"


class _Inputs(NamedTuple):
    """The arguments of the schemas before the options, in their order."""

    real: Tensor | None
    fake: Tensor
    mixed: Tensor | None
    weights: Sequence[Tensor]
    biases: Sequence[Tensor | None]
    slopes: Sequence[float]
    activations: Sequence[str]
    dropouts: Sequence[float]
    key: Tensor | None


def _engine_step(args: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of the schema, as the engine takes a step: see csrc/bind."""
    real, fake, mixed, weights, biases, slopes, activations, dropouts, key, *options, gradients = args
    layers = dense_all(weights), dense_all(biases), list(slopes), list(activations), list(dropouts), key
    return *options, rows(real), rows(fake), rows(mixed), *layers, *gradients, torch.get_num_threads()


def _results(real: Tensor | None, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Empty loss, scalars and logits. The loss is a tensor of its own, which users may change in place."""
    return (
        fake.new_empty((), dtype=wider(fake.dtype)),
        fake.new_empty(len(SCALARS), dtype=torch.float64),
        fake.new_empty(fake.shape[0] + (0 if real is None else real.shape[0])),
    )


def _forward(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    step, fake = _engine_step(args), args[1]
    loss, scalars, logits = _results(args[0], fake)
    saved = fake.new_empty(_C.mlp_saved_bytes(step), dtype=torch.uint8)
    _C.mlp_forward(step, loss, scalars, logits, saved)
    return loss, scalars, logits, saved


def _forward_cuda(engine: Engine, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss, scalars, logits = _results(args[0], args[1])
    saved = cuda_discriminator.forward(engine, _engine_step(args), args[1], loss, scalars, logits)
    return loss, scalars, logits, saved


def _forward_fake(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bytes_: int | torch.SymInt
    try:
        bytes_ = torch.library.get_ctx().new_dynamic_size()
    except RuntimeError:  # meta tensors, or a FakeTensorMode without symbols for what only the engine knows
        bytes_ = 0
    return *_results(args[0], args[1]), args[1].new_empty(bytes_, dtype=torch.uint8)


def _gradients(args: Sequence[Any], wanted: Sequence[bool]) -> list[Tensor | None]:
    real, fake, _, weights, biases, *_ = args
    return empty_grads((real, fake, *weights, *biases), wanted)


def _backward(scale: Tensor, saved: Tensor, *args: Any) -> list[Tensor]:
    *given, wanted = args
    dx_real, dx_fake, *rest = grads = _gradients(given, wanted)
    n = len(given[3])
    _C.mlp_backward(_engine_step(given), float(scale), saved, rest[:n], rest[n:], dx_real, dx_fake)
    return present(grads)


def _backward_cuda(engine: Engine, scale: Tensor, saved: Tensor, *args: Any) -> list[Tensor]:
    *given, wanted = args
    dx_real, dx_fake, *rest = grads = _gradients(given, wanted)
    n = len(given[3])
    into = (dx_real, dx_fake, rest[:n], rest[n:])
    cuda_discriminator.backward(engine, _engine_step(given), given[1], scale, saved, into)
    return present(grads)


def cuda_passes(engine: Engine) -> Passes:
    """The op on this engine."""
    return Passes(partial(_forward_cuda, engine), partial(_backward_cuda, engine))


def _reference(inputs: _Inputs, options: MlpOptions) -> reference.MlpStep:
    return reference.mlp_discriminator_step(**inputs._asdict(), **options._asdict())


class _MlpStep(Differentiable):
    """The op. ``static``: slopes, activations and dropouts, options, gradients, the number of maps;
    ``tensors``: real, fake, mixed, the key, the weights, the biases."""

    name = "mlp_discriminator_step"
    outputs = 4
    differentiable = 1

    def __init__(self, cpu: Passes, cuda: Passes) -> None:
        self.direct, self.direct_cuda = cpu, cuda
        self.op = register(
            self.name,
            Kernel(f"({_INPUTS}, {_OPTIONS}) -> {_OUTPUTS}", cpu.forward, cuda.forward, _forward_fake),
        )
        self.backward_op = register(
            f"{self.name}_backward",
            Kernel(
                f"({_KEPT}, {_INPUTS}, {_OPTIONS}, bool[] wanted) -> Tensor[]",
                cpu.backward,
                cuda.backward,
                lambda scale, saved, *args: present(_gradients(args, args[-1])),
            ),
        )
        self._apply, self._apply_directly = autograd_function(self)
        register_autograd(self.name, self._autograd)

    def __call__(self, inputs: _Inputs, options: MlpOptions) -> tuple[Tensor, Tensor, Tensor]:
        tensors, layers = _tensors(inputs), inputs[5:8]
        _check_mixed(inputs)
        way = route.of_call(tensors)
        if way in (route.REFERENCE, route.MAPPED):
            _backend.note(f"{self.name} under torch.func or forward-mode differentiation: the reference runs")
            step = _reference(inputs, options)
            return step.loss, step.scalars, step.logits
        if way == route.DIRECT and _backend.needs_grad(*tensors):
            static = (layers, options, self._asked_of_backward(tensors, options), len(inputs.weights))
            loss, scalars, logits, _ = self._apply_directly(True, static, *tensors)
        else:
            run = self.directly(inputs.fake).forward if way == route.DIRECT else self.op
            loss, scalars, logits, _ = run(*inputs, *options, [False] * 3)
        return loss, scalars, logits

    @staticmethod
    def _asked_of_backward(tensors: Sequence[Tensor | None], options: MlpOptions) -> list[bool]:
        """What backward may be asked for: weight gradients, those by real and by fake."""
        need = [t is not None and t.requires_grad for t in tensors]
        return [any(need[4:]) and not options.generator, need[0] and not options.generator, need[1]]

    def _autograd(self, *args: Any) -> Any:
        given, (*rest, gradients) = _Inputs(*args[:9]), args[9:]
        tensors, options = _tensors(given), MlpOptions(*rest)
        _check_mixed(given)
        if not _backend.needs_grad(*tensors):
            return below_autograd(self.op, *args)
        asked = self._asked_of_backward(tensors, options)
        gradients = [a or b for a, b in zip(gradients, asked, strict=True)]
        layers = tuple(list(part) for part in given[5:8])
        return self._apply(False, (layers, options, gradients, len(given.weights)), *tensors)

    # ---- the gradient

    def _inputs(self, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> _Inputs:
        (slopes, activations, dropouts), _, _, n = static
        real, fake, mixed, key, *parameters = tensors
        assert fake is not None
        weights, biases = present(parameters[:n]), parameters[n:]
        return _Inputs(
            real, fake, mixed, weights, biases, slopes, activations=activations, dropouts=dropouts, key=key
        )

    def _arguments(self, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
        """As the schemas take them."""
        _, options, gradients, _ = static
        return *self._inputs(static, tensors), *options, gradients

    def forward(self, direct: bool, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> Forward:
        fake = tensors[1]
        assert fake is not None
        run = self.directly(fake).forward if direct else self.op
        outputs = run(*self._arguments(static, tensors))
        return outputs, outputs[3:], None

    def possible(self, static: tuple[Any, ...], need: list[bool]) -> list[bool]:
        _, options, _, _ = static
        if options.generator:
            return [i == 1 and want for i, want in enumerate(need)]
        # the penalty's gradient by the interpolate is zero almost everywhere, or refused
        return [i not in (2, 3) and want for i, want in enumerate(need)]

    def backward(
        self,
        direct: bool,
        static: tuple[Any, ...],
        tensors: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor]:
        fake = tensors[1]
        assert fake is not None
        run: Callable[..., Sequence[Tensor]] = self.directly(fake).backward if direct else self.backward_op
        return run(*grads, *kept, *self._arguments(static, tensors), [*wanted[:2], *wanted[4:]])

    def formula(self, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        return (_reference(self._inputs(static, tensors), static[1]).loss,)


def _tensors(inputs: _Inputs) -> tuple[Tensor | None, ...]:
    real, fake, mixed, weights, biases, _, _, _, key = inputs
    return real, fake, mixed, key, *weights, *biases


def _check_mixed(inputs: _Inputs) -> None:
    """Of piecewise linear activations a penalty does not change with its interpolate; else it would."""
    mixed = inputs.mixed
    if mixed is not None and mixed.requires_grad and any(a != PIECEWISE for a in inputs.activations):
        raise RuntimeError("mixed: expected samples without gradient where an activation is smooth")


OP = _MlpStep(Passes(_forward, _backward), cuda_passes(ENGINE))


def mlp_discriminator_step(
    real: Tensor | None,
    fake: Tensor,
    mixed: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float],
    options: MlpOptions,
    activations: Sequence[str] = (),
    dropouts: Sequence[float] = (),
    key: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, scalars and logits of one step.

    real [Nr, n0] (None in a generator's step whose loss does not pair), fake [Nf, n0], mixed [Nm, n0] (the
    interpolates of WGAN-GP where ``options.gp`` is above 0, else None), weights [n_l, n_{l-1}] down to [1,
    n_{L-1}], biases [n_l] or None, slopes of the L-1 activations below zero (0 ReLU, 1 none); activations, a
    name of ACTIVATIONS each, of which "elu" has its alpha in slopes (none: all are piecewise linear);
    dropouts, how likely an element of what each of the L maps reads is dropped (none: no element), by the
    masks of ``key``, an int64 on the CPU (reference.dropout_factors). All of one dtype (float32, bfloat16,
    float16; on the CPU float64 too) on one device. Returns the loss, penalties included (a scalar: float64
    for float64, else float32), SCALARS as float64 [9] and the logits [Nr + Nf], the last two without
    gradient. Gradients go to real and fake, weights and biases; in a generator's step to fake alone. Products
    of float32 on a GPU follow torch.backends.cuda.matmul's switch of TF32. Raises ValueError for shapes,
    names or sizes that do not fit, RuntimeError where mixed asks for a gradient that is not zero.
    """
    layers = list(slopes), list(activations), list(dropouts)
    return OP(_Inputs(real, fake, mixed, list(weights), list(biases), *layers, key), options)
