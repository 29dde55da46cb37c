"""What the commands on a run that is there share: how it is named, its flags, its model with the weights of a
checkpoint."""

import argparse
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..checkpoint import CheckpointError
from ..errors import NotEnoughMemory, typed
from ..options import Options, add_flags, flag, from_flags
from ..run import Run
from ..tasks import TASKS, find_task
from ..workers import device_named
from . import COMMANDS, CommandParser
from .refusal import refuse, refuse_unknown

WHICH = "last, best, a step, or a file"
HELP = ("-h", "--help")


@dataclass(frozen=True)
class Flags:
    """Which flags a command on a run has. add: those of the command, by the run where it is known. options:
    those of its task, by what the command is for ("sampling", "measuring"); None: it has none. data: whether
    it reads data."""

    add: Callable[[argparse.ArgumentParser, Run | None], None]
    options: str | None = None
    data: bool = True


def within_memory(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command that says in one line where it asked for more memory than there is."""

    @functools.wraps(command)
    def run(parsed: argparse.Namespace) -> int:
        try:
            with typed():
                return command(parsed)
        except NotEnoughMemory as error:
            return refuse(parsed, f"not enough memory: {error}{_way_out(parsed)}")

    return run


def _way_out(parsed: argparse.Namespace) -> str:
    """What is said of memory that ran out: the options of the command that make less of it, where it has
    some."""
    asking = {"sample": "sampling", "evaluate": "measuring"}.get(parsed.command)
    if asking is None or getattr(parsed, "folder", None) is None:
        return ""
    task = find_task(Run.open(parsed.folder).task_name)
    names = [flag(each.name) for each in fields(getattr(task, asking)) if each.name in task.sizes]
    return f"; a smaller {' or '.join(names)} needs less" if names else ""


def add_words(parser: argparse.ArgumentParser) -> None:
    """For a command whose flags follow from the run: its words are parsed by `asked`."""
    parser.set_defaults(takes_words=True)


def add_checkpoint(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    parser.add_argument("--checkpoint", metavar="WHICH", default="best", help=f"{WHICH} (default: best)")
    if device:
        parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto (default: cpu)")


def run_of(parsed: argparse.Namespace) -> Run | None:
    """The run that a command names, which may stand before or after its options: the first of its words that
    is the folder of one. None where help is asked for and no run is named.

    Raises OSError or ValueError where there is none.
    """
    words: Sequence[str] = parsed.words
    plain = [word for word in words if not word.startswith("-")]
    found = next((word for word in plain if (Path(word) / "config.json").exists()), None)
    named = found or (words[0] if words and words[0] in plain else plain[-1] if plain else None)
    parsed.folder = named
    parsed.rest = list(words)
    if named is not None:
        parsed.rest.remove(named)
    if any(word in HELP for word in words) and (named is None or found is None):
        return None
    if named is None:
        command = f"fusegen {parsed.command} --help"
        raise ValueError(f"folder: expected the folder of a run; {command} shows the options")
    return Run.open(Path(named))


def asked(parsed: argparse.Namespace, flags: Flags) -> tuple[Run, Options | None, argparse.Namespace]:
    """The run that a command names, the flags of its task, and all flags. Exits after help; raises as
    ``run_of``."""
    run = run_of(parsed)
    parser = parser_of(parsed.command, flags, run)
    given, unknown = parser.parse_known_args(parsed.rest)
    refuse_unknown(parser, unknown)
    assert run is not None  # else there was help
    if flags.options is None:
        return run, None, given
    return run, from_flags(getattr(find_task(run.task_name), flags.options), given), given


def parser_of(command: str, flags: Flags, run: Run | None) -> CommandParser:
    """The parser of a command: with a run the options of its task and their values there, without one those
    of every task."""
    where = "RUN" if run is None else str(run.folder)
    parser = CommandParser(f"fusegen {command} {where}", description=COMMANDS[command][0], allow_abbrev=False)
    flags.add(parser, run)
    if flags.data:
        parser.add_argument(
            "--data", metavar="PLACE", help="where the run's data lie now; they must be the same"
        )
    if flags.options is None:
        return parser
    if run is not None:
        task = find_task(run.task_name)
        options = getattr(task, flags.options)
        add_flags(parser, options, given_only=True, shown=shown(options, run))
        return parser
    for name in TASKS:  # their flags may have the same names, so that they are shown and not parsed
        options = getattr(find_task(name), flags.options)
        if fields(options):
            group: Any = _Shown(parser.add_argument_group(f"of a run of {name}"))
            add_flags(group, options)
    return parser


class _Shown:
    """An argument group whose flags are in the help, of several that have the same ones."""

    def __init__(self, group: Any):
        self._group = group

    def add_argument(self, *names: str, **how: Any) -> None:
        own = argparse.ArgumentParser(add_help=False)
        self._group._group_actions.append(own.add_argument(*names, **how))


def shown(options: type[Options], run: Run) -> Options:
    """The defaults, those that follow from the run by its values."""
    made, own = options(), {}
    for section in run.sections.values():
        own.update({each.name: getattr(section, each.name) for each in fields(section)})
    return replace(
        made,
        **{
            each.name: own[each.name]
            for each in fields(options)
            if getattr(made, each.name) is None and own.get(each.name) is not None
        },
    )


def moved(run: Run, place: str | None) -> Run:
    """The run with its data elsewhere, where `place` says so."""
    if place is None:
        return run
    sections = dict(run.sections)
    for name, section in sections.items():
        if any(each.name == "data" for each in fields(section)):
            sections[name] = replace(section, data=place)
    changed = Run(run.folder, run.task_name, sections, run.id)
    changed.moved = True
    return changed


def check_idle(task: Any, how: Options | None, given: argparse.Namespace) -> None:
    """Raises ValueError for the first option of `how` that was given and changes nothing for this run."""
    if how is None:
        return
    idle = task.idle_in(how)
    for each in fields(how):
        if hasattr(given, each.name) and each.name in idle:
            raise ValueError(f"{each.name}: it would change nothing: {idle[each.name]}")


def revive(run: Run, which: str, device: str, *, data: bool) -> tuple[Any, dict[str, Any]]:
    """The task with the weights of a checkpoint, and the rest of that checkpoint.

    Raises CheckpointError where the run's data were said to lie elsewhere and are others there."""
    place = device_named(device)
    task = run.task(data=data or run.moved)
    state = run.load_weights(task, which)
    if run.moved and state["fingerprint"] not in (None, task.fingerprint()):
        path = run.checkpoints.find(which)
        raise CheckpointError(f"--data: they are not the data that {path} was trained on")
    task.model.to(place).eval()
    return task, state
