"""What the tests of benchmarks/ share: a small problem, and made-up rows."""

from pathlib import Path

from harness.problem import Case, Problem
from harness.record import Row, row

FOLDER = Path(__file__).parent.parent / "benchmarks"


def problem(cell, **options):
    return Problem(Case(cell, H=8, B=3, T=5, I=6, **options))


def run(peer, of):
    runner = peer.prepare(of)
    runner.reset()
    runner.run()
    try:
        return {name: value.clone() for name, value in runner.results().items()}
    finally:
        runner.close()


def a_row(suite="rnn", **figures):
    return row(suite, problem("lstm"), "torch", 1.5, ratio_fused=2.0, p20=1.25, error=1e-7, **figures)


def gpu_row(
    suite="rnn", cell="lstm", mode="inference", dtype="bfloat16", H=128, B=16, peer="torch", **figures
):
    T = 1 if suite == "cells" else 512
    case = {"cell": cell, "form": "layer", "mode": mode, "dtype": dtype, "H": H, "B": B}
    figures = {"value": 1.0, "ratio_fused": 2.0, "gflops": 1000.0, "gbs": 10.0} | figures
    return Row(suite, **case, I=H, T=T, tokens=B * T, peer=peer, **figures)


def gan_row(peer, form="none", **figures):
    """Of one discriminator step."""
    case = {"cell": "mlp-9-7-1", "form": form, "mode": "training", "dtype": "float32", "B": 64, "tokens": 128}
    return Row("gan", peer=peer, **case | figures)
