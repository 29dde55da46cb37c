"""Seeing inside recurrent layers: what they hold step by step, what their answers rest on, what they do.

``record`` gives gates, h and c.
"""

from .recording import Module, Plane, Recording, load, record

__all__ = ["Module", "Plane", "Recording", "load", "record"]
