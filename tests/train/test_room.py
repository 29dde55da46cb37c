"""What does not fit in memory is refused by the name of an option, before it is made."""

import pytest
import torch
from fusegen import data
from fusegen.cli import main
from fusegen.data import _memory
from fusegen.data._memory import check_fits, told
from fusegen.data.pictures import digits
from fusegen.train.errors import NotEnoughMemory, typed
from fusegen.train.options import FitOptions, Options, option
from fusegen.train.tasks import room
from runs import QUIET, SHAPE, refusal

STEP = ["--device", "cpu", "--steps", "1", *QUIET]
RUNS = {
    "text": ["text", *SHAPE],
    "vae": ["vae", "--hidden", "8", "--measured", "8", "--importance", "0"],
    "seqvae": ["seqvae", "--hidden", "8", "--embedding", "8", "--measured", "8", "--importance", "0"],
    "seq2seq": ["seq2seq", "--hidden", "8", "--embedding", "8", "--measured", "8"],
    "images": ["gan", "--samples", "16"],
    "series": ["gan", "--arch", "recurrent", "--hidden", "4", "--score-steps", "1"],
    "written": ["gan", "--arch", "recurrent", "--hidden", "4", "--data", "pydocs", "--samples", "8"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of a task, trained for a step when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            made[name] = folder / name
            assert main(["train", *RUNS[name], *STEP, "--folder", str(made[name])]) == 0
        return made[name]

    return run


@pytest.fixture
def little(monkeypatch):
    """A machine with so little memory; what would be refused is small in truth."""

    def has(count):
        for module in (_memory, room, data.series):
            monkeypatch.setattr(module, "memory", lambda: count)

    return has


@pytest.fixture
def allowed(monkeypatch):
    """Samples may take so many bytes."""
    return lambda count: monkeypatch.setattr(room, "DRAWN", count)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("text", ["--length", "200"]),
        ("text", ["--beam", "9", "--length", "2"]),
        ("vae", ["--rows", "8"]),
        ("seqvae", ["--count", "20"]),
        ("seqvae", ["--steps", "20", "--what", "interpolation"]),
        ("seq2seq", ["--beam", "20", "--count", "2"]),
        ("images", ["--count", "80"]),
        ("images", ["--interpolate", "80"]),
        ("series", ["--count", "80"]),
        ("series", ["--length", "48", "--count", "2"]),
        ("written", ["--count", "80"]),
        ("written", ["--length", "48", "--count", "2"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_samples_that_do_not_fit_name_the_option(runs, allowed, capsys, name, arguments):
    run = runs(name)
    allowed(10_000)
    capsys.readouterr()
    said = refusal(capsys, "sample", run, *arguments)
    assert f"error: {arguments[0]}: expected " in said and f"got {arguments[1]}: " in said
    assert said.endswith("10 kB is the most allowed\n") and "would take about" in said


def test_as_many_samples_as_are_said_to_fit_are_drawn(runs, allowed, capsys, tmp_path):
    run = runs("series")
    allowed(5_000_000)
    capsys.readouterr()
    said = refusal(capsys, "sample", run, "--count", "200")
    fits = int(said.partition("at most ")[2].partition(" ")[0])
    out = ["--out", str(tmp_path / "drawn.npy")]
    assert main(["sample", str(run), "--count", str(fits), *out]) == 0
    assert f"at most {fits} " in refusal(capsys, "sample", run, "--count", str(fits + 1), *out)


def test_more_images_than_a_picture_holds_are_refused(runs, capsys):
    said = refusal(capsys, "sample", runs("images"), "--count", "25000")
    assert "--count: expected at most 20," in said and "as fit in one picture, got 25,000" in said


@pytest.mark.parametrize("name", ["images", "written"])
def test_samples_of_a_measure_that_do_not_fit_name_it(runs, allowed, capsys, tmp_path, name):
    run = runs(name)
    allowed(10_000_000)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--samples", "9000"]) == 2
    assert "error: --samples: expected at most " in capsys.readouterr().err.splitlines()[-1]
    arguments = [*RUNS[name], "--samples", "9000", *STEP, "--folder", tmp_path / "run"]
    assert "--samples: expected at most " in refusal(capsys, "train", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "memory", "arguments"),
    [
        ("text", 100_000, ["--hidden", "700"]),
        ("text", 100_000, ["--embedding", "700"]),
        ("vae", 5 * 10**6, ["--latent", "70000"]),
        ("vae", 10**8, ["--network", "convolutional", "--channels", "2000"]),
        ("seqvae", 10**6, ["--hidden", "900"]),
        ("seq2seq", 10**6, ["--hidden", "900"]),
        ("images", 10**8, ["--widths", "30000"]),
        ("images", 10**8, ["--noise", "200000"]),
        ("images", 10**8, ["--arch", "dcgan", "--width", "900"]),
        ("series", 10**7, ["--hidden", "1200"]),
        ("text", 10**9, ["--hidden", "9" * 25]),
    ],
    ids=str,
)
def test_a_model_that_does_not_fit_names_the_option(tmp_path, little, capsys, name, memory, arguments):
    little(memory)
    said = refusal(capsys, "train", *RUNS[name], *STEP, "--folder", tmp_path / "run", *arguments)
    assert f"error: {arguments[-2]}: expected a model that fits in memory" in said
    assert f"got {arguments[-1]}, which with --" in said and not (tmp_path / "run").exists()


def test_gradients_and_moments_count_too(tmp_path, little, capsys):
    little(3 * 10**7)
    said = refusal(capsys, "train", *RUNS["text"], *STEP, "--hidden", "600", "--folder", tmp_path / "run")
    assert "--hidden: " in said and "weights, their gradients and the optimiser's moments" in said


def test_counting_moves_no_random_numbers():
    class One(Options):
        size: int = option(3, "units")

    torch.manual_seed(0)
    plain = torch.nn.Linear(3, 3)
    torch.manual_seed(0)
    made = room.built(lambda: torch.nn.Linear(3, 3), ("size",), One())
    assert torch.equal(plain.weight, made.weight) and made.weight.device.type == "cpu"


@pytest.mark.parametrize("arch", ["mlp", "dcgan"])
def test_images_of_an_absurd_size_name_it(tmp_path, little, capsys, arch):
    little(10**8)
    said = refusal(capsys, "train", "gan", "--arch", arch, "--size", "500", *STEP, "--folder", tmp_path / "r")
    assert "--size: expected " in said and "got 500" in said
    assert ("one of 28, 32, 64 for --arch dcgan" in said) == (arch == "dcgan")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: data.sines(600), "steps"),
        (lambda: data.tones(600), "steps"),
        (lambda: digits(300), "size"),
        (lambda: data.share_prices(600, 1), "stride"),
    ],
    ids=["sines", "tones", "digits", "windows"],
)
def test_data_that_do_not_fit_name_the_argument(little, make, name):
    little(10**6)
    with pytest.raises(ValueError, match=rf"^{name}: expected .* 1 MB is all there is$"):
        make()


