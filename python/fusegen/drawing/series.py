"""Series beside the data they are to be like: a row for each feature, with its unit, the data on the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from . import style

LINES = 6
"""How many features a panel of ``series_figure`` draws at most; the first ones are taken."""
FEATURES = 8  # of more, the first are drawn
_ROW, _ALONE, _REST = 1.05, 1.9, 0.75  # inches: a row's height, of a single one, of titles and the axis


def series_figure(
    drawn: Tensor,
    real: Tensor | None = None,
    *,
    features: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    step: str = "step",
    source: str = "the data",
    width: float = style.WIDTH,
) -> Any:
    """Up to six sequences of ``drawn`` [T, N, F], in the units of the data, beside as many of ``real``
    [S, M, F]; a colour each.

    features: their names; units: of some of them, by name. step: what the steps are. source: what the data
    are. width: in inches. A row's two panels have one scale. Raises ValueError for other shapes,
    ModuleNotFoundError without matplotlib.

    drawn, real: of any floating dtype.
    """
    for name, x in (("drawn", drawn), ("real", real)):
        if x is not None and (x.dim() != 3 or 0 in x.shape):
            raise ValueError(f"{name}: expected shape [T, N, F], none of them 0, got {list(x.shape)}")
    if real is not None and real.shape[2] != drawn.shape[2]:
        raise ValueError(f"drawn, real: expected as many features, got {drawn.shape[2]} and {real.shape[2]}")
    sides = {"drawn": drawn} if real is None else {source: real, "drawn": drawn}
    names = tuple(features) or tuple(map(str, range(drawn.shape[2])))
    rows = min(len(names), FEATURES)
    height = _REST + (_ALONE if rows == 1 else _ROW * rows)
    with style.styled():
        figure = style.figure(width, height, layout="constrained")
        shape = {"nrows": rows, "ncols": len(sides), "squeeze": False}
        axes = figure.subplots(**shape, sharey="row", sharex="col")
        for axis, (title, x) in zip(axes[0], sides.items(), strict=True):
            left_out = len(names) - rows
            axis.set_title(f"{title}, the first {rows} of {len(names)} features" if left_out else title)
            for row, own in enumerate(axes[:, list(sides).index(title)]):
                own.plot(x[:, :LINES, row].detach().double().cpu().numpy())
                own.margins(x=0.01)
        for axis, name in zip(axes[:, 0], names, strict=False):
            unit = (units or {}).get(name)
            axis.set_ylabel(f"{name}\n{unit}" if unit else name)
            _readable(axis)
        for axis in axes[-1]:
            axis.set_xlabel(step)
        figure.align_ylabels(axes[:, 0])
    return figure


def _readable(axis: Any) -> None:
    """Few ticks, thousands and millions by letter: 25 M, not 2.5 and 1e7 in a corner."""
    from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

    axis.yaxis.set_major_locator(MaxNLocator(3))
    low, high = axis.get_ylim()
    most = max(abs(low), abs(high))
    axis.yaxis.set_major_formatter(EngFormatter() if not 1e-3 <= most < 1e4 else ScalarFormatter(False))
