"""Whole layers against torch.nn, torch.compile, ONNX Runtime, OpenVINO, oneDNN and the machine's peak; on a
GPU against torch.nn (cuDNN), plain and under a CUDA graph, and torch.compile, the recurrence alone beside.
"""

from __future__ import annotations

from dataclasses import replace

import cap
import planned
from bars import AUTO_WORST, FUSED_WORST, Bar, mean_and_worst, ratios, select
from options import Options
from peers import gpu
from peers.ceilings import peak
from peers.onednn_direct import Onednn
from peers.openvino import Openvino
from peers.ort import OnnxRuntime
from peers.ours import Ours, OursWhereMeasured
from peers.peak import Matmul, Peak
from peers.torch_compile import TorchCompile
from peers.torch_eager import TorchEager
from problem import Case
from record import Row
from sweep import sweep

CELLS = ("lstm", "gru", "rnn")
# (H, B, T), input size H
SHAPES = [
    (64, 32, 100), (128, 32, 100), (256, 1, 100), (256, 32, 100), (512, 1, 100), (512, 32, 100), (512, 64,
    50), (1024, 1, 50), (1024, 32, 50),
]  # fmt: skip
QUICK_SHAPES = [(64, 32, 100), (256, 1, 100), (256, 32, 100)]

# Where torch emulates bfloat16 (sets below AVX-512), a training call of H 512 and more takes it 10 to 20 s:
# the smallest of the grid's shapes for every cell and mode, and one large inference, stand for the others.
EMULATING = ("baseline", "avx2")
EMULATED_SHAPE, EMULATED_LARGE = (256, 32, 100), (1024, 32, 50)

# On a GPU: LSTM and GRU, T = 512, TF32 off ("float32") and on.
GPU_CELLS, GPU_STEPS = ("lstm", "gru"), 512
GPU_DTYPES = ("bfloat16", "float16", "tf32", "float32")
GPU_HIDDEN, GPU_BATCH = (128, 256, 512, 1024, 2048), (1, 16, 64, 256)
GPU_QUICK = [
    (128, 16, "bfloat16"), (512, 16, "bfloat16"), (1024, 64, "bfloat16"), (512, 64, "float16"),
    (512, 16, "tf32"), (512, 16, "float32"),
]  # fmt: skip


def large(H: int, B: int) -> bool:
    """The part of the grid that is also run in bf16 and held against the peak."""
    return H >= 256 and B >= 32


def emulates() -> bool:
    """Whether torch emulates bfloat16 under the set that this process is held to."""
    return (cap.applied or cap.best()) in EMULATING


def covers(case: Case) -> bool:
    """The cases in bfloat16 that are run where torch emulates it."""
    shape = (case.H, case.B, case.T)
    return shape == EMULATED_SHAPE or (shape == EMULATED_LARGE and case.cell == "lstm" and not case.train)


def cases(quick: bool) -> list[Case]:
    """By shape, inference before training; in bfloat16 the large ones, or a few of them (`covers`)."""
    shapes = QUICK_SHAPES if quick else SHAPES
    grid = [
        Case(cell, H, B, T, train, dtype)
        for dtype in ("float32", "bfloat16")
        for cell in CELLS
        for H, B, T in shapes
        for train in (False, True)
        if dtype == "float32" or large(H, B)
    ]
    return [case for case in grid if case.dtype == "float32" or covers(case)] if emulates() else grid


def cases_cuda(quick: bool) -> list[Case]:
    """Every shape of the bars, or 24 cases of them."""
    shapes = (
        GPU_QUICK if quick else [(H, B, dtype) for dtype in GPU_DTYPES for H in GPU_HIDDEN for B in GPU_BATCH]
    )
    return [
        Case(cell, H, B, GPU_STEPS, train, dtype, device="cuda")
        for H, B, dtype in shapes
        for cell in GPU_CELLS
        for train in (False, True)
    ]


def peers_cuda() -> list:
    return [
        Ours("fused"),
        gpu.InGraph("graph", Ours("fused graph")),
        OursWhereMeasured("auto", backend="auto"),
        TorchEager(),
        gpu.InGraph("torch graph", TorchEager()),
        TorchCompile(),
        gpu.Recurrence(),
    ]


