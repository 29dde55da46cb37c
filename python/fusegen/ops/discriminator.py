"""torch.ops.fusegen.mlp_discriminator_step: the loss of a dense discriminator on real and fake samples, its
penalties, and the gradients of both, in closed form.

For a network whose activations are piecewise linear, with one logit a sample, all weight gradients are one
product a layer: dW_l = U_l^T (s H_{l-1} + c T_{l-1}), where H are the activations, U the adjoints of one
logit, s the derivative of the loss by the logit, and T the tangents of the input gradient v = U_1 W_1 through
the same masks. Forward computes H, U and v, backward T and the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _C, _backend, reference
from . import _common as c
from . import gpu

SCALARS = (
    "loss", "penalty", "mean_real", "mean_fake", "sign_real", "sign_fake",
    "norm_real", "norm_fake", "norm_mixed",
)  # fmt: skip

_LIB = torch.library.Library("fusegen", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag,)


class MlpOptions(NamedTuple):
    """What an MLP step computes; ``target`` is that of real samples, 1 less the label smoothing."""

    loss: str
    generator: bool = False
    target: float = 1.0
    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0


def _call(real, fake, mixed, weights, biases, slopes, options, gradients):
    tensors = [c.rows(t) for t in (real, fake, mixed)]
    return (
        *options,
        *tensors,
        c.dense_all(weights),
        c.dense_all(biases),
        list(slopes),
        *gradients,
        torch.get_num_threads(),
    )


def _step(real, fake, mixed, weights, biases, slopes, loss, generator, target, r1, r2, gp, gradients):
    call = _call(real, fake, mixed, weights, biases, slopes, (loss, generator, target, r1, r2, gp), gradients)
    # loss, generator, target, r1, r2, gp, real, fake, mixed, ...: the order of csrc/ops/discriminator.h
    total, scalars, logits = _results(real, fake)
    saved = fake.new_empty(_C.mlp_saved_bytes(call), dtype=torch.uint8)
    _C.mlp_forward(call, total, scalars, logits, saved)
    return total, scalars, logits, saved


def _step_cuda(real, fake, mixed, weights, biases, slopes, loss, generator, target, r1, r2, gp, gradients):
    call = _call(real, fake, mixed, weights, biases, slopes, (loss, generator, target, r1, r2, gp), gradients)
    total, scalars, logits = _results(real, fake)
    saved = fake.new_empty(gpu.engine.gpu_mlp_saved_bytes(call), dtype=torch.uint8)
    tf32 = gpu.multiplies_in_tf32(fake.dtype)
    gpu.engine.gpu_mlp_forward(call, tf32, gpu.stream_of(fake), total, scalars, logits, saved)
    return total, scalars, logits, saved


def _results(real: Tensor | None, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Empty loss, scalars and logits. The loss is a tensor of its own, which users may change in place."""
    return (
        fake.new_empty((), dtype=torch.float64 if fake.dtype == torch.float64 else torch.float32),
        fake.new_empty(len(SCALARS), dtype=torch.float64),
        fake.new_empty(fake.shape[0] + (0 if real is None else real.shape[0])),
    )


def _step_fake(real, fake, mixed, weights, biases, slopes, loss, generator, target, r1, r2, gp, gradients):
    try:
        bytes_ = torch.library.get_ctx().new_dynamic_size()
    except RuntimeError:  # meta tensors, or a FakeTensorMode without symbols for what only the engine knows
        bytes_ = 0
    return *_results(real, fake), fake.new_empty(bytes_, dtype=torch.uint8)


def _step_backward(
    scale,
    saved,
    real,
    fake,
    mixed,
    weights,
    biases,
    slopes,
    loss,
    generator,
    target,
    r1,
    r2,
    gp,
    gradients,
    wanted,
):
    grads = c.empty_grads((real, fake, *weights, *biases), wanted)
    call = _call(real, fake, mixed, weights, biases, slopes, (loss, generator, target, r1, r2, gp), gradients)
    dx_real, dx_fake, *rest = grads
    n = len(weights)
    _C.mlp_backward(call, float(scale), saved, rest[:n], rest[n:], dx_real, dx_fake)
    return [g for g in grads if g is not None]


