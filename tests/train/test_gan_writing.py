"""GANs of text and of sounds: what they learn from, what they are held against."""

import json
import math

import pytest
import torch
from fusegen.cli import main
from fusegen.metrics import NGram, bigram_divergence, log_spectral_distance, perplexity
from fusegen.train import GanTask, config
from fusegen.train.run import Run, read_log
from fusegen.train.tasks import find_task
from fusegen.train.tasks.gan.options import PRESETS, GanData, GanMeasuring, GanModel
from fusegen.train.tasks.gan.reading import read_source, revived
from fusegen.train.tasks.gan.source import draw
from learning.gan import measures_in

pytest.importorskip("sacrebleu")
pytest.importorskip("matplotlib")

TEXT = "the cat sat on the mat, and the dog sat by the door. " * 30
QUIET = ["--no-tensorboard", "--evaluations", "1", "--log-every", "1", "--batch", "4", "--noise", "4"]
QUIET += ["--hidden", "6"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(TEXT)
    return path


def train(folder, data, *more):
    own = ["--score-steps", "2"] if data == "tones" else ["--samples", "40"]
    flags = ["--arch", "recurrent", "--data", str(data), *QUIET, *own, *map(str, more)]
    return main(["train", "gan", *flags, "--folder", str(folder)])


def measures(folder, capsys, *more):
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--checkpoint", "last", *more]) == 0
    return measures_in(capsys.readouterr().out)


# ---- text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "length"), [("character", 8), ("word", 5)])
def test_text_is_learnt_by_likelihood_first_and_measured_beside_a_bigram_model(
    tmp_path, text, capsys, tokens, length
):
    folder = tmp_path / "run"
    more = ["--tokens", tokens, "--length", length, "--steps", 4, "--warm-up", 2]
    assert train(folder, text, *more) == 0
    steps = [line for line in read_log(folder) if "generator loss" in line]
    warm = [line["generator loss"] == line["surprise"] for line in steps]
    assert warm == [True, True, False, False]
    assert json.loads((folder / "vocabulary.json").read_text())["kind"] == tokens
    found = measures(folder, capsys)
    names = [
        "bigram divergence",
        "perplexity by a held-out judge",
        "self-BLEU",
        "unique share",
        "copied share",
    ]
    whose = ("", " of a bigram model", " of the data")
    assert [name for name in found if name != "step"] == [f"{name}{each}" for name in names for each in whose]
    assert found["copied share of the data"] == 1 and found["bigram divergence of the data"] < 0.2
    perplexities = [found[f"{names[1]}{each}"] for each in whose]
    assert perplexities[0] > perplexities[1] > perplexities[2] > 1
    alone = measures(folder, capsys, "--no-beside", "--samples", "20")
    assert [name for name in alone if name != "step"] == names
    drawn = tmp_path / "drawn.txt"
    assert main(["sample", str(folder), "--count", "3", "--out", str(drawn)]) == 0 and drawn.read_text()


def source_of(text, **options):
    return read_source("recurrent", GanData(data=str(text), **options), "data", None)


@pytest.mark.parametrize("tokens", ["character", "word"])
def test_the_end_of_a_text_is_held_out_and_makes_the_judge(text, tmp_path, tokens):
    source = source_of(text, length=6, held_out=0.25, tokens=tokens)
    every = source.text.tokens
    assert torch.equal(source.tokens, every[: len(every) - round(len(every) / 4)])
    assert len(source) == len(source.tokens) - 5
    last = source.batch(torch.tensor([len(source) - 1]))["real"]
    assert torch.equal(last[:, 0], source.tokens[-6:].long())
    samples = torch.randint(len(source.vocabulary), (6, 9), generator=torch.Generator().manual_seed(0))
    judge = NGram({"character": 5, "word": 3}[tokens], len(source.vocabulary)).fit(
        every[len(source.tokens) :]
    )
    found = source.written(samples)
    assert found["perplexity by a held-out judge"] == perplexity(judge.nats(samples), samples.numel())
    assert found["bigram divergence"] == bigram_divergence(source.tokens, samples, len(source.vocabulary))
    whole = source_of(text, length=6, tokens=tokens)
    assert torch.equal(whole.tokens, every) and "perplexity by a held-out judge" not in whole.written(samples)
    source.keep(tmp_path)
    again = revived(tmp_path, json.loads((tmp_path / "data.json").read_text()))
    assert again.vocabulary == source.vocabulary and again.steps == 6


def test_a_token_generators_surprise_is_that_of_its_own_draws(text):
    """-log p of what it draws: the mean is the entropy of its chances, and each is found step by step."""
    source = source_of(text, length=7)
    torch.manual_seed(0)
    gan = source.model(GanModel(arch="recurrent", noise=4, hidden=6)).double()
    noise, tokens = gan.noise(5, 7), source.batch(torch.arange(5))["real"]
    lengths = torch.tensor([7, 1, 3, 7, 2])
    G, V = gan.generator, gan.vocab_size
    one_hot = torch.nn.functional.one_hot(tokens, V).double()
    before, state, nats = torch.zeros(5, V, dtype=torch.float64), None, []
    for t in range(7):
        y, state = G.rnn(torch.cat((noise[t], G.embedding(before)), 1)[None], state)
        nats.append(-G.head(y[0]).log_softmax(1).gather(1, tokens[t][:, None])[:, 0])
        before = one_hot[t]
    nats, inside = torch.stack(nats), torch.arange(7)[:, None] < lengths
    assert G.surprise(one_hot, noise).item() == pytest.approx(nats.mean().item(), rel=1e-9)
    ragged = G.surprise(one_hot, noise, lengths).item()
    assert ragged == pytest.approx(nats[inside].mean().item(), rel=1e-9)
    torch.manual_seed(1)
    by_tokens = gan.surprise(tokens, lengths=lengths)
    torch.manual_seed(1)
    assert gan.surprise(one_hot, lengths=lengths) == by_tokens
    by_tokens.backward()
    assert all(p.grad.abs().sum() > 0 for p in G.parameters()) and gan.foretells


def test_likelihood_teaches_text(text):
    source = source_of(text, length=12)
    torch.manual_seed(0)
    gan = source.model(GanModel(arch="recurrent", noise=2, hidden=24, cell="gru"))
    optimizer = torch.optim.Adam(gan.generator.parameters(), 2e-2)
    divergence = lambda: bigram_divergence(
        source.tokens, draw(gan, 300, torch.Generator().manual_seed(1)), len(source.vocabulary)
    )
    gan.average, begun = None, divergence()
    for _ in range(120):
        optimizer.zero_grad()
        gan.surprise(source.batch(torch.randint(len(source), (32,)))["real"]).backward()
        optimizer.step()
    assert begun > 0.6 and divergence() < 0.1


def test_text_has_defaults_of_its_own(text):
    task = find_task("gan")
    asked = config.defaults(task, {"arch": "recurrent", "data": str(text)})
    assert asked["fit"].warm_up == PRESETS["text"]["fit"]["warm_up"] and asked["data"].held_out == 0.1
    assert asked["fit"].loss == PRESETS["recurrent"]["fit"]["loss"] and asked["run"].ema == 0.995
    series = config.defaults(task, {"arch": "recurrent", "data": "sines"})
    assert series["data"].held_out == 0 and series["data"].forecasts == "auto"
    assert config.defaults(task, {"arch": "mlp", "data": str(text)})["data"].held_out == 0
    run = config.from_json(task, {"task": "gan", "id": "0", "data": {"data": str(text)}}, "file")
    assert run["data"].held_out == 0 and run["data"].forecasts == "linear" and run["fit"].warm_up == 0


# ---- sounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("judges", [0, 1])
def test_sounds_are_held_against_an_autoregressive_fit_too(tmp_path, capsys, judges):
    folder = tmp_path / "run"
    assert train(folder, "tones", "--length", 20, "--steps", 1) == 0
    source = GanTask.from_options(Run.open(folder).sections, None).source
    assert source.is_sound and len(source) == 4000
    more = ["--judges", str(judges)] if judges else []
    found = measures(folder, capsys, "--score-steps", "1", *more)
    score = "discriminative score (wide judge)" if judges else "discriminative score"
    for name in ("log-spectral distance", score):
        own = [each for each in found if each.startswith(name) and "deviation" not in each]
        fits = [name, f"{name} of a Gaussian fit", f"{name} of an AR(16) fit"]
        assert own[:3] == fits and all(math.isfinite(found[each]) for each in own)
    assert 0 < found["log-spectral distance of a Gaussian fit"] < 3


@pytest.mark.parametrize(("name", "sound"), [("a.wav", True), ("a.npy", False), ("prices", False)])
def test_what_is_a_sound(name, sound, tmp_path, monkeypatch):
    source = read_source("recurrent", GanData(data="sines", length=4), "data", None)
    source.name = name
    assert source.is_sound is sound
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices/b.flac").touch()
    assert source.is_sound is sound  # a series of that name comes before a folder
    source.name = str(tmp_path)
    assert source.is_sound


def test_the_distance_of_spectra_is_that_of_the_samples():
    source = read_source("recurrent", GanData(data="tones", length=20, innovations=True), "data", None)
    torch.manual_seed(0)
    gan = source.model(GanModel(arch="recurrent", noise=3, hidden=4, residual=True))
    how = GanMeasuring(samples=8, score_steps=1, beside=False, seed=5)
    found = source.measures(gan, how, full=True)
    fake = source.form.inverse(draw(gan, 4000, torch.Generator().manual_seed(5)))
    assert found["log-spectral distance"] == log_spectral_distance(source.series.values, fake)
