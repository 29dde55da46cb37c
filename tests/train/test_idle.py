"""No option is ignored: one that changes nothing for a source or an architecture is refused by its name.

Which those are is found by watching which options a run reads: what is never read changes nothing.
"""

import dataclasses
import json
import wave

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.train import RunOptions, config
from fusegen.train.learner import Learner
from fusegen.train.tasks import find_task
from fusegen.train.workers import Workers
from runs import equal, refusal, run_of

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("sacrebleu")

WORDS = "the cat sat on the mat. a dog ran to the red door. "
SMALL_TEXT = {"hidden": 8, "embedding": 4, "batch": 2, "chunk": 4}
SMALL_PAIRS = {"hidden": 4, "embedding": 3, "batch": 2, "longest": 60}
SMALL_VAE = {"latent": 2, "hidden": 6, "layers": 1, "batch": 4, "importance": 2}
SMALL_IMAGES = {"noise": 3, "batch": 4, "size": 28, "samples": 8, "features": "pixels"}
SMALL_SERIES = {"arch": "recurrent", "noise": 2, "hidden": 4, "batch": 4, "length": 5, "warm_up": 1}
PLAIN = {"innovations": False, "levels": False, "residual": False}

# What is run: the task, the data, its options.
SOURCES = {
    "text bytes": ("text", "story.txt", SMALL_TEXT),
    "text characters": ("text", "story.txt", SMALL_TEXT | {"tokens": "character"}),
    "text words": ("text", "folder", SMALL_TEXT | {"tokens": "word"}),
    "text tokenizer": ("text", "story.txt", SMALL_TEXT | {"tokens": "tokenizer.json"}),
    "text rows": ("text", "rows.jsonl", SMALL_TEXT),
    "text table": ("text", "reviews.csv", SMALL_TEXT | {"column": "review"}),
    "text numbers": ("text", "ids.npy", SMALL_TEXT),
    "text named numbers": ("text", "ids.npz", SMALL_TEXT | {"column": "a"}),
    "text stream": ("text", "rows.jsonl", SMALL_TEXT | {"stream": True, "held_out": 2}),
    "text one layer": ("text", "story.txt", SMALL_TEXT | {"layers": 1, "hidden_dropout": 0.1}),
    "seqvae words": ("seqvae", "lines.txt", SMALL_PAIRS | {"latent": 2}),
    "seqvae bytes": ("seqvae", "lines.txt", SMALL_PAIRS | {"latent": 2, "tokens": "byte"}),
    "seqvae reads": ("seqvae", "lines.txt", SMALL_PAIRS | {"inputless": False}),
    "seqvae no z": ("seqvae", "lines.txt", SMALL_PAIRS | {"latent": 0, "inputless": False}),
    "seqvae rows": ("seqvae", "rows.jsonl", SMALL_PAIRS | {"latent": 2}),
    "seq2seq characters": ("seq2seq", "a.txt,b.txt", SMALL_PAIRS),
    "seq2seq bytes": ("seq2seq", "pairs.tsv", SMALL_PAIRS | {"tokens": "byte"}),
    "vae digits": ("vae", "digits", SMALL_VAE),
    "vae array": ("vae", "images.npy", SMALL_VAE),
    "vae arrays": ("vae", "images.npz", SMALL_VAE | {"column": "x"}),
    "vae convolutional": ("vae", "images.npy", SMALL_VAE | {"network": "convolutional", "channels": 2}),
    "vae gaussian": ("vae", "images.npy", SMALL_VAE | {"likelihood": "gaussian"}),
    "vae no layers": ("vae", "images.npy", SMALL_VAE | {"layers": 0}),
    "vae no beta": ("vae", "images.npy", SMALL_VAE | {"beta": 0.0}),
    "gan digits": ("gan", "digits", SMALL_IMAGES),
    "gan photos": ("gan", "photos", SMALL_IMAGES | {"conditional": True}),
    "gan array": ("gan", "images.npy", SMALL_IMAGES),
    "gan arrays": ("gan", "images.npz", SMALL_IMAGES | {"column": "x"}),
    "gan no penalty": ("gan", "images.npy", SMALL_IMAGES | {"r1": 0.0}),
    "gan dcgan": ("gan", "images.npy", SMALL_IMAGES | {"arch": "dcgan", "width": 2}),
    "gan table": ("gan", "table.csv", SMALL_SERIES),
    "gan series": ("gan", "series.npy", SMALL_SERIES),
    "gan named series": ("gan", "series.npz", SMALL_SERIES | {"column": "x"}),
    "gan sound": ("gan", "a.wav", SMALL_SERIES | PLAIN),
    "gan prices": ("gan", "prices", SMALL_SERIES),
    "gan text": ("gan", "chars.txt", SMALL_SERIES),
}
IN_THE_LOOP = {each.name for each in dataclasses.fields(RunOptions)} | {
    "data", "steps", "seed", "stop_when_collapsed",
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with one source of each kind."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("story.txt", "chars.txt"):
        (root / name).write_text(WORDS * 12)
    (root / "folder").mkdir()
    (root / "folder/one.txt").write_text(WORDS * 12)
    lines = [" ".join(random.permutation(WORDS.split())[:5]) for _ in range(60)]
    for name, text in (("lines.txt", lines), ("a.txt", lines), ("b.txt", [x[::-1] for x in lines])):
        (root / name).write_text("\n".join(text) + "\n")
    (root / "pairs.tsv").write_text("".join(f"{x}\t{x[::-1]}\n" for x in lines))
    (root / "rows.jsonl").write_text("".join(json.dumps({"text": x}) + "\n" for x in lines))
    (root / "reviews.csv").write_text("stars,review\n" + "".join(f"{i},{x}\n" for i, x in enumerate(lines)))
    np.save(root / "ids.npy", random.integers(0, 9, 400).astype(np.uint16))
    np.savez(root / "ids.npz", a=random.integers(0, 9, 400).astype(np.uint16), b=np.zeros(3))
    images = random.integers(0, 256, (24, 8, 8), dtype=np.uint8)
    np.save(root / "images.npy", images)
    np.savez(root / "images.npz", x=images, y=images[:3])
    series = random.standard_normal((60, 3)).cumsum(0)
    np.save(root / "series.npy", series)
    np.savez(root / "series.npz", x=series, y=series[:4])
    rows = "\n".join(",".join(f"{x:.3f}" for x in row) for row in series)
    (root / "table.csv").write_text(f"first,second,third\n{rows}\n")
    with wave.open(str(root / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes((random.standard_normal(300) * 3000).astype("<i2").tobytes())
    words = ["?", *dict.fromkeys(WORDS.split())]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {x: i for i, x in enumerate(words)}, "unk_token": "?"},
    }  # fmt: skip
    (root / "tokenizer.json").write_text(json.dumps(tokenizer))
    return root


def sections_of(task_name, source, given, seen=None):
    """The sections of a run; of those that note what is read of them, in `seen`."""
    task = find_task(task_name)
    made = config.defaults(task, {**given, "data": source})
    for section, options in made.items():
        own = {name: value for name, value in given.items() if hasattr(options, name)}
        if hasattr(options, "data"):
            own["data"] = source
        made[section] = dataclasses.replace(options, **own)
    return made if seen is None else {name: noting(each, seen) for name, each in made.items()}


def noting(options, seen):
    """The same options, which add to `seen` the names of those that are read."""
    names = {each.name for each in dataclasses.fields(options)}

    def read(self, name):
        if name in names:
            seen.add(name)
        return object.__getattribute__(self, name)

    kind = type("Noting", (type(options),), {"__getattribute__": read})
    made = object.__new__(kind)
    made.__dict__.update(vars(options))
    return made


def read_by(task_name, source, given):
    """The names of the options that are read while a run trains, measures and samples."""
    seen = set()
    sections = sections_of(task_name, source, given, seen)
    seen.clear()
    task = find_task(task_name).from_options(sections, None, argument="--data")
    setup = dataclasses.replace(
        config.defaults(find_task(task_name), {**given, "data": source})["run"], device="cpu", ema=0.0
    )
    learner = Learner(task, sections["fit"], setup, Workers("cpu"))
    for _ in range(2):
        learner.advance()
    task.evaluate()
    task.sample(task.sampling(seed=0))
    return seen


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_run_never_reads_is_called_idle(name, places, monkeypatch):
    """Broken by an option that is new, or of another source, and that nobody reads."""
    monkeypatch.chdir(places)
    task_name, source, given = SOURCES[name]
    if source.endswith((".jsonl",)):
        pytest.importorskip("datasets")
    if "tokenizer" in name:
        pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    read = read_by(task_name, source, given)
    sections = sections_of(task_name, source, given)
    unread = config.flat(sections).keys() - read - IN_THE_LOOP
    idle = find_task(task_name).idle(sections)
    assert unread <= idle.keys()


def flags_of(options):
    """The command line's words for options by name."""
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        words += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
    return words


@pytest.mark.parametrize("name", SOURCES)
def test_an_option_that_changes_nothing_is_refused_by_its_name(name, places, monkeypatch, capsys):
    monkeypatch.chdir(places)
    task_name, source, given = SOURCES[name]
    task, sections = find_task(task_name), sections_of(task_name, source, given)
    idle = task.idle(sections)
    base = flags_of({option: value for option, value in given.items() if option not in idle})
    usual = ["train", task_name, "--data", source, *base, "--folder", "run"]
    values = config.flat(sections)
    for option in idle:
        # What it is not, and what it is: one that switches something off that is not there is refused too.
        for value in (other_than(sections, option), values[option]):
            if value is not None:
                said = refusal(capsys, *usual, *flags_of({option: value}))
                assert f"error: --{option.replace('_', '-')}: it would change nothing: " in said
    assert not (places / "run").exists()


@pytest.mark.parametrize("command", ["train", "resume"])
def test_a_process_alone_waits_for_no_other(command, tmp_path, monkeypatch, capsys):
    run_of(tmp_path / "run")
    named = ["text", "--folder", tmp_path / "new"] if command == "train" else [tmp_path / "run"]
    said = refusal(capsys, command, *named, "--timeout", "5")
    assert "error: --timeout: it would change nothing: this process is alone" in said
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    sections = config.defaults(find_task("text"))
    config.check_idle(find_task("text"), sections, ["timeout"])


def test_of_a_file_of_options_what_differs_from_the_usual_is_asked_for(places, tmp_path, capsys):
    """It may hold every option, as recipes do."""
    path = tmp_path / "options.json"
    usual = ["train", "gan", "--arch", "recurrent", "--data", str(places / "series.npy")]
    assert main([*usual, "--save-config", str(path)]) == 0
    content = json.loads(path.read_text())
    saved = ["--save-config", str(tmp_path / "again.json")]
    assert main(["train", "gan", "--config", str(path), *saved]) == 0
    content["data"]["size"] = 32
    path.write_text(json.dumps(content))
    said = refusal(capsys, "train", "gan", "--config", path, *saved)
    assert "error: --size: it would change nothing: it is for images, and" in said
    assert "--hidden: it would" in refusal(capsys, "train", "gan", "--hidden", "64")  # though it is the usual


OTHERS = {  # of options that have no value, or one of many; as many tokens as a text has are all of them
    "vocabulary": 5,
    "input_dropout": 0.2, "hidden_dropout": 0.2, "output_dropout": 0.2, "column": "b", "split": "test",
    "widths": "6", "critic_widths": "7", "scale": 0.3, "binarise": "draw", "channels": 3, "augment": "color",
    "approximate_r1": 0.3, "approximate_r2": 0.3, "delimiter": ";", "decimal": ",", "header": "no",
    "features": "digits", "held_out": 0.3, "truncate": 3,
}  # fmt: skip


def other_than(sections, name):
    """A value that an option may have, and does not have."""
    options, value = next((each, getattr(each, name)) for each in sections.values() if hasattr(each, name))
    about = next(each for each in dataclasses.fields(options) if each.name == name)
    if name in OTHERS and value != OTHERS[name] and type(value) in (type(None), type(OTHERS[name])):
        return OTHERS[name]
    if about.metadata["choices"]:
        return next(each for each in about.metadata["choices"] if each != value)
    if isinstance(value, bool):
        return not about.default  # whatever the architecture has made of it
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.25
    return OTHERS[name]


def made_by(task_name, sections):
    """What a run of two steps makes: its weights, losses, measures and sample."""
    torch.manual_seed(0)
    kind = find_task(task_name)
    task = kind.from_options(sections, None, argument="--data")
    setup = dataclasses.replace(config.defaults(kind, {})["run"], device="cpu", ema=0.0)
    learner = Learner(task, sections["fit"], setup, Workers("cpu"))
    losses = [{name: x.item() for name, x in learner.advance().items()} for _ in range(2)]
    weights = {name: x.clone() for name, x in task.model.state_dict().items()}
    return losses, weights, task.evaluate(), task.sample(task.sampling(seed=0))


# What two steps, a quick measure and a sample do not show, though it acts.
UNSEEN = {
    "measured", "generator_every", "supervised", "penalty_every", "batch", "score_steps", "clip",
    "temperature", "free_bits", "kl_rise", "beta_rise", "approximate_r1", "approximate_r2",
}  # fmt: skip
UNSEEN_IN = {  # what these data do not show: they have short lines of one sentence, three channels
    "seqvae reads": {"longest"}, "seqvae rows": {"unit"}, "gan photos": {"channels"},
    "seq2seq characters": {"beam"}, "seq2seq bytes": {"beam"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_an_option_that_is_not_refused_changes_something(name, places, monkeypatch):
    """The other way round: that an option is read is not yet that it acts."""
    monkeypatch.chdir(places)
    task_name, source, given = SOURCES[name]
    task, sections = find_task(task_name), sections_of(task_name, source, given)
    usual, same = made_by(task_name, sections), []
    passed_over = IN_THE_LOOP | UNSEEN | UNSEEN_IN.get(name, set())
    for section, options in sections.items():
        for each in dataclasses.fields(options):
            if each.name in passed_over or each.name in task.idle(sections):
                continue
            try:
                now = getattr(options, each.name)
                other = not now if isinstance(now, bool) else other_than({section: options}, each.name)
                value = {each.name: other}
                changed = sections | {section: dataclasses.replace(options, **value)}
                if each.name in task.idle(changed) or not equal(usual, made_by(task_name, changed)):
                    continue
            except (KeyError, ValueError, OSError, ModuleNotFoundError):  # which says that it does not fit
                continue
            same.append(each.name)
    assert same == []
