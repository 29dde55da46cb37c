"""Training: one loop, `fit`, for every model. A `Task` says what is learnt, the options how."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import CheckpointError
    from .compare import Comparison
    from .loop import Collapsed, Stopped, fit
    from .options import FitOptions, Options, RunOptions, option
    from .run import Run
    from .task import Batches, Task, Turn, Watch
    from .tasks.gan.options import GanData, GanFit, GanModel
    from .tasks.gan.task import GanTask
    from .tasks.text import TextData, TextOptions, TextTask
    from .workers import Shard, Workers

# Imported when they are asked for: a command, or a run of one task, needs no other task.
_HOMES = {
    "checkpoint": ("CheckpointError",),
    "compare": ("Comparison",),
    "loop": ("Collapsed", "Stopped", "fit"),
    "options": ("FitOptions", "Options", "RunOptions", "option"),
    "run": ("Run",),
    "task": ("Batches", "Task", "Turn", "Watch"),
    "tasks.gan.options": ("GanData", "GanFit", "GanModel"),
    "tasks.gan.task": ("GanTask",),
    "tasks.text": ("TextData", "TextOptions", "TextTask"),
    "workers": ("Shard", "Workers"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Batches",
    "CheckpointError",
    "Collapsed",
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
    "Watch",
    "Workers",
    "fit",
    "option",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
