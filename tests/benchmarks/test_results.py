"""Rows and their files, the pages made from them, and what is read from them to tune next."""

from dataclasses import replace

import pytest
import report
import torch
from benchmark_rows import a_row, gan_row, gpu_row
from fusegen._choice import slug
from gpu import worst
from harness import record
from harness.bars import select
from harness.sweep import FAILED, TIME_IS_UP
from pages import cpu
from pages import gpu as gpu_page
from pages.measured import gpu_folders, platforms


def test_results_lie_by_machine_and_instruction_set(cpu_results, tmp_path):
    path = cpu_results([a_row()], machine="AMD EPYC (family 25 model 17), 2 cores", capped="avx2")
    assert path.parent == tmp_path / "results/amd-epyc-family-25-model-17-2-cores/avx2"
    assert record.shared(path)["capped"] == "avx2"


def gan_rows(fused=1.0, eager=1.5, auto=1.2):
    def of(peer, value):
        return gan_row(peer, value=value, ratio_fused=value / fused, ratio_auto=value / auto)

    return [of("fused", fused), of("auto", auto), of("eager", eager), of("concatenated", eager / 1.25)]


def marked(marker, text=""):
    return f"<!-- {marker}:start -->\n{text}\n<!-- {marker}:end -->\n"


def test_report_has_every_platform_the_worst_first(cpu_results, tmp_path):
    good, bad = [replace(a_row(), ratio_fused=2.0)], [replace(a_row(), H=512, ratio_fused=0.8)]
    cpu_results(good, machine="Good 1, 2 cores")
    cpu_results([replace(a_row(), ratio_fused=0.1)], "-partial", machine="Good 1, 2 cores")
    cpu_results(bad, machine="Bad 1, 2 cores", isa="avx512", date="2026-01-01T0000Z")
    newer = cpu_results(gan_rows(), machine="Bad 1, 2 cores", isa="avx512", date="2026-01-02T0000Z")
    capped = cpu_results(good, machine="Bad 1, 2 cores", isa="baseline", threads="1", capped="baseline")
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/benchmarks.md"):
        (tmp_path / name).write_text(marked(report.BENCH))
    assert report.main(["--write", "--no-picture"]) == 0
    readme, page = ((tmp_path / name).read_text() for name in ("README.md", "docs/benchmarks.md"))
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table[2:5]] == [
        "| Bad 1, 2 cores, avx512", "| Bad 1, 2 cores, baseline, 1 thread", "| Good 1, 2 cores, avx2",
    ]  # fmt: skip
    assert "| 0.80 (**0.80**) |" in table[2] and "1.20 (1.20)" in table[2]  # the layers and the step
    assert "| no penalty | 1.50× (1.50–1.50) | 1.20× (1.20–1.20) | – | 1.00× (1.00–1.00) |" in page
    assert page.count("\n## ") == 4 and "H512 B3 torch.nn 0.80×" in page
    said = " ".join(readme.split())
    assert "the least favourable of the machines measured: Bad 1, 2 cores, avx512. Each" in said
    assert "in 1 of 1 comparisons on this machine, in 0 of 1 comparisons on Bad 1, 2 cores, baseline" in said
    assert "0 of 1 comparisons on Good 1, 2 cores, avx2." in said and "|" not in readme
    link = f"(../results/bad-1-2-cores/avx512/{newer.name})"
    assert f"gan: [{newer.name}]{link}: 2 threads" in page and "partial" not in page
    assert f"{capped.name}): 1 thread, both sides held to baseline" in page


def test_without_results_the_report_says_so(cpu_results, capsys, tmp_path):
    (tmp_path / "results").mkdir()
    assert report.main([]) == 2
    assert "no complete results in results" in capsys.readouterr().err


def test_rows_survive_the_file_and_files_are_never_overwritten(tmp_path):
    rows = [a_row(), replace(a_row(), peer="peak", p20="", error="", note="a, b")]
    first, second = record.write(rows, tmp_path), record.write(rows[:1], tmp_path)
    assert first != second and len(record.read(second)) == 1
    assert record.read(first) == rows
    shared = record.shared(first)
    assert shared["threads"] == str(torch.get_num_threads()) and shared["isa"]


def test_rows_of_learning_are_there_at_once_and_never_overwritten(tmp_path, monkeypatch):
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
    folder = tmp_path / slug(shared["machine"]) / "learning"
    assert paths == [folder / f"{stem}.csv", folder / f"{stem}-2.csv"]
    head, first, second = paths[0].read_text().splitlines()
    assert head.startswith("seed,nats,date,commit") and "onednn" not in head
    assert first.startswith("0,0.33333,") and second.startswith("0,unknown,")
    with record.learning("vae", ("seed",), dry=True) as (path, add):
        add([{"seed": 0}])
    assert path is None and len(list(folder.iterdir())) == 2


