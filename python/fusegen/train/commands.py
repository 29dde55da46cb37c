"""`fusegen train`, `resume`, `sample`, `evaluate` and `export`: what they do once their flags are parsed."""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ..data import StreamError
from . import config, files
from .checkpoint import CheckpointError
from .config import Sections, nearest
from .learner import seed_all
from .loop import Stopped, fit
from .options import FitOptions, Options, RunOptions, add_flags, flag, from_flags
from .run import Run
from .tasks import TASKS, find_task
from .workers import Workers, device_named

T = TypeVar("T")

# What is wrong with the arguments or the data, as opposed to what went wrong while training.
Refused = (OSError, ValueError, TypeError, ModuleNotFoundError)
_WHICH = "last, best, a step, or a file"
_PATIENCE = 2.0  # seconds that the first process has to speak before torchrun ends it with the others
_SHOWN = 3  # things that were left out of the data


def add_commands(commands: Any) -> None:
    """Adds the subcommands to the parser of `fusegen`."""
    train = commands.add_parser(
        "train",
        help="train a model, in one process or under torchrun; a run is a folder",
        description="Trains a model. Its run is a folder with config.json, log.jsonl, checkpoints, samples. "
        "SIGTERM and Ctrl-C save it and exit with 143 and 130; fusegen resume RUN goes on from there.",
    )
    tasks = train.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, (_, about) in TASKS.items():
        parser = tasks.add_parser(name, help=about, description=about, allow_abbrev=False)
        parser.add_argument("--folder", help="of the run (default: runs/TASK-DATE-TIME)")
        parser.add_argument("--config", metavar="FILE", help="options from this file; flags override them")
        parser.add_argument("--save-config", metavar="FILE", help="write all options to this file, and stop")
        parser.add_argument("--resume", action="store_true", help="go on with the run, if it has begun")
        task = find_task(name)
        shown = config.defaults(task)
        for section, kind in config.kinds(task).items():
            add_flags(parser.add_argument_group(section), kind, given_only=True, shown=shown[section])
        parser.set_defaults(run_command=train_command, parser=parser)

    resume = _add_run_command(
        commands, "resume", resume_command, "go on with a run that was stopped or killed"
    )
    resume.add_argument("--from", dest="which", metavar="WHICH", default="last", help=f"{_WHICH} (last)")
    for section in ("fit", "run"):
        kind = config.COMMON[section]
        add_flags(resume.add_argument_group(f"{section}: in place of the run's own"), kind, given_only=True)

    # Their flags are those of the run's task, so they are parsed once the run is known.
    for name, command, about in (
        ("evaluate", evaluate_command, "measure a run's model, on held-out data where there are some"),
        ("sample", sample_command, "let a run's model write or draw"),
    ):
        parser = commands.add_parser(name, help=about, add_help=False)
        parser.add_argument("folder", metavar="RUN", nargs="?")
        parser.set_defaults(run_command=command, parser=parser, takes_rest=True)

    export = _add_run_command(commands, "export", export_command, "write a run's weights as safetensors")
    _add_checkpoint(export)
    export.add_argument("--out", metavar="FILE", help="(default: RUN/model.safetensors)")


def train_command(parsed: argparse.Namespace) -> int:
    try:
        task = find_task(parsed.task)
        base = _base(parsed, task)
        sections = _override(base, parsed, task)
        if parsed.save_config is not None:
            files.write(Path(parsed.save_config), config.to_json(parsed.task, sections))
            print(f"saved in {parsed.save_config}; fusegen train {parsed.task} --config {parsed.save_config}")
            return 0
        workers = Workers(sections["run"].device, sections["run"].timeout)
        folder = _folder(parsed, workers)
    except Refused as error:
        return refuse(parsed, _as_flag(error))
    # A restart by torchrun is the same command once more: the run has begun then.
    begun = (parsed.resume or workers.restarts > 0) and (folder / "config.json").exists()
    if begun:
        return _train(parsed, workers, lambda: _reopen(folder, parsed, task), "last")

    def create() -> Run:
        return Run.create(folder, parsed.task, sections) if workers.first else Run.open(folder)

    return _train(parsed, workers, create, None)


