"""`fusegen train vae`, `seqvae`, `seq2seq`: the command line, exact resuming, parts, bad input, pictures."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.data import Images, Pairs
from fusegen.train import FitOptions, RunOptions, Shard, config
from fusegen.train.learner import Learner
from fusegen.train.run import Run, read_log
from fusegen.train.tasks import find_task
from fusegen.train.tasks.examples import Examples, same_class
from fusegen.train.tasks.held_out import parted
from fusegen.train.tasks.seq2seq import LOSS
from fusegen.train.tasks.seqvae import BOUND as SEQUENCE_BOUND
from fusegen.train.tasks.vae import BOUND
from fusegen.train.workers import Workers
from processes import ENVIRONMENT, torchrun
from runs import QUIET, StopAt, equal, silent
from tolerances import TOLERANCE, near

pytest.importorskip("sacrebleu")
Image = pytest.importorskip("PIL.Image")

STORY = [
    f"the {a} {b} of {c}." for a in ("old", "new", "red") for b in ("cat", "dog", "hen") for c in "xyzuv"
]
SMALL = {
    "vae": {"latent": 3, "hidden": 8, "batch": 8, "importance": 3},
    "seqvae": {
        "latent": 3,
        "hidden": 8,
        "embedding": 4,
        "batch": 4,
        "importance": 2,
        "word_dropout": 0.2,
        "inputless": False,
        "tokens": "character",
        "unit": "line",
        "dropout": 0.1,
    },
    "seq2seq": {"hidden": 8, "embedding": 4, "batch": 4, "longest": 12, "dropout": 0.1},
}
FIRST = {"vae": BOUND, "seqvae": SEQUENCE_BOUND, "seq2seq": LOSS}
NAMES = list(SMALL)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """What each task reads: 60 images of 6 x 5, 45 lines, 45 pairs."""
    folder = tmp_path_factory.mktemp("sources")
    random = np.random.default_rng(0)
    np.save(folder / "images.npy", random.integers(0, 256, (60, 6, 5), dtype=np.uint8))
    (folder / "lines.txt").write_text("\n".join(STORY))
    (folder / "pairs.tsv").write_text("".join(f"{each[4:12]}\t{each[4:12][::-1]}\n" for each in STORY))
    for number in range(24):
        where = folder / "pictures" / "abc"[number % 3]
        where.mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 4, 3), 80 * (number % 3), np.uint8)
        Image.fromarray(pixels).save(where / f"{number}.png")
    return {
        name: str(folder / each)
        for name, each in (
            ("vae", "images.npy"),
            ("seqvae", "lines.txt"),
            ("seq2seq", "pairs.tsv"),
            ("labelled", "pictures"),
        )
    }


def flags(name, source, **changed):
    given = {**SMALL[name], "data": source, **changed}
    named = [(key.replace("_", "-"), value) for key, value in given.items()]
    switches = [f"--{'' if value else 'no-'}{key}" for key, value in named if isinstance(value, bool)]
    others = [(f"--{key}", str(value)) for key, value in named if not isinstance(value, bool)]
    return [*switches, *(part for pair in others for part in pair)]


def sections_of(name, source, **changed):
    kinds = config.classes(find_task(name))
    given = {**SMALL[name], "data": source, **changed}
    return {
        section: kind(**{key: given[key] for key in kind.__dataclass_fields__ if key in given})
        for section, kind in kinds.items()
    }


def task_of(name, source, **changed):
    torch.manual_seed(0)
    return find_task(name).from_options(sections_of(name, source, **changed), None)


# Every task


def test_help_names_the_defaults_of_the_task(capsys):
    with pytest.raises(SystemExit):
        main(["train", "vae", "--help"])
    assert "0: no average (default: 0.995)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", NAMES)
def test_measures_are_those_of_evaluation_mode(name, sources):
    """Dropout is off while a task measures, and on again after."""
    task = task_of(name, sources[name])
    modes = [task.model.train().training]
    hook = task.model.register_forward_pre_hook(lambda model, _: modes.append(model.training))
    wanted = task.evaluate()
    hook.remove()
    assert task.model.training and not any(modes[1:])
    torch.manual_seed(7)
    assert task.evaluate() == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_part_in_evaluation_mode_stays_in_it(name, sources):
    """As a frozen batch norm is: measures and samples leave every part of the model as it was."""
    task = task_of(name, sources[name])
    frozen = next(task.model.children()).eval()
    task.evaluate()
    task.sample(task.sampling())
    modes = {part: part.training for part in task.model.modules()}
    assert all(mode != (part in set(frozen.modules())) for part, mode in modes.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_run_from_train_to_export(name, sources, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    assert (
        main(["train", name, *flags(name, sources[name]), *QUIET, "--steps", "4", "--folder", str(folder)])
        == 0
    )
    lines = read_log(folder)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    measured = [line for line in lines if FIRST[name] in line]
    assert [line["step"] for line in measured] == [0, 2, 4]
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--checkpoint", "last"]) == 0
    shown = capsys.readouterr().out
    for measure in measured[-1].keys() - {"step", "seconds"}:
        assert f"{measure}  {measured[-1][measure]:.6g}" in shown

    monkeypatch.chdir(tmp_path)  # a sample needs no data
    (suffix,) = {path.suffix for path in (folder / "samples").iterdir()}
    out = tmp_path / f"out{suffix}"
    assert main(["sample", str(folder), "--checkpoint", "last", "--out", str(out)]) == 0
    assert out.read_bytes() == (folder / f"samples/step-00000004{suffix}").read_bytes()
    pytest.importorskip("safetensors")
    assert main(["export", str(folder)]) == 0


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("vae", {}),
        ("vae", {"network": "convolutional", "binarise": "draw", "beta_rise": 0.5, "channels": 2}),
        ("vae", {"likelihood": "gaussian", "data": "labelled", "conditional": True}),
        ("seqvae", {}),
        ("seqvae", {"cell": "gru", "bidirectional": True, "free_bits": 0.5}),
        ("seqvae", {"latent": 0}),
        ("seq2seq", {}),
        ("seq2seq", {"cell": "gru", "bidirectional": False, "beam": 2, "layers": 2}),
    ],
)
def test_killed_and_resumed_equals_never_killed_bit_for_bit(tmp_path, name, changed, sources):
    changed = dict(changed)
    source = sources[changed.pop("data", name)]

    def run(folder, *kills):
        sections = sections_of(name, source, **changed)
        sections["run"] = RunOptions(device="cpu", tensorboard=False, checkpoint_every=2)
        run, which = Run.create(tmp_path / folder, name, sections), None
        for kill in (*kills, None):
            torch.manual_seed(3 if which is None else 99)
            task = run.task()
            if kill is not None:
                StopAt(task, kill)
            try:
                silent(
                    task,
                    FitOptions(steps=5, lr=0.01),
                    setup=sections["run"],
                    run=run,
                    evaluations=2,
                    resume=which,
                )
            except StopAt.Killed:
                which = "last" if run.checkpoints.steps() else None
        losses = [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(run.folder)]
        return run.load("last"), losses

    (never, never_log), (killed, killed_log) = run("never"), run("killed", 1, 3)
    for part in never.keys() - {"run"}:
        assert equal(never[part], killed[part]), part
    assert killed_log == never_log and never["step"] == 5


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_falls(name, sources):
    source = sources["labelled" if name == "vae" else name]
    task = task_of(name, source, **({"batch": 4} if name == "vae" else {"dropout": 0.0}))
    history = silent(task, FitOptions(steps=30, lr=0.02), setup=RunOptions(device="cpu"), evaluations=1)
    assert history[1][1][FIRST[name]] < 0.95 * history[0][1][FIRST[name]]


def test_pairs_in_parts_are_the_whole_batch(sources):
    """Whatever their lengths: the loss is over the mean length of a target, not over those of a part."""
    runs = []
    for accumulate in (1, 2, 4):
        task = task_of("seq2seq", sources["seq2seq"], dropout=0.0)
        setup = RunOptions(device="cpu", precision="float64", accumulate=accumulate)
        learner = Learner(task, FitOptions(steps=8, lr=0.01), setup, Workers("cpu"))
        runs.append([learner.advance()["loss"] for _ in range(4)])
    assert np.abs(np.subtract(runs[0], runs[1])).max() < TOLERANCE[torch.float64, "training"]
    assert np.abs(np.subtract(runs[0], runs[2])).max() < TOLERANCE[torch.float64, "training"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes(name, sources, tmp_path):
    """They learn one model; pairs, without noise, exactly as one process does."""
    given = [*flags(name, sources[name], **({} if name == "vae" else {"dropout": 0.0})), *QUIET]
    losses = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        arguments = ["train", name, *given, "--steps", "4", "--precision", "float64", "--folder", str(folder)]
        alone = [sys.executable, "-m", "fusegen.cli", *arguments]
        command = alone if processes == 1 else torchrun(2, *arguments)
        subprocess.run(command, check=True, env=ENVIRONMENT, timeout=120)
        losses.append([line["loss"] for line in read_log(folder) if "loss" in line])
        assert Run.open(folder).load("last")["step"] == 4
    assert len(losses[1]) == 4
    if name == "seq2seq":
        assert np.abs(np.subtract(*losses)).max() < TOLERANCE[torch.float64, "training"]


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("vae", ["--data", "{tmp}/nowhere"], "--data: cannot read {tmp}/nowhere"),
        ("vae", ["--data", "{tmp}/a.npy"], "--data: {tmp}/a.npy: expected [N, H, W]"),
        ("vae", ["--conditional"], "--conditional: {vae} has no labels"),
        ("vae", ["--batch", "49"], "there are 48 images to learn from (12 of 60 are held out)"),
        ("vae", ["--scale", "1"], "--scale: expected none for a Bernoulli likelihood, got 1.0"),
        ("vae", ["--likelihood", "gaussian", "--binarise", "half"], "--binarise: expected none for"),
        ("vae", ["--network", "convolutional", "--convolutions", "3"], "--convolutions: 3 cannot each halve"),
        ("vae", ["--held-out", "0.001"], "--data: 60 images are too few to hold 0.001 of them out"),
        ("vae", ["--accumulate", "3"], "--batch: expected a multiple of 3"),
        ("seqvae", ["--data", "{tmp}/nowhere"], "--data: cannot read {tmp}/nowhere"),
        ("seqvae", ["--data", "{tmp}/latin"], "--data: {tmp}/latin is not UTF-8"),
        ("seqvae", ["--data", "{tmp}/a.npy"], "--data: {tmp}/a.npy holds token numbers"),
        ("seqvae", ["--longest", "2"], "--data: {seqvae} has no line of at most 2 characters (--longest)"),
        ("seqvae", ["--batch", "42"], "--batch: 42 is too large for these data: there are 41 lines"),
        ("seqvae", ["--unit", "word"], "invalid choice: 'word'"),
        ("seq2seq", ["--data", "x"], "--data: expected reverse, FILE,FILE, a .tsv or mo:FOLDER, got 'x'"),
        ("seq2seq", ["--data", "{tmp}/one.tsv"], "--data: {tmp}/one.tsv: line 1 has no tab"),
        ("seq2seq", ["--data", "mo:{tmp}"], "--data: there is no .mo file for mo:{tmp}"),
        ("seq2seq", ["--longest", "2"], "has no pair of at most 2 characters (--longest)"),
        ("seq2seq", ["--hidden", "9"], "--hidden: expected an even number for a bidirectional"),
        ("seq2seq", ["--batch", "50"], "--batch: 50 is too large for these data: there are "),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(tmp_path, sources, capsys, name, given, words):
    np.save(tmp_path / "a.npy", np.arange(100))
    (tmp_path / "latin").write_bytes("zö".encode("latin-1"))
    (tmp_path / "one.tsv").write_text("alone\n")
    places = {"tmp": tmp_path, **sources}
    arguments = [
        "train",
        name,
        *flags(name, sources[name]),
        "--steps",
        "1",
        "--folder",
        str(tmp_path / "run"),
    ]
    try:
        status = main([*arguments, *(each.format(**places) for each in given)])
    except SystemExit as refused:  # by argparse, which names the choices
        status = refused.code
    err = capsys.readouterr().err
    assert status == 2 and words.format(**places) in err.splitlines()[-1]


@pytest.mark.parametrize("name", NAMES)
def test_other_data_are_not_gone_on_with(name, sources, tmp_path, capsys):
    other, folder = tmp_path / os.path.basename(sources[name]), tmp_path / "run"
    other.write_bytes(pathlib.Path(sources[name]).read_bytes())
    assert main(["train", name, *flags(name, other), *QUIET, "--steps", "2", "--folder", str(folder)]) == 0
    content = other.read_bytes()
    other.write_bytes(content[:-200] + bytes(200) if name == "vae" else content.rsplit(b"\n", 8)[0])
    assert main(["resume", str(folder), "--steps", "3"]) == 2
    assert "the data are not those of its run" in capsys.readouterr().err


def test_a_run_without_its_examples_or_vocabulary_says_so(sources, tmp_path, capsys):
    for name, missing in (
        ("vae", "examples.npz"),
        ("seqvae", "vocabulary.json"),
        ("seq2seq", "examples.json"),
    ):
        folder = tmp_path / name
        assert (
            main(
                ["train", name, *flags(name, sources[name]), *QUIET, "--steps", "1", "--folder", str(folder)]
            )
            == 0
        )
        (folder / missing).rename(tmp_path / "gone")
        capsys.readouterr()
        assert main(["sample", str(folder)]) == 2
        err = capsys.readouterr().err
        assert missing in err and err.count("\n") == 1
        (folder / missing).write_bytes(b"torn")
        assert main(["sample", str(folder)]) == 2
        err = capsys.readouterr().err
        assert missing in err and err.count("\n") == 1


# Images


TITLES = {
    "prior": "samples of the prior",
    "reconstruction": "held-out images, and what comes back",
    "interpolation": "ways from one held-out image to another",
}


@pytest.mark.parametrize("what", ["all", *TITLES])
@pytest.mark.parametrize("conditional", [False, True])
def test_pictures_have_a_panel_for_each(what, conditional, sources, figures):
    task = task_of("vae", sources["labelled"], conditional=conditional, likelihood="gaussian", batch=4)
    made = task.sample(task.sampling(what=what, rows=2))
    assert made[".png"].startswith(b"\x89PNG")
    panels = [(axis.get_title(loc="left"), len(axis.images)) for axis in figures[0].axes]
    assert panels == [(title, 24) for name, title in TITLES.items() if what in ("all", name)]


def test_the_originals_are_drawn_as_the_model_reads_them(sources, figures):
    task = task_of("vae", sources["vae"])
    task.sample(task.sampling(what="reconstruction"))
    first = figures[0].axes[0].images[0].get_array()[..., 0]
    assert np.array_equal(first, (task.held_out.pixels[0, 0] >= 128).numpy())


def test_the_bound_is_measured_at_beta_1_and_draws_are_fixed(sources):
    task = task_of("vae", sources["vae"], beta=7.0, binarise="draw")
    before = torch.get_rng_state()
    measures = task.evaluate()
    assert equal(before, torch.get_rng_state()) and measures == task.evaluate()
    assert measures[BOUND] == pytest.approx(measures["KL"] - measures["log likelihood"])
    x = task.held_out.pixels.float().flatten(1) / 255
    drawn = torch.bernoulli(x, generator=torch.Generator().manual_seed(0))
    terms = task.model.eval().elbo(drawn)
    near(measures["KL"], terms.kl.sum(1).mean().item())


def test_a_published_test_split_is_what_is_measured(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    for name, part in (("train", pixels[:20]), ("t10k", pixels[20:])):
        head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in part.shape)
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(head + part.tobytes())
    task = task_of("vae", str(tmp_path))
    assert torch.equal(task.held_out.pixels[:, 0], torch.from_numpy(pixels[20:]))
    assert len(task_of("vae", str(tmp_path), held_out=0.5).held_out) == 10


def test_examples_come_back_from_their_file(tmp_path):
    images = Images("a", torch.randint(0, 256, (20, 1, 2, 2)).byte(), torch.arange(20) % 3, ("x", "y"))
    made = Examples.of(images, images, True)
    made.write(tmp_path / "examples.npz")
    read = Examples.read(tmp_path / "examples.npz", "data")
    assert equal(read.pixels, images.pixels[:12]) and equal(read.labels, images.labels[:12])
    assert read.classes == ("x", "y", "2")


def test_ways_end_at_an_example_of_thesame_class():
    assert same_class(torch.tensor([0, 1, 0, 2, 1, 0])).tolist() == [2, 4, 5, 3, 1, 0]


# Text


@pytest.mark.parametrize("kind", ["byte", "character", "word"])
def test_sequences_in_every_kind_of_token(kind, sources):
    for name in ("seqvae", "seq2seq"):
        task = task_of(name, sources[name], tokens=kind)
        assert FIRST[name] in task.evaluate()
        assert task.sample(task.sampling())[".txt"].count("\n") > 5


def test_without_a_latent_the_bound_is_the_likelihood(sources):
    task = task_of("seqvae", sources["seqvae"], latent=0)
    measures = task.evaluate()
    assert measures["KL"] == 0 == measures["active units"]
    assert measures[SEQUENCE_BOUND] == pytest.approx(-measures["log likelihood"])
    assert not any(name.startswith("nats, ") for name in measures)


def test_the_kl_is_annealed_and_has_free_bits(sources):
    task = task_of("seqvae", sources["seqvae"], kl_rise=0.5, free_bits=2.0, dropout=0.0, word_dropout=0.0)
    batch = next(task.data(Shard()))[0]

    def loss(step):
        task.at(step, 10)
        torch.manual_seed(0)
        found, _ = task.loss(task.model, batch, None)
        return {name: value.item() for name, value in found.items()}

    losses = [loss(step) for step in (0, 1, 5, 9)]
    for found, weight in zip(losses, (0.0, 0.2, 1.0, 1.0), strict=True):
        # three units, each with less than two nats at first: what they cost is what is free
        near(found["loss"], weight * 6.0 - found["log likelihood"])


def test_a_text_of_ones_own_is_translated(sources, tmp_path, capsys):
    folder = tmp_path / "run"
    given = [*flags("seq2seq", sources["seq2seq"]), *QUIET, "--steps", "1", "--folder", str(folder)]
    assert main(["train", "seq2seq", *given]) == 0
    capsys.readouterr()
    assert main(["sample", str(folder), "--source", "red cat", "--beam", "2"]) == 0
    assert capsys.readouterr().out.startswith("red cat\n  -> ")


def test_measures_of_pairs_are_of_what_is_decoded(sources):
    task = task_of("seq2seq", sources["seq2seq"])
    task._written = lambda model, source, lengths, beam, penalty=1.0: task_written(task, source, lengths)
    measures = task.evaluate()
    assert measures["exact %"] == 100
    task.held_out = Pairs("words", *[("of a cat in a hat",) * 4] * 2)
    task._written = lambda *_: ["of a cat in a hat"] * _[1].shape[1]
    measures = task.evaluate()
    assert measures["BLEU"] == pytest.approx(100) == measures["BLEU of the sources"]


def task_written(task, source, lengths):
    """The right answer: the source backwards."""
    spelled = task.vocabularies[0]
    return [spelled.decode(source[:n, b])[::-1] for b, n in enumerate(lengths.tolist())]


# The split


def test_the_split_is_the_same_for_every_run_and_leaves_nothing_in_both():
    learn, held_out = parted(50, 0.2, "data", "things")
    assert len(held_out) == 10 and sorted([*learn.tolist(), *held_out.tolist()]) == list(range(50))
    torch.manual_seed(5)
    assert equal(parted(50, 0.2, "data", "things"), (learn, held_out))


def test_no_source_is_on_both_sides(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"s{i % 20}\tt{i}\n" for i in range(60)))
    task = task_of("seq2seq", str(path))
    assert not set(task.training.sources) & set(task.held_out.sources)
    assert len(task.training) == 54 and len(task.held_out) == 6


def test_the_seed_is_of_the_order_and_not_of_the_split(sources):
    first, second, third = (task_of("vae", sources["vae"], seed=seed) for seed in (0, 1, 0))
    assert equal(first.training.pixels, second.training.pixels)
    assert first.fingerprint() == second.fingerprint()
    batches = [next(task.data(Shard()))[0][0] for task in (first, second, third)]
    assert not equal(batches[0], batches[1]) and equal(batches[0], batches[2])


@pytest.mark.parametrize(
    ("channels", "low", "high", "flags", "said"),
    [
        (3, 0, 256, {}, "colours"),
        (1, 60, 200, {}, "shades"),
        (1, 0, 40, {}, ""),  # next to one end
        (3, 0, 256, {"likelihood": "gaussian"}, ""),
        (3, 0, 256, {"binarise": "half"}, ""),  # asked for
    ],
)
def test_what_is_lost_of_pictures_as_0_and_1_is_said(tmp_path, channels, low, high, flags, said):
    from fusegen.train.tasks.vae import VAEData, VAEFit, VAEOptions, VAETask

    pixels = np.random.default_rng(0).integers(low, high, (40, channels, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    binarise, model = flags.get("binarise"), {k: v for k, v in flags.items() if k != "binarise"}
    sections = {
        "model": VAEOptions(hidden=4, batch=4, **model),
        "data": VAEData(data=str(tmp_path / "a.npy"), binarise=binarise),
        "fit": VAEFit(),
    }
    notes = VAETask.from_options(sections, None).notes
    assert bool(notes) == bool(said)
    assert not said or (notes[0].startswith(f"{said} are lost") and "--likelihood gaussian" in notes[0])
