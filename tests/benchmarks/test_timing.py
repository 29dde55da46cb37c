"""Rounds, steadiness and budgets: which readings count."""

from dataclasses import replace

import pytest
import torch
from benchmark_rows import a_row, problem
from harness import steadiness
from harness.problem import Case
from harness.sweep import FAILED, WRONG, Budget, line, sweep, timing_row
from harness.timing import PATIENCE, Timing, interleaved, paired_ratio
from peers.ours import Ours


def test_statistics():
    timing = Timing([4.0, 1.0, 3.0, 2.0, 5.0])
    assert timing.median == 3
    assert timing.quantile(0.2) == pytest.approx(1.8)
    assert timing.quantile(0.8) == pytest.approx(4.2)
    # A machine that halves its speed midway changes no paired ratio.
    assert paired_ratio(Timing([2, 4, 4]), Timing([1, 2, 2])) == 2


def test_every_contestant_has_its_turn_in_every_round():
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
    script = iter([*[1.0] * steadiness.BEGINNING * steadiness.REPEATS, *readings])
    return steadiness.Steadiness(None, lambda loop: next(script))


def thrice(*readings):
    return [value for value in readings for _ in range(3)]


def test_a_round_counts_only_between_steady_readings():
    """The reading after the second round is off: it and the third are dropped, others take their place."""
    # a warm-up call, then rounds 1 to 5
    runners = {"a": Script(0.5, 1.0, 2.0, 3.0, 4.0, 5.0)}
    steadiness = a_steadiness(*thrice(1.0, 1.04, 1.2, 0.96, 1.0, 1.0))
    found = interleaved(runners, seconds=0, min_rounds=3, steadiness=steadiness)
    assert found["a"].samples == [1.0, 4.0, 5.0] and found["a"].dropped == 2 and found["a"].unsteady == ""


def test_a_single_interrupt_is_no_unsteady_reading():
    steadiness = a_steadiness(*thrice(1.0), 1.0, 9.0, 9.0)
    found = interleaved({"a": Script(0.5, 1.0)}, seconds=0, min_rounds=1, steadiness=steadiness)
    assert found["a"].samples == [1.0] and found["a"].dropped == 0


def test_contestants_keep_their_order_whatever_that_of_their_turns():
    names = list("gcafbed")
    found = interleaved({name: Script(*[1.0] * 3) for name in names}, seconds=0, min_rounds=2)
    assert list(found) == names


@pytest.mark.parametrize(
    "figures, said",
    [
        ({"peer": "torch"}, "(2.00x fused)"),
        ({"peer": "onednn"}, "(3.00x frozen)"),
        ({"peer": "onednn", "mode": "training"}, "(2.00x fused)"),
        ({"peer": "onnxruntime", "suite": "int8"}, "(2.00x fused)"),  # there frozen is float32
        ({"peer": "onednn", "ratio_frozen": ""}, ""),
        ({"peer": "auto"}, ""),
    ],
)
def test_a_line_says_of_which_of_ours_a_ratio_is(figures, said):
    entry = replace(a_row(), **{"mode": "inference", "ratio_frozen": 3.0} | figures)
    assert line(Case("lstm", 8, 3, 5), [entry]).endswith(f"{entry.peer} 1.500 {said}".rstrip())


def test_a_machine_that_never_stands_still_is_read_and_said_so():
    rounds = 2 * PATIENCE
    steadiness = a_steadiness(*thrice(*[2.0 + 0.1 * i for i in range(rounds + 1)]))
    runners = {"a": Script(0.5, *map(float, range(rounds)))}
    found = interleaved(runners, seconds=0, min_rounds=2, steadiness=steadiness)["a"]
    assert found.samples == [0.0, 1.0] and found.dropped == rounds - 2  # those nearest to the usual second
    assert found.unsteady == f"unsteady machine: 0 of {rounds} rounds stood still"


def test_the_steady_loop_takes_about_its_time():
    threads = torch.get_num_threads()
    read = steadiness.Steadiness(steadiness.arithmetic(threads))
    assert len(read.readings) == steadiness.BEGINNING
    assert 0.2 * steadiness.LOOP_SECONDS < read.usual() < 20 * steadiness.LOOP_SECONDS
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        read.loop()
    assert any("erfinv" in event.name for event in seen.events())


def test_dropped_rounds_and_unsteady_machines_are_in_the_row():
    made = timing_row("rnn", problem("gru"), "torch", {"torch": Timing([1e-3], 4, "unsteady")}, 0.0)
    assert made.dropped == 4 and made.note == "unsteady"


def test_a_firm_budget_begins_nothing_after_its_time():
    cases = [Case("rnn", 8, 3, 5), Case("rnn", 8, 3, 6)]
    rows = sweep("rnn", cases, [Ours("fused")], Budget(-1, 2, firm=True))
    assert [(entry.unit, entry.value) for entry in rows] == [(FAILED, 2)]


def test_a_wrong_result_of_ours_is_a_row_and_no_timing(capsys):
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


class Off(Ours):
    """A peer whose results are not those of torch.nn."""

    by = 1.0

    def prepare(self, problem):
        runner = super().prepare(problem)
        right = runner.results
        runner.results = lambda: {name: value + self.by for name, value in right().items()}
        return runner


def test_a_peer_that_differs_is_named_once_with_whom_float64_sides_with(capsys):
    cases = [Case(cell, 8, 3, 5) for cell in ("gru", "lstm", "rnn")]
    peers = [Off("peer"), Ours("fused")]
    rows = sweep("rnn", cases, peers, Budget(0, 3, min_rounds=1))
    assert {entry.peer for entry in rows} == {"fused"}
    said = capsys.readouterr().err
    assert said.count("left out: peer") == 1 and "relative error" in said
    assert "float64 sides with fusegen, whose error is " in said


def test_where_ours_is_wrong_too_float64_sides_with_neither(capsys):
    sweep("rnn", [Case("gru", 8, 3, 5)], [Off("peer"), Off("fused")], Budget(0, 1, min_rounds=1))
    said = capsys.readouterr().err
    assert "float64 sides with neither" in said and "fused left out, wrong result" in said


@pytest.mark.parametrize(
    ("readings", "words"),
    [
        ([1.0] * 40, ""),
        ([1.0, 1.01] * 20 + [1.5] * 4, ""),
        ([1.0] * 20 + [1.3] * 12 + [1.0] * 8, "30% of its readings were more than 5% off their median"),
        ([1.0] * 30 + [1.1] * 30, "it took 10% more time at the end than at the beginning"),
        ([1.0] * 30 + [0.69] * 30, "it took 31% less time at the end than at the beginning"),
    ],
)
def test_a_busy_machine_is_said(readings, words):
    read = steadiness.Steadiness(lambda: None, lambda loop: 1.0)
    read.readings = list(readings)
    said = read.busy()
    assert words in said and bool(said) == bool(words)
    assert not said or (said.startswith("this machine was busy") and "\n" not in said)
