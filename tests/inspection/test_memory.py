"""An LSTM that learns to remember for k steps has forget gates that keep for about k."""

import fusegen
import pytest
import torch
from fusegen import inspect
from torch import nn

KS = (4, 8, 16, 32, 64)
T, H, STEPS, LR = 96, 8, 300, 0.03


def trained(k, seed):
    """(LSTM, head, x): a number is read at step 0, is to be given at the steps 0..k, and zero afterwards. The
    recurrent matrix decays, so that what is remembered lies in c."""
    torch.manual_seed(seed)
    lstm, head = fusegen.nn.LSTM(1, H), nn.Linear(H, 1)
    with torch.no_grad():
        lstm.bias_ih_l0[H : 2 * H] += 2  # all begin with the same gates, of eight steps
    others = [p for p in [*lstm.parameters(), *head.parameters()] if p is not lstm.weight_hh_l0]
    groups = [{"params": [lstm.weight_hh_l0], "weight_decay": 3.0}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, STEPS)
    numbers = torch.tensor([-1.5, -0.5, 0.5, 1.5])
    x, y = torch.zeros(T, 4, 1), torch.zeros(T, 4)
    x[0, :, 0], y[: k + 1] = numbers, numbers
    for _ in range(STEPS):
        loss = (head(lstm(x)[0]).squeeze(-1) - y).square().sum(0).mean() / (k + 1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return lstm, head, x


def time_constant(lstm, head, x):
    """The units' mean, each weighed by how much of it is read."""
    with torch.no_grad(), inspect.record(lstm) as rec:
        lstm(x)
    plane = rec[""].only
    weights = head.weight[0].detach().abs() * plane.h.flatten(0, 1).std(0)
    return ((inspect.time_constants(plane) * weights).sum() / weights.sum()).item()


def spearman(values):
    """With 1, 2, ..., of values that all differ."""
    ranks, n = torch.tensor(values).argsort().argsort(), len(values)
    return 1 - 6 * (ranks - torch.arange(n)).square().sum().item() / (n * (n * n - 1))


@pytest.mark.parametrize(
    "values, rank", [((1, 2, 3, 4, 5), 1.0), ((5, 4, 3, 2, 1), -1.0), ((1, 2, 3, 5, 4), 0.9)]
)
def test_spearman(values, rank):
    assert spearman(values) == pytest.approx(rank)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_time_constants_rank_with_what_is_remembered(seed):
    found = [time_constant(*trained(k, seed)) for k in KS]
    assert spearman(found) >= 0.8, dict(zip(KS, found, strict=True))
