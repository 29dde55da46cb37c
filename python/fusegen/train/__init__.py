"""Training: one loop, `fit`, for every model. A `Task` says what is learnt, the options how."""

from .checkpoint import CheckpointError
from .compare import Comparison
from .gan import GanTask
from .gan_options import GanData, GanFit, GanModel
from .loop import Stopped, fit
from .options import FitOptions, Options, RunOptions, TextData, TextOptions, option
from .run import Run
from .step import Batches, Task, Turn
from .text import TextTask
from .workers import Shard, Workers

__all__ = [
    "Batches",
    "CheckpointError",
    "Comparison",
    "FitOptions",
    "GanData",
    "GanFit",
    "GanModel",
    "GanTask",
    "Options",
    "Run",
    "RunOptions",
    "Shard",
    "Stopped",
    "Task",
    "TextData",
    "TextOptions",
    "TextTask",
    "Turn",
    "Workers",
    "fit",
    "option",
]
