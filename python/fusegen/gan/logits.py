"""The logits of any discriminator, by calling it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import _backend
from .modules import per_sample, ties_samples


def called(D: nn.Module, x: Tensor, labels: Tensor | None = None) -> object:
    """D(x), or D(x, labels), with `name_mismatch` where that raises."""
    try:
        return D(x) if labels is None else D(x, labels)
    except (RuntimeError, ValueError) as error:
        name_mismatch(D, x, error)
        raise


def name_mismatch(D: nn.Module, x: Tensor, error: Exception) -> None:
    """Raises RuntimeError where all of D is on another device than x, or of another dtype without autocast to
    bridge it: not before D raised ``error``, for a D may cast by itself."""
    parameters = list(D.parameters())
    devices, dtypes = {p.device for p in parameters}, {p.dtype for p in parameters}
    if len(devices) == 1 and x.device not in devices:
        raise RuntimeError(f"D: its parameters are on {devices.pop()}, the samples on {x.device}: {error}")
    if len(dtypes) == 1 and x.dtype not in dtypes and _backend.autocast_dtype(x) is None:
        raise RuntimeError(f"D: its parameters are {dtypes.pop()}, the samples are {x.dtype}: {error}")


def as_logits(out: object, samples: int, pac: object = None) -> Tensor:
    """[N] from what D returned: [N], [N, 1], or patches [N, 1, h, w] or [N, 1, n], their mean taken.

    pac: D's attribute of that name, by which one that packs samples itself is known. Raises TypeError or
    ValueError for anything else.
    """
    if not isinstance(out, Tensor):
        raise TypeError(f"D: expected it to return a tensor of logits, got {type(out).__name__}")
    if not out.is_floating_point():
        raise TypeError(f"D: expected floating-point logits, got {out.dtype}")
    fits = out.dim() >= 1 and out.shape[0] == samples and (out.dim() == 1 or out.shape[1] == 1)
    if not fits or out.dim() > 4 or (out.dim() > 2 and out[0].numel() == 0):
        packs = type(pac) is int and pac > 1 and out.dim() >= 1 and out.shape[0] * pac == samples
        hint = f"; where D packs samples itself, give the network inside it, with pac={pac}" if packs else ""
        raise ValueError(
            f"D: expected logits of shape [{samples}], [{samples}, 1] or patches [{samples}, 1, h, w], "
            f"got {list(out.shape)}{hint}"
        )
    if out.dim() == 1:
        return out
    return out.squeeze(1) if out.dim() == 2 else out.flatten(1).mean(1)


def of_one(D: nn.Module, x: Tensor, samples: int, labels: Tensor | None = None) -> Tensor:
    """Logits [N] of that many samples."""
    return as_logits(called(D, x, labels), samples, getattr(D, "pac", None))


def passes_together(D: nn.Module, together: int | None) -> int | None:
    """The dim along which groups of samples may be joined for one pass; None where they may not. together:
    the dim along which samples are promised to lie and not to touch."""
    if together is None:
        together = getattr(D, "sample_dim", 0 if per_sample(D) else None)
    return None if together is None or ties_samples(D) else together


def of_both(
    D: nn.Module,
    real: Tensor,
    fake: Tensor,
    together: int | None,
    dim: int,
    labels: tuple[Tensor | None, Tensor | None] = (None, None),
) -> tuple[Tensor, Tensor]:
    """Logits [Nr] and [Nf] of samples along dim. One pass over both where samples do not touch each other,
    else one after the other, real first, as running statistics expect."""
    nr, nf = real.shape[dim], fake.shape[dim]
    if passes_together(D, together) is None:
        return of_one(D, real, nr, labels[0]), of_one(D, fake, nf, labels[1])
    both = [t for t in labels if t is not None]
    z = of_one(D, torch.cat((real, fake), dim), nr + nf, torch.cat(both) if both else None)
    r, f = z.split((nr, nf))
    return r, f