def peers() -> list:
    return [
        Ours("fused"),
        Ours("frozen", frozen=True),
        Ours("auto", backend="auto"),
        TorchEager(),
        TorchCompile(),
        OnnxRuntime(),
        Openvino(),
        Onednn(),
        Peak(),
        Matmul(),
    ]


def run(options: Options) -> list[Row]:
    if options.device == "cuda":
        return run_cuda(options)
    chosen = options.cases(cases(options.quick))
    if emulates():
        few = sum(case.dtype == "bfloat16" for case in chosen)
        isa = cap.applied or cap.best()
        print(f"  bfloat16: {few} cases stand for the grid's, since torch emulates it under {isa}")
    return sweep("rnn", chosen, options.contestants(peers()), options.budget(len(chosen), 13, 2))


def run_cuda(options: Options) -> list[Row]:
    chosen = options.cases(cases_cuda(options.quick))
    budget = options.budget(len(chosen), 7, 5)
    rows = sweep("rnn", chosen, options.contestants(peers_cuda()), budget, note=gpu.remark)
    return [per_step(entry) if entry.peer == "recurrence" and entry.unit == "ms" else entry for entry in rows]


def per_step(entry: Row) -> Row:
    """The recurrence's row in microseconds a step, its plan beside it."""
    value, p20, p80 = (ms * 1e3 / entry.T for ms in (entry.value, entry.p20, entry.p80))
    figures = {"value": value, "p20": p20, "p80": p80, "unit": "us/step", "gflops": "", "gbs": ""}
    if plan := planned.step(entry.H, entry.B):
        figures["note"] = f"planned {plan:.3g} us/step (bfloat16, forward); {entry.note}"
    return replace(entry, **figures)


# The bars are AVX2's; other sets are held to the same, bf16 apart: where torch emulates it, to the first.
BF16_LIMITS = (10, 1.5)


def bars(rows: list[Row]) -> list[Bar]:
    fp32 = select(rows, dtype="float32")
    return [
        *against_torch(fp32, select(rows, dtype="bfloat16", peer="torch")),
        *against_onednn(select(fp32, peer="onednn")),
        *against_runtimes(fp32),
        *against_peak(fp32),
    ]


def against_torch(fp32: list[Row], bf16: list[Row]) -> list[Bar]:
    torch = select(fp32, peer="torch")
    lstm = select(torch, cell="lstm")
    return [
        *mean_and_worst("fp32, torch.nn / fused", ratios(torch), None, FUSED_WORST),
        *mean_and_worst("  torch.nn / auto", ratios(torch, "auto"), None, AUTO_WORST),
        *mean_and_worst("  LSTM inference", ratios(select(lstm, mode="inference")), 1.2),
        *mean_and_worst("  LSTM training", ratios(select(lstm, mode="training")), 1.3),
        *mean_and_worst("  GRU", ratios(select(torch, cell="gru")), 2.3),
        *mean_and_worst("  RNN", ratios(select(torch, cell="rnn")), 2.2),
        *mean_and_worst("  torch.compile / fused", ratios(select(fp32, peer="compile")), None),
        *mean_and_worst(
            "bf16, torch.nn / fused", ratios(bf16), BF16_LIMITS[0 if emulates() else 1], FUSED_WORST
        ),
        *mean_and_worst("  bf16, torch.nn / auto", ratios(bf16, "auto"), None, AUTO_WORST),
    ]


def against_onednn(rows: list[Row]) -> list[Bar]:
    """Inference with weights frozen on both sides."""
    inference = ratios(select(rows, mode="inference"), "frozen")
    training = ratios(select(rows, mode="training"))
    return [
        *mean_and_worst("fp32, oneDNN / fused (inference: frozen)", inference + training, 1.1, 0.9),
        *mean_and_worst("  inference, frozen on both sides", inference, None),
        *mean_and_worst("  training", training, None),
    ]


def against_runtimes(fp32: list[Row]) -> list[Bar]:
    """Weights frozen on both sides."""
    made = []
    for peer, name, mean in (("onnxruntime", "ONNX Runtime", 1.5), ("openvino", "OpenVINO", 1.15)):
        rows = select(fp32, peer=peer)
        made += mean_and_worst(f"fp32 inference, {name} / frozen", ratios(rows, "frozen"), mean, 0.93)
        made += mean_and_worst(f"  {name} / fused", ratios(rows), None)
    return made


