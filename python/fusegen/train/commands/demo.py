"""`fusegen demo`: a text LSTM learns real English here and now, timed beside the same model on torch.nn."""

import argparse
import sys
from dataclasses import asdict
from time import perf_counter

import torch

from ... import get_backend
from ..._backend import cpu_rule
from ..._info import told
from ...data import Text, pydocs, read_text
from ..compare import Comparison
from ..config import check_idle, given
from ..errors import NotEnoughMemory, typed
from ..loop import History, fit
from ..options import FitOptions, add_flags, from_flags
from ..tasks.text import BITS, TextData, TextOptions, TextTask
from .refusal import as_flag, refuse

PROMPT, SAMPLE, TEMPERATURE = b"The ", 400, 0.7

_ABOUT = """Trains a byte-level text model, printing held-out bits per character as they fall, a sample of
what it writes, and the time per training step beside the same model on torch.nn. Nothing is downloaded."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _ABOUT
    parser.add_argument(
        "--text", metavar="PATH", help="a text file, or a folder of them (default: Python's own)"
    )
    add_flags(parser, TextOptions, given_only=True)
    add_flags(parser, FitOptions, given_only=True)


def run(parsed: argparse.Namespace) -> int:
    try:
        model, how = from_flags(TextOptions, parsed), from_flags(FitOptions, parsed)
        sections = {"model": model, "data": TextData(), "fit": how}
        check_idle(TextTask, sections, given(parsed, sections))
    except ValueError as error:
        return refuse(parsed, as_flag(error, parsed))
    try:
        text = pydocs() if parsed.text is None else read_text(parsed.text, argument="--text")
        with typed():
            demo = Demo(text, model, how, argument="--text")
    except (OSError, ValueError) as error:
        return refuse(parsed, as_flag(error, parsed))
    except ModuleNotFoundError as error:
        return refuse(parsed, f"{error}: this Python came without its documentation; give --text PATH")
    except NotEnoughMemory:
        return refuse(parsed, "this model does not fit into memory; a smaller --hidden or --embedding would")
    try:
        demo.run()
    except FloatingPointError as error:
        print(f"fusegen demo: {error}", file=sys.stderr)
        return 1
    return 0


class Demo:
    """A new model, the text it will learn, and a twin on torch.nn to time it against.

    Raises ValueError, naming `argument`, for a text too short for one training step.
    """

    def __init__(self, text: Text, options: TextOptions, how: FitOptions, *, argument: str = "text"):
        self.text, self.options, self.how = text, options, how
        torch.manual_seed(how.seed)
        self.task = TextTask.make(text, options, argument=argument)
        self.comparison = Comparison.with_torch_nn(self.task.model, how.lr)

    def run(self) -> History:
        """Trains, prints what is seen, and returns the measures taken on the way."""
        self._introduce()
        start = perf_counter()
        history = fit(self.task, self.how, comparison=self.comparison)
        seconds = perf_counter() - start
        self._show_sample()
        self._conclude(history, seconds)
        return history

    def _introduce(self) -> None:
        text, options = self.text, self.options
        weights = sum(p.numel() for p in self.task.model.parameters())
        print(f"text      {text.name}, {len(text):,} bytes; the last 10 % are held out, never trained on")
        for note in text.notes:
            print(f"          {note}")
        for left_out in text.skipped:
            print(f"          left out: {left_out}")
        print(
            f"model     {options.layers}-layer {options.cell.upper()} over bytes, {options.hidden} units, "
            f"{weights:,} weights"
        )
        print(
            f"training  {self.how.steps} steps of {options.batch} x {options.chunk} bytes, "
            f"{torch.get_num_threads()} thread(s)\n",
            flush=True,
        )

    def _show_sample(self) -> None:
        sample = self.task.model.generate(PROMPT, SAMPLE, temperature=TEMPERATURE, seed=self.how.seed)
        assert isinstance(sample, bytes)  # as the prompt is
        print(f"\nIt now writes, begun with {PROMPT.decode()!r} (temperature {TEMPERATURE}):\n")
        print(_quoted(PROMPT + sample))

    def _conclude(self, history: History, seconds: float) -> None:
        print(f"\nSeen in {seconds:.0f} s:")
        print("\n".join(f"  {line}" for line in [*_learnt(history), *self._timed()]))
        print(
            "\nfusegen demo --text PATH does this with your own text; fusegen info says what runs, and why."
        )

    def _timed(self) -> list[str]:
        times = self.comparison
        if not times.ours:
            return ["too few steps to time one beside torch.nn"]
        ours, theirs = (1e3 * each for each in times.medians())
        # With dropout the two draw different masks.
        drawn = [value for name, value in asdict(self.options).items() if "drop" in name]
        equal = "" if any(drawn) else f"; the losses differ by at most {times.loss_difference:.0e}"
        return [
            f"a training step: {ours:.1f} ms on fusegen, {theirs:.1f} ms on torch.nn: {theirs / ours:.2f}x",
            f"  medians of {len(times.ours)} steps each, in turn, from the same weights on the same bytes;",
            f"  forward, backward and Adam; backend {get_backend()!r}{equal}",
            *self._left_to_torch(),
        ]

    def _left_to_torch(self) -> list[str]:
        """Whether "auto" gave the layers of a training step to torch."""
        rnn, how = self.task.model.rnn, self.options
        x = next(rnn.parameters())
        if get_backend() != "auto" or not x.is_cpu:
            return []
        rule = cpu_rule(how.cell, rnn.input_size, rnn.hidden_size, how.batch, how.chunk, x.dtype, train=True)
        return [f"  'auto' ran torch's own layers here: {told(rule)}"] if rule else []


def _learnt(history: History) -> list[str]:
    before, after = history[0][1][BITS], history[-1][1][BITS]
    lines = [f"{BITS}: {before:.2f} before training, {after:.3f} now"]
    lowest, step = min((bits[BITS], step) for step, bits in history[1:])
    if lowest < after - 0.05:
        lines += [
            f"  lowest, {lowest:.3f}, at step {step}: from then on it learnt the text by heart;",
            f"  a longer text, --steps {step} or --dropout 0.3 would help",
        ]
    return lines


def _quoted(content: bytes) -> str:
    """For a terminal: indented, without control characters."""
    text = content.decode("utf-8", errors="replace")
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "\n".join(f"  | {line}" for line in shown.split("\n"))
