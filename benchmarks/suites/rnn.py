"""Whole layers against torch.nn, torch.compile, ONNX Runtime, oneDNN and the machine's peak."""

from __future__ import annotations

from bars import Bar, mean_and_worst, ratios, select
from options import Options
from peers.onednn_direct import Onednn
from peers.ort import OnnxRuntime
from peers.ours import Ours
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


def large(H: int, B: int) -> bool:
    """The part of the grid that is also run in bf16 and held against the peak."""
    return H >= 256 and B >= 32


def cases(quick: bool) -> list[Case]:
    """By shape, inference before training."""
    shapes = QUICK_SHAPES if quick else SHAPES
    return [
        Case(cell, H, B, T, train, dtype)
        for dtype in ("float32", "bfloat16")
        for cell in CELLS
        for H, B, T in shapes
        for train in (False, True)
        if dtype == "float32" or large(H, B)
    ]


def peers() -> list:
    return [
        Ours("fused"),
        Ours("frozen", frozen=True),
        Ours("auto", backend="auto"),
        TorchEager(),
        TorchCompile(),
        OnnxRuntime(),
        Onednn(),
        Peak(),
        Matmul(),
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
    return sweep("rnn", chosen, options.contestants(peers()), options.budget(len(chosen), 13, 2))


def bars(rows: list[Row]) -> list[Bar]:
    fp32 = select(rows, dtype="float32")
    return [
        *against_torch(fp32, select(rows, dtype="bfloat16", peer="torch")),
        *against_onednn(select(fp32, peer="onednn")),
        *against_ort(select(fp32, peer="onnxruntime")),
        *against_peak(fp32),
    ]


def against_torch(fp32: list[Row], bf16: list[Row]) -> list[Bar]:
    torch = select(fp32, peer="torch")
    return [
        *mean_and_worst("fp32, torch.nn / fused", ratios(torch), 2.3, 0.97),
        *mean_and_worst("  GRU", ratios(select(torch, cell="gru")), 3.2),
        *mean_and_worst("  RNN", ratios(select(torch, cell="rnn")), 2.8),
        *mean_and_worst("  LSTM training", ratios(select(torch, cell="lstm", mode="training")), 1.3),
        *mean_and_worst("  LSTM inference", ratios(select(torch, cell="lstm", mode="inference")), 1.12),
        *mean_and_worst("  torch.nn / auto", ratios(torch, "auto"), None),
        *mean_and_worst("  torch.compile / fused", ratios(select(fp32, peer="compile")), None),
        *mean_and_worst("bf16, torch.nn / fused", ratios(bf16), 1.5, 0.97),
    ]


def against_onednn(rows: list[Row]) -> list[Bar]:
    """Inference with weights frozen on both sides."""
    inference = ratios(select(rows, mode="inference"), "frozen")
    training = ratios(select(rows, mode="training"))
    return [
        *mean_and_worst("fp32, oneDNN / fused (inference: frozen)", inference + training, 1.0, 0.9),
        *mean_and_worst("  inference, frozen on both sides", inference, None),
        *mean_and_worst("  training", training, None),
    ]


def against_ort(rows: list[Row]) -> list[Bar]:
    return [
        *mean_and_worst("fp32 inference, ONNX Runtime / fused", ratios(rows), 1.2),
        *mean_and_worst("  frozen on both sides", ratios(rows, "frozen"), None),
    ]


def against_peak(rows: list[Row]) -> list[Bar]:
    """A peak row's time is that of the matrix work at peak, so its ratio is the share of the peak reached."""
    peak = select(rows, peer="peak")
    return [
        *mean_and_worst("fp32 inference, large: share of the peak, fused", ratios(peak), 0.85, 0.78),
        *mean_and_worst("  frozen", ratios(peak, "frozen"), None),
        *mean_and_worst("  torch.matmul of the same size / fused", ratios(select(rows, peer="matmul")), None),
    ]
