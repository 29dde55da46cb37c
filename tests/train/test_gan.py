"""`fusegen train gan`: every kind of GAN and data, resumed bit for bit, samples, measures, messages."""

import dataclasses
import io
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
from fusegen.data import Images, Innovations, Shuffled, Whitening, fitted, windows
from fusegen.train import GanTask, RunOptions, config
from fusegen.train.learner import Learner
from fusegen.train.run import Run, read_log
from fusegen.train.tasks import find_task
from fusegen.train.tasks.gan.characters import Characters
from fusegen.train.tasks.gan.options import ARCHS, PRESETS, GanData, GanFit, GanModel, GanRun
from fusegen.train.tasks.gan.pictures import Pictures
from fusegen.train.tasks.gan.series import READERS, Sequences
from fusegen.train.tasks.gan.source import between, draw
from fusegen.train.tasks.gan.units import units_of
from fusegen.train.workers import Shard, Workers
from learning.gan import PlainGan
from runs import equal
from tolerances import TOLERANCE, agree, near

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

QUIET = ["--no-tensorboard", "--evaluations", "1", "--log-every", "1", "--batch", "4", "--noise", "4"]
SMALL = {
    "mlp": ["--widths", "8", "--critic-widths", "8", "--size", "8", "--samples", "50"],
    "dcgan": ["--width", "2", "--samples", "50"],
    "series": ["--hidden", "4", "--length", "5", "--score-steps", "2"],
    "text": ["--hidden", "4", "--length", "5", "--samples", "50"],
}
KINDS = tuple(SMALL)
FIRST = dict.fromkeys(("mlp", "dcgan"), "Frechet distance of 8 x 8 pixels") | {
    "series": "discriminative score (2 steps)",
    "text": "bigram divergence",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Data by kind: pictures of 3 classes in folders, as an array, a series, a text."""
    image = pytest.importorskip("PIL.Image")
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for i in range(24):
        folder = root / "pictures" / ("red", "green", "blue")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 90, (9, 8, 3), dtype=np.uint8)
        pixels[..., i % 3] += 150
        image.fromarray(pixels).save(folder / f"{i}.png")
    np.save(root / "pictures.npy", random.integers(0, 256, (24, 8, 8), dtype=np.uint8))
    np.save(root / "series.npy", random.standard_normal((60, 3)).cumsum(0))
    (root / "text.txt").write_text("the cat sat on the mat; " * 8)
    kinds = {"mlp": "pictures.npy", "dcgan": "pictures", "series": "series.npy", "text": "text.txt"}
    return {kind: str(root / name) for kind, name in kinds.items()}


def flags(kind, places, *more):
    arch = kind if kind in ARCHS else "recurrent"
    return ["--arch", arch, "--data", places[kind], *SMALL[kind], *QUIET, *map(str, more)]


def train(kind, places, folder, *more):
    return main(["train", "gan", *flags(kind, places, *more), "--folder", str(folder)])


def sections(kind, places, **fit):
    arch = kind if kind in ARCHS else "recurrent"
    model = {"mlp": {"widths": "8", "critic_widths": "8"}, "dcgan": {"width": 2}}.get(kind, {"hidden": 4})
    cut = {"size": 8} if kind == "mlp" else {} if kind == "dcgan" else {"length": 5}
    return {
        "model": GanModel(arch=arch, noise=4, **model),
        "data": GanData(data=places[kind], batch=4, **cut),
        "fit": GanFit(steps=6, **fit),
        "run": GanRun(device="cpu", precision="float64"),
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
    measures = dict(line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines())
    if kind == "series":
        scores = {name.split(" score")[0] for name in measures} - {"step"}
        assert scores == {"discriminative", "predictive"} and len(measures) == 6
    else:
        logged = [line for line in lines if FIRST[kind] in line][-1][FIRST[kind]]
        near(float(measures[FIRST[kind]]), logged, "of the averaged weights", "printed")
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


def shown(figure):
    """Title, headings above, names beside, and the number of images of each panel."""
    told = lambda labels: [label.get_text() for label in labels]
    return [
        (a.get_title(loc="left"), told(a.get_xticklabels()), told(a.get_yticklabels()), len(a.images))
        for a in figure.axes
    ]


def drawn_by(kind, places, figures, *, conditional=False, **how):
    own = sections(kind, places)
    own["model"] = dataclasses.replace(own["model"], conditional=conditional)
    torch.manual_seed(0)
    task = GanTask.from_options(own, None)
    content = task.sample(task.sampling(**how))
    return task, content, figures[-1]


def test_images_stand_under_their_class_beside_some_of_the_data(places, figures):
    places = {"mlp": places["dcgan"]}  # of three classes
    _, _, figure = drawn_by("mlp", places, figures, conditional=True, count=7)
    colours = ["blue", "green", "red"]
    assert shown(figure) == [("the data: pictures", colours, [], 6), ("drawn", colours, [], 7)]
    means = [image.get_array().mean((0, 1)) for image in figure.axes[0].images]
    assert [int(mean.argmax()) for mean in means] == [2, 1, 0] * 2  # the data are of these colours
    _, _, figure = drawn_by("mlp", places, figures, conditional=True, count=5, class_="green")
    assert [panel[0] for panel in shown(figure)] == ["the data: pictures", "drawn of class green"]
    assert {int(image.get_array().mean((0, 1)).argmax()) for image in figure.axes[0].images} == {1}
    _, _, figure = drawn_by("mlp", places, figures, count=20)
    assert [(panel[1], panel[3]) for panel in shown(figure)] == [([], 24), ([], 20)]


@pytest.mark.parametrize("class_", [None, "red"])
def test_ways_between_noises_begin_and_end_at_samples_and_keep_their_length(places, figures, class_):
    places = {"mlp": places["dcgan"]}
    how = {"conditional": True, "interpolate": 2, "seed": 3, "class_": class_}
    task, _, figure = drawn_by("mlp", places, figures, **how)
    rows = ["blue", "green"] if class_ is None else ["red", "red"]
    assert shown(figure) == [("from one noise to another", [], rows, 24)]
    z = task.model.noise(4, generator=torch.Generator().manual_seed(3))
    labels = [task.source.classes.index(name) for name in rows]
    ends = task.model.eval().generate(z, torch.tensor([*labels, *labels])).detach()
    ways = between(task.model, 2, 12, torch.Generator().manual_seed(3), labels=torch.tensor(labels))
    agree(ways[[0, 12, 11, 23]], ends)
    found = []
    task.model.generate = lambda noise, labels: (found.append(noise), torch.zeros(len(noise), 1))[1]
    between(task.model, 1, 9, torch.Generator().manual_seed(3))
    lengths = found[0].norm(dim=1)
    assert lengths.min() > 0.9 * min(lengths[0], lengths[-1])


def test_series_stand_beside_the_data_in_its_units(places, figures):
    _, content, figure = drawn_by("series", places, figures, count=3)
    real, drawn = figure.axes[0], figure.axes[1]
    assert real.get_title(loc="left") == "the data: series.npy"
    assert drawn.get_title(loc="left") == "drawn" and figure.axes[4].get_xlabel() == "step"
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["0", "1", "2"]
    values = np.load(places["series"])
    first = [line.get_ydata() for line in real.lines]
    assert len(first) == 6 and np.allclose(first[0], values[:5, 0]) and np.allclose(first[-1], values[-5:, 0])
    kept = np.load(io.BytesIO(content[".npy"]))
    assert np.allclose([line.get_ydata() for line in drawn.lines], kept[:, :, 0])


@pytest.mark.parametrize(
    ("name", "features", "step", "units"),
    [
        ("prices", ("open", "volume"), "trading day", {"open": "US$", "volume": "shares"}),
        ("watch", ("ax", "wx"), "tenth of a second", {"ax": "g", "wx": "rad/s"}),
        ("sines", ("sine 0",), "step", {}),
        ("tones", ("pressure",), "sample", {"pressure": "of full scale"}),
        ("a/b.wav", ("0", "1"), "sample", {"0": "of full scale", "1": "of full scale"}),
        ("a.FLAC", ("0",), "sample", {"0": "of full scale"}),
        ("a.csv", ("x",), "step", {}),
    ],
)
def test_units_are_told_where_they_are_known(name, features, step, units):
    found = units_of(name, features)
    assert found.step == step and {f: found.features[f] for f in features if f in found.features} == units


@pytest.mark.parametrize("kind", ["series", "text"])
def test_only_images_have_ways_between_noises(places, kind):
    task = GanTask.from_options(sections(kind, places), None)
    with pytest.raises(ValueError, match=f"interpolate: it is for images, and this run's model makes {kind}"):
        task.sample(task.sampling(interpolate=2))


def test_without_matplotlib_a_run_is_refused_in_one_line_before_it_begins(
    tmp_path, places, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert train("mlp", places, tmp_path / "run", "--steps", 1) == 2
    err = capsys.readouterr().err
    assert "matplotlib is needed for this: pip install matplotlib" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("kind", "name"), [("dcgan", "examples.npz"), ("series", "examples.npy")])
def test_a_run_that_has_kept_none_of_the_data_is_drawn_without(tmp_path, places, figures, kind, name):
    folder = tmp_path / "run"
    assert train(kind, places, folder, "--steps", 1) == 0
    (folder / name).unlink()
    assert main(["sample", str(folder), "--out", str(tmp_path / "a.png")]) == 0
    assert [panel[0] for panel in shown(figures[-1]) if panel[0]] == ["drawn"]
    (folder / name).write_bytes(b"torn")
    assert main(["sample", str(folder)]) == 2


@pytest.mark.parametrize(
    ("more", "features", "count"),
    [
        ((), ("2019", "2020"), 9),
        (("--header", "no"), ("0", "2"), 10),
        (("--delimiter", "tab", "--decimal", "."), ("2019", "2020"), 9),
    ],
)
def test_a_table_is_read_as_it_is_found_or_as_it_is_told(tmp_path, capsys, more, features, count):
    pytest.importorskip("pandas")
    rows = [("2019", "day", "2020"), *((str(i / 8), "Monday", str(i * i + 0.5)) for i in range(12))]
    (tmp_path / "a.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    folder = tmp_path / "run"
    flags = ["--arch", "recurrent", "--data", str(tmp_path / "a.tsv"), *SMALL["series"], *QUIET, *more]
    assert main(["train", "gan", *flags, "--length", "4", "--steps", "1", "--folder", str(folder)]) == 0
    kept = json.loads((folder / "data.json").read_text())
    assert tuple(kept["features"]) == features
    task = GanTask.from_options(Run.open(folder).sections, None)
    assert len(task.source) == count and task.notes[0] == "columns are parted by tabs"
    out = capsys.readouterr().out
    assert "data      columns are parted by tabs" in out
    assert "left out  " in out and "column" in out.partition("left out")[2]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "WAV", "flac", "ogg", "aiff"])
def test_sequences_are_known_by_their_suffix(tmp_path, places, capsys, suffix):
    assert train("mlp", places, tmp_path / "run", "--data", f"a.{suffix}") == 2
    assert f"--data: a.{suffix} has sequences, which --arch recurrent takes" in capsys.readouterr().err


def test_penalties_are_approximate_where_a_deviation_is_given(places):
    given = {"r1": 0.2, "r2": 0.2, "approximate_r1": 0.1}
    rules = GanTask.from_options(sections("series", places, **given, approximate_r2=0.0), None).rules
    assert (rules.approximate_r1, rules.approximate_r2) == (0.1, None)
    assert GanTask.from_options(sections("series", places), None).rules.approximate_r1 is None


def test_the_form_of_series_is_fitted_to_some_windows_and_kept_for_the_run(
    tmp_path, places, monkeypatch, capsys
):
    from fusegen.data import read_series
    from fusegen.train.tasks.gan import series

    seen, own = [], Innovations.fit.__func__
    fit = classmethod(
        lambda cls, values, *a, **m: (seen.append(values.clone()), own(cls, values, *a, **m))[1]
    )
    monkeypatch.setattr(Innovations, "fit", fit)
    monkeypatch.setattr(series, "FITTED", 40)
    assert train("series", places, tmp_path / "run", "--steps", "2") == 0
    out = capsys.readouterr().out
    steps = Run.open(tmp_path / "run").sections["data"].length
    assert out.startswith(f"run       {tmp_path / 'run'}\n")
    assert f"data      {61 - steps} windows of {steps} steps\n" in out
    every = read_series(places["series"], steps, 1).values
    (fitted,) = seen
    assert torch.equal(fitted, every[:, torch.linspace(0, 60 - steps, 40, dtype=torch.float64).long()])
    monkeypatch.setattr(series, "FITTED", 50)  # what was fitted is not fitted anew, to other windows
    assert main(["resume", str(tmp_path / "run"), "--steps", "4"]) == 0 and len(seen) == 1


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
        ("mlp", ["--data", "{tmp}/nowhere"], "--data: cannot read {tmp}/nowhere"),
        ("mlp", ["--data", "prices"], "--data: prices has sequences, which --arch recurrent takes"),
        ("mlp", ["--data", "{tmp}/nan.npy"], "nan.npy: expected real numbers from 0 to 1, got nan to nan"),
        ("series", ["--length", "5000"], "--length: expected at most 60, the rows of {data}, got 5000"),
        ("series", ["--length", "59"], "of the 60 rows of {data} are 2, and a step reads 4 (--batch)"),
        ("text", ["--length", "171"], "of the 173 characters to learn from of {data} are 3, and"),
        ("mlp", ["--batch", "25"], "--batch: expected at most 24, the number of samples, got 25"),
        ("mlp", ["--accumulate", "3"], "--batch: expected a multiple of 3 (processes x accumulate), got 4"),
        ("mlp", ["--conditional"], "--conditional: {data} has no classes"),
        ("mlp", ["--widths", "8,x"], "--widths: expected numbers of units with commas between"),
        ("mlp", ["--channels", "2"], "--channels: expected 1 or 3, got 2"),
        ("mlp", ["--loss", "wgan"], None),
        ("mlp", ["--r1", "-1"], "--r1: expected a number at least 0, got -1.0"),
        ("mlp", ["--label-smoothing", "0.1", "--loss", "hinge"], "--label-smoothing: only non_saturating"),
        ("mlp", ["--features", "no.such:thing"], "--features: cannot import 'no.such:thing'"),
        ("mlp", ["--augment", "colour"], "--augment: expected some of color, translation, cutout, each once"),
        ("mlp", ["--augment", ""], "--augment: expected some of color, translation, cutout"),
        ("series", ["--augment", "color"], "--augment: it changes images, and {data} has series"),
        ("text", ["--augment", "color"], "--augment: it changes images, and {data} has text"),
        ("series", ["--data", "{tmp}/waves"], "got 1 at 8000 Hz in {tmp}/waves/a.wav and 1 at 16000 Hz in"),
        ("dcgan", ["--size", "30"], "--size: expected one of 28, 32, 64, got 30"),
        ("series", ["--data", "digits"], "--data: digits are images"),
        ("series", ["--data", "{tmp}/nan.npy"], "nan.npy holds NaN or infinity, first at [0]"),
        ("series", ["--data", "{tmp}/no.wav"], "--data: cannot read {tmp}/no.wav"),
        ("series", ["--data", "sines", "--stride", "2"], "--stride: sines are drawn one by one"),
        ("series", ["--no-innovations"], "--levels: only innovations add up to something"),
        ("series", ["--no-innovations", "--no-whiten"], "--residual: noise of deviation 1"),
        ("series", ["--approximate-r1", "-1"], "--approximate-r1: expected a number at least 0, got -1.0"),
        ("series", ["--header", "no"], "--header: expected a table (.csv, .tsv) to read with it, got {data}"),
        (
            "mlp",
            ["--delimiter", ";"],
            "--delimiter: expected a table (.csv, .tsv) to read with it, got {data}",
        ),
        ("text", ["--decimal", ","], "--decimal: expected a table (.csv, .tsv) to read with it, got {data}"),
        ("series", ["--data", "prices", "--decimal", ","], "--decimal: expected a table (.csv, .tsv)"),
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
        (["--interpolate", "-1"], "--interpolate: expected an integer at least 0"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(tmp_path, places, capsys, arguments, words):
    folder = tmp_path / "run"
    assert train("mlp", places, folder, "--steps", 1) == 0
    capsys.readouterr()
    assert main(["sample", str(folder), *arguments]) == 2
    assert words in capsys.readouterr().err


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


def test_presets_name_options_that_there_are():
    for preset in PRESETS.values():
        for section, values in preset.items():
            made = vars(config.classes(find_task("gan"))[section](**values))
            assert {name: made[name] for name in values} == values


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


# ---- parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 1, 4, 9, 2, 9])])
def test_whitening_is_inverted_and_makes_features_alike(lengths):
    random = torch.Generator().manual_seed(0)
    steps = torch.randn(9, 6, 2, generator=random, dtype=torch.float64)
    wandering = 0.05 * steps[..., :1].cumsum(0) + 3 * torch.randn(1, 6, 1, generator=random)
    x = torch.cat((wandering + 1, wandering + 0.01 * steps[..., 1:], torch.ones(9, 6, 1)), 2)
    whitening = Whitening.fit(x, lengths)
    y = whitening(x, lengths)
    inside = torch.ones(9, 6, dtype=bool) if lengths is None else torch.arange(9)[:, None] < lengths
    assert whitening.wanders.tolist() == [True, False] and (y[~inside] == 0).all()  # the third is constant
    assert len(whitening) == 2 == y.shape[2]
    back = Whitening.from_json(json.loads(json.dumps(whitening.to_json()))).inverse(y, lengths)
    agree(back[inside], x[inside].float())
    assert (back[~inside] == 0).all()
    later = y[1:][inside[1:]].double()
    assert later[:, 0].std() == pytest.approx(1, abs=0.1) and y[..., 1][inside].std() == pytest.approx(
        1, abs=0.1
    )
    with pytest.raises(ValueError, match=r"values: expected shape \[T, N, F\]"):
        Whitening.fit(x[0])
    with pytest.raises(ValueError, match="values: expected some that differ"):
        Whitening.fit(x[..., 2:])


def test_images_are_fitted_to_size_and_channels():
    colour = Images("", torch.randint(0, 256, (2, 3, 20, 10), dtype=torch.uint8))
    assert fitted(colour, 8, 1).pixels.shape == (2, 1, 8, 8)
    assert torch.equal(fitted(colour, 10, 3).pixels, colour.pixels[:, :, 5:15])
    opaque = Images("", torch.cat((colour.pixels, colour.pixels[:, :1]), 1))
    assert torch.equal(fitted(opaque, 10, 3).pixels, fitted(colour, 10, 3).pixels)


def test_what_is_kept_of_the_data_is_enough_to_draw(tmp_path, places):
    from fusegen.train.tasks.gan.reading import read_source, revived

    for kind, cls in (("dcgan", Pictures), ("series", Sequences), ("text", Characters)):
        own = sections(kind, places)
        source = read_source(own["model"].arch, own["data"], "data", None)
        source.keep(tmp_path)
        again = revived(tmp_path, json.loads((tmp_path / "data.json").read_text()))
        assert type(source) is type(again) is cls and again.describe() == source.describe()
        torch.manual_seed(0)
        gan = source.model(own["model"])
        torch.manual_seed(0)
        assert equal(again.model(own["model"]).state_dict(), gan.state_dict())
        how = GanTask.sampling(count=3)
        assert source.drawn(gan, how) == again.drawn(gan, how)
    with pytest.raises(ValueError, match="does not describe data"):
        revived(tmp_path, {"kind": "smells"})


def test_innovations_are_learnt_and_kept(places, tmp_path):
    """With all that a series' GAN may have besides; whitened ones lie in older runs' folders."""
    own = sections("series", places)
    own["data"] = GanData(data=places["series"], batch=4, length=5, innovations=True)
    own["model"] = GanModel(
        arch="recurrent", noise=4, hidden=4, residual=True, bidirectional=True, levels=True
    )
    task = GanTask.from_options(own, None)
    (batch, _), rows = next(task.data(Shard())), next(Shuffled(len(task.source), 4, 0))[0]
    form = task.source.form
    assert isinstance(form, Innovations)
    assert torch.equal(batch["real"], form(task.source.series.values)[:, rows])
    assert not form.dither and not form.curved  # as before there were such
    assert task.model.noise_size == 4 + 2 * 3 and task.model.shared == 4
    task.source.keep(tmp_path)
    content = json.loads((tmp_path / "data.json").read_text())
    again = Sequences.revive(content, tmp_path)
    how = GanTask.sampling(count=3, length=9)
    assert again.drawn(task.model, how) == task.source.drawn(task.model, how)
    content |= {"whitening": Whitening.fit(task.source.series.values).to_json()}
    for later in ("innovations", "classes"):
        del content[later]
    assert isinstance(Sequences.revive(content, tmp_path).form, Whitening)


def test_a_runs_own_file_gives_options_that_came_later_their_old_values():
    task = find_task("gan")
    content = {"task": "gan", "model": {"arch": "recurrent"}}
    asked = config.from_json(task, content, "file")
    assert asked["model"].residual and asked["data"].innovations and asked["fit"].approximate_r1 == 0.1
    run = config.from_json(task, {**content, "id": "0"}, "file")
    assert not (run["model"].residual or run["data"].innovations) and run["fit"].approximate_r1 is None
    assert run["model"].cell == "lstm" and run["fit"].loss == "non_saturating"


def test_classes_of_recordings_are_learnt_and_asked_for(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    recordings = [random.standard_normal((9, 2)) for _ in range(2)]
    how = {"labels": [0, 1], "classes": ("up", "down")}
    read = lambda steps, stride: windows("a watch", recordings, steps, stride, **how)
    monkeypatch.setitem(READERS, "watch", read)
    folder, out = tmp_path / "run", tmp_path / "out.png"
    small = ["--arch", "recurrent", "--data", "watch", *SMALL["series"], *QUIET, "--steps", "2"]
    small += ["--warm-up", "1"]
    assert main(["train", "gan", *small, "--conditional", "--folder", str(folder)]) == 0
    assert main(["sample", str(folder), "--class", "down", "--count", "3", "--out", str(out)]) == 0
    one = np.load(out.with_suffix(".npy"))
    assert main(["sample", str(folder), "--class", "1", "--count", "3", "--out", str(out)]) == 0
    assert (np.load(out.with_suffix(".npy")) == one).all() and one.shape == (3, 5, 2)
    capsys.readouterr()
    assert main(["sample", str(folder), "--class", "left"]) == 2
    assert "--class: expected one of up, down, got 'left'" in capsys.readouterr().err


def test_the_generator_warms_up_by_likelihood_alone(tmp_path, places):
    for weight in (0.0, 0.5):
        folder = tmp_path / str(weight)
        more = ["--warm-up", 2, "--supervised", weight, "--steps", 4, "--moments", 0]
        assert train("series", places, folder, *more) == 0
        lines = [line for line in read_log(folder) if "generator loss" in line]
        alone = [line["generator loss"] == line.get("surprise") for line in lines]
        assert alone == [True, True, False, False]
        assert [("surprise" in line) for line in lines] == [True, True, weight > 0, weight > 0]


def test_judges_and_errors_are_measured_when_asked_for(tmp_path, places, capsys):
    folder = tmp_path / "run"
    assert train("series", places, folder, "--steps", 1) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--score-steps", "2", "--judges", "2"]) == 0
    measures = dict(line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines())
    for name in ("published judge", "wide judge"):
        for whose in ("", " of a Gaussian fit", " of the data"):
            for what in ("", ", deviation"):
                assert 0 <= float(measures[f"discriminative score ({name}){whose}{what}"]) <= 0.8
    assert {"marginal error", "cross-correlation error of a Gaussian fit"} <= measures.keys()
    assert not {"discriminative score", "marginal error of the data"} & measures.keys()
    assert main(["evaluate", str(folder), "--score-steps", "2", "--judges", "2", "--no-beside"]) == 0
    alone = dict(line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines())
    others = (" of a Gaussian fit", " of the data")
    assert alone == {name: x for name, x in measures.items() if not any(other in name for other in others)}


def test_series_without_whitening_stay_as_they_are(places):
    own = sections("series", places)
    own["data"] = GanData(data=places["series"], batch=4, length=5, whiten=False)
    task = GanTask.from_options(own, None)
    (batch, _), rows = next(task.data(Shard())), next(Shuffled(len(task.source), 4, 0))[0]
    assert torch.equal(batch["real"], task.source.series.values[:, rows])
    assert draw(task.model, 7, torch.Generator()).abs().max() <= 1


def test_how_a_table_was_read_is_said(tmp_path, capsys):
    table = tmp_path / "x.csv"
    rows = (f"2020-01-{day:02};{day % 7},5;{day * day}\n" for day in range(1, 29))
    table.write_text("day;a;b\n" + "".join(rows))
    options = ["--steps", "1", "--evaluations", "1", "--length", "4", "--hidden", "4", "--batch", "4"]
    assert main([
        "train", "gan", "--arch", "recurrent", "--data", str(table), "--folder", str(tmp_path / "run"),
        "--no-tensorboard", "--score-steps", "2", *options,
    ]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "data      columns are parted by ';'" in out and "data      a comma is the decimal mark" in out
    assert "left out" in out and "column 'day' holds no numbers: '2020-01-01' and the like" in out
