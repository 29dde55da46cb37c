"""A layer with something inside its recurrence, and what people write where their layer has none of it."""

from __future__ import annotations

from typing import Any

import torch

import fusegen
from harness.problem import Case, Problem
from harness.runners import LayerRunner, ModuleRunner, module_runner
from peers.ours import Ours

SHARE = 0.05  # of steps at which an episode begins


class Episodes(Problem):
    """A padded batch in which episodes begin, `starts` [T,B] bool; its answer is a loop's over steps."""

    def __init__(self, case: Case, seed: int = 0):
        super().__init__(case, seed)
        drawn = torch.rand(case.T, case.B, generator=torch.Generator().manual_seed(seed + 1))
        self.starts = drawn < SHARE

    def reference(self) -> dict[str, torch.Tensor]:
        wide = Episodes(Case(**{**vars(self.case), "train": True}))
        wide.case = Case(**{**vars(wide.case), "dtype": "float64"})
        wide.x, wide.dy = self.x.double(), self.dy.double()
        wide.weights = [w.double() for w in self.weights]
        runner = LoopRunner(wide.module(torch.nn), wide)
        runner.run()
        return runner.results()


class LoopRunner(LayerRunner):
    """sb3-contrib's way through a batch with episode starts: a call of the layer for each step, its state
    multiplied by 1 - start before."""

    def forward(self) -> list[torch.Tensor]:
        case, keeps = self.problem.case, 1.0 - self.problem.starts.to(self.x.dtype)
        zero = self.x.new_zeros(1, case.B, case.H)
        state: tuple[torch.Tensor, ...] = (zero, zero) if case.cell == "lstm" else (zero,)
        out = []
        for x, keep in zip(self.x.unbind(), keeps.unbind(), strict=True):
            state = tuple(s * keep.view(1, -1, 1) for s in state)
            y, last = self.call(x.unsqueeze(0), state if len(state) == 2 else state[0])
            state = last if isinstance(last, tuple) else (last,)
            out.append(y)
        self.y, self.state = torch.cat(out), state if len(state) == 2 else state[0]
        return [self.y]


class Loop:
    """torch.nn, step by step."""

    name = "torch loop"

    def prepare(self, problem: Episodes) -> ModuleRunner:
        return LoopRunner(problem.module(torch.nn), problem)


class Whole:
    """torch.nn on the whole sequence, without resets: another answer, nothing to check."""

    name = "torch"

    def prepare(self, problem: Episodes) -> ModuleRunner:
        return unchecked(module_runner(torch.nn, problem))


class OursInside(Ours):
    """fusegen.nn with these options of the constructor, and resets as `starts` says: "episodes", "none" of
    which is set, or "" for no mask."""

    def __init__(self, name: str, starts: str = "", **options: Any):
        super().__init__(name)
        self.starts, self.options = starts, options

    def runner(self, problem: Episodes) -> ModuleRunner:
        module = problem.module(fusegen.nn)
        for name, value in self.options.items():
            pair = name == "zoneout" and problem.case.cell == "lstm"
            setattr(module, name, (value, value) if pair else value)
        runner = LayerRunner(module, problem)
        if self.starts:
            none = torch.zeros_like(problem.starts)
            runner.extra = {"resets": problem.starts if self.starts == "episodes" else none}
        return runner if self.starts == "episodes" else unchecked(runner)


def unchecked(runner: ModuleRunner) -> ModuleRunner:
    """Its answer is another than the problem's: nothing is compared."""
    runner.results = dict
    return runner
