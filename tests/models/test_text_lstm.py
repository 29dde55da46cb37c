"""TextLSTM: shapes, state over chunks, tied weights, what it refuses, and generate()."""

import copy
import random

import fusegen
import numpy
import pytest
import torch
from fusegen.models import TextLSTM
from fusegen.models._sequences import draw
from hypothesis import given, settings
from hypothesis import strategies as st

CELLS = ("lstm", "gru", "rnn")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small(cell="lstm", **options):
    return TextLSTM(**{"embedding_size": 7, "hidden_size": 12, "cell": cell} | options)


def flat(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("cell", CELLS)
def test_shapes(cell):
    model = small(cell, vocab_size=40, num_layers=3)
    tokens = torch.randint(40, (5, 4))
    logits, state = model(tokens)
    assert logits.shape == (5, 4, 40) and logits.requires_grad
    assert isinstance(state, tuple) == (cell == "lstm")
    assert all(part.shape == (3, 4, 12) for part in flat(state))
    alone, state = model(tokens[:, 0].to(torch.uint8))
    assert alone.shape == (5, 40) and all(part.shape == (3, 12) for part in flat(state))
    torch.testing.assert_close(alone, logits[:, 0])


@pytest.mark.parametrize("cell", CELLS)
def test_state_carried_over_chunks_gives_what_one_long_chunk_gives(cell):
    model = small(cell, dtype=torch.float64)
    tokens = torch.randint(256, (20, 3))
    whole, end = model(tokens)
    parts, state = [], None
    for chunk in tokens.split(7):
        logits, state = model(chunk, model.detach(state))
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts), whole)
    for ours, expected in zip(flat(state), flat(end), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("cell", CELLS)
def test_detach_stops_the_gradient(cell):
    _, state = small(cell)(torch.randint(256, (4, 2)))
    assert all(part.requires_grad for part in flat(state))
    assert not any(part.requires_grad for part in flat(TextLSTM.detach(state)))
    assert TextLSTM.detach(None) is None


@pytest.mark.parametrize("cell", CELLS)
def test_same_as_torch_nn_loss_and_gradients(cell):
    model = small(cell)
    twin = fusegen.revert(copy.deepcopy(model))
    assert type(twin.rnn).__module__.startswith("torch.") and not type(model.rnn).__module__.startswith(
        "torch."
    )
    tokens, targets = torch.randint(256, (2, 9, 4))
    for each in (model, twin):
        each.loss(tokens, targets)[0].backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("embedding", "tie"), [(12, True), (7, True), (12, False), (7, False)])
def test_tied_softmax(embedding, tie):
    model = small(embedding_size=embedding, tie_weights=tie)
    assert (model.decoder.weight is model.embedding.weight) == tie
    assert (model.projection is not None) == (tie and embedding != 12)
    again = small(embedding_size=embedding, tie_weights=tie)
    again.load_state_dict(model.state_dict())
    tokens = torch.randint(256, (3, 2))
    assert torch.equal(again(tokens)[0], model(tokens)[0])
    # deepcopy keeps the tie
    twin = copy.deepcopy(model)
    assert (twin.decoder.weight is twin.embedding.weight) == tie


def test_loss_is_the_mean_cross_entropy_and_leaves_out_minus_100():
    model = small()
    tokens, targets = torch.randint(256, (2, 6, 2))
    chances = model(tokens)[0].log_softmax(-1)
    each = -chances.gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(model.loss(tokens, targets)[0], each.mean())
    targets[2:] = -100
    torch.testing.assert_close(model.loss(tokens, targets)[0], each[:2].mean())


def test_dropout_acts_in_training_only():
    model = small(dropout=0.5)
    tokens = torch.randint(256, (4, 2))
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_the_forget_gate_starts_open():
    model = small(hidden_size=50)
    for layer in range(2):
        bias = getattr(model.rnn, f"bias_ih_l{layer}").detach().chunk(4)
        assert bias[1].min() > 0.8 and all(abs(bias[i].mean()) < 0.2 for i in (0, 2, 3))


