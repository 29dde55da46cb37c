"""What each suite promises, and how its bars judge."""

from dataclasses import replace

import pytest
import torch
from benchmark_rows import a_row, gan_row, gpu_row
from gpu import gan as gpu_gan
from gpu import planned
from gpu import rnn as gpu_rnn
from harness.bars import Bar, mean_and_worst, select
from harness.problem import Case
from harness.record import Row
from speed import gan, memory, rnn
from speed.memory import live_bytes, peak_bytes


def bar(bars, what):
    (found,) = [one for one in bars if one.what.strip().startswith(what)]
    return found


def test_layer_bars_are_those_of_the_instruction_set(monkeypatch):
    def of(**figures):
        return replace(a_row(), **figures)

    rows = [
        of(ratio_fused=0.98, ratio_auto=0.98), of(dtype="bfloat16", ratio_fused=5.0, ratio_auto=5.0),
        of(peer="openvino", ratio_fused=0.5, ratio_frozen=1.2), of(peer="peak", ratio_fused=0.84),
        of(peer="onnxruntime", ratio_fused=9.0, ratio_frozen=1.4),
    ]  # fmt: skip
    for isa, holds in (("avx2", False), ("avx512", True)):
        monkeypatch.setattr(rnn.cap, "applied", isa)
        bars = rnn.bars(rows)
        assert bar(bars, "bf16, torch.nn / fused, geometric").holds == holds
    assert bar(bars, "fp32, torch.nn / fused, worst").holds  # 0.97
    assert not bar([b for b in bars if b.limit == 0.99], "torch.nn / auto, worst").holds
    assert bar(bars, "fp32 inference, OpenVINO / frozen, geometric").holds
    assert not bar(bars, "fp32 inference, ONNX Runtime / frozen, geometric").holds
    assert bar(bars, "fp32 inference, large: share of the register loop, fused, geometric").holds


def test_memory_bars_judge_what_is_kept_and_the_peak():
    def of(peer, unit, value):
        return replace(a_row(), suite="memory", peer=peer, unit=unit, value=value)

    rows = [of("fused", memory.KEPT, 1.02), of("torch", memory.KEPT, 1.0), of("fused", memory.PEAK, 1.1)]
    rows.append(of("torch", memory.PEAK, 1.0))
    kept, peak = memory.bars(rows)
    assert kept.holds and kept.figure == pytest.approx(1.02 - 1 / 32)
    assert not peak.holds and peak.limit == 1.05
    assert len(memory.bars(rows[:2])) == 1


def test_memory_bars_judge_recompute():
    def of(peer, unit, value, **more):
        return replace(a_row(), suite="memory", peer=peer, unit=unit, value=value, **more)

    rows = [of("fused", memory.KEPT, 6.0), of("torch", memory.KEPT, 6.0)]
    again = [of("recompute=16", memory.KEPT, 2.1), of("recompute=16", "ms", 9.0, ratio_fused=1.4)]
    _, kept, time = memory.bars([*rows, *again])
    assert not kept.holds and kept.limit == 3.0 and time.holds and time.limit == 1.45
    kept, time = memory.bars_of_recomputing([rows[0], replace(again[0], value=0.0), again[1]], "lstm")
    assert kept.figure == pytest.approx(6.0 * 32)
    assert memory.bars_of_recomputing(rows, "lstm") == []


def test_peak_memory_is_that_of_one_step_in_a_process_of_its_own():
    case = Case("lstm", 256, 64, 60, train=True)
    outputs = 4 * case.T * case.B * case.H
    for peer in ("fused", "torch"):
        # y, dx and the gates at least; not the libraries' code as well
        assert 6 * outputs < peak_bytes(case, peer) < 25 * outputs


def test_live_bytes_sees_what_torch_allocates():
    before = live_bytes()
    kept = [torch.empty(1 << 20), torch.empty(1 << 10)]  # a mapped block and one from the heap
    grown = live_bytes() - before
    assert 0 <= grown - sum(t.nbytes for t in kept) < 64 * 1024


