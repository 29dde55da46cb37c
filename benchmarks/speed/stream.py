"""fusegen.Stream, one step of one session on one thread, beside a step of torch.nn's cell and layer, of a
session of ONNX Runtime and of tract. In the rows, `fused` is the stream."""

from __future__ import annotations

import torch

import fusegen
from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.peer import BaseRunner
from harness.problem import CELLS
from harness.record import Row
from harness.threads import sweep_by_threads, with_form
from peers.ort import OnnxRuntimeStep
from peers.torch_eager import TorchEager
from peers.tract import Tract
from speed.small import SmallCase

SIZES = (32, 64, 128, 256, 512)
# Of torch.nn's cell and layer, by H: voice activity and keyword spotting run at 128; from 256 on a step is
# bound by reading the weights.
LEAST = {("cell", 128): 4.0, ("layer", 128): 3.0, ("cell", 256): 2.0}
LEAST_ONNX, LEAST_TRACT = 1.5, 1.1


class StreamRunner(BaseRunner):
    def __init__(self, problem):
        case = problem.case
        module = problem.module(torch.nn)
        self.stream, self.x = fusegen.Stream(module, case.B), problem.x
        state = getattr(problem, "state", None)
        self.start = None
        if state is not None:
            h = [s.unsqueeze(0) for s in state]
            self.start = h[0] if len(h) == 1 else tuple(h)
        self.cell = case.form == "cell"

    def reset(self) -> None:
        self.stream.state = self.start

    def run(self) -> None:
        self.y = self.stream(self.x)

    def results(self) -> dict[str, torch.Tensor]:
        state = self.stream.state
        states = (state,) if isinstance(state, torch.Tensor) else state
        found = dict(zip(("h_n", "c_n"), (s[0] for s in states), strict=False))
        return found if self.cell else {"y": self.y, **found}


class OurStream:
    name = "fused"

    def prepare(self, problem) -> StreamRunner:
        return StreamRunner(problem)


def cases(quick: bool) -> list[SmallCase]:
    sizes = (128,) if quick else SIZES
    return [
        SmallCase(cell, H, 1, 1, form=form) for cell in CELLS for H in sizes for form in ("cell", "layer")
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
    peers = [OurStream(), TorchEager(), OnnxRuntimeStep(), Tract()]
    return sweep_by_threads("stream", chosen, options.contestants(peers), options.budget(len(chosen), 3, 0.3))


def bars(rows: list[Row]) -> list[Bar]:
    torch_rows, made = select(rows, peer="torch", cell=("lstm", "gru")), []
    for (form, H), least in LEAST.items():
        for cell in ("lstm", "gru"):
            found = ratios(select(with_form(torch_rows, form), H=H, cell=cell))
            made += [Bar(f"{cell} H{H}, torch.nn's {form} / stream", value, least) for value in found]
    onnx = select(rows, peer="onnxruntime")
    at_128 = ratios(select(onnx, H=128, cell=("lstm", "gru")))
    made += mean_and_worst("H128, ONNX Runtime / stream", at_128, LEAST_ONNX, LEAST_ONNX)
    at_128 = ratios(select(rows, peer="tract", H=128, cell=("lstm", "gru")))
    made += mean_and_worst("H128, tract / stream", at_128, LEAST_TRACT, LEAST_TRACT)
    made += mean_and_worst("all, torch.nn / stream", ratios(select(rows, peer="torch")), None, 0.97)
    made += mean_and_worst("all, ONNX Runtime / stream", ratios(onnx), None, 0.97)
    made += mean_and_worst("all, tract / stream", ratios(select(rows, peer="tract")), None, 0.97)
    return made
