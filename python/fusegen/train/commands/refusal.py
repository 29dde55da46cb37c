"""What is said of wrong arguments or data: one line that names them, and exit status 2."""

import argparse
import os
import sys
import time

from ..checkpoint import CheckpointError
from ..config import nearest
from ..options import flag
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
    """Exits as argparse does where flags are left over, naming the nearest."""
    if not unknown:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    words = [each.partition("=")[0] for each in unknown if each.startswith("-")]
    near = {each: nearest(each if each.startswith("--") else f"-{each}", known) for each in words}
    close = [(each, found) for each, found in near.items() if "did you mean" in found]
    # One says itself which it is for; of several each is named.
    many = (f"{found.removeprefix('; ').removesuffix('?')} for {each}?" for each, found in close)
    hint = "; " + " ".join(many) if len(close) > 1 else close[0][1] if close else "; --help shows all"
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


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
