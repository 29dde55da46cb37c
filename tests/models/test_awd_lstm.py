"""AWD-LSTM's regularisation of TextLSTM: its masks, its formula, what stays as it was; and beam search."""

import copy
import itertools

import fusegen
import pytest
import torch
import torch.nn.functional as F
from fusegen import reference
from fusegen.models import TextLSTM, _dropout
from fusegen.train.tasks.text import TextOptions, _model
from tolerances import agree
from torch.utils.checkpoint import checkpoint

CELLS = ("lstm", "gru", "rnn")
ALL = {
    "dropout": 0.3,
    "input_dropout": 0.4,
    "hidden_dropout": 0.25,
    "output_dropout": 0.2,
    "locked_dropout": True,
    "embedding_dropout": 0.1,
    "weight_drop": 0.5,
    "activation_penalty": 2.0,
    "temporal_penalty": 1.0,
}


def small(cell="lstm", **options):
    return TextLSTM(**{"vocab_size": 30, "embedding_size": 7, "hidden_size": 12, "cell": cell} | options)


def flat(state):
    return state if isinstance(state, tuple) else (state,)


def near(share, chance, count):
    """A share of `count` coins within five standard deviations of its chance."""
    return abs(share - chance) < 5 * (chance * (1 - chance) / count) ** 0.5


# Masks


def test_a_locked_mask_is_one_for_all_steps():
    dropped = _dropout.locked(torch.ones(6, 40, 50), 0.3)
    assert (dropped == dropped[0]).all()
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert near((dropped[0] == 0).float().mean().item(), 0.3, 2000)
    assert 0 < len(dropped[0].unique(dim=0)) > 30  # its own for each sequence
    assert not torch.equal(dropped, _dropout.locked(torch.ones(6, 40, 50), 0.3))


def test_a_token_is_there_in_the_whole_batch_or_nowhere():
    tokens = torch.randint(1000, (20, 30))
    dropped = _dropout.embedding(torch.ones(20, 30, 4), tokens, 1000, 0.2)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    by_token = torch.full((1000,), -1.0)
    for token, vector in zip(tokens.flatten().tolist(), dropped.flatten(0, 1), strict=True):
        assert (vector == vector[0]).all() and by_token[token] in (-1.0, vector[0])
        by_token[token] = vector[0]
    seen = by_token[by_token >= 0]
    assert near((seen == 0).float().mean().item(), 0.2, len(seen))


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_matrices_alone_are_dropped_anew_in_each_call(monkeypatch, cell):
    model = small(cell, hidden_size=60, weight_drop=0.4)
    seen, layer = [], _dropout._layer
    monkeypatch.setattr(
        _dropout,
        "_layer",
        lambda rnn, x, state, weights: (seen.append(weights), layer(rnn, x, state, weights))[1],
    )
    for _ in range(2):
        model(torch.randint(30, (4, 2)))
    assert len(seen) == 4
    for number, (W, R, *biases) in enumerate(seen):
        own = [getattr(model.rnn, f"{name}_l{number % 2}") for name in ("weight_ih", "weight_hh")]
        assert W is own[0] and all(bias.is_leaf for bias in biases)
        kept = R != 0
        torch.testing.assert_close(R[kept], own[1][kept] / 0.6)
        assert near(1 - kept.float().mean().item(), 0.4, R.numel())
    assert not torch.equal(seen[0][1] == 0, seen[2][1] == 0)
    assert not torch.equal(seen[0][1] == 0, seen[1][1] == 0)


def test_dropout_that_is_not_locked_differs_from_step_to_step():
    model = small(hidden_size=200, num_layers=1, output_dropout=0.5)
    output, decode = [], model._decode
    model._decode = lambda y: (output.append(y), decode(y))[1]
    model(torch.zeros(3, 2, dtype=torch.long))
    assert not torch.equal(output[0][0] == 0, output[0][1] == 0)


# The formula


def by_hand(model, tokens, targets, state):
    """Equations (2)-(4) of Merity et al. in plain torch, on masks drawn in the model's order."""
    alive = lambda *shape, p: F.dropout(torch.ones(*shape, dtype=torch.float64), p)
    _, B = tokens.shape
    E = model.embedding.weight
    x = (E * alive(len(E), 1, p=model.embedding_dropout))[tokens]
    x = x * alive(1, B, E.shape[1], p=model.input_dropout)
    finals = []
    for layer in range(model.num_layers):
        if layer:
            x = x * alive(1, B, x.shape[2], p=model.hidden_dropout)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        W, R, b, c = (getattr(model.rnn, f"{name}_l{layer}") for name in names)
        R = R * alive(*R.shape, p=model.weight_drop)
        begin = [part[layer : layer + 1] for part in flat(state)]
        if model.cell == "lstm":
            x, *final = reference.lstm(x, *begin, [W, R, b, c, None], None)
        elif model.cell == "gru":
            x, *final = reference.gru(x, *begin, [W, R, b, c], None)
        else:
            x, *final = reference.rnn(x, *begin, [W, R, b, c], None, False)
        finals.append(final)
    raw = x
    x = raw * alive(1, B, raw.shape[2], p=model.output_dropout)
    if model.projection is not None:
        logits = x @ model.projection.weight.T + model.projection.bias
    else:
        logits = x
    logits = logits @ model.decoder.weight.T + model.decoder.bias
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss = loss + model.activation_penalty * (x * x).mean()
    loss = loss + model.temporal_penalty * ((raw[1:] - raw[:-1]) ** 2).mean()
    return loss, tuple(torch.cat(each) for each in zip(*finals, strict=True))


