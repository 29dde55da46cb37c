"""What can be read off units by a line: probes, beside themselves on shuffled labels."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _arguments
from ...data._optional import needed
from ..recording.recorded import Plane
from .values import beside, check_fits, values_of

_WHAT = "fusegen.inspect.probe"
_LEAST = 8  # samples of a class, on either side, below which it is left out
_STRENGTH = 0.1  # scikit-learn's C: the weights' penalty, of standardised units
_ITERATIONS = 200


class Probe(NamedTuple):
    """accuracy: of the probe, on steps that it has not seen; control: of the same on shuffled labels, which
    is what the probe can learn by heart; chance: 1 / K, the accuracy of a guess. classes: the K labels told
    apart. learnt, measured: how many steps. weights: float64 [K, U] ([1, U] of two classes), of the units,
    each divided by its deviation: which of them the answer is read off."""

    accuracy: float
    control: float
    chance: float
    classes: tuple[int, ...]
    learnt: int
    measured: int
    weights: Tensor


def probe(
    values: Plane | Tensor,
    labels: Tensor,
    *,
    array: str | None = None,
    held_out: float = 0.25,
    most: int = 6000,
    seed: int = 0,
) -> Probe:
    """How well a label can be read off the units by a linear map: a diagnostic probe (Alain and Bengio 2017,
    arXiv:1610.01644), beside the same on shuffled labels (a control task, Hewitt and Liang 2019,
    arXiv:1909.03368).

    The probe is scikit-learn's LogisticRegression on standardised units. It learns from the first steps and
    is measured on the last, so that no neighbour of a step it is measured on was learnt from. On both sides
    steps are drawn so that each class has as many: the accuracy of a guess is 1 / K.

    Args:
        values: a plane of ``record``, of all steps, or a Tensor [T, B, U] (or [T, U]).
        labels: integers [T, B]; steps with a negative one are left out, and classes with less than 8 steps
            on either side.
        array: of a plane; by default "c" where there is one, else "h".
        held_out: the share of the steps, the last, that it is measured on.
        most: steps to learn from, at most.
        seed: of which are drawn, and of the shuffling.

    Raises TypeError or ValueError, which name the argument; ValueError where fewer than two classes are left;
    ModuleNotFoundError, saying what to install, without scikit-learn; MemoryError where the steps drawn do
    not fit.
    """
    held, mask = values_of(_WHAT, values, array)
    told = beside(_WHAT, "labels", labels, held)
    held_out = _arguments.number(f"{_WHAT}: held_out", held_out, 0, 1, open_below=True, open_above=True)
    most = _arguments.whole(f"{_WHAT}: most", most, 2 * _LEAST)
    needed("sklearn", "scikit-learn")
    T, U = len(held), held.shape[2]
    told = told.masked_fill(~mask.cpu(), -1)
    cut = T - max(1, round(T * held_out))
    sides = told[:cut], told[cut:]
    classes = _classes(*sides)
    if len(classes) < 2:
        raise ValueError(
            f"{_WHAT}: expected labels of two classes or more, each with {_LEAST} steps or more among the "
            f"first {cut} and the last {T - cut}, got {len(classes)}"
        )
    random = torch.Generator().manual_seed(_arguments.whole(f"{_WHAT}: seed", seed, 0))
    check_fits(_WHAT, 2 * most * U * 8, "give most= a smaller number, or record fewer units (units=)")
    x, y = _balanced(held[:cut], sides[0], classes, most // len(classes), random)
    unseen_x, unseen_y = _balanced(held[cut:], sides[1], classes, most // len(classes), random)
    accuracy, weights = _fitted(x, y, unseen_x, unseen_y)
    control, _ = _fitted(x, _shuffled(y, random), unseen_x, _shuffled(unseen_y, random))
    return Probe(
        accuracy,
        control,
        1 / len(classes),
        classes=tuple(classes),
        learnt=len(y),
        measured=len(unseen_y),
        weights=weights,
    )


def _classes(*sides: Tensor) -> list[int]:
    """The labels that each side has often enough."""
    often = []
    for side in sides:
        found, counts = side[side >= 0].unique(return_counts=True)
        often.append(set(found[counts >= _LEAST].tolist()))
    return sorted(set.intersection(*often))


def _balanced(
    values: Tensor, labels: Tensor, classes: list[int], most: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(values [N, U] in float64, labels [N]): as many steps of each class."""
    places = [(labels == c).nonzero() for c in classes]
    count = min(most, *map(len, places))
    drawn = torch.cat([own[torch.randperm(len(own), generator=random)[:count]] for own in places])
    t, b = (at.to(values.device) for at in drawn.unbind(1))
    return values[t, b].cpu().double(), labels[drawn[:, 0], drawn[:, 1]]


def _shuffled(labels: Tensor, random: torch.Generator) -> Tensor:
    return labels[torch.randperm(len(labels), generator=random)]


def _fitted(x: Tensor, y: Tensor, unseen_x: Tensor, unseen_y: Tensor) -> tuple[float, Tensor]:
    """(The accuracy on what was not seen, the weights of standardised units)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=_ITERATIONS))
    with warnings.catch_warnings():
        # Labels that were shuffled never converge; what a probe cut short reads off is there all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x.numpy(), y.numpy())
    accuracy = float(model.score(unseen_x.numpy(), unseen_y.numpy()))
    return accuracy, torch.from_numpy(model[-1].coef_)
