"""One discriminator step, forward and backward, against the ways to write it in plain torch.

Peers: eager (D called on real, then on fake, as most training scripts do), concatenated (both at once),
compile (concatenated, in torch.compile), and for penalties func (torch.func.grad in place of a second
backward, compiled). On a GPU ours and eager also as one CUDA graph of the whole step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

import fusegen
from bars import Bar, mean_and_worst, ratios, select
from fusegen.gan import discriminator_step
from options import Options
from peers import BaseRunner, NotCompared, gpu
from record import Row
from sweep import OURS, sweep

MLPS = ((784, 256, 256, 1), (784, 512, 256, 128, 1), (784, 1024, 512, 256, 1), (3072, 1024, 1024, 1))
PENALTIES = {"none": {}, "r1": {"r1": 10.0}, "gp": {"gp": 10.0}}
COMPILED = (MLPS[0], 64)  # on a GPU, whose stages are short: compiling takes longer than timing


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

    # WGAN-GP's ||v|| - 1 and the recurrent network's biases cancel: autograd itself is off by 5e-4.
    # Behind batch norms torch's own convolutions, held to AVX2, are off by 3.4e-3.
    @property
    def tolerance(self) -> float:
        return 1e-2 if self.case.cell == "dcgan" else 2e-3

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


def adversarial(r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    return F.softplus(-r).mean() + F.softplus(f).mean()


class StepRunner(BaseRunner):
    def __init__(self, problem: GanProblem, net: nn.Module):
        self.problem, self.net = problem, net

    def reset(self) -> None:
        self.net.zero_grad(set_to_none=True)

    def drop(self) -> None:
        self.value = None

    def run(self) -> None:
        self.value = self.loss()
        self.value.backward()

    def results(self) -> dict[str, torch.Tensor]:
        return {"loss": self.value.detach()} | {name: p.grad for name, p in self.net.named_parameters()}


class Eager(StepRunner):
    """Two calls of D, and create_graph for a penalty."""

    def penalty(self, real: torch.Tensor, r: torch.Tensor | None) -> torch.Tensor | float:
        problem = self.problem
        if problem.case.penalty == "none":
            return 0.0
        if problem.case.penalty == "r1":
            (v,) = torch.autograd.grad(r.sum(), real, create_graph=True)
            return 5.0 * v.flatten(1).square().sum(1).mean()
        mixed = torch.lerp(problem.real, problem.fake, problem.shares().to(real.dtype)).requires_grad_()
        (v,) = torch.autograd.grad(self.net(mixed).sum(), mixed, create_graph=True)
        return 10.0 * (v.flatten(1).norm(dim=1) - 1).square().mean()

    def loss(self) -> torch.Tensor:
        real = self.problem.real.detach().requires_grad_(self.problem.case.penalty == "r1")
        r, f = self.net(real).flatten(), self.net(self.problem.fake).flatten()
        return adversarial(r, f) + self.penalty(real, r)


class Concatenated(Eager):
    """D called once; only where a batch statistic does not tie the halves together."""

    def loss(self) -> torch.Tensor:
        problem = self.problem
        real = problem.real.detach().requires_grad_(problem.case.penalty == "r1")
        r, f = self.net(torch.cat((real, problem.fake), problem.dim)).flatten().split(problem.case.B)
        return adversarial(r, f) + self.penalty(real, r)


def _compile(step):
    """For this size alone: of one piece of source so many versions are kept, and the next runs eagerly."""
    torch.compiler.reset()
    return torch.compile(step, dynamic=False)


class Functional(StepRunner):
    """The penalty by torch.func.grad over each sample, the whole of it compiled."""

    def __init__(self, problem: GanProblem, net: nn.Module):
        super().__init__(problem, net)
        names = [name for name, _ in net.named_parameters()]

        def step(parameters, real, fake, mixed):
            weights = dict(zip(names, parameters, strict=True))

            def logit(x):
                return torch.func.functional_call(net, weights, (x.unsqueeze(0),)).squeeze()

            r, f = (
                torch.func.functional_call(net, weights, (torch.cat((real, fake)),))
                .flatten()
                .split(len(real))
            )
            v = torch.func.vmap(torch.func.grad(logit))(mixed)
            if problem.case.penalty == "r1":
                return adversarial(r, f) + 5.0 * v.square().sum(1).mean()
            return adversarial(r, f) + 10.0 * (v.norm(dim=1) - 1).square().mean()

        self.step = _compile(step)

    def loss(self) -> torch.Tensor:
        problem = self.problem
        mixed = (
            problem.real
            if problem.case.penalty == "r1"
            else torch.lerp(problem.real, problem.fake, problem.shares())
        )
        return self.step(list(self.net.parameters()), problem.real, problem.fake, mixed)


class Compiled(Concatenated):
    def __init__(self, problem: GanProblem, net: nn.Module):
        super().__init__(problem, net)
        self.step = _compile(lambda x: adversarial(*net(x).flatten().split(problem.case.B)))

    def loss(self) -> torch.Tensor:
        return self.step(torch.cat((self.problem.real, self.problem.fake)))


class Ours(StepRunner):
    backend = "fused"

    def __init__(self, problem: GanProblem, net: nn.Module):
        super().__init__(problem, fusegen.convert(net))
        self.before = fusegen.get_backend()

    def close(self) -> None:
        fusegen.set_backend(self.before)

    def loss(self) -> torch.Tensor:
        problem = self.problem
        fusegen.set_backend(self.backend)
        generator = problem.generator() if problem.case.penalty == "gp" else None  # draws what shares() draws
        out = discriminator_step(self.net, problem.real, problem.fake, generator=generator, **problem.weights)
        self.path = out.path
        return out.loss


class Auto(Ours):
    backend = "auto"


class Step:
    """A way to write the step, for the cases that it fits."""

    def __init__(self, name: str, runner: type, fits=lambda case: True):
        self.name, self.runner, self.fits = name, runner, fits

    def prepare(self, problem: GanProblem) -> StepRunner:
        if not self.fits(problem.case):
            raise NotCompared
        return self.runner(problem, copy.deepcopy(problem.net))


class InGraph(gpu.InGraph):
    """The whole step as one CUDA graph; what draws interpolates on the way cannot be captured."""

    def prepare(self, problem: GanProblem) -> gpu.GraphRunner:
        if problem.case.penalty == "gp":
            raise NotCompared
        return gpu.GraphRunner(self.peer.prepare(problem))


def _compiled(case: GanCase) -> bool:
    dense = case.cell.startswith("mlp")
    return dense and (case.device == "cpu" or (case.widths, case.B) == COMPILED)


PEERS = [
    Step("fused", Ours),
    Step("eager", Eager),
    Step("concatenated", Concatenated, lambda case: case.cell != "dcgan"),
    Step("compile", Compiled, lambda case: _compiled(case) and case.penalty == "none"),
    Step("func", Functional, lambda case: _compiled(case) and case.penalty != "none"),
    Step("auto", Auto, lambda case: case.device == "cpu"),  # on a GPU it is plain torch
]
GRAPHS = [InGraph("graph", Step("fused", Ours)), InGraph("eager graph", Step("eager", Eager))]


def cases(quick: bool, device: str = "cpu") -> list[GanCase]:
    sizes = [MLPS[0], MLPS[1]] if quick else MLPS
    dense = [
        GanCase("-".join(["mlp", *map(str, widths)]), B, penalty, 0, dtype, device)
        for dtype in (("float32", "tf32") if device == "cuda" else ("float32",))
        for widths in sizes
        for B in ((64,) if quick else (64, 256))
        for penalty in PENALTIES
    ]
    return [*dense, GanCase("dcgan", 64, device=device), GanCase("lstm", 32, T=100, device=device)]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick, options.device))
    peers = PEERS + GRAPHS if options.device == "cuda" else PEERS
    return sweep(
        "gan",
        chosen,
        options.contestants(peers),
        options.budget(len(chosen), 4, 1),
        make=GanProblem,
        note=path,
    )


def path(name: str, problem: GanProblem, runner: BaseRunner) -> str:
    """Of our rows, which way the step took."""
    return runner.path if name in ("fused", "auto") else ""


def best_of_all(rows: list[Row], ours: str = "fused") -> list[float]:
    """Of each case the time of the fastest peer over ours."""
    best: dict[tuple, float] = {}
    for entry in select(rows, peer=lambda name: name not in OURS):
        ratio, case = getattr(entry, f"ratio_{ours}"), (entry.cell, entry.form, entry.B)
        if ratio != "":
            best[case] = min(best.get(case, ratio), ratio)
    return list(best.values())


def bars(rows: list[Row]) -> list[Bar]:
    dense = select(rows, cell=lambda name: name.startswith("mlp"))
    plain, r1, gp = (select(dense, form=form) for form in PENALTIES)
    made = [
        *mean_and_worst("MLP step, eager / fused", ratios(select(plain, peer="eager")), 1.45),
        *mean_and_worst("MLP step, best peer / fused", best_of_all(plain), 1.15),
        *mean_and_worst("MLP step, best peer / auto", best_of_all(plain, "auto"), None, 0.98),
        *mean_and_worst("MLP step with R1, eager / fused", ratios(select(r1, peer="eager")), 1.85),
        *mean_and_worst("MLP step with WGAN-GP, eager / fused", ratios(select(gp, peer="eager")), None),
    ]
    ours = {(row.cell, row.B): row.value for row in select(plain, peer="fused")}
    costs = [
        row.value / ours[row.cell, row.B] for row in select(r1, peer="fused") if (row.cell, row.B) in ours
    ]
    if costs:
        made.append(Bar("MLP step, with R1 / without, fused, largest", max(costs), 1.38, at_most=True))
    for cell, mean in (("lstm", 1.4), ("dcgan", 1.3)):
        made += mean_and_worst(
            f"{cell} step, eager / fused", ratios(select(rows, cell=cell, peer="eager")), mean
        )
    return made


def bars_cuda(rows: list[Row]) -> list[Bar]:
    rows = select(rows, suite="gan")
    dense = select(rows, cell=lambda name: name.startswith("mlp"))
    made = []
    for dtype in ("float32", "tf32"):
        part = select(dense, dtype=dtype)
        plain, r1 = select(part, form="none"), select(part, form="r1")
        made += mean_and_worst(f"MLP step, {dtype}, eager / fused", ratios(select(plain, peer="eager")), 6)
        for what, of, limit in (("MLP step", plain, 2), ("MLP step with R1", r1, 2.5)):
            graphs = ratios(select(of, peer="eager graph"), "graph")
            made += mean_and_worst(f"{what}, {dtype}, one CUDA graph each", graphs, limit)
    for cell in ("lstm", "dcgan"):
        made += mean_and_worst(
            f"{cell} step, eager / fused", ratios(select(rows, cell=cell, peer="eager")), None
        )
    return made