def test_compiles_as_one_graph():
    model = small()
    tokens = torch.randint(256, (5, 2))
    compiled = torch.compile(lambda t: model(t)[0], fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens), model(tokens)[0])


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"vocab_size": 0}, ValueError, "vocab_size"),
        ({"hidden_size": -1}, ValueError, "hidden_size"),
        ({"hidden_size": 1.5}, TypeError, "hidden_size"),
        ({"embedding_size": True}, TypeError, "embedding_size"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"cell": "LSTM"}, ValueError, "cell"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"dropout": float("nan")}, ValueError, "dropout"),
        ({"dropout": "0.1"}, TypeError, "dropout"),
        ({"tie_weights": 1}, TypeError, "tie_weights"),
    ],
)
def test_wrong_options(options, error, name):
    with pytest.raises(error, match=f"^{name}: expected"):
        small(**options)


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ([1, 2], TypeError),
        (torch.zeros(3, 2), TypeError),
        (torch.zeros(3, 2, dtype=torch.bool), TypeError),
        (torch.zeros(3, 2, 1, dtype=torch.long), ValueError),
        (torch.zeros((), dtype=torch.long), ValueError),
        (torch.zeros(0, 2, dtype=torch.long), ValueError),
        (torch.full((3, 2), 256), ValueError),
        (torch.full((3, 2), -1), ValueError),
    ],
)
def test_wrong_tokens(tokens, error):
    with pytest.raises(error, match=r"^tokens: expected"):
        small()(tokens)


def test_wrong_targets_and_state():
    model = small()
    tokens = torch.zeros(3, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"^targets: expected the shape of tokens"):
        model.loss(tokens, tokens[:2])
    with pytest.raises(RuntimeError):
        model(tokens, (torch.zeros(2, 5, 12), torch.zeros(2, 5, 12)))


def test_empty_batch():
    logits, _ = small()(torch.zeros(3, 0, dtype=torch.long))
    assert logits.shape == (3, 0, 256)


# generate()


@pytest.mark.parametrize("cell", CELLS)
def test_generate_gives_the_type_of_the_prompt(cell):
    model = small(cell)
    text, content, tokens = (
        model.generate(p, 30, seed=1) for p in ("hello", b"hello", torch.tensor(list(b"hello")))
    )
    assert isinstance(text, str) and isinstance(content, bytes)
    assert len(content) == 30 and content.decode("utf-8", errors="replace") == text
    assert tokens.dtype == torch.int64 and bytes(tokens.tolist()) == content
    assert model.generate("hello", 0) == ""


@pytest.mark.parametrize("cell", CELLS)
def test_greedy_generation_is_the_argmax_of_the_whole_sequence(cell):
    model = small(cell, dtype=torch.float64)
    prompt = b"ab"
    drawn = model.generate(prompt, 12, temperature=0)
    logits, _ = model(torch.tensor(list(prompt + drawn))[:-1])
    assert bytes(logits[1:].argmax(-1).tolist()) == drawn
    assert model.generate(prompt, 12, top_k=1, seed=5) == drawn
    assert model.generate(prompt, 12, top_p=1e-9, seed=6) == drawn
    assert model.generate(prompt, 12, temperature=1e-300, seed=7) == drawn


def test_generate_depends_on_its_seed_alone():
    model = small()
    first = model.generate(b"x", 50, seed=3)
    torch.manual_seed(99)
    random.seed(99)
    numpy.random.seed(99)  # noqa: NPY002  (the global state is what is meant)
    before = torch.get_rng_state()
    assert model.generate(b"x", 50, seed=3) == first
    assert model.generate(b"x", 50, seed=4) != first
    assert model.generate(b"x", 50) != model.generate(b"x", 50)  # a fresh seed each
    assert torch.equal(torch.get_rng_state(), before)


def test_what_generate_returns_can_be_trained_on():
    model = small()
    tokens = model.generate(torch.tensor([1]), 6, seed=0)
    model.loss(tokens[:-1], tokens[1:])[0].backward()
    assert model.embedding.weight.grad.abs().sum() > 0


