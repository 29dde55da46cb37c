"""Series with published figures, or that a package brings along."""

from .sines import sines
from .tones import tones
from .watch import watch

__all__ = ["sines", "tones", "watch"]