def against_peak(rows: list[Row]) -> list[Bar]:
    """A peak row's time is that of the matrix work at peak, so its ratio is the share of the peak reached."""
    peak = select(rows, peer="peak")
    return [
        *mean_and_worst("fp32 inference, large: share of the register loop, fused", ratios(peak), 0.83, 0.76),
        *mean_and_worst("  frozen", ratios(peak, "frozen"), None),
        *mean_and_worst("  torch.matmul of the same size / fused", ratios(select(rows, peer="matmul")), None),
    ]


# -- On a GPU ----------------------------------------------------------------------------------------------

# Geometric means of torch.nn / fused: at H <= 1024 and B <= 64, and over the whole grid.
GPU_LIMITS = {"bfloat16": (3, 1.8), "float16": (2, 1.5), "tf32": (2, 1.4), "float32": (1.5, 1.1)}


def persistent(entry: Row) -> bool:
    """Whether cuDNN has its persistent kernel for this LSTM: torch's rule in aten/native/cudnn/RNN.cpp."""
    return (
        entry.cell == "lstm" and entry.dtype == "float16" and entry.H <= 1024 and entry.H % 128 == 0
        and entry.B % 8 == 0 and entry.B <= 128
    )  # fmt: skip


def bars_cuda(rows: list[Row]) -> list[Bar]:
    layers = select(rows, suite="rnn")
    torch = select(layers, peer="torch")
    made = []
    for dtype, (small, whole) in GPU_LIMITS.items():
        part = select(torch, dtype=dtype)
        inner = select(part, H=lambda H: H <= 1024, B=lambda B: B <= 64)
        made += mean_and_worst(f"{dtype}, torch.nn / fused, H <= 1024 and B <= 64", ratios(inner), small)
        made += mean_and_worst("  all shapes", ratios(part), whole)
        for cell in GPU_CELLS:
            for mode in ("inference", "training"):
                those = ratios(select(part, cell=cell, mode=mode))
                made += mean_and_worst(f"  {cell.upper()} {mode}", those, None)
    made += mean_and_worst(
        "fp16 LSTM at cuDNN's persistent shapes", ratios([e for e in torch if persistent(e)]), 1.1
    )
    graph = select(layers, peer="torch graph")
    made += mean_and_worst("torch.nn under a CUDA graph / fused", ratios(graph), 1.5)
    made += mean_and_worst("  fused under a graph too", ratios(graph, "graph"), None)
    made += mean_and_worst("torch.nn / auto", ratios(torch, "auto"), None, 0.98)
    made += mean_and_worst("torch.compile / fused", ratios(select(layers, peer="compile")), None)
    return made + beside_the_plan(layers) + beside_the_ceilings(rows)


def beside_the_plan(rows: list[Row]) -> list[Bar]:
    """The LSTM's forward recurrence in bfloat16 against the plan, H <= 1024."""
    alone = select(
        rows, peer="recurrence", cell="lstm", mode="inference", dtype="bfloat16", H=lambda H: H <= 1024
    )
    over = [e.value / plan for e in alone if (plan := planned.step(e.H, e.B))]
    if not over:
        return []
    within = sum(r <= 1.4 for r in over) / len(over)
    return [
        Bar(f"LSTM recurrence, us a step / planned, worst of {len(over)}", max(over), 2, at_most=True),
        Bar("  share of them within 1.4 of the plan", within, 0.5),
    ]


def beside_the_ceilings(rows: list[Row]) -> list[Bar]:
    """Shares of the product's and the copy's rates that whole calls reach: the best case of each."""
    made = []
    for dtype in GPU_DTYPES:
        part = select(rows, suite="rnn", peer="fused", dtype=dtype)
        for figure, unit, ceiling, name in (
            ("gflops", 1e3, peak(rows, f"product {dtype}"), "tensor-core peak"),
            ("gbs", 1, peak(rows, "copy"), "bandwidth"),
        ):
            if part and ceiling:
                best = max(part, key=lambda entry, figure=figure: getattr(entry, figure))
                share = getattr(best, figure) / unit / ceiling
                made.append(
                    Bar(
                        f"{dtype}: share of {name}, best case ({best.cell} {best.mode} H{best.H} B{best.B})",
                        share,
                    )
                )
    return made
