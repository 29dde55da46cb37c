"""What the discriminator's step is measured on: dense networks, DCGAN's, and one of LSTMs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from peers.discriminator import Eager

PENALTIES = {"none": {}, "r1": {"r1": 10.0}, "gp": {"gp": 10.0}}


class RecurrentD(nn.Module):
    """[T, B, F] -> [B]."""

    sample_dim = 1

    def __init__(self, layers: type):
        super().__init__()
        self.lstm, self.head = layers(64, 256, num_layers=2), nn.Linear(256, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][-1]).squeeze(-1)


def mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def dcgan() -> nn.Sequential:
    """32 px, three strided convolutions with BatchNorm behind the second and third (Radford et al. 2016)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for n, m in ((64, 128), (128, 256)):
        layers += [nn.Conv2d(n, m, 4, 2, 1, bias=False), nn.BatchNorm2d(m), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(256, 1, 4), nn.Flatten())


@dataclass(frozen=True)
class GanCase:
    """A network and a batch of B real and B fake samples; a row's columns that it does not have are 0."""

    cell: str  # mlp-784-256-256-1, dcgan or lstm
    B: int
    penalty: str = "none"
    T: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    mode: str = "training"

    I = H = 0
    train = True

    @property
    def form(self) -> str:
        return self.penalty

    @property
    def name(self) -> str:
        return f"{self.cell} {self.penalty} {self.dtype} B{self.B}"

    @property
    def widths(self) -> tuple[int, ...] | None:
        return tuple(map(int, self.cell.split("-")[1:])) if self.cell.startswith("mlp") else None


class GanProblem:
    """Weights and samples; every peer has a copy of the network and the same samples and interpolates."""

    flops = bytes = 0  # not reckoned: what has to be computed depends on how it is written

    @property
    def compared(self) -> str:
        return "benchmark of batch norms" if self.case.cell == "dcgan" else "benchmark of a step"

    def __init__(self, case: GanCase):
        self.case, self.tokens = case, 2 * case.B
        torch.manual_seed(0)
        if case.widths:
            self.net, shape, self.dim = mlp(case.widths), (case.B, case.widths[0]), 0
        elif case.cell == "dcgan":
            self.net, shape, self.dim = dcgan(), (case.B, 3, 32, 32), 0
        else:
            self.net, shape, self.dim = RecurrentD(nn.LSTM), (case.T, case.B, 64), 1
        self.net = self.net.to(case.device)
        self.real, self.fake = (torch.randn(shape).to(case.device) for _ in range(2))
        self.weights = PENALTIES[case.penalty]

    def generator(self) -> torch.Generator:
        return torch.Generator(self.case.device).manual_seed(0)

    def shares(self) -> torch.Tensor:
        return torch.rand(self.case.B, 1, device=self.case.device, generator=self.generator())

    def reference(self) -> dict[str, torch.Tensor]:
        """Loss and gradients of the eager step in float64."""
        problem = copy.copy(self)
        problem.real, problem.fake = self.real.double(), self.fake.double()
        runner = Eager(problem, copy.deepcopy(self.net).double())
        runner.run()
        return runner.results()
