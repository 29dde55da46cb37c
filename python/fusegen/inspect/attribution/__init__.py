"""What an answer rests on, in evaluation mode: gradients, integrated gradients, occlusion, decomposition."""

from .decomposition import Decomposition, Shares, contextual_decomposition, logit_by_step
from .gradients import gradients
from .integrated import Integrated, integrated_gradients
from .occlusion import occlusion

__all__ = [
    "Decomposition",
    "Integrated",
    "Shares",
    "contextual_decomposition",
    "gradients",
    "integrated_gradients",
    "logit_by_step",
    "occlusion",
]
