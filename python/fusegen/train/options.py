"""Options as frozen dataclasses: checked when made, the source of the command line's flags and config.json.

A field's name is its flag (`--hidden`, `--log-every`) and its key in a file, its default the flag's, its
`help` the text that `--help` shows. What a field may hold is said once, in its `option`.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_args

from .._arguments import number, whole
from ..data.files.places import absolute

T = TypeVar("T", bound="Options")

CELLS = ("lstm", "gru", "rnn")
PRECISIONS = ("float32", "bfloat16", "float16", "float64")


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    *,
    place: tuple[str, ...] | None = None,
    **bounds: Any,
) -> Any:
    """A field of an `Options`. bounds: those of `_arguments.whole` and `_arguments.number`.

    default: the field's, and the flag's. help: what --help and the reference show. choices: the strings
    allowed, None for any. Raises nothing itself: errors come when an `Options` is made.

    place: of one that names files, the names among its values that are none (() where all are): a run keeps
    where the files lie, whichever folder it goes on from."""
    metadata = {"help": help, "choices": choices, "bounds": bounds, "place": place}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all options: each field made by `option`, an int, float, str or bool, or one of them | None.

    Making one raises TypeError or ValueError, naming the field, for a wrong value.
    """

    def __post_init__(self):
        for each in fields(self):
            _check(each, getattr(self, each.name))


@dataclass(frozen=True, kw_only=True)
class FitOptions(Options):
    """How to train. Raises TypeError or ValueError, naming the field, for a wrong value."""

    steps: int = option(900, "optimiser steps", least=1)
    lr: float = option(
        5e-3,
        "Adam's highest learning rate: reached after 5 % of the steps, then lowered along a cosine",
        least=0,
        open_below=True,
    )
    clip: float = option(1.0, "gradients longer than this are scaled down to it", least=0, open_below=True)
    seed: int = option(0, "seed of the weights, of dropout and of the sample", least=0, most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """On what a run is trained, and what it leaves behind. Errors as in `FitOptions`."""

    device: str = option("auto", "cpu, cuda, cuda:N; auto: a GPU where there is one")
    precision: str = option("float32", "bfloat16 and float16: autocast; float64: all of it", PRECISIONS)
    compile: bool = option(False, "torch.compile the forward and backward pass")
    accumulate: int = option(
        1, "split each process's share of a batch into so many parts, to need less memory", least=1
    )
    ema: float = option(
        0.0,
        "decay of a moving average of the weights, which is measured and sampled; 0: no average",
        least=0,
        most=1,
        open_above=True,
    )
    ema_warm_up: bool = option(
        False,
        "--ema: let the average forget the untrained weights soon: after t steps its decay is at most "
        "(1 + t) / (10 + t)",
    )
    evaluations: int = option(
        10, "how often to measure on held-out data, evenly spread, besides once at the start", least=1
    )
    checkpoint_every: int = option(0, "steps between checkpoints, besides those at each evaluation", least=0)
    keep: int = option(3, "how many of the last checkpoints to keep, besides the best", least=1)
    log_every: int = option(10, "steps between lines of the log", least=1)
    tensorboard: bool = option(True, "also log for TensorBoard, where it is installed")
    stop_when_diverged: bool = option(
        False, "stop, with status 3, at an evaluation after losses have become much worse than at the start"
    )
    timeout: float = option(
        600.0, "seconds to wait for another process of this run before giving up", least=0, open_below=True
    )


def add_flags(
    parser: argparse._ActionsContainer,
    options: type[Options],
    *,
    given_only: bool = False,
    shown: Options | Mapping[str, Options] | None = None,
) -> None:
    """One flag for each field of `options`. given_only: what is not given is left out of the namespace.
    shown: whose values the help names as defaults (by default the fields' own); of several, by what they are
    for, the first's, and where others differ, theirs; of {} none."""
    for each in fields(options):
        its_type, choices = _type(each), each.metadata["choices"]
        said = _defaults(each, shown if isinstance(shown, Mapping) else {"": shown or options})
        how: dict[str, Any] = {"type": its_type, "choices": choices}
        if its_type is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif not choices:
            how["metavar"] = {int: "N", float: "X", str: each.name.upper()}[its_type]
        parser.add_argument(
            flag(each.name),
            dest=each.name,
            default=argparse.SUPPRESS if given_only else each.default,
            help=f"{each.metadata['help']}{said}".replace("%", "%%"),
            **how,
        )


def _defaults(each: Any, shown: Mapping[str, Any]) -> str:
    """What the help says of a field's default, " (default: 100; dcgan: 64; series, text: 16)"."""
    values = {whose: getattr(own, each.name) for whose, own in shown.items()}
    if not values:
        return ""
    first = next(iter(values.values()))
    others: dict[Any, list[str]] = {}
    for whose, value in values.items():
        if value != first:
            others.setdefault(value, []).append(whose)
    if first is None and not others:
        return ""
    told = [_told(first), *(f"{', '.join(whose)}: {_told(value)}" for value, whose in others.items())]
    return f" (default: {'; '.join(told)})"


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def flag(name: str) -> str:
    """The flag of a field: log_every -> --log-every, class_ -> --class."""
    return "--" + name.rstrip("_").replace("_", "-")


def placed(options: T) -> T:
    """`options` with the files that they name by absolute paths."""
    given = {each.name: getattr(options, each.name) for each in fields(options)}
    for each in fields(options):
        if each.metadata["place"] is not None and given[each.name] is not None:
            given[each.name] = absolute(given[each.name], each.metadata["place"])
    return type(options)(**given)


def from_flags(options: type[T], parsed: argparse.Namespace, base: T | None = None) -> T:
    """The dataclass that the parsed flags describe; what they leave out is as in `base`, or the default."""
    missing = {each.name: getattr(base or options, each.name, each.default) for each in fields(options)}
    return options(**{name: getattr(parsed, name, value) for name, value in missing.items()})


def _type(each: Any) -> type:
    """int, float, str or bool: the type of a field, None left aside."""
    return next(one for one in (*get_args(each.type), each.type) if one is not type(None))


def _check(each: Any, value: Any) -> None:
    its_type, choices = _type(each), each.metadata["choices"]
    if value is None and type(None) in get_args(each.type):
        return
    if its_type is int:
        whole(each.name, value, **{"least": 0, **each.metadata["bounds"]})
    elif its_type is float:
        number(each.name, value, **{"least": 0, **each.metadata["bounds"]})
    elif choices and value not in choices:
        raise ValueError(f"{each.name}: expected one of {', '.join(choices)}, got {value!r}")
    elif not isinstance(value, its_type):
        expected = {bool: "true or false", str: "text"}[its_type]
        raise TypeError(f"{each.name}: expected {expected}, got {type(value).__name__} {value!r}")
