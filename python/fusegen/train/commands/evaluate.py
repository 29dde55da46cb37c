"""`fusegen evaluate`: the measures of a run's model."""

import argparse
import sys
from pathlib import Path

from ..progress import Measuring
from ..run import Run
from ..watching.telling import direction
from .existing_run import Flags, add_checkpoint, asked, check_idle, moved, revive, within_memory
from .existing_run import add_words as add_arguments
from .refusal import Refused, as_flag, refuse

__all__ = ["FLAGS", "add_arguments", "run"]


def _add(parser: argparse.ArgumentParser, run: Run | None) -> None:
    add_checkpoint(parser)
    parser.add_argument(
        "--curves", metavar="FILE", help="draw the run's measures and losses by step there, as PNG"
    )


FLAGS = Flags(_add, "measuring")


@within_memory
def run(parsed: argparse.Namespace) -> int:
    try:
        run, how, given = asked(parsed, FLAGS)
        run = moved(run, given.data)
        task, state = revive(run, given.checkpoint, given.device, data=True)
        check_idle(task, how, given)
        if state["fingerprint"] != task.fingerprint():
            print("fusegen evaluate: these are not the data that the run was trained on", file=sys.stderr)
        task.measuring_part = told = Measuring()
        told("what the model does", 0, 1)
        try:
            measures = task.measure(how)
        finally:
            told.close()
        if given.curves is not None:
            run.save_curves(Path(given.curves))
    except Refused as error:
        return refuse(parsed, as_flag(error, parsed))
    which = f", {given.checkpoint}" if given.checkpoint in ("best", "last") else ""
    print(f"step  {state['step']} of {run.sections['fit'].steps}{which}")
    for line in task.told_of(how):
        print(line)
    for name, value in measures.items():
        way = f"  ({which})" if (which := direction(name)) else ""
        print(f"{name}  {value:.6g}{way}")
    if worse := run.not_improved(task.better):
        print(worse)
    return 0
