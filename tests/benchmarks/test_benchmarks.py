"""The benchmark harness's own helpers: peers' weight layouts, statistics, rows, bars, the report."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fusegen
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _on_path():
    """benchmarks/ is a folder of programs: its modules import each other from there."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


CELLS = ("lstm", "gru", "rnn")


def problem(cell, **options):
    from problem import Case, Problem

    return Problem(Case(cell, H=8, B=3, T=5, I=6, **options))


def run(peer, of):
    runner = peer.prepare(of)
    runner.reset()
    runner.run()
    try:
        return {name: value.clone() for name, value in runner.results().items()}
    finally:
        runner.close()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "peer, train", [("ort", False), ("openvino", False), ("onednn", False), ("onednn", True)]
)
def test_peers_compute_what_torch_does(cell, peer, train):
    """Gate orders, joined biases and gradients: every weight differs, so any permutation shows."""
    from check import verify
    from peers import Unavailable
    from peers.onednn_direct import Onednn
    from peers.openvino import Openvino
    from peers.ort import OnnxRuntime

    of = problem(cell, train=train)
    try:
        found = run({"ort": OnnxRuntime, "openvino": Openvino, "onednn": Onednn}[peer](), of)
    except Unavailable as reason:
        pytest.skip(f"{peer}: {reason}")
    assert ("dweight_hh" in found) == train
    verify(of, found)


@pytest.mark.parametrize("form", ["layer", "ragged", "cell"])
@pytest.mark.parametrize("cell", CELLS)
def test_ours_and_torch_agree_in_every_form(cell, form):
    from check import verify
    from peers.ours import Ours, OursPacked
    from peers.torch_eager import TorchEager

    of = problem(cell, form=form, train=True)
    for peer in [TorchEager(), Ours("fused")] + [OursPacked("fused packed")] * (form == "ragged"):
        found = run(peer, of)
        assert set(found) == set(of.reference())
        verify(of, found)


def test_verify_sees_a_wrong_tensor():
    from check import Mismatch, verify

    of = problem("gru")
    right = of.reference()
    with pytest.raises(Mismatch, match="h_n"):
        verify(of, {"y": right["y"], "h_n": right["h_n"] + 1e-3})
    with pytest.raises(Mismatch, match="h_n"):
        verify(of, {"h_n": right["h_n"] * torch.nan})
    with pytest.raises(Mismatch, match="not in the reference"):
        verify(of, {"y": right["y"][1:]})


def test_permutations_are_their_own_inverse_and_biases_split_as_joined():
    from peers.onednn_direct import join_bias, permute, split_bias

    for cell, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
        weight = torch.randn(gates * 2, 3)
        assert torch.equal(permute(cell, permute(cell, weight)), weight)
    b_ih, b_hh = torch.arange(6.0), torch.arange(6.0) * 10  # r r z z n n
    assert join_bias("gru", b_ih, b_hh).tolist() == [22, 33, 0, 11, 4, 5, 40, 50]
    d_ih, d_hh = split_bias("gru", torch.arange(8.0))  # z z r r n n n' n'
    assert d_ih.tolist() == [2, 3, 0, 1, 4, 5]
    assert d_hh.tolist() == [2, 3, 0, 1, 6, 7]


def test_statistics():
    from timing import Timing, paired_ratio

    timing = Timing([4.0, 1.0, 3.0, 2.0, 5.0])
    assert timing.median == 3
    assert timing.quantile(0.2) == pytest.approx(1.8)
    assert timing.quantile(0.8) == pytest.approx(4.2)
    # A machine that halves its speed midway changes no paired ratio.
    assert paired_ratio(Timing([2, 4, 4]), Timing([1, 2, 2])) == 2


def test_every_contestant_has_its_turn_in_every_round():
    from timing import interleaved

    class Counting:
        rest = 0.0

        def __init__(self):
            self.resets = self.runs = 0

        def reset(self):
            self.resets += 1

        def run(self):
            assert self.resets == self.runs + 1
            self.runs += 1
            return 0.5

    runners = {"a": Counting(), "b": Counting()}
    timings = interleaved(runners, seconds=0, min_rounds=3)
    assert {name: t.samples for name, t in timings.items()} == {"a": [0.5] * 3, "b": [0.5] * 3}
    assert all(r.runs == 1 + 3 for r in runners.values())  # one warm-up: half a second is a long call


class Script:
    """A contestant, or a steady loop's clock, that takes the seconds that it is told."""

    rest = 0.0

    def __init__(self, *seconds):
        self.seconds = iter(seconds)

    def reset(self):
        pass

    def run(self):
        return next(self.seconds)


def a_steadiness(*readings):
    """Of a loop that takes a second until the first round, then `readings`."""
    import steadiness

    script = iter([*[1.0] * steadiness.BEGINNING * steadiness.REPEATS, *readings])
    return steadiness.Steadiness(None, lambda loop: next(script))


def thrice(*readings):
    return [value for value in readings for _ in range(3)]


def test_a_round_counts_only_between_steady_readings():
    """The reading after the second round is off: it and the third are dropped, others take their place."""
    from timing import interleaved

    # a warm-up call, then rounds 1 to 5
    runners = {"a": Script(0.5, 1.0, 2.0, 3.0, 4.0, 5.0)}
    steadiness = a_steadiness(*thrice(1.0, 1.04, 1.2, 0.96, 1.0, 1.0))
    found = interleaved(runners, seconds=0, min_rounds=3, steadiness=steadiness)
    assert found["a"].samples == [1.0, 4.0, 5.0] and found["a"].dropped == 2 and found["a"].unsteady == ""


