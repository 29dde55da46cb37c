"""Counting models of text and what is measured of written stretches, by hand."""

import math

import pytest
import torch
from fusegen.metrics import NGram, bigram_divergence, copied_share, unique_share
from fusegen.metrics.writing import jensen_shannon

TWO = torch.tensor([0, 1])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_chances_by_hand():
    """a a b a: after nothing 3 a and 1 b, of 2 kinds; after a one a and one b."""
    model = NGram(2, 3).fit(torch.tensor([0, 0, 1, 0]))
    alone = [(3 + 2 / 3) / 6, (1 + 2 / 3) / 6, (2 / 3) / 6]
    assert model.chances([]).tolist() == pytest.approx(alone)
    after_a = [(1 + 2 * p) / 4 if token < 2 else 2 * p / 4 for token, p in enumerate(alone)]
    assert model.chances([1, 0]).tolist() == pytest.approx(after_a)
    assert model.chances([2]).tolist() == pytest.approx(alone)  # which nothing has followed
    after_b = [(1 + alone[0]) / 2, alone[1] / 2, alone[2] / 2]
    assert model.chances([1]).tolist() == pytest.approx(after_b)
    nats = -math.log(alone[0]) - math.log(after_a[1]) - math.log(after_b[2])
    assert model.nats(torch.tensor([0, 1, 2])) == pytest.approx(nats)
    both = torch.tensor([[0, 1], [1, 0], [2, 2]])
    assert model.nats(both) == pytest.approx(nats + model.nats(both[:, 1]))


def test_sequences_are_counted_each_by_itself():
    rows = torch.tensor([[0, 1], [0, 1]])  # 0 0 and 1 1
    model = NGram(2, 2).fit(rows)
    assert model.chances([0])[0] == NGram(2, 2).fit(rows[:, 0]).fit(rows[:, 1]).chances([0])[0] > 0.5
    assert NGram(3, 5).chances([1, 2]).tolist() == [0.2] * 5  # nothing counted
    nothing = NGram(1, 2).fit(torch.empty(0, dtype=torch.int64))
    assert nothing.nats(torch.tensor([0])) == math.log(2)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_chances_sum_to_one_and_draws_follow_them(order):
    text = torch.randint(4, (300,), generator=seeded()) % 3
    model = NGram(order, 4).fit(text)
    drawn = model.sample(3000, 3, seeded(1))
    assert drawn.shape == (3, 3000) and drawn.dtype == torch.int64
    assert torch.equal(drawn, model.sample(3000, 3, seeded(1)))
    for before in ([], [1], [0, 2]):
        chances = model.chances(before)
        assert chances.sum().item() == pytest.approx(1) and (chances > 0).all()
        rows = drawn[:, (torch.tensor(before).long() == drawn[: len(before)].T).all(1)]
        shares = torch.bincount(rows[len(before)], minlength=4) / rows.shape[1]
        assert (shares - chances).abs().max() < 4 * 0.5 / math.sqrt(rows.shape[1])


def test_jensen_shannon_by_hand():
    assert jensen_shannon(torch.tensor([2.0, 2, 0]), torch.tensor([1.0, 1, 0])) == 0
    assert jensen_shannon(torch.tensor([3.0, 0]), torch.tensor([0.0, 1])) == 1
    # halves against a whole: H(3/4, 1/4) - 1/2
    want = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert jensen_shannon(torch.tensor([1.0, 1]), torch.tensor([1.0, 0])) == pytest.approx(want)


def test_divergence_of_pairs_by_hand():
    """01 10 01 against 00: disjoint; against 01 01: 2/3 and 1/3 beside 1."""
    real = torch.tensor([0, 1, 0, 1])
    assert bigram_divergence(real, torch.tensor([0, 0, 0]), 2) == pytest.approx(1)
    assert bigram_divergence(real, real, 2) == 0
    columns = torch.tensor([[0, 0], [1, 1]])  # pairs go down columns
    p, q = (2 / 3, 1 / 3), (1.0, 0.0)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    kl = lambda x: sum(a * math.log2(a / m) for a, m in zip(x, middle, strict=True) if a)
    assert bigram_divergence(real, columns, 2) == pytest.approx((kl(p) + kl(q)) / 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.uint16])
