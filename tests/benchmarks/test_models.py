"""The benchmark suites `models` and `small`: whose models they are, that all of each is converted and
checked, and that each number of threads is a row of its own."""

from dataclasses import replace

import fusegen
import pytest
import run as program
import torch
from harness import record
from harness.check import verify
from harness.options import Options
from harness.peer import NotCompared
from harness.problem import Case, Problem
from harness.record import Row
from harness.sweep import WRONG, Budget
from harness.threads import sweep_by_threads, with_form, with_threads
from networks.published import MODELS
from peers.ours import Ours
from speed import models, small
from speed.models import PEERS, Converted, ModelCase, ModelProblem, OnTorch
from speed.small import SmallCase
from torch import nn

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def label(model):
    return f"{model.name}-{model.form}-B{model.B}"


def tiny(model):
    """The same model, small: its sizes are arguments."""
    I = 520 if model.name == "tacotron2" else 6  # 512 of them are the context
    return replace(model, I=I, H=8, B=5, T=min(model.T, 8), vocabulary=model.vocabulary and 11)


def lstm(I, H, layers=1, bidirectional=False, dropout=0.0, batch_first=False):
    return ("LSTM", I, H, layers, bidirectional, dropout, batch_first)


SHAPES = {
    "word_language_model-recurrent-B20": (35, [lstm(200, 200, 2, dropout=0.2)]),
    "word_language_model-step-B20": (35, [lstm(200, 200, 2, dropout=0.2)]),
    "awd_lstm-recurrent-B20": (70, [lstm(200, 400), lstm(400, 400), lstm(400, 200)]),
    "crnn-recurrent-B4": (63, [lstm(512, 256, bidirectional=True), lstm(256, 256, bidirectional=True)]),
    "demucs-recurrent-B5": (200, [lstm(192, 192, 2, bidirectional=True)]),
    "tacotron2-recurrent-B1": (1, [("LSTMCell", 768, 1024), ("LSTMCell", 1536, 1024)]),
    "tacotron2-recurrent-B32": (1, [("LSTMCell", 768, 1024), ("LSTMCell", 1536, 1024)]),
    "deepar-recurrent-B32": (72, [lstm(11, 40, 2, dropout=0.1, batch_first=True)]),
    "par-recurrent-B103": (254, [("GRU", 32, 32, 1, False, 0.0, False)]),
}


def test_the_shapes_are_those_of_the_models():
    found = {}
    for model in MODELS:
        layers = [m for m in model.make(model).modules() if isinstance(m, RECURRENT)]
        found[label(model)] = (
            model.T,
            [
                (type(m).__name__, m.input_size, m.hidden_size)
                + ((m.num_layers, m.bidirectional, m.dropout, m.batch_first) if hasattr(m, "dropout") else ())
                for m in layers
            ],
        )
        assert model.source
    assert found == SHAPES
    assert {model.vocabulary for model in MODELS if model.form == "step"} == {33_278}


@pytest.mark.parametrize("model", MODELS, ids=label)
def test_convert_changes_every_recurrent_layer(model):
    """No torch.nn layer is left, and each call goes through fusegen's."""
    problem = ModelProblem(ModelCase(tiny(model), True, 2))
    before = [name for name, m in problem.net.named_modules() if isinstance(m, RECURRENT)]
    runner = Converted("fused").prepare(problem)
    ours = tuple(getattr(fusegen.nn, cls.__name__) for cls in RECURRENT)
    called = []
    for name, m in runner.net.named_modules():
        assert not isinstance(m, RECURRENT)
        if isinstance(m, ours):
            m.register_forward_hook(lambda *_, name=name: called.append(name))
    runner.reset()
    runner.run()
    assert before and called == before
    assert not any(isinstance(m, ours) for m in problem.net.modules())  # the other contestants' copy


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("model", MODELS, ids=label)
def test_contestants_agree_with_float64(model, train):
    """Dropout's masks included: without the same seed a training case would be far off."""
    of = ModelProblem(ModelCase(tiny(model), train, 2))
    expected = of.reference()
    inputs = {f"d{name}" for name in model.leaves}
    weights = {f"d{name}" for name, _ in of.net.named_parameters()}
    assert all(value.dtype == torch.float64 for value in expected.values())
    assert (inputs | weights <= set(expected)) == train
    for peer in PEERS:
        runner = peer.prepare(of)
        for _ in range(2):  # the second run computes the same: nothing moves the weights
            runner.reset()
            runner.run()
            assert set(runner.results()) == set(expected)
            assert verify(of, runner.results()) < 2e-5
        runner.close()


def test_a_wrong_contestant_is_not_timed(capsys):
    class Wrong(Converted):
        """One gradient of one weight is off by a hundredth."""

        def prepare(self, problem):
            runner = super().prepare(problem)
            right = runner.results

            def results():
                found = right()
                return found | {"drnn.weight_hh_l1": found["drnn.weight_hh_l1"] * 1.01}

            runner.results = results
            return runner

    model = tiny(next(m for m in MODELS if m.name == "deepar"))
    cases = [ModelCase(model, True, 1)]
    budget = Budget(0, 1, min_rounds=1)
    rows = sweep_by_threads("models", cases, [Wrong("fused"), OnTorch()], budget, make=ModelProblem)
    assert [(row.peer, row.unit, row.form) for row in rows] == [
        ("fused", WRONG, "recurrent threads1"), ("torch", "ms", "recurrent threads1"),
    ]  # fmt: skip
    assert "drnn.weight_hh_l1" in rows[0].note and rows[1].ratio_fused == ""
    assert "wrong result" in capsys.readouterr().err


