"""`fusegen explain`: a page about what a run has learnt."""

import argparse
import sys
import webbrowser
from pathlib import Path

from ..._errors import NotFiniteError
from ..errors import NotEnoughMemory
from .existing_run import WHICH, add_run, run_of
from .refusal import Refused, as_flag, refuse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--output", metavar="FILE", help="write there (default: RUN/explain.html)")
    parser.add_argument("--checkpoint", metavar="WHICH", default="best", help=f"{WHICH} (default: best)")
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="whose units are shown (default: all recurrent layers, or a generator's last inner one)",
    )
    parser.add_argument("--open", action="store_true", help="show it in a browser, where there is one")


def run(parsed: argparse.Namespace) -> int:
    from ...inspect import explain  # it needs models, and they torch's compiler: not for --help

    try:
        path = explain(run_of(parsed), parsed.output, checkpoint=parsed.checkpoint, layer=parsed.layer)
    except Refused as error:
        return refuse(parsed, as_flag(error))
    except NotFiniteError as error:
        return refuse(parsed, f"{error}; another --checkpoint may be whole")
    except (MemoryError, NotEnoughMemory) as error:
        return refuse(parsed, f"not enough memory: {error}")
    print(path)
    if parsed.open and not _opened(path):
        print(f"fusegen explain: no browser can be opened here; open {path} in one", file=sys.stderr)
    return 0


def _opened(path: Path) -> bool:
    try:
        return webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        return False