def resume_command(parsed: argparse.Namespace) -> int:
    try:
        folder = Path(parsed.folder)
        run = Run.open(folder)
        task = find_task(run.task_name)
        setup = _override(run.sections, parsed, task)["run"]
        workers = Workers(setup.device, setup.timeout)
    except Refused as error:
        return refuse(parsed, _as_flag(error))
    return _train(parsed, workers, lambda: _reopen(folder, parsed, task), parsed.which)


def evaluate_command(parsed: argparse.Namespace) -> int:
    try:
        run = _run_of(parsed)
        how, asked = _asked(parsed, find_task(run.task_name).measuring)
        task, state = _revive(run, asked.checkpoint, asked.device, data=True)
        if state["fingerprint"] != task.fingerprint():
            print("fusegen evaluate: these are not the data that the run was trained on", file=sys.stderr)
        measures = task.measure(how)
    except Refused as error:
        return refuse(parsed, _as_flag(error))
    print(f"step  {state['step']}")
    for name, value in measures.items():
        print(f"{name}  {value:.6g}")
    return 0


def sample_command(parsed: argparse.Namespace) -> int:
    try:
        run = _run_of(parsed)
        how, asked = _asked(parsed, find_task(run.task_name).sampling, out=True)
        task, state = _revive(run, asked.checkpoint, asked.device, data=False)
        content = task.sample(how)
        if asked.out is None:
            for suffix in [suffix for suffix in content if suffix == ".txt"]:
                print(_printable(str(content.pop(suffix))))
            for path in run.save_sample(state["step"], content) if content else []:
                print(path)
        else:
            for path, each in _named(Path(asked.out), content).items():
                files.write(path, each)
    except Refused as error:
        return refuse(parsed, _as_flag(error))
    except RuntimeError as error:
        if "not finite" not in str(error):
            raise
        return refuse(parsed, f"{error}; another --checkpoint may be whole")
    return 0


def export_command(parsed: argparse.Namespace) -> int:
    try:
        run = Run.open(Path(parsed.folder))
        task, _ = _revive(run, parsed.checkpoint, "cpu", data=False)
        print(run.export(task.model, Path(parsed.out) if parsed.out else None))
    except ModuleNotFoundError as error:
        return refuse(parsed, f"{error}: pip install safetensors")
    except Refused as error:
        return refuse(parsed, _as_flag(error))
    return 0


def refuse(parsed: argparse.Namespace, reason: object, workers: Workers | None = None) -> int:
    """One line about wrong arguments or data; its exit status. Of several processes the first speaks."""
    line = f"fusegen {parsed.command}: error: {reason}"
    if workers is not None:
        workers.speak(line)
    elif int(os.environ.get("RANK", 0)) == 0:
        print(line, file=sys.stderr, flush=True)
    else:
        time.sleep(_PATIENCE)
    return 2


