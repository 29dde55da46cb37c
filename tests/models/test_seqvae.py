"""SequenceVAE: padding, terms of the loss, word dropout, decoding, and what it refuses."""

import copy
import math

import fusegen
import pytest
import torch
from fusegen.models import SequenceVAE
from fusegen.models.latent import kl_to_standard_normal, reparameterise
from tolerances import agree, close, near
from torch.distributions import Normal

CELLS = ("lstm", "gru", "rnn")
VOCAB = 9
LENGTHS = [4, 6, 0, 1]


def small(cell="lstm", **options):
    sizes = {"vocab_size": VOCAB, "embedding_size": 5, "hidden_size": 7, "latent_size": 3}
    return SequenceVAE(**sizes | {"cell": cell} | options)


def batch():
    """Tokens [6, 4] of `LENGTHS`; past the ends, numbers that are no tokens."""
    tokens = torch.randint(VOCAB, (6, 4))
    for b, n in enumerate(LENGTHS):
        tokens[n:, b] = 1000 + b
    return tokens


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


STACKS = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}]


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_shapes(cell, options):
    model = small(cell, **options)
    tokens = batch()
    logits, mean, log_variance = model(tokens, LENGTHS)
    assert logits.shape == (7, 4, VOCAB + 1) and mean.shape == log_variance.shape == (4, 3)
    terms = model.elbo(tokens, LENGTHS)
    assert terms.log_likelihood.shape == terms.bound.shape == (4,) and terms.kl.shape == (4, 3)
    assert model.loss(tokens, LENGTHS).shape == ()


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_padding_changes_nothing(cell, options):
    """Each sequence by itself, without padding, gives what it gives in the batch."""
    model = small(cell, dtype=torch.float64, **options)
    tokens, z = batch(), torch.randn(4, 3, dtype=torch.float64)
    mean, log_variance = model.encode(tokens, LENGTHS)
    log_likelihood = model.log_likelihood(z, tokens, LENGTHS)
    for b, n in enumerate(LENGTHS):
        alone, lengths = (tokens[:n, [b]], None) if n else (torch.zeros(1, 1, dtype=torch.long), [0])
        one = model.encode(alone, lengths)
        torch.testing.assert_close(one[0][0], mean[b])
        torch.testing.assert_close(one[1][0], log_variance[b])
        torch.testing.assert_close(model.log_likelihood(z[[b]], alone, lengths)[0], log_likelihood[b])


def test_padding_has_no_part_in_loss_or_gradient():
    model = small()
    gradients = []
    tokens = batch()
    wider = torch.cat([tokens, torch.full((5, 4), -1)])
    for padded in (tokens, tokens.masked_fill(tokens >= 1000, 3), wider):
        model.zero_grad()
        loss = model.loss(padded, torch.tensor(LENGTHS, dtype=torch.int32), generator=generator())
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


def test_log_likelihood_by_hand():
    """The probabilities of the tokens, one by one, and then of the end."""
    model = small()
    tokens, z = batch(), torch.randn(4, 3)
    expected = []
    for b, n in enumerate(LENGTHS):
        state, step, total = model._initial_state(z[[b]]), VOCAB, 0.0
        for token in [*tokens[:n, b].tolist(), VOCAB]:
            x = torch.cat([model.embedding.weight[step], z[b]])
            output, state = model.decoder(x.view(1, 1, -1), state)
            total += model.output(output[0, 0]).log_softmax(0)[token]
            step = token
        expected.append(total)
    torch.testing.assert_close(model.log_likelihood(z, tokens, LENGTHS), torch.stack(expected))


