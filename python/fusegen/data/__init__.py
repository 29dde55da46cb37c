"""Data for the models: where it comes from, how it is split, how it is cut into batches."""

from .batches import Fetched, Shuffled
from .files.arrays import read_array, read_tokens
from .files.sound import read_sound
from .files.tables import Table, read_table
from .images import Images, has_test_split, read_images
from .innovations import Innovations
from .parallel import Pairs, read_pairs, reversals
from .pictures import digits, fitted, photo_patches
from .recordings import sines, tones, watch
from .sequences import Ragged, lines, sentences
from .series import Series, eeg, read_series, share_prices, windows
from .stream import StreamedLanes, StreamError, TextStream
from .text import Lanes, Text, character_names, open_text, pydocs, read_text, split, tokenize
from .vocabulary import Vocabulary, count_characters
from .whitening import Whitening

__all__ = [
    "Fetched",
    "Images",
    "Innovations",
    "Lanes",
    "Pairs",
    "Ragged",
    "Series",
    "Shuffled",
    "StreamError",
    "StreamedLanes",
    "Table",
    "Text",
    "TextStream",
    "Vocabulary",
    "Whitening",
    "character_names",
    "count_characters",
    "digits",
    "eeg",
    "fitted",
    "has_test_split",
    "lines",
    "open_text",
    "photo_patches",
    "pydocs",
    "read_array",
    "read_images",
    "read_pairs",
    "read_series",
    "read_sound",
    "read_table",
    "read_text",
    "read_tokens",
    "reversals",
    "sentences",
    "share_prices",
    "sines",
    "split",
    "tokenize",
    "tones",
    "watch",
    "windows",
]
