"""`fusegen sample`: what a run's model writes or draws."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from ..._errors import NotFiniteError
from .. import files
from ..run import Run
from .existing_run import Flags, add_checkpoint, asked, check_idle, moved, revive, within_memory
from .existing_run import add_words as add_arguments
from .refusal import Refused, as_flag, refuse

__all__ = ["FLAGS", "add_arguments", "run"]


def _add(parser: argparse.ArgumentParser, run: Run | None) -> None:
    add_checkpoint(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write there, by its ending (default: text is shown, and all is kept in RUN/samples, under a "
        "number of its own)",
    )


FLAGS = Flags(_add, "sampling")


@within_memory
def run(parsed: argparse.Namespace) -> int:
    try:
        run, how, given = asked(parsed, FLAGS)
        run = moved(run, given.data)
        task, state = revive(run, given.checkpoint, given.device, data=False)
        check_idle(task, how, given)
        content = task.sample(how)
        for note in task.notes if given.data is None else ():  # of what was asked for; else of the data
            print(f"fusegen sample: {note}", file=sys.stderr)
        if given.out is None:
            shown = sys.stdout
            if ".txt" in content:
                print(_printable(str(content[".txt"])))
                shown = sys.stderr  # what reads the text needs no more than that
            for path in run.keep_sample(state["step"], content):
                print(path, file=shown)
        else:
            named = _named(Path(given.out), content)
            beside = [str(path) for path in named if path.exists() and str(path) != given.out]
            if beside and not Path(given.out).exists():  # else both are of a command before
                raise ValueError(
                    f"out: {', '.join(beside)} is there already; name another file than {given.out}"
                )
            for path, each in named.items():
                files.write(path, each)
    except Refused as error:
        return refuse(parsed, as_flag(error, parsed))
    except NotFiniteError as error:
        return refuse(parsed, f"{error}; another --checkpoint may be whole")
    return 0


def _named(out: Path, content: Mapping[str, str | bytes]) -> dict[Path, str | bytes]:
    """What goes into which file: of {suffix: content} that of out's suffix, in any case, and the rest beside
    it under its own. Raises ValueError for another suffix, which would say what the file is not."""
    suffix = out.suffix.lower()
    if not out.name or (suffix and suffix not in content):
        endings = " or ".join(content)
        raise ValueError(f"out: expected a file that ends in {endings}, or in nothing, got {str(out)!r}")
    if not suffix and len(content) == 1:
        return dict.fromkeys([out], *content.values())
    return {out if own == suffix else out.with_suffix(own): each for own, each in content.items()}


def _printable(text: str) -> str:
    """Without control characters: a model may write what a terminal would obey. A carriage return ends a
    line, as on the systems that the text may come from."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
