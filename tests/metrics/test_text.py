"""Perplexity, bits per character, BLEU, self-BLEU and latent variables, by hand and by sacrebleu."""

import math

import pytest
import torch
from fusegen.data import count_characters
from fusegen.metrics import (
    bits_per_character,
    bleu,
    exact_match,
    latent_measures,
    perplexity,
    self_bleu,
)
from fusegen.models import VAE, ConvVAE, SequenceVAE
from tolerances import near


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_perplexity_by_hand():
    # four tokens of chance 1/2, 1/4, 1/8, 1/8: 2 ** (1 + 2 + 3 + 3) / 4
    nats = -sum(map(math.log, (1 / 2, 1 / 4, 1 / 8, 1 / 8)))
    assert perplexity(nats, 4) == pytest.approx(2 ** (9 / 4))
    assert perplexity(7 * math.log(50), 7) == pytest.approx(50)  # evenly among 50
    assert perplexity(1e6, 2) == math.inf


def test_bits_per_character_by_hand():
    # "zö" in three bytes of chance 1/2 each: three bits over two characters
    text = torch.tensor(list("zö".encode()), dtype=torch.uint8)
    assert bits_per_character(3 * math.log(2), count_characters(text)) == pytest.approx(1.5)


def test_bleu_by_hand():
    # 6 words against 6: unigrams 5/6, bigrams 3/5, trigrams 1/4, four-grams 0/3, which sacrebleu's
    # exponential smoothing takes as 1 / (2 * 3); no brevity penalty
    pytest.importorskip("sacrebleu")
    found = bleu(["the cat sat on the mat"], ["the cat lay on the mat"])
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25, rel=1e-6)
    # two sentences are one corpus: 4 of 4 and 4 of 4 words, 8 words against 10: exp(1 - 10 / 8)
    found = bleu(["a b c d", "e f g h"], ["a b c d", "e f g h i j"])
    assert found == pytest.approx(100 * math.exp(1 - 10 / 8), rel=1e-6)
    assert bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(100)


def test_words_that_were_parted_before_give_no_warning(caplog, capsys):
    sacrebleu = pytest.importorskip("sacrebleu")
    texts = [f"the cat {i} sat on the mat ." for i in range(150)]
    found = bleu(texts, texts[1:] + texts[:1])
    assert found == sacrebleu.corpus_bleu(texts, [texts[1:] + texts[:1]], force=True).score
    assert self_bleu(texts[:110]) > 50
    assert not caplog.records and not any(capsys.readouterr())


def test_bleu_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    a, b = ["It's 5 o'clock, isn't it?", "no"], ["It is 5 o'clock, is it not?", "not so"]
    assert bleu(a, b) == sacrebleu.corpus_bleu(a, [b]).score
    assert bleu(a, b, tokenize="char") == sacrebleu.corpus_bleu(a, [b], tokenize="char").score


def test_self_bleu_by_hand():
    pytest.importorskip("sacrebleu")
    assert self_bleu(["a b c d e", "a b c d e"]) == pytest.approx(100)
    # unigrams 4/4, bigrams 2/3, trigrams 0/2 -> 1/4, four-grams 0/1 -> 1/4: the same for both
    alike = 100 * (1 * 2 / 3 * 1 / 4 * 1 / 4) ** 0.25
    assert self_bleu(["a b c d", "c d a b"]) == pytest.approx(alike, rel=1e-6)
    # against all others: each n-gram of the third is in the first or in the second
    texts = ["a b c d", "d e f g", "a b c d"]
    assert self_bleu(texts) == pytest.approx((100 + self_bleu_of_second(texts) + 100) / 3, rel=1e-6)


def self_bleu_of_second(texts):
    sacrebleu = pytest.importorskip("sacrebleu")
    return sacrebleu.sentence_bleu(texts[1], [texts[0], texts[2]]).score