def test_tokens_of_any_integer_dtype(dtype):
    real, fake = torch.tensor([0, 1, 0, 1]), torch.tensor([[0, 1], [0, 1], [0, 1]])
    assert bigram_divergence(real.to(dtype), fake.to(dtype), 2) == bigram_divergence(real, fake, 2)


def test_shares_of_unique_and_copied_sequences():
    samples = torch.tensor([[0, 1, 0, 5], [1, 2, 1, 5], [2, 3, 2, 5]])
    assert unique_share(samples) == 0.5  # the first and the third are one
    text = torch.tensor([9, 0, 1, 2, 9, 1, 2], dtype=torch.int32)
    assert copied_share(samples, text) == 0.5
    assert copied_share(samples[:, 1:2], text) == 0 and copied_share(samples, text[:2]) == 0
    long = torch.randint(50, (20_000,), generator=seeded())
    index = torch.arange(0, 19_000, 19)
    stretches = long[index + torch.arange(9)[:, None]]
    assert copied_share(stretches, long) == 1
    assert copied_share((stretches + 1) % 50, long) < 0.01


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: NGram(0, 3), ValueError, "order: expected an integer at least 1, got 0"),
        (lambda: NGram(2, 0), ValueError, "vocab_size: expected an integer at least 1"),
        (lambda: NGram(2, 3).fit(torch.rand(3)), TypeError, "tokens: expected an integer tensor, got t"),
        (lambda: NGram(2, 3).fit([1]), TypeError, "tokens: expected an integer tensor, got l"),
        (lambda: NGram(2, 3).fit(torch.tensor([3])), ValueError, "from 0 to 2, got 3 to 3"),
        (lambda: NGram(2, 3).nats(torch.zeros(1, 1, 1).long()), ValueError, r"expected shape \[N\]"),
        (lambda: NGram(2, 3).sample(0, 1), ValueError, "n: expected an integer at least 1"),
        (lambda: NGram(2, 3).chances([0, 3]), ValueError, "before: expected values from 0 to 2, got 3"),
        (lambda: NGram(2, 3).chances([-1]), ValueError, r"before\[0\]: expected an integer at least 0"),
        (lambda: bigram_divergence(torch.tensor([1]), TWO, 2), ValueError, "real: expected at le"),
        (lambda: bigram_divergence(TWO, TWO[:1], 2), ValueError, "fake: expected at le"),
        (lambda: bigram_divergence(TWO, TWO + 1, 2), ValueError, "fake: expected values from 0 to 1, got 1"),
        (lambda: bigram_divergence(TWO - 1, TWO, 2), ValueError, "real: expected values from 0 to 1, got -1"),
        (lambda: bigram_divergence(TWO, TWO.float(), 2), TypeError, "fake: expected an integer tensor"),
        (lambda: bigram_divergence([0, 1], TWO, 2), TypeError, "real: expected an integer tensor, got list"),
        (lambda: bigram_divergence(TWO, TWO[None, None], 2), ValueError, r"fake: expected shape \[N\] or"),
        (lambda: bigram_divergence(TWO, TWO, 0), ValueError, "vocab_size: expected an integer at least 1"),
        (lambda: unique_share(TWO), ValueError, r"samples: expected shape \[T, B\], got \[2\]"),
        (lambda: unique_share(TWO.bool()[None]), TypeError, "samples: expected an integer tensor"),
        (lambda: unique_share(TWO[:, None][:, :0]), ValueError, "samples: expected at least one token"),
        (lambda: copied_share(TWO[:, None][:, :0], TWO), ValueError, "samples: expected at least one token"),
        (lambda: copied_share(TWO[:, None], TWO[None]), ValueError, r"text: expected shape \[N\], got"),
        (lambda: copied_share(TWO[:, None], TWO.float()), TypeError, "text: expected an integer tensor"),
    ],
)  # fmt: skip
def test_wrong_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