def test_all_sequences_of_a_bounded_length_have_a_probability_below_one_that_adds_up():
    """p(length <= 2) + p(length > 2) = 1: all sequences of up to 2 tokens, and the prefixes of 3."""
    model = small(vocab_size=3, dtype=torch.float64)
    z = torch.randn(1, 3, dtype=torch.float64)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
    total = 0.0
    for tokens, lengths in (
        (torch.zeros(1, 1, dtype=torch.long), [0]),
        (torch.arange(3).view(1, 3), None),
        (pairs, None),
    ):
        total += model.log_likelihood(z.expand(tokens.shape[1], -1), tokens, lengths).exp().sum().item()
    logits, *_ = model(pairs)  # of another z: the shapes alone
    assert logits.shape == (3, 9, 4)
    unfinished = 0.0
    for pair in pairs.T:
        ended = model.log_likelihood(z, pair.view(2, 1)).exp().item()
        state, p = model._initial_state(z), 1.0
        for step, token in ((3, pair[0]), (pair[0], pair[1])):
            x = torch.cat([model.embedding.weight[step], z[0]])
            output, state = model.decoder(x.view(1, 1, -1), state)
            p *= model.output(output[0, 0]).softmax(0)[token].item()
        unfinished += p - ended
    assert total < 1 and total + unfinished == pytest.approx(1)


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("free_bits", [0.0, 0.02, 5.0])
def test_loss_is_its_terms(kl_weight, free_bits):
    model = small()
    tokens = batch()
    terms = model.elbo(tokens, LENGTHS, generator=generator())
    mean, log_variance = model.encode(tokens, LENGTHS)
    z = reparameterise(mean, log_variance, generator())
    torch.testing.assert_close(terms.log_likelihood, model.log_likelihood(z, tokens, LENGTHS))
    torch.testing.assert_close(terms.kl, kl_to_standard_normal(mean, log_variance))
    kl = sum(max(free_bits, v) for v in terms.kl.mean(0).tolist())
    loss = model.loss(tokens, LENGTHS, kl_weight=kl_weight, free_bits=free_bits, generator=generator())
    near(loss.item(), kl_weight * kl - terms.log_likelihood.mean().item())
    if (kl_weight, free_bits) == (1.0, 0.0):
        torch.testing.assert_close(loss, -terms.bound.mean())
        torch.testing.assert_close(model.loss(tokens, LENGTHS, generator=generator()), loss)


def test_free_bits_have_no_gradient():
    model, tokens = small(), batch()
    gradients = {}
    for name, options in (("free", {"free_bits": 5.0}), ("none", {"kl_weight": 0.0}), ("all", {})):
        model.zero_grad()
        model.loss(tokens, LENGTHS, generator=generator(), **options).backward()
        gradients[name] = model.posterior.weight.grad.clone()
    torch.testing.assert_close(gradients["free"], gradients["none"])
    assert not torch.allclose(gradients["all"], gradients["none"])


def test_iwae_matches_its_definition_whatever_the_chunk():
    model = small(dtype=torch.float64)
    tokens = batch()
    mean, log_variance = model.encode(tokens, LENGTHS)
    draws = generator(2)
    z = [reparameterise(mean, log_variance, draws) for _ in range(6)]
    q, prior = Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), 1)
    each = [
        model.log_likelihood(zi, tokens, LENGTHS) + (prior.log_prob(zi) - q.log_prob(zi)).sum(1) for zi in z
    ]
    expected = torch.stack(each).exp().mean(0).log()
    for chunk in (None, 6, 1, 4):
        bound = model.iwae(tokens, 6, LENGTHS, chunk=chunk, generator=generator(2))
        torch.testing.assert_close(bound, expected)


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_the_posterior_reads_the_last_outputs_of_the_top_layer(cell, options):
    """Forwards, that of the last token; backwards, that of the first."""
    model = small(cell, **options)
    tokens = batch()
    mean, log_variance = model.encode(tokens, LENGTHS)
    for b, n in enumerate(LENGTHS):
        if n:
            output = model.encoder(model.embedding(tokens[:n, b]))[0]
            last = torch.cat([output[-1, :7], output[0, 7:]])
            torch.testing.assert_close(torch.cat([mean[b], log_variance[b]]), model.posterior(last))


def test_forget_gates_start_open():
    model = small(hidden_size=50, bidirectional=True)
    biases = [p for name, p in model.named_parameters() if "bias_ih" in name]
    assert len(biases) == 3
    for bias in biases:
        parts = bias.detach().chunk(4)
        assert parts[1].min() > 0.8 and all(abs(parts[i].mean()) < 0.2 for i in (0, 2, 3))


