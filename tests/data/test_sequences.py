"""Lines, sentences, ragged sequences, batches of about one length, words to reverse, published splits."""

import pytest
import torch
from fusegen.data import (
    Fetched,
    Ragged,
    Shuffled,
    has_test_split,
    lines,
    open_text,
    read_pairs,
    reversals,
    sentences,
)
from hypothesis import given
from hypothesis import strategies as st


def test_names_of_characters():
    names = lines(bytes(open_text("unicode").tokens.numpy()).decode())
    assert len(names) == len(set(names)) > 30_000
    assert {"latin small letter a", "zero width joiner"} <= set(names)
    assert not any(name.startswith("cjk unified") for name in names)


def test_lines_and_sentences():
    text = ' One line.\n\n  Is it? It is! "Yes",\nsaid he. (No.) e.g. this\n\n\nlast'
    assert lines(text) == ["One line.", 'Is it? It is! "Yes",', "said he. (No.) e.g. this", "last"]
    expected = ["One line.", "Is it?", "It is!", '"Yes", said he.', "(No.) e.g. this", "last"]
    assert sentences(text) == expected
    assert lines("\n \n") == sentences("\n \n") == []


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=8))
def test_ragged_sequences_come_back(rows):
    ragged = Ragged([torch.tensor(row, dtype=torch.int16) for row in rows])
    tokens, lengths = ragged.padded()
    assert tokens.shape == (max(1, *map(len, rows), 1), len(rows)) and tokens.dtype == torch.int64
    for b, row in enumerate(rows):
        assert tokens[: len(row), b].tolist() == row and not tokens[len(row) :, b].any()
    assert lengths.tolist() == list(map(len, rows)) and len(ragged) == len(rows)
    some = torch.tensor([len(rows) - 1, 0])
    again, _ = ragged.padded(some)
    assert again[: len(rows[0]), 1].tolist() == rows[0]


def test_batches_of_about_one_length_are_a_shuffle():
    lengths = torch.randint(0, 100, (1003,), generator=torch.Generator().manual_seed(0))
    order = Shuffled(1003, 10, 4, lengths=lengths)
    batches = [next(order)[0] for _ in range(200)]
    for part in (batches[:100], batches[100:]):
        assert len(set(torch.cat(part).tolist())) == 1000
    spread = [int(lengths[batch].max() - lengths[batch].min()) for batch in batches]
    assert sum(spread) / 200 < 5
    means = torch.tensor([lengths[batch].double().mean() for batch in batches[:100]])
    assert (means.diff() < 0).sum() > 30  # in no order
    # nor within a batch, which is dealt out to processes in parts
    sorted_up = sum(
        int((lengths[batch].diff() >= 0).all()) for batch in batches if lengths[batch].unique().numel() > 4
    )
    assert sorted_up == 0
    assert not torch.equal(batches[0], batches[100])


def test_parts_and_position_of_sorted_batches():
    lengths = torch.arange(40) % 7
    whole, part = Shuffled(40, 8, 1, lengths=lengths), Shuffled(40, 8, 1, slice(2, 4), lengths)
    for _ in range(7):
        assert torch.equal(next(whole)[0][2:4], next(part)[0])
    later = Shuffled(40, 8, 1, lengths=lengths)
    later.load_state_dict(whole.state_dict())
    assert torch.equal(next(later)[0], next(whole)[0])


def test_fetched_goes_on_where_it_was():
    make = lambda: Fetched(Shuffled(9, 3, 0), lambda index: index * 10)
    data = make()
    seen = [next(data)[0] for _ in range(5)]
    later = make()
    later.load_state_dict({"step": 4})
    batch, begins = next(later)
    assert torch.equal(batch, seen[4]) and begins is False and data.state_dict() == {"step": 5}


def test_reversals():
    pairs = reversals(500, 5, 20, seed=1)
    assert len(set(pairs.sources)) == 500 and pairs.sources == reversals(500, 5, 20, seed=1).sources
    assert all(
        a == b[::-1] and a.isalpha() and a.islower()
        for a, b in zip(pairs.sources, pairs.targets, strict=True)
    )
    assert {len(a) for a in pairs.sources} == set(range(5, 21))
    assert len(read_pairs("reverse")) == 50_000
    with pytest.raises(ValueError, match="count: expected at most 13, half of all words, got 14"):
        reversals(14, 1, 1)
    with pytest.raises(ValueError, match="longest: expected an integer at least 5, got 4"):
        reversals(1, 5, 4)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], False),
        (["t10k-images-idx3-ubyte.gz"], True),
        (["train-images-idx3-ubyte"], False),
        (["test_batch.bin"], True),
        (["test", "meta"], True),
        (["test"], False),
    ],
)
def test_published_test_splits_are_seen(tmp_path, files, expected):
    for name in files:
        (tmp_path / name).touch()
    assert has_test_split(str(tmp_path)) is expected
    assert not has_test_split("digits") and not has_test_split("hf:mnist")
