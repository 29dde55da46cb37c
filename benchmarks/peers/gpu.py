"""What is compared on a GPU beside the plain calls: the same under a CUDA graph, and the recurrence alone."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch

from fusegen.ops import gpu
from peers import BaseRunner, NotCompared
from problem import Case

LAYERS = {"lstm": gpu.LSTM, "gru": gpu.GRU, "rnn": gpu.RNN}


@contextmanager
def precision(case: Case):
    """torch's switches for float32 products, in recurrent layers and outside: TF32 where the case says so."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = case.dtype == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class GraphRunner(BaseRunner):
    """A runner's whole call, captured once. Its input and gradient tensors stay where they are."""

    def __init__(self, runner):
        self.runner, self.graph = runner, torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                runner.reset()
                runner.run()
        torch.cuda.current_stream().wait_stream(stream)
        runner.reset()
        runner.drop()  # autograd nodes that live on would tie the capture to another stream
        with torch.cuda.graph(self.graph, stream=stream):
            runner.run()
        self.found = runner.results()

    def run(self) -> None:
        self.graph.replay()

    def results(self) -> dict[str, torch.Tensor]:
        return self.found

    def close(self) -> None:
        self.graph.reset()
        self.runner.close()


class InGraph:
    """Another peer, under a CUDA graph."""

    def __init__(self, name: str, peer):
        self.name, self.peer = name, peer

    def prepare(self, problem) -> GraphRunner:
        if problem.case.form == "ragged":  # another batch has other lengths, and packing is the host's
            raise NotCompared
        return GraphRunner(self.peer.prepare(problem))


class RecurrenceRunner(BaseRunner):
    """fusegen's kernels on gate inputs that are there already; in training, their backward alone."""

    def __init__(self, problem):
        case = problem.case
        self.kind, self.problem = LAYERS[case.cell], problem
        weights = [w.to(case.device) for w in problem.weights]
        self.R = [weights[1]]
        self.gx, self.b_hn = gpu.gate_inputs(self.kind, problem.x, weights)
        self.forward(case.train)

    def forward(self, train: bool) -> None:
        self.y, self.h_n, self.c_n, self.gates, self.cells = gpu.recurrence(
            self.kind, self.gx, self.R, [], self.b_hn, None, None, None, False, train
        )

    def run(self) -> None:
        if not self.problem.case.train:
            self.forward(False)
            return
        gpu.recurrence_backward(
            self.kind, self.problem.dy, None, None, self.R, [], self.y, None, None, None, self.gates,
            self.cells, False,
        )  # fmt: skip

    def results(self) -> dict[str, torch.Tensor]:
        found = {"y": self.y, "h_n": self.h_n[0]}
        return found if self.c_n is None else found | {"c_n": self.c_n[0]}


class Recurrence:
    """Alone, without the products that come before and after; compared with the plan, not with a peer."""

    name = "recurrence"

    def prepare(self, problem) -> RecurrenceRunner:
        if problem.case.form != "layer":
            raise NotCompared
        return RecurrenceRunner(problem)


def kernels(runner) -> str:
    """Names of the CUDA kernels of one call and how often each ran: which algorithm it was."""
    activity = torch.profiler.ProfilerActivity.CUDA
    runner.reset()
    try:
        with torch.profiler.profile(activities=[activity]) as seen:
            runner.run()
            torch.cuda.synchronize()
    except RuntimeError as error:  # where the profiler may not read the device
        return f"kernels unknown: {str(error).splitlines()[0]}"
    names = Counter(
        event.name for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA
    )
    listed = (f"{short(name)} x{n}" for name, n in names.most_common())
    return "; ".join(name for name in listed if not name.startswith(("Mem", "mem")))


def short(kernel: str) -> str:
    """A kernel's name without its template arguments and parameters."""
    name = kernel.removeprefix("void ")
    for mark in "<(":
        name = name.partition(mark)[0]
    return name.rsplit("::", 1)[-1]


def way(case: Case) -> str:
    """The plan of fusegen's kernels for a case on the GPU in use, in words."""
    dtype = "float32" if case.dtype == "tf32" else case.dtype
    if case.form == "cell":
        p = gpu.engine.gpu_cell_plan(case.cell, dtype, case.dtype == "tf32", case.B, case.I, case.H, 0)
        return p["why"]
    said = []
    for backward in (False, True)[: 1 + case.train]:
        p = gpu.engine.gpu_plan(
            case.cell, dtype, case.dtype == "tf32", backward, case.B, case.H, case.H, 1, 0, gpu.transport
        )
        said.append(f"{p['transport']} {p['blocks']}x{p['groups']} rows {p['rows']}x{p['slices']}")
    return ", backward ".join(said)


def remark(name: str, problem, runner) -> str:
    """What a row says beside its figures: cuDNN's kernels, or the way that fusegen's plan takes."""
    if name == "torch":
        return kernels(runner)
    return way(problem.case) if name in ("fused", "recurrence") else ""
