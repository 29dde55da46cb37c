"""`fusegen explain`: a page about what a run has learnt."""

import argparse
import sys
import webbrowser
from pathlib import Path

from ..._errors import NotFiniteError
from ..errors import NotEnoughMemory
from ..run import Run
from .existing_run import Flags, add_checkpoint, asked, moved
from .existing_run import add_words as add_arguments
from .refusal import Refused, as_flag, refuse

__all__ = ["FLAGS", "add_arguments", "run"]


def _add(parser: argparse.ArgumentParser, run: Run | None) -> None:
    where = "RUN" if run is None else run.folder
    parser.add_argument("--out", metavar="FILE", help=f"write there (default: {where}/explain.html)")
    add_checkpoint(parser, device=False)
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="whose units are shown (default: all recurrent layers, or a generator's last inner one)",
    )
    parser.add_argument("--open", action="store_true", help="show it in a browser, where there is one")


FLAGS = Flags(_add)


def run(parsed: argparse.Namespace) -> int:
    from ...inspect import explain  # it needs models, and they torch's compiler: not for --help

    try:
        run, _, given = asked(parsed, FLAGS)
        path = explain(moved(run, given.data), given.out, checkpoint=given.checkpoint, layer=given.layer)
    except Refused as error:
        return refuse(parsed, as_flag(error, parsed))
    except NotFiniteError as error:
        return refuse(parsed, f"{error}; another --checkpoint may be whole")
    except (MemoryError, NotEnoughMemory) as error:
        return refuse(parsed, f"not enough memory: {error}")
    print(path)
    if given.open and not _opened(path):
        print(f"fusegen explain: no browser can be opened here; open {path} in one", file=sys.stderr)
    return 0


def _opened(path: Path) -> bool:
    try:
        return webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        return False
