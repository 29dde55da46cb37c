"""Pictures for people: images by class, series beside the data's, training curves; by matplotlib, in one
style.

Each function makes a matplotlib figure as wide as a page shows (830 pixels at most); ``png`` is its file.
matplotlib is imported by the first call, which raises ModuleNotFoundError, saying what to install, without
it.
"""

from .curves import training_figure
from .images import Panel, images_figure
from .series import LINES, series_figure
from .style import ALARM, COLOURS, MUTED, check, figure, png, styled

__all__ = [
    "ALARM",
    "COLOURS",
    "LINES",
    "MUTED",
    "Panel",
    "check",
    "figure",
    "images_figure",
    "png",
    "series_figure",
    "styled",
    "training_figure",
]
