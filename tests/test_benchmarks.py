"""The benchmark harness's own helpers: peers' weight layouts, statistics, rows, bars, the report."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "benchmarks"


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
@pytest.mark.parametrize("peer, train", [("ort", False), ("onednn", False), ("onednn", True)])
def test_peers_compute_what_torch_does(cell, peer, train):
    """Gate orders, joined biases and gradients: every weight differs, so any permutation shows."""
    from check import verify
    from peers import Unavailable
    from peers.onednn_direct import Onednn
    from peers.ort import OnnxRuntime

    of = problem(cell, train=train)
    try:
        found = run({"ort": OnnxRuntime, "onednn": Onednn}[peer](), of)
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


def test_options_choose_cases_by_words():
    from options import Options
    from suites import rnn

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
