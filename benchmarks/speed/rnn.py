"""Whole layers against torch.nn, torch.compile, ONNX Runtime, OpenVINO, oneDNN and the machine's peak."""

from __future__ import annotations

from harness import cap
from harness.bars import AUTO_WORST, FUSED_WORST, Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import CELLS, Case
from harness.record import Row
from harness.sweep import sweep
from peers.onednn_direct import Onednn
from peers.openvino import Openvino
from peers.ort import OnnxRuntime
from peers.ours import Ours
from peers.peak import Matmul, Peak
from peers.torch_compile import TorchCompile
from peers.torch_eager import TorchEager

# (H, B, T), input size H
SHAPES = [
    (64, 32, 100), (128, 32, 100), (256, 1, 100), (256, 32, 100), (512, 1, 100), (512, 32, 100), (512, 64,
    50), (1024, 1, 50), (1024, 32, 50),
]  # fmt: skip
QUICK_SHAPES = [(64, 32, 100), (256, 1, 100), (256, 32, 100)]

# Where torch emulates bfloat16 (sets below AVX-512), a training call of H 512 and more takes it 10 to 20 s:
# the smallest of the grid's shapes for every cell and mode, and one large inference, stand for the others.
EMULATING = ("baseline", "avx2", "avx2_vnni")
EMULATED_SHAPE, EMULATED_LARGE = (256, 32, 100), (1024, 32, 50)


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
    chosen = options.cases(cases(options.quick))
    if emulates():
        few = sum(case.dtype == "bfloat16" for case in chosen)
        isa = cap.applied or cap.best()
        print(f"  bfloat16: {few} cases stand for the grid's, since torch emulates it under {isa}")
    return sweep("rnn", chosen, options.contestants(peers()), options.budget(len(chosen), 13, 2))


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
