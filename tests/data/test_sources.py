"""Every source of data: what is read is what was written, and what cannot be read is refused by name."""

import builtins
import gzip
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from fusegen.data import (
    Shuffled,
    Vocabulary,
    open_text,
    read_array,
    read_images,
    read_pairs,
    read_tokens,
    tokenize,
)
from fusegen.data.vocabulary import UNKNOWN, cut
from fusegen.train.workers import Shard
from hypothesis import given
from hypothesis import strategies as st

ENGLISH = "the cat sat on the mat. the dog, too; " * 20


@pytest.fixture
def absent(monkeypatch):
    """A function: these modules cannot be imported."""
    return lambda *names: [monkeypatch.setitem(sys.modules, name, None) for name in names]


def write_text(path, content=ENGLISH):
    path.write_text(content, encoding="utf-8")
    return str(path)


# Text


@given(st.text(), st.sampled_from(["character", "word"]))
def test_cutting_loses_nothing(text, kind):
    assert "".join(cut(text, kind)) == text


@given(st.text(min_size=1), st.sampled_from(["byte", "character", "word"]))
def test_what_is_encoded_is_decoded(text, kind):
    vocabulary = Vocabulary("byte") if kind == "byte" else Vocabulary.build(kind, cut(text, kind), 10**6)
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert vocabulary.count_characters(tokens) == len(text)
    assert int(tokens.max()) < len(vocabulary)


@pytest.mark.parametrize("kind", ["character", "word"])
def test_a_vocabulary_is_that_of_the_training_part_and_of_the_most_frequent(tmp_path, kind):
    path = write_text(tmp_path / "a.txt", ENGLISH * 5 + "ZZZ")
    text = tokenize(open_text(path, utf8=True), kind, 4)
    assert text.vocabulary.tokens[:2] == (UNKNOWN, " ") and len(text.vocabulary) == 5
    assert int(text.tokens[-1]) == text.vocabulary.unknown  # ZZZ stands in the held-out part alone
    assert ("the" if kind == "word" else "t") in text.vocabulary.tokens
    again = tokenize(open_text(path, utf8=True), kind, 1, text.vocabulary)
    assert torch.equal(again.tokens, text.tokens) and again.vocabulary is text.vocabulary


@pytest.mark.parametrize(
    "made", [Vocabulary("byte"), Vocabulary("ids", size=9), Vocabulary.build("word", ["é", "b"], 5)]
)
def test_a_vocabulary_is_saved_and_loaded(tmp_path, made):
    path = tmp_path / "vocabulary.json"
    path.write_text(made.to_json(), encoding="utf-8")
    assert Vocabulary.load(path) == made and len(Vocabulary.load(path)) == len(made)
    assert Vocabulary.load(path, "word" if made.kind == "word" else "byte") == made
    with pytest.raises(ValueError, match=r"vocabulary\.json does not fit: it is of kind"):
        Vocabulary.load(path, "character")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"kind": "runes"}',
        '{"kind": "word", "tokens": ["a"]}',
        '{"kind": "word", "tokens": 3}',
    ],
)
def test_what_is_no_vocabulary_is_refused(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"vocabulary\.json is not a vocabulary"):
        Vocabulary.load(path)


@pytest.mark.parametrize("folder", [False, True])
def test_text_that_is_not_utf8_is_refused_where_characters_are_asked_for(tmp_path, folder):
    (tmp_path / "a.txt").write_bytes("zwölf".encode("latin-1"))
    source = str(tmp_path if folder else tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"--data: .*a\.txt is not UTF-8: byte 2 is 0xf6"):
        open_text(source, "--data", utf8=True)
    assert len(open_text(source)) == 5


def test_pydocs_by_name():
    assert open_text("pydocs").name == "pydoc_data.topics"


# Arrays


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_memory_mapped_where_they_can_be(tmp_path, save, order):
    content = np.asarray(np.arange(24.0).reshape(2, 3, 4), order=order)
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, content)
    array = read_array(path)
    assert np.array_equal(array, content) and array.dtype == content.dtype
    assert isinstance(array, np.memmap) == (save is not np.savez_compressed)
    array[0, 0, 0] = 7.0  # a copy: the file stays
    assert np.array_equal(read_array(path), content)


