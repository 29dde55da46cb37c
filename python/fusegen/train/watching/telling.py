"""How figures are told to people: a measure beside what it is compared with, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping

# How the names of figures end that stand beside another measure's, and what people read.
_BESIDE = {" of a Gaussian fit": "Gaussian fit", " of the data": "the data"}
_OTHERS = ("a Gaussian fit", "an AR(", "the data", "a bigram model")
_LOWER, _HIGHER = "lower is better", "higher is better"
# How the names of measures begin, and which way is better; what none begins is judged beside the data's.
_DIRECTIONS = {
    "held-out": _LOWER, "nats": _LOWER, "perplexity": _LOWER, "unknown %": _LOWER, "log likelihood": _HIGHER,
    "exact %": _HIGHER, "BLEU of the sources": "", "BLEU": _HIGHER, "self-BLEU": _LOWER,
    "discriminative score": _LOWER, "predictive score": _LOWER, "log-spectral distance": _LOWER,
    "marginal error": _LOWER, "autocorrelation error": _LOWER, "cross-correlation error": _LOWER,
    "bigram divergence": _LOWER, "unique share": _HIGHER, "copied share": _LOWER,
    "digits Frechet distance": _LOWER, "Frechet distance": _LOWER, "FID": _LOWER, "KID": _LOWER,
    "IS": _HIGHER,
    "of a Gaussian fit's": _LOWER, "digits kernel distance": _LOWER, "kernel distance": _LOWER,
    "digits classifier score": _HIGHER, "classifier score": _HIGHER, "digits precision": _HIGHER,
    "digits recall": _HIGHER, "precision": _HIGHER, "recall": _HIGHER, "share read": _HIGHER,
}  # fmt: skip


def direction(name: str) -> str:
    """ "lower is better" or "higher is better" of a measure; "" where neither is said: of what it is held
    against, of a spread, and of what is neither good nor bad by itself (a KL divergence, active units)."""
    if name.endswith(", deviation") or any(f" of {whose}" in name for whose in _OTHERS):
        return ""
    return next((told for begin, told in _DIRECTIONS.items() if name.startswith(begin)), "")


def figure(value: float) -> str:
    """Four digits, as many as there are of a large one: 0.1234, 24.9, 1,512,345."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def measures(values: Mapping[str, float], better: str) -> str:
    """All measures of an evaluation, the first with the direction that is better, each with what it is
    compared with: "Fréchet distance 24.9 (Gaussian fit: 848; lower is better)"."""
    besides: dict[str, list[str]] = {name: [] for name in values}
    for name in values:
        for end, whose in _BESIDE.items():
            if name.endswith(end) and (of := name.removesuffix(end)) in values:
                besides[of].append(f"{whose}: {figure(values[name])}")
                besides.pop(name)
    first = next(iter(values))
    besides[first].append(f"{better} is better")
    return "   ".join(_one(name, values[name], told) for name, told in besides.items())


def _one(name: str, value: float, told: list[str]) -> str:
    beside = f" ({'; '.join(told)})" if told else ""
    return f"{spelled(name)} {figure(value)}{beside}"


def spelled(name: str) -> str:
    """A measure's name as people write it: the log's are ASCII."""
    return name.replace("Frechet", "Fréchet")


def duration(seconds: float) -> str:
    """1:05, 2:03:10."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
