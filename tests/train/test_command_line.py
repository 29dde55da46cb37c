"""The command line as a whole: how many options there are, and what a command imports."""

import argparse
import subprocess
import sys

import pytest
from fusegen.cli import make_parser
from fusegen.train.commands.existing_run import parser_of
from fusegen.train.tasks import TASKS, find_task

# Options of each command, --help left out. An option is one more thing to learn, to test and to keep: whoever
# changes a number here says why the command cannot do without.
OPTIONS = {
    "demo": 20,
    "info": 2,
    "train text": 41,
    "train vae": 40,
    "train seqvae": 41,
    "train seq2seq": 33,
    "train gan": 70,
    "resume": 16,
    "export": 3,
    "explain": 4,
    "evaluate text": 2,
    "evaluate vae": 2,
    "evaluate seqvae": 2,
    "evaluate seq2seq": 2,
    "evaluate gan": 9,
    "sample text": 10,
    "sample vae": 6,
    "sample seqvae": 9,
    "sample seq2seq": 8,
    "sample gan": 9,
}


def subcommands(parser):
    actions = [each for each in parser.filled()._actions if isinstance(each, argparse._SubParsersAction)]
    return actions[0].choices if actions else {}


def options(parser):
    return [each for each in parser._actions if each.option_strings and each.dest != "help"]


def test_no_option_is_added_in_passing():
    found = {}
    for name, parser in subcommands(make_parser()).items():
        if inner := subcommands(parser):
            found |= {f"{name} {each}": len(options(own.filled())) for each, own in inner.items()}
        elif name in ("evaluate", "sample"):
            assert options(parser) == []  # those of the run's task
            kinds = {task: find_task(task) for task in TASKS}
            how = {
                task: each.measuring if name == "evaluate" else each.sampling for task, each in kinds.items()
            }
            for task, kind in how.items():
                found[f"{name} {task}"] = len(options(parser_of("", kind, out=name == "sample")))
        else:
            found[name] = len(options(parser))
    assert found == OPTIONS


IMPORTED = """
import sys
from fusegen.cli import main

try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("", *sorted(name for name in sys.modules if name.startswith("fusegen.train.tasks.")))
"""


@pytest.mark.parametrize(
    ("arguments", "tasks"),
    [
        (["info"], set()),
        (["--help"], set()),
        (["train", "--help"], set()),
        (["train", "seq2seq", "--help"], {"seq2seq"}),
        (["demo", "--help"], {"text"}),
        (["explain", "--help"], set()),
    ],
    ids=" ".join,
)
def test_a_command_imports_no_task_but_its_own(arguments, tasks):
    run = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    found = {name.split(".")[3] for name in run.stdout.splitlines()[-1].split()}
    assert found & TASKS.keys() == tasks
