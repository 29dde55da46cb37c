"""Seq2Seq: padding on both sides, attention, greedy and beam search against all sequences there are."""

import copy
import itertools
import math

import fusegen
import pytest
import torch
from fusegen.models import Decoded, Seq2Seq
from fusegen.models._beam import beam_search
from tolerances import close

CELLS = ("lstm", "gru", "rnn")
SOURCES, TARGETS = 8, 6
SOURCE_LENGTHS, TARGET_LENGTHS = [4, 5, 0, 1], [3, 0, 2, 4]
STACKS = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}]


def small(cell="lstm", **options):
    sizes = {
        "source_vocab_size": SOURCES,
        "target_vocab_size": TARGETS,
        "embedding_size": 5,
        "hidden_size": 6,
    }
    return Seq2Seq(**sizes | {"cell": cell} | options)


def restless(cell="gru", **options):
    """A model of 3 target tokens in float64 whose best targets differ in length and from source to source."""
    model = small(cell, dtype=torch.float64, **{"target_vocab_size": 3} | options)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.5)
        model.output.bias.zero_()
        logits = model(torch.randint(SOURCES, (5, 99)), torch.randint(3, (4, 99))).flatten(0, 1)
        # logits of mean 0 and deviation 1.5, so that no class is always the likeliest
        model.output.weight *= 1.5 / logits.std(0).unsqueeze(1)
        model.output.bias -= 1.5 * logits.mean(0) / logits.std(0)
    return model


def padded(vocab_size, lengths):
    """Tokens [longest, B]; past the ends, numbers that are no tokens."""
    tokens = torch.randint(vocab_size, (max(lengths), len(lengths)))
    for b, n in enumerate(lengths):
        tokens[n:, b] = -5 - b
    return tokens


def batch():
    """(source, target, source_lengths, target_lengths)."""
    return padded(SOURCES, SOURCE_LENGTHS), padded(TARGETS, TARGET_LENGTHS), SOURCE_LENGTHS, TARGET_LENGTHS


def one(tokens, lengths, b):
    """Sequence b alone, without padding where it has tokens."""
    n = lengths[b]
    return (tokens[:n, [b]], None) if n else (torch.zeros(1, 1, dtype=torch.long), [0])


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


# Teacher forcing


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_shapes(cell, options):
    model = small(cell, **options)
    assert model(*batch()).shape == (5, 4, TARGETS + 1)
    assert model.log_likelihood(*batch()).shape == (4,)
    assert model.alignment(*batch()).shape == (5, 4, 5)
    assert model.loss(*batch()).shape == ()


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_padding_changes_nothing(cell, options):
    """Each pair by itself, without padding, gives what it gives in the batch."""
    model = small(cell, dtype=torch.float64, **options)
    source, target, source_lengths, target_lengths = batch()
    together = model.log_likelihood(source, target, source_lengths, target_lengths)
    for b in range(4):
        x, n = one(source, source_lengths, b)
        y, m = one(target, target_lengths, b)
        torch.testing.assert_close(model.log_likelihood(x, y, n, m)[0], together[b])


def test_padding_has_no_part_in_loss_or_gradient():
    model = small(bidirectional=True)
    source, target, *lengths = batch()
    lengths = [torch.tensor(n, dtype=torch.int32) for n in lengths]
    results = []
    for x, y in (
        (source, target),
        (source.where(source >= 0, 1), target.where(target >= 0, 2)),
        (torch.cat([source, torch.full((3, 4), 99)]), torch.cat([target, torch.full((2, 4), 99)])),
    ):
        model.zero_grad()
        loss = model.loss(x, y, *lengths)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_loss_is_the_mean_over_tokens_and_ends():
    model = small()
    given = batch()
    total = -model.log_likelihood(*given).sum()
    torch.testing.assert_close(model.loss(*given), total / (sum(TARGET_LENGTHS) + 4))


@pytest.mark.parametrize("options", STACKS[:3], ids=str)
def test_log_likelihood_by_hand(cell, options):
    """Encoder, decoder step by step, attention written out, for one pair at a time."""
    model = small(cell, dtype=torch.float64, **options)
    source, target, source_lengths, target_lengths = batch()
    together = model.log_likelihood(source, target, source_lengths, target_lengths)
    for b in (0, 1, 3):
        memory, state = model.encoder(model.source_embedding(source[: source_lengths[b], b]))
        if model.bidirectional:
            both = [torch.cat([s[:1], s[1:]], 1) for s in (state if cell == "lstm" else [state])]
            state = tuple(both) if cell == "lstm" else both[0]
        step, total = TARGETS, 0.0
        for token in [*target[: target_lengths[b], b].tolist(), TARGETS]:
            output, state = model.decoder(model.target_embedding.weight[[step]], state)
            weights = torch.stack([output[0] @ model.score.weight @ h for h in memory]).softmax(0)
            context = (weights[:, None] * memory).sum(0)
            attentional = (model.combine.weight @ torch.cat([context, output[0]])).tanh()
            total += model.output(attentional).log_softmax(0)[token]
            step = token
        torch.testing.assert_close(together[b], total)


