"""What is said of wrong arguments or data: one line that names them, and exit status 2."""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from .. import config
from ..checkpoint import CheckpointError
from ..config import nearest
from ..options import Options, flag
from ..tasks import TASKS, find_task
from ..workers import Workers

# What is wrong with the arguments or the data, as opposed to what went wrong while training.
Refused = (OSError, ValueError, TypeError, ModuleNotFoundError)
_ON_RUN = ("resume", "evaluate", "sample", "explain", "export")  # whose folder has no flag
_PATIENCE = 2.0  # seconds that the first process has to speak before torchrun ends it with the others


def refuse(parsed: argparse.Namespace, reason: object, workers: Workers | None = None) -> int:
    """Says it and returns the exit status. Of several processes the first speaks."""
    line = f"fusegen {parsed.command}: error: {reason}"
    if workers is not None:
        workers.speak(line)
    elif int(os.environ.get("RANK", 0)) == 0:
        print(line, file=sys.stderr, flush=True)
    else:
        time.sleep(_PATIENCE)
    return 2


def refuse_unknown(parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    """Exits as argparse does where flags are left over, naming whose they are, or the nearest."""
    if not unknown:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    words = [each.partition("=")[0] for each in unknown if each.startswith("-")]
    near = {each: nearest(each if each.startswith("--") else f"-{each}", known) for each in words}
    hints = {each: found.removeprefix("; ") for each, found in near.items() if "did you mean" in found}
    if len(hints) > 1:  # one says itself which it is for; of several each is named
        hints = {each: f"{found.removesuffix('?')} for {each}?" for each, found in hints.items()}
    theirs = {
        each: f"{each} is an option of {whose}" for each in words if (whose := owners(each, parser.prog))
    }
    told = " ".join((hints | theirs)[each] for each in dict.fromkeys(words) if each in hints | theirs)
    hint = f"; {told or '--help shows all'}"
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def owners(word: str, prog: str) -> str:
    """The commands and tasks that have an option, in words; "" where none has. prog: the command that has
    not, "fusegen train text" or "fusegen sample RUN"."""
    if not word.startswith("--"):
        return ""
    command = prog.split()[1] if " " in prog else ""
    name = "" if "=" in word else word.removeprefix("--").replace("-", "_")
    names = {name, f"{name}_", name.removeprefix("no_")}
    kinds: dict[str, Callable[[Any], Iterable[type[Options]]]] = {
        "train": lambda task: config.classes(task).values(),
        "sample": lambda task: (task.sampling,),
        "evaluate": lambda task: (task.measuring,),
    }
    found: dict[str, list[str]] = {}
    for each, classes in kinds.items():
        for task in TASKS:
            fields = [field for cls in classes(find_task(task)) for field in dataclasses.fields(cls)]
            if any(field.name in names and (field.name != name[3:] or _is_bool(field)) for field in fields):
                found.setdefault(each, []).append(task)
    if command in found:  # of other tasks than this one
        return f"{_listed(found[command])}, not of this task"
    return " and ".join(f"fusegen {each} ({_listed(of)})" for each, of in found.items())


def _is_bool(field: Any) -> bool:
    return field.type in (bool, "bool")


def _listed(names: list[str]) -> str:
    return "every task" if len(names) == len(TASKS) else ", ".join(names)


def as_flag(error: BaseException, parsed: argparse.Namespace) -> str:
    """The message, with the argument that it begins with spelled as it was given: an option as a flag, the
    folder of a run as RUN where it is no option."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        message = error.strerror  # str() would put the number in front
    name, colon, _ = message.partition(":")
    is_field = (
        bool(colon) and name.isidentifier() and name.islower() and not isinstance(error, CheckpointError)
    )
    on_run = parsed.command in _ON_RUN
    if is_field:
        name = "RUN" if on_run and name == "folder" else flag(name)
        message = name + colon + message.partition(":")[2]
    if on_run and name == "--data" and isinstance(error, FileNotFoundError) and not _was_given(parsed):
        message += "; --data PLACE says where they lie now"
    return message


def _was_given(parsed: argparse.Namespace) -> bool:
    return any(word.partition("=")[0] == "--data" for word in getattr(parsed, "words", ()))
