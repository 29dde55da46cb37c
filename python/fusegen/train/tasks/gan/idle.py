"""Options of a GAN that change nothing beside its arch, its data or other options, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import GanMeasuring, GanSampling

_MLP, _DCGAN = ("widths", "critic_widths"), ("width",)
_NETWORKS = ("cell", "hidden", "layers", "bidirectional", "residual", "levels", "temperature")
_TEXT = ("tokens", "vocabulary", "held_out")
_CUT = ("length", "stride", "whiten", "innovations", "forecasts", "score_steps", *_TEXT)
_LIKELIHOOD = ("warm_up", "supervised")
_IMAGES = ("size", "channels", "column", "split", "features")
_SERIES = (
    "bidirectional", "residual", "levels", "whiten", "innovations", "forecasts", "score_steps",
)  # fmt: skip
_BUILT = ("digits", "photos")


def of_training(kind: str, name: str, sections: Mapping[str, Any]) -> dict[str, str]:
    """kind: images, series or text; name: of the data."""
    model, cut, fit = sections["model"], sections["data"], sections["fit"]
    arch = model.arch
    found: dict[str, str] = {}

    def say(names: tuple[str, ...], why: str) -> None:
        for each in names:
            found.setdefault(each, why)

    if kind == "images":
        say(
            (*_NETWORKS, *_CUT, *_LIKELIHOOD, "moments", "truncate"),
            f"it is for --arch recurrent, got {arch}",
        )
        say(_DCGAN if arch == "mlp" else _MLP, f"it is for another --arch than {arch}")
        if not name.startswith("hf:") and not name.lower().endswith(".npz"):
            say(("column",), f"only an hf: data set or an .npz has columns, {name} has none")
        if name in _BUILT or name.lower().endswith((".npy", ".npz")):
            say(("split",), f"{name} has no parts by name")
    else:
        say((*_MLP, *_DCGAN), f"it is for --arch mlp and dcgan, got {arch}")
        named = kind == "series" and name.lower().endswith(".npz")  # of which --column names an array
        say(
            tuple(each for each in _IMAGES if not (named and each == "column")),
            f"it is for images, and {name} has {kind}",
        )
    if kind == "series":
        say(("temperature", "samples", *_TEXT), f"it is not for series, which {name} has")
        if cut.innovations:
            say(("whiten",), "--innovations are learnt in its place; give --no-innovations")
        else:
            say(("forecasts",), "it is for --innovations")
        if not model.residual:
            say(_LIKELIHOOD, "of series, only a generator with --residual has a likelihood")
    if kind == "text":
        say(_SERIES, f"it is for series, and {name} has text")
    if not (fit.r1 or fit.r2 or fit.gp):
        say(("penalty_every",), "there is no penalty, --r1, --r2 and --gp are 0")
    return found


def of_asking(kind: str, how: GanSampling | GanMeasuring) -> dict[str, str]:
    """The same of `fusegen sample` and `evaluate`."""
    found: dict[str, str] = {}
    if isinstance(how, GanSampling):
        return {"count": "--interpolate draws ways in place of samples"} if how.interpolate else {}
    if kind != "images":
        found["features"] = f"it is for images, and this run's data are {kind}"
    if kind == "series":
        found["samples"] = "it is for images and text, and this run's data are series"
        if how.judges:
            found["repeats"] = "--judges are in the place of repeated networks"
    else:
        of_series = ("score_steps", "repeats", "judges")
        found |= dict.fromkeys(of_series, f"it is for series, and this run's data are {kind}")
        if kind == "images":
            found["beside"] = f"it is for series and text, and this run's data are {kind}"
    return found
