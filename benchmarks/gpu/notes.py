"""What a row of a GPU says beside its figures: which kernels of cuDNN ran, or the way that fusegen's plan
takes.
"""

from __future__ import annotations

from collections import Counter

import torch

from fusegen.ops.cuda.engine import ENGINE
from fusegen.ops.spec import CELLS
from harness.problem import Case


def kernels(runner) -> str:
    """Names of the CUDA kernels of one call and how often each ran: which algorithm it was."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    runner.reset()
    try:
        with torch.profiler.profile(activities=activities) as seen:
            runner.run()
            torch.cuda.synchronize()
    except (RuntimeError, AssertionError) as error:  # where the profiler may not read the device
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
    dtype, tf32 = "float32" if case.dtype == "tf32" else case.dtype, case.dtype == "tf32"
    cell = next(spec for spec in CELLS if spec.name == case.cell).engine_name(False)
    kernels, transport = ENGINE
    if case.form == "cell":
        return kernels.gpu_cell_plan(cell, dtype, tf32, case.B, case.I, case.H, 0).why
    said = []
    for backward in (False, True)[: 1 + case.train]:
        p = kernels.gpu_plan(cell, dtype, tf32, backward, case.B, case.H, case.H, 1, 0, transport)
        said.append(f"{p.transport} {p.blocks}x{p.groups} rows {p.rows}x{p.slices}")
    return ", backward ".join(said)


def remark(name: str, problem, runner) -> str:
    """For `harness.sweep`."""
    if name == "torch":
        return kernels(runner)
    return way(problem.case) if name in ("fused", "recurrence") else ""
