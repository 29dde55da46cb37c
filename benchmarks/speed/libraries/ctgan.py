"""CTGAN's critic: a step of the ctgan package's own code, ours in its place, an epoch of its training loop on
either; and what Dropout costs a plain fused step."""

from __future__ import annotations

import copy
import importlib.util
from contextlib import nullcontext
from time import perf_counter

import numpy as np
import torch
from torch import nn

from fusegen.gan import discriminator_step
from fusegen.gan.ctgan import fused_critic
from harness.bars import Bar, select
from harness.options import Options
from harness.peer import BaseRunner, NotCompared, Unavailable
from harness.record import Row
from harness.sweep import sweep
from networks.gan_problem import GanCase, GanProblem
from networks.table import COLUMNS, DISCRETE, table
from peers.discriminator import Ours

BATCH, PAC = 500, 10
STEP, EPOCH, DROPOUT = "ctgan-critic", "ctgan-epoch", "mlp-784-256-256-1"
LIMITS = {STEP: 1.6, EPOCH: 1.25}
DROPOUT_LIMIT = 1.15


def package():
    """The module with ctgan's networks and loop."""
    if importlib.util.find_spec("ctgan") is None:
        raise Unavailable("ctgan is not installed (pip install ctgan)")
    from ctgan.synthesizers import ctgan

    return ctgan


class CriticStep:
    """A turn of CTGAN's critic (256 x 256, packs of 10, WGAN-GP 10) on a batch as wide as that of ``table``.
    What is compared is of a critic that drops nothing and of one interpolation factor: Dropout's masks and
    the factors are drawn otherwise by each side (tests/gan/test_ctgan.py gives both the same)."""

    flops = 0  # not reckoned: what has to be computed depends on how it is written
    compared = "benchmark of a step"

    def __init__(self, case: GanCase):
        self.case, self.tokens = case, 2 * case.B
        torch.manual_seed(0)
        self.features = COLUMNS
        self.critic = package().Discriminator(self.features, (256, 256), pac=PAC)
        self.real, self.fake = (torch.randn(case.B, self.features) for _ in range(2))

    def reference(self) -> dict[str, torch.Tensor]:
        return half_way(Package(self, torch.float64))


class CriticRunner(BaseRunner):
    def __init__(self, problem: CriticStep, dtype: torch.dtype = torch.float32):
        self.problem, self.critic = problem, copy.deepcopy(problem.critic).to(dtype)
        self.real, self.fake = (x.to(dtype, copy=True) for x in (problem.real, problem.fake))

    def reset(self) -> None:
        self.critic.zero_grad(set_to_none=True)

    def results(self) -> dict[str, torch.Tensor]:
        return half_way(self)


def half_way(runner: CriticRunner) -> dict[str, torch.Tensor]:
    """Gradients of a step of it that drops nothing, at interpolates half way."""
    rand = torch.rand
    torch.rand = lambda *shape, dtype=None, **_: torch.full(
        shape if isinstance(shape[0], int) else shape[0], 0.5, dtype=dtype or runner.real.dtype
    )
    runner.critic.eval()
    try:
        runner.reset()
        runner.run()
    finally:
        torch.rand = rand
        runner.critic.train()
    return {name: p.grad.clone() for name, p in runner.critic.named_parameters()}


class Package(CriticRunner):
    """The package's lines for it. Its loop leaves fake samples in the generator's graph, so that they ask for
    a gradient: without, its penalty has none to differentiate."""

    def __init__(self, problem: CriticStep, dtype: torch.dtype = torch.float32):
        super().__init__(problem, dtype)
        self.fake.requires_grad_()

    def reset(self) -> None:
        super().reset()
        self.fake.grad = None

    def run(self) -> None:
        y_fake, y_real = self.critic(self.fake), self.critic(self.real)
        penalty = self.critic.calc_gradient_penalty(self.real, self.fake, "cpu", PAC)
        penalty.backward(retain_graph=True)
        (-(y_real.mean() - y_fake.mean())).backward()


class Fused(CriticRunner):
    def run(self) -> None:
        D, pac = self.critic.seq, self.critic.pac
        out = discriminator_step(D, self.real, self.fake, "wasserstein", gp=10.0, pac=pac)
        out.loss.backward()
        self.path = out.path


