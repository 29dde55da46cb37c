"""Images of several sizes are brought to one that is asked for, and that is said."""

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.data import read_images
from runs import refusal

Image = pytest.importorskip("PIL.Image")


def left_to_right(height, width):
    """Dark on the left, bright on the right."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))


@pytest.fixture
def mixed(tmp_path):
    for i, (height, width) in enumerate([(8, 8), (10, 30), (40, 20), (12, 12)] * 3):
        folder = tmp_path / "pictures" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(left_to_right(height, width)).save(folder / f"{i:02d}.png")
    return tmp_path / "pictures"


def test_the_shorter_side_is_resized_and_the_middle_kept(mixed):
    found = read_images(mixed, size=10)
    assert found.pixels.shape == (12, 1, 10, 10) and found.classes == ("a", "b")
    wide = torch.from_numpy(left_to_right(10, 30)[:, 10:20])
    order = [f"{i:02d}" for i in (*range(0, 12, 2), *range(1, 12, 2))]  # by class
    by_name = dict(zip(order, found.pixels, strict=True))
    assert torch.equal(by_name["01"][0], wide)  # 10 high: no resampling, the middle third
    tall = by_name["02"][0].float()
    assert (tall.diff(dim=1) > 0).all() and (tall[0] == tall[-1]).all()
    sizes = "images of 8 x 8 to 40 x 20 pixels (height x width)"
    assert found.notes == (f"{sizes} are brought to 10 x 10, of the longer side the middle",)


def test_without_a_size_mixed_ones_are_refused_with_the_way_out(mixed, tmp_path, capsys):
    with pytest.raises(ValueError, match="give a size, to which all are brought"):
        read_images(mixed)
    said = refusal(capsys, "train", "vae", "--data", mixed, "--folder", tmp_path / "run")
    assert "give a size, to which all are brought" in said
    with pytest.raises(ValueError, match=r"^size: expected an integer at least 1, got 0"):
        read_images(mixed, size=0)


def test_what_has_the_size_is_as_it_was_and_nothing_is_said(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    found = read_images(tmp_path / "x.npy", size=6)
    assert torch.equal(found.pixels, torch.from_numpy(pixels)) and found.notes == ()
    other = read_images(tmp_path / "x.npy", size=3)
    assert other.pixels.shape == (3, 3, 3, 3)
    assert other.notes == ("images of 6 x 6 pixels (height x width) are brought to 3 x 3",)


@pytest.mark.parametrize("task", ["vae", "gan"])
def test_a_run_on_mixed_sizes_says_so(mixed, tmp_path, capsys, task):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    small = {
        "vae": ["--latent", "2", "--hidden", "4", "--importance", "0", "--held-out", "0.3"],
        "gan": ["--noise", "2", "--widths", "4", "--critic-widths", "4", "--samples", "8"],
    }[task]
    how = ["--size", "9", "--batch", "4", "--steps", "1", "--evaluations", "1", "--no-tensorboard"]
    place = ["--data", str(mixed), "--folder", str(tmp_path / "run")]
    assert main(["train", task, *small, *how, *place]) == 0
    assert "data      images of 8 x 8 to 40 x 20 pixels" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "run"), "--steps", "2"]) == 0
