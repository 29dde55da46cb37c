"""`fusegen resume`: a run that was stopped or killed goes on."""

import argparse
from pathlib import Path

from ..config import COMMON
from ..options import add_flags
from ..run import Run
from ..tasks import find_task
from ..workers import Workers
from .existing_run import WHICH, add_run
from .refusal import Refused, as_flag, refuse
from .session import override, reopen, train_and_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--from", dest="which", metavar="WHICH", default="last", help=f"{WHICH} (last)")
    for section, options in COMMON.items():
        group = parser.add_argument_group(f"{section}: in place of the run's own")
        add_flags(group, options, given_only=True)


def run(parsed: argparse.Namespace) -> int:
    try:
        folder = Path(parsed.folder)
        run = Run.open(folder)
        task = find_task(run.task_name)
        setup = override(run.sections, parsed, task)["run"]
        workers = Workers(setup.device, setup.timeout)
    except Refused as error:
        return refuse(parsed, as_flag(error))
    return train_and_report(parsed, workers, lambda: reopen(folder, parsed, task), parsed.which)
