"""benchmarks/choice.py: the tables that "auto" obeys, made from result files."""

import choice
import pytest
from benchmark_rows import gpu_row
from fusegen import _choice, _cpu_rules
from harness import record

AMD = "AMD EPYC (family 25 model 17), 2 cores"


@pytest.fixture
def results(tmp_path):
    """A function: a result file with these (suite, cell, form, train, I, H, B, T, ratio) of torch's rows."""

    def written(
        rows, machine=AMD, isa="avx2", threads="2", spread=0.01, peer="torch", suffix="", minute="00"
    ):
        made = []
        for suite, cell, form, train, I, H, B, T, ratio in rows:
            mode = "training" if train else "inference"
            for name, value, figure in (("fused", 1.0, 1.0), (peer, ratio, ratio)):
                figures = {"p20": value - spread, "p80": value + spread, "rounds": 4, "ratio_fused": figure}
                case = {"cell": cell, "form": form, "mode": mode, "dtype": "float32", "tokens": B * T}
                sizes = {"I": I, "H": H, "B": B, "T": T}
                made.append(record.Row(suite, **case, **sizes, peer=name, value=value, **figures))
        shared = {
            "date": f"2026-12-01T00{minute}Z",
            "commit": "abc",
            "machine": machine,
            "isa": isa,
            "threads": threads,
        }
        names = list(record.Row.__dataclass_fields__)
        with record.new_file(names, tmp_path, shared, suffix) as (path, add):
            add(vars(one) for one in made)
        return path

    return written


def made_of(tmp_path, *paths):
    assert choice.main([*map(str, paths), "--out", str(tmp_path)]) == 0
    scope = {}
    exec((tmp_path / "_cpu_rules.py").read_text(), scope)
    return scope["MEASURED"]


def first_with(rules, *sizes):
    """The first of these rules that has the sizes H, B, T, I; None where none has."""
    return next((r for r in rules if _choice.holds(r.H, r.B, r.T, r.I, sizes)), None)


def test_a_table_is_made_from_results_and_obeyed(results, tmp_path, monkeypatch):
    grid = {
        (64, 1): 2.0,
        (64, 16): 0.9,
        (256, 1): 0.8,
        (256, 16): 0.9,
        (1024, 1): 1.2,
    }  # (1024, 16) is a hole
    layers = [("rnn", "lstm", "layer", False, h, h, b, 50, ratio) for (h, b), ratio in grid.items()]
    steps = [
        ("gan", "mlp-6-4-1", "none", True, 0, 0, 64, 0, 0.9),
        ("gan", "mlp-6-40-1", "none", True, 0, 0, 64, 0, 1.5),
        ("gan", "dcgan", "none", True, 0, 0, 64, 0, 0.5),
    ]
    small = [
        ("small", "gru", f"cell threads{n}", True, 32, 32, 1, 1, ratio) for n, ratio in ((1, 0.9), (2, 1.5))
    ]
    paths = results(layers), results(small), results(steps, peer="concatenated")
    made = made_of(tmp_path, *paths)
    assert list(made) == [("avx2", "amd")]
    monkeypatch.setattr(_cpu_rules, "MEASURED", made)
    rules = tuple(
        _choice.Rule(
            "cpu",
            cell,
            dtype,
            train,
            H=H,
            B=B,
            T=T,
            source=source,
            I=I,
            threads=threads,
            isa=isa,
            vendor=vendor,
        )
        for (isa, vendor), rows in made.items()
        for cell, dtype, train, I, H, B, T, threads, source in rows
    )
    monkeypatch.setattr(_choice, "RULES", rules)

    def torch_wins(cell, I, H, B, T, train=False, isa="avx2", vendor="amd", threads=2):
        of_machine = _choice.of_machine("cpu", isa, vendor)
        return first_with(_choice.of_call(of_machine, cell, "float32", train, threads), H, B, T, I)

    for (h, b), ratio in grid.items():
        found = torch_wins("lstm", h, h, b, 50)
        assert (found is not None) == (ratio < 1), (h, b)
        assert found is None or found.source == paths[0].name
        assert not torch_wins("lstm", h, h, b, 50, isa="avx512") and not torch_wins(
            "lstm", h, h, b, 50, vendor="intel"
        )
        assert not torch_wins("lstm", h, h, b, 50, train=True) and not torch_wins("gru", h, h, b, 50)
        assert not torch_wins("lstm", h, h, b, 1)  # a single step is a way of its own, not measured
    assert torch_wins("lstm", 9, 128, 5, 50) and not torch_wins("lstm", 9, 128, 4, 50)  # geometric middles
    assert torch_wins("lstm", 129, 129, 4, 2) and torch_wins("lstm", 512, 512, 4, 10**6)
    assert not torch_wins("lstm", 1024, 1024, 1, 50) and torch_wins("lstm", 512, 512, 16, 50)
    assert torch_wins("lstm", 64, 64, 10**6, 50, threads=16) and torch_wins("lstm", 64, 64, 16, 50, threads=1)
    # the hole's nearest neighbour is at the same B, a quarter of H away, not at a sixteenth of B
    assert torch_wins("lstm", 1024, 1024, 16, 50)
    assert torch_wins("gru_cell", 32, 32, 1, 1, True, threads=1)
    assert not torch_wins("gru_cell", 32, 32, 1, 1, True, threads=2)
    step = "discriminator_step none"
    assert torch_wins(step, 2, 28, 64, 1, True) and not torch_wins(step, 2, 280, 64, 1, True)
    assert not torch_wins(step, 3, 28, 64, 1, True)  # of more layers than measured
    assert len(rules) == 5 and "discriminator_step r1" not in {r.cell for r in rules}