def refuse_unknown(parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    """Exits as argparse does where flags are left over, naming the nearest."""
    if not unknown:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    word = unknown[0].partition("=")[0]
    close = nearest(word, known) if word.startswith("--") else ""
    hint = close if "did you mean" in close else "; --help shows all"
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


# ---- training ---------------------------------------------------------------------------------------------


def _train(parsed: argparse.Namespace, workers: Workers, opened: Callable[[], Run], which: str | None) -> int:
    """Opens the run, makes its task and trains it. Returns the exit status."""
    command, run, created = f"fusegen {parsed.command}", None, which is None
    try:
        try:
            run = _first_then_others(workers, opened)
            options, setup = run.sections["fit"], run.sections["run"]
            assert isinstance(options, FitOptions) and isinstance(setup, RunOptions)
            seed_all(options.seed)
            task = _first_then_others(workers, run.task)
            if which == "last" and not run.checkpoints.steps():
                which = None  # killed before its first checkpoint: it begins anew
        except Refused as error:
            _discard(run, workers, created)
            return refuse(parsed, _as_flag(error), workers)
        _introduce(run, task, workers, which)
        try:
            fit(task, options, setup=setup, run=run, resume=which, workers=workers)
        except CheckpointError as error:
            return refuse(parsed, error, workers)
        except (ValueError, ModuleNotFoundError) as error:
            _discard(run, workers, created)
            return refuse(parsed, _as_flag(error), workers)
        except Stopped as stopped:
            workers.speak(f"\n{command}: {stopped}; fusegen resume {run.folder} goes on")
            workers.leave()
            return 128 + stopped.number
        except FloatingPointError as error:
            return _failed(command, workers, error)
        except StreamError as error:  # of this process alone
            who = f"rank {workers.rank}: " if workers.count > 1 else ""
            print(f"{command}: {who}{error}; the last checkpoint is whole", file=sys.stderr, flush=True)
            return 1
        except OSError as error:
            return _failed(command, workers, error.strerror or error)
        except KeyboardInterrupt:
            print(f"\n{command}: interrupted twice; what was saved before is whole", file=sys.stderr)
            return 130
        if workers.first:
            print(f"\ndone: {run.folder}; fusegen sample {run.folder} lets it write or draw")
        workers.leave()
        return 0
    except RuntimeError as error:
        if "not finite" in str(error) and workers.count == 1:
            return _failed(command, workers, f"{error}; a lower lr may help")
        if "allocate" in str(error) or "out of memory" in str(error):
            return _failed(command, workers, f"not enough memory: {str(error).splitlines()[0]}")
        if workers.count == 1:
            raise
        _give_up(command, workers, error)
    finally:
        if run is not None:
            run.release()


def _discard(run: Run | None, workers: Workers, created: bool) -> None:
    """Leaves nothing of a new run that is refused: the command is to be given again, mended."""
    if run is not None and workers.first and created:
        run.discard()


def _give_up(command: str, workers: Workers, error: RuntimeError) -> NoReturn:
    """Says what failed here, or which processes are gone, and ends this one without waiting for them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, who has seen it too: first this is said
    lost = workers.lost(error)
    if not lost:
        traceback.print_exc()
    missing = workers.missing() if lost else []
    who = ", ".join(f"rank {rank}" for rank in missing)
    reason = str(error).strip().splitlines()[0][:200]
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


def _first_then_others(workers: Workers, action: Callable[[], T]) -> T:
    """`action` on the first process, then on the others; an error of any is raised on all, and none goes on
    before all are done."""
    error, value = None, None
    for turn in (workers.first, not workers.first):
        if turn:
            try:
                value = action()
            except Refused as caught:
                error = caught if workers.first else ValueError(f"rank {workers.rank}: {_as_flag(caught)}")
        found = [each for each in workers.gather(error) if each is not None]
        error = workers.broadcast(found[0] if found else None)
        if error is not None:
            raise error
    return value


def _introduce(run: Run, task: Any, workers: Workers, which: str | None) -> None:
    if not workers.first:
        return
    weights = sum(p.numel() for p in task.model.parameters())
    processes = f"{workers.count} processes, " if workers.count > 1 else ""
    print(f"run       {run.folder}{'' if which is None else f', going on from {which}'}")
    print(f"task      {run.task_name}, {weights:,} weights")
    for left_out in task.skipped[:_SHOWN]:
        print(f"left out  {left_out}")
    if len(task.skipped) > _SHOWN:
        print(f"left out  and {len(task.skipped) - _SHOWN} more")
    print(f"training  {run.sections['fit'].steps} steps, {processes}{workers.device}\n", flush=True)


# ---- options and runs -------------------------------------------------------------------------------------


def _base(parsed: argparse.Namespace, task: Any) -> Sections:
    if parsed.config is None:
        return config.defaults(task, vars(parsed))
    content = config.read_json(Path(parsed.config), "--config")
    where = f"--config: {parsed.config}"
    if content.get("task", parsed.task) != parsed.task:
        raise ValueError(f"{where}: it is for the task {content['task']!r}, not {parsed.task!r}")
    return config.from_json(task, content, where, vars(parsed))


def _override(base: Sections, parsed: argparse.Namespace, task: Any) -> Sections:
    return {name: from_flags(kind, parsed, base[name]) for name, kind in config.kinds(task).items()}


def _reopen(folder: Path, parsed: argparse.Namespace, task: Any) -> Run:
    """The run, with the flags that were given; what a checkpoint depends on cannot be changed by them."""
    run = Run.open(folder)
    if getattr(parsed, "task", run.task_name) != run.task_name:
        raise ValueError(f"run: {folder} is of the task {run.task_name!r}, not {parsed.task!r}")
    changed = _override(run.sections, parsed, task)
    for section in changed.keys() - {"fit", "run"}:
        before, now = asdict(run.sections[section]), asdict(changed[section])
        for name in before:
            if before[name] != now[name]:
                raise ValueError(f"{name}: {folder} was begun with {before[name]!r}, got {now[name]!r}")
    run = Run(folder, run.task_name, changed, run.id)
    if int(os.environ.get("RANK", 0)) == 0:
        run.claim()
    return run


def _folder(parsed: argparse.Namespace, workers: Workers) -> Path:
    if parsed.folder is not None:
        if not parsed.folder:
            raise ValueError("folder: expected a path, got an empty one")
        return Path(parsed.folder)
    if parsed.resume or workers.count > 1:
        raise ValueError("folder: expected the folder of the run, got none")
    return Path("runs", f"{parsed.task}-{time.strftime('%Y%m%d-%H%M%S')}")


def _run_of(parsed: argparse.Namespace) -> Run:
    if parsed.folder is None:
        command = f"fusegen {parsed.command} RUN --help"
        raise ValueError(f"RUN: expected the folder of a run; {command} shows the options")
    return Run.open(Path(parsed.folder))


def _asked(
    parsed: argparse.Namespace, kind: type[Options], *, out: bool = False
) -> tuple[Options, argparse.Namespace]:
    """The flags of a command on a run: those of the task's `kind`, and all of them."""
    parser = argparse.ArgumentParser(f"fusegen {parsed.command} {parsed.folder}", allow_abbrev=False)
    _add_checkpoint(parser)
    if out:
        parser.add_argument(
            "--out",
            metavar="FILE",
            help="write there, by its ending (default: text is shown, the rest goes to RUN/samples)",
        )
    add_flags(parser, kind)
    asked, unknown = parser.parse_known_args(parsed.rest)
    refuse_unknown(parser, unknown)
    return from_flags(kind, asked), asked


def _revive(run: Run, which: str, device: str, *, data: bool) -> tuple[Any, dict[str, Any]]:
    """The task with the weights of a checkpoint, and the rest of that checkpoint."""
    place = device_named(device)
    task = run.task(data=data)
    state = run.load_weights(task, which)
    task.model.to(place).eval()
    return task, state


def _add_run_command(commands: Any, name: str, command: Callable, about: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.add_argument("folder", metavar="RUN", help="the folder of the run")
    parser.set_defaults(run_command=command, parser=parser)
    return parser


def _named(out: Path, content: Mapping[str, str | bytes]) -> dict[Path, str | bytes]:
    """What goes into which file: of {suffix: content} that of out's suffix, in any case, and the rest beside
    it under its own. Raises ValueError for another suffix, which would say what the file is not."""
    suffix = out.suffix.lower()
    if not out.name or (suffix and suffix not in content):
        kinds = " or ".join(content)
        raise ValueError(f"out: expected a file that ends in {kinds}, or in nothing, got {str(out)!r}")
    if not suffix and len(content) == 1:
        return dict.fromkeys([out], *content.values())
    return {out if kind == suffix else out.with_suffix(kind): each for kind, each in content.items()}


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="WHICH", default="best", help=f"{_WHICH} (default: best)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto (default: cpu)")


def _as_flag(error: BaseException) -> str:
    """The message, with the option that it begins with spelled as a flag."""
    own = isinstance(error, OSError) and error.strerror and error.filename is None
    message = error.strerror if own else str(error)  # str() would put the number in front
    name, colon, _ = message.partition(":")
    is_field = colon and name.isidentifier() and name.islower() and not isinstance(error, CheckpointError)
    return flag(name) + message[len(name) :] if is_field else message


def _printable(text: str) -> str:
    """Without control characters: a model may write what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
