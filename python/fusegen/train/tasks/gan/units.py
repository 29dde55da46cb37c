"""In what the known series are told, for pictures: units of their features, and what a step is."""

from dataclasses import dataclass, field
from pathlib import Path

from ....data.files import sound


@dataclass(frozen=True)
class Units:
    """step: what a step is. features: units by feature, those that are known."""

    step: str = "step"
    features: dict[str, str] = field(default_factory=dict)


_DOLLARS = dict.fromkeys(("open", "high", "low", "close", "adj_close"), "US$")
# matplotlib says neither in what its electroencephalogram is measured nor how fast it was taken.
# seglearn names no units either: at rest its watch measures an acceleration of length 1, which is gravity,
# and only in radians are its rates of turn those of an arm. Sines have none.
_KNOWN = {
    "prices": Units("trading day", {**_DOLLARS, "volume": "shares"}),
    "eeg": Units("sample"),
    "watch": Units(
        "tenth of a second",
        dict.fromkeys(("ax", "ay", "az"), "g") | dict.fromkeys(("wx", "wy", "wz"), "rad/s"),
    ),
    "sines": Units(),
    "tones": Units("sample", {"pressure": "of full scale"}),
}


def units_of(name: str, features: tuple[str, ...]) -> Units:
    """Those of a source by its name; of sounds, values by full scale."""
    if name in _KNOWN:
        return _KNOWN[name]
    if Path(name).suffix.lower() in sound.SUFFIXES:
        return Units("sample", dict.fromkeys(features, "of full scale"))
    return Units()
