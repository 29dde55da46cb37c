"""The page about a run: of every task, from its folder alone, on a telephone and on a desk; what is "
"refused."""

import json
import os
import re
import shutil
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import browser
import fusegen
import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.inspect import explain
from fusegen.train import CheckpointError
from fusegen.train.run import Run
from runs import STORY, refusal

pytest.importorskip("matplotlib")
pytest.importorskip("sacrebleu")

OLD = Path(__file__).parents[1] / "fixtures/v0_1"
PHONE, DESK = 390, 1280
FAST = "--no-tensorboard --evaluations 1 --log-every 1 --steps 2"
TEXT = "--hidden 16 --embedding 8 --batch 4 --chunk 8"
SEQUENCES = "--hidden 8 --embedding 4 --batch 4"
GAN, DRAWN, SCORED = "--batch 4", "--samples 50", "--score-steps 2"
RECURRENT = f"{GAN} --arch recurrent --hidden 4"
PLAIN = "--no-innovations --no-residual --no-levels"
LINES = [f"the {a} {b} of {c}." for a in ("old", "new", "red") for b in ("cat", "dog", "hen") for c in "xyz"]

# What is trained here: (task, options).
KINDS = {
    "characters": ("text", f"{TEXT} --layers 1 --tokens character --data quoted.txt"),
    "an RNN of numbers": ("text", f"{TEXT} --cell rnn --data numbers.npy"),
    "images": ("vae", "--latent 3 --hidden 8 --batch 8 --importance 2 --data images.npy"),
    "sentences": ("seqvae", f"{SEQUENCES} --latent 3 --importance 0 --data lines.txt"),
    "a decoder alone": ("seqvae", f"{SEQUENCES} --latent 0 --data lines.txt"),
    "pairs": ("seq2seq", f"{SEQUENCES} --data pairs.tsv"),
    "a GAN of images": (
        "gan",
        f"{GAN} {DRAWN} --widths 8 --critic-widths 8 --size 8 --noise 4 --data images.npy",
    ),
    "a GAN of series": ("gan", f"{RECURRENT} {SCORED} --length 6 --warm-up 1 --data series.npy"),
    "a GAN of sounds": ("gan", f"{RECURRENT} {SCORED} {PLAIN} --length 8 --stride 8 --data sound.wav"),
    "a GAN of text": ("gan", f"{RECURRENT} {DRAWN} --length 6 --data quoted.txt"),
}
# What an earlier version left, of kinds that are not among those.
OLD_KINDS = ["conditional-gan", "convolutional-vae", "dcgan", "words"]
OLD_SLOW = ["mlp-gan", "seq2seq", "seqvae", "series-gan", "text", "text-gan", "vae"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data of every kind."""
    folder, draw = tmp_path_factory.mktemp("explain"), np.random.default_rng(0)
    (folder / "quoted.txt").write_text('a "story" of one,\n   and "more\n of it" here.\n\n' * 40)
    np.save(folder / "numbers.npy", draw.integers(0, 9, 900, dtype=np.int64))
    np.save(folder / "images.npy", draw.integers(0, 256, (60, 8, 8), dtype=np.uint8))
    np.save(folder / "series.npy", draw.standard_normal((60, 2)).cumsum(0))
    (folder / "lines.txt").write_text("\n".join(LINES))
    (folder / "pairs.tsv").write_text("".join(f"{each[4:11]}\t{each[4:11][::-1]}\n" for each in LINES))
    pytest.importorskip("soundfile").write(folder / "sound.wav", draw.standard_normal(400) / 4, 8000)
    return folder


def trained(kind, place, folder, monkeypatch):
    """A run, trained where its data lie, once; each test has a copy of its own."""
    task, options = KINDS[kind]
    monkeypatch.chdir(place)
    kept = place / "runs" / kind
    if not kept.exists():
        assert main(["train", task, *options.split(), *FAST.split(), "--folder", str(kept)]) == 0
    return Path(shutil.copytree(kept, folder))


def data_lie_in(folder, run):
    """The run, whose file of data is now said to lie in another folder."""
    content = json.loads((run / "config.json").read_text())
    content["data"]["data"] = str(folder / Path(content["data"]["data"]).name)
    (run / "config.json").write_text(json.dumps(content))
    return run


def contents(folder):
    """Every file below a folder: bytes and time."""
    return {
        p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


# ---- what every page is -------------------------------------------------------------------------------


EMPTY = ("meta", "img")
KNOWN = """html head meta title style body main h1 h2 p dl dt dd figure img figcaption strong ul li div span
table thead tbody tr th td code footer""".split()  # noqa: SIM905


class Page(HTMLParser):
    """Parsed strictly: every element is closed in order, and known; texts by the element they stand in."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.images, self.texts, self.metas, self.figures = [], [], {}, {}, []
        assert text.startswith("<!DOCTYPE html>\n")
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in KNOWN, tag
        attrs = dict(attrs)
        assert not {"src", "href", "onload", "onclick"} & attrs.keys() or tag == "img"
        if tag == "img":
            self.images.append(attrs)
        if tag == "meta":
            self.metas[attrs.get("name") or attrs.get("http-equiv") or "charset"] = attrs.get("content")
        if tag == "figure":
            self.figures.append("")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)
        if "figure" in self.open:
            self.figures[-1] += data