@pytest.mark.parametrize(
    ("ratio", "spread", "lost"),
    [
        (0.95, 0.01, True),
        (0.985, 0.001, True),
        (0.995, 0.0001, False),
        (0.95, 0.1, False),
        (1.2, 0.01, False),
    ],
)
def test_a_loss_is_more_than_the_noise(ratio, spread, lost, results, tmp_path):
    path = results([("cells", "lstm", "cell", True, 64, 64, 8, 1, ratio)], spread=spread)
    assert len(made_of(tmp_path, path)["avx2", "amd"]) == lost


def test_readings_of_one_place_are_told_apart_by_input_size_and_steps(results, tmp_path):
    rows = [
        ("rnn", "gru", "layer", False, 16, 64, 8, 50, 0.5),
        ("rnn", "gru", "layer", False, 256, 64, 8, 50, 2.0),
        ("rnn", "gru", "layer", False, 256, 64, 8, 2, 0.5),
        ("small", "gru", "layer threads2", False, 64, 64, 8, 1, 2.0),
    ]
    made = made_of(tmp_path, results(rows))["avx2", "amd"]
    most = _choice.ANY[1]
    assert [(I, T) for _, _, _, I, _, _, T, _, _ in made] == [((1, 64), (2, most)), ((65, most), (2, 10))]


def test_a_later_reading_and_every_machine_count(results, tmp_path):
    row = ("cells", "rnn", "cell", False, 8, 8, 8, 1)
    before, after = results([(*row, 0.5)]), results([(*row, 1.5)], minute="01")
    other = results([(*row, 0.5)], machine="Intel Xeon @ 2.50GHz, 2 cores", isa="avx512")
    third = results([(*row, 0.5)], machine="Zhaoxin, 4 cores")
    made = made_of(tmp_path, before, after, other, third)
    assert {platform: len(rows) for platform, rows in made.items()} == {
        ("avx2", "amd"): 0, ("avx512", "intel"): 1, ("avx2", "other"): 1,
    }  # fmt: skip


def test_files_that_tell_nothing_are_refused(results, tmp_path, capsys):
    partial = results([("cells", "rnn", "cell", False, 8, 8, 8, 1, 0.5)], suffix="-partial")
    nothing = results([("ragged", "rnn", "ragged", False, 8, 8, 8, 9, 0.5)])
    for path, words in (
        (partial, "expected a complete run"),
        (nothing, "expected rows of torch in the suites"),
    ):
        assert choice.main([str(path), "--out", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "_cpu_rules.py").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected rows of benchmarks/run.py, got none"),
        ("suite,peer,unit,date\n", "expected rows of benchmarks/run.py, got none"),
        ("a,b\n1,2\n", "expected a result of run.py, which has suite, peer, unit, date"),
    ],
    ids=["empty", "header alone", "another table"],
)
def test_files_of_another_kind_are_refused(text, words, tmp_path, capsys):
    path = tmp_path / "foreign.csv"
    path.write_text(text)
    assert choice.main([str(path), "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_refused(results, tmp_path, capsys):
    path = results([("cells", "rnn", "cell", False, 8, 8, 8, 1, 0.5)])
    assert choice.main([str(path), "--out", str(tmp_path / "none")]) == 2
    assert "--out: expected a folder" in capsys.readouterr().err


def test_the_table_of_auto_is_made_from_results(gpu_results, tmp_path, monkeypatch, capsys):
    """Made-up readings, written nowhere but to a folder of the test."""
    ratios = {(128, 1): 2.0, (128, 16): 1.5, (512, 1): 0.9, (512, 16): 0.8, (2048, 1): 3.0, (2048, 16): 0.7}
    path = gpu_results([gpu_row(H=H, B=B, ratio_fused=r) for (H, B), r in ratios.items()])
    assert choice.main([str(path), "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "_cpu_rules.py").exists()
    made = {}
    exec((tmp_path / "_gpu_rules.py").read_text(), made)
    assert list(made["MEASURED"]) == ["made-up-h1"]
    rules = tuple(_choice.Rule("made-up-h1", *row) for row in made["MEASURED"]["made-up-h1"])
    monkeypatch.setattr(_choice, "RULES", rules)

    def torch_wins(H, B, cell="lstm", dtype="bfloat16", train=False, T=512):
        of_machine = _choice.of_machine("made-up-h1")
        return first_with(_choice.of_call(of_machine, cell, dtype, train), H, B, T, H) is not None

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
    assert choice.main([str(partial), "--out", str(tmp_path)]) == 2
    assert "expected a complete run" in capsys.readouterr().err