def test_word_dropout_hides_what_the_decoder_reads_in_training_alone():
    tokens, z = batch(), torch.randn(4, 3)
    model = small(word_dropout=1.0)
    hidden = model.log_likelihood(z, tokens, LENGTHS)
    with torch.no_grad():
        model.embedding.weight[:VOCAB] = torch.randn(VOCAB, 5)  # which is not read at all
    torch.testing.assert_close(model.log_likelihood(z, tokens, LENGTHS), hidden)
    assert not torch.allclose(model.eval().log_likelihood(z, tokens, LENGTHS)[:2], hidden[:2])
    with torch.no_grad():
        model.train().embedding.weight[VOCAB + 1] += 1.0
    assert not torch.allclose(model.log_likelihood(z, tokens, LENGTHS)[:2], hidden[:2])

    half = small(word_dropout=0.5)
    one, same, other = (
        half.log_likelihood(z, tokens, LENGTHS, generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.allclose(one, other)
    torch.testing.assert_close(one[2], other[2])  # the start of an empty sequence is never hidden


def test_an_inputless_decoder_reads_no_token_in_training_or_out():
    tokens, z = batch(), torch.randn(4, 3)
    model = small(inputless=True)
    hidden = small(word_dropout=1.0)
    hidden.load_state_dict(model.state_dict())
    said = model.log_likelihood(z, tokens, LENGTHS)
    torch.testing.assert_close(said, hidden.log_likelihood(z, tokens, LENGTHS))
    torch.testing.assert_close(model.eval().log_likelihood(z, tokens, LENGTHS), said)
    # greedy decoding takes the likeliest token of each position, whatever came before
    written, lengths = model.decode(z, 6)
    logits = model._logits(z, torch.zeros(6, 4, dtype=torch.long), torch.full((4,), 6), None)[0]
    likeliest = logits.argmax(-1)
    for b, length in enumerate(lengths.tolist()):
        assert written[:length, b].tolist() == likeliest[:length, b].tolist()
        assert length == 6 or likeliest[length, b] == VOCAB


def test_without_a_latent_it_is_a_language_model():
    model = small(latent_size=0).eval()
    tokens = batch()
    terms = model.elbo(tokens, LENGTHS)
    assert terms.kl.shape == (4, 0)
    torch.testing.assert_close(terms.bound, model.log_likelihood(torch.zeros(4, 0), tokens, LENGTHS))
    torch.testing.assert_close(model.iwae(tokens, 3, LENGTHS), terms.bound)
    assert model.active_units([(tokens, LENGTHS)]) == 0
    model.train().loss(tokens, LENGTHS).backward()
    # DDP waits for a gradient of every parameter
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_word_dropout_hides_the_share_it_says():
    model = small(word_dropout=0.3)
    seen = []
    model.embedding.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model.log_likelihood(torch.zeros(50, 3), torch.zeros(200, 50, dtype=torch.long))
    read = seen[0]
    assert (read[0] == VOCAB).all()
    # 0.02: four standard deviations of a frequency over 10,000 tokens
    assert (read[1:] == VOCAB + 1).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_dropout_acts_in_training_only():
    model = small(dropout=0.5, num_layers=2)
    tokens, z = batch(), torch.randn(4, 3)
    assert not torch.equal(model.log_likelihood(z, tokens, LENGTHS), model.log_likelihood(z, tokens, LENGTHS))
    model.eval()
    assert torch.equal(model.log_likelihood(z, tokens, LENGTHS), model.log_likelihood(z, tokens, LENGTHS))
    assert torch.equal(model.encode(tokens, LENGTHS)[0], model.encode(tokens, LENGTHS)[0])


def test_dropout_is_on_both_embeddings_and_before_the_softmax():
    model, seen = small(dropout=0.5), []
    model.drop.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    model(batch(), LENGTHS)
    assert seen == [(6, 4, 5), (7, 4, 5), (7, 4, 7)]


@pytest.mark.parametrize("options", STACKS[::3], ids=str)
def test_same_as_torch_nn_loss_and_gradients(cell, options):
    model = small(cell, **options)
    twin = fusegen.revert(copy.deepcopy(model))
    assert type(twin.encoder).__module__.startswith("torch.") and type(twin.decoder) is not type(
        model.decoder
    )
    tokens, lengths = batch(), [4, 6, 2, 1]  # torch's packing knows no length 0
    tokens[tokens >= 1000] = 0
    losses = [each.loss(tokens, lengths, generator=generator()) for each in (model, twin)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True, "word_dropout": 0.5}],
    ids=str,
)
def test_gradients_reach_every_parameter(cell, options):
    model = small(cell, **options)
    model.loss(batch(), LENGTHS).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_few_sequences_are_learnt_and_come_back(kind):
    """Through z alone at the first step, so that greedy reconstruction must read it."""
    model = small(kind, hidden_size=24, embedding_size=8)
    tokens = torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0], [8, 8, 8]]).T
    lengths = torch.tensor([3, 2, 1, 3])
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    first = None
    for step in range(150):
        loss = model.loss(tokens, lengths, kl_weight=min(1.0, step / 100) * 0.05)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first
    back, back_lengths = model.reconstruct(tokens, lengths)
    assert torch.equal(back_lengths, lengths) and torch.equal(back, tokens)
    assert model.active_units([(tokens, lengths)]) >= 1


