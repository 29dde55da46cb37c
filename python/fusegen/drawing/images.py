"""Images in rows and columns, with what they are above and beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .._arguments import whole
from . import style

_LARGEST, _EDGE, _TITLE, _HEADING = 0.55, 0.08, 0.28, 0.2  # inches: an image's width, margins, lines of text
_LETTER = 0.085  # inches: about a letter's width
_PIXELS, _BESIDES = 2**16, 8.0  # a picture's height at most; inches of it for all that is no sample
_GAP = 0.03  # of an image's width, around it


class Panel(NamedTuple):
    """Images [n, C, H, W] in [-1, 1], row by row in so many columns; values beyond are cut.

    1 channel is grey and 3 are coloured; of other numbers of channels the first is shown. title: above.
    headings: above the columns; rows: left of the rows.

    images: of any floating dtype. columns: how many side by side.
    """

    images: Tensor
    columns: int
    title: str = ""
    headings: Sequence[str] = ()
    rows: Sequence[str] = ()

    @property
    def lines(self) -> int:
        return -(-len(self.images) // self.columns)


def images_figure(panels: Sequence[Panel], most: float = style.WIDTH) -> Any:
    """The panels one below another, images of one size in all of them, no wider than ``most`` inches.

    Raises ValueError for no images or ones of another shape, ModuleNotFoundError without matplotlib.
    """
    _check(panels)
    H, W = panels[0].images.shape[2:]
    widest = max(panel.columns for panel in panels)
    left = _EDGE + _LETTER * max((len(row) for panel in panels for row in panel.rows), default=0)
    wide = min(_LARGEST, (most - left - _EDGE) / widest)
    high = wide * H / W
    tops = [_EDGE + _TITLE * bool(panel.title) + _HEADING * bool(panel.headings) for panel in panels]
    width = max(left + widest * wide + _EDGE, *(_LETTER * len(panel.title) for panel in panels))
    height = sum(top + panel.lines * high for top, panel in zip(tops, panels, strict=True)) + _EDGE
    with style.styled():
        figure, at = style.figure(width, height), height
        for panel, top in zip(panels, tops, strict=True):
            at -= top + panel.lines * high
            box = (left, at, panel.columns * wide, panel.lines * high)
            axis = figure.add_axes([box[0] / width, box[1] / height, box[2] / width, box[3] / height])
            _fill(axis, panel)
    return figure


def most_lines(columns: int, height: int, width: int) -> int:
    """How many rows of images, so many side by side of so many pixels, a picture can hold: matplotlib draws
    fewer than 65,536 pixels."""
    wide = min(_LARGEST, (style.WIDTH - 2 * _EDGE) / columns)
    return int((_PIXELS / style.DPI - _BESIDES) / (wide * height / width))


def _check(panels: Sequence[Panel]) -> None:
    shapes = [tuple(panel.images.shape) for panel in panels]
    if not shapes or any(len(shape) != 4 or 0 in shape for shape in shapes):
        raise ValueError(f"panels: expected images [n, C, H, W], at least one, got {shapes}")
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"panels: expected images of one shape, got {shapes}")
    for panel in panels:
        whole("columns", panel.columns, 1)


def _fill(axis: Any, panel: Panel) -> None:
    columns, lines = panel.columns, panel.lines
    pixels = ((panel.images.detach().float().cpu() + 1) / 2).clamp(0, 1)
    pixels = pixels if pixels.shape[1] == 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    for i, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        x, y = i % columns, i // columns
        # y grows downwards, so an image's bottom is the larger number.
        extent = (x + _GAP, x + 1 - _GAP, y + 1 - _GAP, y + _GAP)
        axis.imshow(image, extent=extent, interpolation="nearest", aspect="auto")
    axis.set(xlim=(0, columns), ylim=(lines, 0))
    axis.xaxis.tick_top()
    axis.set_xticks([i + 0.5 for i in range(len(panel.headings))], panel.headings)
    axis.set_yticks([i + 0.5 for i in range(len(panel.rows))], panel.rows)
    axis.tick_params(length=0, pad=2)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if panel.title:
        axis.set_title(panel.title, pad=4)  # above the headings: matplotlib sees to that
