"""Discriminators of every path, samples for them, and their step in plain autograd."""

import itertools

import fusegen
import torch
from fusegen import losses
from torch import nn
from torch.utils.checkpoint import checkpoint

PENALTIES = {
    "none": {},
    "r1": {"r1": 10.0},
    "r2": {"r2": 3.0},
    "gp": {"gp": 10.0},
    "all": {"r1": 2.0, "r2": 1.0, "gp": 5.0},
}


def dense(sizes=(13, 40, 70, 1), activation=lambda: nn.LeakyReLU(0.2), flatten=False, bias=True):
    layers = [nn.Flatten()] if flatten else []
    for n, m in itertools.pairwise(sizes):
        layers += [nn.Linear(n, m, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def conv():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 16, 1),
    )  # fmt: skip


def conv_1d():
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=2, dilation=2, groups=3),
        nn.ReLU(),
        nn.Conv1d(6, 4, 2),
        nn.Conv1d(4, 1, 10),
    )


def batch_norm():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 36, 1)
    )


def patches():
    return nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.SiLU(), nn.Conv2d(4, 1, 1))


class Recurrent(nn.Module):
    """[T, B, F] -> [B]."""

    sample_dim = 1

    def __init__(self, lstm=fusegen.nn.LSTM):
        super().__init__()
        self.lstm, self.head = lstm(3, 6), nn.Linear(6, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][-1]).squeeze(-1)


class Checkpointed(nn.Module):
    """A network whose inner activations backward computes again."""

    def __init__(self, net, use_reentrant=False):
        super().__init__()
        self.net, self.use_reentrant = net, use_reentrant

    def forward(self, x):
        return checkpoint(self.net, x, use_reentrant=self.use_reentrant)


# A few samples fill the vectors of some instruction sets.
EITHER = ("autograd", "fused_conv")
SWEPT = dict.fromkeys(PENALTIES, "closed_form") | {"none": "autograd"}
PATHS = {
    "dense": (dense, (13,), 0, "fused_mlp"),
    "relu": (lambda: dense(activation=nn.ReLU), (13,), 0, "fused_mlp"),
    "one layer": (lambda: dense((13, 1)), (13,), 0, "fused_mlp"),
    "images": (lambda: dense((50, 65, 1), flatten=True, bias=False), (2, 5, 5), 0, "fused_mlp"),
    "smooth": (lambda: dense(activation=nn.Tanh), (13,), 0, "fused_mlp"),
    "softplus": (lambda: dense(activation=nn.Softplus), (13,), 0, SWEPT),
    "unknown": (lambda: dense(activation=nn.Mish), (13,), 0, "autograd"),
    "conv": (conv, (2, 8, 8), 0, {"none": EITHER}),
    "conv 1d": (conv_1d, (3, 11), 0, {"none": EITHER}),
    "batch norm": (
        batch_norm,
        (2, 8, 8),
        0,
        {**SWEPT, "none": EITHER},
    ),
    "patches": (patches, (2, 8, 8), 0, SWEPT),
    "recurrent": (Recurrent, (4, 3), 1, "recurrent"),
}


def ways(path, penalty="none"):
    """What may run a step of this network with few samples."""
    ran = PATHS[path][3]
    ran = ran if isinstance(ran, str) else ran.get(penalty, "fused_conv")
    return (ran,) if isinstance(ran, str) else ran


def samples(shape, n, dim, dtype=torch.float64):
    return torch.randn(*shape[:dim], n, *shape[dim:], dtype=dtype)


def eager(D, real, fake, loss, dim, generator, r1=0.0, r2=0.0, gp=0.0, smoothing=0.0):
    """The same in plain autograd: two passes, and create_graph for the penalties."""

    def logits(x):
        out = D(x)
        return out if out.dim() == 1 else out.flatten(1).mean(1)

    def gradient(x):
        x = x if x.requires_grad else x.detach().requires_grad_()
        (v,) = torch.autograd.grad(logits(x).sum(), x, create_graph=True)
        return v.movedim(dim, 0).flatten(1)

    r, f = logits(real), logits(fake)
    penalty = 0
    if r1:
        penalty = penalty + r1 / 2 * gradient(real).square().sum(1).mean()
    if r2:
        penalty = penalty + r2 / 2 * gradient(fake).square().sum(1).mean()
    if gp:
        shape = [1] * real.dim()
        shape[dim] = real.shape[dim]
        share = torch.rand(shape, dtype=real.dtype, generator=generator)
        norm = gradient(torch.lerp(real.detach(), fake.detach(), share)).norm(dim=1)
        penalty = penalty + gp * (norm - 1).square().mean()
    return losses.discriminator_loss(loss, r, f, smoothing) + penalty, r, f
