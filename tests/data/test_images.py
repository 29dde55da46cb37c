"""Images and series: what is read, how it is cut and scaled, and what is said of what cannot be."""

import wave

import numpy as np
import pytest
import torch
from fusegen.data import (
    Images,
    digits,
    eeg,
    photo_patches,
    read_images,
    read_series,
    share_prices,
    windows,
)
from tolerances import agree


def picture(path, value, size=(6, 8), mode="RGB"):
    """A picture of one value, width and height ``size``."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new(mode, size, value).save(path)
    return path


def saved(path, array):
    np.save(path, array)
    return path


# ---- images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32])
def test_digits(size):
    pytest.importorskip("sklearn")
    found = digits(size)
    assert found.pixels.shape == (1797, 1, size, size) and found.pixels.dtype == torch.uint8
    assert len(found) == 1797 and found.labels.bincount().min() >= 174 and len(found.classes) == 10
    x = found.samples(slice(0, 4))
    assert x.shape == (4, 1, size, size) and x.min() == -1 and x.max() == 1
    # the first is a 0 with an empty middle; the enlarged picture keeps the mean of 8 x 8 pixels in 0..16
    from sklearn.datasets import load_digits

    raw = load_digits().images[:4]
    assert torch.allclose(
        found.pixels[:4].float().mean((1, 2, 3)),
        torch.from_numpy(raw).float().mean((1, 2)) * 255 / 16,
        atol=4,
    )


def test_photo_patches_are_cut_from_the_photographs():
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    found = photo_patches(16, 40, seed=1)
    assert found.pixels.shape == (40, 3, 16, 16) and found.classes == ("china", "flower")
    assert found.labels.tolist() == [0] * 20 + [1] * 20
    assert torch.equal(found.pixels, photo_patches(16, 40, seed=1).pixels)
    assert not torch.equal(found.pixels, photo_patches(16, 40, seed=2).pixels)
    grey = photo_patches(16, 40, seed=1, channels=1).pixels
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert (grey[0, 0] - (found.pixels[0] * weights).sum(0)).abs().max() <= 0.51
    # neighbouring pixels agree, as in photographs
    x = found.samples()
    assert (x[..., 1:] - x[..., :-1]).abs().mean() < 0.4 * (x - x.mean()).abs().mean()


def test_samples_reach_both_ends():
    x = Images("x", torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)).samples()
    assert x.flatten().tolist() == [-1, 1]


# ---- series -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "features"), [(share_prices, 6), (eeg, 4)], ids=["share prices", "electroencephalogram"]
)
def test_sample_data_of_matplotlib(read, features):
    pytest.importorskip("matplotlib")
    found = read(10, 5)
    assert found.values.shape[0] == 10 and found.values.shape[2] == features == len(found.features)
    assert found.lengths is None and len(found) > 100
    assert found.values.min() == -1 and found.values.max() == 1
    # windows of stride 5 continue one another
    assert torch.equal(found.values[5:, 0], found.values[:5, 1])
    assert (found.values[1:] - found.values[:-1]).abs().mean() < found.values.std()


def test_share_prices_come_back_in_dollars():
    pytest.importorskip("matplotlib")
    found = share_prices()
    x = dict(zip(found.features, found.original(found.values).unbind(2), strict=True))
    assert 90 < x["close"].min() < 110 and 700 < x["close"].max() < 760
    assert (x["low"] <= x["high"] + 1e-3).all()


def test_windows_by_hand():
    found = windows("x", [np.arange(7.0)[:, None], np.array([[10.0], [3.0]])], 3, 2)
    # 0 1 2, 2 3 4, 4 5 6, and the short one; 0 and 10 become -1 and 1
    want = torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, 6], [10, 3, 5]]) / 5 - 1
    assert torch.allclose(found.values[..., 0].T, want) and found.lengths.tolist() == [3, 3, 3, 2]
    assert found.overlap == 1
    assert found.original(found.values)[0, :, 0].tolist() == pytest.approx([0, 2, 4, 10], abs=1e-5)
    constant = windows("x", [np.full((4, 1), 5.0)], 2, 2)
    assert (constant.values == 0).all() and (constant.original(constant.values) == 5).all()


def test_windows_longer_than_every_recording():
    """Not padded: a slip in the number would take all memory."""
    recordings = [np.arange(7.0)[:, None], np.arange(9.0)[:, None]]
    assert windows("x", recordings, 9, 1).lengths.tolist() == [7, 9]
    for steps in (10, 10**12):
        with pytest.raises(ValueError, match=f"steps: expected at most 9, as the longest .* got {steps}"):
            windows("x", recordings, steps, 1)


def test_a_range_beyond_float64():
    """Whose scale would be infinite, and every value drawn NaN."""
    values = np.array([[1.0, -1.2e308], [2.0, 0.9e308]])
    with pytest.raises(ValueError, match=r"recordings: .* finite range, got b from -1.2e\+308 to 9e\+307"):
        windows("x", [values], 2, 1, features=("a", "b"))
    found = windows("x", [values / 2], 2, 1)
    agree(found.original(found.values)[:, 0] / 1e308, torch.from_numpy(values / 2 / 1e308))


def test_a_split_shares_no_step():
    found = windows("x", [np.arange(40.0)[:, None]], 6, 2)
    train, test = found.split(0.25)
    seen, held = (set(part.original(part.values).flatten().round().tolist()) for part in (train, test))
    assert seen and held and not seen & held and len(test) == 4
    assert max(seen) < min(held) and len(train) + len(test) + found.overlap == len(found)


def test_arrays_of_series(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 8, 2))
    assert read_series(saved(tmp_path / "a.npy", x), 8).values.shape == (8, 3, 2)
    found = read_series(saved(tmp_path / "b.npy", x[0]), 4)
    assert found.values.shape == (4, 2, 2)
    agree(found.original(found.values)[:, 1].float(), torch.from_numpy(x[0, 4:]).float())
    assert read_series(saved(tmp_path / "c.npy", np.arange(9)), 3, 1).values.shape == (3, 7, 1)


def test_named_arrays_of_series(tmp_path):
    x, one, two = np.arange(24.0).reshape(12, 2), tmp_path / "one.npz", tmp_path / "two.npz"
    np.savez(one, x=x)
    np.savez(two, x=x, y=x[:6])
    assert torch.equal(read_series(one, 4).values, read_series(two, 4, column="x").values)
    assert read_series(two, 3, column="y").values.shape == (3, 2, 2)
    for path, column, words in (
        (two, None, r"^path: .*two.npz has more than one array: x, y"),
        (two, "z", r"^path: .*two.npz has no array 'z': x, y"),
        (saved(tmp_path / "a.npy", x), "x", r"^column: expected an .npz to read 'x' of, got .*a.npy"),
    ):
        with pytest.raises(ValueError, match=words):
            read_series(path, 3, column=column)


@pytest.mark.parametrize("name", ["photo.png", "photo.JPG", "photo.heic"])
def test_one_picture_is_told_to_be_put_into_a_folder(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    words = f"^--data: cannot read .*{name}: it is one picture; put pictures into a folder, and name that$"
    with pytest.raises(FileNotFoundError, match=words):
        read_images(tmp_path / name, "--data")


def test_a_table(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("# a comment\nday,open,close\nmon,1,2.5\ntue,2,3.5\nwed,3,4.5\n")
    found = read_series(path, 3)
    assert found.features == ("open", "close") and found.original(found.values)[:, 0, 1].tolist() == [
        2.5,
        3.5,
        4.5,
    ]
    path.write_text("1,2\n3,4\n")
    assert read_series(path, 2).features == ("0", "1")


def sound(path, values, width=2, channels=1, rate=8000):
    """Integers as a PCM file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        offset = 128 if width == 1 else 0
        file.writeframes(
            b"".join(int(v + offset).to_bytes(width, "little", signed=width > 1) for v in values)
        )
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sounds_of_every_width(tmp_path, width):
    full = 2 ** (8 * width - 1)
    found = read_series(sound(tmp_path / "x.wav", [0, full // 2, -full, -full // 4], width), 4)
    assert found.values[:, 0, 0].tolist() == [0, 0.5, -1, -0.25]


def test_a_folder_of_sounds_keeps_short_ones(tmp_path):
    (tmp_path / "in").mkdir()
    sound(tmp_path / "in" / "b.wav", [1, 2, 3, 4] * 2, channels=2)
    sound(tmp_path / "a.wav", [5, 6] * 2, channels=2)
    found = read_series(tmp_path, 3)
    assert found.values.shape == (3, 2, 2) and sorted(found.lengths.tolist()) == [2, 3]
    assert found.values[0].abs().sum() > 0 and found.values.abs().max() < 1e-3  # full scale, not their own
    sound(tmp_path / "c.wav", [1, 2])
    with pytest.raises(ValueError, match="one rate and number of channels"):
        read_series(tmp_path, 3)


# ---- bad input --------------------------------------------------------------------------------------


def wrote(name, content):
    def make(folder):
        path = folder / name
        path.write_bytes(content)
        return path

    return make


def array(name, value):
    return lambda folder: saved(folder / name, value)


NAN = np.full((2, 4, 4), np.nan)
BAD_SERIES = {
    "empty path": (lambda folder: "", {}, ValueError, "path: expected a path"),
    "missing": (lambda folder: folder / "no.npy", {}, FileNotFoundError, "path: cannot read"),
    "kind": (
        wrote("x.m4a", b"a"),
        {},
        ValueError,
        r"expected a file \(.npy, .npz, .csv, .tsv, .*or a folder of sound files, got .*x.m4a",
    ),
    "empty folder": (lambda folder: folder, {}, ValueError, "no sound files"),
    "no sound": (wrote("x.wav", b"RIFFno"), {}, ValueError, "x.wav is not a sound file"),
    "silence": (lambda folder: sound(folder / "x.wav", []), {}, ValueError, "holds no samples"),
    "rank": (array("x.npy", np.zeros((1, 2, 3, 4))), {}, ValueError, r"expected shape \[S\]"),
    "NaN": (array("x.npy", NAN), {}, ValueError, "NaN"),
    "no rows": (wrote("x.csv", b"a,b\n"), {}, ValueError, "names but no values"),
    "empty": (wrote("x.csv", b""), {}, ValueError, "is empty"),
    "words": (wrote("x.csv", b"a,b\nc,d\n"), {}, ValueError, "no column holds numbers"),
    "a gap": (wrote("x.csv", b"a,b\n1,2\n3,\n"), {}, ValueError, "column 'b', row 2 of values: .* got ''"),
    "ragged": (wrote("x.csv", b"1,2\n3\n"), {}, ValueError, "expected 2 columns, got 1 in row 2"),
    "bytes": (wrote("x.csv", b"\xff\xfe\x00"), {}, ValueError, "not a table"),
    "steps": (array("x.npy", np.zeros(9)), {"steps": 0}, ValueError, "steps"),
    "stride": (array("x.npy", np.zeros(9)), {"steps": 3, "stride": 0}, ValueError, "stride"),
}


@pytest.mark.parametrize(("make", "options", "error", "message"), BAD_SERIES.values(), ids=BAD_SERIES)
def test_bad_series_are_named(tmp_path, make, options, error, message):
    with pytest.raises(error, match=message):
        read_series(make(tmp_path), **options)


def test_a_split_with_nothing_left():
    with pytest.raises(ValueError, match="leave nothing to train on"):
        windows("x", [np.arange(8.0)[:, None]], 6, 1).split(0.5)


@pytest.mark.parametrize(
    ("call", "package", "module"),
    [
        (digits, "scikit-learn", "sklearn.datasets"),
        (photo_patches, "pillow", "PIL"),
        (share_prices, "matplotlib", "matplotlib"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, call, package, module):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
        call()


def test_missing_sample_data_are_named(monkeypatch, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="without its sample data"):
        eeg()
