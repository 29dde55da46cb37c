"""The part of a GAN's page that is about series and sounds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .... import drawing
from ....train.tasks.gan.units import units_of
from ...generators import input_gradient, interpolation, unit_effects
from ...recording import record
from ..html import Page
from ..recurrent import planes_of, recurrent_names, show_units
from ..subject import Subject, fitting
from .beside_data import compared, drawn_count, show_nearness

_WAY = 5  # steps from one noise to another
_FEW = 64  # samples that gates and gradients are read of, at most
_BARS = 16
_UNITS, _RUN = 256, 2_000_000  # units that are silenced, and steps that are run for it, at most


def layer_of(subject: Subject) -> str:
    """The recurrent layer whose units are silenced: by default the generator's."""
    return subject.chosen(["generator.rnn", "discriminator.rnn"])[0]


def labels_of(subject: Subject, count: int) -> Tensor | None:
    """Classes in turn, of a model that has some."""
    K = subject.model.num_classes
    return torch.arange(count) % K if K else None


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def few(subject: Subject) -> int:
    """So many samples as give little to hold, of gates and states in both networks."""
    model = subject.model
    hidden = model.generator.rnn.hidden_size * model.generator.rnn.num_layers
    return fitting(_FEW, 4 * subject.task.source.steps * (3 * 7 * hidden + 2 * model.features), least=2)


def show(page: Page, subject: Subject, layer: str) -> None:
    model = subject.model
    count = drawn_count(subject.task.source.steps * model.features)
    drawn = model.sample(count, labels=labels_of(subject, count), generator=random(0)).float()
    page.section("What it draws")
    _show_drawn(page, subject, drawn)
    _show_ways(page, subject)
    page.section("Whether it copies")
    near = compared(subject, drawn)
    show_nearness(
        page,
        subject,
        near[0] if near else None,
        "the difference of their values, step by step, as they are learnt",
    )
    page.section("What single units do")
    show_units_heard(page, subject, layer)
    page.section("Where the discriminator looks")
    _show_gradient(page, subject, drawn)
    page.section("How it remembers")
    show_layers(page, subject, drawn)


def _show_drawn(page: Page, subject: Subject, drawn: Tensor) -> None:
    source = subject.task.source
    told = units_of(source.name, source.features)
    values = _in_units(subject, drawn[:, : drawing.LINES])
    page.picture(
        drawing.series_figure(
            values,
            source.examples,
            features=source.features,
            units=told.features,
            step=told.step,
            source=f"the data: {Path(source.name).name}",
            width=drawing.NARROW,
        ),
        alt=f"{drawing.LINES} drawn sequences of {values.shape[0]} steps, a panel for each of "
        f"{len(source.features)} features, beside as many of the data.",
        shows="Sequences that were drawn, and some of the data where the run keeps them, a colour each and "
        "on "
        "one scale, in the units of the data.",
        good="the two sides cannot be told apart: the same range, roughness and shapes.",
        bad="drawn ones that are all alike, smoother or rougher than the data, or beyond their range.",
    )


def _in_units(subject: Subject, drawn: Tensor) -> Tensor:
    source = subject.task.source
    scaled = drawn if source.form is None else source.form.inverse(drawn, None)
    values: Tensor = source.low + (scaled.double() + 1) / 2 * (source.high - source.low)
    return values


def _show_ways(page: Page, subject: Subject) -> None:
    model, source = subject.model, subject.task.source
    first, last = (model.noise(1, generator=random(seed)) for seed in (2, 3))
    ways = interpolation(model, first, last, _WAY, labels=labels_of(subject, 1))[:, 0]
    values = _in_units(subject, ways)[..., 0]
    steps = list(range(len(values)))
    curves = {f"{i + 1} of {_WAY}": (steps, values[:, i].tolist()) for i in range(_WAY)}
    moved = (values[:, 1:] - values[:, :-1]).abs().mean(0)
    page.picture(
        drawing.lines_figure(
            curves,
            title="From one noise to another",
            x=units_of(source.name, source.features).step,
            y=source.features[0],
        ),
        alt=f"{_WAY} sequences of the feature {source.features[0]}, from one noise to another in equal "
        f"steps.",
        shows=f"The noise goes from one to another in {_WAY} equal steps; the first feature of what is drawn "
        "on the way.",
        good="curves that change evenly from the first to the last.",
        bad="two bundles with a gap between (a few sequences learnt by heart), or curves that do not change: "
        "the noise is not used.",
        here=f"a step of the way moves a value by {moved.mean().item():.3g} on average; the largest step "
        f"moves it by {moved.max().item():.3g}.",
    )


