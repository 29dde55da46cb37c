"""`fusegen sample`: what a run's model writes or draws."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from ..._errors import NotFiniteError
from .. import files
from ..tasks import find_task
from .existing_run import add_run_with_rest as add_arguments
from .existing_run import asked, revive, run_of
from .refusal import Refused, as_flag, refuse

__all__ = ["add_arguments", "run"]


def run(parsed: argparse.Namespace) -> int:
    try:
        run = run_of(parsed)
        how, given = asked(parsed, find_task(run.task_name).sampling, out=True)
        task, state = revive(run, given.checkpoint, given.device, data=False)
        content = task.sample(how)
        if given.out is None:
            for suffix in [suffix for suffix in content if suffix == ".txt"]:
                print(_printable(str(content.pop(suffix))))
            for path in run.save_sample(state["step"], content) if content else []:
                print(path)
        else:
            for path, each in _named(Path(given.out), content).items():
                files.write(path, each)
    except Refused as error:
        return refuse(parsed, as_flag(error))
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
    """Without control characters: a model may write what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
