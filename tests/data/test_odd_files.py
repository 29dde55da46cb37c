"""Files as people have them: what would be read wrong without a word is read right, said, or refused."""

import gzip
import os

import numpy as np
import pytest
from fusegen.data import open_text, read_array, read_images, read_pairs, read_series, read_table, read_text


def written(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / name


TABLE = "name,wert\nzwölf,1\ndrei,2\n"


@pytest.mark.parametrize(
    ("content", "names", "values", "said"),
    [
        (",a\n0,1.5\n1,2.5\n", ("a",), [[1.5], [2.5]], "column 1 has no name, and counts the rows from 0"),
        (",a\n0,1.5\n2,2.5\n", ("column 1", "a"), [[0, 1.5], [2, 2.5]], ""),  # which counts nothing
        ("x,x\n1,2\n3,4\n", ("x", "x"), [[1, 2], [3, 4]], "several columns have one name: x"),
        ("sep=;\na;b\n1,5;2\n3;4\n", ("a", "b"), [[1.5, 2], [3, 4]], "columns are parted by ';'"),
        (TABLE.encode("utf-32"), ("wert",), [[1], [2]], "'zwölf' and the like"),
        (TABLE.encode("utf-16"), ("wert",), [[1], [2]], "'zwölf' and the like"),
        (gzip.compress(TABLE.encode()), ("wert",), [[1], [2]], "'zwölf' and the like"),
    ],
)
def test_tables_of_odd_kinds(tmp_path, content, names, values, said):
    pytest.importorskip("pandas")
    found = read_table(written(tmp_path, "t.csv", content))
    assert found.names == names and found.values.tolist() == values
    assert said in " ".join((*found.left_out, *found.notes))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TABLE.encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"PK\x03\x04" + bytes(40), "but a zip archive, or a document or workbook"),
        (gzip.compress(b"a,b\n1,2\n")[:-12], "is not gzip, or is cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 3\n", "a pointer of Git LFS"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, words):
    pytest.importorskip("pandas")
    with pytest.raises(ValueError, match=f"^path: .*{words}"):
        read_table(written(tmp_path, "t.csv", content))


