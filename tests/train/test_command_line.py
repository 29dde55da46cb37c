"""The command line as a whole: how many options there are, and what a command imports."""

import argparse
import dataclasses
import subprocess
import sys

import pytest
from fusegen.cli import make_parser
from fusegen.train import config
from fusegen.train.commands import evaluate, explain, export, resume, sample
from fusegen.train.commands.existing_run import add_flags, parser_of
from fusegen.train.tasks import TASKS, find_task

# Options of each command, --help left out. An option is one more thing to learn, to test and to keep: whoever
# changes a number here says why the command cannot do without.
OPTIONS = {
    "demo": 20,
    "info": 2,
    "train text": 43,
    "train vae": 43,
    "train seqvae": 43,
    "train seq2seq": 35,
    "train gan": 73,
    "resume": 20,
    "export": 2,
    "explain": 5,
    "evaluate text": 4,
    "evaluate vae": 4,
    "evaluate seqvae": 4,
    "evaluate seq2seq": 4,
    "evaluate gan": 11,
    "sample text": 11,
    "sample vae": 7,
    "sample seqvae": 10,
    "sample seq2seq": 9,
    "sample gan": 10,
}


ON_RUN = {"resume": resume, "explain": explain, "export": export, "evaluate": evaluate, "sample": sample}


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
        elif name in ON_RUN:
            assert options(parser) == []  # those of the run's task
            flags = ON_RUN[name].FLAGS
            shared = parser_of(name, dataclasses.replace(flags, options=None), None)
            if flags.options is None:
                found[name] = len(options(shared))
                continue
            for task in TASKS:
                own = argparse.ArgumentParser()
                add_flags(own, getattr(find_task(task), flags.options))
                found[f"{name} {task}"] = len(options(shared)) + len(options(own))
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


def all_options():
    """Every option's name, of every command and task."""
    parsers = [p for each in subcommands(make_parser()).values() for p in (each, *subcommands(each).values())]
    names = {name for p in parsers for each in options(p.filled()) for name in each.option_strings}
    for command, module in ON_RUN.items():
        names |= {
            name for each in options(parser_of(command, module.FLAGS, None)) for name in each.option_strings
        }
    for task in map(find_task, TASKS):
        kinds = (*config.classes(task).values(), task.sampling, task.measuring)
        names |= {"--" + each.name.replace("_", "-") for kind in kinds for each in dataclasses.fields(kind)}
    return names


def test_an_option_is_spelled_alike_in_all_commands():
    names = all_options()
    assert {"--out", "--beam"} <= names
    for short, long in (("--out", "--output"), ("--num", "--number"), ("--dir", "--directory")):
        assert not {short, long} <= names
    # which layer, and how many; of dcgan, and of mlp
    assert {name for name in names if f"{name}s" in names} == {"--layer", "--width"}
