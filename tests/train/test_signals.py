"""The signals of a GAN that goes wrong: series that must and must not trigger, the watch, the stop."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.train import GanTask
from fusegen.train.checkpoint import CheckpointError
from fusegen.train.progress import Progress
from fusegen.train.run import Run, read_log
from fusegen.train.tasks.gan import signals
from fusegen.train.tasks.gan.diversity import diversity, diversity_of
from fusegen.train.tasks.gan.options import GanData, GanFit, GanModel
from fusegen.train.tasks.gan.signals import (
    BLOCK,
    COLLAPSE,
    CYCLES,
    OSCILLATION,
    OVERFITTED,
    VANISHING,
    WINDOW,
    Diversity,
)
from fusegen.train.tasks.gan.watch import GanWatch
from runs import equal

pytest.importorskip("matplotlib")

RANDOM = np.random.default_rng(0)
N = np.arange(CYCLES)
NOISE = RANDOM.standard_normal(CYCLES)
FINE, SAME, FEW, BAD = (
    Diversity(0.8, 0.5, 0.9), Diversity(0.9, 0.2, 0.3), Diversity(0.9, 0.01, 0.95), Diversity(0.1, 0.0, 0.9)
)  # fmt: skip


def name_of(signal):
    return signal and signal.name


# ---- rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signs", "found"),
    [
        ([1.0] * WINDOW + [0.6] * WINDOW, None),
        ([1.0] * (2 * WINDOW - 1), None),  # too early to say
        ([0.6] * 80, None),
        ([0.9] * 40, None),
        ([-0.5, 0.9] * 40, None),
        ([0.6] * 60 + [0.97] * WINDOW, OVERFITTED),
        ([1.0] * 40, OVERFITTED),
        ([0.85, 0.99] * 40, OVERFITTED),
    ],
)
def test_an_overfitted_discriminator_is_certain_of_its_real_samples(signs, found):
    signal = signals.overfitted(signs)
    assert name_of(signal) == found
    if found:
        assert "Karras et al. 2020" in signal.told and f"{np.mean(signs[-20:]):.2f}" in signal.told


@pytest.mark.parametrize(
    ("early", "late", "found"),
    [
        ([1.0] * 20, [0.02] * 40, None),
        ([1.0] * 20, [1e-5] * 10 + [1.0] * 20, None),  # come back
        ([1.0] * 20, [1.0] * 11 + [1e-5] * 9, None),
        ([1.0] * 20, [1e-5] * 19, None),
        ([], [1e-5] * 40, None),
        ([0.0] * 20, [0.0] * 20, None),
        ([1.0] * 20, [1.0] * 9 + [1e-5] * 11, VANISHING),
        ([1e-3] * 20, [5.0] * 30 + [9e-6] * 20, VANISHING),
        ([0.5, 1.5] * 10, [0.0] * 20, VANISHING),
    ],
)
def test_a_gradient_has_vanished_below_a_hundredth_of_what_it_was(early, late, found):
    assert name_of(signals.vanishing(early, late)) == found


@pytest.mark.parametrize(
    ("seen", "share", "found"),
    [
        ([FINE] * 5, 1.0, None),
        ([FINE, SAME], 0.9, None),  # once
        ([FINE, SAME, FINE, SAME], 0.9, None),
        ([SAME, SAME, SAME], 0.3, None),  # not yet learnt
        ([BAD] * 5, 1.0, None),  # nothing like the data, but varied
        ([], 0.5, None),
        ([SAME], 1.0, None),
        ([SAME, FEW], 0.9, None),  # begins to vary
        ([FEW, FEW], 0.9, COLLAPSE),
        ([FINE, SAME, SAME], 0.3, COLLAPSE),
        ([SAME, SAME], 0.5, COLLAPSE),
        ([FINE, FEW, FEW], 0.2, COLLAPSE),
        ([FINE, FEW, SAME], 0.9, COLLAPSE),
    ],
)
def test_samples_have_collapsed_where_two_evaluations_lack_variety(seen, share, found):
    assert name_of(signals.collapsed(seen, share)) == found


@pytest.mark.parametrize(
    ("gap", "found"),
    [
        (NOISE, None),
        (NOISE.cumsum(), None),
        (N / 10 + NOISE, None),
        (np.ones(CYCLES), None),
        (np.zeros(CYCLES), None),
        (np.sin(N / 2)[1:], None),  # too short
        (np.sin(N * 2 * np.pi / 60), None),  # too slow to be seen three times
        ((-1.0) ** N, None),  # of the blocks themselves
        (5 + np.sin(N * 2 * np.pi / 20), None),  # small beside what it is around
        (np.exp(-N / 8) * np.sin(N * 2 * np.pi / 16), None),  # dies out
        (np.sin(N * 2 * np.pi / 20), 20),
        (0.5 + np.sin(N * 2 * np.pi / 20), 20),
        (np.sin(N * 2 * np.pi / 8) + 0.3 * NOISE, 8),
        (3e-3 * np.sin(N * 2 * np.pi / 30), 30),
        (np.sign(np.sin(N * 2 * np.pi / 12 + 0.1)), 12),
    ],
)
def test_logits_that_come_back_to_themselves_oscillate(gap, found):
    signal = signals.oscillating(list(gap + 1), [1.0] * len(gap))
    assert name_of(signal) == (found and OSCILLATION)
    assert found is None or f"every {found * BLOCK} steps" in signal.told


def test_noise_that_remembers_is_seldom_taken_for_a_cycle():
    found = 0
    for keep in (0.0, 0.5, 0.8, 0.9, 1.0):
        for _ in range(60):
            series = RANDOM.standard_normal(CYCLES)
            for i in range(1, CYCLES):
                series[i] += keep * series[i - 1]
            found += signals.period(series) is not None
    assert found <= 6  # of 300


@pytest.mark.parametrize(
    ("measures", "found"),
    [
        ([9, 5, 3, 2, 1.5, 1.2], None),
        ([1, 1.2, 1, 1.2, 1], None),
        ([1, 3, 1, 3], None),
        ([1, 3, 1, 3, 2.9], None),
        ([1, 3, 1, 3, 4], None),
        ([9, 9, 1, 3, 1, 3, 1], OSCILLATION),
        ([0.2, 0.05, 0.3, 0.1, 0.25], OSCILLATION),
    ],
)
def test_a_measure_that_goes_up_and_down_swings(measures, found):
    assert name_of(signals.swinging(measures)) == found


# ---- diversity --------------------------------------------------------------------------------------


def test_diversity_by_hand():
    square = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).repeat(2, 1) + torch.arange(8.0)[:, None] * 1e-3
    assert diversity(square, square) == {"precision": 1.0, "recall": 1.0, "spread": 1.0}
    assert diversity(square, square / 4)["spread"] == pytest.approx(0.25)
    far = diversity(square, square + 50)
    assert far == {"precision": 0.0, "recall": 0.0, "spread": pytest.approx(1.0)}
    one = diversity(square, square[:1].expand(8, -1))
    assert one["spread"] == 0 and one["recall"] < 0.5


def test_one_sample_a_class_is_no_variety():
    labels = torch.arange(40) % 4
    centres = 10.0 * torch.eye(4)[labels]
    real = centres + torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    assert diversity(real, centres)["spread"] > 0.9
    assert diversity(real, centres, labels, labels)["spread"] == 0


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    np.save(root / "images.npy", random.integers(0, 256, (24, 8, 8), dtype=np.uint8))
    np.save(root / "series.npy", random.standard_normal((60, 3)).cumsum(0))
    (root / "text.txt").write_text("the cat sat on the mat; " * 8)
    return {"images": root / "images.npy", "series": root / "series.npy", "text": root / "text.txt"}


def task_of(kind, places, **fit):
    arch, cut = ("mlp", {"size": 8}) if kind == "images" else ("recurrent", {"length": 5})
    model = {"widths": "8", "critic_widths": "8"} if kind == "images" else {"hidden": 4}
    sections = {
        "model": GanModel(arch=arch, noise=4, **model),
        "data": GanData(data=str(places[kind]), batch=4, **cut),
        "fit": GanFit(steps=1000, **fit),
    }
    return GanTask.from_options(sections, None)


@pytest.mark.parametrize("kind", ["images", "series", "text"])
def test_diversity_of_each_kind_of_data_takes_no_random_numbers_of_the_run(places, kind):
    task, before = task_of(kind, places), torch.get_rng_state()
    found = diversity_of(task.source, task.model)
    assert found.keys() == {"precision", "recall", "spread"} and math.isfinite(found["spread"])
    assert equal(before, torch.get_rng_state()) and found == diversity_of(task.source, task.model)
    x = task.source.points(task.source.batch(torch.arange(6))["real"].movedim(task.model.sample_dim, 0))
    assert x.shape == (6, {"images": 64, "series": 15, "text": 5 * 12}[kind])  # 12 characters
    if kind == "text":
        tokens = task.source.batch(torch.arange(2))["real"]
        assert (x[0] - x[1]).norm() ** 2 == pytest.approx(2 * (tokens[:, 0] != tokens[:, 1]).sum().item())


def test_what_is_not_finite_or_too_few_is_left_to_the_measure(places):
    task = task_of("images", places)
    task.source.images = dataclasses.replace(task.source.images, pixels=task.source.images.pixels[:3])
    assert diversity_of(task.source, task.model) == {}
    task = task_of("images", places)
    next(task.model.generator.parameters()).data.fill_(math.nan)
    assert diversity_of(task.source, task.model) == {}


# ---- the watch --------------------------------------------------------------------------------------


LOSSES = {"real sign": 0.5, "real logit": 1.0, "fake logit": -1.0, "generator gradient norm": 1.0}


def watch_of(loss="non_saturating", stop=True):
    return GanWatch(None, loss, 2000, stop=stop)


def fed(watch, steps, first=1, **changed):
    for step in range(first, first + steps):
        watch.losses(step, {**LOSSES, **{name.replace("_", " "): of(step) for name, of in changed.items()}})
    return watch


WRONG = {
    OVERFITTED: {"real_sign": lambda step: 0.5 if step < 700 else 0.95},
    VANISHING: {"generator_gradient_norm": lambda step: 1.0 if step < 700 else 1e-3},
    OSCILLATION: {"real_logit": lambda step: 3 * math.sin(step * 2 * math.pi / 150)},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_told_once_and_logged_until_it_ends(name):
    watch = fed(watch_of(), 699)
    assert watch.standing == () and watch.news() == [] and watch.logged() == {}
    fed(watch, 1100, 700, **WRONG[name])
    assert watch.standing == (name,) and watch.logged() == {f"signal: {name}": 1.0}
    (line,) = watch.news()
    assert line.startswith(f"{name}: ") and "(" in line and "20" in line.partition("(")[2]
    fed(watch, 1100, 1800)
    assert watch.standing == () and watch.logged() == {f"signal: {name}": 0.0} and watch.logged() == {}
    fed(watch, 1100, 2900, **{key: lambda step, of=of: of(step) for key, of in WRONG[name].items()})
    assert watch.standing == (name,) and watch.news() == [] and watch.stops is None


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic", "least_squares"])
def test_r_t_is_not_read_of_losses_that_do_not_part_at_0(loss):
    assert fed(watch_of(loss), 600, real_sign=lambda step: 1.0).standing == ()
    assert fed(watch_of("hinge"), 600, real_sign=lambda step: 1.0).standing == (OVERFITTED,)


def test_lazy_turns_and_half_precision_leave_gaps_in_the_series():
    watch = watch_of()
    for step in range(1, 601):
        watch.losses(step, {"real sign": 0.0} if step % 3 else {})
    assert watch.standing == () and len(watch.state_dict()["blocks"]["real sign"]) == 60
    assert watch.state_dict()["blocks"]["generator gradient norm"] == []


@pytest.mark.parametrize(("warm_up", "found"), [(0, (VANISHING,)), (400, ())])
def test_gradients_of_a_likelihood_alone_say_nothing_of_the_discriminator(warm_up, found):
    watch = GanWatch(None, "relativistic", 2000, stop=True, warm_up=warm_up)
    fed(watch, 1000, generator_gradient_norm=lambda step: 1.0 if step <= 400 else 1e-3)
    assert watch.standing == found


@pytest.mark.parametrize("stop", [False, True])
def test_a_collapse_is_seen_at_evaluations(stop):
    watch, names = watch_of(stop=stop), ("precision", "recall", "spread")
    seen = [
        dict(zip(names, each, strict=True)) for each in ((0.8, 0.5, 0.9), (0.9, 0.2, 0.1), (0.9, 0.2, 0.1))
    ]
    for i, looked in enumerate(seen):
        assert watch.stops is None
        watch.measured(100 * (i + 1), 1.0, looked)
    assert watch.standing == (COLLAPSE,) and watch.stops == (COLLAPSE if stop else None)
    watch.measured(400, 1.0, seen[0])
    assert watch.standing == () and watch.stops is None
    watch.measured(500, 1.0, {})  # too few data to look at


@pytest.mark.parametrize(
    ("untrained", "measures", "spreads", "found"),
    [
        (65.95, [65.74, 65.25], [0.0, 0.0], ()),  # as good as untrained, which makes one picture
        (65.95, [30.0, 25.0], [0.0, 0.0], (COLLAPSE,)),  # learnt, and makes one picture
        (65.95, [65.74, 60.0], [0.0, 0.0], ()),
        (65.95, [65.74, 59.0], [0.0, 0.0], (COLLAPSE,)),
        (65.95, [28.0, 29.0], [0.15, 0.22], ()),  # begins to vary
        (65.95, [28.0, 29.0], [0.0, 0.1], ()),
        (65.95, [28.0, 29.0], [0.2, 0.21], (COLLAPSE,)),
        (65.95, [20.0, 28.0, 29.0], [0.9, 0.15, 0.22], (COLLAPSE,)),
        (65.95, [50.0, 66.0, 66.0], [0.9, 0.1, 0.1], (COLLAPSE,)),  # had variety, and lost it
        (None, [65.74, 65.25], [0.0, 0.0], (COLLAPSE,)),  # a checkpoint of before this was known
    ],
)
def test_a_generator_as_good_as_untrained_has_not_collapsed(untrained, measures, spreads, found):
    watch = watch_of()
    if untrained is not None:
        watch.measured(0, untrained, {"precision": 0.0, "recall": 0.0, "spread": 0.0})
    after = watch_of()
    after.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    for each in (watch, after):
        for i, (measure, spread) in enumerate(zip(measures, spreads, strict=True)):
            each.measured(1500 + i, measure, {"precision": 0.9, "recall": 0.5, "spread": spread})
        assert each.standing == found


@pytest.mark.parametrize("at", [1, 9, 399, 400, 777, 1203])
def test_a_restored_watch_goes_on_as_the_one_that_was_never_stopped(at):
    never, before = watch_of(), watch_of()
    wrong = {key: of for own in WRONG.values() for key, of in own.items()}
    fed(never, 1500, **wrong)
    fed(before, at, **wrong)
    after = watch_of()
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    fed(after, 1500 - at, at + 1, **wrong)
    assert after.state_dict() == never.state_dict() and after.standing == never.standing != ()
    watch_of().load_state_dict({})  # a checkpoint of before


def test_the_progress_line_names_what_is_wrong():
    progress = Progress(10, 0, None, quiet=True)
    shown = []

    class Bar:
        def set_postfix_str(self, text, refresh):
            shown.append(text)

        def update(self):
            pass

    progress._bar = Bar()
    progress.advance(0.5, ("mode collapse", "oscillation"))
    progress.advance(0.25)
    assert shown == ["loss 0.5, mode collapse, oscillation", "loss 0.25"]


# ---- runs -------------------------------------------------------------------------------------------


QUIET = ["--no-tensorboard", "--log-every", "1", "--batch", "4", "--noise", "4", "--samples", "50"]
SMALL = ["--arch", "mlp", "--widths", "8", "--critic-widths", "8", "--size", "8"]


def train(places, folder, *more):
    flags = [*SMALL, *QUIET, "--data", str(places["images"]), "--folder", str(folder)]
    return main(["train", "gan", *flags, "--steps", "10", "--evaluations", "10", *more])


@pytest.fixture
def collapsing(monkeypatch):
    """Measures that are best at step 2, and variety that is lost from step 5 on."""
    from fusegen.train.tasks.gan import watch

    counts = {"measures": 0, "looks": 0}

    def evaluate(self, model=None):
        counts["measures"] += 1
        return {"distance": abs(counts["measures"] - 3) + 1.0}

    def look(source, model):
        counts["looks"] += 1
        low = counts["looks"] > 5
        return {"precision": 0.9, "recall": 0.2 if low else 0.6, "spread": 0.1 if low else 0.9}

    monkeypatch.setattr(GanTask, "evaluate", evaluate)
    monkeypatch.setattr(watch, "diversity_of", look)


def test_a_collapse_is_named_in_the_log_and_on_the_way(tmp_path, places, collapsing, capsys):
    folder = tmp_path / "run"
    assert train(places, folder) == 0
    out = capsys.readouterr().out
    assert out.count("mode collapse: two samples are 0.10 as far apart as two of the data") == 1
    named = [line.split()[1] for line in out.splitlines() if "[mode collapse]" in line]
    assert named == ["6", "7", "8", "9", "10"]
    lines = [line for line in read_log(folder) if "distance" in line]
    assert [line.get("signal: mode collapse") for line in lines] == [None] * 6 + [1.0] * 5
    assert lines[1]["spread"] == 0.9 and lines[1]["recall"] == 0.6


def test_a_run_is_stopped_when_collapsed_and_the_best_checkpoint_is_named(
    tmp_path, places, collapsing, capsys
):
    folder = tmp_path / "run"
    assert train(places, folder, "--stop-when-collapsed") == 3
    err = capsys.readouterr().err
    best = folder / "checkpoints/best.pt"
    assert f"stopped for mode collapse at step 6; the best checkpoint is {best}, of step 2" in err
    run = Run.open(folder)
    assert run.load("last")["step"] == 6 and run.load("best")["step"] == 2
    assert (folder / "curves.png").exists()
    assert main(["sample", str(folder), "--out", str(tmp_path / "a.png")]) == 0
    # It goes on where that is asked for; from the best, or without the stop.
    more = ["--resume", "--no-stop-when-collapsed"]
    assert train(places, folder, *more) == 0 and run.load("last")["step"] == 10


def test_a_run_without_a_folder_raises(places, collapsing):
    from fusegen.train import Collapsed, RunOptions, fit

    task = task_of("images", places, stop_when_collapsed=True)
    with pytest.raises(Collapsed, match=r"stopped for mode collapse at step 600$"):
        fit(task, task._fit, setup=RunOptions(device="cpu"), evaluations=10, say=lambda line: None)


def test_signals_and_the_best_survive_a_kill_bit_for_bit(tmp_path, places, monkeypatch):
    class Killed(BaseException):
        pass

    def look(self, model):
        return {"precision": 0.9, "recall": 0.3, "spread": 0.1 if len(self._evaluations) > 2 else 0.9}

    def kill(self, step, steps):
        if step == 7:
            raise Killed
        at(self, step, steps)

    at = GanTask.at
    monkeypatch.setattr(GanTask, "evaluate", lambda self, model=None: {"distance": abs(self._step - 1) + 1.0})
    monkeypatch.setattr(GanWatch, "look", look)
    never, killed = tmp_path / "never", tmp_path / "killed"
    assert train(places, never) == 0
    with monkeypatch.context() as patch:
        patch.setattr(GanTask, "at", kill)
        with pytest.raises(Killed):
            train(places, killed)
    assert main(["resume", str(killed)]) == 0
    a, b = (Run.open(folder).load("last") for folder in (never, killed))
    assert list(a["watch"]["standing"]) == [COLLAPSE] and a["best"] == 1
    for key in a.keys() - {"run"}:
        assert equal(a[key], b[key]), key
    assert [Run.open(folder).load("best")["step"] for folder in (never, killed)] == [2, 2]
    logs = [[{k: v for k, v in x.items() if k != "seconds"} for x in read_log(f)] for f in (never, killed)]
    assert logs[0] == logs[1]


def test_a_checkpoint_of_before_there_was_a_watch_goes_on(tmp_path, places):
    folder = tmp_path / "run"
    assert train(places, folder, "--evaluations", "1") == 0
    run = Run.open(folder)
    state = run.load("last")
    del state["watch"]
    run.checkpoints.save(10, state)
    assert main(["resume", str(folder), "--steps", "12"]) == 0
    with pytest.raises(CheckpointError):
        run.load("9")
