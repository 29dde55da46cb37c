"""Bytes that training keeps from forward to backward, and its peak, ours and torch.nn's; and what
recompute=16 makes of the bytes and the time of a step.

torch's saved_tensors_hooks see nothing that an operator keeps in buffers of its own (oneDNN's workspace, for
one), so the heap is asked: glibc's mallinfo2 counts every live byte of the process, whoever allocated it.
Kept is the growth over a forward call, less the outputs that the caller holds.

Peak is the growth of the largest resident set over a training step, in an interpreter of its own for each
reading: memory that a library leaves for later calls, ours among them, would hide in a process that has run
others. A small step comes before it, so that code and threads are there.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from harness.bars import Bar, select
from harness.options import Options
from harness.peer import NotCompared
from harness.problem import CELLS, Case, Problem
from harness.record import Row, row
from harness.sweep import sweep
from peers.ours import Ours, OursRecomputing
from peers.torch_eager import TorchEager
from speed.rnn import QUICK_SHAPES, SHAPES, large

# Python objects and allocator headers, present on either side.
SLACK = 32 * 1024
KEPT, PEAK = "MiB kept", "MiB peak"


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


def kept_bytes(runner) -> int:
    """By one training step, after one to warm up."""
    runner.reset()
    runner.run()
    runner.reset()
    runner.y = runner.state = None
    gc.collect()
    libc.malloc_trim(0)
    before = live_bytes()
    outputs = runner.forward()
    held = {t.data_ptr(): t.untyped_storage().nbytes() for t in runner.outputs().values()}
    kept = live_bytes() - before - sum(held.values())
    torch.autograd.backward(outputs, runner.gradients)
    return kept


PEERS = {peer.name: peer for peer in (Ours("fused"), TorchEager())}
AGAIN = OursRecomputing(16)
# Of what is kept without it, and of the time: one more forward alone would be a third of a step's products.
LESS_KEPT, LONGER = 3.0, 1.45


def peak_bytes(case: Case, peer: str) -> int:
    """Of a training step, read in a fresh interpreter."""
    sizes = [case.cell, case.H, case.B, case.T, peer, torch.get_num_threads()]
    command = [sys.executable, "-m", "speed.memory", *map(str, sizes)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    return int(done.stdout)


def read_peak(cell: str, H: int, B: int, T: int, peer: str, threads: int) -> int:
    """What peak_bytes asks for, of this process."""
    torch.set_num_threads(threads)
    case = Case(cell, H, B, T, train=True)
    small = PEERS[peer].prepare(Problem(replace(case, H=8, I=8, B=B, T=2)))
    small.reset()
    small.run()
    runner = PEERS[peer].prepare(Problem(case))
    gc.collect()
    libc.malloc_trim(0)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    runner.reset()
    runner.run()
    return resident_bytes("VmHWM") - before


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
        problem, found = Problem(case), {"kept": [], "peak": []}
        for name, peer in PEERS.items():
            runner = peer.prepare(problem)
            found["kept"].append(row("memory", problem, name, kept_bytes(runner) / 2**20, unit=KEPT))
            runner.close()
            if name == "fused":
                found["kept"] += recomputing(problem)
            if case.dtype == "float32" and large(case.H, case.B):
                found["peak"].append(row("memory", problem, name, peak_bytes(case, name) / 2**20, unit=PEAK))
        said = [
            f"{what}: " + ", ".join(f"{entry.peer} {entry.value:.2f} MiB" for entry in both)
            for what, both in found.items()
            if both
        ]
        print(f"{case.name:44}  {';  '.join(said)}", flush=True)
        rows += found["kept"] + found["peak"]
    timed = [case for case in options.cases(cases) if case.cell != "rnn"]
    return rows + sweep("memory", timed, [PEERS["fused"], AGAIN], options.budget(len(timed), 2.5, 0.5))


def recomputing(problem: Problem) -> list[Row]:
    """What is kept with recompute, in a row; none of a cell that it does nothing for."""
    try:
        runner = AGAIN.prepare(problem)
    except NotCompared:
        return []
    kept = kept_bytes(runner)
    runner.close()
    return [row("memory", problem, AGAIN.name, kept / 2**20, unit=KEPT)]


def largest(rows: list[Row], unit: str, slack: float = 0.0) -> list[float]:
    """Of ours, less `slack` MiB, over torch.nn's: the largest; empty without rows."""
    ours, theirs = (select(rows, unit=unit, peer=peer) for peer in PEERS)
    shares = [max(a.value - slack, 0) / b.value for a, b in zip(ours, theirs, strict=True)]
    return [max(shares)] if shares else []


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for cell in CELLS:
        of = select(rows, cell=cell)
        for what, found, limit in (
            ("bytes kept for backward", largest(of, KEPT, SLACK / 2**20), 1.0),
            ("peak memory of a step, large", largest(of, PEAK), 1.05),
        ):
            name = f"{cell} training: {what} / torch.nn's, largest"
            made += [Bar(name, share, limit, at_most=True) for share in found]
        made += bars_of_recomputing(of, cell)
    return made


def bars_of_recomputing(rows: list[Row], cell: str) -> list[Bar]:
    """Of one cell's rows."""
    kept, again = (select(rows, unit=KEPT, peer=peer) for peer in ("fused", AGAIN.name))
    less = (
        [
            a.value / max(b.value, SLACK / 2**20)
            for a, b in zip(kept, again, strict=True)
            if a.value > 10 * SLACK / 2**20
        ]
        if again
        else []
    )
    longer = [float(entry.ratio_fused) for entry in select(rows, unit="ms", peer=AGAIN.name)]
    what = f"{cell} training, {AGAIN.name}"
    made = [Bar(f"{what}: bytes kept without / with it, least", min(less), LESS_KEPT)] if less else []
    if longer:
        made.append(Bar(f"{what}: time / without it, longest", max(longer), LONGER, at_most=True))
    return made


if __name__ == "__main__":
    cell, H, B, T, peer, threads = sys.argv[1:]
    print(read_peak(cell, int(H), int(B), int(T), peer, int(threads)))
