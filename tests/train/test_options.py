"""Options of a run: their file, their flags, and what is refused by name."""

import json
import pathlib

import pytest
from fusegen.cli import main
from fusegen.train import config
from fusegen.train.tasks import TASKS, find_task
from fusegen.train.tasks.text import TextSampling


@pytest.mark.parametrize("name", TASKS)
def test_a_configuration_comes_back_from_its_file(tmp_path, name):
    task = find_task(name)
    sections = config.defaults(task)
    path = tmp_path / "config.json"
    path.write_text(config.to_json(name, sections, fusegen="9.9", id="x"))
    assert config.from_json(task, config.read_json(path, "run"), "here") == sections


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"modle": {}}, "there is no 'modle'; did you mean 'model'?"),
        ({"model": {"hiden": 3}}, "model: there is no 'hiden'; did you mean 'hidden'?"),
        ({"model": {"zzz": 3}}, "model: there is no 'zzz'; there is cell, layers"),
        ({"model": 3}, "model: expected an object, got int"),
        ({"model": {"hidden": "3"}}, "model.hidden: expected an integer, got str '3'"),
        ({"model": {"hidden": 0}}, "model.hidden: expected an integer at least 1, got 0"),
        ({"model": {"hidden": True}}, "model.hidden: expected an integer, got bool"),
        ({"model": {"cell": "mlp"}}, "model.cell: expected one of lstm, gru, rnn, got 'mlp'"),
        ({"data": {"data": 3}}, "data.data: expected text, got int 3"),
        ({"run": {"compile": 1}}, "run.compile: expected true or false, got int 1"),
        ({"fit": {"lr": None}}, "fit.lr: expected a number, got NoneType"),
        ({"task": "image"}, "it is for the task 'image', not 'text'"),
        ([], "expected an object, got list"),
        ("{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (None, "cannot read"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(tmp_path, capsys, content, words):
    path = tmp_path / "options.json"
    if content is not None:
        raw = (
            content
            if isinstance(content, bytes)
            else content
            if isinstance(content, str)
            else json.dumps(content)
        )
        path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    assert main(["train", "text", "--config", str(path), "--folder", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fusegen train: error: --config: ") and str(path) in err and words in err
    assert err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_options_are_saved_read_and_overridden(tmp_path, capsys):
    first, second = (str(tmp_path / name) for name in ("a.json", "b.json"))
    assert main(["train", "text", "--hidden", "33", "--lr", "0.5", "--compile", "--save-config", first]) == 0
    assert (
        main(["train", "text", "--config", first, "--lr", "0.25", "--no-compile", "--save-config", second])
        == 0
    )
    a, b = (json.loads(pathlib.Path(path).read_text()) for path in (first, second))
    assert (a["model"]["hidden"], a["fit"]["lr"], a["run"]["compile"]) == (33, 0.5, True)
    assert (b["model"]["hidden"], b["fit"]["lr"], b["run"]["compile"]) == (33, 0.25, False)


def test_options_may_be_none_and_are_checked_when_they_are_not():
    assert TextSampling(top_k=None).top_k is None
    with pytest.raises(ValueError, match=r"^top_k: expected an integer at least 1"):
        TextSampling(top_k=0)


@pytest.mark.parametrize("name", TASKS)
def test_help_shows_every_option(capsys, name):
    with pytest.raises(SystemExit) as caught:
        main(["train", name, "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    names = [each for kind in config.classes(find_task(name)).values() for each in kind.__dataclass_fields__]
    assert len(names) == len(set(names))
    assert all(f"--{each.replace('_', '-')}" in shown for each in [*names, "folder", "config", "resume"])


@pytest.mark.parametrize("name", TASKS)
def test_no_flag_is_one_that_torchrun_takes_for_its_own(name):
    from torch.distributed.run import get_args_parser

    theirs = [each for action in get_args_parser()._actions for each in action.option_strings]
    names = [each for kind in config.classes(find_task(name)).values() for each in kind.__dataclass_fields__]
    for flag in [
        f"--{each.replace('_', '-')}" for each in [*names, "folder", "config", "save_config", "resume"]
    ]:
        assert len([each for each in theirs if each.startswith(flag)]) < 2, flag


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "text", "--hiden", "3"], "did you mean '--hidden'?"),
        (["train", "text", "--hid", "3"], "unrecognized arguments: --hid 3"),
        (["train", "text", "--latent", "3"], "; --latent is an option of vae, seqvae, not of this task"),
        (["train", "vae", "--latent=3", "--chunk=3"], "; --chunk is an option of text, not of this task"),
        (
            ["train", "text", "--no-bidirectional"],
            "--no-bidirectional is an option of seqvae, seq2seq, gan, not",
        ),
        (["train", "text", "--no-latent"], "did you mean"),  # nobody's: it is no switch
        (["train", "gan", "--temperatur", "1"], "did you mean '--temperature'?"),
        (["train", "vae", "--temperature", "1"], "--temperature is an option of gan, not of this task"),
        (["train", "text", "--prompt", "x"], "--prompt is an option of fusegen sample (text)"),
        (["train", "vae", "--truncation", "1"], "--truncation is an option of fusegen sample (gan)"),
        (["train", "text", "--class", "1"], "--class is an option of fusegen sample (gan)"),
        (["demo", "--folder-x"], "--help shows all"),
        (["demo", "--precision", "float64"], "--precision is an option of fusegen train (every task)"),
        (["train", "text", "--qqq"], "--help shows all"),
        (["train"], "required: TASK"),
        (["--verison"], "did you mean '--version'?"),
        (["trian", "text"], "invalid choice: 'trian'; did you mean 'train'?"),
        (["train", "txt"], "invalid choice: 'txt'; did you mean 'text'?"),
        (["train", "text", "-hidden", "3"], "did you mean '--hidden'?"),
        (
            ["train", "text", "--cell", "lstn"],
            "--cell: invalid choice: 'lstn'; did you mean 'lstm'?",
        ),
        (["demo", "--stpes", "3"], "did you mean '--steps'?"),
        (["info", "--shpae", "3"], "did you mean '--shape'?"),
    ],
)
def test_wrong_flags_are_status_2_and_the_nearest_is_named(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and words in said and said.count("\n") == 1


@pytest.mark.parametrize("command", ["resume", "sample", "evaluate", "export"])
def test_wrong_flags_of_a_command_on_a_run_are_one_line(done, capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([command, str(done), "--checkpiont", "3"])
    said = capsys.readouterr().err
    nearest = "--from" if command == "resume" else "--checkpoint"
    assert caught.value.code == 2 and said.count("\n") == 1
    assert f"fusegen {command} {done}: error: unrecognized arguments: --checkpiont 3" in said
    assert command == "resume" or f"did you mean '{nearest}'?" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--dat", "a", "--step", "3"],
            "did you mean '--data' for --dat? did you mean '--steps' for --step?",
        ),
        (["--zzzzqq", "--step=3"], "; did you mean '--steps'?"),
        (["--zzzzqq", "1"], "; --help shows all"),
    ],
)
def test_each_option_that_is_misspelt_has_a_suggestion(capsys, words, said):
    with pytest.raises(SystemExit) as caught:
        main(["train", "text", *words])
    assert caught.value.code == 2 and capsys.readouterr().err.strip().endswith(said)
