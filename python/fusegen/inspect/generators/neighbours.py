"""Whether samples are copies of the data: their nearest neighbours, beside those of data held out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import _arguments

_WHAT = "fusegen.inspect.nearest_neighbours"
_AT_ONCE = 1 << 22  # distances held at a time
_BASELINE = 1000  # of the data, at most, where nothing is held out


class Neighbours(NamedTuple):
    """index int64 [N]: the nearest of the data to each sample; distance [N]: how far it is. baseline [M]: how
    far the nearest of the data is from data that it does not hold (or, of none, from the others of its own).
    ratio: the median distance over the median baseline: near 1 samples are as far from the data as new data
    are, near 0 they are copies, far above 1 they lie beside the data. closer: the chance that a sample is
    nearer to the data than new data are, 1/2 where nothing is copied (the statistic of Meehan et al. 2020,
    arXiv:2004.05675). In float64."""

    index: Tensor  # type: ignore[assignment]  # the name, which hides a tuple's method, is public
    distance: Tensor
    baseline: Tensor
    ratio: float
    closer: float


def nearest_neighbours(
    samples: Tensor, data: Tensor, held_out: Tensor | None = None, *, overlap: int = 0
) -> Neighbours:
    """The nearest of the data to each sample by Euclidean distance, and whether that is nearer than it would
    be for data that were never learnt from.

    Args:
        samples: [N, ...], what was drawn. data: [M, ...], what was learnt from; every dim but the first is
            taken as one. Features (of a network, or pooled pixels) make a better distance than raw values.
            Any real dtype; distances are computed in float64, on the CPU.
        held_out: [K, ...], of the same source and not learnt from. None: the data's own distances to their
            nearest other are the baseline, of 1,000 of them at most.
        overlap: without ``held_out``, so many of the data on either side of one in order do not count as
            others: windows of one recording that share steps.

    Raises TypeError or ValueError, which name the argument; ValueError where the data have nothing else to
    compare with.
    """
    overlap = _arguments.whole(f"{_WHAT}: overlap", overlap, 0)
    flat = {"samples": samples, "data": data} | ({} if held_out is None else {"held_out": held_out})
    points = {name: _points(name, x) for name, x in flat.items()}
    sizes = {name: x.shape[1] for name, x in points.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{_WHAT}: expected points of one size, got {told} values each")
    distance, index = _nearest(points["samples"], points["data"])
    baseline = _baseline(points["data"], points.get("held_out"), overlap)
    middle = baseline.median().item()
    ratio = distance.median().item() / middle if middle else float("inf" if distance.median() > 0 else "nan")
    return Neighbours(index, distance, baseline, ratio, _chance_closer(distance, baseline))


def _points(name: str, x: object) -> Tensor:
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"{_WHAT}: expected {name} as a real Tensor, got {type(x).__name__}")
    if x.dim() < 1 or 0 in x.shape:
        raise ValueError(f"{_WHAT}: expected {name} [N, ...], none of them 0, got {list(x.shape)}")
    return x.detach().cpu().double().view(len(x), -1) if x.is_contiguous() else _points(name, x.contiguous())


def _baseline(data: Tensor, held_out: Tensor | None, overlap: int) -> Tensor:
    if held_out is not None:
        return _nearest(held_out, data)[0]
    rows = torch.arange(len(data))
    if len(rows) > _BASELINE:
        rows = torch.linspace(0, len(data) - 1, _BASELINE).long()
    found = _nearest(data[rows], data, rows, overlap)[0]
    found = found[found.isfinite()]
    if not len(found):
        raise ValueError(
            f"{_WHAT}: expected held_out, or data of which two do not overlap ({overlap} on either side), "
            f"got {len(data)}"
        )
    return found


def _nearest(
    points: Tensor, data: Tensor, own: Tensor | None = None, overlap: int = 0
) -> tuple[Tensor, Tensor]:
    """(distance [N], index [N]); of points that are the data's ``own`` (their rows), those around left
    out."""
    distances, indices = [], []
    for rows in torch.arange(len(points)).split(max(1, _AT_ONCE // len(data))):
        apart = torch.cdist(points[rows], data, compute_mode="donot_use_mm_for_euclid_dist")
        if own is not None:
            apart[(own[rows].unsqueeze(1) - torch.arange(len(data))).abs() <= overlap] = torch.inf
        found = apart.min(1)
        distances.append(found.values)
        indices.append(found.indices)
    return torch.cat(distances), torch.cat(indices)


def _chance_closer(distance: Tensor, baseline: Tensor) -> float:
    """P(distance < baseline) + P(equal) / 2, of a pair drawn at random: Mann and Whitney's U over its
    largest value."""
    ordered = baseline.sort().values
    below = torch.searchsorted(ordered, distance)
    up_to = torch.searchsorted(ordered, distance, right=True)
    return (1 - (below + up_to).double().mean() / (2 * len(baseline))).item()
