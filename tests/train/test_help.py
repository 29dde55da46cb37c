"""The defaults that help names are those that a run gets, of every architecture and source."""

import dataclasses
import re

import pytest
from fusegen.cli import main
from fusegen.train import config
from fusegen.train.options import flag
from fusegen.train.tasks import TASKS, find_task


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("task_name", TASKS)
def test_help_names_the_defaults_of_every_kind(capsys, task_name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit):
        main(["train", task_name, "--help"])
    lines = re.sub(r"\n {3,}", " ", capsys.readouterr().out).splitlines()
    task = find_task(task_name)
    for whose, given in task.variants().items():
        for options in config.defaults(task, given).values():
            for each in dataclasses.fields(options):
                line = next(x for x in lines if re.match(rf"  {flag(each.name)}[ ,]", x))
                told = dict(re.findall(r"([^;:(]*): ([^;:()]*)[;)]", line[line.rfind("(default: ") :]))
                by_name = {name.strip(): x for names, x in told.items() for name in names.split(",")}
                value = getattr(options, each.name)
                shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
                usual = by_name.get("default")
                assert by_name.get(whose or "default", usual) == (usual if value is None else shown), line
                assert value is not None or usual in (None, "none"), line


def test_resume_knows_no_defaults_without_a_run_and_its_own_with_one(capsys, done, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    text = help_of(capsys, "resume")
    assert "--steps N optimiser steps --lr" in text
    assert "--steps N optimiser steps (default: 4)" in help_of(capsys, "resume", str(done))
