"""fusegen.quantize, layers with weights of 8 bits, beside our float32 layer with its weights packed
(`frozen`), torch.ao's quantize_dynamic, ONNX Runtime's and torch.nn, on one thread and two. In the rows,
`fused` is the quantized layer, and `fused weight_only` the one whose activations stay float32, at one row.

torch.ao takes no RNN, and ONNX Runtime has an LSTM of 8 bits alone: its rows of GRU and RNN are float32.
"""

from __future__ import annotations

from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import CELLS
from harness.record import Row
from harness.threads import COUNTS, counts, counts_in, sweep_by_threads, with_threads
from peers.ort import OnnxRuntimeQuantized
from peers.ours import Ours, OursQuantized
from peers.torch_eager import TorchEager
from peers.torch_quantized import TorchQuantized
from speed.small import SmallCase

STEPS = {256: (1, 100), 512: (1, 50), 1024: (1, 50)}  # by H: a step alone, and a sequence
BATCHES = (1, 8, 32)
# Of our float32, by B, where H is at least 512: reading the weights takes the time of one row.
LEAST = {1: 2.2, 32: 1.3}
LEAST_TORCH, LEAST_ONNX = 2.0, 1.3


def cases(quick: bool, counts: tuple[int, ...] = COUNTS) -> list[SmallCase]:
    """On each of `counts` threads; quick: the middle size, without the middle batch, on the fewest."""
    counts = counts[:1] if quick else counts
    return [
        SmallCase(cell, H, B, T, threads=count)
        for cell in CELLS
        for H, steps in STEPS.items()
        for B in BATCHES
        for T in steps
        for count in counts
        if not quick or (H == 512 and B != 8)
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick, counts(options)))
    peers = [
        OursQuantized("fused"),
        OursQuantized("fused weight_only", weight_only=True),
        Ours("frozen", frozen=True),
        TorchQuantized(),
        OnnxRuntimeQuantized(),
        TorchEager(),
    ]
    budget = options.budget(len(chosen), 12, 1)
    return sweep_by_threads("int8", chosen, options.contestants(peers), budget)


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for count in counts_in(rows):
        those = with_threads(rows, count)
        on = f"{count} thread{'s' if count > 1 else ''}"
        frozen = select(those, peer="frozen")
        for B, least in LEAST.items():
            for cell in CELLS:
                found = ratios(select(frozen, B=B, H=lambda H: H >= 512, cell=cell))
                made += mean_and_worst(
                    f"{cell.upper()} B {B}, H 512 and more, {on}, float32 / int8", found, least, least
                )
        for cell in ("lstm", "gru"):
            found = ratios(select(those, peer="torch.ao", cell=cell))
            made += mean_and_worst(f"{cell.upper()}, {on}, torch.ao / int8", found, LEAST_TORCH, LEAST_TORCH)
        found = ratios(select(those, peer="onnxruntime", cell="lstm"))
        made += mean_and_worst(f"LSTM, {on}, ONNX Runtime's int8 / int8", found, LEAST_ONNX, LEAST_ONNX)
        alone = ratios(select(those, peer="fused weight_only"))
        made += mean_and_worst(f"  {on}, weights alone / int8, B 1", alone, None)
        made += mean_and_worst(f"  {on}, torch.nn / int8", ratios(select(those, peer="torch")), None)
    return made
