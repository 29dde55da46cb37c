"""What below a folder is data, what is passed over, and what is said of it."""

import os

import numpy as np
import pytest
from fusegen.data import read_images, read_pairs, read_series, read_text
from fusegen.data.files.folders import files_below


def picture(path, value=0, size=(6, 5), mode="L", **options):
    Image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def words(path, content=b"words"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN"])
def test_litter_is_no_class_and_is_named(tmp_path, name):
    picture(tmp_path / "cat/a.png")
    picture(tmp_path / "dog/a.png")
    picture(tmp_path / name / "a.png")
    found = read_images(str(tmp_path))
    assert found.classes == ("cat", "dog") and found.labels.tolist() == [0, 1]
    assert len(found.skipped) == 1 and name in found.skipped[0]


def test_a_folder_of_which_nothing_can_be_read_is_no_class(tmp_path):
    picture(tmp_path / "cat/a.png")
    words(tmp_path / "broken/a.png", b"no picture")
    words(tmp_path / "notes/a.txt")
    found = read_images(str(tmp_path))
    assert found.classes == ("cat",) and found.labels.tolist() == [0] and "broken" in found.skipped[0]


def test_pictures_outside_of_the_classes_are_said(tmp_path):
    picture(tmp_path / "cat/a.png")
    picture(tmp_path / "b.png")
    found = read_images(str(tmp_path))
    assert found.labels is None and found.classes == () and "in no class" in found.skipped[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, orientation):
    Image = pytest.importorskip("PIL.Image")
    upright = np.arange(30, dtype=np.uint8).reshape(5, 6)
    # What a camera held that way stores (EXIF 2.32, 4.6.4 A, tag 274: where row 0 and column 0 of it lie).
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    picture(tmp_path / "b.png")
    assert read_images(str(tmp_path)).pixels[0, 0].tolist() == upright.tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_coloured_pictures_side_by_side(tmp_path, channels):
    picture(tmp_path / "a.png", (200, 100, 50), mode="RGB")
    picture(tmp_path / "b.png", 7)
    picture(tmp_path / "c.png", (9, 9, 9, 255), mode="RGBA")
    found = read_images(str(tmp_path), channels=channels).pixels[:, :, 0, 0].tolist()
    grey = (299 * 200 + 587 * 100 + 114 * 50) // 1000
    assert found == ([[200, 100, 50], [7] * 3, [9] * 3] if channels == 3 else [[grey], [7], [9]])
    with pytest.raises(ValueError, match=r"b.png is 1x5x6 .*a.png is 3x5x6; give channels, 1 or 3"):
        read_images(str(tmp_path))


@pytest.mark.parametrize("kind", ["images", "text", "sounds"])
def test_links_to_folders_are_followed(tmp_path, kind):
    there, folder = tmp_path / "there", tmp_path / "data"
    folder.mkdir()
    if kind == "images":
        picture(there / "a.png", 7)
    elif kind == "text":
        words(there / "a.txt")
    else:
        soundfile = pytest.importorskip("soundfile")
        there.mkdir()
        soundfile.write(there / "a.wav", np.zeros(8), 8000)
    os.symlink(there, folder / "link")
    os.symlink(folder, there / "back")
    os.symlink(tmp_path / "gone", folder / "nothing")
    found = {
        "images": lambda p: read_images(str(p)),
        "text": read_text,
        "sounds": lambda p: read_series(p, 4),
    }[kind](folder)
    if kind == "images":
        assert found.classes == ("link",) and len(found) == 1
    elif kind == "text":
        assert bytes(found.tokens.numpy()) == b"words"
    else:
        assert len(found) == 2
    assert [line for line in found.skipped if "leads back" in line and "link/back" in line]
    assert [line for line in found.skipped if "nothing is a link to nothing" in line]


def test_files_come_before_folders(tmp_path):
    for name in ("b/x", "b.txt", "a/y", ".hidden", "z"):
        words(tmp_path / name)
    found, skipped = files_below(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in found] == ["b.txt", "z", "a/y", "b/x"] and skipped == []


@pytest.mark.parametrize("folder", [False, True])
def test_a_byte_order_mark_is_no_text(tmp_path, folder):
    words(tmp_path / "in/a.txt", b"\xef\xbb\xbfwords")
    words(tmp_path / "in/b.txt", b"\xef\xbb\xbfmore")
    found = read_text(tmp_path / ("in" if folder else "in/a.txt"))
    assert bytes(found.tokens.numpy()) == (b"words\n\nmore" if folder else b"words")


@pytest.mark.parametrize("suffix", [".tsv", ".txt"])
def test_pairs_in_bytes_take_latin_1(tmp_path, suffix):
    if suffix == ".tsv":
        words(tmp_path / "a.tsv", "café\tKaffee\nthé\tTee".encode("latin-1"))
        source = f"{tmp_path}/a.tsv"
    else:
        words(tmp_path / "a.txt", "café\nthé".encode("latin-1"))
        words(tmp_path / "b.txt", b"Kaffee\nTee")
        source = f"{tmp_path}/a.txt,{tmp_path}/b.txt"
    found = read_pairs(source, utf8=False)
    assert found.sources == ("café", "thé") and found.targets == ("Kaffee", "Tee")
    assert len(found.skipped) == 1 and "read as Latin-1" in found.skipped[0]
    with pytest.raises(ValueError, match=r"is not UTF-8"):
        read_pairs(source)
