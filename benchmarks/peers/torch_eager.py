"""torch.nn as it is; on a GPU that is cuDNN."""

from __future__ import annotations

import torch

from harness.runners import ModuleRunner, module_runner


class TorchEager:
    name = "torch"

    def prepare(self, problem) -> ModuleRunner:
        return module_runner(torch.nn, problem)
