"""What is learnt: its baselines and its rows."""

from itertools import pairwise

import pytest
import torch
from learning.mixture import BernoulliMixture, best_of


def test_a_mixture_of_bernoullis_by_hand_and_by_em():
    # one component, a pseudo image each way: chances (3 + 1) / (4 + 2) and (1 + 1) / 6
    x = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0]])
    one = BernoulliMixture(x, 1, 0).fit()
    assert one.chances[0].tolist() == pytest.approx([4 / 6, 2 / 6])
    assert one.log_likelihood(x[:1]).item() == pytest.approx(2 * torch.tensor(4 / 6).log().item())

    random = torch.Generator().manual_seed(0)
    chances = torch.tensor([[0.9] * 8 + [0.1] * 8, [0.1] * 8 + [0.9] * 8, [0.5] * 16])
    which = torch.randint(3, (3000,), generator=random)
    x = torch.bernoulli(chances[which], generator=random)
    mixture, objectives = BernoulliMixture(x, 3, 1), []
    for _ in range(25):
        objectives.append(mixture.objective())
        mixture.fit(steps=1, until=-torch.inf)
    assert all(b >= a - 1e-6 for a, b in pairwise(objectives))
    logits = chances.log() @ x.T + (1 - chances).log() @ (1 - x).T
    truth = -(logits.logsumexp(0) - torch.tensor(3.0).log()).mean().item()
    assert best_of(x[:2000], x[2000:], 3, restarts=3) == pytest.approx(truth, rel=0.03)
    with torch.no_grad():  # each image has a chance, and all together 1
        every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 16)
        assert mixture.log_likelihood(every).exp().sum().item() == pytest.approx(1)
