"""What is learnt: its bars, its baselines and its rows."""

import csv
from itertools import pairwise
from types import SimpleNamespace

import fusegen
import learn
import pytest
import torch
from fusegen.cli import main as command
from fusegen.train.tasks import TASKS
from harness import record
from learning import gan, int8, processes, seq2seq, series, text, vae, writing
from learning.figures import Asked, Figure, Trained, shown
from learning.mixture import BernoulliMixture, best_of


def test_a_bar_is_run_from_each_seed_and_its_figures_are_rows(tmp_path, monkeypatch, capsys):
    def bar(asked):
        assert asked.flags == ("--steps", "7")
        figure = Figure(asked.bar, asked.seed, "nats", 1.5 + asked.seed, seconds=2.0)
        yield figure.beside("a twin", 2.0, figure.value < 2)
        yield Figure(asked.bar, asked.seed, "KL", 0.25, step=3)

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setitem(learn.BARS, "vae", bar)
    assert learn.main(["vae", "--seeds", "2", "--first", "4", "--steps", "7", "--dry"]) == 1
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out.count("MISSED") == 2
    assert learn.main(["vae", "--seeds", "1", "--steps", "7"]) == 0
    (path,) = tmp_path.rglob("learning/*-vae.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["measure"], row["value"], row["step"], row["passed"]) for row in rows] == [
        ("nats", "1.5", "", "True"), ("KL", "0.25", "3", ""),
    ]  # fmt: skip
    assert rows[0]["baseline"] == "a twin" and "onednn" not in rows[0]