def test_a_single_interrupt_is_no_unsteady_reading():
    from timing import interleaved

    steadiness = a_steadiness(*thrice(1.0), 1.0, 9.0, 9.0)
    found = interleaved({"a": Script(0.5, 1.0)}, seconds=0, min_rounds=1, steadiness=steadiness)
    assert found["a"].samples == [1.0] and found["a"].dropped == 0


def test_a_machine_that_never_stands_still_is_read_and_said_so():
    from timing import PATIENCE, interleaved

    rounds = 2 * PATIENCE
    steadiness = a_steadiness(*thrice(*[2.0 + 0.1 * i for i in range(rounds + 1)]))
    runners = {"a": Script(0.5, *map(float, range(rounds)))}
    found = interleaved(runners, seconds=0, min_rounds=2, steadiness=steadiness)["a"]
    assert found.samples == [0.0, 1.0] and found.dropped == rounds - 2  # those nearest to the usual second
    assert found.unsteady == f"unsteady machine: 0 of {rounds} rounds stood still"


def test_the_steady_loop_takes_about_its_time():
    import steadiness

    threads = torch.get_num_threads()
    read = steadiness.Steadiness(steadiness.arithmetic(threads))
    assert len(read.readings) == steadiness.BEGINNING
    assert 0.2 * steadiness.LOOP_SECONDS < read.usual() < 20 * steadiness.LOOP_SECONDS
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        read.loop()
    assert any("erfinv" in event.name for event in seen.events())


def test_dropped_rounds_and_unsteady_machines_are_in_the_row():
    import sweep
    from timing import Timing

    made = sweep.timing_row("rnn", problem("gru"), "torch", {"torch": Timing([1e-3], 4, "unsteady")}, 0.0)
    assert made.dropped == 4 and made.note == "unsteady"


# ---------------------------------------------------------------- one instruction set for both sides