def test_each_case_has_its_threads_and_the_old_number_comes_back():
    seen = []

    class Watching:
        name, rest, remark, compared = "fused", 0.0, "", None

        def prepare(self, problem):
            seen.append(torch.get_num_threads())
            if problem.case.H == 7:
                raise KeyboardInterrupt
            return self

        def reset(self):
            seen.append(torch.get_num_threads())

        run = close = lambda self: None
        results = dict

    torch.set_num_threads(2)
    cases = [SmallCase("rnn", 8, 1, 1, form="cell", threads=count) for count in (1, 2)]
    rows = sweep_by_threads("small", cases, [Watching()], Budget(0, 2, min_rounds=1))
    assert [row.form for row in rows] == ["cell threads1", "cell threads2"]
    assert [row.form for row in with_form(with_threads(rows, 2), "cell")] == ["cell threads2"]
    assert seen == sorted(seen) and set(seen) == {1, 2}
    with pytest.raises(KeyboardInterrupt):
        sweep_by_threads("small", [SmallCase("rnn", 7, 1, 1, threads=1)], [Watching()], Budget(0, 1))
    assert torch.get_num_threads() == 2
    assert Case("rnn", 8, 1, 1).name in SmallCase("rnn", 8, 1, 1, threads=1).name


@pytest.mark.parametrize(
    "argv, forms",
    [
        (["models", "--quick", "--only", "deepar", "inference"], ["recurrent threads2"]),
        (["models", "--quick", "--only", "deepar", "inference", "--threads", "1"], ["recurrent threads1"]),
        (["small", "--only", "gru", "H32", "inference", "cell"], ["cell threads1", "cell threads2"]),
        (["small", "--only", "gru", "H32", "inference", "cell", "--threads", "1"], ["cell threads1"]),
    ],
)
def test_a_quick_run_writes_rows(argv, forms, tmp_path, monkeypatch, capsys):
    write = record.write
    monkeypatch.setattr(program.machine, "ROOT", tmp_path)
    monkeypatch.setattr(record, "write", lambda rows, **given: write(rows, tmp_path, **given))
    peers = ["--peers", "fused", "torch"]
    assert program.main([*argv, *peers, "--minutes", "0.001", "--save"]) == 0
    (path,) = tmp_path.rglob("*-partial.csv")
    rows = record.read(path)
    assert [(row.form, row.peer) for row in rows] == [(f, p) for f in forms for p in ("fused", "torch")]
    assert all(row.unit == "ms" and row.value > 0 and row.error < 2e-5 for row in rows)
    assert "no verdict" in capsys.readouterr().out


def test_cases_of_models_can_be_chosen_and_shared_out():
    cases = models.cases(quick=False)
    assert len(cases) == len(MODELS) * 2 * 2 and len({case.name for case in cases}) == len(cases)
    chosen = Options(only=("awd_lstm", "training", "threads1")).cases(cases)
    assert [(c.cell, c.train, c.threads) for c in chosen] == [("awd_lstm", True, 1)]
    parts = [Options(part=(k, 3)).cases(cases) for k in (1, 2, 3)]
    assert sorted((c for part in parts for c in part), key=cases.index) == cases and all(parts)


def model_row(ratio, cell="crnn", form="recurrent threads1", mode="inference", peer="torch", **figures):
    case = {"cell": cell, "form": form, "mode": mode, "dtype": "float32"}
    return Row("models", **case, peer=peer, value=1.0, ratio_fused=ratio, **figures)


def test_bars_of_models_judge_threads_apart_and_the_whole_step_aside():
    rows = [
        model_row(1.2), model_row(1.8, mode="training"), model_row(0.99, form="step threads1"),
        model_row(1.1, form="recurrent threads2"),
    ]  # fmt: skip
    seen = {bar.what: bar for bar in models.bars(rows)}
    mean = seen["models, 1 thread, torch.nn / fused, geometric mean of 2"]
    assert mean.figure == pytest.approx((1.2 * 1.8) ** 0.5) and mean.holds
    assert seen["models, 1 thread, torch.nn / fused, worst"].holds
    assert not seen["models, 1 thread, a language model's whole step, worst"].holds
    assert not seen["models, 2 threads, torch.nn / fused, geometric mean of 1"].holds
    assert models.bars([]) == []


def test_small_covers_the_small_sizes_and_asks_whether_freezing_costs():
    cases = small.cases(quick=False)
    assert all((case.B, case.T, case.I) == (1, 1, case.H) for case in cases)
    covered = {(c.form, c.cell, c.H, c.train, c.threads) for c in cases}
    assert len(covered) == len(cases) == 3 * 3 * 2 * 2 + 3 * 5 * 2
    assert {c.H for c in cases if c.form == "layer"} == {32, 64, 128, 256, 512}

    frozen = Ours("frozen", frozen=True)
    for form in ("cell", "layer"):
        for train in (False, True):
            case = small.SmallCase("gru", 8, 1, 1, train, form=form, threads=1)
            if train:
                with pytest.raises(NotCompared):
                    frozen.prepare(Problem(case))
            else:
                runner = frozen.prepare(Problem(case))
                assert runner.module._frozen is not None
                runner.close()

    def row(ratio, form):
        return model_row(1.0, "gru", form, peer="fused", ratio_frozen=ratio)

    seen = {bar.what: bar for bar in small.bars([row(1.2, "layer threads1"), row(0.8, "layer threads2")])}
    assert seen["  layers, 1 thread, not frozen / frozen, worst"].holds
    assert not seen["  layers, 2 threads, not frozen / frozen, worst"].holds
