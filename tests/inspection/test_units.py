"""Which tokens drive a unit, what can be read off units, text coloured by one."""

import warnings
from html.parser import HTMLParser

import fusegen
import pytest
import torch
from fusegen import inspect, models
from fusegen.data import Vocabulary
from fusegen.inspect.units import values as held_values
from fusegen.inspect.units.colouring import colour_of
from tolerances import TOLERANCE

EXACT = TOLERANCE[torch.float64, "value"]


# ---- drivers ------------------------------------------------------------------------------------------


def test_a_driver_is_the_mean_change_of_the_steps_that_read_it():
    T, B, U = 30, 3, 4
    values = torch.randn(T, B, U, dtype=torch.float64)
    tokens = torch.randint(5, (T, B)) * 2  # 0, 2, 4, 6, 8
    found = inspect.drivers(values, tokens)
    change, read = values.diff(dim=0), tokens[1:]
    assert found.tokens.tolist() == sorted(set(read.flatten().tolist()))
    for k, token in enumerate(found.tokens.tolist()):
        mine = change[read == token]
        assert (found.effects[k] - mine.mean(0)).abs().max() <= EXACT and found.counts[k] == len(mine)
    # The share is that of an analysis of variance, by its definition: 1 - what is left within.
    left = sum((change[read == t] - change[read == t].mean(0)).square().sum(0) for t in found.tokens.tolist())
    total = (change.flatten(0, 1) - change.flatten(0, 1).mean(0)).square().sum(0)
    assert (found.share - (1 - left / total)).abs().max() <= EXACT


def test_a_unit_that_repeats_its_input_is_driven_by_it_alone():
    tokens = torch.randint(3, (400, 1))
    echo = torch.tensor([-1.0, 0.0, 5.0])[tokens].cumsum(0)
    noise = torch.randn(400, 1)
    found = inspect.drivers(torch.stack([echo, noise], 2), tokens)
    assert found.share[0] > 1 - 1e-9 and found.share[1] < 0.05
    up, down = found.most(0)
    assert [each.token for each in up] == [2] and [each.token for each in down] == [0]
    assert up[0].effect == pytest.approx(5) and up[0].count == int((tokens[1:] == 2).sum())


def test_drivers_of_a_recording_leave_padding_and_rare_tokens_out():
    lstm = fusegen.nn.LSTM(2, 3)
    x, lengths = torch.randn(9, 2, 2), [9, 4]
    tokens = torch.arange(18).view(9, 2)
    with torch.no_grad(), inspect.record(lstm) as rec:
        lstm(x, lengths=lengths)
    plane = rec[""].only
    found = inspect.drivers(plane, tokens)
    assert found.tokens.tolist() == sorted([*range(2, 18, 2), *(3, 5, 7)])
    want = plane.c[3, 1] - plane.c[2, 1]
    assert (found.effects[found.tokens == 7][0] - want).abs().max() < 1e-6
    assert (inspect.drivers(plane, tokens, array="h").effects != found.effects).any()
    assert found.most(0) == ([], [])  # each was read once
    assert len(found.most(0, top=3, least=1)[0] + found.most(0, top=3, least=1)[1]) <= 6


def test_long_recordings_are_read_a_stretch_at_a_time(monkeypatch):
    values, tokens = torch.randn(50, 2, 3), torch.randint(4, (50, 2))
    want = inspect.drivers(values, tokens)
    monkeypatch.setattr(held_values, "_PART_BYTES", 7 * 2 * 3 * 8)
    got = inspect.drivers(values, tokens)
    assert all((a - b).abs().max() <= EXACT for a, b in zip(want, got, strict=True))


# ---- labels -------------------------------------------------------------------------------------------

TEXT = 'ab\n  "c d"\n\n\te "f\n\ng" h'


def test_labels_say_where_a_text_is():
    labels = inspect.text_labels(list(TEXT), width=2, last=6)
    told = {name: dict(enumerate(each.tolist())) for name, each in labels.items()}
    at = TEXT.index
    assert told["line position"][0] == 0 and told["line position"][1] == 1  # columns 1 and 2, after reading
    assert told["line position"][2] == 0 and told["line position"][at("d")] == 3  # the last bin
    quoted = [i for i, each in told["inside quotes"].items() if each]
    assert TEXT[quoted[0] : quoted[0] + 4] == '"c d'
    # The quote that f opens ends with the blank line; the one behind g opens another.
    assert told["inside quotes"][at("f")] == 1 and told["inside quotes"][at("g")] == 0
    assert told["inside quotes"][at("h")] == 1
    assert [told["indentation"][at(c)] for c in "acdefg"] == [0, 2, 2, 8, 8, 0]
    assert [told["indentation"][i] for i in (2, 3, at("\t"))] == [-1, -1, -1]


