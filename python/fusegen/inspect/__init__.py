"""Seeing inside recurrent layers: what they hold step by step, what an answer rests on, what a layer does.

``record`` gives gates, h and c from the fused kernels; ``gradients``, ``integrated_gradients``,
``occlusion``, ``contextual_decomposition`` and ``logit_by_step`` attribute an answer in evaluation mode;
``time_constants``, ``saturation``, ``dead_units``, ``gradient_by_lag``, ``jacobian_spectrum`` and
``fixed_points`` say what a layer does; ``ablate`` and ``patch`` change it, and ``change_of_loss`` says what
that costs. docs/inspect.md shows all of them.
"""

from .attribution import (
    Decomposition,
    Integrated,
    Shares,
    contextual_decomposition,
    gradients,
    integrated_gradients,
    logit_by_step,
    occlusion,
)
from .dynamics import (
    ByLag,
    Change,
    FixedPoints,
    Saturation,
    Step,
    Visited,
    ablate,
    ablation_effects,
    change_of_loss,
    dead_units,
    fixed_points,
    gradient_by_lag,
    jacobian_spectrum,
    jacobians,
    patch,
    saturation,
    step_of,
    time_constants,
    visited,
)
from .recording import Module, Plane, Recording, load, record

__all__ = [
    "ByLag",
    "Change",
    "Decomposition",
    "FixedPoints",
    "Integrated",
    "Module",
    "Plane",
    "Recording",
    "Saturation",
    "Shares",
    "Step",
    "Visited",
    "ablate",
    "ablation_effects",
    "change_of_loss",
    "contextual_decomposition",
    "dead_units",
    "fixed_points",
    "gradient_by_lag",
    "gradients",
    "integrated_gradients",
    "jacobian_spectrum",
    "jacobians",
    "load",
    "logit_by_step",
    "occlusion",
    "patch",
    "record",
    "saturation",
    "step_of",
    "time_constants",
    "visited",
]
