"""What generators have learnt: the dimensions of a latent variable and what each does, what units draw, where
the discriminator looks, and whether samples are copies of the data."""

from .latents import Dimensions, Overlap, latent_dimensions, posterior_overlap
from .neighbours import Neighbours, nearest_neighbours
from .networks import UnitEffects, input_gradient, unit_effects
from .traversals import interpolation, sentences_along, traversals

__all__ = [
    "Dimensions",
    "Neighbours",
    "Overlap",
    "UnitEffects",
    "input_gradient",
    "interpolation",
    "latent_dimensions",
    "nearest_neighbours",
    "posterior_overlap",
    "sentences_along",
    "traversals",
    "unit_effects",
]
