"""A page about a run: what it has learnt, in pictures, for somebody who has not read the docs."""

from .write import explain

__all__ = ["explain"]
