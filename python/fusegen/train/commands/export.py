"""`fusegen export`: a run's weights as safetensors."""

import argparse
from pathlib import Path

from .existing_run import add_checkpoint, add_run, revive, run_of
from .refusal import Refused, as_flag, refuse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_checkpoint(parser)
    parser.add_argument("--out", metavar="FILE", help="(default: RUN/model.safetensors)")


def run(parsed: argparse.Namespace) -> int:
    try:
        run = run_of(parsed)
        task, _ = revive(run, parsed.checkpoint, "cpu", data=False)
        print(run.export(task.model, Path(parsed.out) if parsed.out else None))
    except ModuleNotFoundError as error:
        return refuse(parsed, f"{error}: pip install safetensors")
    except Refused as error:
        return refuse(parsed, as_flag(error))
    return 0