def checked(path):
    """The page, held to what all of them promise."""
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    assert len(content) < 5e6
    assert len(page.images) >= 3
    for image in page.images:
        assert image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 20
        assert int(image["width"]) < 700 and int(image["height"]) > 20
    assert page.metas["viewport"] == "width=device-width, initial-scale=1"
    assert "default-src 'none'" in page.metas["Content-Security-Policy"]
    assert all("Good:" in each and "Bad:" in each for each in page.figures)
    assert not re.search(r"\b(nan|inf|None|tensor)\b", " ".join(page.texts["p"]))
    return page


FOUND = """({
  wide: document.documentElement.scrollWidth, room: window.innerWidth,
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth, i.alt]),
  letters: Math.min(...[...document.querySelectorAll("p, li, td, th, dd, .coloured")]
    .map(e => parseFloat(getComputedStyle(e).fontSize))),
})"""


@pytest.fixture(scope="session")
def chromium():
    if browser.program() is None:
        yield None
        return
    own = browser.Browser()
    yield own
    own.close()


def looked_at(path, page, chromium):
    """As a person would, on a telephone and on a desk. KEEP_SCREENSHOTS names a folder for the pictures."""
    if chromium is None:
        pytest.skip(f"{browser.MISSING}: the page was parsed, and not shown")
    for width in (PHONE, DESK):
        shown = chromium.show(path, width, FOUND)
        found = shown.found
        assert shown.complaints == []
        assert all(url.startswith(("file:", "data:")) for url in shown.requests)
        assert found["room"] == width and found["wide"] <= width
        assert len(found["images"]) == len(page.images)
        for complete, natural, client, alt in found["images"]:
            assert complete and natural > 0 and alt and client <= width
            # Letters of a picture are 25 pixels in the file: on the page they are 10 or more.
            assert client / natural >= 0.4
        assert found["letters"] >= 13
        if "KEEP_SCREENSHOTS" in os.environ:
            name = f"{path.parent.name}-{path.stem}-{width}.png".replace(" ", "-")
            (Path(os.environ["KEEP_SCREENSHOTS"]) / name).write_bytes(shown.png)


