"""Data for the models: where it comes from, how it is split, how it is cut into batches."""

from .text import Lanes, Text, pydocs, read_text, split

__all__ = ["Lanes", "Text", "pydocs", "read_text", "split"]
