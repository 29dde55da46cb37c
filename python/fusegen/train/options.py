"""Options as frozen dataclasses: checked when made, and the source of the command line's flags.

A field's name is its flag (`--hidden`), its default the flag's, its `help` the text that `--help` shows.
"""

import argparse
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from .._arguments import number, whole

T = TypeVar("T")

CELLS = ("lstm", "gru", "rnn")


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to train. Raises TypeError or ValueError, naming the field, for a wrong value."""

    steps: int = option(900, "optimiser steps")
    lr: float = option(5e-3, "Adam's highest learning rate: risen to over 5 % of the steps, then a cosine")
    clip: float = option(1.0, "longer gradients are scaled down to this length")
    seed: int = option(0, "of the weights, of dropout and of the sample")

    def __post_init__(self):
        whole("steps", self.steps, 1)
        number("lr", self.lr, 0, open_below=True)
        number("clip", self.clip, 0, open_below=True)
        whole("seed", self.seed, 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Which text model, and how its text is cut. Raises TypeError or ValueError, naming the field."""

    cell: str = option("lstm", "recurrent cell", CELLS)
    layers: int = option(2, "recurrent layers")
    hidden: int = option(256, "units in a layer")
    embedding: int = option(128, "size of a byte's vector")
    dropout: float = option(0.0, "chance of a zero, before, between and after the layers")
    batch: int = option(16, "stretches of text read side by side")
    chunk: int = option(64, "bytes of each in one step")

    def __post_init__(self):
        if self.cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {self.cell!r}")
        for name in ("layers", "hidden", "embedding", "batch", "chunk"):
            whole(name, getattr(self, name), 1)
        number("dropout", self.dropout, 0, 1, open_above=True)


def add_flags(parser: argparse.ArgumentParser, options: type) -> None:
    """One flag for each field of a dataclass made of `option`s."""
    for each in fields(options):
        choices = each.metadata["choices"]
        parser.add_argument(
            f"--{each.name}",
            type=type(each.default),
            default=each.default,
            choices=choices,
            metavar=None if choices else "N" if isinstance(each.default, int) else "X",
            help=f"{each.metadata['help']} (default: {each.default})".replace("%", "%%"),
        )


def from_flags(options: type[T], parsed: argparse.Namespace) -> T:
    """The dataclass that the parsed flags describe."""
    return options(**{each.name: getattr(parsed, each.name) for each in fields(options)})