def test_onnx_runtime_does_not_spin_and_openvino_is_given_time_to_stop():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("openvino", reason="openvino is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    from peers.openvino import Openvino, compiled
    from peers.ort import OnnxRuntime

    of = problem("lstm")
    options = OnnxRuntime().prepare(of).session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert Openvino().prepare(of).rest > 0
    model = compiled(of)
    assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert model.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()
    assert model.get_property("NUM_STREAMS") == 1


@pytest.fixture
def uncapped(monkeypatch):
    import cap

    for name in (*cap.VARIABLES, "FUSEGEN_ISA"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)
    monkeypatch.setattr(cap, "applied", "")
    return cap


@pytest.mark.parametrize("argv", [["rnn", "--isa", "avx2"], ["--isa=avx2", "rnn", "--quick"]])
def test_a_cap_is_for_every_library(argv, uncapped):
    import os

    assert uncapped.apply(argv) == ""
    found = {name: os.environ[name] for name in (*uncapped.VARIABLES, "FUSEGEN_ISA")}
    assert found == {
        "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "FUSEGEN_ISA": "avx2",
    }  # fmt: skip
    assert uncapped.applied == "avx2"


def test_no_cap_changes_nothing_and_ours_alone_is_refused(uncapped, monkeypatch):
    import os

    before = dict(os.environ)
    assert uncapped.apply(["rnn"]) == uncapped.apply(["rnn", "--isa", "mmx"]) == ""
    assert os.environ == before and uncapped.applied == ""
    monkeypatch.setenv("FUSEGEN_ISA", "avx2")
    assert "would hold our side alone" in uncapped.apply(["rnn"])
    assert uncapped.apply(["rnn", "--isa", "avx2"]) == ""


def test_every_set_of_the_engine_has_its_cap():
    import cap

    assert set(fusegen._C.build_info()["isas"]) <= set(cap.SETS) == set(cap.FLAGS)
    assert set(fusegen._C.available_isas()) <= set(list(cap.SETS)[: list(cap.SETS).index(cap.best()) + 1])


@pytest.mark.parametrize("vendor, mkl", [("GenuineIntel", True), ("AuthenticAMD", False)])
def test_who_cannot_be_capped_is_named(uncapped, monkeypatch, vendor, mkl):
    flags = "avx2 fma f16c avx512f avx512bw avx512vl avx512dq"
    monkeypatch.setattr(uncapped, "cpuinfo", lambda: f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n")
    assert uncapped.best() == "avx512" and uncapped.unreached() == {}
    monkeypatch.setattr(uncapped, "applied", "avx512")
    assert uncapped.unreached() == {}
    monkeypatch.setattr(uncapped, "applied", "avx2")
    assert list(uncapped.unreached()) == ["ONNX Runtime"] + ["MKL (in torch)"] * (not mkl)
    assert "MLAS" in uncapped.remark("onnxruntime", False)
    assert ("MKL" in uncapped.remark("torch", False)) == (not mkl)
    for peer, ours in (("openvino", False), ("onednn", False), ("peak", False), ("auto", True)):
        assert uncapped.remark(peer, ours) == ""


def test_a_set_that_is_not_there_is_one_line_and_status_2():
    import os
    import subprocess

    environment = {name: value for name, value in os.environ.items() if name != "FUSEGEN_ISA"}
    command = [sys.executable, str(FOLDER / "run.py"), "rnn", "--isa", "mmx"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    there = ", ".join(fusegen._C.available_isas())
    assert done.stderr == (
        f"run.py: --isa: expected one of {there} (which this machine and build have), got 'mmx'\n"
    )


def test_a_cap_comes_before_torch_or_not_at_all(uncapped, capsys):
    import run as program

    assert program.main(["rnn", "--isa", fusegen._C.available_isas()[0]]) == 2
    assert "before torch is imported" in capsys.readouterr().err


def test_torch_obeys_the_cap():
    """In a process of its own: ATen and oneDNN name the set that they run."""
    import os
    import subprocess

    program = """
import cap; cap.apply(["--isa", "baseline"])
import torch, fusegen
print(torch.backends.cpu.get_cpu_capability(), fusegen._C.isa(), flush=True)
torch.nn.LSTM(8, 8)(torch.randn(2, 16, 8))
"""
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    environment.pop("FUSEGEN_ISA", None)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=FOLDER
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "DEFAULT baseline"
    assert "isa:Intel SSE4.1" in done.stdout


ZEN = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {}\n"
LAKE = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: {}\n"


@pytest.mark.parametrize(
    "cpuinfo, name",
    [
        (ZEN.format("AMD EPYC"), "AMD EPYC (family 25 model 17)"),
        (ZEN.format("AMD EPYC 7763 64-Core Processor"), "AMD EPYC 7763 64-Core"),
        (LAKE.format("Intel(R) Xeon(R) CPU @ 2.50GHz"), "Intel Xeon @ 2.50GHz (family 6 model 85)"),
        (LAKE.format("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz"), "Intel Xeon Platinum 8370C @ 2.80GHz"),
        (
            ZEN.format("QEMU Virtual CPU version 2.5+"),
            "QEMU Virtual version 2.5+ (AMD family 25 model 17)",
        ),
        ("processor\t: 0\n", ""),
    ],
)
def test_a_machine_is_named_by_what_tells_its_kind(cpuinfo, name):
    import record

    assert record.model_name(cpuinfo) == name


# ---------------------------------------------------------------- bars and the report


def bar(bars, what):
    (found,) = [one for one in bars if one.what.strip().startswith(what)]
    return found


def test_layer_bars_are_those_of_the_instruction_set(monkeypatch):
    from suites import rnn

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
    from suites import memory

    def of(peer, unit, value):
        return replace(a_row(), suite="memory", peer=peer, unit=unit, value=value)

    rows = [of("fused", memory.KEPT, 1.02), of("torch", memory.KEPT, 1.0), of("fused", memory.PEAK, 1.1)]
    rows.append(of("torch", memory.PEAK, 1.0))
    kept, peak = memory.bars(rows)
    assert kept.holds and kept.figure == pytest.approx(1.02 - 1 / 32)
    assert not peak.holds and peak.limit == 1.05
    assert len(memory.bars(rows[:2])) == 1


def test_peak_memory_is_that_of_one_step_in_a_process_of_its_own():
    from problem import Case
    from suites.memory import peak_bytes

    case = Case("lstm", 256, 64, 60, train=True)
    outputs = 4 * case.T * case.B * case.H
    for peer in ("fused", "torch"):
        # y, dx and the gates at least; not the libraries' code as well
        assert 6 * outputs < peak_bytes(case, peer) < 25 * outputs


def test_gan_under_auto_is_a_contestant_of_its_own():
    from check import verify
    from suites.gan import PEERS, GanCase, GanProblem

    (auto,) = [peer for peer in PEERS if peer.name == "auto"]
    of = GanProblem(GanCase("mlp-9-7-1", 3, "r1"))
    runner = auto.prepare(of)
    before = fusegen.get_backend()
    runner.run()
    assert fusegen.get_backend() == "auto" and runner.path
    assert verify(of, runner.results()) < 1e-5
    runner.close()
    assert fusegen.get_backend() == before


@pytest.fixture
def cpu_results(tmp_path, monkeypatch):
    """A function that writes rows as a file of a made-up CPU's results, under a root of its own."""
    import record

    shared = record.environment()
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")

    def write(rows, suffix="", **columns):
        given = shared | {"commit": "0123456789", "threads": "2", "isa": "avx2", "capped": ""} | columns
        monkeypatch.setattr(record, "environment", lambda device="cpu": given)
        return record.write(rows, tmp_path / "results", suffix)

    return write


def test_results_lie_by_machine_and_instruction_set(cpu_results, tmp_path):
    import record

    path = cpu_results([a_row()], machine="AMD EPYC (family 25 model 17), 2 cores", capped="avx2")
    assert path.parent == tmp_path / "results/amd-epyc-family-25-model-17-2-cores/avx2"
    assert record.shared(path)["capped"] == "avx2"


def gan_rows(fused=1.0, eager=1.5, auto=1.2):
    from record import Row

    def of(peer, value):
        return Row(
            "gan", "mlp-9-7-1", "none", "training", "float32", 0, 0, 64, 0, 128, peer, value,
            ratio_fused=value / fused, ratio_auto=value / auto,
        )  # fmt: skip

    return [of("fused", fused), of("auto", auto), of("eager", eager), of("concatenated", eager / 1.25)]


def test_report_has_every_kind_of_machine_the_worst_first(cpu_results, tmp_path):
    import report

    good, bad = [replace(a_row(), ratio_fused=2.0)], [replace(a_row(), H=512, ratio_fused=0.8)]
    cpu_results(good, machine="Good 1, 2 cores")
    cpu_results([replace(a_row(), ratio_fused=0.1)], "-partial", machine="Good 1, 2 cores")
    cpu_results(bad, machine="Bad 1, 2 cores", isa="avx512", date="2026-01-01T0000Z")
    newer = cpu_results(gan_rows(), machine="Bad 1, 2 cores", isa="avx512", date="2026-01-02T0000Z")
    capped = cpu_results(good, machine="Bad 1, 2 cores", isa="baseline", threads="1", capped="baseline")
    (tmp_path / "docs").mkdir()
    for name, markers in (
        ("README.md", (report.START, report.END, report.GAN_START, report.GAN_END)),
        ("docs/benchmarks.md", (report.START, report.END)),
    ):
        (tmp_path / name).write_text("\n".join(markers))
    assert report.main(["--no-picture"]) == 0
    readme, page = ((tmp_path / name).read_text() for name in ("README.md", "docs/benchmarks.md"))
    table = [line for line in readme.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table[2:5]] == [
        "| Bad 1, 2 cores, avx512", "| Bad 1, 2 cores, baseline, 1 thread", "| Good 1, 2 cores, avx2",
    ]  # fmt: skip
    assert "| 0.80 (**0.80**) |" in table[2] and "1.20 (1.20)" in table[2]  # the layers and the step
    assert "| no penalty | 1.50× (1.50–1.50) | 1.20× (1.20–1.20) | – | 1.00× (1.00–1.00) |" in readme
    assert readme.index("no penalty") > readme.index(report.GAN_START)
    assert page.count("\n## ") == 3 and "H512 B3 torch.nn 0.80×" in page
    link = f"(../results/bad-1-2-cores/avx512/{newer.name})"
    assert f"gan: [{newer.name}]{link}: 2 threads" in page and "partial" not in page
    assert f"{capped.name}): 1 thread, both sides held to baseline" in page


def test_without_results_the_report_says_so(cpu_results, capsys, tmp_path):
    import report

    (tmp_path / "results").mkdir()
    assert report.main([]) == 2
    assert "no complete results of a CPU in results" in capsys.readouterr().err


def test_live_bytes_sees_what_torch_allocates():
    from suites.memory import live_bytes

    before = live_bytes()
    kept = [torch.empty(1 << 20), torch.empty(1 << 10)]  # a mapped block and one from the heap
    grown = live_bytes() - before
    assert 0 <= grown - sum(t.nbytes for t in kept) < 64 * 1024


def a_row(**figures):
    from record import row

    return row("rnn", problem("lstm"), "torch", 1.5, ratio_fused=2.0, p20=1.25, error=1e-7, **figures)


def test_rows_survive_the_file_and_files_are_never_overwritten(tmp_path):
    import record

    rows = [a_row(), replace(a_row(), peer="peak", p20="", error="", note="a, b")]
    first, second = record.write(rows, tmp_path), record.write(rows[:1], tmp_path)
    assert first != second and len(record.read(second)) == 1
    assert record.read(first) == rows
    shared = record.shared(first)
    assert shared["threads"] == str(torch.get_num_threads()) and shared["isa"]


def test_rows_of_learning_are_there_at_once_and_never_overwritten(tmp_path, monkeypatch):
    import record

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    paths = []
    for seed in range(2):
        with record.learning("vae", ("seed", "nats")) as (path, add):
            add([{"seed": seed, "nats": 1 / 3}])
            assert len(path.read_text().splitlines()) == 2
            add([{"seed": seed, "nats": "unknown"}])
        paths.append(path)
    shared = record.environment()
    stem = f"{shared['date'][:10]}-{shared['commit']}-vae"
    folder = tmp_path / record.slug(shared["machine"]) / "learning"
    assert paths == [folder / f"{stem}.csv", folder / f"{stem}-2.csv"]
    head, first, second = paths[0].read_text().splitlines()
    assert head.startswith("seed,nats,date,commit") and "onednn" not in head
    assert first.startswith("0,0.33333,") and second.startswith("0,unknown,")
    with record.learning("vae", ("seed",), dry=True) as (path, add):
        add([{"seed": 0}])
    assert path is None and len(list(folder.iterdir())) == 2


def test_bars_judge_mean_and_worst():
    from bars import Bar, mean_and_worst, select

    mean, worst = mean_and_worst("x", [0.9, 1.6], 1.1, 0.97)
    assert mean.holds and mean.figure == pytest.approx(1.2)
    assert not worst.holds and "FAIL" in str(worst)
    assert Bar("y", 2.0, 2.0, at_most=True).holds
    assert not Bar("y", 2.1, 2.0, at_most=True).holds
    assert [e.cell for e in select([a_row(), replace(a_row(), cell="gru")], cell=("gru", "rnn"))] == ["gru"]


def test_report_replaces_only_what_stands_between_the_markers(tmp_path):
    import report

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.START}\nold\n{report.END}\nafter\n")
    report.inject("new", readme)
    assert readme.read_text() == f"before\n{report.START}\nnew\n{report.END}\nafter\n"
    readme.write_text(f"{report.END}{report.START}")
    with pytest.raises(ValueError, match="bench:start"):
        report.inject("new", readme)


def test_report_shows_losses():
    import report

    lost = replace(a_row(), H=512, ratio_fused=0.8)
    rows = [a_row(), lost, replace(a_row(), peer="fused", ratio_fused=1.0)]
    assert "**0.80**" in "\n".join(report.layer_table(rows))
    assert "H512" in report.losses(rows) and "0.80×" in report.losses(rows)


@pytest.mark.parametrize("isa, few", [("baseline", 7), ("avx2", 7), ("avx512", 24), ("avx512_bf16", 24)])
def test_bfloat16_is_a_few_cases_where_torch_emulates_it(isa, few, monkeypatch, capsys):
    from options import Options
    from suites import rnn

    monkeypatch.setattr(rnn.cap, "applied", isa)
    ran = []
    monkeypatch.setattr(rnn, "sweep", lambda suite, cases, *rest: ran.extend(cases) or [])
    rnn.run(Options())
    half = [case for case in ran if case.dtype == "bfloat16"]
    assert len(half) == few and len(ran) == few + 3 * 2 * 9
    assert {(case.cell, case.train) for case in half} == {(c, t) for c in rnn.CELLS for t in (False, True)}
    assert any(case.H == 1024 for case in half)
    assert ("7 cases stand for the grid's, since torch emulates" in capsys.readouterr().out) == (few == 7)


def test_options_choose_cases_by_words(monkeypatch):
    from options import Options
    from suites import rnn

    monkeypatch.setattr(rnn.cap, "applied", "avx512")
    cases = rnn.cases(quick=False)
    assert len(cases) == 3 * 2 * 9 + 3 * 2 * 4
    chosen = Options(only=("GRU", "training", "H512", "float32")).cases(cases)
    assert [(c.cell, c.train, c.H, c.dtype) for c in chosen] == [("gru", True, 512, "float32")] * 3


@pytest.mark.parametrize("penalty", ["none", "r1", "gp"])
def test_gan_peers_compute_one_step(penalty):
    from check import verify
    from suites.gan import PEERS, GanCase, GanProblem

    of = GanProblem(GanCase("mlp-9-7-1", 3, penalty))
    found = [run(peer, of) for peer in PEERS if peer.name in ("fused", "eager", "concatenated")]
    for one in found:
        assert set(one) == {"loss", *(name for name, _ in of.net.named_parameters())}
        assert verify(of, one) < 1e-5


def test_gan_peers_are_compiled_at_every_dense_size():
    from suites.gan import PEERS, cases

    compiled = [peer for peer in PEERS if peer.name in ("compile", "func")]
    for case in cases(quick=False):
        assert any(peer.fits(case) for peer in compiled) == case.cell.startswith("mlp"), case.name


def test_other_minutes_than_a_suites_own_make_a_run_partial(tmp_path, monkeypatch, capsys):
    import types

    import record
    import run as program
    from options import Options

    assert not Options().partial and Options(minutes=1.0).partial
    assert not Options(
        minutes=1.0, device="cuda"
    ).partial  # firm: test_gpu_report_says_what_the_time_left_out
    suite = types.SimpleNamespace(run=lambda options: [a_row()], bars=lambda rows: [])
    monkeypatch.setattr(program, "import_module", lambda name: suite)
    monkeypatch.setattr(program.record, "ROOT", tmp_path)
    written = []
    monkeypatch.setattr(
        record, "write", lambda rows, suffix, device: written.append(suffix) or tmp_path / "x"
    )
    threads = ["--threads", str(torch.get_num_threads())]
    for argv in ([], ["--minutes", "1"], ["--minutes", "1", "--save"]):
        assert program.main(["rnn", *threads, *argv]) == 0
    assert written == ["", "-partial"] and capsys.readouterr().out.count("a partial run: no verdict") == 2


def test_gpu_report_says_what_the_time_left_out(gpu_results, tmp_path):
    import report
    from sweep import FAILED, TIME_IS_UP

    path = gpu_results([gpu_row(), gpu_row(value=7, unit=FAILED, note=TIME_IS_UP, ratio_fused="")])
    text = report.gpu_markdown(path.parent)
    assert f"Not whole yet: rnn: 7 cases were not begun in time ({path.name})." in text


def test_gan_bars_judge_every_size():
    from record import Row
    from suites import gan

    def row(B, form, peer, value, ratio):
        return Row(
            "gan", "mlp-9-7-1", form, "training", "float32", 0, 0, B, 0, 2 * B, peer, value, ratio_fused=ratio
        )

    rows = [
        row(64, "none", "fused", 1.0, 1.0), row(64, "none", "eager", 3.0, 3.0),
        row(64, "none", "concatenated", 2.0, 2.0),
        row(64, "r1", "fused", 1.7, 1.0), row(64, "r1", "eager", 5.1, 3.0),
    ]  # fmt: skip
    seen = {bar.what: bar for bar in gan.bars(rows)}
    assert seen["MLP step, best peer / fused, geometric mean of 1"].figure == pytest.approx(2.0)
    assert seen["MLP step, eager / fused, geometric mean of 1"].holds
    assert not seen["MLP step, with R1 / without, fused, largest"].holds


def test_a_mixture_of_bernoullis_by_hand_and_by_em():
    from mixture import BernoulliMixture, best_of

    # one component, a pseudo image each way: chances (3 + 1) / (4 + 2) and (1 + 1) / 6
    x = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0]])
    one = BernoulliMixture(x, 1, 0).fit()
    assert one.chances[0].tolist() == pytest.approx([4 / 6, 2 / 6])
    assert one.log_likelihood(x[:1]).item() == pytest.approx(2 * torch.tensor(4 / 6).log().item())

    random = torch.Generator().manual_seed(0)
    chances = torch.tensor([[0.9] * 8 + [0.1] * 8, [0.1] * 8 + [0.9] * 8, [0.5] * 16])
    which = torch.randint(3, (3000,), generator=random)
    x = torch.bernoulli(chances[which], generator=random)
    mixture, objectives = BernoulliMixture(x, 3, 1), []
    for _ in range(25):
        objectives.append(mixture.objective())
        mixture.fit(steps=1, until=-torch.inf)
    assert all(b >= a - 1e-6 for a, b in pairwise(objectives))
    logits = chances.log() @ x.T + (1 - chances).log() @ (1 - x).T
    truth = -(logits.logsumexp(0) - torch.tensor(3.0).log()).mean().item()
    assert best_of(x[:2000], x[2000:], 3, restarts=3) == pytest.approx(truth, rel=0.03)
    with torch.no_grad():  # each image has a chance, and all together 1
        every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 16)
        assert mixture.log_likelihood(every).exp().sum().item() == pytest.approx(1)