def test_active_units_are_of_the_posterior_means():
    model = small(dropout=0.5)
    tokens = batch()
    loader = [(tokens[:, :1], LENGTHS[:1]), (tokens[:, 1:], LENGTHS[1:])]
    variance = model.posterior_mean_variance(loader)
    assert model.training
    expected = model.eval().encode(tokens, LENGTHS)[0].double().var(0, correction=0)
    agree(variance.float(), expected.float())
    between = expected.sort().values[:2].mean().item()
    assert model.active_units(loader, between) == 2
    assert model.active_units([tokens.clamp(max=8)], 1e6) == 0


# Decoding


@pytest.mark.parametrize("layers", [1, 2])
def test_greedy_decoding_is_the_argmax_of_the_teacher_forced_logits(cell, layers):
    model = small(cell, vocab_size=2, num_layers=layers, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # what it says changes from step to step, and ends at different places
        model.output.bias.zero_()
    z = 2 * torch.randn(40, 3, dtype=torch.float64)
    tokens, lengths = model.decode(z, 8)
    assert tokens.shape == (max(lengths), 40) and lengths.unique().numel() > 1
    logits = model._logits(z, tokens, lengths, None)[0].argmax(-1)
    for b, n in enumerate(lengths.tolist()):
        assert torch.equal(logits[:n, b], tokens[:n, b]) and (tokens[n:, b] == 0).all()
        assert n == 8 or logits[n, b] == 2
    for options in ({"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 1e-9}):
        again, _ = model.decode(z, 8, **options)
        assert torch.equal(again, tokens)


def test_ancestral_decoding_follows_the_probabilities():
    """With constant logits, tokens are independent draws, and lengths are geometric."""
    model = small(vocab_size=3)
    chances = torch.tensor([0.5, 0.2, 0.1, 0.2])
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.copy_(chances.log())
    tokens, lengths = model.sample(4000, 6, generator=generator())
    # 0.03: four standard deviations of a frequency over 4,000 draws
    first = torch.bincount(tokens[0][lengths > 0], minlength=3) / 4000
    torch.testing.assert_close(first, chances[:3], atol=0.03, rtol=0)
    expected = torch.tensor([0.2 * 0.8**n for n in range(6)] + [0.8**6])
    torch.testing.assert_close(torch.bincount(lengths, minlength=7) / 4000, expected, atol=0.03, rtol=0)
    kept = model.sample(500, 6, top_k=2, generator=generator())[0]
    assert set(kept.unique().tolist()) <= {0, 1}


def test_sampling_depends_on_its_generator_alone():
    model = small()
    one, _ = model.sample(5, 20, generator=generator(1))
    before = torch.get_rng_state()
    assert torch.equal(model.sample(5, 20, generator=generator(1))[0], one)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(model.sample(5, 20, generator=generator(2))[0], one)
    z = torch.randn(5, 3, generator=(g := generator(1)))
    assert torch.equal(model.decode(z, 20, temperature=1.0, generator=g)[0], one)
    torch.manual_seed(5)
    free = model.sample(5, 20)[0]
    torch.manual_seed(5)
    assert torch.equal(model.sample(5, 20)[0], free)


def test_decoding_restores_every_training_flag_and_can_be_read_again():
    model = small(dropout=0.3)
    model.encoder.eval()
    tokens, lengths = model.sample(4, 5)
    assert model.training and model.drop.training and not model.encoder.training
    assert not model.reconstruct(tokens, lengths)[0].requires_grad
    model.loss(tokens, lengths).backward()
    with torch.no_grad():
        model.output.bias.fill_(math.nan)
    with pytest.raises(RuntimeError, match="not finite"):
        model.sample(4, 5)
    assert model.training and model.drop.training and not model.encoder.training


def test_no_length_no_sequences_and_one_token():
    model = small()
    tokens, lengths = model.sample(3, 0)
    assert tokens.shape == (1, 3) and lengths.tolist() == [0, 0, 0]
    assert model.elbo(tokens, lengths).bound.isfinite().all()
    tokens, lengths = model.sample(0, 4)
    assert tokens.shape == (1, 0) and lengths.shape == (0,)
    assert small(vocab_size=1).sample(2, 5)[0].max() == 0


# Types and graphs


def test_compiles_as_one_graph():
    model = small(bidirectional=True)
    tokens, lengths = torch.randint(VOCAB, (6, 4)), torch.tensor(LENGTHS)
    compiled = torch.compile(model.loss, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = model.loss(tokens, lengths)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(tokens, lengths), expected)
    compiled(tokens[:, :2], lengths[:2])  # with sizes that are symbols


def test_bfloat16_and_autocast(cell):
    model = small(cell)
    tokens, z = batch(), torch.randn(4, 3)
    exact = model.log_likelihood(z, tokens, LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(tokens, LENGTHS)
        close(model.log_likelihood(z, tokens, LENGTHS).bfloat16(), exact, "value")
    loss.backward()
    low = copy.deepcopy(model).bfloat16()
    close(low.log_likelihood(z.bfloat16(), tokens, LENGTHS).bfloat16(), exact, "value")
    low.loss(tokens, LENGTHS).backward()
    assert low.sample(2, 3)[0].shape[1] == 2


# Refusals


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"vocab_size": 0}, ValueError, "vocab_size"),
        ({"embedding_size": 1.5}, TypeError, "embedding_size"),
        ({"hidden_size": -1}, ValueError, "hidden_size"),
        ({"latent_size": -1}, ValueError, "latent_size"),
        ({"num_layers": True}, TypeError, "num_layers"),
        ({"cell": "LSTM"}, ValueError, "cell"),
        ({"bidirectional": 1}, TypeError, "bidirectional"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"word_dropout": 1.1}, ValueError, "word_dropout"),
        ({"inputless": 1}, TypeError, "inputless"),
        ({"word_dropout": "0.1"}, TypeError, "word_dropout"),
    ],
)
def test_wrong_options(options, error, name):
    with pytest.raises(error, match=f"^{name}: expected .*got"):
        small(**options)