def test_report_replaces_only_what_stands_between_the_markers():
    page = report.injected(f"before\n{marked('bench', 'old')}after\n", "new", "bench")
    assert page == f"before\n{marked('bench', 'new')}after\n"
    with pytest.raises(ValueError, match=r"README\.md: expected <!-- bench:start --> and then"):
        report.injected("<!-- bench:end --><!-- bench:start -->", "new", "bench", "README.md")


def test_the_pages_are_what_the_report_writes():
    """README.md and docs/benchmarks.md say what the committed files do, and nothing older."""
    written = report.pages(platforms(record.RESULTS), report.gpu_texts())
    assert [path.name for path in written] == ["README.md", "benchmarks.md"]
    for path, text in written.items():
        assert path.read_text() == text, f"{path.name}: run benchmarks/report.py --write"


def test_check_writes_nothing_and_says_what_differs(cpu_results, tmp_path, capsys):
    cpu_results([a_row()], machine="Good 1, 2 cores")
    (tmp_path / "docs").mkdir()
    readme, page = tmp_path / "README.md", tmp_path / "docs/benchmarks.md"
    readme.write_text(marked("bench"))
    page.write_text(marked("bench"))
    before = readme.read_text()
    assert report.main(["--check"]) == 1 and readme.read_text() == before
    said = capsys.readouterr().err
    assert said == "".join(
        f"{name}: not what report.py writes\n" for name in ("README.md", "docs/benchmarks.md")
    )
    assert report.main(["--write", "--no-picture"]) == 0 and report.main(["--check"]) == 0


def test_rows_of_their_own_threads_stand_beside_those(cpu_results, tmp_path):
    rows = [replace(a_row(suite="models"), form=f"recurrent threads{n}", ratio_fused=n) for n in (1, 2)]
    cpu_results([a_row(), *rows], machine="Good 1, 2 cores")
    cpu_results([a_row(suite="imports")], machine="Another 1, 2 cores")  # nothing that a page shows
    found = platforms(tmp_path / "results")
    assert [(one.name, [row.suite for row in one.rows]) for one in found] == [
        ("Good 1, 2 cores, avx2", ["rnn", "models"]), ("Good 1, 2 cores, avx2, 1 thread", ["models"]),
    ]  # fmt: skip
    assert "2.00 (2.00)" in cpu.summary(found)[2] and "1.00 (1.00)" in cpu.summary(found)[3]


def test_quantized_layers_have_a_table_of_their_own(cpu_results, tmp_path):
    figures = {"frozen": 3.0, "torch.ao": 0.5, "onnxruntime": 1.5, "torch": 4.0}
    rows = [
        replace(a_row(suite="int8"), cell=cell, B=1, peer=peer, ratio_fused=ratio, form="layer threads2")
        for cell in ("lstm", "gru")
        for peer, ratio in figures.items()
    ]
    cpu_results(rows, machine="Good 1, 2 cores")
    (found,) = platforms(tmp_path / "results")
    head, _, lstm, gru, rnn = cpu.int8_table(found.rows)
    assert head == "| int8 | fusegen's float32 | torch.ao | ONNX Runtime | torch.nn |"
    assert lstm.startswith("| LSTM, B 1 | 3.00× (3.00–3.00) | 0.50× (**0.50**–0.50) | 1.50×")
    assert "| GRU, B 1 | 3.00×" in gru and "| – | 4.00×" in gru  # ONNX Runtime's GRU is float32
    assert rnn == "| RNN, B 1 | – | – | – | – |"
    assert cpu.int8_table([a_row()]) == [] and lstm in cpu.details(found, None, tmp_path / "page.md")


def test_report_shows_losses():
    lost = replace(a_row(), H=512, ratio_fused=0.8)
    rows = [a_row(), lost, replace(a_row(), peer="fused", ratio_fused=1.0)]
    assert "**0.80**" in "\n".join(cpu.layer_table(rows))
    assert "H512" in cpu.losses(rows) and "0.80×" in cpu.losses(rows)


def test_every_comparison_of_the_list_stands_in_the_table():
    half = {"dtype": "bfloat16", "ratio_frozen": 0.35, "ratio_fused": 3.0}
    rows = [replace(a_row(), **half, mode="inference", peer=peer) for peer in ("onednn", "openvino")]
    rows += [replace(a_row(), **half, mode="inference", peer="fused"), replace(a_row(), cell="gru")]
    head, _, lstm, gru = cpu.layer_table(rows)
    assert head == "| layer, fp32 | torch.nn | OpenVINO, bf16 | oneDNN from C++, bf16 |"
    assert lstm == "| LSTM inference | – | 0.35× (**0.35**–0.35) | 0.35× (**0.35**–0.35) |"
    assert gru.startswith("| GRU inference | 2.00× (2.00–2.00) | – | – |")
    said = cpu.losses(select(rows, peer=tuple(cpu.PEERS)))
    assert said.startswith("In 2 of 3 comparisons") and "bf16 H8 B3 oneDNN from C++ 0.35×" in said


