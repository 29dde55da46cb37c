"""Gates, h and c of every step, from what the fused kernels save."""

from .context import record
from .recorded import Module, Plane, Recording, load

__all__ = ["Module", "Plane", "Recording", "load", "record"]
