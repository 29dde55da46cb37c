"""`fusegen resume`: a run that was stopped or killed goes on."""

import argparse
from pathlib import Path

from .. import config
from ..config import COMMON
from ..options import add_flags
from ..run import Run
from ..tasks import find_task
from ..workers import Workers
from .existing_run import WHICH, Flags, asked
from .existing_run import add_words as add_arguments
from .refusal import Refused, as_flag, refuse
from .session import override, reopen, train_and_report

__all__ = ["FLAGS", "add_arguments", "run"]


def _add(parser: argparse.ArgumentParser, run: Run | None) -> None:
    parser.add_argument("--from", dest="which", metavar="WHICH", default="last", help=f"{WHICH} (last)")
    parser.add_argument(
        "--anew", action="store_true", help="begin at step 0 where the run has no checkpoint any more"
    )
    kinds = COMMON if run is None else config.classes(find_task(run.task_name))
    for section in COMMON:
        group = parser.add_argument_group(f"{section}: in place of the run's own")
        # Without a run nobody knows what its own are.
        add_flags(group, kinds[section], given_only=True, shown={} if run is None else run.sections[section])


FLAGS = Flags(_add)


def run(parsed: argparse.Namespace) -> int:
    try:
        run, _, given = asked(parsed, FLAGS)
        if given.data is None:
            del given.data
        given.command, given.folder = parsed.command, parsed.folder
        folder, task = Path(given.folder), find_task(run.task_name)
        setup = override(run.sections, given, task)["run"]
        workers = Workers(setup.device, setup.timeout)
    except Refused as error:
        return refuse(parsed, as_flag(error, parsed))
    return train_and_report(given, workers, lambda: reopen(folder, given, task), given.which)
