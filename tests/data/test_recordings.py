"""Sines as published code draws them, and the watch's recordings that seglearn brings along."""

import sys

import numpy as np
import pytest
import torch
from fusegen.data import sines, tones, watch


def test_sines_are_of_frequencies_and_phases_up_to_a_tenth():
    found = sines(24, count=500)
    assert found.values.shape == (24, 500, 5) and found.lengths is None
    assert torch.equal(found.values, sines(24, count=500).values)
    assert not torch.equal(found.values, sines(24, count=500, seed=1).values)
    phase = found.values[0].double().asin()
    frequency = found.values[1].double().asin() - phase
    for drawn in (phase, frequency):
        assert drawn.min() > -1e-6 and drawn.max() < 0.1 + 1e-6
        assert drawn.mean().item() == pytest.approx(0.05, abs=0.002)
        assert drawn.std().item() == pytest.approx(0.1 / 12**0.5, abs=0.002)
    t = torch.arange(24, dtype=torch.float64)[:, None, None]
    assert (found.values - (frequency * t + phase).sin()).abs().max() < 1e-5
    # (sin + 1) / 2 in the units of the source
    assert torch.equal(found.original(found.values), (found.values.double() + 1) / 2)
    with pytest.raises(ValueError, match="count: expected an integer at least 1, got 0"):
        sines(count=0)


def test_tones_are_harmonics_of_one_pitch_that_die_away():
    found = tones(400, count=60)
    assert found.values.shape == (400, 60, 1) and found.lengths is None and found.values.abs().max() <= 1
    assert torch.equal(found.values, tones(400, count=60).values)
    assert not torch.equal(found.values, tones(400, count=60, seed=1).values)
    pitches = torch.arange(105, 445, 0.25, dtype=torch.float64)
    t, k = torch.arange(400.0, dtype=torch.float64)[:, None] / 4000, torch.arange(1.0, 5)
    angle = 2 * torch.pi * pitches[:, None, None] * t * k
    partials = torch.cat((angle.sin(), angle.cos()), 2) * (-t * k.repeat(2) / 0.02).exp()
    own = torch.linalg.qr(partials)[0]  # of each pitch, [400, 8]
    values = found.values[:, :12, 0].double()
    left = (1 - (own.mT @ values).square().sum(1) / values.square().sum(0)).min(0)
    assert left.values.max() < 1e-3  # all of each tone, at one pitch
    assert pitches[left.indices].log2().std() > 0.3
    loud = found.values.square().mean((1, 2)).sqrt()
    # exp(-t / 20 ms), the higher partials faster: from 20 to 40 ms it falls by e.
    ratio = (loud[150:170].mean() / loud[70:90].mean()).item()
    assert ratio == pytest.approx(np.exp(-1), rel=0.1)
    assert (found.low, found.high) == (-1, 1) and found.features == ("pressure",)
    with pytest.raises(ValueError, match="count: expected an integer at least 1, got 0"):
        tones(count=0)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A seglearn whose file holds two short recordings."""
    folder = tmp_path / "seglearn/data"
    folder.mkdir(parents=True)
    (tmp_path / "seglearn/__init__.py").write_text("raise ImportError('it is not to be imported')\n")
    recordings = [np.arange(6.0 * n).reshape(n, 6) for n in (52, 40)]
    content = {"X": recordings, "y": np.array([1, 0]), "y_labels": ["up", "down"], "X_labels": list("abcdef")}
    np.save(folder / "watch_dataset.npy", content, allow_pickle=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "seglearn", raising=False)
    return folder


def test_a_watchs_recordings_are_averaged_cut_and_have_classes(package):
    found = watch(4, 3)  # of 10 and 8 steps: windows at 0, 3, 6 and at 0, 3
    assert found.values.shape == (4, 5, 6) and found.classes == ("up", "down")
    assert found.labels.tolist() == [1, 1, 1, 0, 0] and found.features == tuple("abcdef")
    first = found.original(found.values)[0, 0]
    assert torch.allclose(first, torch.arange(6.0, dtype=torch.float64) + 12)  # the mean of rows 0 to 4
    train, test = watch(4, 4).split(0.4)
    assert train.labels is not None and len(test.labels) == len(test)


def test_a_missing_package_or_file_is_named(package, monkeypatch):
    (package / "watch_dataset.npy").unlink()
    with pytest.raises(FileNotFoundError, match="this seglearn was installed without its data"):
        watch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps seglearn"):
        watch()