# ---- every kind of run --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_explained(kind, place, tmp_path, monkeypatch, capsys, chromium):
    run = trained(kind, place, tmp_path / kind, monkeypatch)
    before, lottery = contents(run), torch.get_rng_state()
    assert main(["explain", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "explain.html")
    after = contents(run)
    assert after.pop(Path("explain.html")) and after == before
    assert torch.equal(torch.get_rng_state(), lottery)
    page = checked(run / "explain.html")
    said = " ".join(page.texts["p"])
    assert "not at hand" not in said and f"What “{kind}” has learnt" in page.texts["h1"]
    looked_at(run / "explain.html", page, chromium)


@pytest.mark.parametrize("kind", ["characters", "images", "a GAN of series", "a GAN of text", "sentences"])
def test_the_folder_alone_is_enough(kind, place, tmp_path, monkeypatch):
    """Without the data, and from elsewhere: of what the run keeps, and what its model makes."""
    run = data_lie_in(tmp_path, trained(kind, place, tmp_path / "run", monkeypatch))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "page.html"
    before = contents(run)
    assert explain(run, out) == out and contents(run) == before
    said = " ".join(checked(out).texts["p"])
    assert "The run's data are not at hand (cannot read" in said
    assert str(tmp_path) not in out.read_text(encoding="utf-8")  # a page tells nothing of the machine


@pytest.mark.parametrize("name", [*OLD_KINDS, *(pytest.param(n, marks=pytest.mark.slow) for n in OLD_SLOW)])
def test_a_run_of_an_earlier_version_is_explained(name, tmp_path, monkeypatch, chromium):
    run = tmp_path / name
    shutil.copytree(OLD / "runs" / name, run)
    monkeypatch.chdir(OLD / "data")
    before = contents(run)
    page = checked(explain(run))
    after = contents(run)
    del after[Path("explain.html")]
    assert after == before
    looked_at(run / "explain.html", page, chromium)


def test_other_data_under_the_same_name_are_not_taken_for_the_runs(place, tmp_path, monkeypatch):
    run = data_lie_in(tmp_path, trained("characters", place, tmp_path / "run", monkeypatch))
    (tmp_path / "quoted.txt").write_text(STORY * 3, encoding="utf-8")
    assert "what is there now is not what the run was trained on" in explain(run).read_text(encoding="utf-8")


# ---- what it says -------------------------------------------------------------------------------------


@pytest.fixture
def run(place, tmp_path, monkeypatch):
    """A small run of characters."""
    return trained("characters", place, tmp_path / "run", monkeypatch)


def test_the_same_run_gives_the_same_page_whatever_the_backend(run, tmp_path):
    one = explain(run, tmp_path / "one.html").read_bytes()
    fusegen.set_backend("torch")
    assert explain(Run.open(run), tmp_path / "two.html").read_bytes() == one
    assert fusegen.get_backend() == "torch"


def test_text_is_shown_as_text_and_cells_by_name(run):
    explain(run)
    content = (run / "explain.html").read_text(encoding="utf-8")
    page = Page(content)
    shown = "".join(page.texts["div"] + page.texts["span"])
    assert "story" in shown.replace("\u21b5", "") or "stor" in shown
    assert re.search(r"Unit \d+ of rnn", " ".join(page.texts["p"]))
    assert {"cell", "raised by", "lowered by"} <= set(page.texts["th"])
    assert "% shuffled" in " ".join(page.texts["p"])


def test_a_text_cannot_put_elements_on_the_page(place, tmp_path, monkeypatch):
    evil = '<script>alert("x")</script><img src=x onerror=y> &amp; '
    (tmp_path / "evil.txt").write_text((evil + "\n") * 30)
    monkeypatch.chdir(tmp_path)
    task, options = KINDS["characters"]
    given = options.replace("quoted.txt", "evil.txt").split()
    folder = tmp_path / "<b>run"
    assert main(["train", task, *given, *FAST.split(), "--folder", str(folder)]) == 0
    page = Page(explain(folder).read_text(encoding="utf-8"))
    assert "What “<b>run” has learnt" in page.texts["h1"]


def test_a_layer_can_be_chosen(place, tmp_path, monkeypatch):
    run = trained("pairs", place, tmp_path / "run", monkeypatch)
    both, one = (
        explain(run, tmp_path / f"{i}.html", layer=layer).read_text()
        for i, layer in enumerate([None, "encoder"])
    )
    assert "(encoder, forwards; encoder, backwards; decoder)" in both and "one unit of decoder" in both
    assert "(encoder, forwards; encoder, backwards)" in one and "one unit of encoder, backwards" in one


def test_a_checkpoint_can_be_chosen(run, tmp_path):
    texts = [explain(run, tmp_path / f"{w}.html", checkpoint=w).read_text() for w in ("2", "last")]
    assert texts[0] == texts[1] and "step 2 of 2" in texts[0]


# ---- opening ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
def test_it_is_opened_where_a_browser_is(run, monkeypatch, capsys, there):
    asked = []
    monkeypatch.setattr(webbrowser, "open", lambda url: (asked.append(url), there)[1])
    assert main(["explain", str(run), "--open"]) == 0
    assert asked == [(run / "explain.html").resolve().as_uri()]
    assert ("no browser can be opened here" in capsys.readouterr().err) != there


# ---- bad input ----------------------------------------------------------------------------------------


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert "there is no run in" in refusal(capsys, "explain", tmp_path)


def test_a_run_without_a_checkpoint_is_refused(run, capsys):
    shutil.rmtree(run / "checkpoints")
    assert "there is no checkpoint in" in refusal(capsys, "explain", run)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        explain(run)
    assert not (run / "explain.html").exists()


def test_a_torn_checkpoint_is_refused_and_a_good_one_offered(run, capsys):
    best = run / "checkpoints/best.pt"
    content = best.read_bytes()
    best.unlink()
    best.write_bytes(content[: len(content) // 2])
    assert "torn or cut short" in (said := refusal(capsys, "explain", run)) and "the last good one is" in said


def test_weights_that_are_not_finite_are_refused(run, capsys):
    found = Run.open(run)
    state = found.load("last")
    state["model"]["decoder.bias"][0] = torch.nan
    found.checkpoints.save(2, state, best=True)
    assert "are not finite; another --checkpoint may be whole" in refusal(capsys, "explain", run)


def test_a_run_without_its_vocabulary_is_refused(run, capsys):
    (run / "vocabulary.json").unlink()
    assert "vocabulary.json is missing" in refusal(capsys, "explain", run)


def test_a_task_or_an_option_of_another_version_is_refused_with_the_nearest(run, capsys):
    edited(run / "config.json", task="txt")
    assert "there is no task 'txt'; did you mean 'text'?" in refusal(capsys, "explain", run)
    edited(run / "config.json", task="text", modle={})
    assert "there is no 'modle'; did you mean 'model'?" in refusal(capsys, "explain", run)


@pytest.mark.parametrize(
    ("kind", "layer", "nearest"),
    [
        ("characters", "rn", "rnn"),
        ("sentences", "decode", "decoder"),
        ("a GAN of series", "generator.rmn", "generator.rnn"),
        ("a GAN of images", "generator.9", "generator."),
        ("images", "decoder.33", "decoder.3"),
    ],
)
def test_a_layer_that_does_not_exist_is_refused_with_the_nearest(
    kind, layer, nearest, place, tmp_path, monkeypatch, capsys
):
    run = trained(kind, place, tmp_path / "run", monkeypatch)
    capsys.readouterr()
    said = refusal(capsys, "explain", run, "--layer", layer)
    assert f"--layer: this run's model has no layer {layer!r} to look into; the nearest is" in said
    assert nearest in said and not (run / "explain.html").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("page.txt", "--out: expected a file that ends in .html"),
        ("nowhere/page.html", "there is no folder"),
        ("folder.html", "Is a directory"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(run, tmp_path, capsys, monkeypatch, out, words):
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr("fusegen.inspect.page.write.open_subject", lambda *a: pytest.fail("work was done"))
    assert words in refusal(capsys, "explain", run, "--out", tmp_path / out)


def test_sequences_longer_than_memory_are_refused(place, tmp_path, monkeypatch, capsys):
    run = trained("a GAN of sounds", place, tmp_path / "run", monkeypatch)
    capsys.readouterr()
    edited(run / "data.json", steps=10**11)
    assert "not enough memory: " in refusal(capsys, "explain", run)


def test_without_matplotlib_it_says_what_to_install(run, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install matplotlib" in refusal(capsys, "explain", run)


def test_without_scikit_learn_the_page_says_so(run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "Nothing was probed: scikit-learn is needed" in explain(run).read_text(encoding="utf-8")


def test_a_page_that_takes_long_says_where_it_is(monkeypatch, capsys):
    from fusegen.inspect.page.html import Page
    from fusegen.train.commands import explain as command

    now = [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    page = Page("a run")
    page.begins = command._Progress()
    page.section("Quick")
    now[0] = 12.0
    page.section("How it remembers")
    assert capsys.readouterr().err == "fusegen explain: 12 s, now: How it remembers\n"
