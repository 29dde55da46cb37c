"""Data that were read wrongly without a word: depths of pictures, separators in lines, what is left out."""

import numpy as np
import pytest
from fusegen.cli import main
from fusegen.data import read_images, read_pairs

GREYS = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
KEPT = [[0, 0, 1], [128, 255, 255]]


# ---- depths of pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_greys_of_16_bits_keep_their_upper_8(tmp_path, suffix):
    Image = pytest.importorskip("PIL.Image")
    Image.fromarray(GREYS).save(tmp_path / f"a{suffix}")
    assert read_images(str(tmp_path)).pixels[0, 0].tolist() == KEPT


def test_a_picture_of_real_numbers_is_left_out_by_name(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    Image.fromarray(np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"no image .* can be read: .*a\.tif .*real numbers"):
        read_images(str(tmp_path))
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "b.png")
    found = read_images(str(tmp_path))
    assert len(found) == 1 and "a.tif" in found.skipped[0]


def rows_of(tmp_path, column, labels=None, kind="image"):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("PIL.Image")
    held = datasets.Dataset.from_dict({"image": column, **({} if labels is None else {"label": labels})})
    if kind == "image":
        held = held.cast_column("image", datasets.Image())
    held.to_parquet(tmp_path / "a.parquet")
    return f"hf:parquet:{tmp_path / 'a.parquet'}"


@pytest.mark.parametrize(
    ("mode", "value", "kept"),
    [
        ("1", 1, [255]),  # was 1 of 255
        ("P", 1, [0, 0, 200]),  # was the number of the colour
        ("I;16", 65280, [255]),  # was 65280 modulo 256
        ("L", 7, [7]),
        ("RGBA", (1, 2, 3, 255), [1, 2, 3]),
    ],
)
def test_pictures_of_a_data_set_are_read_as_those_of_a_folder(tmp_path, mode, value, kept):
    Image = pytest.importorskip("PIL.Image")
    image = Image.new(mode, (3, 2), value)
    if mode == "P":
        image.putpalette([9, 9, 9, 0, 0, 200])
    image.save(tmp_path / "a.png")
    for source in (rows_of(tmp_path, [str(tmp_path / "a.png")] * 2), str(tmp_path)):
        assert read_images(source).pixels[0, :, 0, 0].tolist() == kept


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat", "dog"], "row|expected numbers of classes in 'label', got 'cat'"),
        ([0, None], "expected numbers of classes in 'label', got None"),
        ([0, -1], "expected labels of 0 or more, got -1"),
    ],
)
def test_labels_of_a_data_set_that_are_none_are_refused(tmp_path, labels, words):
    Image = pytest.importorskip("PIL.Image")
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=words):
        read_images(rows_of(tmp_path, [str(tmp_path / "a.png")] * 2, labels), "--data")


def test_hidden_labels_are_no_labels(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    assert read_images(rows_of(tmp_path, [str(tmp_path / "a.png")] * 2, [-1, -1])).labels is None


def test_a_column_without_pictures_is_refused(tmp_path):
    source = rows_of(tmp_path, ["a", "b"], kind="text")
    with pytest.raises(ValueError, match=r"--data: .*row 0: expected a picture in 'image', got"):
        read_images(source, "--data")


# ---- lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_line_feeds_alone_end_a_line_of_parallel_text(tmp_path, mark):
    (tmp_path / "a.txt").write_bytes(f"one{mark}1\ntwo\nthree\n".encode())
    (tmp_path / "b.txt").write_bytes(f"eins\nzwei\ndrei{mark}3\n".encode())
    found = read_pairs(f"{tmp_path}/a.txt,{tmp_path}/b.txt")
    assert found.sources == (f"one{mark}1", "two", "three")
    assert found.targets == ("eins", "zwei", f"drei{mark}3")
    (tmp_path / "a.tsv").write_bytes(f"one{mark}1\teins\ntwo\tzwei".encode())
    assert read_pairs(f"{tmp_path}/a.tsv").sources == (f"one{mark}1", "two")


def test_lines_may_end_as_on_windows_and_begin_with_a_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    (tmp_path / "b.txt").write_bytes(b"eins\nzwei")
    found = read_pairs(f"{tmp_path}/a.txt,{tmp_path}/b.txt")
    assert found.sources == ("one", "two") and found.targets == ("eins", "zwei")


# ---- what is left out is said ---------------------------------------------------------------------------


def test_images_that_cannot_be_read_are_named(tmp_path, capsys):
    Image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.new("L", (6, 5), i).save(tmp_path / f"images/{i}.png")
    torn = tmp_path / "images/3.png"
    torn.write_bytes(torn.read_bytes()[:40])
    small = ["--hidden", "8", "--latent", "2", "--batch", "4", "--importance", "2", "--no-tensorboard"]
    fit = ["--steps", "1", "--evaluations", "1", "--folder", str(tmp_path / "run")]
    assert main(["train", "vae", "--data", str(tmp_path / "images"), *small, *fit]) == 0
    assert f"left out  {torn} is not an image, or is damaged" in capsys.readouterr().out


def test_files_that_are_no_text_are_named(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a short story. " * 40)
    for i in range(5):
        (tmp_path / f"texts/{i}.bin").write_bytes(b"\0")
    small = ["--hidden", "8", "--embedding", "4", "--batch", "2", "--chunk", "4", "--no-tensorboard"]
    fit = ["--steps", "1", "--evaluations", "1", "--folder", str(tmp_path / "run")]
    assert main(["train", "text", "--data", str(tmp_path / "texts"), *small, *fit]) == 0
    out = capsys.readouterr().out
    assert out.count("left out  ") == 4 and "0.bin is not text" in out and "left out  and 2 more" in out
