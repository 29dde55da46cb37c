"""`fusegen explain`: a page about what a run has learnt."""

import argparse
import sys
import time
import webbrowser
from pathlib import Path

from ..._errors import NotFiniteError
from ..errors import NotEnoughMemory
from ..run import Run
from ..tasks import find_task
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
        at_work = _Progress()
        path = explain(
            moved(run, given.data),
            given.out,
            checkpoint=given.checkpoint,
            layer=given.layer,
            say=at_work,
        )
    except Refused as error:
        return refuse(parsed, as_flag(error, parsed))
    except NotFiniteError as error:
        return refuse(parsed, f"{error}; another --checkpoint may be whole")
    except (MemoryError, NotEnoughMemory) as error:
        return refuse(parsed, f"not enough memory: {error}")
    print(path)
    if worse := run.not_improved(find_task(run.task_name).better):
        print(f"fusegen explain: {worse}", file=sys.stderr)
    if given.open and not _opened(path):
        print(f"fusegen explain: no browser can be opened here; open {path} in one", file=sys.stderr)
    return 0


class _Progress:
    """Says which section is made, once it has taken `PATIENCE` seconds in all."""

    PATIENCE = 3.0

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, section: str) -> None:
        taken = time.monotonic() - self._start
        if taken >= self.PATIENCE:
            print(f"fusegen explain: {taken:.0f} s, now: {section}", file=sys.stderr, flush=True)


def _opened(path: Path) -> bool:
    try:
        return webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        return False
