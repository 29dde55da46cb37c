"""`fusegen train`: a new run, or one that goes on."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import config, files
from ..config import Sections
from ..options import add_flags
from ..run import Run
from ..tasks import TASKS, find_task
from ..workers import Workers
from . import CommandParser
from .refusal import Refused, as_flag, refuse
from .session import override, reopen, train_and_report

_ABOUT = """Trains a model. Its run is a folder with config.json, log.jsonl, checkpoints, samples. SIGTERM,
SIGHUP (a terminal that is closed) and Ctrl-C save it and exit with 143, 129 and 130; fusegen resume RUN goes
on from there. Before the first step nothing is saved, and the same command begins anew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _ABOUT
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, (_, about) in TASKS.items():
        own = tasks.add_parser(name, help=about, description=about, allow_abbrev=False, fill=_filler(name))
        own.set_defaults(parser=own)


def _filler(name: str) -> Callable[[CommandParser], None]:
    def fill(parser: CommandParser) -> None:
        parser.add_argument("--folder", help="of the run (default: runs/TASK-DATE-TIME)")
        parser.add_argument("--config", metavar="FILE", help="options from this file; flags override them")
        parser.add_argument("--save-config", metavar="FILE", help="write all options to this file, and stop")
        parser.add_argument("--resume", action="store_true", help="go on with the run, if it has begun")
        task = find_task(name)
        usual = {whose: config.defaults(task, given) for whose, given in task.variants().items()}
        for section, options in config.classes(task).items():
            shown = {whose: own[section] for whose, own in usual.items()}
            add_flags(parser.add_argument_group(section), options, given_only=True, shown=shown)

    return fill


def run(parsed: argparse.Namespace) -> int:
    try:
        task = find_task(parsed.task)
        base, written = _base(parsed, task)
        sections = override(base, parsed, task)
        config.check_idle(task, sections, config.given(parsed, sections) + written)
        if parsed.save_config is not None:
            files.write(Path(parsed.save_config), config.to_json(parsed.task, sections))
            print(f"saved in {parsed.save_config}; fusegen train {parsed.task} --config {parsed.save_config}")
            return 0
        workers = Workers(sections["run"].device, sections["run"].timeout)
        folder = _folder(parsed, workers)
    except Refused as error:
        return refuse(parsed, as_flag(error, parsed))
    # A restart by torchrun is the same command once more: the run has begun then.
    begun = (parsed.resume or workers.restarts > 0) and (folder / "config.json").exists()
    if begun:
        return train_and_report(parsed, workers, lambda: reopen(folder, parsed, task), "last")

    def create() -> Run:
        return Run.create(folder, parsed.task, sections) if workers.first else Run.open(folder)

    return train_and_report(parsed, workers, create, None)


def _base(parsed: argparse.Namespace, task: Any) -> tuple[Sections, list[str]]:
    """The options that flags override, and the names of those that a file asks for."""
    if parsed.config is None:
        return config.defaults(task, vars(parsed)), []
    content = config.read_json(Path(parsed.config), "--config")
    where = f"--config: {parsed.config}"
    if content.get("task", parsed.task) != parsed.task:
        raise ValueError(f"{where}: it is for the task {content['task']!r}, not {parsed.task!r}")
    sections = config.from_json(task, content, where, vars(parsed))
    # A file may hold every option; those that are as they would be anyway were not asked for.
    usual = config.defaults(task, {**config.flat(sections), **vars(parsed)})
    asked = [name for name, value in config.flat(sections).items() if value != config.flat(usual)[name]]
    return sections, [name for name in asked if not hasattr(parsed, name)]


def _folder(parsed: argparse.Namespace, workers: Workers) -> Path:
    if parsed.folder is not None:
        if not parsed.folder:
            raise ValueError("folder: expected a path, got an empty one")
        return Path(parsed.folder)
    if parsed.resume or workers.count > 1:
        raise ValueError("folder: expected the folder of the run, got none")
    return Path("runs", f"{parsed.task}-{time.strftime('%Y%m%d-%H%M%S')}")