def test_bars_judge_mean_and_worst():
    mean, worst = mean_and_worst("x", [0.9, 1.6], 1.1, 0.97)
    assert mean.holds and mean.figure == pytest.approx(1.2)
    assert not worst.holds and "FAIL" in worst.line() and "pass" in mean.line()
    for one in (mean, worst):  # of a partial run: figure and limit, and no verdict
        assert one.line(judged=False).split()[:4] == ["--", f"{one.figure:.3f}", ">=", f"{one.limit:g}"]
    assert Bar("y", 2.0, 2.0, at_most=True).holds
    assert not Bar("y", 2.1, 2.0, at_most=True).holds
    assert [e.cell for e in select([a_row(), replace(a_row(), cell="gru")], cell=("gru", "rnn"))] == ["gru"]


def test_gan_bars_judge_every_size():
    def row(B, form, peer, value, ratio):
        return gan_row(peer, form, B=B, tokens=2 * B, value=value, ratio_fused=ratio)

    rows = [
        row(64, "none", "fused", 1.0, 1.0), row(64, "none", "eager", 3.0, 3.0),
        row(64, "none", "concatenated", 2.0, 2.0),
        row(64, "r1", "fused", 1.7, 1.0), row(64, "r1", "eager", 5.1, 3.0),
        row(64, "r1", "fused plain", 1.0, 1 / 1.7),
    ]  # fmt: skip
    seen = {bar.what: bar for bar in gan.bars(rows)}
    assert seen["MLP step, best peer / fused, geometric mean of 1"].figure == pytest.approx(2.0)
    assert seen["MLP step, eager / fused, geometric mean of 1"].holds
    assert gan.best_of_all(select(rows, form="r1")) == [3.0]  # what R1 costs us is no peer
    cost = seen["MLP step, with R1 / without, fused, largest"]
    assert cost.figure == pytest.approx(1.7) and not cost.holds


def test_gpu_bars_judge_precision_by_precision_and_beside_plan_and_ceilings():
    rows = [
        gpu_row(ratio_fused=4.0), gpu_row(H=2048, ratio_fused=1.0), gpu_row(dtype="tf32", ratio_fused=1.9),
        gpu_row(dtype="float16", B=8, ratio_fused=1.2), gpu_row(peer="fused", ratio_fused=1.0),
        gpu_row(peer="recurrence", value=0.7, unit="us/step"),
        Row("ceilings", dtype="bfloat16", H=8192, peer="product bfloat16", value=500.0, unit="TFLOP/s"),
    ]  # fmt: skip
    seen = {bar.what: bar for bar in gpu_rnn.bars(rows)}
    inner = seen["bfloat16, torch.nn / fused, H <= 1024 and B <= 64, geometric mean of 1"]
    assert inner.figure == pytest.approx(4) and inner.limit == 3 and inner.holds
    assert seen["  all shapes, geometric mean of 2"].figure == pytest.approx(2)
    assert not seen["tf32, torch.nn / fused, H <= 1024 and B <= 64, geometric mean of 1"].holds
    assert seen["fp16 LSTM at cuDNN's persistent shapes, geometric mean of 1"].holds
    assert seen["LSTM recurrence, us a step / planned, worst of 1"].figure == pytest.approx(2)  # planned 0.35
    (share,) = [bar.figure for what, bar in seen.items() if "tensor-core peak" in what]
    assert share == pytest.approx(1000 / 500e3)


def test_gpu_bars_of_the_gan_step():
    def of(peer, form="none", **ratios):
        return gan_row(peer, form, value=1.0, **{"ratio_fused": "", "ratio_graph": ""} | ratios)

    rows = [
        of("eager", ratio_fused=7.0), of("eager graph", ratio_graph=1.5),
        of("eager graph", "r1", ratio_graph=2.6), of("eager", "r1", ratio_fused=1.0),
    ]  # fmt: skip
    seen = {bar.what: bar for bar in gpu_gan.bars(rows)}
    assert seen["MLP step, float32, eager / fused, geometric mean of 1"].holds
    assert not seen["MLP step, float32, one CUDA graph each, geometric mean of 1"].holds
    assert seen["MLP step with R1, float32, one CUDA graph each, geometric mean of 1"].holds


def test_the_plan_has_the_better_way():
    assert planned.step(512, 256) == pytest.approx(2.15)  # through L2: 2 to 2.3
    assert planned.step(1024, 1) == pytest.approx(1.2) and planned.step(2048, 256) == 12
    assert planned.step(100, 16) is None and planned.step(128, 17) is None