def test_generate_restores_every_training_flag():
    model = small(dropout=0.3)
    model.rnn.eval()
    model.generate(b"x", 3, seed=0)
    assert model.training and model.embedding.training and not model.rnn.training
    with pytest.raises(RuntimeError, match="not finite"), torch.no_grad():
        model.decoder.bias.fill_(float("nan"))
        model.generate(b"x", 3, seed=0)
    assert model.training and model.embedding.training and not model.rnn.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"prompt": ""}, ValueError, "prompt"),
        ({"prompt": b""}, ValueError, "prompt"),
        ({"prompt": 7}, TypeError, "prompt"),
        ({"prompt": torch.zeros(2, 2, dtype=torch.long)}, ValueError, "prompt"),
        ({"prompt": torch.zeros(0, dtype=torch.long)}, ValueError, "prompt"),
        ({"prompt": torch.zeros(2)}, TypeError, "prompt"),
        ({"prompt": torch.tensor([256])}, ValueError, "prompt"),
        ({"n": -1}, ValueError, "n"),
        ({"n": 1.0}, TypeError, "n"),
        ({"temperature": -0.1}, ValueError, "temperature"),
        ({"temperature": float("inf")}, ValueError, "temperature"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"top_k": 257}, ValueError, "top_k"),
        ({"top_p": 0.0}, ValueError, "top_p"),
        ({"top_p": 1.5}, ValueError, "top_p"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "a"}, TypeError, "seed"),
    ],
)
def test_generate_refuses_by_name(arguments, error, name):
    with pytest.raises(error, match=f"^{name}: expected"):
        small().generate(**{"prompt": "x", "n": 2} | arguments)


def test_text_needs_a_vocabulary_of_bytes():
    model = small(vocab_size=10)
    with pytest.raises(ValueError, match=r"^prompt: text needs"):
        model.generate("x", 2)
    assert model.generate(torch.tensor([3]), 4, seed=0).max() < 10


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12).map(torch.tensor),
    temperature=st.floats(1e-3, 1e3),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.none() | st.floats(1e-6, 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_draw_stays_within_what_top_k_and_top_p_allow(logits, temperature, top_k, top_p, seed):
    size = logits.numel()
    top_k = None if top_k is None else min(top_k, size)
    token = int(draw(logits, temperature, top_k, top_p, torch.Generator().manual_seed(seed)))
    assert 0 <= token < size
    above = logits > logits[token]
    if top_k is not None:
        assert above.sum() < top_k
    if top_p is not None:
        chances = (logits.double() / temperature).softmax(0)
        assert chances[above].sum() < top_p + 1e-4  # what is surely taken before it has not reached p


def test_draw_follows_the_distribution():
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    generator = torch.Generator().manual_seed(0)

    def frequencies(**options):
        options = {"temperature": 1.0, "top_k": None, "top_p": None} | options
        drawn = [int(draw(chances.log(), generator=generator, **options)) for _ in range(4000)]
        return torch.bincount(torch.tensor(drawn), minlength=4) / 4000

    # 0.03: four standard deviations of a frequency over 4,000 draws
    torch.testing.assert_close(frequencies(), chances, atol=0.03, rtol=0)
    torch.testing.assert_close(frequencies(top_k=2), torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    torch.testing.assert_close(frequencies(top_p=0.79), torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    squared = chances.square() / chances.square().sum()
    torch.testing.assert_close(frequencies(temperature=0.5), squared, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0, None, None), (1, 1, None), (1, None, 1e-9), (1e-300, 4, 0.5)]
)
def test_draw_by_rows_draws_from_each_row(temperature, top_k, top_p):
    """Options that leave one token of each row, so that nothing depends on the order of draws."""
    logits = torch.randn(15, 8)
    assert torch.equal(draw(logits, temperature, top_k, top_p, None), logits.argmax(-1))
    assert draw(logits[:0], temperature, top_k, top_p, None).shape == (0,)
