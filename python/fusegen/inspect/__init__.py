"""Seeing inside recurrent layers: what they hold step by step, what an answer rests on, what a layer does.

``record`` gives gates, h and c from the fused kernels; ``gradients``, ``integrated_gradients``,
``occlusion``, ``contextual_decomposition`` and ``logit_by_step`` attribute an answer in evaluation mode;
``time_constants``, ``saturation``, ``dead_units``, ``gradient_by_lag``, ``jacobian_spectrum`` and
``fixed_points`` say what a layer does; ``ablate`` and ``patch`` change it, and ``change_of_loss`` says what
that costs. ``drivers``, ``probe`` and ``coloured`` say what units of a text model mean;
``latent_dimensions``, ``traversals``, ``unit_effects``, ``nearest_neighbours`` and ``input_gradient`` what a
VAE or a GAN has learnt. ``explain`` writes a page about a run. docs/inspect.md shows all of them.
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
from .generators import (
    Dimensions,
    Neighbours,
    Overlap,
    UnitEffects,
    input_gradient,
    interpolation,
    latent_dimensions,
    nearest_neighbours,
    posterior_overlap,
    sentences_along,
    traversals,
    unit_effects,
)
from .page import explain
from .recording import Module, Plane, Recording, load, record
from .units import Coloured, Drivers, Probe, coloured, drivers, probe, text_labels

__all__ = [
    "ByLag",
    "Change",
    "Coloured",
    "Decomposition",
    "Dimensions",
    "Drivers",
    "FixedPoints",
    "Integrated",
    "Module",
    "Neighbours",
    "Overlap",
    "Plane",
    "Probe",
    "Recording",
    "Saturation",
    "Shares",
    "Step",
    "UnitEffects",
    "Visited",
    "ablate",
    "ablation_effects",
    "change_of_loss",
    "coloured",
    "contextual_decomposition",
    "dead_units",
    "drivers",
    "explain",
    "fixed_points",
    "gradient_by_lag",
    "gradients",
    "input_gradient",
    "integrated_gradients",
    "interpolation",
    "jacobian_spectrum",
    "jacobians",
    "latent_dimensions",
    "load",
    "logit_by_step",
    "nearest_neighbours",
    "occlusion",
    "patch",
    "posterior_overlap",
    "probe",
    "record",
    "saturation",
    "sentences_along",
    "step_of",
    "text_labels",
    "time_constants",
    "traversals",
    "unit_effects",
    "visited",
]
