"""A discriminator as a program of operators, and the four sweeps of a step through it (``operator``).

Values are numbered: 0 is the input, and each instruction reads one (a sum two) and gives the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from .. import modules
from ..blocks import MinibatchStd, Projection, Residual, added
from . import batch, linear, norms, pointwise
from .operator import Operator, Parameters, Point, Second

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Instruction(NamedTuple):
    """operator: None of a sum. sources: the values that it reads."""

    operator: Operator | None
    sources: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many its operator has."""
        return 0 if self.operator is None else self.operator.count


class _Unknown(Exception):
    """What is in the way of a program."""


class _Builder:
    """Reads a discriminator, module by module."""

    def __init__(self, labels: Tensor | None) -> None:
        self.found: list[Instruction] = []
        self._labels = labels
        self._kept: set[int] = set()  # values that something else reads, or that lie where such a one does

    def network(self, D: nn.Module) -> int:
        """The number of D's value."""
        if type(D) is not Projection:
            return self.module(D, 0)
        self._plain(D)
        if reason := modules.unusual_head(D):
            raise _Unknown(reason)
        features = self.module(D.body, 0)
        if self._labels is None:
            raise _Unknown("Projection was given no labels")
        return self._add(linear.Project(D, self._labels), features)

    def module(self, m: nn.Module, x: int) -> int:
        """The number of m(x), x a value's."""
        self._plain(m)
        layer = type_before_parametrizations(m)
        if layer is nn.Sequential and isinstance(m, nn.Sequential):
            for part in m:
                x = self.module(part, x)
            return x
        if layer is Residual and isinstance(m, Residual):
            outer, self._kept = self._kept, self._kept | {x}
            way = x if m.shortcut is None else self.module(m.shortcut, x)
            body = self.module(m.body, x)
            self._kept = outer
            return self._add(None, way, body)
        if layer is nn.Identity:
            return x
        if x in self._kept and getattr(m, "inplace", False):
            raise _Unknown(f"{layer.__name__}(inplace=True) changes what the other way of a Residual reads")
        operator = self._operator(m, layer)
        y = self._add(operator, x)
        if x in self._kept and isinstance(operator, linear.Flat):  # a view
            self._kept.add(y)
        return y

    def _plain(self, m: nn.Module) -> None:
        if modules.hooked(m):
            name = type(m).__name__
            raise _Unknown(f"{name} has hooks or a replaced forward, which a closed form would not call")

    def _add(self, operator: Operator | None, *sources: int) -> int:
        self.found.append(Instruction(operator, sources))
        return len(self.found)

    def _operator(self, m: nn.Module, layer: type) -> Operator:
        if (known := pointwise.activation(m, layer)) is not None:
            return known
        if isinstance(m, nn.Linear) and layer is nn.Linear:
            return linear.Dense(m)
        if isinstance(m, _CONVOLUTIONS) and layer in _CONVOLUTIONS:
            if m.padding_mode != "zeros" or isinstance(m.padding, str):
                raise _Unknown(f"{layer.__name__} pads in another way than with numbers of zeros")
            return linear.Convolve(m)
        if isinstance(m, nn.AvgPool2d) and layer is nn.AvgPool2d:
            return linear.AveragePool(m)
        if isinstance(m, nn.Flatten) and layer is nn.Flatten and m.start_dim >= 1:
            return linear.Flat(m)
        if isinstance(m, nn.LayerNorm) and layer is nn.LayerNorm:
            return norms.LayerNorm(m)
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer in (nn.BatchNorm1d, nn.BatchNorm2d):
            if not m.training:
                raise _Unknown(
                    f"{layer.__name__} is in evaluation mode; the closed form needs it in training mode"
                )
            return norms.BatchNormalised(m)
        if isinstance(m, MinibatchStd) and layer is MinibatchStd:
            return batch.MinibatchStd(m)
        raise _Unknown(f"there is no closed form of a penalty for {layer.__name__}")


