"""Reading text, splitting it, cutting it into lanes."""

import os

import pytest
import torch
from fusegen.data import Lanes, Vocabulary, pydocs, read_text, split
from fusegen.data.text import IGNORED
from fusegen.data.vocabulary import BYTES
from hypothesis import given
from hypothesis import strategies as st


def content(text):
    return bytes(text.tokens.tolist())


def test_pydocs_is_english_text_and_the_same_each_time():
    text = pydocs()
    assert text.tokens.dtype == torch.uint8 and len(text) > 300_000
    assert content(text).count(b"import") > 50
    assert torch.equal(text.tokens, pydocs().tokens)


def test_a_file_is_read_byte_for_byte(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("zwölf\r\nlines \xff".encode("latin-1"))
    assert content(read_text(path)) == path.read_bytes()
    assert read_text(str(path)).name == str(path)


def test_a_folder_is_read_in_one_order_and_says_what_it_left_out(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.md").write_text("last\n")
    (tmp_path / "2.txt").write_text("second\n")
    (tmp_path / "1.txt").write_text("first\n\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00\x01")
    (tmp_path / "void.txt").write_text("")
    (tmp_path / ".hidden").write_text("no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("no")
    text = read_text(tmp_path)
    assert content(text) == b"first\n\nsecond\n\nlast"
    assert len(text.skipped) == 3
    assert any(".git is hidden" in line for line in text.skipped)
    assert any("picture.png" in line and "not text" in line for line in text.skipped)
    assert any("void.txt" in line and "empty" in line for line in text.skipped)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda p: None, FileNotFoundError, "No such file"),
        (lambda p: p.write_bytes(b""), ValueError, "empty"),
        (lambda p: p.write_bytes(b" \n\t"), ValueError, "empty"),
        (lambda p: p.write_bytes(b"ab\x00c"), ValueError, "byte 2 is NUL"),
        (
            lambda p: p.write_bytes("utf-16".encode("utf-16-le")),
            ValueError,
            "UTF-16 without a byte order mark",
        ),
        (lambda p: p.write_bytes(b"\xff\xfeodd"), ValueError, "begins as UTF-16.* does, and is not"),
        (lambda p: p.mkdir(), ValueError, "no files"),
        (lambda p: (p.mkdir(), (p / "x.bin").write_bytes(b"\0")), ValueError, "not text"),
        (lambda p: os.mkfifo(p), ValueError, "neither a file nor a folder"),
        (lambda p: p.symlink_to(p), OSError, "cannot read"),
    ],
    ids=[
        "missing",
        "empty",
        "blank",
        "binary",
        "utf16",
        "damaged-utf16",
        "empty-folder",
        "binary-folder",
        "pipe",
        "link-loop",
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, make, error, words):
    path = tmp_path / "input"
    make(path)
    with pytest.raises(error, match=words) as caught:
        read_text(path, argument="--text")
    assert str(caught.value).startswith("--text: ") and str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    words, path = "zwölf Töne\n", tmp_path / "notes.txt"
    mark = "\ufeff" if encoding.endswith("-be") else ""
    path.write_bytes((mark + words).encode(encoding))
    alone, below = read_text(path, utf8=True), read_text(tmp_path, utf8=True)
    assert bytes(alone.tokens.numpy()) == words.encode() and not below.skipped
    assert bytes(below.tokens.numpy()) == words.strip().encode()
    named = f"{path} is {encoding[:6].upper()}, and read as UTF-8"
    assert alone.notes == (() if encoding == "utf-8-sig" else (named,))


def test_a_folder_leaves_out_what_is_not_in_the_encoding_that_it_says(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfeodd")
    (tmp_path / "b.txt").write_text("plain")
    text = read_text(tmp_path)
    assert bytes(text.tokens.numpy()) == b"plain" and "begins as UTF-16" in text.skipped[0]


@pytest.mark.parametrize("suffix", [".txt", ".tsv"])
def test_pairs_are_read_in_utf_16(tmp_path, suffix):
    from fusegen.data import read_pairs

    if suffix == ".tsv":
        (tmp_path / "a.tsv").write_text("zwölf\ttwelve\n", encoding="utf-16")
        source = str(tmp_path / "a.tsv")
    else:
        for name, line in (("a", "zwölf"), ("b", "twelve")):
            (tmp_path / f"{name}.txt").write_text(f"{line}\n", encoding="utf-16")
        source = f"{tmp_path / 'a.txt'},{tmp_path / 'b.txt'}"
    pairs = read_pairs(source)
    assert (pairs.sources, pairs.targets) == (("zwölf",), ("twelve",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("folder", [False, True])
def test_no_permission_is_said(tmp_path, folder):
    path = tmp_path / "secret.txt"
    path.write_text("secret")
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"--text: cannot read .*secret\.txt: Permission denied"):
        read_text(tmp_path if folder else path, argument="--text")


@given(st.integers(0, 3000))
def test_split_keeps_everything_in_order(count):
    tokens = torch.arange(count)
    first, last = split(tokens)
    assert torch.equal(torch.cat([first, last]), tokens)
    assert last.numel() == round(count * 0.1)


@given(count=st.integers(2, 400), batch=st.integers(1, 9), chunk=st.integers(1, 17))
def test_measuring_lanes_predict_every_token_once_from_the_one_before(count, batch, chunk):
    lanes = Lanes(torch.arange(count), batch, chunk, drop_last=False)
    inputs = torch.cat([lanes[i][0] for i in range(len(lanes))])
    targets = torch.cat([lanes[i][1] for i in range(len(lanes))])
    real = targets != IGNORED
    assert torch.equal(targets[real].sort().values, torch.arange(1, count))
    assert torch.equal(inputs[real] + 1, targets[real])
    # A lane goes on where its row before ended, so a carried state fits.
    assert torch.equal(inputs[1:][real[1:]], targets[:-1][real[1:]])


@given(count=st.integers(2, 400), batch=st.integers(1, 9), chunk=st.integers(1, 17))
def test_training_lanes_are_whole_chunks_of_one_shape(count, batch, chunk):
    tokens = torch.arange(count)
    if count <= batch * chunk:
        with pytest.raises(ValueError, match=f"tokens: expected at least {batch * chunk + 1}, got {count}"):
            Lanes(tokens, batch, chunk, drop_last=True)
        return
    lanes = Lanes(tokens, batch, chunk, drop_last=True)
    for index in range(len(lanes)):
        inputs, targets = lanes[index]
        assert inputs.shape == targets.shape == (chunk, batch)
        assert torch.equal(inputs + 1, targets)
        if index:
            assert torch.equal(inputs[0], lanes[index - 1][1][-1])
    assert (count - 1) - len(lanes) * batch * chunk < batch * chunk  # less than one batch is left out


def test_bytes_become_tokens_only_in_the_batch():
    lanes = Lanes(torch.tensor(list(b"hello world"), dtype=torch.uint8), 2, 3, drop_last=True)
    inputs, targets = lanes[0]
    assert inputs.dtype == targets.dtype == torch.int64
    assert bytes(inputs[:, 0].tolist()) == b"hel" and bytes(targets[:, 0].tolist()) == b"ell"
    with pytest.raises(IndexError):
        lanes[len(lanes)]


# ---- pieces -------------------------------------------------------------------------------------------


@given(st.text(max_size=40))
def test_pieces_of_bytes_are_the_text_each_character_at_its_last_byte(text):
    tokens = BYTES.encode(text)
    pieces = BYTES.pieces(tokens)
    assert len(pieces) == len(tokens) and "".join(pieces) == text
    ends = [len(piece.encode()) for piece in pieces if piece]
    assert sum(ends) == len(tokens) and all(len(piece) < 2 for piece in pieces)


@given(st.binary(max_size=40))
def test_pieces_of_bytes_that_are_no_text_are_what_decode_gives(raw):
    tokens = torch.tensor(list(raw), dtype=torch.int64)
    pieces = BYTES.pieces(tokens)
    assert len(pieces) == len(raw) and "".join(pieces) == BYTES.decode(tokens)


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "pieces"),
    [
        (
            Vocabulary("word", ("\N{REPLACEMENT CHARACTER}", "a", " ", "cat")),
            [1, 2, 3, 0],
            ["a", " ", "cat", "�"],
        ),
        (Vocabulary("character", ("\N{REPLACEMENT CHARACTER}", "x")), [1, 0], ["x", "�"]),
        (Vocabulary("ids", size=30), [4, 17, 4], ["4", " 17", " 4"]),
        (BYTES, [], []),
    ],
    ids=["words", "characters", "numbers", "none"],
)
def test_pieces_of_other_tokens(vocabulary, tokens, pieces):
    given = torch.tensor(tokens, dtype=torch.int64)
    assert vocabulary.pieces(given) == pieces and "".join(pieces) == vocabulary.decode(given)
