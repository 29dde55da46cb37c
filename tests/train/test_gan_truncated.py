"""`fusegen train gan --truncate K`: steps learn the beginnings of windows, all else has whole windows."""

import dataclasses
import wave

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.train import GanTask, config
from fusegen.train.learner import Learner
from fusegen.train.run import Run
from fusegen.train.tasks.gan.diversity import diversity_of
from fusegen.train.tasks.gan.moments import Moments
from fusegen.train.workers import Shard, Workers
from gan_runs import sections, train
from runs import equal, refusal

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

K, LENGTH = 3, 5
KINDS = ("series", "ragged", "text")


@pytest.fixture(scope="module")
def all_places(places, tmp_path_factory):
    """The data by kind, sounds of 2 to 7 steps among them."""
    folder, random = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for steps in (2, 3, 4, 5, 6, 7, 7, 7):
        with wave.open(str(folder / f"{steps}-{len(list(folder.iterdir()))}.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(random.integers(-9000, 9000, steps).astype("<i2").tobytes())
    return places | {"ragged": str(folder)}


def task_of(kind, places, truncate=K, **fit):
    torch.manual_seed(0)
    return GanTask.from_options(sections(kind, places, truncate=truncate, **fit), None)


def learner_of(task):
    setup = dataclasses.replace(config.defaults(GanTask, {})["run"], device="cpu", precision="float64")
    return Learner(task, task._fit, setup, Workers("cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_beginning_of_its_windows(kind, all_places):
    cut, whole = (iter_of(task_of(kind, all_places, k)) for k in (K, None))
    for _ in range(6):
        short, full = next(cut)[0], next(whole)[0]
        assert full["real"].shape[:2] == (LENGTH, 4) and torch.equal(short["real"], full["real"][:K])
        assert short.keys() == full.keys() and ("lengths" in full) == (kind == "ragged")
        for lengths, own in zip(short.get("lengths", ()), full.get("lengths", ()), strict=True):
            assert lengths == min(own, K)


def iter_of(task):
    return task.data(Shard(0, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_both_networks_see_no_more_than_that(kind, all_places):
    task, seen = task_of(kind, all_places), set()
    for network in (task.model.discriminator, task.model.generator):
        network.register_forward_pre_hook(lambda module, given: seen.add(len(given[0])))
    learner_of(task).advance()
    assert seen == {K}


@pytest.mark.parametrize("kind", KINDS)
def test_whole_windows_are_measured_and_drawn(kind, all_places, monkeypatch):
    task, drawn = task_of(kind, all_places), []
    sample = task.model.sample
    monkeypatch.setattr(task.model, "sample", lambda n, **how: (drawn.append(sample(n, **how)), drawn[-1])[1])
    task.evaluate()
    task.sample(task.sampling(count=4))
    assert "spread" in diversity_of(task.source, task.model)
    assert len(drawn) >= 3 and {len(each) for each in drawn} == {LENGTH}


@pytest.mark.parametrize("kind", ["series", "ragged"])
def test_moments_are_those_of_what_is_learnt(kind, all_places):
    task = task_of(kind, all_places, moments=1.0)
    every = task.source.batch(torch.arange(len(task.source)))
    values, lengths = every["real"][:K], every.get("lengths")
    lengths = None if lengths is None else lengths.clamp(max=K)
    known, fake = Moments(values, lengths), torch.randn_like(values)
    assert torch.equal(task._moments(fake, lengths), known(fake, lengths))


@pytest.mark.parametrize("kind", ["series", "text"])
def test_as_many_steps_as_a_window_has_are_as_none(kind, all_places):
    made = {}
    for truncate in (None, LENGTH, K):
        task = task_of(kind, all_places, truncate)
        learner = learner_of(task)
        losses = [{name: x.item() for name, x in learner.advance().items()} for _ in range(2)]
        made[truncate] = losses, {name: x.clone() for name, x in task.model.state_dict().items()}
    assert equal(made[None], made[LENGTH]) and not equal(made[None], made[K])


@pytest.mark.parametrize("kind", ["series", "text"])
def test_a_run_says_so_keeps_it_and_goes_on_with_it(kind, all_places, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(kind, all_places, folder, "--steps", 1, "--truncate", K) == 0
    assert "of each window the first 3 steps are learnt (--truncate)" in capsys.readouterr().out
    assert Run.open(folder).sections["fit"].truncate == K
    assert main(["resume", str(folder), "--steps", "2"]) == 0
    assert "the first 3 steps are learnt" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["series", "text"])
def test_more_steps_than_a_window_has_are_refused(kind, all_places, tmp_path, capsys):
    usual = ["train", "gan", "--arch", "recurrent", "--data", all_places[kind], "--folder", tmp_path / "run"]
    said = refusal(capsys, *usual, "--length", LENGTH, "--batch", 4, "--truncate", LENGTH + 1)
    assert "--truncate: expected at most 5, the steps of a window (--length), got 6" in said
    said = refusal(capsys, *usual, "--length", LENGTH, "--batch", 4, "--truncate", 1)
    assert "--truncate: expected" in said and "at least 2, got 1" in said
    assert not (tmp_path / "run").exists()


def test_images_have_no_steps(all_places):
    with pytest.raises(ValueError, match=r"^truncate: it is for series and text, and .* has images$"):
        task_of("mlp", all_places)