def show_units_heard(page: Page, subject: Subject, layer: str) -> None:
    """How much each unit of a recurrent layer changes what is drawn, or what the discriminator says."""
    model = subject.model
    steps = subject.task.source.steps
    count = max(2, min(few(subject), _RUN // (16 * steps)))
    noise, labels = model.noise(count, generator=random(1)), labels_of(subject, count)

    def make() -> Tensor:
        made: Tensor = model.sample_of(noise, labels, generator=random(4))
        if model.vocab_size is not None:
            made = torch.nn.functional.one_hot(made, model.vocab_size).float() * model.vocab_size / 2
        return made

    units = model.get_submodule(layer).hidden_size
    most = max(16, min(_UNITS, _RUN // (count * steps)))
    some = None if units <= most else torch.linspace(0, units - 1, most).long().tolist()
    if layer.startswith("discriminator"):
        samples = model.critic_input(model.sample_of(noise, labels, generator=random(4)), labels)
        found = unit_effects(model, lambda: model.discriminator(samples).unsqueeze(1), layer, some)
        what = "the discriminator's verdict"
    else:
        found = unit_effects(model, make, layer, some, sample_dim=1)
        what = "what is drawn" if model.vocab_size is None else "which characters are drawn"
    order = found.strongest()[:_BARS]
    total = found.change.sum().item()
    share = found.change[order[:4]].sum().item() / total if total else 0.0
    page.picture(
        drawing.bars_figure(
            {"change": [found.change[row].item() for row in order]},
            [f"unit {found.units[row]}" for row in order],
            title="What changes without a unit",
            value=f"mean change of {what}",
        ),
        alt=f"Bars of how much {what} changes without each of the {len(order)} units of {layer} that matter "
        "most.",
        shows=f"Each unit of {layer} is silenced alone, and the same noise is run again (Bau et al. 2019). "
        f"The units that change {what} most are on top.",
        good="a slope: the work is shared out, and no unit does all of it.",
        bad="one long bar and nothing else; or no change at all: the layer is not used.",
        here=f"the four strongest of {len(found.units)} units make {100 * share:.0f} % of all change.",
    )


def _show_gradient(page: Page, subject: Subject, drawn: Tensor) -> None:
    """|gradient| by step and feature, of the data where they are at hand and of what is drawn."""
    features = subject.task.source.features
    count = min(few(subject), drawn.shape[1])
    sides = {"drawn": (drawn[:, :count], labels_of(subject, drawn.shape[1]))}
    if subject.data is not None:
        data = subject.data.source
        rows = torch.linspace(0, len(data) - 1, min(count, len(data))).long()
        batch = data.batch(rows)
        sides["the data"] = (batch["real"], batch.get("labels") if subject.model.num_classes else None)
    for name, (x, labels) in sides.items():
        told = None if labels is None else labels[: x.shape[1]]
        gradient = input_gradient(subject.model, x, told).abs().mean(1).T  # [F, T]
        named = list(features) if len(features) == len(gradient) else [str(i) for i in range(len(gradient))]
        last = gradient[:, gradient.shape[1] // 2 :].sum().item() / max(gradient.sum().item(), 1e-12)
        page.picture(
            drawing.heat_figure(
                gradient,
                title=f"How much each value counts: {name}",
                x=units_of(subject.task.source.name, features).step,
                rows=named,
                label="mean |gradient|",
            ),
            alt=f"Map of the size of the gradient of the discriminator's verdict by feature and step, the "
            f"mean "
            f"over {x.shape[1]} sequences of {name}.",
            shows="How much the discriminator's verdict would change if one value at one step were another: "
            f"the mean over {x.shape[1]} sequences ({name}). Values are as the networks see them.",
            good="some shade everywhere: all steps and features count.",
            bad="one dark column or row: the verdict rests on a single step or feature, and the generator "
            "learns nothing of the rest.",
            here=f"the second half of the steps makes {100 * last:.0f} % of it.",
        )


def show_layers(page: Page, subject: Subject, drawn: Tensor) -> None:
    """The gates of both networks, or of the layer asked for, while they draw and judge."""
    model, count = subject.model, min(few(subject), drawn.shape[1])
    labels = labels_of(subject, count)
    layers = [subject.layer] if subject.layer else recurrent_names(model)
    with torch.no_grad(), record(model, layers) as recording:
        model.sample_of(model.noise(count, generator=random(1)), labels, generator=random(4))
        model.discriminator(model.critic_input(drawn[:, :count], labels))
    show_units(page, planes_of(recording))
