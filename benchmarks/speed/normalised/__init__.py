"""Layers with layer norms in the recurrence, training: beside a Python loop over torch's operators,
torch.compile of that loop, and our own plain layer; and block-diagonal layers beside the plain one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import fusegen
from fusegen.ops.normalised import formula as reference_normalised
from harness.bars import Bar, ratios, select
from harness.options import Options
from harness.peer import NotCompared
from harness.problem import Case, Problem
from harness.record import Row
from harness.runners import LayerRunner
from harness.sweep import sweep
from peers.ours import Ours

NORMS = ("haste", "ba", "dreamer")
LEAST_LOOP, LEAST_COMPILED, MOST_PLAIN = 8.0, 3.0, 1.5
WEIGHTS = ("weight_ih", "weight_hh", "gain_ih", "bias_ih", "gain_hh", "bias_hh", "gain_c", "bias_c")


@dataclass(frozen=True)
class NormalisedCase(Case):
    """`form`: the norm, or "blocks" of 8 without one."""

    @property
    def options(self) -> dict:
        return {"block_diagonal": 8} if self.form == "blocks" else {"norm": self.form}

    @property
    def class_name(self) -> str:
        return ("BlockDiagonal" if self.form == "blocks" else "LayerNorm") + self.cell.upper()


class NormalisedProblem(Problem):
    """Parameters as the module begins with; the answer is the reference formula's in float64."""

    lengths = None
    compared = "benchmark normalised"

    def __init__(self, case: NormalisedCase, seed: int = 0) -> None:
        self.case = case
        torch.manual_seed(seed)
        self.x, self.dy = torch.randn(case.T, case.B, case.I), torch.randn(case.T, case.B, case.H)
        self.ours = getattr(fusegen.nn, case.class_name)(case.I, case.H, **case.options)

    def module(self, namespace: object) -> torch.nn.Module:
        return self.ours.train(self.case.train).requires_grad_(self.case.train)

    @property
    def flops(self) -> int:
        case, k = self.case, self.ours.block_diagonal
        gates = self.ours._spec.gates
        forward = 2 * gates * case.H * (case.I + case.H // k) * self.tokens
        return 3 * forward if case.train else forward

    def reference(self) -> dict[str, Tensor]:
        weights = [None if w is None else w.detach().double() for w in self.ours._weights_of("_l0")]
        leaves = {n: w.requires_grad_() for n, w in zip(WEIGHTS, weights, strict=True) if w is not None}
        x = self.x.double().requires_grad_()
        y, *states = reference_normalised.layer(self.ours._kind, x, self._states(), weights)
        y.backward(self.dy.double())
        found = {"y": y, "dx": x.grad} | {f"d{n}": w.grad for n, w in leaves.items()}
        return found | dict(zip(("h_n", "c_n"), (s[0] for s in states), strict=False))

    def _states(self) -> list[None]:
        return [None] * len(self.ours._spec.states)


class NormalisedRunner(LayerRunner):
    """Gradients by the parameters' own names."""

    def results(self) -> dict[str, Tensor]:
        found = {name: value.detach() for name, value in self.outputs().items()}
        if self.train:
            found |= {"dx": self.leaves["x"].grad}
            found |= {"d" + n.removesuffix("_l0"): p.grad for n, p in self.module.named_parameters()}
        return found


class OursNormalised(Ours):
    def runner(self, problem: NormalisedProblem) -> NormalisedRunner:
        return NormalisedRunner(problem.module(fusegen.nn), problem)


class OursPlain(Ours):
    """Our layer without a norm, of the same sizes: another answer, nothing to check here."""

    def runner(self, problem: NormalisedProblem) -> LayerRunner:
        case = problem.case
        module = getattr(fusegen.nn, case.cell.upper())(case.I, case.H)
        runner = LayerRunner(module.train(case.train).requires_grad_(case.train), problem)
        runner.results = dict
        return runner


class Loop:
    """A Python loop of cells, of torch's operators: what people write; `compiled`: by torch.compile, the
    whole of it as one graph."""

    def __init__(self, name: str, compiled: bool = False) -> None:
        self.name, self.compiled = name, compiled

    def prepare(self, problem: NormalisedProblem) -> NormalisedRunner:
        if problem.case.form == "blocks":
            raise NotCompared
        module = problem.module(fusegen.nn)
        runner = NormalisedRunner(module, problem)
        run: Callable[[Tensor], tuple[Tensor, ...]] = partial(_by_loop, module, problem._states())
        if self.compiled:
            torch.compiler.reset()
            run = torch.compile(run, dynamic=False)

        def call(x: Tensor) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
            y, *states = run(x)
            return y, tuple(states) if len(states) == 2 else states[0]

        runner.call = call
        return runner


def _by_loop(module: torch.nn.Module, states: list[None], x: Tensor) -> tuple[Tensor, ...]:
    return reference_normalised.layer(module._kind, x, states, module._weights_of("_l0"))


def cases(quick: bool) -> list[NormalisedCase]:
    forms = ("haste", "blocks") if quick else (*NORMS, "blocks")
    return [NormalisedCase(cell, 256, 32, 100, True, form=form) for form in forms for cell in ("lstm", "gru")]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
    peers = [OursNormalised("fused"), OursPlain("plain"), Loop("loop"), Loop("compile", compiled=True)]
    budget = options.budget(len(chosen), 6, 1)
    return sweep("normalised", chosen, options.contestants(peers), budget, make=NormalisedProblem)


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for entry in select(rows, peer="loop"):
        what = f"{entry.form} {entry.cell}, a loop of cells / fused"
        made += [Bar(what, r, LEAST_LOOP) for r in ratios([entry])]
    for entry in select(rows, peer="compile"):
        what = f"{entry.form} {entry.cell}, torch.compile of that loop / fused"
        made += [Bar(what, r, LEAST_COMPILED) for r in ratios([entry])]
    for entry in select(rows, peer="plain"):
        of_blocks = entry.form.startswith("blocks")
        limit = None if of_blocks else MOST_PLAIN
        what = f"{entry.form} {entry.cell}, fused / our plain layer"
        made += [Bar(what, 1 / r, limit, at_most=True) for r in ratios([entry])]
    return made