def test_gpu_report_says_what_the_time_left_out(gpu_results, tmp_path):
    path = gpu_results([gpu_row(), gpu_row(value=7, unit=FAILED, note=TIME_IS_UP, ratio_fused="")])
    text = gpu_page.markdown(path.parent, tmp_path / "page.md")
    assert f"Not whole yet: rnn: 7 cases were not begun in time ({path.name})." in text


def test_gpu_report_joins_parts_and_shows_losses(gpu_results, tmp_path):
    gpu_results([gpu_row(ratio_fused=9.0)], "-partial")
    first = gpu_results([gpu_row(), gpu_row(peer="torch graph", ratio_graph=1.5)], "-1of3")
    gpu_results([gpu_row(H=512, ratio_fused=0.5), gpu_row(suite="cells", ratio_fused=1.25)], "-2of3")
    (folder,) = gpu_folders(tmp_path / "results")
    text = gpu_page.markdown(folder, tmp_path / "page.md")
    assert "| LSTM inference | 1.00× (**0.50**–2.00) | – | – | – | 1.50× (1.50–1.50) |" in text
    assert "torch.nn was faster in 1 of 2 layer cases: LSTM inference bf16 H512 B16 0.50×." in text
    assert (
        "rnn: 2 of 3 parts" in text and first.name in text and "partial" not in text and "Made Up H1" in text
    )
    assert "a single step (cells), inference | 1.25×" in text


def test_what_to_tune_next(gpu_results, tmp_path, monkeypatch, capsys):
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


def test_the_report_prints_and_writes_nothing_unless_it_is_told_to(cpu_results, tmp_path, capsys):
    cpu_results([a_row()], machine="Good 1, 2 cores")
    (tmp_path / "docs").mkdir()
    readme, page = tmp_path / "README.md", tmp_path / "docs/benchmarks.md"
    readme.write_text(marked("bench") + marked("gan-bench"))
    page.write_text(marked("bench"))
    before = readme.read_text(), page.read_text()
    assert report.main([]) == 0 and (readme.read_text(), page.read_text()) == before
    said = capsys.readouterr().out
    assert "## Good 1, 2 cores, avx2" in said and "2.00× (2.00–2.00)" in said
    assert "H: hidden and input size" in said and "without a unit" in said
    assert not list(tmp_path.rglob("*.png"))
    assert report.main(["--write", "--no-picture"]) == 0 and readme.read_text() != before[0]
    assert "without a unit" in page.read_text()


def test_a_quick_run_is_shown_and_drawn(cpu_results, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    ours, shape = {"ratio_frozen": ""}, {"H": 64, "B": 32, "T": 100, "I": 64}
    rows = [replace(a_row(), mode=mode, **shape) for mode in ("inference", "training")]
    rows += [replace(rows[0], peer="onednn", **ours)]  # read without the frozen layer beside it
    path = cpu_results(rows, "-partial", machine="Good 1, 2 cores")
    drawn = tmp_path / "quick.png"
    assert report.main([str(path), "--picture", str(drawn)]) == 0
    assert drawn.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out.splitlines()
    layers = [line for line in said if line.startswith(("| layer", "| LSTM", "| GRU", "| RNN"))]
    assert layers == [
        "| layer, fp32 | torch.nn |",
        "| LSTM inference | 2.00× (2.00–2.00) |",
        "| LSTM training | 2.00× (2.00–2.00) |",
    ]
    other = cpu_results([a_row(suite="imports")], "-partial", machine="Good 1, 2 cores")
    assert report.main([str(other)]) == 2 and report.main([str(tmp_path / "none.csv")]) == 2
    with pytest.raises(SystemExit):
        report.main([str(path), "--write"])


def test_rows_are_kept_as_they_are_read_and_a_run_that_ends_needs_them_no_more(tmp_path):
    first, second = a_row(), replace(a_row(), peer="compile")
    with record.Running(tmp_path) as running:
        assert running.path is None and not list(tmp_path.rglob("*.csv"))
        record.saw([first])
        kept = running.path
        assert "-partial-unfinished" in kept.name and record.read(kept) == [first]
        record.saw([first, second])  # what a suite gives at its end, of which its sweeps have told
        assert record.read(kept) == [first, second]
    assert kept.exists() and record.read(kept) == [first, second]  # of a run that was stopped
    with record.Running(tmp_path) as running:
        record.saw([first])
        assert running.path != kept
        running.remove()
    record.saw([second])  # nobody is there
    assert list(tmp_path.rglob("*.csv")) == [kept]
