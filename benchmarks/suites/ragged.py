"""Lengths uniform in 1..T, against torch.nn on the packed input and against our own padded run."""

from __future__ import annotations

from bars import AUTO_WORST, Bar, mean_and_worst, ratios, select
from options import Options
from peers import gpu
from peers.ours import Ours, OursPacked, OursPadded
from peers.torch_eager import TorchEager
from problem import Case
from record import Row
from suites.rnn import CELLS, GPU_CELLS, GPU_STEPS
from sweep import sweep

LIMITS = {
    ("inference", "lstm"): 2.1, ("inference", "gru"): 2.0, ("inference", "rnn"): 2.3,
    ("training", "lstm"): 12.0, ("training", "gru"): 9.0, ("training", "rnn"): 4.5,
}  # fmt: skip
PER_TOKEN_LIMIT = 1.25

# On a GPU: LSTM and GRU, T = 512, lengths on the GPU.
GPU_LIMIT = 20
GPU_SHAPES = [(256, 32), (512, 64), (1024, 64)]


def run(options: Options) -> list[Row]:
    if options.device == "cuda":
        return run_cuda(options)
    T = 100 if options.quick else 400
    chosen = options.cases(
        [Case(cell, 256, 32, T, train, form="ragged") for cell in CELLS for train in (False, True)]
    )
    peers = [
        Ours("fused"),
        Ours("auto", backend="auto"),
        OursPacked("fused packed"),
        OursPadded("fused padded"),
        TorchEager(),
    ]
    return sweep("ragged", chosen, options.contestants(peers), options.budget(len(chosen), 2.5, 0.5))


def per_token(padded: Row) -> float:
    """Time a token of the ragged run over the padded one's, which computes T*B tokens; ratio_fused is its
    time over the ragged one's."""
    return padded.T * padded.B / padded.tokens / padded.ratio_fused


def run_cuda(options: Options) -> list[Row]:
    chosen = options.cases(
        [
            Case(cell, H, B, GPU_STEPS, train, dtype, form="ragged", device="cuda")
            for dtype in ("bfloat16", "float32")
            for H, B in (GPU_SHAPES[:1] if options.quick else GPU_SHAPES)
            for cell in GPU_CELLS
            for train in (False, True)
        ]
    )
    peers = [Ours("fused"), OursPacked("fused packed"), OursPadded("fused padded"), TorchEager()]
    budget = options.budget(len(chosen), 5, 2)
    return sweep("ragged", chosen, options.contestants(peers), budget, note=gpu.remark)


def bars_cuda(rows: list[Row]) -> list[Bar]:
    ragged = select(rows, suite="ragged")
    made = mean_and_worst(
        "ragged, torch.nn packed / fused", ratios(select(ragged, peer="torch")), None, GPU_LIMIT
    )
    over = [per_token(entry) for entry in select(ragged, peer="fused padded") if entry.ratio_fused != ""]
    if over:
        made.append(Bar("ragged, time per token / padded, largest", max(over), PER_TOKEN_LIMIT, at_most=True))
    return made


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for (mode, cell), limit in LIMITS.items():
        for entry in select(rows, peer="torch", mode=mode, cell=cell):
            made += [Bar(f"ragged {cell} {mode}, torch.nn packed / fused", r, limit) for r in ratios([entry])]
    under_auto = ratios(select(rows, peer="torch"), "auto")
    made += mean_and_worst("ragged, torch.nn packed / auto", under_auto, None, AUTO_WORST)
    for entry in select(rows, peer="fused padded"):
        what = f"ragged {entry.cell} {entry.mode}, time per token / padded"
        made.append(Bar(what, per_token(entry), PER_TOKEN_LIMIT, at_most=True))
    for entry in select(rows, peer="fused packed"):
        made.append(Bar(f"  {entry.cell} {entry.mode}, PackedSequence / lengths=", entry.ratio_fused))
    return made
