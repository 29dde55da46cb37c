"""The page of a text model: what it is surprised by, cells that mean something, what can be read off them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import drawing
from ..dynamics import ablate, time_constants
from ..recording import Plane, Recording, record
from ..units import coloured, drivers, probe, text_labels
from ..units.drivers import Driver, Drivers
from .html import Cell, Page
from .recurrent import (
    SIGNED_KEY,
    SURPRISE_KEY,
    embedded,
    planes_of,
    recurrent_names,
    show_reach,
    show_units,
    show_unknown,
    surprise,
)
from .subject import Subject, fitting
from .training import heading, show_curves

_LANES, _STEPS = 8, 2000  # of held-out text that is read
_SHORTEST = 20  # tokens of a stretch of text that is worth a look
_WRITTEN = 3000  # tokens that the model writes where no text is at hand
_EXCERPT = 600  # tokens of a coloured text
_REACH = 200  # steps over which a gradient is followed back
# Steps that probes learn from, and numbers in them, at most; fewer steps than the least tell nothing.
_PROBED, _PROBED_VALUES, _LEAST_PROBED = 3000, 1_500_000, 1000
_LOSS = 500  # steps by which the loss without a cell is read
_SIGNS = {"\u2423": "a space", "\u21b5": "the end of a line", "\u21e5": "a tab"}
# What a vocabulary's tokens are, for a reader who does not know the word.
_KINDS = {
    "byte": "Here a token is a byte: a letter, a sign or a space.",
    "character": "Here a token is a character: a letter, a sign or a space.",
    "word": "Here a token is a word, a sign, or the white space between two of them.",
    "tokenizer": "Here a token is a word or a part of one.",
    "ids": "Here a token is a number.",
}
_TASKS = {
    "line position": "where in the line (tens of characters)",
    "inside quotes": "inside quotes or not",
    "indentation": "how far the line is indented",
}


@dataclass
class Reading:
    """A text as the model read it. tokens, bits [T, B]: what was read at each step, and how surprising
    it was; pieces [B][T]; labels [T, B] by name, empty for tokens that are no text; own: whether the
    model wrote it itself; bytes: whether tokens are bytes."""

    tokens: Tensor
    pieces: list[list[str]]
    labels: dict[str, Tensor]
    bits: Tensor
    recording: Recording
    own: bool
    bytes: bool

    @cached_property
    def planes(self) -> dict[str, Plane]:
        return planes_of(self.recording)

    @cached_property
    def drivers(self) -> dict[str, Drivers]:
        """Of each plane."""
        return {name: drivers(plane, self.tokens) for name, plane in self.planes.items()}

    @cached_property
    def cells(self) -> list[tuple[str, str, int, str]]:
        """Those that are shown: (what it is chosen for, the plane's name, the unit, how well it does)."""
        return _cells(self)

    def loss(self, subject: Subject) -> float:
        """Bits a token, of the first steps."""
        with torch.no_grad():
            tokens = self.tokens[:_LOSS]
            logits, _ = subject.model(tokens)
            return _bits(logits[:-1], tokens[1:]).mean().item()


def text_page(subject: Subject) -> Page:
    layers = subject.chosen(recurrent_names(subject.model))
    page = heading(subject)
    show_curves(page, subject)
    read = _read(subject, layers)
    whose = "it wrote itself" if read.own else "held out, which it never learnt from"
    page.section("What it expects, and what surprises it")
    _show_surprise(page, subject, read, whose)
    page.section(
        "Cells that mean something",
        "A cell is a number that the model carries along while it reads. Most mean nothing that can be said "
        "in words. Of the ones shown here it can be said: what a cell follows is named below its text.",
    )
    _show_cells(page, subject, read)
    _show_drivers(page, read)
    page.section("What can be read off its state")
    _show_probes(page, read)
    page.section("How it remembers")
    show_units(page, read.planes)
    rnn = subject.model.get_submodule(layers[-1])
    x = embedded(rnn, lambda: subject.model(read.tokens[:_REACH, :4]))
    show_reach(page, rnn, x)
    return page


def _read(subject: Subject, layers: Sequence[str]) -> Reading:
    model, task = subject.model, subject.task
    tokens, pieces, labels, own = _text(subject)
    with torch.no_grad(), record(model, layers) as recording:
        logits, _ = model(tokens)
    bits = F.pad(_bits(logits[:-1], tokens[1:]), (0, 0, 1, 0))  # of each token, given those before
    return Reading(
        tokens,
        pieces,
        {} if task.vocabulary.kind == "ids" else labels,
        bits=bits,
        recording=recording,
        own=own,
        bytes=task.vocabulary.kind == "byte",
    )


def _bits(logits: Tensor, targets: Tensor) -> Tensor:
    nats = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return nats.view(targets.shape) / math.log(2)


def _text(subject: Subject) -> tuple[Tensor, list[list[str]], dict[str, Tensor], bool]:
    """(tokens [T, B], pieces [B][T], labels [T, B], whether the model wrote it)."""
    vocabulary = subject.task.vocabulary
    own = subject.data is None or len(subject.data.held_out) < _SHORTEST
    lanes = _LANES if own else min(_LANES, len(subject.data.held_out) // _SHORTEST)
    steps = _room(subject, lanes)
    if own:
        lanes, steps = 1, min(_WRITTEN, lanes * steps)
        flat = _written(subject, steps)
    else:
        flat = subject.data.held_out.long()
    steps = min(steps, len(flat) // lanes)
    flat = flat[: steps * lanes]
    pieces = vocabulary.pieces(flat)
    labels = text_labels(pieces, begun=own)
    rows = [pieces[b * steps : (b + 1) * steps] for b in range(lanes)]
    return (
        flat.view(lanes, steps).T.contiguous(),
        rows,
        {name: each.view(lanes, steps).T.contiguous() for name, each in labels.items()},
        own,
    )


def _room(subject: Subject, lanes: int) -> int:
    """How many steps of so many lanes are read, so that what is recorded of them stays small."""
    model = subject.model
    each = lanes * (6 * model.hidden_size * model.num_layers + model.vocab_size) * 4
    return fitting(_STEPS, each, least=2)


def _written(subject: Subject, count: int) -> Tensor:
    """What the model itself writes, with a prompt of a token: it has no other text."""
    kind = subject.task.vocabulary.kind
    start = subject.task.vocabulary.encode("\n") if kind in ("byte", "character", "word") else torch.zeros(0)
    prompt = start.long()[:1] if len(start) else torch.zeros(1, dtype=torch.long)
    return torch.cat([prompt, subject.model.generate(prompt, count - 1, 0.8, seed=0)])


def _show_surprise(page: Page, subject: Subject, read: Reading, whose: str) -> None:
    b, begin, end = _excerpt(read, read.bits)
    kind = subject.task.vocabulary.kind
    inside = ("words get lighter towards their end, and ", ", or dark inside of common words")
    inside = inside if kind in ("byte", "character") else ("", "")
    token = _KINDS.get(kind, "")
    ends = (
        " \u21b5 is the end of a line." if any("\n" in piece for piece in read.pieces[b][begin:end]) else ""
    )
    mean = read.bits[1:].mean().item()
    page.coloured(
        surprise(read.pieces[b][begin:end], read.bits[begin:end, b]),
        key=SURPRISE_KEY,
        shows=(
            f"A stretch of text {whose}. The darker a token, the less the model expected it after what "
            f"stands before: a bit is a factor of 2 in its chance. {token}{ends}"
        ).strip(),
        good=f"{inside[0]}what the text repeats is light; names and turns of thought stay dark.",
        bad=f"the same shade everywhere{inside[1]}.",
        here=f"{mean:.3g} bits a token on average; a guess among all tokens would be "
        f"{math.log2(max(2, _classes(read))):.3g}.",
    )
    show_unknown(page, read.pieces[b][begin:end])


def _classes(read: Reading) -> int:
    return len(read.tokens.unique())


def _excerpt(read: Reading, values: Tensor) -> tuple[int, int, int]:
    """(lane, begin, end): the stretch in which values [T, B] move most, from the begin of a line on where
    there is one near."""
    T, B = values.shape
    length = min(_EXCERPT, T)
    starts = range(0, T - length + 1, max(1, length // 3))
    b, begin = max(
        ((b, t) for b in range(B) for t in starts),
        key=lambda at: values[at[1] : at[1] + length, at[0]].double().std(correction=0).item(),
    )
    lines = [t + 1 for t in range(begin, min(begin + length // 3, T - length)) if "\n" in read.pieces[b][t]]
    begin = lines[0] if lines else begin
    return b, begin, begin + length


def _show_cells(page: Page, subject: Subject, read: Reading) -> None:
    before = read.loss(subject)
    shown: set[tuple[str, int]] = set()
    for what, name, unit, told in read.cells:
        if (name, unit) in shown:
            continue
        shown.add((name, unit))
        plane = read.planes[name]
        values, kind = _values(plane)
        own = values[..., unit]
        b, begin, end = _excerpt(read, own)
        with ablate(subject.model, unit, plane.name, layer=plane.layer, direction=plane.direction):
            rise = read.loss(subject) - before
        page.coloured(
            coloured(read.pieces[b][begin:end], own[begin:end, b], kind=kind),
            key=SIGNED_KEY,
            shows=f"Unit {unit} of {name}: {what}. The background is what the cell holds once it has read "
            "that far (Karpathy et al. 2015).",
            good="colour that changes where the meaning does, and holds in between.",
            bad="colour that flickers with every letter, or never changes.",
            here=f"{told} Without this cell a token costs {before + rise:.3f} bits in place of {before:.3f}.",
        )


def _values(plane: Plane) -> tuple[Tensor, str]:
    """What is coloured, [T, B, U], and how."""
    return (plane.c, "cell") if "c" in plane.arrays else (plane.h, "signed")


def _cells(read: Reading) -> list[tuple[str, str, int, str]]:
    """As ``Reading.cells``."""
    found = []
    for label, what in (
        ("inside quotes", "of all, it tells best whether the text is inside quotation marks"),
        ("line position", "of all, it goes along best with how far the line has come"),
        ("indentation", "of all, it goes along best with how far the line is indented"),
    ):
        best = _best(read, label)
        if best is not None:
            name, unit, r = best
            found.append((what, name, unit, f"The two go together with a correlation of {r:.2f}."))
    keeping = {name: plane for name, plane in read.planes.items() if plane._keeps is not None}
    if keeping:
        steps = {name: time_constants(plane).nan_to_num(0, 0, 0) for name, plane in keeping.items()}
        name = max(steps, key=lambda each: steps[each].max().item())
        unit = int(steps[name].argmax())
        told = f"It keeps what it holds for about {steps[name][unit].item():.3g} steps."
        found.append(("of all, it lets go most slowly", name, unit, told))
    else:
        name, last = list(read.drivers.items())[-1]
        share = last.share
        told = f"What it just read explains {100 * share.max().item():.0f} % of how it changes."
        found.append(("of all, it follows most closely what was just read", name, int(share.argmax()), told))
    return found


def _best(read: Reading, label: str) -> tuple[str, int, float] | None:
    """(plane, unit, correlation) of the unit that goes along with a label most; None where the label says
    nothing here."""
    if label not in read.labels:
        return None
    live = read.labels[label] >= 0
    y = read.labels[label][live].double()
    if len(y) < 100 or not (y != y[0]).any():
        return None
    y = (y - y.mean()) / y.std()
    best: tuple[str, int, float] | None = None
    for name, plane in read.planes.items():
        x = _values(plane)[0][live].double().tanh()
        x = (x - x.mean(0)) / x.std(0).clamp(min=1e-9)
        r = (x * y.unsqueeze(1)).mean(0)
        unit = int(r.abs().argmax())
        if best is None or r[unit].abs().item() > abs(best[2]):
            best = name, unit, r[unit].item()
    return best


def _show_drivers(page: Page, read: Reading) -> None:
    """A table of what drives the chosen cells, and how much of each unit's change is the token just read."""
    found, text_of = read.drivers, _texts(read)
    rows: list[tuple[Cell, ...]] = []
    for name, unit in dict.fromkeys((name, unit) for _, name, unit, _ in read.cells):
        up, down = found[name].most(unit, top=6)
        rows.append((f"unit {unit} of {name}", *(_said(side, text_of) for side in (up, down))))
    told = "".join(text for row in rows for side in row[1:] if isinstance(side, tuple) for text in side)
    signs = [f"{sign} is {what}" for sign, what in _SIGNS.items() if sign in told]
    signs += ["# and a number is a byte that is no character by itself"] if read.bytes and "#" in told else []
    page.say(
        "What drives these cells: tokens that raise or lower the cell most in the step that reads them."
        + (f" {', '.join(signs)}." if signs else "")
    )
    page.table(("cell", "raised by", "lowered by"), rows)
    share = torch.cat([each.share for each in found.values()])
    page.picture(
        drawing.distribution_figure(
            {name: each.share.tolist() for name, each in found.items()},
            title="How much of a unit's change is what it just read",
            x="share of its variance",
        ),
        alt=f"Distribution over {len(share)} units of the share of their changes that the token just read "
        f"explains; the middle one is {share.median().item():.2f}.",
        shows="For each unit, how much of its movement from step to step follows from the token just read "
        "alone. The rest comes from what was read before.",
        good="lower layers to the right (they take in tokens), upper ones to the left (they go by context).",
        bad="all units near 1: the layer only repeats its input; all near 0: it hardly reads it.",
        here=f"half of the units are above {100 * share.median().item():.0f} %.",
    )  # fmt: skip


def _texts(read: Reading) -> dict[int, str]:
    """The text of each token; of a byte that is no character its number."""
    found: dict[int, str] = {}
    for b, row in enumerate(read.pieces):
        for token, piece in zip(read.tokens[:, b].tolist(), row, strict=True):
            whole = piece and (not read.bytes or token < 128)
            found.setdefault(token, piece.strip() or piece if whole else f"#{token}")
    return found


def _said(side: Sequence[Driver], text_of: dict[int, str]) -> Cell:
    return tuple(_visible(text_of[each.token]) for each in side) or "nothing read often enough"


def _visible(text: str) -> str:
    shown = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}  # the signs of _SIGNS
    return "".join(shown.get(c, c if c.isprintable() else "\N{REPLACEMENT CHARACTER}") for c in text)


def _show_probes(page: Page, read: Reading) -> None:
    found, why = {}, ""
    states = torch.cat([plane.h for plane in read.planes.values()], -1)
    most = max(_LEAST_PROBED, min(_PROBED, _PROBED_VALUES // states.shape[-1]))
    for label, what in _TASKS.items() if read.labels else ():
        try:
            found[what] = probe(states, read.labels[label], most=most)
        except ModuleNotFoundError as error:
            why = str(error)
        except ValueError:
            why = why or "the text has too few lines, quotation marks or indented lines to learn from"
    if not found:
        page.say(f"Nothing was probed: {why or 'the tokens are numbers, which have no text'}.")
        return
    accuracy, control = ([getattr(p, name) for p in found.values()] for name in ("accuracy", "control"))
    told = "; ".join(
        f"{what}: {100 * p.accuracy:.0f} %, {100 * p.control:.0f} % shuffled" for what, p in found.items()
    )
    page.picture(
        drawing.bars_figure(
            {
                "the state": [100 * x for x in accuracy],
                "shuffled": [100 * x for x in control],
                "a guess": [100 * p.chance for p in found.values()],
            },
            [_wrapped(what) for what in found],
            title="What a linear map reads off h",
            value="% right on text not learnt from",
        ),
        alt=f"Bars of the accuracy of linear probes beside the same on shuffled labels. {told}.",
        shows="A simple map from the state to an answer (logistic regression) learns from one part of the "
        "text and is asked on another. Each answer is as frequent as the others, so that a guess is the "
        "third bar. The second bar is the same map taught with shuffled answers.",
        good="the first bar well above the other two: the state holds the answer where it can be used.",
        bad="the first bar no higher than the second: whatever the map learnt, it learnt by heart.",
        here=f"{told}.",
    )


def _wrapped(what: str) -> str:
    words = what.split(" (")[0].split()
    half = -(-len(words) // 2)
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])
