"""The step of any discriminator, through autograd: logits, and penalties by differentiating twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import _backend
from .network import has_batch_norm, per_sample


def called(D: nn.Module, x: Tensor) -> object:
    """D(x), with `name_kinds` where that raises."""
    try:
        return D(x)
    except (RuntimeError, ValueError) as error:
        name_kinds(D, x, error)
        raise


def name_kinds(D: nn.Module, x: Tensor, error: Exception) -> None:
    """Raises RuntimeError where all of D is on another device than x, or of another dtype without autocast to
    bridge it: not before D raised ``error``, for a D may cast by itself."""
    parameters = list(D.parameters())
    devices, dtypes = ({getattr(p, kind) for p in parameters} for kind in ("device", "dtype"))
    if len(devices) == 1 and x.device not in devices:
        raise RuntimeError(f"D: its parameters are on {devices.pop()}, the samples on {x.device}: {error}")
    if len(dtypes) == 1 and x.dtype not in dtypes and _backend.autocast_dtype(x) is None:
        raise RuntimeError(f"D: its parameters are {dtypes.pop()}, the samples are {x.dtype}: {error}")


def check_gradients_on(**weights: float) -> None:
    """Raises RuntimeError where there is a penalty but no gradient to be had for it."""
    name = next((name for name, weight in weights.items() if weight), None)
    if name is not None and not torch.is_grad_enabled():
        raise RuntimeError(
            f"{name}: a penalty is a gradient, but gradients are switched off (torch.no_grad, "
            "torch.inference_mode)"
        )
    if name is not None and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"{name}: a penalty of a D that goes through autograd cannot run inside a torch.func transform, "
            "where no tensor can be made to require a gradient"
        )


def as_logits(out: object, samples: int) -> Tensor:
    """[N] from what D returned: [N], [N, 1], or patches [N, 1, h, w] or [N, 1, n], their mean taken.

    Raises TypeError or ValueError for anything else.
    """
    if not isinstance(out, Tensor):
        raise TypeError(f"D: expected it to return a tensor of logits, got {type(out).__name__}")
    if not out.is_floating_point():
        raise TypeError(f"D: expected floating-point logits, got {out.dtype}")
    fits = out.dim() >= 1 and out.shape[0] == samples and (out.dim() == 1 or out.shape[1] == 1)
    if not fits or out.dim() > 4 or (out.dim() > 2 and out[0].numel() == 0):
        raise ValueError(
            f"D: expected logits of shape [{samples}], [{samples}, 1] or patches [{samples}, 1, h, w], "
            f"got {list(out.shape)}"
        )
    if out.dim() == 1:
        return out
    return out.squeeze(1) if out.dim() == 2 else out.flatten(1).mean(1)


def both_logits(D: nn.Module, real: Tensor, fake: Tensor, sample_dim: int | None) -> tuple[Tensor, Tensor]:
    """Logits [Nr] and [Nf]. One pass over both where samples do not touch each other, else one after the
    other, real first, as running statistics expect."""
    dim = sample_dim
    if dim is None:
        dim = getattr(D, "sample_dim", 0 if per_sample(D) else None)
    nr, nf = real.shape[dim or 0], fake.shape[dim or 0]
    if dim is None or has_batch_norm(D):
        return as_logits(called(D, real), nr), as_logits(called(D, fake), nf)
    logits = as_logits(called(D, torch.cat((real, fake), dim)), nr + nf)
    return logits.split((nr, nf))


def input_gradient(logits: Tensor, x: Tensor, what: str, samples: int, dim: int) -> Tensor:
    """The gradient [N, features] of each sample's logit by x, differentiable again.

    Raises RuntimeError where D cannot be differentiated by its input.
    """
    if not logits.requires_grad:
        raise RuntimeError(
            f"{what}: D's logits do not depend on its input in a way that can be differentiated"
        )
    (v,) = torch.autograd.grad(logits.sum(), x, create_graph=True, materialize_grads=True)
    return v.movedim(dim, 0).reshape(samples, -1)


def gradient_penalty_norms(v: Tensor) -> Tensor:
    """||v|| of each row, with derivative 0 at v = 0."""
    return torch.linalg.vector_norm(v, dim=1)