@pytest.mark.parametrize("on_torch", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_loss_state_and_gradients_are_those_of_the_plain_formula(cell, on_torch):
    model = small(cell, num_layers=3, dtype=torch.float64, **ALL)
    if on_torch:
        fusegen.revert(model)
    tokens, targets = torch.randint(30, (2, 9, 4))
    _, state = small(cell, num_layers=3, dtype=torch.float64)(tokens)
    state = TextLSTM.detach(state)
    results = []
    for compute in (model.loss, lambda *a: by_hand(model, *a)):
        model.zero_grad()
        torch.manual_seed(11)
        loss, after = compute(tokens, targets, state)
        loss.backward()
        results.append((loss.detach(), flat(after), [p.grad.clone() for p in model.parameters()]))
    (loss, after, grads), (want_loss, want_after, want_grads) = results
    agree(loss, want_loss)
    for got, want in zip((*after, *grads), (*want_after, *want_grads), strict=True):
        agree(got, want)


@pytest.mark.parametrize("cell", CELLS)
def test_one_sequence_without_a_batch_is_a_batch_of_one(cell):
    model = small(cell, **ALL)
    tokens = torch.randint(30, (5, 1))
    torch.manual_seed(3)
    batch, batch_state = model(tokens)
    torch.manual_seed(3)
    alone, state = model(tokens[:, 0])
    torch.testing.assert_close(alone, batch[:, 0])
    for one, of in zip(flat(state), flat(batch_state), strict=True):
        torch.testing.assert_close(one, of[:, 0])
    model(tokens[:, 0], state)


def test_a_single_step_has_no_change_to_be_penalised():
    model = small(temporal_penalty=1.0)
    tokens = torch.randint(30, (1, 3))
    assert model.loss(tokens, tokens)[0].isfinite()


@pytest.mark.parametrize("name", ["input_dropout", "hidden_dropout", "output_dropout"])
@pytest.mark.parametrize("locked", [False, True])
def test_each_place_has_its_own_chance_and_dropout_sets_those_left_out(name, locked):
    tokens = torch.randint(30, (4, 3))
    for options in ({"dropout": 0.5, **{n: 0.0 for n in ALL if n.endswith("_dropout")}}, {}):
        options = {**options, "locked_dropout": locked}
        options.pop(name, None)
        model = small(**{"dropout": 0.5, **options})
        assert getattr(model, name) == 0.5
        assert not torch.equal(model(tokens)[0], model(tokens)[0])
        quiet = small(
            **{**options, "dropout": 0.5, "input_dropout": 0, "hidden_dropout": 0, "output_dropout": 0}
        )
        assert torch.equal(quiet(tokens)[0], quiet(tokens)[0])


# What it leaves as it was


@pytest.mark.parametrize("cell", CELLS)
def test_in_evaluation_it_is_the_plain_model_with_its_state_dict(cell):
    plain, model = small(cell), small(cell, **ALL)
    assert model.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(model.state_dict())
    model.load_state_dict(plain.state_dict())
    tokens, targets = torch.randint(30, (2, 6, 3))
    for each in (plain, model):
        each.eval()
    assert torch.equal(model(tokens)[0], plain(tokens)[0])
    assert model.loss(tokens, targets)[0].item() == plain.loss(tokens, targets)[0].item()
    prompt = torch.tensor([1, 2])
    assert torch.equal(model.generate(prompt, 9, seed=1), plain.generate(prompt, 9, seed=1))


@pytest.mark.parametrize("cell", CELLS)
def test_all_off_draws_nothing(cell):
    model = small(cell)
    before = torch.get_rng_state()
    model.loss(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cell", CELLS)
def test_frozen_weights_are_read_where_nothing_is_dropped(cell):
    model = small(cell, **ALL)
    tokens = torch.randint(30, (6, 3))
    with torch.no_grad(), fusegen.frozen(model):
        torch.manual_seed(5)
        inside = model(tokens)[0]
        model.eval()
        quiet = model(tokens)[0]
    torch.testing.assert_close(quiet, model(tokens)[0])
    torch.manual_seed(5)
    torch.testing.assert_close(inside, model.train()(tokens)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype):
    model = small(num_layers=2, **ALL)
    tokens, targets = torch.randint(30, (2, 6, 3))
    torch.manual_seed(1)
    want, (_, c) = model.loss(tokens, targets)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype):
        loss, state = model.loss(tokens, targets)
        model.loss(tokens, targets, model.detach(state))
    assert [part.dtype for part in state] == [dtype, torch.float32] and state[1].shape == c.shape
    agree(loss.to(dtype), want.to(dtype))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_it_can_be_copied_and_trained_by_the_copy():
    twin = copy.deepcopy(small(**ALL))
    tokens = torch.randint(30, (4, 2))
    twin.loss(tokens, tokens)[0].backward()
    assert all(p.grad is not None for p in twin.parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_activations_that_are_computed_again_meet_the_same_masks(cell):
    model = small(cell, **ALL)
    tokens, targets = torch.randint(30, (2, 6, 3))
    grads = []
    for run in (model.loss, lambda *a: checkpoint(model.loss, *a, use_reentrant=False)):
        model.zero_grad()
        torch.manual_seed(4)
        run(tokens, targets)[0].backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(map(torch.equal, *grads))


@pytest.mark.parametrize("cell", CELLS)
def test_it_compiles_as_one_graph(cell):
    model = small(cell, **ALL)
    tokens, targets = torch.randint(30, (2, 5, 2))
    compiled = torch.compile(lambda t, y: model.loss(t, y)[0], fullgraph=True, backend="eager")
    torch.manual_seed(2)
    want = model.loss(tokens, targets)[0]
    torch.manual_seed(2)
    torch.testing.assert_close(compiled(tokens, targets), want)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        *(({name: 1.0}, ValueError) for name in ALL if name.endswith(("dropout", "drop")) and name[0] != "l"),
        *(({name: -0.1}, ValueError) for name in ALL if name[0] != "l"),
        ({"weight_drop": "0.5"}, TypeError),
        ({"locked_dropout": 1}, TypeError),
        ({"activation_penalty": float("nan")}, ValueError),
    ],
)
def test_wrong_options(options, error):
    with pytest.raises(error, match=f"^{next(iter(options))}: expected"):
        small(**options)


