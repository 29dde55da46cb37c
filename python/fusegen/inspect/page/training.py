"""How a run went, for any page: its curves and its measures."""

from __future__ import annotations

from typing import Any

from ... import drawing
from ...drawing.curves import SIGNAL
from ...train.task import Task
from .html import Page
from .subject import Subject, without_folders

_NAMES = {
    "text": "a language model",
    "vae": "a variational autoencoder of images",
    "seqvae": "a variational autoencoder of texts",
    "seq2seq": "a model from one text to another",
    "gan": "a GAN",
}


def heading(subject: Subject) -> Page:
    """A page with its title, and what the run is."""
    run = subject.run
    page = Page(f"What “{run.folder.resolve().name}” has learnt")
    page.begins = subject.say
    page.begins("the run")
    source = str(run.sections["data"].data or subject.task.source.name)
    parameters = sum(p.numel() for p in subject.model.parameters())
    facts = [
        ("task", f"{run.task_name}: {_NAMES.get(run.task_name, run.task_name)}"),
        ("model", f"{type(subject.model).__name__}, {parameters:,} weights"),
        ("data", without_folders(source, source)),
        ("checkpoint", f"step {subject.state['step']:,} of {run.sections['fit'].steps:,}"),
    ]
    measured = [line for line in subject.log if "lr" not in line and line["step"] <= subject.state["step"]]
    if measured:
        figures = {name: x for name, x in measured[-1].items() if name not in ("step", "seconds")}
        facts += [(name, f"{value:.4g}") for name, value in list(figures.items())[:3]]
    page.facts(facts)
    if subject.absent:
        page.say(
            f"The run's data are not at hand ({subject.absent}), so this page is made of what its folder "
            "keeps and of what the model itself writes or draws."
        )
    return page


def show_curves(page: Page, subject: Subject) -> None:
    """The log, if it holds anything."""
    lines = subject.log
    figures = [name for line in lines for name in line if name not in ("step", "seconds", "lr")]
    if not figures:
        page.section("How it was trained", "The run's log is empty, so there are no curves to show.")
        return
    page.section("How it was trained")
    first = _measure(lines)
    task: type[Task] = type(subject.task)
    direction = "falls" if task.better == "lower" else "rises"
    shown = {
        "alt": f"Curves of the run's measures and losses by step. {first}".strip(),
        "shows": "The measures on held-out data or on samples, then losses and what else was logged, by "
        "step.",
        "bad": "a measure that turns round and gets worse while the loss still falls: it learns by heart; "
        "or curves that leap about.",
    }
    if subject.run.task_name == "gan":
        shown["good"] = f"the first measure {direction} and settles; the two losses keep each other in check."
    else:
        shown["good"] = f"the first measure {direction}, quickly at first, and is flat at the end."
    if noticed := _noticed(lines):
        first = f"{first} While it trained, it gave signs of {noticed}; those steps are shaded.".strip()
    page.picture(drawing.training_figure(lines, columns=1), here=first, **shown)


def _noticed(lines: list[dict[str, Any]]) -> str:
    """The signals that stood at some step, in words."""
    names = dict.fromkeys(name for line in lines for name, x in line.items() if name.startswith(SIGNAL) and x)
    return " and of ".join(name.removeprefix(SIGNAL) for name in names)


def _measure(lines: list[dict[str, Any]]) -> str:
    """The first measure, first and last."""
    measured = [line for line in lines if "lr" not in line]
    names = [name for name in (measured[0] if measured else {}) if name not in ("step", "seconds")]
    if not names:
        return ""
    found = [line for line in measured if names[0] in line]
    begin, end = found[0], found[-1]
    return (
        f"{names[0]} went from {begin[names[0]]:.4g} at step {begin['step']:,} to {end[names[0]]:.4g} "
        f"at step {end['step']:,}."
    )