@pytest.mark.parametrize("layers", ["text", "vae", "seqvae", "seq2seq", "gan"])
def test_layers_have_an_end(tmp_path, capsys, layers):
    said = refusal(capsys, "train", layers, "--layers", "1001", "--folder", tmp_path / "run")
    assert "--layers: expected an integer from" in said and "to 1000, got 1001" in said


def test_the_option_that_is_the_most_times_its_usual_size_is_named():
    def cost(a, b):
        return a * b

    with pytest.raises(
        ValueError, match=r"^b: expected at most 10 beside a 100, got 50: it would take about"
    ):
        check_fits(cost, {"a": 100, "b": 50}, {"a": 100, "b": 1}, "it", most=1000)
    check_fits(cost, {"a": 100, "b": 10}, {"a": 100, "b": 1}, "it", most=1000)


@pytest.mark.parametrize(
    ("count", "words"), [(1500, "1.5 kB"), (2 * 10**6, "2 MB"), (24e9, "24 GB"), (7e15, "7,000 TB")]
)
def test_bytes_in_words(count, words):
    assert told(count) == words


def test_the_allocators_message_is_told_in_words():
    with pytest.raises(NotEnoughMemory, match=r"^2 TB at once cannot be had$"), typed():
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate 2000000000000 bytes. Error code 12 (Cannot allocate memory)"
        )


def test_options_that_make_it_smaller_are_named_with_their_values():
    assert room.smaller(("steps", "lr"), FitOptions(steps=7)) == "smaller --steps (7), --lr (0.005)"