# ---------------------------------------------------------------- on a GPU: what can be tested without one


def test_without_a_gpu_one_line_and_status_2(capsys):
    import run as program

    if not program.missing_for_gpu():
        pytest.skip("this machine has an NVIDIA GPU and a build with CUDA kernels")
    for suite in program.ON_GPU:
        assert program.main([suite, "--device", "cuda", "--quick"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("run.py: --device cuda: this ")


@pytest.mark.parametrize(
    "argv, said",
    [
        (["memory", "--device", "cuda"], "--device cuda: expected suites among rnn, cells"),
        (["gan", "--part", "1/2"], "--part: expected suites among rnn, cells"),
        (["rnn", "--part", "3/2"], "expected K/N with 1 <= K <= N, got '3/2'"),
        (["rnn", "--part", "2"], "expected K/N"),
    ],
)
def test_what_cannot_be_asked_for(argv, said, capsys):
    import run as program

    with pytest.raises(SystemExit) as stopped:
        program.main(argv)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_parts_share_out_the_whole_grid_evenly():
    from options import Options, work
    from suites import rnn

    cases = rnn.cases_cuda(quick=False)
    assert len(cases) == 2 * 2 * 4 * 5 * 4 and len(rnn.cases_cuda(quick=True)) == 24
    parts = [Options(device="cuda", part=(k, 7)).cases(cases) for k in range(1, 8)]
    assert sorted((c for part in parts for c in part), key=cases.index) == cases
    loads = [sum(map(work, part)) for part in parts]
    assert max(loads) < 1.05 * min(loads)


def test_a_firm_budget_begins_nothing_after_its_time():
    from peers.ours import Ours
    from problem import Case
    from sweep import FAILED, Budget, sweep

    cases = [Case("rnn", 8, 3, 5), Case("rnn", 8, 3, 6)]
    rows = sweep("rnn", cases, [Ours("fused")], Budget(-1, 2, firm=True))
    assert [(entry.unit, entry.value) for entry in rows] == [(FAILED, 2)]


def test_a_wrong_result_of_ours_is_a_row_and_no_timing(capsys):
    from peers.ours import Ours
    from problem import Case
    from sweep import FAILED, WRONG, Budget, sweep

    class Wrong(Ours):
        def prepare(self, problem):
            runner = super().prepare(problem)
            right = runner.results
            runner.results = lambda: {name: value + 1 for name, value in right().items()}
            return runner

    class Broken(Ours):
        def prepare(self, problem):
            raise RuntimeError("no luck\nat all")

    peers = [Wrong("fused"), Broken("auto"), Ours("frozen")]
    rows = sweep("rnn", [Case("gru", 8, 3, 5)], peers, Budget(0, 1, min_rounds=1))
    units = {entry.peer: entry.unit for entry in rows}
    assert units == {"fused": WRONG, "auto": FAILED, "frozen": "ms"}
    assert all(entry.ratio_fused == "" for entry in rows)
    assert "no luck" in capsys.readouterr().err


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_recurrence_alone_computes_what_the_layer_does(cell, train, monkeypatch):
    simt = pytest.importorskip(
        "fusegen._simt", reason="fusegen._simt is not built (FUSEGEN_SIMT=ON builds it)"
    )
    from check import verify
    from fusegen.ops import gpu
    from peers.gpu import Recurrence

    monkeypatch.setattr(gpu, "engine", simt)
    monkeypatch.setattr(gpu, "uses_tf32", lambda dtype: False)
    of = problem(cell, train=train)
    found = run(Recurrence(), of)
    assert set(found) == {"y", "h_n", "c_n"} - ({"c_n"} if cell == "gru" else set())
    verify(of, found)


def gpu_row(
    suite="rnn", cell="lstm", mode="inference", dtype="bfloat16", H=128, B=16, peer="torch", **figures
):
    from record import Row

    T = 1 if suite == "cells" else 512
    figures = {"value": 1.0, "ratio_fused": 2.0, "gflops": 1000.0, "gbs": 10.0} | figures
    return Row(suite, cell, "layer", mode, dtype, H, H, B, T, B * T, peer, **figures)


def test_gpu_bars_judge_precision_by_precision_and_beside_plan_and_ceilings():
    from record import Row
    from suites import rnn

    rows = [
        gpu_row(ratio_fused=4.0), gpu_row(H=2048, ratio_fused=1.0), gpu_row(dtype="tf32", ratio_fused=1.9),
        gpu_row(dtype="float16", B=8, ratio_fused=1.2), gpu_row(peer="fused", ratio_fused=1.0),
        gpu_row(peer="recurrence", value=0.7, unit="us/step"),
        Row("ceilings", "", "", "", "bfloat16", 0, 8192, 0, 0, 0, "product bfloat16", 500.0, unit="TFLOP/s"),
    ]  # fmt: skip
    seen = {bar.what: bar for bar in rnn.bars_cuda(rows)}
    inner = seen["bfloat16, torch.nn / fused, H <= 1024 and B <= 64, geometric mean of 1"]
    assert inner.figure == pytest.approx(4) and inner.limit == 3 and inner.holds
    assert seen["  all shapes, geometric mean of 2"].figure == pytest.approx(2)
    assert not seen["tf32, torch.nn / fused, H <= 1024 and B <= 64, geometric mean of 1"].holds
    assert seen["fp16 LSTM at cuDNN's persistent shapes, geometric mean of 1"].holds
    assert seen["LSTM recurrence, us a step / planned, worst of 1"].figure == pytest.approx(2)  # planned 0.35
    (share,) = [bar.figure for what, bar in seen.items() if "tensor-core peak" in what]
    assert share == pytest.approx(1000 / 500e3)


def test_gpu_bars_of_the_gan_step():
    from record import Row
    from suites import gan

    def of(peer, form="none", **ratios):
        return Row(
            "gan", "mlp-9-7-1", form, "training", "float32", 0, 0, 64, 0, 128, peer, 1.0,
            **{"ratio_fused": "", "ratio_graph": ""} | ratios,
        )  # fmt: skip

    rows = [
        of("eager", ratio_fused=7.0), of("eager graph", ratio_graph=1.5),
        of("eager graph", "r1", ratio_graph=2.6), of("eager", "r1", ratio_fused=1.0),
    ]  # fmt: skip
    seen = {bar.what: bar for bar in gan.bars_cuda(rows)}
    assert seen["MLP step, float32, eager / fused, geometric mean of 1"].holds
    assert not seen["MLP step, float32, one CUDA graph each, geometric mean of 1"].holds
    assert seen["MLP step with R1, float32, one CUDA graph each, geometric mean of 1"].holds


def test_the_plan_has_the_better_way():
    import planned

    assert planned.step(512, 256) == pytest.approx(2.15)  # through L2: 2 to 2.3
    assert planned.step(1024, 1) == pytest.approx(1.2) and planned.step(2048, 256) == 12
    assert planned.step(100, 16) is None and planned.step(128, 17) is None


@pytest.fixture
def gpu_results(tmp_path, monkeypatch):
    """A function that writes rows as a file of a made-up GPU's results, under a root of its own."""
    import record

    shared = record.environment() | {
        "machine": "Made Up H1", "capability": "9.0", "driver": "1", "cuda": "13", "cudnn": "9", "host": "x",
    }  # fmt: skip
    monkeypatch.setattr(record, "environment", lambda device="cpu": shared | {"commit": "0123456789"})
    monkeypatch.setattr(record, "ROOT", tmp_path)
    return lambda rows, suffix="": record.write(rows, tmp_path / "results", suffix, "cuda")


def test_gpu_report_joins_parts_and_shows_losses(gpu_results, tmp_path):
    import report

    gpu_results([gpu_row(ratio_fused=9.0)], "-partial")
    first = gpu_results([gpu_row(), gpu_row(peer="torch graph", ratio_graph=1.5)], "-1of3")
    gpu_results([gpu_row(H=512, ratio_fused=0.5), gpu_row(suite="cells", ratio_fused=1.25)], "-2of3")
    (folder,) = report.gpu_folders(tmp_path / "results")
    text = report.gpu_markdown(folder)
    assert "| LSTM inference | 1.00× (**0.50**–2.00) | – | – | – | 1.50× (1.50–1.50) |" in text
    assert "torch.nn was faster in 1 of 2 layer cases: LSTM inference bf16 H512 B16 0.50×." in text
    assert (
        "rnn: 2 of 3 parts" in text and first.name in text and "partial" not in text and "Made Up H1" in text
    )
    assert "a single step (cells), inference | 1.25×" in text


def test_what_to_tune_next(gpu_results, tmp_path, monkeypatch, capsys):
    import worst

    monkeypatch.setattr(worst, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    assert worst.main([]) == 2 and "no results of layers on a GPU" in capsys.readouterr().err
    rows = [gpu_row(H=H, ratio_fused=r) for H, r in ((128, 2.0), (256, 0.5), (512, 0.9), (1024, 1.5))]
    rows += [gpu_row(H=H, peer="recurrence", value=3.5, unit="us/step") for H in (128, 512)]
    gpu_results(rows)
    assert worst.main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["0.50", "lstm", "inference", "bfloat16", "H256", "B16", "T512"]
    assert [line.split()[0] for line in said[1:4]] == ["0.50", "0.90", "1.50"]
    assert said[5].split()[:5] == ["10.00", "lstm", "inference", "bfloat16", "H128"]  # planned 0.35
    monkeypatch.setattr(worst.shutil, "which", lambda name: None)
    assert worst.main(["--ncu", str(tmp_path / "ncu")]) == 2 and "ncu" in capsys.readouterr().err


def test_the_table_of_auto_is_made_from_results(gpu_results, tmp_path, monkeypatch, capsys):
    """Made-up readings, written nowhere but to a folder of the test."""
    import choice
    from fusegen import _choice

    ratios = {(128, 1): 2.0, (128, 16): 1.5, (512, 1): 0.9, (512, 16): 0.8, (2048, 1): 3.0, (2048, 16): 0.7}
    path = gpu_results([gpu_row(H=H, B=B, ratio_fused=r) for (H, B), r in ratios.items()])
    assert choice.main([str(path), "--output", str(tmp_path)]) == 0
    assert not (tmp_path / "_cpu_rules.py").exists()
    made = {}
    exec((tmp_path / "_gpu_rules.py").read_text(), made)
    assert list(made["MEASURED"]) == ["made-up-h1"]
    rules = tuple(_choice.Rule("made-up-h1", *row) for row in made["MEASURED"]["made-up-h1"])
    monkeypatch.setattr(_choice, "RULES", rules)

    def torch_wins(H, B, cell="lstm", dtype="bfloat16", train=False, T=512):
        return _choice.rule_for(cell, H, H, B, T, dtype, "made-up-h1", train) is not None

    assert all(torch_wins(H, B) == (ratio < 1) for (H, B), ratio in ratios.items())
    assert torch_wins(257, 3) and not torch_wins(256, 3)  # the middle of 128 and 512 is 256
    assert (
        torch_wins(1024, 3) and not torch_wins(1025, 3) and torch_wins(1025, 5) and torch_wins(10**6, 10**6)
    )
    assert torch_wins(128, 1, dtype="float16") and torch_wins(128, 1, train=True)  # not measured
    assert torch_wins(128, 1, cell="lstm_cell", T=1)
    joint = [r for r in rules if r.cell == "lstm" and r.dtype == "bfloat16" and not r.train]
    assert [(r.H, r.B) for r in joint] == [((257, 1024), (1, 2**31 - 1)), ((1025, 2**31 - 1), (5, 2**31 - 1))]
    assert all(r.source == path.name for r in joint)

    partial = gpu_results([gpu_row()], "-partial")
    assert choice.main([str(partial), "--output", str(tmp_path)]) == 2
    assert "expected a complete run" in capsys.readouterr().err


def test_auto_obeys_the_table_of_its_gpu(monkeypatch):
    from fusegen import _backend, _choice

    class OnGpu:
        """What use_torch looks at of a tensor that lies on a GPU."""

        is_cpu, is_cuda, dtype, shape = False, True, torch.bfloat16, (512, 16, 128)
        device = torch.device("cuda", 0)

    monkeypatch.setattr(_backend, "FUSED_DEVICES", ("cpu", "meta", "cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Made Up H1")
    rule = _choice.Rule("made-up-h1", "lstm", "bfloat16", False, (1, 64), (1, 64), (1, 1000), "a test")

    def goes_to_torch(H):
        return _backend.use_torch("lstm", OnGpu(), H, 16, 512, (), ())

    fusegen.set_backend("auto")
    assert goes_to_torch(64) and goes_to_torch(128)  # no GPU was measured
    monkeypatch.setattr(_choice, "RULES", (rule,))
    monkeypatch.setattr(_choice, "MEASURED_GPUS", ("another",))
    assert goes_to_torch(128)
    monkeypatch.setattr(_choice, "MEASURED_GPUS", ("made-up-h1",))
    assert goes_to_torch(64) and not goes_to_torch(128)
    fusegen.set_backend("fused")
    assert not goes_to_torch(64)


# ---------------------------------------------------------------- benchmarks/micro


def micro():
    import importlib.util

    spec = importlib.util.spec_from_file_location("micro_run", FOLDER / "micro/run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_micro_without_a_gpu_or_nvcc(monkeypatch, capsys):
    program = micro()
    if torch.cuda.is_available():
        pytest.skip("this machine has an NVIDIA GPU")
    assert program.main([]) == 2
    assert "sees no NVIDIA GPU" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(program, "find_nvcc", lambda: None)
    assert program.main([]) == 2
    assert "no nvcc" in capsys.readouterr().err


def test_micro_lists_wgmma_operands_and_reads_lines():
    program = micro()
    header = program.wgmma_header()
    assert header.count("template <> struct Wgmma<") == len(program.WIDTHS)
    assert "m64n256k16" in header and '"+f"(d[127])' in header and "%132, 1, 1, 1, 0" in header
    assert program.read("mma,N 8,12.5,TFLOP/s\n") == [("mma", "N 8", 12.5, "TFLOP/s")]


def test_micro_compiles_for_hopper(tmp_path):
    import subprocess

    program = micro()
    nvcc = program.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is not on this machine")
    (tmp_path / "wgmma.h").write_text(program.wgmma_header())
    command = [*program.compile_command(nvcc, "90a", tmp_path), "-cubin", "-o", str(tmp_path / "micro.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr and (tmp_path / "micro.cubin").stat().st_size > 0


@pytest.mark.parametrize(
    "stage, said",
    [("polish", "no stage 'polish': build, test"), ("bench-3", "no NVIDIA GPU on this machine")],
)
def test_make_gpu_says_what_it_cannot_do(stage, said):
    import subprocess

    if torch.cuda.is_available() and stage != "polish":
        pytest.skip("this machine has an NVIDIA GPU")
    command = ["bash", str(FOLDER.parent / "tools/gpu.sh"), sys.executable, stage]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"make gpu: {said}") and done.stdout == ""


def test_every_stage_of_make_gpu_asks_for_what_there_is():
    """Its run.py lines parse, and their parts make up the whole grid."""
    import re

    import run as program

    text = (FOLDER.parent / "tools/gpu.sh").read_text()
    lines = re.findall(r"^ *(bench-\S+)\) bench (.*) ;;$", text, re.M)
    assert [name for name, _ in lines] == ["bench-quick", "bench-[1-4]", "bench-5", "bench-6", "bench-7"]
    for _, arguments in lines:
        for k in range(1, 5):
            argv = arguments.replace('"${1#bench-}/4"', f"{k}/4").split()
            asked = program.parse([*argv, "--device", "cuda"])
            assert asked.minutes * len(asked.suites) <= 8
    assert "bench_stages=(bench-1 bench-2 bench-3 bench-4 bench-5 bench-6 bench-7)" in text


@pytest.mark.parametrize("suite", ["rnn", "gan"])
def test_a_step_can_be_captured_and_its_row_made(suite, monkeypatch):
    """What the GPU's path asks of problems and runners, with a capture that only runs."""
    import contextlib

    import sweep
    from peers import gpu
    from peers.torch_eager import TorchEager
    from suites.gan import PEERS, GanCase, GanProblem
    from timing import Timing

    class Stream:
        def wait_stream(self, other):
            pass

    class Graph:
        replay = reset = lambda self: None

    fake = {
        "CUDAGraph": Graph,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda s: contextlib.nullcontext(),
        "graph": lambda graph, stream: contextlib.nullcontext(),
    }
    for name, value in fake.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(sweep, "device_of", lambda case: "cuda")
    if suite == "gan":
        of = GanProblem(GanCase("mlp-9-7-1", 3, "r1"))
        peer = next(one for one in PEERS if one.name == "eager")
    else:
        of, peer = problem("lstm", train=True), TorchEager()
    found = run(gpu.InGraph("graph", peer), of)
    assert set(found) == set(of.reference())
    made = sweep.timing_row(suite, of, "graph", {"graph": Timing([1e-3])}, 0.0)
    assert made.value == 1 and (made.gbs == "") == (suite == "gan")