def _step_backward_cuda(scale, saved, real, fake, mixed, weights, biases, slopes, *rest):
    *options, gradients, wanted = rest
    grads = c.empty_grads((real, fake, *weights, *biases), wanted)
    call = _call(real, fake, mixed, weights, biases, slopes, options, gradients)
    dx_real, dx_fake, *parameters = grads
    n = len(weights)
    workspace = fake.new_empty(gpu.engine.gpu_mlp_workspace_bytes(call), dtype=torch.uint8)
    gpu.engine.gpu_mlp_backward(
        call, gpu.multiplies_in_tf32(fake.dtype), gpu.stream_of(fake), scale, saved, workspace,
        parameters[:n], parameters[n:], dx_real, dx_fake,
    )  # fmt: skip
    return [g for g in grads if g is not None]


_INPUTS = "Tensor? real, Tensor fake, Tensor? mixed, Tensor[] weights, Tensor?[] biases, float[] slopes"
_OPTIONS = "str loss, bool generator, float target, float r1, float r2, float gp, bool[] gradients"
_OUTPUTS = "(Tensor loss, Tensor scalars, Tensor logits, Tensor saved)"
_KEPT = "Tensor scale, Tensor saved"
_LIB.define(f"mlp_discriminator_step({_INPUTS}, {_OPTIONS}) -> {_OUTPUTS}", tags=_TAGS)
_LIB.define(
    f"mlp_discriminator_step_backward({_KEPT}, {_INPUTS}, {_OPTIONS}, bool[] wanted) -> Tensor[]", tags=_TAGS
)
_LIB.impl("mlp_discriminator_step", _step, "CPU")
_LIB.impl("mlp_discriminator_step_backward", _step_backward, "CPU")
_LIB.impl("mlp_discriminator_step", _step_cuda, "CUDA")
_LIB.impl("mlp_discriminator_step_backward", _step_backward_cuda, "CUDA")
torch.library.register_fake("fusegen::mlp_discriminator_step", _step_fake, lib=_LIB)
torch.library.register_fake(
    "fusegen::mlp_discriminator_step_backward",
    lambda scale, saved, real, fake, mixed, weights, biases, *rest: [
        g for g in c.empty_grads((real, fake, *weights, *biases), rest[-1]) if g is not None
    ],
    lib=_LIB,
)
_step_op = torch.ops.fusegen.mlp_discriminator_step.default
_backward_op = torch.ops.fusegen.mlp_discriminator_step_backward.default


class _MlpStep(torch.autograd.Function):
    """apply(direct, options, slopes, gradients, n, real, fake, mixed, *weights, *biases) -> outputs."""

    @staticmethod
    def forward(ctx, direct, options, slopes, gradients, n, real, fake, mixed, *parameters):
        tensors = (real, fake, mixed, *parameters)
        run = _step if direct else _step_op
        weights, biases = list(parameters[:n]), list(parameters[n:])
        out = run(real, fake, mixed, weights, biases, slopes, *options, gradients)
        ctx.static = options, slopes, gradients, n
        ctx.save_for_backward(out[3], *tensors)
        ctx.mark_non_differentiable(*out[1:])
        ctx.set_materialize_grads(False)
        return tuple(out)

    @staticmethod
    def backward(ctx, grad, *_):
        options, slopes, gradients, n = ctx.static
        saved, *tensors = ctx.saved_tensors
        real, fake, mixed, *parameters = tensors
        need = list(ctx.needs_input_grad[5:])
        need[2] = False  # the penalty's gradient by the interpolate is zero almost everywhere
        if options.generator:
            need = [False, need[1], *[False] * (len(need) - 2)]
        if grad is None or not any(need):
            return (None,) * (5 + len(tensors))
        way = c.backward_route((grad,), tensors)
        if torch.is_grad_enabled() or way == c.REFERENCE:
            got = _formula_gradient(options, slopes, n, tensors, need, grad)
        else:
            run = _step_backward if way == c.DIRECT else _backward_op
            weights, biases, wanted = parameters[:n], parameters[n:], [*need[:2], *need[3:]]
            got = run(grad, saved, real, fake, mixed, weights, biases, slopes, *options, gradients, wanted)
        it = iter(got)
        return (*(None,) * 5, *[next(it) if want else None for want in need])