def test_exact_match_by_hand():
    assert exact_match(["a", "b", "c", ""], ["a", "B", "c", ""]) == 0.75


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (lambda: VAE(6, 3, (8,)), lambda n: (torch.rand(n, 6),)),
        (lambda: VAE(6, 3, (8,), num_classes=4), lambda n: (torch.rand(n, 6), torch.arange(n) % 4)),
        (
            lambda: ConvVAE((1, 4, 4), 3, (4,), (8,), likelihood="gaussian"),
            lambda n: (torch.rand(n, 1, 4, 4),),
        ),
        (
            lambda: SequenceVAE(9, 4, 8, 3, dropout=0.5, word_dropout=0.5),
            lambda n: (torch.randint(9, (5, n)), torch.arange(n) % 6),
        ),
    ],
    ids=["VAE", "labels", "ConvVAE", "SequenceVAE"],
)
def test_latent_measures_are_the_models_own_over_all_examples(model, batch):
    model = model().train()
    batches = [batch(4), batch(7)]
    found = latent_measures(model, batches, k=3, generator=seeded())
    assert model.training and found.count == 11
    model.eval()
    with torch.no_grad():
        generator, bounds, terms = seeded(), [], []
        for each in batches:
            terms.append(model.elbo(*each, generator=generator))
            bounds.append(model.iwae(each[0], 3, *each[1:], generator=generator))
    total = lambda parts: sum(part.sum().item() for part in parts) / 11
    near(found.importance, total(bounds))
    near(found.kl, total([each.kl for each in terms]))
    near(found.elbo, total([each.bound for each in terms]))
    assert found.elbo == pytest.approx(found.log_likelihood - found.kl)
    assert found.active_units == model.active_units(batches)


def test_the_bounds_of_a_linear_gaussian_are_those_of_its_algebra():
    """z -> N(0, 1), x = z + N(0, 1); q(z | x) = N(x / 2, 1 / 2) is exact: every bound is log N(x; 0, 2)."""
    model = VAE(1, 1, (), likelihood="gaussian", scale=1.0).double()
    with torch.no_grad():
        model.encoder[0].weight.copy_(torch.tensor([[0.5], [0.0]]))
        model.encoder[0].bias.copy_(torch.tensor([0.0, math.log(0.5)]))
        model.decoder[0].weight.fill_(1.0)
        model.decoder[0].bias.zero_()
    x = torch.tensor([[0.0], [1.0], [-3.0]], dtype=torch.float64)
    evidence = (-x.square() / 4 - 0.5 * math.log(4 * math.pi)).mean().item()
    found = latent_measures(model, [x], k=5, draws=4000, generator=seeded())
    near(found.importance, evidence, kind="constant")  # log 1/2 is kept in float32
    assert found.elbo == pytest.approx(evidence, abs=0.05)
    assert latent_measures(model, [x], generator=seeded()).importance is None
    # the posterior means are 0, 1/2, -3/2: their variance is 13/18
    for threshold, active in ((0.7, 1), (0.75, 0)):
        assert latent_measures(model, [x], threshold=threshold).active_units == active


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: perplexity(1.0, 0), ValueError, "tokens: expected an integer at least 1"),
        (lambda: perplexity(math.nan, 1), ValueError, "nats"),
        (lambda: bits_per_character(1.0, 0), ValueError, "characters"),
        (lambda: bleu("a b", ["a b"]), TypeError, "hypotheses: expected a list of texts, got str"),
        (lambda: bleu(["a"], ["a", "b"]), ValueError, "references: expected 1, one a hypothesis, got 2"),
        (lambda: bleu([], []), ValueError, "hypotheses: expected at least one"),
        (lambda: exact_match([1], ["a"]), TypeError, "hypotheses: expected texts, got int"),
        (lambda: self_bleu(["a"]), ValueError, "texts: expected at least two, got 1"),
        (lambda: latent_measures(VAE(2, 1), [], k=-1), ValueError, "k: expected an integer at least 0"),
        (lambda: latent_measures(VAE(2, 1), []), ValueError, "batches: expected at least one example"),
    ],
)
def test_wrong_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_missing_sacrebleu_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ModuleNotFoundError, match="sacrebleu is needed for BLEU: pip install sacrebleu"):
        bleu(["a"], ["a"])
