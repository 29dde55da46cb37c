"""What a GAN's run reads, learns of its data, keeps of them, draws beside them, and measures."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.data import Images, Innovations, Shuffled, Whitening, fitted, windows
from fusegen.train import GanTask
from fusegen.train.run import Run
from fusegen.train.tasks.gan.characters import Characters
from fusegen.train.tasks.gan.options import GanData, GanModel
from fusegen.train.tasks.gan.pictures import Pictures
from fusegen.train.tasks.gan.series import READERS, Sequences
from fusegen.train.tasks.gan.source import between, draw
from fusegen.train.tasks.gan.units import units_of
from fusegen.train.workers import Shard
from gan_runs import QUIET, SMALL, sections, train
from learning.gan import measures_in
from runs import equal
from tolerances import agree

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")


# ---- what is drawn ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("kind", "name"), [("dcgan", "examples.npz"), ("series", "examples.npy")])
def test_a_run_that_has_kept_none_of_the_data_is_drawn_without(tmp_path, places, figures, kind, name):
    folder = tmp_path / "run"
    assert train(kind, places, folder, "--steps", 1) == 0
    (folder / name).unlink()
    assert main(["sample", str(folder), "--out", str(tmp_path / "a.png")]) == 0
    assert [panel[0] for panel in shown(figures[-1]) if panel[0]] == ["drawn"]
    (folder / name).write_bytes(b"torn")
    assert main(["sample", str(folder)]) == 2


# ---- what is read -----------------------------------------------------------------------------------


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


# ---- what is learnt of it, kept and measured ------------------------------------------------------------


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


def test_judges_and_errors_are_measured_when_asked_for(tmp_path, places, capsys):
    folder = tmp_path / "run"
    assert train("series", places, folder, "--steps", 1) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--score-steps", "2", "--judges", "2"]) == 0
    measures = measures_in(capsys.readouterr().out)
    for name in ("published judge", "wide judge"):
        for whose in ("", " of a Gaussian fit", " of the data"):
            for what in ("", ", deviation"):
                assert 0 <= measures[f"discriminative score ({name}){whose}{what}"] <= 0.8
    assert {"marginal error", "cross-correlation error of a Gaussian fit"} <= measures.keys()
    assert not {"discriminative score", "marginal error of the data"} & measures.keys()
    assert main(["evaluate", str(folder), "--score-steps", "2", "--judges", "2", "--no-beside"]) == 0
    alone = measures_in(capsys.readouterr().out)
    others = (" of a Gaussian fit", " of the data")
    assert alone == {name: x for name, x in measures.items() if not any(other in name for other in others)}


def test_series_without_whitening_stay_as_they_are(places):
    own = sections("series", places)
    own["data"] = GanData(data=places["series"], batch=4, length=5, whiten=False)
    task = GanTask.from_options(own, None)
    (batch, _), rows = next(task.data(Shard())), next(Shuffled(len(task.source), 4, 0))[0]
    assert torch.equal(batch["real"], task.source.series.values[:, rows])
    assert draw(task.model, 7, torch.Generator()).abs().max() <= 1


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