def _gradients(tensors: Sequence[Tensor | None], options: MlpOptions) -> list[bool]:
    """What backward may be asked for: weight gradients, those by real and by fake."""
    need = [t is not None and t.requires_grad for t in tensors]
    return [any(need[3:]) and not options.generator, need[0] and not options.generator, need[1]]


def _autograd(real, fake, mixed, weights, biases, slopes, loss, generator, target, r1, r2, gp, gradients):
    tensors = (real, fake, mixed, *weights, *biases)
    options = MlpOptions(loss, generator, target, r1, r2, gp)
    if not _backend.needs_grad(*tensors):
        with torch._C._AutoDispatchBelowAutograd():
            return _step_op(real, fake, mixed, weights, biases, slopes, *options, gradients)
    wanted = [a or b for a, b in zip(gradients, _gradients(tensors, options), strict=True)]
    return _MlpStep.apply(False, options, list(slopes), wanted, len(weights), *tensors)


_LIB.impl("mlp_discriminator_step", _autograd, "Autograd")


def _formula_gradient(options, slopes, n, tensors, need, grad):
    """The wanted gradients of the formula in plain torch: under create_graph=True, where they are
    differentiable again, and where ``grad`` is batched or carries a tangent, which kernels do not see."""
    again = torch.is_grad_enabled()
    why = "create_graph=True" if again else "batched gradients or forward-mode differentiation"
    _backend.note(f"mlp_discriminator_step under {why}: the differentiable reference formula runs")
    with torch.enable_grad():
        alias = [t.view_as(t) if want else t for t, want in zip(tensors, need, strict=True)]
        loss = reference.mlp_discriminator_step(
            *alias[:3], alias[3 : 3 + n], alias[3 + n :], slopes, *options
        ).loss
    wanted = [t for t, want in zip(alias, need, strict=True) if want]
    return torch.autograd.grad(loss, wanted, grad, create_graph=again, materialize_grads=True)


def mlp_discriminator_step(
    real: Tensor | None,
    fake: Tensor,
    mixed: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float],
    options: MlpOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, scalars and logits of one step.

    real [Nr, n0] (None in a generator's step whose loss does not pair), fake [Nf, n0], mixed [Nm, n0] (the
    interpolates of WGAN-GP where ``options.gp`` is above 0, else None), weights [n_l, n_{l-1}] down to
    [1, n_{L-1}], biases [n_l] or None, slopes of the L-1 activations below zero (0 ReLU, 1 none). All of one
    dtype (float32, bfloat16, float16; on the CPU float64 too) on one device. Returns the loss, penalties
    included (a scalar: float64 for float64, else float32), SCALARS as float64 [9] and the logits [Nr + Nf],
    the last two without gradient. Gradients go to real and fake, weights and biases; in a generator's step to
    fake alone. Products of float32 on a GPU follow torch.backends.cuda.matmul's switch of TF32. Raises
    ValueError for shapes, names or sizes that do not fit.
    """
    tensors = (real, fake, mixed, *weights, *biases)
    if c.route(tensors) == c.REFERENCE:
        _backend.note(
            "mlp_discriminator_step under torch.func or forward-mode differentiation: the reference runs"
        )
        out = reference.mlp_discriminator_step(real, fake, mixed, weights, biases, slopes, *options)
        return out.loss, out.scalars, out.logits
    weights, biases, slopes = list(weights), list(biases), list(slopes)
    if c.route(tensors) == c.DISPATCH:
        return _step_op(real, fake, mixed, weights, biases, slopes, *options, [False] * 3)[:3]
    if _backend.needs_grad(*tensors):
        gradients = _gradients(tensors, options)
        return _MlpStep.apply(True, options, slopes, gradients, len(weights), *tensors)[:3]
    return _step(real, fake, mixed, weights, biases, slopes, *options, [False] * 3)[:3]
