"""The ops of normalised cells, and of cells whose recurrent matrix is of blocks."""

from .op import OPS
from .passes import NORMS
from .stack import Stack, run

__all__ = ["NORMS", "OPS", "Stack", "run"]
