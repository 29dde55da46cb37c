"""A run opened, trained and reported on, in one process or several: what `train` and `resume` share."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ..._errors import NotFiniteError, first_line
from ...data import StreamError
from .. import config
from ..checkpoint import CheckpointError
from ..config import Sections
from ..errors import NotEnoughMemory, ProcessLost, type_of, typed
from ..loop import Collapsed, Stopped, fit, stopped_before
from ..options import FitOptions, RunOptions, from_flags, placed
from ..run import Run
from ..seeds import seed_all
from ..tasks import find_task
from ..tasks.room import check_trained, smaller
from ..watching.stopping import Asked, Signals, collected
from ..workers import Workers
from .refusal import Refused, as_flag, refuse

T = TypeVar("T")

COLLAPSED = 3  # exit status, of divergence too
_SHOWN = 3  # things that were left out of the data


def override(base: Sections, parsed: argparse.Namespace, task: Any) -> Sections:
    """The options of `base`, those that flags were given for in their place."""
    return {name: from_flags(options, parsed, base[name]) for name, options in config.classes(task).items()}


def reopen(folder: Path, parsed: argparse.Namespace, task: Any) -> Run:
    """The run, with the flags that were given; what a checkpoint depends on cannot be changed by them."""
    run = Run.open(folder)
    if getattr(parsed, "task", run.task_name) != run.task_name:
        raise ValueError(f"folder: {folder} is of the task {run.task_name!r}, not {parsed.task!r}")
    changed, moved = override(run.sections, parsed, task), False
    for section in changed.keys() - config.COMMON.keys():
        before, now = (asdict(placed(each[section])) for each in (run.sections, changed))
        for name in before:
            if name == "data":  # which may have moved: their fingerprint says whether they are the same
                moved = before[name] != now[name]
            elif before[name] != now[name]:
                raise ValueError(f"{name}: {folder} was begun with {before[name]!r}, got {now[name]!r}")
    config.check_idle(task, changed, config.given(parsed, changed))
    run = Run(folder, run.task_name, changed, run.id)
    run.moved = moved
    if int(os.environ.get("RANK", 0)) == 0:
        run.claim()
    return run


def train_and_report(
    parsed: argparse.Namespace, workers: Workers, opened: Callable[[], Run], which: str | None
) -> int:
    """Trains the run that `opened` opens, from the checkpoint `which` or anew. Returns the exit status."""
    command = f"fusegen {parsed.command}"
    session = _Session(parsed, workers)
    try:
        with typed(), collected() as signals:
            return session.train(opened, which, signals)
    except NotEnoughMemory as error:
        return _failed(command, workers, f"not enough memory: {error}{session.way_out()}")
    except NotFiniteError as error:
        if workers.count == 1:
            return _failed(command, workers, f"{error}; a lower lr may help")
        _give_up(command, workers, error)
    except RuntimeError as error:
        if workers.count == 1:
            raise
        _give_up(command, workers, error)


class _Session:
    """One command that trains: what it opened, and what it says."""

    def __init__(self, parsed: argparse.Namespace, workers: Workers):
        self._parsed, self._workers, self._command = parsed, workers, f"fusegen {parsed.command}"
        self._run: Run | None = None

    def train(self, opened: Callable[[], Run], which: str | None, signals: Signals) -> int:
        parsed, workers, created = self._parsed, self._workers, which is None
        try:
            try:
                run = self._run = _first_then_others(workers, parsed, opened)
                options, setup = run.sections["fit"], run.sections["run"]
                assert isinstance(options, FitOptions) and isinstance(setup, RunOptions)
                seed_all(options.seed)
                if which == "last":
                    which = _first_then_others(workers, parsed, lambda: self._which(run))
                _announce(run, workers, which, anew=not created and which is None)
                with signals.at_once():
                    task = _first_then_others(workers, parsed, run.task)
                sections = run.sections.values()
                check_trained(task.model, workers.device, task.weights, *sections)
            except Asked as asked:
                return self._ended_early(run, stopped_before(run, asked.number), created)
            except Refused as error:
                self._discard(created)
                return refuse(parsed, as_flag(error, parsed), workers)
            _introduce(run, task, workers)
            try:
                measured = fit(task, options, setup=setup, run=run, resume=which, workers=workers)
            except CheckpointError as error:
                return refuse(parsed, error, workers)
            except (ValueError, ModuleNotFoundError) as error:
                self._discard(created)
                return refuse(parsed, as_flag(error, parsed), workers)
            except (Stopped, Collapsed, FloatingPointError, OSError, KeyboardInterrupt) as error:
                return self._ended_early(run, error, created)
            if workers.first:
                print(_ended(run, options.steps, trained=bool(measured)))
            workers.leave()
            return 0
        except (RuntimeError, MemoryError) as error:
            if type_of(error) is NotEnoughMemory:
                self._discard(created)
            raise
        finally:
            if self._run is not None:
                self._run.release()

    def way_out(self) -> str:
        """What is said of memory that ran out: which options make the run smaller."""
        if self._run is None:
            return ""
        task, sections = find_task(self._run.task_name), self._run.sections
        sizes = [name for name in task.sizes if name not in task.idle(sections)]
        less = smaller(sizes, *sections.values())
        return f"; {less}, or a larger --accumulate, need less" if sizes else ""

    def _which(self, run: Run) -> str | None:
        """The last checkpoint; None of a run that is to begin anew, having none. Raises ValueError where that
        was not agreed to, and there is something to lose."""
        parsed, steps = self._parsed, run.checkpoints.steps()
        agreed = getattr(parsed, "anew", None)
        if steps:
            if agreed:
                raise ValueError(
                    f"anew: {run.folder} has checkpoints, the last of step {steps[-1]}; without --anew it "
                    "goes on from there"
                )
            return "last"
        if agreed is False and (step := run.last_logged()):
            raise ValueError(
                f"folder: {run.folder} has no checkpoint any more, though its log ends at step {step}: "
                "--anew begins it anew, from step 0"
            )
        if run.moved and self._workers.first:
            run.forget_data()
        return None

    def _ended_early(self, run: Run, error: BaseException, created: bool) -> int:
        """Says why and what is saved. Returns the exit status. created: whether by this command."""
        workers, command = self._workers, self._command
        if isinstance(error, Stopped):
            how = self._how_to_go_on(run, created, saved=error.path is not None)
            workers.speak(f"\n{command}: {error}; {how}")
            workers.leave()
            return 128 + error.number
        if isinstance(error, Collapsed):
            workers.speak(f"\n{command}: {error}; fusegen sample {run.folder} draws from it")
            workers.leave()
            return COLLAPSED
        if isinstance(error, KeyboardInterrupt):
            steps = run.checkpoints.steps()
            what = f"the checkpoint of step {steps[-1]} is whole" if steps else "nothing is saved"
            how = self._how_to_go_on(run, created, saved=bool(steps))
            print(f"\n{command}: interrupted twice; {what}; {how}", file=sys.stderr)
            return 128 + signal.SIGINT
        if isinstance(error, StreamError):  # of this process alone
            who = f"rank {workers.rank}: " if workers.count > 1 else ""
            print(f"{command}: {who}{error}; the last checkpoint is whole", file=sys.stderr, flush=True)
            return 1
        return _failed(command, workers, getattr(error, "strerror", None) or error)

    def _how_to_go_on(self, run: Run, created: bool, *, saved: bool) -> str:
        """In words; a new run that has saved nothing leaves its folder as it was."""
        if saved:
            return f"fusegen resume {run.folder} goes on"
        self._discard(created)
        return "the same command begins anew" if created else f"fusegen resume {run.folder} begins anew"

    def _discard(self, created: bool) -> None:
        """Leaves nothing of a new run that is refused: the command is to be given again, mended."""
        if self._run is not None and self._workers.first and created:
            self._run.discard()


def _give_up(command: str, workers: Workers, error: RuntimeError) -> NoReturn:
    """Says what failed here, or which processes are gone, and ends this one without waiting for them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, who has seen it too: first this is said
    lost = isinstance(error, ProcessLost)
    if not lost:
        traceback.print_exc()
    missing = workers.missing() if lost else []
    who = ", ".join(f"rank {rank}" for rank in missing)
    reason = first_line(error)[:200]
    what = f"{who} of {workers.count} no longer answers ({reason})" if missing else reason
    print(
        f"{command}: rank {workers.rank}: {what}; stopped, the last checkpoint is whole",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(1)


def _failed(command: str, workers: Workers, reason: object) -> int:
    workers.speak(f"{command}: {reason}")
    return 1


def _first_then_others(workers: Workers, parsed: argparse.Namespace, action: Callable[[], T]) -> T:
    """`action` on the first process, then on the others; an error of any is raised on all, and none goes on
    before all are done."""
    error: BaseException | None = None
    value: Any = None
    for turn in (workers.first, not workers.first):
        if turn:
            try:
                value = action()
            except Refused as caught:
                error = (
                    caught if workers.first else ValueError(f"rank {workers.rank}: {as_flag(caught, parsed)}")
                )
        found = [each for each in workers.gather(error) if each is not None]
        error = workers.broadcast(found[0] if found else None)
        if error is not None:
            raise error
    return value


def _ended(run: Run, steps: int, *, trained: bool) -> str:
    """What is said of a run that has done its steps, now or before (a last step is always measured)."""
    if trained:
        return f"\ndone: {run.folder}; fusegen sample {run.folder} lets it write or draw"
    return (
        f"finished before: all {steps} steps of {run.folder} are done, and nothing was trained; "
        f"fusegen resume {run.folder} --steps {2 * steps} trains on, to step {2 * steps}"
    )


def _announce(run: Run, workers: Workers, which: str | None, *, anew: bool) -> None:
    """Before the data are read, which may take a while."""
    how = ", which has no checkpoint: it begins anew" if anew else f", going on from {which}" if which else ""
    if workers.first:
        print(f"run       {run.folder}{how}", flush=True)


def _introduce(run: Run, task: Any, workers: Workers) -> None:
    if not workers.first:
        return
    weights = sum(p.numel() for p in task.model.parameters())
    processes = f"{workers.count} processes, " if workers.count > 1 else ""
    print(f"task      {run.task_name}, {weights:,} weights")
    for note in task.notes:
        print(f"data      {note}")
    for left_out in task.skipped[:_SHOWN]:
        print(f"left out  {left_out}")
    if len(task.skipped) > _SHOWN:
        print(f"left out  and {len(task.skipped) - _SHOWN} more")
    for remark in task.learns:
        print(f"learns    {remark}")
    if run.sections["run"].ema:
        print(
            f"measured  an average of the weights (--ema {run.sections['run'].ema:g}), which is sampled too"
        )
    print(f"training  {run.sections['fit'].steps} steps, {processes}{workers.device}\n", flush=True)
