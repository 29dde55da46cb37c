"""`run.py`, `make gpu`: what can be asked for, and what is said where it cannot run."""

import re
import subprocess
import sys
import types

import pytest
import run as program
import torch
from benchmark_rows import FOLDER, a_row
from gpu import rnn as gpu_rnn
from harness import record
from harness.bars import Bar
from harness.options import Options, work
from speed import rnn


@pytest.mark.parametrize(
    "isa, few", [("baseline", 7), ("avx2", 7), ("avx2_vnni", 7), ("avx512", 24), ("avx512_bf16", 24)]
)
def test_bfloat16_is_a_few_cases_where_torch_emulates_it(isa, few, monkeypatch, capsys):
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
    monkeypatch.setattr(rnn.cap, "applied", "avx512")
    cases = rnn.cases(quick=False)
    assert len(cases) == 3 * 2 * 9 + 3 * 2 * 4
    chosen = Options(only=("GRU", "training", "H512", "float32")).cases(cases)
    assert [(c.cell, c.train, c.H, c.dtype) for c in chosen] == [("gru", True, 512, "float32")] * 3


def test_other_minutes_than_a_suites_own_make_a_run_partial(tmp_path, monkeypatch, capsys):
    assert not Options().partial and Options(minutes=1.0).partial
    assert not Options(
        minutes=1.0, device="cuda"
    ).partial  # firm: test_gpu_report_says_what_the_time_left_out
    lost = Bar("what was promised", 1.0, 2.0)
    suite = types.SimpleNamespace(run=lambda options: [a_row()], bars=lambda rows: [lost])
    monkeypatch.setattr(program, "import_module", lambda name: suite)
    monkeypatch.setattr(program.machine, "ROOT", tmp_path)
    written = []
    monkeypatch.setattr(
        record, "write", lambda rows, suffix, device: written.append(suffix) or tmp_path / "x"
    )
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    threads = ["--threads", str(torch.get_num_threads())]
    for argv in ([], ["--minutes", "1"], ["--minutes", "1", "--save"]):
        assert program.main(["rnn", *threads, *argv]) == 0
    said = capsys.readouterr().out
    assert written == ["", "-partial"] and said.count("(a partial run: figures beside their limits") == 2
    assert said.count("FAIL") == 1 and said.count("what was promised") == 3


def test_without_a_gpu_one_line_and_status_2(capsys):
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
    with pytest.raises(SystemExit) as stopped:
        program.main(argv)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_parts_share_out_the_whole_grid_evenly():
    cases = gpu_rnn.cases(quick=False)
    assert len(cases) == 2 * 2 * 4 * 5 * 4 and len(gpu_rnn.cases(quick=True)) == 24
    parts = [Options(device="cuda", part=(k, 7)).cases(cases) for k in range(1, 8)]
    assert sorted((c for part in parts for c in part), key=cases.index) == cases
    loads = [sum(map(work, part)) for part in parts]
    assert max(loads) < 1.05 * min(loads)


@pytest.mark.parametrize(
    "stage, said",
    [("polish", "no stage 'polish': build, test"), ("bench-3", "no NVIDIA GPU on this machine")],
)
def test_make_gpu_says_what_it_cannot_do(stage, said):
    if torch.cuda.is_available() and stage != "polish":
        pytest.skip("this machine has an NVIDIA GPU")
    command = ["bash", str(FOLDER.parent / "tools/gpu.sh"), sys.executable, stage]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"make gpu: {said}") and done.stdout == ""


def test_every_stage_of_make_gpu_asks_for_what_there_is():
    """Its run.py lines parse, and their parts make up the whole grid."""
    text = (FOLDER.parent / "tools/gpu.sh").read_text()
    lines = re.findall(r"^ *(bench-\S+)\) bench (.*) ;;$", text, re.M)
    assert [name for name, _ in lines] == ["bench-quick", "bench-[1-4]", "bench-5", "bench-6", "bench-7"]
    for _, arguments in lines:
        for k in range(1, 5):
            argv = arguments.replace('"${1#bench-}/4"', f"{k}/4").split()
            asked = program.parse([*argv, "--device", "cuda"])
            assert asked.minutes * len(asked.suites) <= 8
    programs = re.findall(r"\) program (\S+)", text)
    assert programs == ["gpu.micro", "gpu.worst"]
    assert all((FOLDER / f"{name.replace('.', '/')}.py").exists() for name in programs)
    assert "bench_stages=(bench-1 bench-2 bench-3 bench-4 bench-5 bench-6 bench-7)" in text


@pytest.mark.parametrize("argv", [[], ["--quick"]])
def test_a_run_that_is_stopped_keeps_what_it_has_read(tmp_path, monkeypatch, capsys, argv):
    def run(options):
        record.saw([a_row()])
        raise KeyboardInterrupt

    suite = types.SimpleNamespace(run=run, bars=lambda rows: [])
    monkeypatch.setattr(program, "import_module", lambda name: suite)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert program.main(["rnn", *argv]) == 130
    (left,) = tmp_path.rglob("*.csv")
    said = capsys.readouterr()
    assert "-partial-unfinished" in left.name and f"what was read is in {left}" in said.err
    assert record.read(left) == [a_row()] and "milliseconds a" in said.out


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("argv", [[], ["--quick"]])
def test_output_has_the_rows_and_the_results_folder_stays_as_it_is(
    tmp_path, monkeypatch, capsys, argv, stopped
):
    read = [a_row()]

    def run(options):
        record.saw(read)
        if stopped:
            raise KeyboardInterrupt
        return [*read, a_row(note="of the suite's end")]

    suite = types.SimpleNamespace(run=run, bars=lambda rows: [])
    monkeypatch.setattr(program, "import_module", lambda name: suite)
    results, path = tmp_path / "results", tmp_path / "mine.csv"
    monkeypatch.setattr(record, "RESULTS", results)
    monkeypatch.setattr(record.write, "__defaults__", (results, "", "cpu"))
    asked = ["rnn", *argv, "--out", str(path)]
    assert program.main(asked) == (130 if stopped else 0)
    out, err = capsys.readouterr()
    assert str(path) in (err if stopped else out) and not results.exists()
    assert [entry.note for entry in record.read(path)] == [""] + ["of the suite's end"] * (not stopped)
    assert record.shared(path)["isa"]
    before = path.read_bytes()
    assert program.main(asked) == 2 and path.read_bytes() == before
    assert "run.py: --out: expected a new file" in capsys.readouterr().err
    asked[-1] = str(tmp_path / "nowhere/mine.csv")
    assert program.main(asked) == 2 and "a folder that is there" in capsys.readouterr().err


def test_a_run_that_ends_leaves_its_own_file_alone(tmp_path, monkeypatch):
    suite = types.SimpleNamespace(run=lambda options: [a_row()], bars=lambda rows: [])
    monkeypatch.setattr(program, "import_module", lambda name: suite)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(program.machine, "ROOT", tmp_path)
    monkeypatch.setattr(record.write, "__defaults__", (tmp_path, "", "cpu"))
    assert program.main(["rnn"]) == 0
    (left,) = tmp_path.rglob("*.csv")
    assert "partial" not in left.name