def test_all_columns_from_the_last_on_are_in_one_bin():
    labels = inspect.text_labels(list("abcdefghij"), width=2, last=6)
    assert labels["line position"].tolist() == [0, 1, 1, 2, 2, 3, 3, 3, 3, 3]


def test_tokens_of_several_characters_are_where_their_last_one_is():
    words, letters = inspect.text_labels(['say "', 'no" ', "now"]), inspect.text_labels(list('say "no" now'))
    for name in words:
        assert words[name].tolist() == [letters[name][i] for i in (4, 8, 11)]


def test_nothing_is_known_of_a_line_whose_begin_was_not_seen():
    labels = inspect.text_labels(list('a" b\n c'), begun=False)
    assert labels["inside quotes"].tolist() == [-1] * 4 + [0] * 3
    assert labels["line position"].tolist()[:4] == [-1] * 4 == labels["indentation"].tolist()[:4]
    assert labels["indentation"].tolist()[-1] == 1


# ---- probes -------------------------------------------------------------------------------------------


@pytest.fixture
def sklearn():
    return pytest.importorskip("sklearn")


def test_a_probe_reads_off_what_is_there_and_nothing_from_shuffled_labels(sklearn):
    T, U = 800, 6
    labels = torch.randint(3, (T, 2))
    values = torch.randn(T, 2, U)
    values[..., 2] += 6 * (labels == 1)
    values[..., 4] += 6 * (labels == 2)
    found = inspect.probe(values, labels)
    assert found.accuracy > 0.98 and abs(found.control - 1 / 3) < 0.1
    assert found.classes == (0, 1, 2) and found.chance == pytest.approx(1 / 3)
    assert found.weights.shape == (3, U) and found.weights[1].argmax() == 2 and found.weights[2].argmax() == 4


def test_the_same_seed_draws_the_same_probe(sklearn):
    labels, values = torch.randint(2, (200, 1)), torch.randn(200, 1, 3)
    a, b = (inspect.probe(values, labels, seed=1) for _ in range(2))
    other = inspect.probe(values, labels, seed=2)
    assert (a.accuracy, a.control) == (b.accuracy, b.control) and torch.equal(a.weights, b.weights)
    assert not torch.equal(a.weights, other.weights)


def test_a_class_counts_as_much_as_any_other(sklearn):
    """Of labels that are nearly all one, a guess is right half of the time, not nearly always."""
    labels = (torch.arange(2000) % 20 == 0).long()
    found = inspect.probe(torch.randn(2000, 4), labels)
    assert found.chance == 0.5 and abs(found.accuracy - 0.5) < 0.2
    assert found.measured == 2 * int(labels[1500:].sum()) and found.learnt == 2 * int(labels[:1500].sum())


def test_it_is_measured_on_the_last_steps_alone(sklearn):
    labels = torch.randint(2, (400,))
    values = torch.randn(400, 2)
    side = 8 * labels - 4
    values[:300, 0] += side[:300]
    values[300:, 0] -= side[300:]  # what was learnt is wrong there
    assert inspect.probe(values, labels, held_out=0.25).accuracy < 0.2


def test_negative_labels_padding_and_rare_classes_are_left_out(sklearn):
    lstm = fusegen.nn.LSTM(2, 3)
    with torch.no_grad(), inspect.record(lstm) as rec:
        lstm(torch.randn(100, 2, 2), lengths=[100, 50])
    labels = torch.randint(2, (100, 2))
    labels[50:, 1] = 7  # past the end
    labels[:3, 0] = 5  # too few
    labels[3:10, 0] = -1
    assert inspect.probe(rec[""].only, labels, held_out=0.5).classes == (0, 1)


