"""What the commands on a run that is there share: its flags, its model with the weights of a checkpoint."""

import argparse
from pathlib import Path
from typing import Any

from ..options import Options, add_flags, from_flags
from ..run import Run
from ..workers import device_named
from .refusal import refuse_unknown

WHICH = "last, best, a step, or a file"


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the folder of the run")


def add_run_with_rest(parser: argparse.ArgumentParser) -> None:
    """For a command whose flags follow from the run: what is left is parsed by `asked`."""
    parser.add_argument("folder", metavar="RUN", nargs="?")
    parser.set_defaults(takes_rest=True)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="WHICH", default="best", help=f"{WHICH} (default: best)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto (default: cpu)")


def run_of(parsed: argparse.Namespace) -> Run:
    if parsed.folder is None:
        command = f"fusegen {parsed.command} RUN --help"
        raise ValueError(f"RUN: expected the folder of a run; {command} shows the options")
    return Run.open(Path(parsed.folder))


def asked(
    parsed: argparse.Namespace, options: type[Options], *, out: bool = False, curves: bool = False
) -> tuple[Options, argparse.Namespace]:
    """The flags of a command on a run: those of the task's `options`, and all of them."""
    parser = parser_of(f"fusegen {parsed.command} {parsed.folder}", options, out=out, curves=curves)
    given, unknown = parser.parse_known_args(parsed.rest)
    refuse_unknown(parser, unknown)
    return from_flags(options, given), given


def parser_of(
    name: str, options: type[Options], *, out: bool = False, curves: bool = False
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(name, allow_abbrev=False)
    add_checkpoint(parser)
    if out:
        parser.add_argument(
            "--out",
            metavar="FILE",
            help="write there, by its ending (default: text is shown, the rest goes to RUN/samples)",
        )
    if curves:
        parser.add_argument(
            "--curves", metavar="FILE", help="draw the run's measures and losses by step there, as PNG"
        )
    add_flags(parser, options)
    return parser


def revive(run: Run, which: str, device: str, *, data: bool) -> tuple[Any, dict[str, Any]]:
    """The task with the weights of a checkpoint, and the rest of that checkpoint."""
    place = device_named(device)
    task = run.task(data=data)
    state = run.load_weights(task, which)
    task.model.to(place).eval()
    return task, state