class Epoch:
    """An epoch of CTGAN's own loop on a table of T rows: both networks, both updates."""

    flops = 0

    def __init__(self, case: GanCase):
        package()
        self.case, self.tokens = case, case.T
        self.table = table(case.T)


class EpochRunner(BaseRunner):
    """Its time is that of the epoch alone: reading the table is the same for both."""

    def __init__(self, problem: Epoch, fused: bool):
        self.problem, self.fused = problem, fused

    def fit(self) -> None:
        model = package().CTGAN(epochs=1, batch_size=BATCH, pac=PAC, enable_gpu=False, verbose=False)
        model.set_random_state(0)
        with fused_critic() if self.fused else nullcontext():
            model.fit(self.problem.table, list(DISCRETE))
        self.trained = model

    def run(self) -> float:
        clock = _LoopClock(package())
        with clock:
            self.fit()
        return clock.seconds

    def results(self) -> dict[str, torch.Tensor]:
        """tests/gan/test_ctgan.py compares the two, draws and all; here, what was trained draws numbers."""
        drawn = self.trained.sample(100).select_dtypes("number").to_numpy()
        if not np.isfinite(drawn).all():
            raise RuntimeError("the generator draws what is no number")
        return {}


class _LoopClock:
    """Seconds from when the table has been read to the end."""

    def __init__(self, module):
        self.module = module

    def __enter__(self) -> None:
        self.before = make = self.module.DataSampler

        def sampler(*args, **options):
            made = make(*args, **options)
            self.start = perf_counter()
            return made

        self.module.DataSampler = sampler

    def __exit__(self, *_: object) -> None:
        self.seconds = perf_counter() - self.start
        self.module.DataSampler = self.before


class Dropped(Ours):
    """The fused step of the same network with Dropout(0.5) behind each activation, in the same rounds."""

    def __init__(self, problem, net: nn.Module):
        layers = []
        for m in net:
            layers += [m, nn.Dropout(0.5)] if isinstance(m, nn.LeakyReLU) else [m]
        super().__init__(problem, nn.Sequential(*layers))

    def results(self) -> dict[str, torch.Tensor]:
        """Against autograd with the same masks: tests/gan/test_dense_options.py."""
        return {}


class Peer:
    def __init__(self, name: str, cell: str, make):
        self.name, self.cell, self.make = name, cell, make

    def prepare(self, problem):
        if problem.case.cell != self.cell:
            raise NotCompared
        return self.make(problem)


PEERS = (
    Peer("fused", STEP, Fused),
    Peer("ctgan", STEP, Package),
    Peer("fused", EPOCH, lambda problem: EpochRunner(problem, fused=True)),
    Peer("ctgan", EPOCH, lambda problem: EpochRunner(problem, fused=False)),
    Peer("fused", DROPOUT, lambda problem: Ours(problem, copy.deepcopy(problem.net))),
    Peer("fused dropout", DROPOUT, lambda problem: Dropped(problem, copy.deepcopy(problem.net))),
)


def cases(quick: bool) -> list[GanCase]:
    plain = [GanCase(DROPOUT, B) for B in ((64,) if quick else (64, 256))]
    return [GanCase(STEP, BATCH, "gp"), *plain, GanCase(EPOCH, BATCH, "gp", T=2000 if quick else 10_000)]


MAKE = {STEP: CriticStep, EPOCH: Epoch, DROPOUT: GanProblem}


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
    budget = options.budget(len(chosen), 4, 1.0)
    rows = []
    for case in chosen:
        ours = [peer for peer in PEERS if peer.cell == case.cell]
        rows += sweep("ctgan", [case], options.contestants(ours), budget, make=MAKE[case.cell], note=path)
    return rows


def path(name: str, problem, runner: BaseRunner) -> str:
    """Of our rows, which way the step took."""
    return getattr(runner, "path", runner.remark)


def bars(rows: list[Row]) -> list[Bar]:
    made = [
        Bar(f"{entry.cell}, the package's own / fused", entry.ratio_fused, LIMITS[entry.cell])
        for entry in select(rows, peer="ctgan")
    ]
    return made + [
        Bar(
            f"{entry.cell}, B {entry.B}, with Dropout / without, fused",
            entry.ratio_fused,
            DROPOUT_LIMIT,
            at_most=True,
        )
        for entry in select(rows, peer="fused dropout")
    ]
