"""`fusegen export`: a run's weights as safetensors."""

import argparse
from pathlib import Path

from ..run import Run
from .existing_run import Flags, add_checkpoint, asked, revive, within_memory
from .existing_run import add_words as add_arguments
from .refusal import Refused, as_flag, refuse

__all__ = ["FLAGS", "add_arguments", "run"]


def _add(parser: argparse.ArgumentParser, run: Run | None) -> None:
    add_checkpoint(parser, device=False)
    where = "RUN" if run is None else run.folder
    parser.add_argument("--out", metavar="FILE", help=f"(default: {where}/model.safetensors)")


FLAGS = Flags(_add, data=False)


@within_memory
def run(parsed: argparse.Namespace) -> int:
    try:
        run, _, given = asked(parsed, FLAGS)
        task, _ = revive(run, given.checkpoint, "cpu", data=False)
        print(run.export(task.model, Path(given.out) if given.out else None))
    except ModuleNotFoundError as error:
        return refuse(parsed, f"{error}: pip install safetensors")
    except Refused as error:
        return refuse(parsed, as_flag(error, parsed))
    return 0
