"""Training: one loop, `fit`, for every model. A `Task` says what is learnt, `FitOptions` how."""

from .compare import Comparison
from .loop import fit
from .options import FitOptions, TextOptions
from .step import Task
from .text import TextTask

__all__ = ["Comparison", "FitOptions", "Task", "TextOptions", "TextTask", "fit"]
