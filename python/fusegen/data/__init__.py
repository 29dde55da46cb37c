"""Data for the models: where it comes from, how it is split, how it is cut into batches."""

from .images import Images, digits, grid, photo_patches, read_images, save_grid
from .series import Series, eeg, read_series, share_prices, windows
from .text import Lanes, Text, pydocs, read_text, split

__all__ = [
    "Images",
    "Lanes",
    "Series",
    "Text",
    "digits",
    "eeg",
    "grid",
    "photo_patches",
    "pydocs",
    "read_images",
    "read_series",
    "read_text",
    "save_grid",
    "share_prices",
    "split",
    "windows",
]