def test_steps_past_a_sequences_end_have_no_label(sklearn):
    lstm = fusegen.nn.LSTM(2, 3)
    with torch.no_grad(), inspect.record(lstm) as rec:
        lstm(torch.randn(100, 2, 2), lengths=[100, 20])
    labels = torch.randint(2, (100, 2))
    labels[20:, 1] = 7  # on both sides of the cut, and often
    assert inspect.probe(rec[""].only, labels, held_out=0.5).classes == (0, 1)


def test_a_unit_counts_whatever_its_scale(sklearn):
    labels = torch.randint(2, (400,))
    values = torch.randn(400, 2)
    values[:, 0] += 8 * labels - 4
    wide, narrow = inspect.probe(values, labels), inspect.probe(values * torch.tensor([1e-4, 1.0]), labels)
    assert narrow.accuracy > 0.98
    assert (wide.weights - narrow.weights).abs().max() < 1e-3 * wide.weights.abs().max()


def test_a_probe_that_does_not_converge_warns_nobody(sklearn, monkeypatch):
    monkeypatch.setattr("fusegen.inspect.units.probes._ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inspect.probe(torch.randn(200, 3), torch.randint(2, (200,)))


# ---- colours ------------------------------------------------------------------------------------------


class Strict(HTMLParser):
    """Every element is closed, in order; texts and the styles they stand in are kept."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append((tag, dict(attrs).get("style", "")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.found.append((self.open[-1][1], data))


def test_text_is_coloured_from_blue_over_white_to_orange():
    found = inspect.coloured(list("ab<&\n"), torch.tensor([9.0, 9.0, -9.0, 0.0, 0.0]))
    assert found.values == pytest.approx([1, 1, -1, 0, 0], abs=1e-6)
    assert found.colours[0] == found.colours[1] == colour_of(1.0) != colour_of(-1.0) == found.colours[2]
    assert found.colours[3] == "#ffffff"
    parser = Strict()
    parser.feed(found.html)
    parser.close()
    assert parser.open == [] and "".join(text for _, text in parser.found) == "ab<&\u21b5\n"
    styles = {text: style for style, text in parser.found}
    assert colour_of(1.0) in styles["ab"] and colour_of(-1.0) in styles["<"]
    assert found._repr_html_() == found.html


@pytest.mark.parametrize(
    ("kind", "most", "values"),
    [
        ("cell", 1.0, [torch.tensor(0.5).tanh().item(), torch.tensor(-2.0).tanh().item(), 1]),
        ("signed", 4.0, [0.125, -0.5, 1]),
        ("share", 4.0, [0.125, 0, 1]),
    ],
)
def test_the_kinds_of_values(kind, most, values):
    found = inspect.coloured(["x", "y", "z"], [0.5, -2.0, 30.0], kind=kind, most=most)
    assert found.values == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("value", [-1.0, -0.5, 0.5, 1.0])
def test_black_text_can_be_read_on_every_colour(value):
    """Contrast as WCAG 2.1 defines it, at least 4.5."""
    parts = [int(colour_of(value)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    luminance = sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    assert (luminance + 0.05) / 0.05 >= 4.5


def test_what_a_terminal_or_a_browser_would_obey_is_shown_as_a_sign():
    html = inspect.coloured(["\x1b[31m", "\u202e", "\t"], [0.0, 0.0, 0.0]).html
    assert "\x1b" not in html and "\u202e" not in html and "\u21e5\t" in html


# ---- together, on a model -----------------------------------------------------------------------------


def test_a_model_of_bytes_from_recording_to_colours():
    text = "a “wörd”\n".encode() * 4
    model, vocabulary = (
        models.TextLSTM(embedding_size=4, hidden_size=5, num_layers=1).eval(),
        Vocabulary("byte"),
    )
    tokens = torch.tensor(list(text)).unsqueeze(1)
    with torch.no_grad(), inspect.record(model, "rnn") as rec:
        model(tokens)
    cell = rec["rnn"].c
    found = inspect.coloured(vocabulary.pieces(tokens[:, 0]), cell[:, 0, 2])
    assert "".join(found.pieces) == text.decode() and found.values == pytest.approx(
        cell[:, 0, 2].tanh().tolist()
    )
    assert inspect.drivers(rec["rnn"].only, tokens).effects.shape[1] == 5


# ---- bad input ----------------------------------------------------------------------------------------

V = torch.randn(6, 2, 3)
N = torch.zeros(6, 2, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: inspect.drivers([1.0], N), TypeError, "expected values as a Plane or a Tensor, got list"),
        (lambda: inspect.drivers(V[..., 0, 0], N), ValueError, r"expected values \[T, U\] or \[T, B, U\]"),
        (lambda: inspect.drivers(V.long(), N), ValueError, "of floats, none of them 0, got torch.int64"),
        (lambda: inspect.drivers(V, N.float()), TypeError, "expected tokens as a Tensor of integers"),
        (lambda: inspect.drivers(V, N[:5]), ValueError, r"expected tokens \[6, 2\], .*got \[5, 2\]"),
        (lambda: inspect.drivers(V, N[:, 0]), ValueError, r"expected tokens \[6, 2\], .*got \[6\]"),
        (lambda: inspect.drivers(V, N, array="c"), ValueError, "array: expected none for a Tensor, got 'c'"),
        (lambda: inspect.drivers(V[:1], N[:1]), ValueError, "expected two steps or more"),
        (lambda: inspect.drivers(V, N).most(3), ValueError, "unit: expected an integer from 0 to 2, got 3"),
        (lambda: inspect.text_labels("ab"), TypeError, "expected pieces as a sequence of texts"),
        (lambda: inspect.text_labels([1]), TypeError, "expected pieces as a sequence of texts"),
        (lambda: inspect.text_labels(["a"], width=0), ValueError, "width: expected an integer at least 1"),
        (lambda: inspect.coloured("ab", [1.0, 2.0]), TypeError, "expected pieces as a sequence of texts"),
        (
            lambda: inspect.coloured(["a"], [1.0, 2.0]),
            ValueError,
            "expected as many values as pieces, 1, got 2",
        ),
        (lambda: inspect.coloured(["a"], V), ValueError, r"expected values \[1\], got \[6, 2, 3\]"),
        (lambda: inspect.coloured(["a"], [float("nan")]), ValueError, "expected values that are finite"),
        (lambda: inspect.coloured(["a"], [1.0], kind="red"), ValueError, "kind: expected one of 'cell'"),
        (lambda: inspect.coloured(["a"], [1.0], most=0.0), ValueError, "most: expected a number above 0"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: inspect.probe(V, N), "expected labels of two classes or more.*got 0"),
        (lambda: inspect.probe(V, N, held_out=1.0), "held_out: expected a number above 0 and below 1"),
        (lambda: inspect.probe(V, N, most=3), "most: expected an integer at least 16, got 3"),
        (lambda: inspect.probe(V, N[:, :1]), r"expected labels \[6, 2\]"),
    ],
)
def test_what_a_probe_cannot_learn_from_is_named(sklearn, call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_recording_of_some_steps_is_refused():
    lstm = fusegen.nn.LSTM(2, 3)
    with torch.no_grad(), inspect.record(lstm, steps=[0, 2]) as rec:
        lstm(torch.randn(4, 1, 2))
    with pytest.raises(ValueError, match="expected a recording of all steps"):
        inspect.drivers(rec[""].only, torch.zeros(2, 1, dtype=torch.long))


@pytest.mark.parametrize("call", ["drivers", "probe"])
def test_what_does_not_fit_into_memory_is_refused_with_a_way_out(sklearn, monkeypatch, call):
    monkeypatch.setattr(held_values, "free_memory", lambda: 10)
    labels = torch.arange(200) % 2
    with pytest.raises(MemoryError, match=r"this takes 0\.0 GiB, and 0\.0 GiB are free: .*units=") as raised:
        getattr(inspect, call)(torch.randn(200, 3), labels)
    assert f"fusegen.inspect.{call}" in str(raised.value)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        inspect.probe(V, N)


def test_the_control_learns_from_shuffled_labels_and_is_measured_on_them(monkeypatch):
    from fusegen.inspect.units import probes

    seen, fitted = [], probes._fitted
    monkeypatch.setattr(
        probes, "_fitted", lambda x, y, unseen_x, told: seen.append((y, told)) or fitted(x, y, unseen_x, told)
    )
    torch.manual_seed(0)
    inspect.probe(torch.randn(200, 2, 3), torch.randint(2, (200, 2)))
    for own, shuffled in zip(*seen, strict=True):
        assert not torch.equal(own, shuffled) and torch.equal(own.sort().values, shuffled.sort().values)
