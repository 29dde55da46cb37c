"""What `fusegen` can be told to do. What a command needs, its flags too, is imported when it is asked for."""

import argparse
import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..config import nearest

_PLAIN = {"allow_abbrev": False}
_TAKES_WORDS = {"add_help": False}  # their flags are those of the run's task, so the run must be known first

# name: (what --help says of it, how its parser is made); module `name` here has `add_arguments` and `run`
COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": ("a text model learns real English here, timed beside torch.nn", _PLAIN),
    "train": ("train a model, in one process or under torchrun; a run is a folder", {}),
    "resume": ("go on with a run that was stopped or killed", _TAKES_WORDS),
    "evaluate": ("measure a run's model, on held-out data where there are some", _TAKES_WORDS),
    "sample": ("let a run's model write or draw", _TAKES_WORDS),
    "explain": ("write a page about what a run has learnt, in pictures", _TAKES_WORDS),
    "export": ("write a run's weights as safetensors", _TAKES_WORDS),
}


class CommandParser(argparse.ArgumentParser):
    """A parser whose arguments are added when it is first used. fill: adds them."""

    def __init__(self, *args: Any, fill: Callable[["CommandParser"], None] | None = None, **how: Any):
        super().__init__(*args, **how)
        self._fill = fill

    def filled(self) -> "CommandParser":
        """This parser, its arguments added."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.filled()
        if self._subparsers is None and args is not None:
            self._check_dashes(args)
        return super().parse_known_args(args, namespace)

    def _check_dashes(self, args: Sequence[str]) -> None:
        """Exits where a word with one dash is an option with two: argparse would take -hidden for -h."""
        known = [name for action in self._actions for name in action.option_strings]
        for word in args:
            near = nearest(f"-{word.partition('=')[0]}", known) if re.match(r"-[a-z]{2}", word) else ""
            if "did you mean" in near:
                self.error(f"unrecognized arguments: {word}{near}")

    def error(self, message: str) -> NoReturn:
        """One line, and exit status 2; argparse's own has the usage of every option before it."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names what is nearest where a choice is none."""
        if action.choices is not None and value not in action.choices:
            known = [str(each) for each in action.choices]
            near = nearest(str(value), known).removeprefix("; ")
            told = near if near.startswith("did") else f"choose from {', '.join(known)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {told}")


def add_commands(commands: Any) -> None:
    """Adds the subcommands to the parser of `fusegen`, which is a `CommandParser`."""
    for name, (about, how) in COMMANDS.items():
        parser = commands.add_parser(name, help=about, description=about, fill=_filler(name), **how)
        parser.set_defaults(parser=parser)


def _filler(name: str) -> Callable[[CommandParser], None]:
    def fill(parser: CommandParser) -> None:
        module = importlib.import_module(f".{name}", __name__)
        module.add_arguments(parser)
        parser.set_defaults(run_command=module.run)

    return fill
