"""What a layer does: how long it holds, what saturates, how far gradients reach, how its step moves states,
and what changes when units or states do."""

from .fixed_points import FixedPoints, fixed_points
from .interventions import Change, ablate, ablation_effects, change_of_loss, patch
from .jacobian import jacobian_spectrum, jacobians
from .lags import ByLag, gradient_by_lag
from .saturation import Saturation, dead_units, saturation
from .steps import Step, Visited, step_of, visited
from .timescales import time_constants

__all__ = [
    "ByLag",
    "Change",
    "FixedPoints",
    "Saturation",
    "Step",
    "Visited",
    "ablate",
    "ablation_effects",
    "change_of_loss",
    "dead_units",
    "fixed_points",
    "gradient_by_lag",
    "jacobian_spectrum",
    "jacobians",
    "patch",
    "saturation",
    "step_of",
    "time_constants",
    "visited",
]