def test_options_of_the_command_line_reach_the_model():
    given = {name: value for name, value in ALL.items() if not name.endswith("penalty")}
    model = _model(TextOptions(**given, ar=2.0, tar=1.0), fusegen.data.Vocabulary("byte"))
    assert {name: getattr(model, name) for name in ALL} == ALL


# Beam search


def likeliest(model, prompt, n):
    """The likeliest continuation of all, by trying every one."""
    every = torch.tensor(list(itertools.product(range(model.vocab_size), repeat=n)))
    tokens = torch.cat([prompt.expand(len(every), -1), every], 1).T
    with torch.no_grad():
        log_p = model(tokens[:-1])[0][-n:].log_softmax(-1)
    scores = log_p.gather(2, tokens[-n:, :, None]).sum((0, 2))
    return every[scores.argmax()], scores


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("prompt", [[2], [1, 3, 0]])
def test_a_beam_as_wide_as_all_there_is_finds_the_likeliest_text(cell, prompt):
    model = small(cell, vocab_size=4, dtype=torch.float64).eval()
    with torch.no_grad():
        model.decoder.weight.mul_(4)  # else greedy is right too
    prompt = torch.tensor(prompt)
    best, scores = likeliest(model, prompt, 4)
    assert torch.equal(model.generate(prompt, 4, beam=4**3), best)
    greedy = model.generate(prompt, 4, temperature=0)
    assert torch.equal(model.generate(prompt, 4, beam=1), greedy)
    number = lambda tokens: int(tokens @ torch.tensor([64, 16, 4, 1]))
    ranks = [scores[number(model.generate(prompt, 4, beam=width))] for width in (1, 4, 64)]
    assert ranks[-1] == max(ranks)


def test_beam_search_finds_better_than_greedy_somewhere():
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        model = small("gru", vocab_size=4, dtype=torch.float64).eval()
        best, _ = likeliest(model, torch.tensor([0]), 4)
        found.append([torch.equal(model.generate(torch.tensor([0]), 4, beam=w), best) for w in (1, 64)])
    greedy, wide = zip(*found, strict=True)
    assert all(wide) and not all(greedy)


def test_beam_search_gives_the_type_of_the_prompt_and_leaves_the_model_as_it_was():
    model = TextLSTM(embedding_size=7, hidden_size=12, **ALL)
    before = torch.get_rng_state()
    text, content = model.generate("ab", 9, beam=3), model.generate(b"ab", 9, beam=3)
    assert isinstance(text, str) and len(content) == 9 and content.decode(errors="replace") == text
    assert model.generate("ab", 0, beam=3) == "" and model.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"beam": 0}, ValueError, "beam: expected an integer at least 1"),
        ({"beam": 1.5}, TypeError, "beam: expected an integer"),
        ({"beam": 2, "top_k": 3}, ValueError, "top_k: expected None beside beam"),
        ({"beam": 2, "top_p": 0.5}, ValueError, "top_p: expected None beside beam"),
    ],
)
def test_beams_that_make_no_sense_are_refused(options, error, words):
    with pytest.raises(error, match=f"^{words}"):
        small(vocab_size=256).generate("x", 3, **options)


def test_logits_that_are_not_finite_are_said():
    model = small(vocab_size=256)
    with torch.no_grad():
        model.decoder.bias.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="logits of token 0 are not finite"):
        model.generate("xy", 3, beam=2)