def test_series_in_a_packed_table(tmp_path):
    pytest.importorskip("pandas")
    path = written(tmp_path, "t.csv.gz", gzip.compress(b"a,b\n1,2\n3,4\n"))
    assert read_series(path, 1).low.tolist() == [1, 2] and read_series(path, 1).features == ("a", "b")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%PDF-1.4\n1 0 obj\n", "a PDF document"),
        (gzip.compress(b"a text"), "a gzip archive"),
        (b"PK\x03\x04\x14\x00", "a zip archive"),
        (b"{\\rtf1 hello}", "a document in rich text"),
        (b"\x89PNG\r\n\x1a\n12", "a picture"),
        (b"ID3\x03\x00\x00", "a sound"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 3\n", "a pointer of Git LFS"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, kind):
    with pytest.raises(ValueError, match=f"^path: .* is not text, but {kind}"):
        read_text(written(tmp_path, "t.txt", content))
    written(tmp_path, "u.txt", "a text")
    assert [each for each in read_text(tmp_path).skipped if kind in each]


@pytest.mark.parametrize(
    "content", ["ID3 is what tags are called", "RIFF RAFF", "GIF89 pictures", "PAR1 and 2"]
)
def test_a_text_may_begin_with_the_letters_of_other_kinds(tmp_path, content):
    assert bytes(read_text(written(tmp_path, "t.txt", content)).tokens.numpy()) == content.encode()


def test_rows_without_text_are_counted(tmp_path):
    pytest.importorskip("datasets")
    path = written(tmp_path, "t.jsonl", '{"text": "a"}\n{"other": "b"}\n{"text": " "}\n')
    assert open_text(path).notes == ("2 of 3 rows have nothing in column 'text'",)
    with pytest.raises(ValueError, match=r"cannot load .*\.jsonl: it is empty"):
        open_text(written(tmp_path, "e.jsonl", ""))
    with pytest.raises(ValueError, match=r"cannot load .*\.jsonl: (?!An error occurred)"):
        open_text(written(tmp_path, "b.jsonl", '{"text": "a"}\n{"te'))


def test_pairs_with_a_space_after_the_comma(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "a.txt", "1\n2\n")
    written(tmp_path, "b.txt", "x\ny\n")
    assert read_pairs("a.txt, b.txt").targets == ("x", "y")


def test_arrays_that_are_none(tmp_path):
    np.savez(tmp_path / "e.npz")
    with pytest.raises(ValueError, match=r"e.npz has no arrays$"):
        read_array(tmp_path / "e.npz")
    with pytest.raises(ValueError, match=r"Python objects, which are not loaded") as caught:
        read_array(written(tmp_path, "t.npy", "hello"))
    assert "allow_pickle" not in str(caught.value)


def test_a_sound_that_is_cut_short_is_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for end in ("wav", "aiff"):
        path = tmp_path / f"a.{end}"
        soundfile.write(path, np.zeros(400), 8000)
        whole = path.read_bytes()
        assert read_series(path, 10).values.shape == (10, 40, 1)
        path.write_bytes(whole[:300])
        with pytest.raises(ValueError, match=r"is cut short: its header says .* bytes, and it has 300"):
            read_series(path, 10)
    streamed = tmp_path / "s.wav"
    soundfile.write(streamed, np.zeros(400), 8000)
    content = bytearray(streamed.read_bytes())
    content[4:8] = b"\xff" * 4  # as what writes into a pipe leaves it
    streamed.write_bytes(content)
    assert read_series(streamed, 10).values.shape == (10, 40, 1)


def test_sounds_of_more_kinds_and_those_that_are_not_read(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.w64", np.zeros(40), 8000)
    written(tmp_path, "b.m4a", "x")
    found = read_series(tmp_path, 10)
    assert found.values.shape == (10, 4, 1)
    assert found.skipped == (f"{tmp_path / 'b.m4a'} is a sound in a format that is not read",)


@pytest.fixture
def saved(tmp_path):
    image = pytest.importorskip("PIL.Image")

    def save(name, pixels, **how):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = pixels if hasattr(pixels, "save") else image.fromarray(np.asarray(pixels, np.uint8))
        made.save(path, **how)

    return save


def test_transparent_pictures_are_put_on_white(saved, tmp_path):
    shown = np.full((2, 2, 4), 10)
    shown[0, :, 3], shown[1, :, 3] = 0, 255
    saved("a.png", shown)
    found = read_images(tmp_path)
    assert found.pixels[0, 0].tolist() == [[255, 255], [10, 10]]
    assert found.notes == (f"1 pictures are transparent, and put on white: {tmp_path / 'a.png'}",)
    saved("a.png", np.dstack([np.full((2, 2, 3), 10), np.full((2, 2), 255)]))
    assert read_images(tmp_path).notes == () and read_images(tmp_path).pixels.max() == 10


def test_of_several_pictures_in_a_file_the_first_is_read(saved, tmp_path):
    from PIL import Image

    frames = [Image.new("L", (3, 2), grey) for grey in (0, 255)]
    saved("a.gif", frames[0], save_all=True, append_images=frames[1:])
    found = read_images(tmp_path)
    assert (
        found.pixels.max() == 0
        and "1 files hold several pictures, of which the first is read" in found.notes[0]
    )


def test_pictures_that_are_not_read_are_said(saved, tmp_path):
    saved("a.jfif", np.zeros((2, 2)), format="JPEG")
    written(tmp_path, "b.heic", "x")
    found = read_images(tmp_path)
    assert len(found) == 1 and found.skipped == (
        f"{tmp_path / 'b.heic'} is a picture in a format that is not read",
    )
    os.unlink(tmp_path / "a.jfif")
    with pytest.raises(
        ValueError, match=r"there is no image in .*heic is a picture in a format that is not read"
    ):
        read_images(tmp_path)


def test_parts_of_a_data_set_are_no_classes(saved, tmp_path):
    for name in ("train/cat/1.png", "Test/cat/2.png", "train/dog/3.png"):
        saved(name, np.zeros((2, 2)))
    found = read_images(tmp_path)
    assert found.labels is None and found.classes == () and "are parts of a data set" in found.skipped[-1]
    assert read_images(tmp_path / "train").classes == ("cat", "dog")
