"""Sequences made easy to learn, and back: uncorrelated features of one scale, wandering ones as changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WANDERS = 0.95  # lag-1 autocorrelation from which a component is given by its changes


@dataclass(frozen=True)
class Whitening:
    """A linear map of sequences [T, N, F] to [T, N, K], inverted on the data that it was fitted to.

    A step's features become its K principal components that vary at all, each of mean 0 and deviation 1 over
    all steps. A component that wanders (whose changes from step to step are small beside it, as a price's
    are: lag-1 autocorrelation above 0.95) is given by its first value and then its changes, scaled likewise:
    the changes are what differs from window to window. What F features say alike, such as a day's highest
    and lowest price, differs in the last components, which are as large as the first here.

    mean [F]; components [F, K], a column each; wanders bool [K]; first, scale, drift [K]: the deviation of
    a component's first value and of what follows, and the mean change. All float64 but wanders.
    """

    mean: Tensor
    components: Tensor
    wanders: Tensor
    first: Tensor
    scale: Tensor
    drift: Tensor

    @classmethod
    def fit(cls, values: Tensor, lengths: Tensor | None = None) -> Whitening:
        """Of sequences [T, N, F]; lengths [N], what lies past them is not looked at.

        Raises ValueError for an empty tensor, another shape, or values that do not vary.
        """
        if values.dim() != 3 or 0 in values.shape:
            raise ValueError(f"values: expected shape [T, N, F], got {list(values.shape)}")
        x, inside = values.double(), within(values, lengths)
        mean = x[inside].mean(0)
        centred = x - mean
        rows = centred[inside]
        variances, components = torch.linalg.eigh(rows.T @ rows / len(rows))
        variances, components = variances.flip(0), components.flip(1)
        level = variances.clamp(min=0).sqrt()
        varies = level > max(1e-6 * level.amax().item(), 1e-12)
        if not bool(varies.any()):
            raise ValueError("values: expected some that differ, got one constant for each feature")
        level, components = level[varies], components[:, varies]
        y = centred @ components
        wanders, drift, change = torch.zeros_like(level, dtype=torch.bool), torch.zeros_like(level), level
        if len(x) > 1:
            changes = (y[1:] - y[:-1])[inside[1:]]
        if len(x) > 1 and len(changes):
            # var of the changes = 2 (1 - autocorrelation) var of the level
            wanders = changes.square().mean(0) < 2 * (1 - WANDERS) * level.square()
            drift = torch.where(wanders, changes.mean(0), 0.0)
            spread = (changes - drift).square().mean(0).sqrt()
            wanders &= spread > 1e-6 * level
            drift = torch.where(wanders, drift, 0.0)
            change = torch.where(wanders, spread, level)
        return cls(mean, components, wanders, level, change, drift)

    def __call__(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float32 [T, N, K], zero past the lengths."""
        y = (values.double() - self.mean) @ self.components
        before = torch.cat((y[:1], y[:-1]))
        later = torch.where(self.wanders, y - before - self.drift, y) / self.scale
        out = torch.cat((y[:1] / self.first, later[1:]))
        return torch.where(within(values, lengths)[..., None], out, 0.0).float()

    def inverse(self, whitened: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The sequences [T, N, F] that `whitened` stands for, float32, zero past the lengths."""
        z = whitened.double()
        later = z[1:] * self.scale + self.drift
        y = torch.cat((z[:1] * self.first, later))
        y = torch.where(self.wanders, y.cumsum(0), y)
        out = y @ self.components.T + self.mean
        return torch.where(within(whitened, lengths)[..., None], out, 0.0).float()

    def __len__(self) -> int:
        """K"""
        return len(self.wanders)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: the tensors as lists."""
        return {name: value.tolist() for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Whitening:
        """What `to_json` gave. Raises KeyError for a missing part."""
        dtypes = {"wanders": torch.bool}
        return cls(
            **{
                name: torch.tensor(content[name], dtype=dtypes.get(name, torch.float64))
                for name in cls.__dataclass_fields__
            }
        )


def within(values: Tensor, lengths: Tensor | None) -> Tensor:
    """bool [T, N], True where a step of values [T, N, ·] lies within its sequence."""
    T, N = values.shape[:2]
    if lengths is None:
        return torch.ones(T, N, dtype=torch.bool)
    return torch.arange(T).unsqueeze(1) < lengths