T3 = torch.zeros(3, 2, dtype=torch.long)


@pytest.mark.parametrize(
    ("tokens", "lengths", "error", "name"),
    [
        ([[1]], None, TypeError, "tokens"),
        (torch.zeros(3, 2), None, TypeError, "tokens"),
        (T3.bool(), None, TypeError, "tokens"),
        (T3[0], None, ValueError, "tokens"),
        (T3[:0], None, ValueError, "tokens"),
        (T3 + VOCAB, None, ValueError, "tokens"),
        (T3 - 1, [0, 1], ValueError, "tokens"),
        (T3, 3, TypeError, "lengths"),
        (T3, [1.0, 2.0], TypeError, "lengths"),
        (T3, torch.tensor([1.0, 2.0]), TypeError, "lengths"),
        (T3, [1], ValueError, "lengths"),
        (T3, [1, 4], ValueError, "lengths"),
        (T3, [-1, 1], ValueError, "lengths"),
    ],
)
def test_wrong_sequences(tokens, lengths, error, name):
    model = small()
    for call in (model.encode, model, model.loss, model.elbo, model.reconstruct):
        with pytest.raises(error, match=f"^{name}: expected .*got"):
            call(tokens, lengths)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda m: m.loss(T3, kl_weight=-1), ValueError, "kl_weight"),
        (lambda m: m.loss(T3, kl_weight="1"), TypeError, "kl_weight"),
        (lambda m: m.loss(T3, free_bits=-0.1), ValueError, "free_bits"),
        (lambda m: m.loss(T3, free_bits=torch.zeros(3)), TypeError, "free_bits"),
        (lambda m: m.iwae(T3, 0), ValueError, "k"),
        (lambda m: m.iwae(T3, 2, chunk=-1), ValueError, "chunk"),
        (lambda m: m.log_likelihood(torch.zeros(2, 4), T3), ValueError, "z"),
        (lambda m: m.log_likelihood(torch.zeros(3, 3), T3), ValueError, "z"),
        (lambda m: m.decode(torch.zeros(3), 4), ValueError, "z"),
        (lambda m: m.decode(torch.zeros(1, 3).long(), 4), TypeError, "z"),
        (lambda m: m.decode(torch.zeros(1, 3), -1), ValueError, "max_length"),
        (lambda m: m.decode(torch.zeros(1, 3), 4, temperature=-1), ValueError, "temperature"),
        (lambda m: m.decode(torch.zeros(1, 3), 4, top_k=VOCAB + 2), ValueError, "top_k"),
        (lambda m: m.decode(torch.zeros(1, 3), 4, top_p=0), ValueError, "top_p"),
        (lambda m: m.sample(-1, 4), ValueError, "n"),
        (lambda m: m.sample(2, 4.0), TypeError, "max_length"),
        (lambda m: m.reconstruct(T3, max_length=-1), ValueError, "max_length"),
        (lambda m: m.active_units([T3], "x"), TypeError, "threshold"),
        (lambda m: m.active_units([]), ValueError, "loader"),
    ],
)
def test_methods_refuse_by_name(call, error, name):
    with pytest.raises(error, match=f"^{name}: expected .*got"):
        call(small())
