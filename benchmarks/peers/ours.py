"""fusegen under each of its backends, and the same layer in the other ways that a user can call it."""

from __future__ import annotations

from contextlib import ExitStack
from copy import copy
from dataclasses import replace

import torch

import fusegen
from fusegen._choice import MEASURED_GPUS, slug
from harness.peer import NotCompared
from harness.runners import LayerRunner, ModuleRunner, module_runner


class Ours:
    """fusegen.nn after set_backend(backend); frozen: inside fusegen.frozen(module), weights packed once."""

    def __init__(self, name: str, backend: str = "fused", frozen: bool = False):
        self.name, self.backend, self.frozen = name, backend, frozen

    def prepare(self, problem) -> ModuleRunner:
        if self.frozen and (problem.case.train or problem.case.form == "ragged"):
            raise NotCompared
        return self.dress(self.runner(problem))

    def runner(self, problem) -> ModuleRunner:
        if problem.case.form == "ragged":
            return LayerRunner(problem.module(fusegen.nn), problem, lengths=True)
        return module_runner(fusegen.nn, problem)

    def dress(self, runner: ModuleRunner) -> ModuleRunner:
        """The backend is the process's, so each turn sets its own; freezing lasts until close()."""
        stack, reset = ExitStack(), runner.reset
        stack.callback(fusegen.set_backend, fusegen.get_backend())
        if self.frozen:
            stack.enter_context(fusegen.frozen(runner.module))

        def select_and_reset():
            fusegen.set_backend(self.backend)
            reset()

        runner.reset, runner.close = select_and_reset, stack.close
        return runner


class OursQuantized(Ours):
    """fusegen.quantize; weight_only: activations stay float32, which is for one row."""

    def __init__(self, name: str, weight_only: bool = False):
        super().__init__(name)
        self.weight_only = weight_only

    def prepare(self, problem) -> ModuleRunner:
        if self.weight_only and problem.case.B > 1:
            raise NotCompared
        return super().prepare(problem)

    def runner(self, problem) -> ModuleRunner:
        small = fusegen.quantize(problem.module(torch.nn), weight_only=self.weight_only)
        runner = LayerRunner(small, problem)
        runner.compared = "benchmark of 8 bits"
        return runner


class OursRecomputing(Ours):
    """With recompute=k: backward makes the gates again."""

    def __init__(self, every: int):
        super().__init__(f"recompute={every}")
        self.every = every

    def prepare(self, problem) -> ModuleRunner:
        if not problem.case.train or problem.case.cell == "rnn":  # which keeps its output alone
            raise NotCompared
        return super().prepare(problem)

    def runner(self, problem) -> ModuleRunner:
        runner = super().runner(problem)
        runner.module.recompute = self.every
        return runner


class OursWhereMeasured(Ours):
    """Under "auto", on a GPU whose table of measurements is committed; elsewhere that is torch.nn."""

    def prepare(self, problem) -> ModuleRunner:
        if slug(torch.cuda.get_device_name()) not in MEASURED_GPUS:
            raise NotCompared
        return super().prepare(problem)


class OursPacked(Ours):
    """A ragged batch as a PackedSequence, as torch.nn takes it, in place of `lengths=`."""

    def runner(self, problem) -> ModuleRunner:
        return module_runner(fusegen.nn, problem)


class OursPadded(Ours):
    """The same tensors without lengths: every row runs T steps. Another answer: nothing to check here."""

    def runner(self, problem) -> ModuleRunner:
        dense = copy(problem)
        dense.case, dense.lengths = replace(problem.case, form="layer"), None
        runner = module_runner(fusegen.nn, dense)
        runner.results = dict
        return runner