def test_alignment_stays_within_the_source():
    model = small()
    weights = model.alignment(*batch())
    assert (weights >= 0).all()
    for b, n in enumerate(SOURCE_LENGTHS):
        assert (weights[:, b, n:] == 0).all()
        torch.testing.assert_close(weights[:, b].sum(-1), torch.full((5,), float(n > 0)))
    assert weights[:, 1].std(0).min() > 0  # not the same at every step


def test_an_empty_source_makes_no_nan():
    model = small()
    source = torch.zeros(2, 3, dtype=torch.long)
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        model.loss(source, torch.ones(2, 3, dtype=torch.long), [0, 0, 0]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.greedy(source, [0, 0, 0], max_length=3).log_probabilities.isfinite().all()


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_same_as_torch_nn_loss_and_gradients(cell, options):
    model = small(cell, **options)
    twin = fusegen.revert(copy.deepcopy(model))
    assert type(twin.encoder).__module__.startswith("torch.") and type(twin.decoder) is not type(
        model.decoder
    )
    source, target, _, target_lengths = batch()
    source = source.clamp(min=0)
    losses = [each.loss(source, target, [4, 5, 2, 1], target_lengths) for each in (model, twin)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_gradients_reach_every_parameter(cell, options):
    model = small(cell, **options)
    model.loss(*batch()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_dropout_acts_in_training_only():
    model = small(dropout=0.5, num_layers=2)
    given = batch()
    assert not torch.equal(model(*given), model(*given))
    model.eval()
    assert torch.equal(model(*given), model(*given))


def test_dropout_is_on_both_embeddings_and_before_the_softmax():
    model, seen = small(dropout=0.5), []
    model.drop.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    model(*batch())
    assert seen == [(5, 4, 5), (5, 4, 5), (4, 5, 6)]


def test_forget_gates_start_open():
    model = small(hidden_size=60, bidirectional=True)
    biases = [p for name, p in model.named_parameters() if "bias_ih" in name]
    assert len(biases) == 3
    for bias in biases:
        parts = bias.detach().chunk(4)
        assert parts[1].min() > 0.8 and all(abs(parts[i].mean()) < 0.2 for i in (0, 2, 3))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_reversing_a_few_sequences_is_learnt(kind, bidirectional):
    model = small(kind, hidden_size=24, embedding_size=8, bidirectional=bidirectional)
    source = torch.tensor([[1, 2, 3], [5, 4, 0], [3, 0, 0], [2, 5, 1]]).T
    target = torch.tensor([[3, 2, 1], [4, 5, 0], [3, 0, 0], [1, 5, 2]]).T
    lengths = torch.tensor([3, 2, 1, 3])
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    first = None
    for _ in range(120):
        loss = model.loss(source, target, lengths, lengths)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
    for decoded in (model.greedy(source, lengths), model.beam_search(source, lengths, width=3)):
        found = decoded.tokens if decoded.tokens.dim() == 2 else decoded.tokens[..., 0]
        assert torch.equal(found[:3], target)
        assert torch.equal(decoded.lengths.view(4, -1)[:, 0], lengths)


# Decoding


def everything(vocab_size, longest):
    """All sequences of up to `longest` tokens: (tokens [T, N], 0 past the ends, lengths [N])."""
    each = [s for n in range(longest + 1) for s in itertools.product(range(vocab_size), repeat=n)]
    tokens = torch.zeros(longest, len(each), dtype=torch.long)
    for i, s in enumerate(each):
        tokens[: len(s), i] = torch.tensor(s, dtype=torch.long)
    return tokens, torch.tensor([len(s) for s in each])


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_greedy_takes_the_argmax_of_the_teacher_forced_logits(cell, options):
    model = restless(cell, **options)
    source = torch.randint(SOURCES, (5, 60))
    source_lengths = torch.randint(0, 6, (60,))
    tokens, lengths, log_p = model.greedy(source, source_lengths, max_length=7)
    assert tokens.shape == (int(lengths.max()), 60) and lengths.unique().numel() > 1
    best = model(source, tokens, source_lengths, lengths).argmax(-1)
    for b, n in enumerate(lengths.tolist()):
        assert torch.equal(best[:n, b], tokens[:n, b]) and (tokens[n:, b] == 0).all()
        assert n == 7 or best[n, b] == 3
    torch.testing.assert_close(log_p, model.log_likelihood(source, tokens, source_lengths, lengths))


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("options", STACKS, ids=str)
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all(options, penalty):
    model = restless("lstm", **options)
    source, source_lengths = torch.randint(SOURCES, (4, 10)), torch.randint(0, 5, (10,))
    tokens, lengths = everything(3, 3)
    width = 4**3
    found = model.beam_search(source, source_lengths, width=width, max_length=3, length_penalty=penalty)
    assert found.tokens.shape == (3, 10, width) and found.lengths.shape == (10, width)
    for b in range(10):
        log_p = model.log_likelihood(
            source[:, [b]].expand(4, len(lengths)), tokens, source_lengths[[b]].expand(len(lengths)), lengths
        )
        scores = log_p / (lengths + 1) ** penalty
        order = scores.argsort(descending=True)
        count = len(lengths)
        assert torch.equal(found.tokens[:, b, :count], tokens[:, order])
        assert torch.equal(found.lengths[b, :count], lengths[order])
        torch.testing.assert_close(found.log_probabilities[b, :count], log_p[order])
        # and of what does not exist, nothing
        assert (found.log_probabilities[b, count:] == -math.inf).all()
        assert (found.lengths[b, count:] == 0).all() and (found.tokens[:, b, count:] == 0).all()


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(cell, penalty):
    model = restless(cell)
    source = torch.randint(SOURCES, (5, 40))
    greedy = model.greedy(source, max_length=6)
    beam = model.beam_search(source, width=1, max_length=6, length_penalty=penalty)
    assert isinstance(beam, Decoded)
    for ours, expected in zip(beam, greedy, strict=True):
        torch.testing.assert_close(ours.squeeze(-1), expected)


@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize("options", STACKS, ids=str)
def test_beams_are_distinct_sorted_and_scored_as_the_model_scores_them(cell, options, width):
    model = restless(cell, **options)
    source, source_lengths = torch.randint(SOURCES, (5, 12)), torch.randint(0, 6, (12,))
    tokens, lengths, log_p = model.beam_search(
        source, source_lengths, width=width, max_length=6, length_penalty=0.7
    )
    assert tokens.shape == (int(lengths.max()), 12, width)
    scores = log_p / (lengths + 1) ** 0.7
    assert (scores.diff(dim=1) <= 0).all()
    for w in range(width):
        expected = model.log_likelihood(source, tokens[..., w], source_lengths, lengths[:, w])
        torch.testing.assert_close(log_p[:, w], expected)
    for b in range(12):
        assert len({tuple(tokens[: lengths[b, w], b, w].tolist()) for w in range(width)}) == width


def test_wider_beams_find_no_worse_on_the_whole():
    model = restless()
    source = torch.randint(SOURCES, (5, 100))

    def best(width):
        return model.beam_search(source, width=width, max_length=6, length_penalty=0.0).log_probabilities

    means = [best(width)[:, 0].mean().item() for width in (1, 3, 20)]
    assert means[0] < means[1] <= means[2] + 1e-12


def test_a_source_is_decoded_the_same_in_any_company():
    model = restless()
    source, source_lengths = torch.randint(SOURCES, (5, 9)), [5, 3, 0, 1, 2, 5, 4, 4, 2]
    together = model.beam_search(source, source_lengths, width=3, max_length=8)
    assert together.lengths.unique().numel() > 2
    for b, n in enumerate(source_lengths):
        alone = model.beam_search(source[: max(n, 1), [b]], [n], width=3, max_length=8)
        longest = len(alone.tokens)
        assert torch.equal(alone.tokens[:, 0], together.tokens[:longest, b])
        assert torch.equal(alone.lengths[0], together.lengths[b])
        torch.testing.assert_close(alone.log_probabilities[0], together.log_probabilities[b])


def plain_beam(table, start, width, max_length, penalty):
    """Beam search of one sequence in lists: [(log p, tokens)], the best first. table: [T, last, next]."""
    alive, found = [(0.0, ())], []
    for t in range(max_length + 1):
        going = [
            (p + q, (*s, k)) for p, s in alive for k, q in enumerate(table[t][s[-1] if s else start].tolist())
        ]
        end = table.shape[-1] - 1
        going = sorted((c for c in going if t < max_length or c[1][-1] == end), reverse=True)
        found += [(p / (t + 1) ** penalty, p, s[:-1]) for p, s in going[:width] if s[-1] == end]
        found = sorted(found, reverse=True)[:width]
        alive = [c for c in going if c[1][-1] != end][:width]
        if len(found) == width and alive and alive[0][0] / (t + 1) ** penalty <= found[0][0]:
            break
    return [(p, s) for _, p, s in found]


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_beam_search_is_beam_search_in_lists(width, penalty):
    # by step and last token, of 4 tokens and the end, which is the start
    tables = (2 * torch.randn(8, 20, 5, 5, dtype=torch.float64)).log_softmax(-1)
    steps, batch = iter(tables), torch.arange(20).unsqueeze(1)
    found = beam_search(
        lambda last, _: next(steps)[batch, last], torch.full((20,), 4), width, 7, length_penalty=penalty
    )
    for b in range(20):
        expected = plain_beam(tables[:, b], 4, width, 7, penalty)
        got = [tuple(found.tokens[:n, b, w].tolist()) for w, n in enumerate(found.lengths[b].tolist())]
        assert got == [s for _, s in expected]
        assert found.log_probabilities[b].tolist() == pytest.approx([p for p, _ in expected])


def test_beam_search_by_hand():
    """Tokens a, b and the end, each by the last token alone. "b" is the likeliest; greedy begins with "a"."""
    table = torch.tensor(
        [[0.5, 0.4, 0.1], [0.05, 0.05, 0.9], [0.5, 0.4, 0.1]]
    ).log()  # rows: after a, b, start
    calls = []

    def step(last, parents):
        calls.append(parents.tolist())
        return table[last]

    found = beam_search(step, torch.tensor([2]), 2, 4, 0.0)
    # a (0.5) and b (0.4) go on; then b ends (0.36), and aa (0.25) and ab (0.2) go on; then ab ends (0.18),
    # the second: over
    assert calls == [[[0, 1]], [[0, 0]], [[0, 0]]]  # the first rows are one
    assert found.tokens[:, 0].T.tolist() == [[1, 0], [0, 1]] and found.lengths.tolist() == [[1, 2]]
    torch.testing.assert_close(found.log_probabilities, torch.tensor([[0.36, 0.18]]).log())
    narrow = beam_search(step, torch.tensor([2]), 1, 4, 0.0)
    assert narrow.tokens[:, 0, 0].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(narrow.log_probabilities[0, 0], torch.tensor(0.5**4 * 0.1).log())


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_ends_nobody_believes_in_do_not_stop_a_search(penalty):
    """0 1 2 3 4 has a probability near 1. Before its end, more than `width` hopeless targets have ended."""
    table = torch.full((6, 6), -9.0)
    for i in range(6):
        table[i, (i + 1) % 6] = 0.0  # 5 is the end, and the start
    found = beam_search(lambda last, _: table[last].log_softmax(-1), torch.tensor([5]), 2, 9, penalty)
    assert found.tokens[:5, 0, 0].tolist() == [0, 1, 2, 3, 4] and found.lengths[0, 0] == 5


def test_length_penalty_makes_longer_targets():
    model = restless()
    source = torch.randint(SOURCES, (5, 50))
    lengths = [
        model.beam_search(source, width=6, max_length=6, length_penalty=a).lengths[:, 0].double().mean()
        for a in (0.0, 1.0, 3.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_decoding_restores_every_training_flag_and_can_be_read_again():
    model = small(dropout=0.4)
    model.encoder.eval()
    source = torch.randint(SOURCES, (4, 3))
    for decode in (model.greedy, lambda x, **o: model.beam_search(x, width=2, **o)):
        tokens, lengths, log_p = decode(source, max_length=5)
        assert model.training and model.drop.training and not model.encoder.training
        assert not log_p.requires_grad
        again = decode(source, max_length=5)
        assert torch.equal(again.tokens, tokens)
        target = tokens if tokens.dim() == 2 else tokens[..., 0]
        model.loss(source, target, None, lengths.view(3, -1)[:, 0]).backward()
    with torch.no_grad():
        model.output.bias[0] = math.nan
    for decode in (model.greedy, model.beam_search):
        with pytest.raises(RuntimeError, match="not finite"):
            decode(source)
        assert model.training and model.drop.training and not model.encoder.training


def test_no_length_no_sequences_and_one_token():
    model = small()
    source = torch.randint(SOURCES, (3, 2))
    for decoded in (model.greedy(source, max_length=0), model.beam_search(source, width=2, max_length=0)):
        assert decoded.tokens.shape[:2] == (1, 2) and decoded.lengths.sum() == 0
        end = model.log_likelihood(source, torch.zeros(1, 2, dtype=torch.long), None, [0, 0])
        torch.testing.assert_close(decoded.log_probabilities.view(2, -1)[:, 0], end.detach())
    none = torch.zeros(3, 0, dtype=torch.long)
    assert model.greedy(none).tokens.shape == (1, 0)
    assert model.beam_search(none, width=2).tokens.shape == (1, 0, 2)
    single = small(target_vocab_size=1).beam_search(source, width=4, max_length=2)
    assert sorted(single.lengths[0, :3].tolist()) == [0, 1, 2]
    assert single.log_probabilities[0, 3] == -math.inf


# Types and graphs


def test_compiles_as_one_graph():
    model = small(bidirectional=True)
    source, target, *lengths = batch()
    lengths = [torch.tensor(n) for n in lengths]
    compiled = torch.compile(model.loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(source, target, *lengths), model.loss(source, target, *lengths))


def test_bfloat16_and_autocast(cell):
    model = small(cell, bidirectional=True)
    given = batch()
    exact = model.log_likelihood(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(*given)
        close(model.log_likelihood(*given).bfloat16(), exact, "value")
    loss.backward()
    low = copy.deepcopy(model).bfloat16()
    close(low.log_likelihood(*given).bfloat16(), exact, "value")
    low.loss(*given).backward()
    assert low.beam_search(given[0], given[2], max_length=3).log_probabilities.dtype == torch.float32


# Refusals


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"source_vocab_size": 0}, ValueError, "source_vocab_size"),
        ({"target_vocab_size": "a"}, TypeError, "target_vocab_size"),
        ({"embedding_size": 1.5}, TypeError, "embedding_size"),
        ({"hidden_size": 0}, ValueError, "hidden_size"),
        ({"hidden_size": 7, "bidirectional": True}, ValueError, "hidden_size"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"cell": "transformer"}, ValueError, "cell"),
        ({"bidirectional": 1}, TypeError, "bidirectional"),
        ({"dropout": -0.1}, ValueError, "dropout"),
        ({"dropout": None}, TypeError, "dropout"),
    ],
)
def test_wrong_options(options, error, name):
    with pytest.raises(error, match=f"^{name}: expected .*got"):
        small(**options)


T3 = torch.zeros(3, 2, dtype=torch.long)


@pytest.mark.parametrize(
    ("tokens", "lengths", "error", "name"),
    [
        ([[1]], None, TypeError, "{}"),
        (torch.zeros(3, 2), None, TypeError, "{}"),
        (T3.bool(), None, TypeError, "{}"),
        (T3[0], None, ValueError, "{}"),
        (T3[:0], None, ValueError, "{}"),
        (T3 + SOURCES, None, ValueError, "{}"),
        (T3 - 1, [0, 1], ValueError, "{}"),
        (T3, 3, TypeError, "{}_lengths"),
        (T3, [1.0, 2.0], TypeError, "{}_lengths"),
        (T3, torch.tensor([True, True]), TypeError, "{}_lengths"),
        (T3, [1], ValueError, "{}_lengths"),
        (T3, [1, 4], ValueError, "{}_lengths"),
        (T3, [-1, 1], ValueError, "{}_lengths"),
    ],
)
def test_wrong_sequences(tokens, lengths, error, name):
    model = small()
    for call in (model, model.loss, model.log_likelihood, model.alignment):
        with pytest.raises(error, match=f"^{name.format('source')}: expected .*got"):
            call(tokens, T3, lengths)
        with pytest.raises(error, match=f"^{name.format('target')}: expected .*got"):
            call(T3, tokens, None, lengths)
    for call in (model.greedy, model.beam_search):
        with pytest.raises(error, match=f"^{name.format('source')}: expected .*got"):
            call(tokens, lengths)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda m: m.loss(T3, T3[:, :1]), ValueError, "target"),
        (lambda m: m.greedy(T3, max_length=-1), ValueError, "max_length"),
        (lambda m: m.greedy(T3, max_length=2.5), TypeError, "max_length"),
        (lambda m: m.beam_search(T3, width=0), ValueError, "width"),
        (lambda m: m.beam_search(T3, width=True), TypeError, "width"),
        (lambda m: m.beam_search(T3, max_length=-1), ValueError, "max_length"),
        (lambda m: m.beam_search(T3, length_penalty=-1), ValueError, "length_penalty"),
        (lambda m: m.beam_search(T3, length_penalty=1e308), ValueError, "length_penalty"),
        (lambda m: m.beam_search(T3, length_penalty="1"), TypeError, "length_penalty"),
    ],
)
def test_methods_refuse_by_name(call, error, name):
    with pytest.raises(error, match=f"^{name}: expected .*got"):
        call(small())