def test_an_array_is_chosen_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.arange(4, dtype=np.uint8))
    assert len(read_array(tmp_path / "a.npz", "y")) == 4
    with pytest.raises(ValueError, match="has more than one array: x, y"):
        read_array(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="has no array 'z': x, y"):
        read_array(tmp_path / "a.npz", "z")


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.npy", lambda p: None, "cannot read .*: No such file"),
        ("a.npz", lambda p: None, "cannot read .*: No such file"),
        ("a.npy", lambda p: p.write_bytes(b""), "is not an array file"),
        ("a.npy", lambda p: p.write_bytes(b"text"), "is not an array file"),
        ("a.npz", lambda p: p.write_bytes(b"text"), "is not an array file"),
        ("a.npy", lambda p: np.save(p, np.array([{}], dtype=object)), "is not an array file"),
        ("a.npz", lambda p: np.savez(p, np.array([{}], dtype=object)), "is not an array file"),
        ("a.npy", lambda p: np.save(p, np.empty((0, 3))), r"is empty: its shape is \[0, 3\]"),
        ("a.npz", lambda p: np.savez(p, np.empty((0, 3))), r"is empty: its shape is \[0, 3\]"),
        (
            "a.npy",
            lambda p: (np.save(p, np.arange(99)), p.write_bytes(p.read_bytes()[:-9])),
            "not an array file",
        ),
    ],
)
def test_what_is_no_array_is_refused(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises((OSError, ValueError), match=f"^--data: .*{words}"):
        read_array(tmp_path / name, argument="--data")


@pytest.mark.parametrize(
    ("dtype", "size"), [("uint8", 256), ("uint16", 301), ("int64", 301), (">i4", 301), ("uint64", 301)]
)
def test_token_numbers(tmp_path, dtype, size):
    content = np.arange(1, 301) % 256 if dtype == "uint8" else np.arange(1, 301)
    np.save(tmp_path / "a.npy", content.astype(dtype))
    tokens, vocabulary = read_tokens(tmp_path / "a.npy")
    assert tokens.tolist() == content.tolist() and vocabulary == size
    text = open_text(str(tmp_path / "a.npy"))
    assert len(text.vocabulary) == size and text.vocabulary.decode(text.tokens[:3]) == "1 2 3"
    with pytest.raises(ValueError, match="holds token numbers"):
        tokenize(text, "word", 9)
    with pytest.raises(ValueError, match="this run's vocabulary ends at 99"):
        tokenize(text, "byte", 9, Vocabulary("ids", size=100))


@pytest.mark.parametrize("content", [np.zeros(3), np.zeros((2, 2), int), np.array([-1, 2])])
def test_what_are_no_token_numbers_is_refused(tmp_path, content):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=r"^--data: .*a\.npy: expected"):
        read_tokens(tmp_path / "a.npy", argument="--data")


# Pictures


def test_digits():
    pytest.importorskip("sklearn")
    digits = read_images("digits")
    assert digits.pixels.shape == (1797, 1, 8, 8) and digits.pixels.dtype == torch.uint8
    assert (
        int(digits.pixels.max()) == 255 and digits.labels.bincount().min() > 170 and len(digits.classes) == 10
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "RGBA", "P"])
def test_a_folder_of_images(tmp_path, mode):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    for number, name in enumerate(["cat/a.png", "cat/b.PNG", "dog/c.png", "dog/d.bmp"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with image.fromarray(pixels[number]) as picture:
            picture.convert(mode).save(tmp_path / name)
    (tmp_path / "dog/broken.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "dog/notes.txt").write_text("no")
    read = read_images(str(tmp_path))
    assert read.pixels.shape == (4, 1 if mode in ("L", "1") else 3, 5, 6)
    assert read.labels.tolist() == [0, 0, 1, 1] and read.classes == ("cat", "dog")
    assert len(read.skipped) == 1 and "broken.png is not an image" in read.skipped[0]
    if mode == "RGB":
        assert np.array_equal(read.pixels.permute(0, 2, 3, 1).numpy(), pixels)


def test_images_of_two_sizes_are_refused(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("L", (4, 4)).save(tmp_path / "a.png")
    image.new("L", (5, 4)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"--data: .*b\.png is 1x4x5 .*, and .*a\.png is 1x4x4"):
        read_images(str(tmp_path), "--data")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "a.png").write_bytes(b"no")])
def test_a_folder_without_images_is_refused(tmp_path, make):
    pytest.importorskip("PIL")
    make(tmp_path)
    with pytest.raises(ValueError, match=r"^--data: (there is )?no image in"):
        read_images(str(tmp_path), "--data")
    with pytest.raises(OSError, match=r"^--data: cannot read .*: No such file"):
        read_images(str(tmp_path / "nowhere"), "--data")


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_as_it_is_published(tmp_path, zipped, split):
    pixels = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    begin = "train" if split == "train" else "t10k"
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.array([7, 0, 9], np.uint8))):
        content = gzip.compress(idx(array)) if zipped else idx(array)
        (tmp_path / f"{begin}-{name}-ubyte{'.gz' * zipped}").write_bytes(content)
    read = read_images(str(tmp_path), split=split)
    assert np.array_equal(read.pixels[:, 0].numpy(), pixels) and read.labels.tolist() == [7, 0, 9]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx(np.zeros((2, 4, 4), np.uint8))[:-1], "is cut short"),
        (b"text", "is not an IDX file"),
        (b"", "is not an IDX file"),
        (gzip.compress(b"text")[:-4], "is not gzip, or is cut short"),
    ],
)
def test_a_damaged_mnist_is_refused(tmp_path, content, words):
    (tmp_path / f"train-images-idx3-ubyte{'.gz' * ('gzip' in words)}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^--data: .*train-images.*{words}"):
        read_images(str(tmp_path), "--data")