@pytest.mark.parametrize(
    "argv, said",
    [
        (["vae", "--by", "torch"], "--by: expected the bar gan, got vae"),
        (["sounds", "--no-beside"], "--no-beside: expected the bar gan, got sounds"),
        (["writing", "--judges", "2"], "--judges: expected the bar gan or sounds or sweep, got writing"),
        (["writing", "--judge-steps", "9"], "--judge-steps: expected the bar gan or sounds or sweep, got"),
        (["sounds", "--ways", "defaults"], "--ways: expected the bar sweep, got sounds"),
        (["sweep", "--ways", "luck"], "--ways: invalid choice: 'luck'"),
        (["gan", "--picture", "x.png"], "--picture: expected the bar text, got gan"),
        (["rnn"], "invalid choice: 'rnn'"),
    ],
)
def test_what_no_bar_takes(argv, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        learn.main(argv)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_a_place_of_this_machine_is_in_no_row():
    assert shown("mo:/a/place/of/mine:de") == "mo:FOLDER:de" and shown("--steps") == "--steps"


def trained(asked, **last):
    return Trained(asked, None, last, 3.0, 2.0, "fusegen train")


def test_a_gan_stands_beside_the_same_in_plain_torch(tmp_path, monkeypatch):
    def train(asked, task, folder):
        assert task in TASKS
        ran.append((task, fusegen.get_backend()))
        return trained(asked)

    def command(argv):
        assert argv[-3:] == ["--judges", "2", "--no-beside"]
        print("step  9 of 10, last\nof a Gaussian fit's  0.5  (lower is better)\nthe end")
        return 0

    ran = []
    monkeypatch.setattr(gan, "train", train)
    monkeypatch.setattr(gan, "command", command)
    for by, bars in (("both", ["gan"] * 2 + ["gan in plain torch"] * 2), ("fusegen", ["gan"] * 2)):
        figures = list(gan.gan(Asked("gan", 0, tmp_path, by=by, judges=2, beside=False)))
        assert [figure.bar for figure in figures] == bars
        assert [(f.measure, f.value) for f in figures[:2]] == [
            ("of a Gaussian fit's", 0.5),
            (gan.SECONDS, 2.0),
        ]
        assert figures[0].baseline == ("plain torch" if by == "both" else "")
    assert ran == [("gan", "auto"), (gan.PLAIN, "torch"), ("gan", "auto")]
    assert fusegen.get_backend() == "fused" and gan.PLAIN not in TASKS


@pytest.mark.parametrize(
    "steps, how, said",
    [(0, ["--judges", "2"], ""), (30, ["--judges", "2", "--score-steps", "30"], "--score-steps 30")],
)
def test_rows_tell_how_long_judges_were_taught(steps, how, said, tmp_path, monkeypatch):
    asked = Asked("gan", 0, tmp_path, ("--score-steps", "9"), judges=2, judge_steps=steps)
    given = []
    monkeypatch.setattr(gan, "train", lambda asked, task, folder: trained(asked))
    monkeypatch.setattr(gan, "command", lambda argv: given.extend(argv))
    shown = gan.measured(asked, "fusegen").command
    assert given[4:] == how
    assert shown == (
        "fusegen train" + (said and f"; fusegen evaluate RUN --checkpoint last --judges 2 {said}")
    )


def test_a_gans_text_stands_beside_bigrams_and_a_text_lstm(tmp_path):
    """A run of few steps, by the flags that a user would give."""
    pytest.importorskip("sacrebleu")
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat, and the dog sat by the door. " * 30)
    flags = ("--data", str(path), "--steps", "60", "--warm-up", "50", "--hidden", "24", "--batch", "16")
    flags += ("--length", "10", "--samples", "600", "--lr", "0.03")
    figures = {f.measure: f for f in writing.writing(Asked("writing", 0, tmp_path / "runs", flags))}
    name = "perplexity by a held-out judge"
    ours, lstm, bigrams = (figures[f"{name}{each}"] for each in ("", writing.LSTM, writing.BIGRAMS))
    assert ours.baseline_value == lstm.baseline_value == bigrams.value and ours.baseline == "a bigram model"
    assert ours.passed is (ours.value < bigrams.value) and lstm.passed == ""
    # As many steps of likelihood alone teach the LSTM most of it: drawn evenly, tokens have more than 30.
    assert 1 < lstm.value < 10
    assert figures[gan.SECONDS].baseline == "" and "--tokens" not in ours.command
    divergences = [f for f in figures.values() if f.measure.startswith("bigram divergence")]
    assert len(divergences) == 4 and all(f.seconds > 0 for f in divergences)


def test_a_text_lstm_is_drawn_from_by_its_own_chances():
    """One that says after each token the next one."""

    class Counting(torch.nn.Module):
        def forward(self, tokens, state):
            calls.append(state)
            return 50.0 * torch.nn.functional.one_hot((tokens + 1) % 5, 5), len(calls)

    calls = []
    source = SimpleNamespace(vocabulary=range(5), steps=4, tokens=torch.tensor([0, 3, 3, 3]))
    found = writing.drawn(Counting(), source, 700, 0)
    assert found.shape == (4, 700) and torch.equal(found, (found[0] + torch.arange(4)[:, None]) % 5)
    assert calls == [None, 1, 2, None, 4, 5]  # begun anew with each part
    assert (found[0] == 3).float().mean() > 0.4


def test_sounds_are_held_against_the_better_of_both_fits(tmp_path, monkeypatch):
    def measured(asked, by):
        assert asked.flags == (*series.SOUNDS, "--steps", "3") and by == "fusegen"
        return trained(asked, **last)

    name, score = "log-spectral distance", "discriminative score (wide judge)"
    last = {name: 1.0, f"{name} of a Gaussian fit": 3.0, f"{name} of an AR(16) fit": 2.0}
    last |= {score: 0.3, f"{score} of a Gaussian fit": 0.2, f"{score} of an AR(16) fit": 0.4, "spread": 1.0}
    monkeypatch.setattr(series, "measured", measured)
    found = {f.measure: f for f in series.sounds(Asked("sounds", 1, tmp_path, ("--steps", "3")))}
    assert (found[name].baseline, found[name].baseline_value, found[name].passed) == (
        "an AR(16) fit",
        2,
        True,
    )
    assert (found[score].baseline, found[score].passed) == ("a Gaussian fit", False)
    assert {f.baseline for f in found.values() if f.measure not in (name, score)} == {""}


def test_a_sweep_has_a_run_for_each_way_and_keeps_them_apart(tmp_path, monkeypatch):
    def measured(asked, by):
        ran[asked.folder] = asked.flags
        assert by == "fusegen" and not asked.beside and asked.judges == 2
        return trained(asked, marginal=0.5)

    ran = {}
    monkeypatch.setattr(series, "measured", measured)
    figures = list(series.sweep(Asked("sweep", 0, tmp_path, ("--evaluations", "2"), judges=2)))
    assert len(ran) == len(figures) == len(series.SERIES) * len(series.WAYS)
    assert len({f.bar for f in figures}) == len(figures) and figures[0].bar == "sweep, sines, untrained"
    assert all(flags[-2:] == ("--evaluations", "2") for flags in ran.values())


def test_a_sweep_of_two_ways_in_the_order_given(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "measured", lambda asked, by: trained(asked, marginal=0.5))
    figures = list(series.sweep(Asked("sweep", 0, tmp_path, ways=("no moments", "untrained"))))
    ways = [f.bar.split(", ")[2] for f in figures]
    assert ways == ["no moments"] * len(series.SERIES) + ["untrained"] * len(series.SERIES)


@pytest.mark.parametrize("way", series.WAYS)
def test_each_way_of_a_sweep_is_one_that_can_be_trained(way, tmp_path):
    path = tmp_path / "a.json"
    flags = [*series.RECURRENT, "--data", "sines", *series.WAYS[way]]
    assert command(["train", "gan", *flags, "--save-config", str(path)]) == 0


def test_a_sequence_vae_is_held_against_its_twin_without_z(tmp_path, monkeypatch):
    def train(asked, task, folder):
        twin = "--latent" in asked.flags
        measures = dict.fromkeys(("log likelihood", "KL", "perplexity", "self-BLEU"), 1.0)
        bounds = {vae.sentences.BOUND: 11.0 if twin else 10.0, "active units": 6.0, "nats, 5 samples": 9.0}
        return trained(asked, **measures | bounds)

    monkeypatch.setattr(vae, "train", train)
    figures = list(vae.seqvae(Asked("seqvae", 0, tmp_path)))
    assert [figure.passed for figure in figures[:2]] == [True, True]
    assert figures[0].baseline_value == 11 and figures[-1].bar == "seqvae twin"
    assert "nats, 5 samples" in [figure.measure for figure in figures]


@pytest.mark.parametrize("bits, passed", [(1.6, True), (1.7, False)])
def test_a_text_model_is_timed_from_its_start_to_its_end(bits, passed, tmp_path, monkeypatch):
    log = [{"step": 0, "loss": 5.0}, {"step": 5, "seconds": 1.0, text.BITS: 2.5}]
    log.append({"step": 9, "seconds": 2.0, text.BITS: bits})
    monkeypatch.setattr(text.subprocess, "run", lambda command, check: None)
    monkeypatch.setattr(text, "read_log", lambda folder: log)
    first, last, seconds = text.text(Asked("text", 3, tmp_path, ("--steps", "9")))
    assert (first.step, first.value, first.passed) == (5, 2.5, "")
    assert (last.step, last.value, last.passed, last.baseline_value) == (9, bits, passed, text.BITS_BAR)
    assert seconds.measure == "seconds" and seconds.passed is True and seconds.value < 1
    assert first.command == "fusegen train text --steps 1300 --steps 9 --seed 3"
    text.draw([first, last], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_quantized_text_model_stands_beside_itself(tmp_path, capsys):
    """A run of few steps, by the flags that a user would give."""
    text = tmp_path / "text.txt"
    text.write_text("a short story about a short story. " * 60)
    flags = ("--data", str(text), "--steps", "20", "--hidden", "16", "--embedding", "8", "--batch", "4")
    flags += ("--chunk", "16", "--evaluations", "1")
    figures = list(int8.int8(Asked("int8", 0, tmp_path / "runs", flags)))
    assert [f.bar for f in figures] == ["int8 demo"] * 5 + ["int8 larger"] * 5
    for plain, small, lost, *others in (figures[:5], figures[5:]):
        assert plain.measure == int8.BITS and small.baseline_value == plain.value > 1
        assert lost.value == small.value - plain.value and lost.passed is True
        assert lost.baseline_value == int8.MODELS[lost.bar.split()[1]][1]
        assert [f.measure.split(", ")[1] for f in others] == ["int8", "int8 weights alone"]
        assert all(abs(f.value - plain.value) < 0.01 for f in (small, *others))
        assert small.value != plain.value


@pytest.mark.parametrize("seed, order", [(0, [2, 1]), (1, [1, 2])])
def test_two_processes_are_held_against_one(seed, order, tmp_path, monkeypatch):
    """A second a step alone, half of one for two; what warms up does not count."""

    def trained(folder, count, flags):
        ran.append(count)
        sections = {"model": SimpleNamespace(batch=4, chunk=5), "run": SimpleNamespace(precision="float32")}
        return SimpleNamespace(folder=folder, sections=sections)

    def read_log(folder):
        slow = 1 if folder.name == "1" else 0.5
        steps = range(1, 21)
        return [{"step": n, "seconds": 100 * (n < 10) + slow * n, "loss": 2.0 + 1e-4 * slow} for n in steps]

    ran = []
    monkeypatch.setattr(processes, "trained", trained)
    monkeypatch.setattr(processes, "read_log", read_log)
    speed, ratio, apart = processes.processes(Asked("processes", seed, tmp_path))
    assert ran == order and (speed.value, speed.baseline_value) == (40.0, 20.0)
    assert ratio.value == 2 and ratio.passed is True
    assert apart.value == pytest.approx(5e-5) and apart.passed is False  # 1e-5 in float32


def test_a_translation_is_held_against_its_source(tmp_path, monkeypatch):
    def train(asked, task, *flags):
        assert "--beam" in flags
        return trained(asked, **{"BLEU": 9.0, "BLEU of the sources": 8.0, "exact %": 1.0, "perplexity": 20.0})

    monkeypatch.setattr(seq2seq, "train", train)
    bleu, *rest = seq2seq.translation(Asked("translation", 0, tmp_path))
    assert (
        bleu.passed is True
        and bleu.baseline_value == 8
        and [f.measure for f in rest] == ["exact %", "perplexity"]
    )


def test_a_mixture_of_bernoullis_by_hand_and_by_em():
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
