"""Bytes that training keeps from forward to backward, ours and torch.nn's.

torch's saved_tensors_hooks see nothing that an operator keeps in buffers of its own (oneDNN's workspace, for
one), so the heap is asked: glibc's mallinfo2 counts every live byte of the process, whoever allocated it.
Kept is the growth over a forward call, less the outputs that the caller holds. `peak` is the process's
largest resident set during one step above what it was before it; it contains transient buffers too and is
shown, not judged.
"""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass
from pathlib import Path

import torch

from bars import Bar, select
from options import Options
from peers.ours import Ours
from peers.torch_eager import TorchEager
from problem import Case, Problem
from record import Row, row
from suites.rnn import CELLS, QUICK_SHAPES, SHAPES

# Python objects and allocator headers, present on either side.
SLACK = 32 * 1024


class Mallinfo2(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


libc = ctypes.CDLL(None)


def live_bytes() -> int:
    """Bytes in use on the heap of the whole process, mapped blocks included (glibc 2.33 or newer)."""
    libc.mallinfo2.restype = Mallinfo2
    info = libc.mallinfo2()
    return info.uordblks + info.hblkhd


def resident_bytes(field: str) -> int:
    """VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


@dataclass
class Usage:
    kept: int
    peak: int


def usage(runner) -> Usage:
    """Of one training step, after one to warm up."""
    runner.reset()
    runner.run()
    runner.reset()
    runner.y = runner.state = None
    gc.collect()
    libc.malloc_trim(0)
    before, resident = live_bytes(), resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    outputs = runner.forward()
    held = {t.data_ptr(): t.untyped_storage().nbytes() for t in runner.outputs().values()}
    kept = live_bytes() - before - sum(held.values())
    torch.autograd.backward(outputs, runner.gradients)
    return Usage(kept, resident_bytes("VmHWM") - resident)


def run(options: Options) -> list[Row]:
    rows = []
    shapes = QUICK_SHAPES if options.quick else SHAPES
    cases = [
        Case(cell, H, B, T, True, dtype)
        for cell in CELLS
        for H, B, T in shapes
        for dtype in ("float32", "bfloat16")
    ]
    for case in options.cases(cases):
        problem = Problem(case)
        for peer in (Ours("fused"), TorchEager()):
            runner = peer.prepare(problem)
            used = usage(runner)
            runner.close()
            rows.append(
                row(
                    "memory",
                    problem,
                    peer.name,
                    used.kept / 2**20,
                    unit="MiB kept",
                    note=f"peak {used.peak / 2**20:.1f} MiB",
                )
            )
        ours, theirs = rows[-2:]
        kept = f"kept: fused {ours.value:.2f} MiB, torch {theirs.value:.2f} MiB"
        print(f"{case.name:44}  {kept};  {ours.note}, {theirs.note}", flush=True)
    return rows


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for cell in CELLS:
        pairs = zip(select(rows, cell=cell, peer="fused"), select(rows, cell=cell, peer="torch"), strict=True)
        shares = [max(ours.value - SLACK / 2**20, 0) / theirs.value for ours, theirs in pairs]
        if shares:
            made.append(
                Bar(
                    f"{cell} training: bytes kept for backward / torch.nn's, largest",
                    max(shares),
                    1.0,
                    at_most=True,
                )
            )
    return made
