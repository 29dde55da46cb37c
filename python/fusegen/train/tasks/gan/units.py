"""In what the known series are told, for pictures: units of their features, and what a step is."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Units:
    """step: what a step is. features: units by feature, those that are known."""

    step: str = "step"
    features: dict[str, str] = field(default_factory=dict)


_DOLLARS = dict.fromkeys(("open", "high", "low", "close", "adj_close"), "US$")
# matplotlib says neither in what its electroencephalogram is measured nor how fast it was taken.
_KNOWN = {"prices": Units("trading day", {**_DOLLARS, "volume": "shares"}), "eeg": Units("sample")}


def units_of(name: str, features: tuple[str, ...]) -> Units:
    """Those of a source by its name; of sounds, values by full scale."""
    if name in _KNOWN:
        return _KNOWN[name]
    if name.endswith(".wav"):
        return Units("sample", dict.fromkeys(features, "of full scale"))
    return Units()
