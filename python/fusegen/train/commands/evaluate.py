"""`fusegen evaluate`: the measures of a run's model."""

import argparse
import sys
from pathlib import Path

from ..tasks import find_task
from .existing_run import add_run_with_rest as add_arguments
from .existing_run import asked, revive, run_of
from .refusal import Refused, as_flag, refuse

__all__ = ["add_arguments", "run"]


def run(parsed: argparse.Namespace) -> int:
    try:
        run = run_of(parsed)
        how, given = asked(parsed, find_task(run.task_name).measuring, curves=True)
        task, state = revive(run, given.checkpoint, given.device, data=True)
        if state["fingerprint"] != task.fingerprint():
            print("fusegen evaluate: these are not the data that the run was trained on", file=sys.stderr)
        measures = task.measure(how)
        if given.curves is not None:
            run.save_curves(Path(given.curves))
    except Refused as error:
        return refuse(parsed, as_flag(error))
    print(f"step  {state['step']}")
    for name, value in measures.items():
        print(f"{name}  {value:.6g}")
    return 0
