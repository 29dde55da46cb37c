"""Pictures for people: images by class, series beside the data's, training curves, plain plots; by
matplotlib, in one style.

Each function makes a matplotlib figure as wide as a page shows (830 pixels at most); ``png`` is its file.
matplotlib is imported by the first call, which raises ModuleNotFoundError, saying what to install, without
it.
"""

from .curves import training_figure
from .images import Panel, images_figure, most_lines
from .plots import bars_figure, distribution_figure, heat_figure, lines_figure, points_figure
from .series import LINES, series_figure
from .style import ALARM, COLOURS, DPI, MUTED, NARROW, check, figure, png, styled

__all__ = [
    "ALARM",
    "COLOURS",
    "DPI",
    "LINES",
    "MUTED",
    "NARROW",
    "Panel",
    "bars_figure",
    "check",
    "distribution_figure",
    "figure",
    "heat_figure",
    "images_figure",
    "lines_figure",
    "most_lines",
    "png",
    "points_figure",
    "series_figure",
    "styled",
    "training_figure",
]
