"""``fusegen.inspect.explain``."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable
from pathlib import Path

import torch

from ... import _backend, drawing
from ...train import files
from ...train.errors import typed
from ...train.run import Run
from .html import Page
from .subject import Subject, open_subject

_WHAT = "fusegen.inspect.explain"
NAME = "explain.html"

# task: (module, function) of its page; imported when it is asked for
_PAGES = {
    "text": ("text", "text_page"),
    "vae": ("vae", "vae_page"),
    "seqvae": ("seqvae", "seqvae_page"),
    "seq2seq": ("seq2seq", "seq2seq_page"),
    "gan": ("gan", "gan_page"),
}


def explain(
    run: Run | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str = "best",
    layer: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Writes a page about what a run has learnt: one HTML file that needs nothing else, no network and no
    scripts, with pictures that each say what they show and what would be good or bad.

    It is made from the run's folder, of any task: of what the model writes or draws, and of what the folder
    keeps of its data. Where the data that the run was trained on are at hand too (those that come with Python
    packages, or files that are where they were), the page reads them, for held-out text, probes and nearest
    neighbours; without them it says so. The same run gives the same page. It runs on the CPU.

    Args:
        run: a run's folder, or a ``fusegen.train.Run``. Nothing in it is changed, but for the page.
        out: the file, which ends in .html or .htm; RUN/explain.html if None. Written whole or not at all;
            one that is there is replaced.
        checkpoint: "best", "last", a step, or a file.
        layer: the layer whose units are shown, by its name in the model; None shows all recurrent layers, or
            of dense and convolutional generators the last inner one.
        say: is told the title of each section when it is begun: a long text takes minutes. None tells nobody.

    Returns the file's path. Raises OSError or ValueError (``CheckpointError`` among them) for a run or a
    checkpoint that cannot be used, an ``out`` that cannot be written, and a layer that does not exist,
    naming the nearest;
    ModuleNotFoundError, saying what to install, without matplotlib; ``NotFiniteError`` where the model gives
    no numbers; MemoryError or ``fusegen.train.errors.NotEnoughMemory`` where what it makes does not fit.
    """
    drawing.check()
    opened = run if isinstance(run, Run) else Run.open(Path(run))
    path = _writable(opened.folder / NAME if out is None else Path(out))
    module, name = _PAGES[opened.task_name]
    # gates are those of the fused kernels
    with _backend.fused_alone(), typed(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same page each time, whatever a library draws
        subject = open_subject(opened, checkpoint, layer)
        subject.say = say or subject.say
        make: Callable[[Subject], Page] = getattr(importlib.import_module(f".{module}", __package__), name)
        page = make(subject)
    from ... import __version__

    page.end(
        f"Made by fusegen {__version__} (fusegen explain). docs/inspect.md says how each figure is read."
    )
    files.write(path, page.html)
    return path


def _writable(path: Path) -> Path:
    """Raises OSError or ValueError where the page could not be written: before a minute's work, not after."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out: expected a file that ends in .html, got {str(path)!r}")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"out: cannot write {path}: {os.strerror(errno.EISDIR)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"out: cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            errno.EACCES, f"out: cannot write {path}: {os.strerror(errno.EACCES)} in {path.parent}"
        )
    return path