CIFAR = np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", ["10 bin", "10 pickled", "100 bin", "100 pickled"])
def test_cifar_as_it_is_published(tmp_path, kind, split):
    flat = CIFAR.reshape(4, -1)
    labels, coarse = [3, 1, 2, 0], [1, 1, 0, 0]
    ten = {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}[split]
    parts = np.array_split(np.arange(4), len(ten))
    if kind == "10 bin":
        for name, part in zip(ten, parts, strict=True):
            records = b"".join(bytes([labels[i]]) + flat[i].tobytes() for i in part)
            (tmp_path / f"{name}.bin").write_bytes(records)
        (tmp_path / "batches.meta.txt").write_text("a\nb\nc\nd\n")
    elif kind == "10 pickled":
        for name, part in zip(ten, parts, strict=True):
            held = {b"data": flat[part], b"labels": [labels[i] for i in part]}
            (tmp_path / name).write_bytes(pickle.dumps(held, protocol=2))
        (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b", b"c", b"d"]}))
    elif kind == "100 bin":
        records = b"".join(bytes([coarse[i], labels[i]]) + flat[i].tobytes() for i in range(4))
        (tmp_path / f"{split}.bin").write_bytes(records)
        (tmp_path / "fine_label_names.txt").write_text("a\nb\nc\nd\n")
    else:
        held = {b"data": flat, b"fine_labels": labels, b"coarse_labels": coarse}
        (tmp_path / split).write_bytes(pickle.dumps(held))
        (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"a", b"b", b"c", b"d"]}))
    read = read_images(str(tmp_path), split=split)
    assert np.array_equal(read.pixels.numpy(), CIFAR)
    assert read.labels.tolist() == labels and read.classes == ("a", "b", "c", "d")


class Trap:
    def __reduce__(self):
        return builtins.exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize(
    "content", [pickle.dumps(Trap()), b"", pickle.dumps({b"data": 3}), pickle.dumps([1])]
)
def test_a_pickle_that_is_no_cifar_is_refused_and_not_run(tmp_path, content):
    (tmp_path / "data_batch_1").write_bytes(content)
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": []}))
    with pytest.raises(ValueError, match=r"^--data: .*data_batch_1 is not a batch of CIFAR"):
        read_images(str(tmp_path), "--data")


def test_a_cifar_cut_short_is_refused(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3072))
    with pytest.raises(ValueError, match="is cut short: expected records of 3073 bytes, got 3072"):
        read_images(str(tmp_path))


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 3, 4, 4)])
def test_arrays_of_pictures(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "b.npz", x=pixels / 255)
    for name in ("a.npy", "b.npz"):
        read = read_images(str(tmp_path / name))
        assert read.pixels.dim() == 4 and np.array_equal(read.pixels.numpy().reshape(shape), pixels)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((3, 4)), "expected"),
        (np.full((2, 3, 3), 1.5), "from 0 to 1"),
        (np.zeros((2, 3, 3), int), "uint8"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path, content, words):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=rf"^--data: .*a\.npy: .*{words}"):
        read_images(str(tmp_path / "a.npy"), "--data")


# Parallel text


def catalogue(pairs):
    """A .mo file as gettext writes it."""
    pairs = sorted(pairs)
    at, tables, content = 28 + 16 * len(pairs), [[], []], b""
    for side in (0, 1):
        for pair in pairs:
            each = pair[side].encode()
            tables[side].append(struct.pack("<II", len(each), at + len(content)))
            content += each + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, at)
    return head + b"".join(tables[0]) + b"".join(tables[1]) + content


def test_two_files(tmp_path):
    a = write_text(tmp_path / "a.en", "one\n\ntwo\n")
    b = write_text(tmp_path / "b.de", "eins\nleer\nzwö\n")
    pairs = read_pairs(f"{a},{b}")
    assert pairs.sources == ("one", "two") and pairs.targets == ("eins", "zwö") and len(pairs.skipped) == 1


def test_tsv(tmp_path):
    pairs = read_pairs(write_text(tmp_path / "a.tsv", "one\teins\tmore\n\ntwo\tzwei\n"))
    assert pairs.sources == ("one", "two") and pairs.targets == ("eins", "zwei")


