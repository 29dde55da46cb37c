"""The page of a GAN."""

from .page import gan_page

__all__ = ["gan_page"]
