"""`fusegen train gan`: every kind, resumed bit for bit, in parts and processes; options, messages."""

import json
import math
import os
import subprocess
import sys
import wave

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.train import GanTask, RunOptions, config
from fusegen.train.learner import Learner
from fusegen.train.run import Run, read_log
from fusegen.train.tasks import find_task
from fusegen.train.tasks.gan.options import ARCHS, PRESETS, GanRun
from fusegen.train.workers import Shard, Workers
from gan_runs import KINDS, sections, train
from learning.gan import PlainGan, measures_in
from runs import equal
from tolerances import TOLERANCE, near

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

FIRST = dict.fromkeys(("mlp", "dcgan"), "Frechet distance of 8 x 8 pixels") | {
    "series": "discriminative score (2 steps)",
    "text": "bigram divergence",
}


# ---- runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_trains_measures_and_draws(tmp_path, places, capsys, kind):
    folder = tmp_path / "run"
    assert train(kind, places, folder, "--steps", 2, "--penalty-every", 2) == 0
    lines = read_log(folder)
    assert [line["step"] for line in lines if FIRST[kind] in line] == [0, 2]
    steps = [line for line in lines if "generator loss" in line]
    assert ["penalty" in line for line in steps] == [True, False]
    assert all({"discriminator loss", "real logit", "fake logit", "lr"} <= line.keys() for line in steps)
    suffix = ".txt" if kind == "text" else ".png"
    kept = (folder / f"samples/step-00000002{suffix}").read_bytes()
    assert kind == "text" or kept.startswith(b"\x89PNG")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")

    out = tmp_path / f"out{suffix}"
    capsys.readouterr()
    assert main(["sample", str(folder), "--count", "5", "--truncation", "0.5", "--out", str(out)]) == 0
    if kind == "series":
        drawn = np.load(out.with_suffix(".npy"))
        assert drawn.shape == (5, 5, 3) and np.isfinite(drawn).all()
    more = ["--score-steps", "2", "--repeats", "2"] if kind == "series" else []
    picture = tmp_path / "curves.png"
    assert main(["evaluate", str(folder), "--checkpoint", "last", "--curves", str(picture), *more]) == 0
    assert picture.read_bytes() == (folder / "curves.png").read_bytes()
    measures = measures_in(capsys.readouterr().out)
    if kind == "series":
        scores = {name.split(" score")[0] for name in measures}
        assert scores == {"discriminative", "predictive"} and len(measures) == 5
    else:
        logged = [line for line in lines if FIRST[kind] in line][-1][FIRST[kind]]
        near(measures[FIRST[kind]], logged, "of the averaged weights", "printed")
    assert out.read_bytes() and (kind != "text" or len(out.read_text().splitlines()) == 5)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mlp", ["--penalty-every", "3", "--gp", "2", "--ema", "0.5", "--spectral-norm"]),
        ("mlp", ["--precision", "bfloat16", "--accumulate", "2", "--generator-every", "2"]),
        ("dcgan", ["--conditional", "--penalty-every", "2", "--loss", "hinge"]),
        ("mlp", ["--augment", "color,translation", "--conditional", "--penalty-every", "2"]),
        ("dcgan", ["--augment", "cutout,translation,color", "--loss", "relativistic"]),
        ("series", ["--cell", "lstm", "--r2", "0.1", "--penalty-every", "3", "--warm-up", "2"]),
        ("series", ["--no-innovations", "--no-levels", "--no-residual", "--approximate-r1", "0"]),
        ("series", ["--truncate", "3", "--moments", "1", "--warm-up", "2"]),
        ("text", ["--loss", "relativistic"]),
        ("text", ["--tokens", "word", "--warm-up", "2", "--held-out", "0"]),
    ],
)
def test_killed_and_resumed_equals_never_killed_bit_for_bit(tmp_path, places, monkeypatch, kind, more):
    class Killed(BaseException):
        pass

    never, killed = tmp_path / "never", tmp_path / "killed"
    more = [*more, "--steps", "6", "--checkpoint-every", "2"]
    if "--conditional" in more:
        places = {**places, "mlp": places["dcgan"]}
    monkeypatch.setattr(GanTask, "evaluate", lambda self, model=None: {"measure": 0.0})
    assert train(kind, places, never, *more) == 0
    at = GanTask.at

    def kill(self, step, steps):
        if step == 5:
            raise Killed
        at(self, step, steps)

    with monkeypatch.context() as patch:
        patch.setattr(GanTask, "at", kill)
        with pytest.raises(Killed):
            train(kind, places, killed, *more)
    torch.manual_seed(99)
    assert main(["resume", str(killed)]) == 0
    a, b = (Run.open(folder).load("last") for folder in (never, killed))
    assert set(a["optimizers"]) == {"discriminator", "generator"} and a["average"]
    for name in a.keys() - {"run"}:
        assert equal(a[name], b[name]), name
    logs = [[{k: v for k, v in x.items() if k != "seconds"} for x in read_log(f)] for f in (never, killed)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast(tmp_path, places, monkeypatch, kind):
    monkeypatch.setattr(GanTask, "evaluate", lambda self, model=None: {"measure": 0.0})
    folder = tmp_path / "run"
    assert train(kind, places, folder, "--steps", 2, "--precision", "bfloat16") == 0
    assert all(math.isfinite(value) for line in read_log(folder) for value in line.values())


def test_classes_are_learnt_and_asked_for(tmp_path, places, capsys):
    folder = tmp_path / "run"
    places = {"mlp": places["dcgan"]}  # pictures in folders
    assert train("mlp", places, folder, "--steps", 2, "--conditional") == 0
    assert json.loads((folder / "data.json").read_text())["classes"] == ["blue", "green", "red"]

    def drawn(*more):
        out = tmp_path / "out.png"
        assert main(["sample", str(folder), "--count", "4", *more, "--out", str(out)]) == 0
        return out.read_bytes()

    assert drawn("--class", "green") == drawn("--class", "1") != drawn("--class", "red")
    capsys.readouterr()
    assert main(["sample", str(folder), "--class", "pink"]) == 2
    assert "--class: expected one of blue, green, red, got 'pink'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["mlp", "dcgan"])
def test_both_networks_see_augmented_images_real_and_fake(places, kind):
    own = sections(kind, places, augment="cutout")
    torch.manual_seed(0)
    task = GanTask.from_options(own, None)
    batch, _ = next(task.data(Shard()))
    filled = {"real": torch.ones_like(batch["real"])}
    task.model.fakes = lambda like, *besides: torch.ones_like(like).requires_grad_()
    real, fake = task._both(filled)
    holes = [(x == 0).flatten(1).double().mean(1) for x in (real, fake)]
    assert all((share > 0).all() and (share <= 0.25).all() for share in holes)
    assert not torch.equal(*holes) and fake.requires_grad and not real.requires_grad


def test_without_matplotlib_a_run_is_refused_in_one_line_before_it_begins(
    tmp_path, places, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert train("mlp", places, tmp_path / "run", "--steps", 1) == 2
    err = capsys.readouterr().err
    assert "matplotlib is needed for this: pip install matplotlib" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_penalties_are_approximate_where_a_deviation_is_given(places):
    given = {"r1": 0.2, "r2": 0.2, "approximate_r1": 0.1}
    rules = GanTask.from_options(sections("series", places, **given, approximate_r2=0.0), None).rules
    assert (rules.approximate_r1, rules.approximate_r2) == (0.1, None)
    assert GanTask.from_options(sections("series", places), None).rules.approximate_r1 is None


def test_the_generator_warms_up_by_likelihood_alone(tmp_path, places):
    for weight in (0.0, 0.5):
        folder = tmp_path / str(weight)
        more = ["--warm-up", 2, "--supervised", weight, "--steps", 4, "--moments", 0]
        assert train("series", places, folder, *more) == 0
        lines = [line for line in read_log(folder) if "generator loss" in line]
        alone = [line["generator loss"] == line.get("surprise") for line in lines]
        assert alone == [True, True, False, False]
        assert [("surprise" in line) for line in lines] == [True, True, weight > 0, weight > 0]


@pytest.mark.parametrize("kind", ["series", "text"])
def test_a_run_says_in_which_steps_the_discriminator_teaches_nothing(tmp_path, places, capsys, kind):
    for warm_up, said in (
        (3, "learns    by likelihood in the first 3 steps, then from the discriminator too\n"),
        (4, "learns    the discriminator teaches the generator in none of the 4 steps: --warm-up is 4; give"),
        (0, None),
    ):
        more = ["--steps", 4, "--warm-up", warm_up]
        assert train(kind, places, tmp_path / f"{warm_up}", *more) == 0
        found = capsys.readouterr().out
        assert ("learns " not in found) if said is None else (said in found)


# ---- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["weight", "gradient"])
def test_nan_is_reported_with_the_step_and_the_last_checkpoint_is_good(
    tmp_path, places, monkeypatch, capsys, part
):
    at = GanTask.at

    def poison(self, step, steps):
        weight = self.model.discriminator[-1].weight
        if step == 3 and part == "weight":
            weight.data.fill_(math.nan)
        elif step == 3:
            weight.register_hook(lambda g: None if g is None else g * math.nan)
        at(self, step, steps)

    monkeypatch.setattr(GanTask, "at", poison)
    folder = tmp_path / "run"
    assert train("mlp", places, folder, "--steps", 6, "--checkpoint-every", 1) == 1
    err = capsys.readouterr().err
    what = "loss" if part == "weight" else "gradient norm"
    assert f"the discriminator {what} is nan at step 4" in err
    state = Run.open(folder).load("last")
    assert state["step"] == 3 and all(x.isfinite().all() for x in state["model"].values())


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("mlp", ["--data", ""], "--data: expected a name or a path, got an empty one"),
        ("mlp", ["--data", "{tmp}/nowhere"], "--data: cannot read {tmp}/nowhere"),
        ("mlp", ["--data", "prices"], "--data: prices has sequences, which --arch recurrent takes"),
        ("mlp", ["--data", "{tmp}/nan.npy"], "nan.npy: expected real numbers from 0 to 1, got nan to nan"),
        (
            "mlp",
            ["--batch", "25"],
            "--batch: 25 is too large for these data: there are 24 images to learn",
        ),
        (
            "series",
            ["--length", "59"],
            "--batch: 4 is too large for these data: there are 2 windows of 59 steps (--length)",
        ),
        (
            "text",
            ["--length", "171"],
            "there are 3 windows of 171 steps (--length), one every 1 (--stride), in the 173 characters",
        ),
        (
            "series",
            ["--length", "60"],
            "--length: there is one window of 60 steps, one every 1 (--stride), in the 60 rows of {data}, "
            "and a step reads 4 (--batch): expected fewer steps; --length 57 gives 4",
        ),
        (
            "series",
            ["--length", "57", "--stride", "4"],
            "--length: there is one window of 57 steps, one every 4 (--stride), in the 60 rows of {data}, "
            "and a step reads 4 (--batch): expected fewer steps; --length 48 gives 4",
        ),
        ("text", ["--length", "173"], "(--batch): expected fewer steps; --length 170 gives 4"),
        ("mlp", ["--accumulate", "3"], "--batch: expected a multiple of 3 (processes x accumulate), got 4"),
        ("mlp", ["--conditional"], "--conditional: {data} has no classes"),
        ("mlp", ["--widths", "8,x"], "--widths: expected numbers of units with commas between"),
        ("mlp", ["--channels", "2"], "--channels: expected 1 or 3, got 2"),
        ("mlp", ["--loss", "wgan"], None),
        ("mlp", ["--r1", "-1"], "--r1: expected a number at least 0, got -1.0"),
        ("mlp", ["--label-smoothing", "0.1", "--loss", "hinge"], "--label-smoothing: only non_saturating"),
        ("mlp", ["--features", ""], "--features: expected auto, digits, pixels, a file with Inception's"),
        ("mlp", ["--features", "no/such.pth"], "or MODULE:NAME, got 'no/such.pth', where no file is"),
        ("mlp", ["--features", ".no:thing"], "or MODULE:NAME, got '.no:thing', where no file is"),
        ("mlp", ["--features", "no.such:thing"], "--features: cannot import 'no.such:thing'"),
        ("mlp", ["--augment", "colour"], "--augment: expected some of color, translation, cutout, each once"),
        ("mlp", ["--augment", ""], "--augment: expected some of color, translation, cutout"),
        ("series", ["--augment", "color"], "--augment: it changes images, and {data} has series"),
        ("text", ["--augment", "color"], "--augment: it changes images, and {data} has text"),
        ("series", ["--data", "{tmp}/waves"], "got 1 at 8000 Hz in {tmp}/waves/a.wav and 1 at 16000 Hz in"),
        ("dcgan", ["--size", "30"], "--size: expected one of 28, 32, 64 for --arch dcgan, got 30"),
        ("series", ["--length", "61"], "--length: expected at most 60, as the longest recording has, got 61"),
        ("series", ["--data", "prices", "--length", "1000000000"], "--length: expected at most 1"),
        ("series", ["--data", "digits"], "--data: digits are images"),
        ("series", ["--data", "{tmp}/nan.npy"], "nan.npy holds NaN or infinity, first at [0]"),
        (
            "series",
            ["--data", "{tmp}/far.npy"],
            "--data: {tmp}/far.npy: expected features over a finite",
        ),
        ("series", ["--data", "{tmp}/no.wav"], "--data: cannot read {tmp}/no.wav"),
        ("series", ["--data", "sines", "--stride", "2"], "--stride: sines are drawn one by one"),
        ("series", ["--no-innovations"], "--levels: only innovations add up to something"),
        ("series", ["--no-innovations", "--no-whiten"], "--residual: noise of deviation 1"),
        ("series", ["--approximate-r1", "-1"], "--approximate-r1: expected a number at least 0, got -1.0"),
        (
            "series",
            ["--header", "no"],
            "--header: expected a table (.csv, .tsv, .csv.gz, .tsv.gz) to read with it, got {data}",
        ),
        (
            "mlp",
            ["--delimiter", ";"],
            "--delimiter: expected a table (.csv, .tsv, .csv.gz, .tsv.gz) to read with it, got {data}",
        ),
        (
            "text",
            ["--decimal", ","],
            "--decimal: expected a table (.csv, .tsv, .csv.gz, .tsv.gz) to read with it, got {data}",
        ),
        ("series", ["--data", "prices", "--decimal", ","], "--decimal: expected a table (.csv, .tsv"),
        ("mlp", ["--data", "{tmp}/one.npy", "--batch", "1"], "at least 2 images for the measures, got 1\n"),
        (
            "series",
            ["--length", "59", "--batch", "2"],
            "--data: expected at least 5 sequences for the measures, got 2: windows of 59 steps (--length)",
        ),
        (
            "series",
            ["--moments", "0.3", "--batch", "1"],
            "--batch: expected at least 2, for --moments compares two halves of a batch, got 1; or give",
        ),
        (
            "series",
            ["--moments", "0.3", "--accumulate", "4"],
            "--batch: expected at least 8, for --moments compares two halves of each of 4 parts (processes x",
        ),
        ("text", ["--length", "500"], "has 192 characters, 10 % of them held out, --length 500"),
        ("text", ["--held-out", "1"], "--held-out: expected a number at least 0 and below 1, got 1.0"),
        ("series", ["--data", "tones", "--stride", "2"], "--stride: tones are drawn one by one"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, places, capsys, kind, arguments, words):
    (tmp_path / "waves").mkdir()
    for name, rate in (("a", 8000), ("b", 16000)):
        with wave.open(str(tmp_path / f"waves/{name}.wav"), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(bytes(200))
    np.save(tmp_path / "nan.npy", np.full(40 if kind == "series" else (9, 8, 8), np.nan))
    np.save(tmp_path / "one.npy", np.zeros((1, 8, 8)))
    np.save(tmp_path / "far.npy", 1.5e308 * np.cos(np.arange(40.0)))
    arguments = [each.format(tmp=tmp_path) for each in arguments]
    if words is None:
        with pytest.raises(SystemExit) as caught:
            train(kind, places, tmp_path / "run", *arguments)
        assert caught.value.code == 2 and "invalid choice: 'wgan'" in capsys.readouterr().err
        return
    assert train(kind, places, tmp_path / "run", *arguments) == 2
    err = capsys.readouterr().err
    assert words.format(tmp=tmp_path, data=places[kind]) in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--class", "1"], "--class: this run's model has no classes; train with --conditional"),
        (["--truncation", "0"], "--truncation: expected a number above 0"),
        (["--length", "3"], "--length: only sequences have one"),
        (["--count", "0"], "--count: expected an integer at least 1"),
        (["--count", "1000000"], "as fit in one picture, got 1,000,000; several commands with other --seed"),
        (["--interpolate", "1000000"], "--interpolate: expected at most"),
        (["--interpolate", "-1"], "--interpolate: expected an integer at least 0"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(tmp_path, places, capsys, arguments, words):
    folder = tmp_path / "run"
    assert train("mlp", places, folder, "--steps", 1) == 0
    capsys.readouterr()
    assert main(["sample", str(folder), *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


@pytest.mark.parametrize(("command", "method"), [("sample", "sample"), ("evaluate", "measure")])
def test_memory_that_runs_out_is_one_line(tmp_path, places, monkeypatch, capsys, command, method):
    def too_large(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    folder = tmp_path / "run"
    assert train("mlp", places, folder, "--steps", 1) == 0
    monkeypatch.setattr(GanTask, method, too_large)
    capsys.readouterr()
    assert main([command, str(folder)]) == 2
    *progress, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"fusegen {command}: error: not enough memory: ")
    assert all(line.startswith("  measuring") for line in progress)


# ---- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHS)
def test_each_arch_brings_its_defaults_and_flags_override_them(tmp_path, capsys, arch):
    def saved(*arguments):
        path = tmp_path / "a.json"
        assert main(["train", "gan", *arguments, "--save-config", str(path)]) == 0
        return json.loads(path.read_text()), path

    content, path = saved("--arch", arch)
    for section, values in PRESETS[arch].items():
        assert values.items() <= content[section].items()
    own, _ = saved("--arch", arch, "--steps", "7", "--lr", "0.5")
    assert own["fit"] == {**content["fit"], "steps": 7, "lr": 0.5}
    path.write_text(json.dumps({"model": {"arch": arch}, "fit": {"steps": 9}}))
    read, _ = saved("--config", str(path))
    assert read["fit"] == {**content["fit"], "steps": 9} and read["run"] == content["run"]
    path.write_text(json.dumps({"fit": {"steps": 9}}))
    read, _ = saved("--config", str(path), "--arch", arch)
    assert read["fit"] == {**content["fit"], "steps": 9} and read["model"] == content["model"]


@pytest.mark.parametrize(
    ("given", "widths"),
    [
        ({}, "256,256"),
        ({"conditional": True}, "512,512"),
        ({"conditional": False}, "256,256"),
        ({"arch": "mlp", "conditional": True}, "512,512"),
        ({"arch": "dcgan", "conditional": True}, "256,256"),
    ],
)
def test_the_discriminator_of_a_conditional_mlp_is_wider(given, widths):
    assert config.defaults(find_task("gan"), given)["model"].critic_widths == widths


def test_sounds_are_learnt_at_a_rate_of_their_own(tmp_path):
    for name in ("folder", "tables"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder/a.wav").touch()
    rate = lambda data: config.defaults(find_task("gan"), {"arch": "recurrent", "data": data})["fit"].lr
    assert rate("tones") == rate("a.FLAC") == rate(str(tmp_path / "folder")) == 1e-4
    assert rate("prices") == rate("a.csv") == rate(str(tmp_path / "tables")) == 3e-4 and rate("a.txt") == 3e-3


def test_presets_name_options_that_there_are():
    for preset in PRESETS.values():
        for section, values in preset.items():
            made = vars(config.classes(find_task("gan"))[section](**values))
            assert {name: made[name] for name in values} == values


def test_a_runs_own_file_gives_options_that_came_later_their_old_values():
    task = find_task("gan")
    content = {"task": "gan", "model": {"arch": "recurrent"}}
    asked = config.from_json(task, content, "file")
    assert asked["model"].residual and asked["data"].innovations and asked["fit"].approximate_r1 == 0.1
    run = config.from_json(task, {**content, "id": "0"}, "file")
    assert not (run["model"].residual or run["data"].innovations) and run["fit"].approximate_r1 is None
    assert run["model"].cell == "lstm" and run["fit"].loss == "non_saturating"


# ---- several parts and processes ----------------------------------------------------------------------


FIXED = '''
import sys
import torch
from fusegen.train import GanTask, fit
from fusegen.train.seeds import seed_all

class Fixed(GanTask):
    """Noise that each real sample brings along, so that parts and processes draw what one would."""

    def at(self, step, steps):
        super().at(step, steps)
        model = self.model
        model.fakes = lambda like, labels=None, lengths=None: model.generate(
            like.flatten(1)[:, : model.noise_size], labels
        )

    def evaluate(self, model=None):
        return {"measure": 0.0}
'''
SCRIPT = """
from fusegen.train.run import Run
from fusegen.train.workers import Shard, Workers

run, workers = Run.open(__import__("pathlib").Path(sys.argv[1])), Workers("cpu")
seed_all(0)
task = Fixed.from_options(run.sections, None)
fit(task, run.sections["fit"], setup=run.sections["run"], run=run, workers=workers)
workers.leave()
"""


def fixed_task(own):
    space = {}
    exec(FIXED, space)
    space["seed_all"](0)
    return space["Fixed"].from_options(own, None)


def losses_of(folder):
    return [[line[n] for n in ("discriminator loss", "generator loss")] for line in read_log(folder)[1:-1]]


def alone(own, parts=1, task=None):
    setup = RunOptions(device="cpu", precision="float64", accumulate=parts)
    learner = Learner(task or fixed_task(own), own["fit"], setup, Workers("cpu"))
    steps = [learner.advance() for _ in range(own["fit"].steps)]
    return [[step[n].item() for n in ("discriminator loss", "generator loss")] for step in steps]


@pytest.mark.parametrize("kind", ["mlp"])
def test_a_batch_in_parts_is_the_whole_batch(places, kind):
    own = sections(kind, places, penalty_every=2)
    assert np.abs(np.subtract(alone(own), alone(own, 2))).max() < TOLERANCE[torch.float64, "training"]


def test_two_processes_compute_what_one_does(tmp_path, places):
    """The losses of 6 steps with lazy R1, in float64."""
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    own = sections("mlp", places, penalty_every=2)
    own["run"] = GanRun(device="cpu", precision="float64", log_every=1, evaluations=1, tensorboard=False)
    run = Run.create(tmp_path / "run", "gan", own)
    script = tmp_path / "script.py"
    script.write_text(FIXED + SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    subprocess.run([*launch, str(script), str(run.folder)], check=True, env=environment, timeout=300)
    assert np.abs(np.subtract(alone(own), losses_of(run.folder))).max() < TOLERANCE[torch.float64, "training"]


@pytest.mark.parametrize("kind", ["mlp", "dcgan"])
def test_the_plain_torch_of_the_benchmark_is_the_same_gan(places, monkeypatch, kind):
    own = sections(kind, places, penalty_every=2)
    runs = []
    for task in (GanTask, PlainGan):
        torch.manual_seed(0)
        made = task.from_options(own, None)
        made.evaluate = lambda model=None: {"measure": 0.0}
        torch.manual_seed(1)
        runs.append(alone(own, task=made))
    assert np.abs(np.subtract(*runs)).max() < TOLERANCE[torch.float64, "weights"]