def test_catalogues(tmp_path):
    meta = ("", "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n")
    for language, pairs in {
        "de": [meta, ("one", "eins"), ("same", "same"), ("void", ""), ("menu\x04open", "öffnen")],
        "fr": [meta, ("one", "un"), ("%d cat\0%d cats", "%d chat\0%d chats")],
    }.items():
        folder = tmp_path / "app" / language / "LC_MESSAGES"
        folder.mkdir(parents=True)
        (folder / "a.mo").write_bytes(catalogue(pairs))
    german = read_pairs(f"mo:{tmp_path}:de")
    assert set(zip(german.sources, german.targets, strict=True)) == {("one", "eins"), ("open", "öffnen")}
    everything = read_pairs(f"mo:{tmp_path}")
    assert ("%d cat", "%d chat") in zip(everything.sources, everything.targets, strict=True)
    assert len(everything) == 4
    (tmp_path / "app/de/LC_MESSAGES/b.mo").write_bytes(b"no")
    assert "b.mo is not a catalogue" in read_pairs(f"mo:{tmp_path}").skipped[0]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{tmp}/a.txt", "expected reverse, FILE,FILE, a .tsv or mo:FOLDER"),
        ("{tmp}/a.txt,{tmp}/nowhere", "cannot read .*nowhere: No such file"),
        ("{tmp}/a.txt,{tmp}/two.txt", "do not match: .* has 1 lines, .* 2"),
        ("{tmp}/a.txt,{tmp}/latin.txt", "latin.txt is not UTF-8"),
        ("{tmp}/bad.tsv", "line 2 has no tab: 'two'"),
        ("mo:{tmp}/nowhere", "it is not a folder"),
        ("mo:{tmp}", "there is no .mo file"),
        ("mo:{tmp}/bad", "bad.mo is not a catalogue"),
    ],
)
def test_what_holds_no_pairs_is_refused(tmp_path, source, words):
    write_text(tmp_path / "a.txt", "one\n")
    write_text(tmp_path / "two.txt", "eins\nzwei\n")
    write_text(tmp_path / "bad.tsv", "one\teins\ntwo\n")
    (tmp_path / "latin.txt").write_bytes("fünf".encode("latin-1"))
    if "bad" in source and "mo:" in source:
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "bad.mo").write_bytes(b"no catalogue")
    with pytest.raises((OSError, ValueError), match=f"^--data: .*{words}"):
        read_pairs(source.format(tmp=tmp_path), "--data")


# datasets


def test_without_datasets_it_is_said(absent):
    absent("datasets")
    with pytest.raises(ValueError, match=r"^--data: hf:x needs the datasets library"):
        open_text("hf:x", "--data")


@pytest.mark.parametrize(("module", "source"), [("PIL", "folder"), ("sklearn", "digits")])
def test_without_an_extra_it_is_said(tmp_path, absent, module, source):
    absent(module, *(("sklearn.datasets",) if module == "sklearn" else ()))
    with pytest.raises(ValueError, match=r"^--data: .*pip install"):
        read_images(str(tmp_path) if source == "folder" else source, "--data")


@pytest.mark.slow
def test_files_through_datasets(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\n"}\n{"text": "two"}\n')
    text = open_text(f"hf:json:{path}")
    assert bytes(text.tokens.numpy()) == b"one\n\ntwo"
    with pytest.raises(ValueError, match=r"--data: hf:json:.* has no column 'words': text"):
        open_text(f"hf:json:{path}", "--data", column="words")
    with pytest.raises(ValueError, match="--data: cannot load hf:json"):
        open_text(f"hf:json:{tmp_path}/nowhere.jsonl", "--data")


# Batches


@given(count=st.integers(1, 60), batch=st.integers(1, 20), parts=st.integers(1, 4), steps=st.integers(0, 30))
def test_shuffled_parts_are_the_whole_and_go_on_where_they_were(count, batch, parts, steps):
    batch *= parts
    if count < batch:
        with pytest.raises(ValueError, match=f"^batch: expected at most {count}"):
            Shuffled(count, batch, 0)
        return
    whole = Shuffled(count, batch, 3)
    cut_up = [Shuffled(count, batch, 3, Shard(part, parts).of(batch)) for part in range(parts)]
    seen = []
    for _ in range(steps):
        seen.append(next(whole)[0])
        assert torch.equal(torch.cat([next(each)[0] for each in cut_up]), seen[-1])
    per_pass = count // batch
    for begin in range(0, steps - per_pass + 1, per_pass):
        once = torch.cat(seen[begin : begin + per_pass])
        assert once.unique().numel() == once.numel() == per_pass * batch
    again = Shuffled(count, batch, 3)
    again.load_state_dict(whole.state_dict())
    assert torch.equal(next(again)[0], next(whole)[0])