def parse(D: nn.Module, labels: Tensor | None) -> Program | str:
    """D as a program, or what is in the way. labels: of all rows, for a Projection."""
    if modules.every_hooked():
        return "modules have global hooks, which would see the layers' inputs"
    builder = _Builder(labels)
    try:
        builder.network(D)
    except _Unknown as reason:
        return str(reason)
    return Program(builder.found)


class Program:
    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self.instructions = tuple(instructions)

    @property
    def size(self) -> int:
        """How many numbers the parameters have."""
        return sum(i.operator.size() for i in self.instructions if i.operator is not None)

    def parameters(self) -> list[Tensor | None]:
        """Those of all operators. A parametrisation runs when they are read: once, and for a step alone."""
        operators = (i.operator for i in self.instructions if i.operator is not None)
        return [p for operator in operators for p in operator.parameters()]

    @property
    def ties_samples(self) -> bool:
        """Whether a sample's logit depends on others of its group."""
        tie = (norms.BatchNormalised, batch.MinibatchStd)
        return any(isinstance(i.operator, tie) for i in self.instructions)

    @property
    def bends(self) -> bool:
        """Whether a derivative depends on where it is taken, but for signs, or on other samples."""
        return any(i.operator is not None and i.operator.bends for i in self.instructions)

    def norms(self) -> Iterator[norms.BatchNormalised]:
        return (i.operator for i in self.instructions if isinstance(i.operator, norms.BatchNormalised))

    def statistics(self, points: Sequence[Point]) -> list[Tensor]:
        """Means and variances of the groups, of each batch norm."""
        pairs = zip(self.instructions, points, strict=True)
        norms_at = ((i.operator, at) for i, at in pairs if isinstance(i.operator, norms.BatchNormalised))
        return [t for operator, at in norms_at for t in operator.statistics(at)]

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> list[Point]:
        """A point for each instruction, of rows x and parameters p. Differentiable any number of times."""
        values, points = [x], []
        for i, own in self._with(p):
            first = values[i.sources[0]]
            extra: tuple[Tensor, ...] = ()
            if i.operator is None:
                y = added(first, values[i.sources[1]])
            else:
                y, extra = i.operator.forward(first, own, groups)
            points.append(Point(first, y, extra, groups))
            values.append(y)
        return points

    def flat(self, points: Sequence[Point]) -> list[Tensor]:
        """What points are made of beside the rows that the first reads, to be kept for backward."""
        return [t for point in points for t in (point.y, *point.extra)]

    def points(self, x: Tensor, kept: Sequence[Tensor], groups: tuple[int, ...]) -> list[Point]:
        """The points that ``flat`` took apart."""
        rest, values, found = iter(kept), [x], []
        for i in self.instructions:
            y = next(rest)
            extra = tuple(next(rest) for _ in range(0 if i.operator is None else i.operator.kept))
            found.append(Point(values[i.sources[0]], y, extra, groups))
            values.append(y)
        return found

    def first(self, points: Sequence[Point], count: int, groups: int) -> list[Point]:
        """The points of the first ``count`` rows, so many groups."""
        return [
            Point(at.x[:count], at.y[:count], (), at.groups[:groups])
            if i.operator is None
            else i.operator.rows(at, count, groups)
            for i, at in zip(self.instructions, points, strict=True)
        ]

    def adjoints(
        self, seed: Tensor, points: Sequence[Point], p: Parameters, here: Sequence[Point]
    ) -> list[Tensor]:
        """Of a seed by the last value: of every value, the input first, of which those of the first rows,
        with ``here`` their points. Differentiable any number of times."""

        def down(k: int, operator: Operator | None, u: Tensor, own: Parameters) -> Tensor:
            if operator is None:
                return u
            if self.instructions[k].sources != (0,):
                return operator.adjoint(u, points[k], own)
            return operator.adjoint(u[:count], here[k], own)

        count = len(here[0].x)
        return self._down(seed, p, down, 0, count)

    def tangents(self, t: Tensor, points: Sequence[Point], p: Parameters) -> list[Tensor]:
        """Of every value but the last, of the tangent t of the input."""
        values = [t]
        for (i, own), at in zip(self._with(p)[:-1], points[:-1], strict=True):
            first = values[i.sources[0]]
            if i.operator is None:
                values.append(first + values[i.sources[1]])
            else:
                values.append(i.operator.tangent(first, at, own))
        return values

    def gradients(
        self,
        seed: Tensor,
        points: Sequence[Point],
        second: Sequence[Second],
        p: Parameters,
        *,
        rows: bool,
        wanted: Sequence[bool],
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """By the rows and by the parameters, where wanted: of the loss, whose derivative by the last value is
        ``seed``, and of the penalty."""
        asked = self._by_instruction(wanted)
        found: list[tuple[Tensor | None, ...]] = [(None,) * len(own) for own in asked]

        def down(k: int, operator: Operator | None, a: Tensor, own: Parameters) -> Tensor:
            if operator is None:
                return a
            if any(asked[k]):
                found[k] = operator.gradients(a, second[k], points[k], own, asked[k])
            if not rows and self.instructions[k].sources == (0,):
                return a  # of no interest
            a = operator.adjoint(a, points[k], own)
            bent = operator.bend(second[k], own)
            if bent is not None:
                a[: len(bent)] += bent
            return a

        values = self._down(seed, p, down, 0 if rows else 1)
        return values[0] if rows else None, _chosen(found, asked)

    def scaled_gradients(
        self,
        s: Tensor,
        adjoints: Sequence[Tensor],
        points: Sequence[Point],
        second: Sequence[Second],
        p: Parameters,
        *,
        rows: bool,
        wanted: Sequence[bool],
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The same where nothing bends: what comes down from a logit is s of its sample times its adjoint."""
        asked = self._by_instruction(wanted)
        found: list[tuple[Tensor | None, ...]] = [(None,) * len(own) for own in asked]
        dx: Tensor | None = None
        for k, (i, own) in enumerate(self._with(p)):
            by_rows = rows and 0 in i.sources
            if not any(asked[k]) and not by_rows:
                continue
            a = s.reshape(-1, *[1] * (adjoints[k].dim() - 1)) * adjoints[k]
            if i.operator is not None:
                found[k] = i.operator.gradients(a, second[k], points[k], own, asked[k])
            if by_rows:
                a = a if i.operator is None else i.operator.adjoint(a, points[k], own)
                a = a * i.sources.count(0)
                dx = a if dx is None else dx + a
        return dx, _chosen(found, asked)

    def _down(
        self,
        seed: Tensor,
        p: Parameters,
        each: Callable[[int, Operator | None, Tensor, Parameters], Tensor],
        lowest: int,
        first: int | None = None,
    ) -> list[Tensor]:
        """A gradient of every value from the lowest on, from that of the last. each: by what instruction k
        reads, of that by what it gave. first: how many rows of the input are of interest."""
        values: dict[int, Tensor] = {len(self.instructions): seed}
        for k, (i, own) in reversed(list(enumerate(self._with(p)))):
            down = each(k, i.operator, values[k + 1], own)
            for source in i.sources:
                if source >= lowest:
                    part = down if source else down[:first]
                    values[source] = values[source] + part if source in values else part
        return [values[k] for k in sorted(values)]

    def _by_instruction(self, given: Sequence[bool]) -> list[list[bool]]:
        rest = iter(given)
        return [[next(rest) for _ in range(i.parameters)] for i in self.instructions]

    def _with(self, p: Parameters) -> list[tuple[Instruction, Parameters]]:
        rest = iter(p)
        return [(i, [next(rest) for _ in range(i.parameters)]) for i in self.instructions]


def _chosen(found: Sequence[Sequence[Tensor | None]], asked: Sequence[Sequence[bool]]) -> list[Tensor | None]:
    """Of all parameters, the gradients that were asked for."""
    pairs = zip(found, asked, strict=True)
    return [g if want else None for own, wants in pairs for g, want in zip(own, wants, strict=True)]
