"""A run's configuration: sections of typed options, as JSON, every key checked."""

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from . import options
from .options import FitOptions, Options, RunOptions

# The options of one run by section: "model" and "data" are the task's, "fit" and "run" those of every run.
Sections = dict[str, Any]

COMMON: dict[str, type[Options]] = {"fit": FitOptions, "run": RunOptions}
_BESIDES = ("fusegen", "task", "id")  # what a file may hold besides the sections


def classes(task: Any) -> dict[str, type[Options]]:
    """The option classes of a task by section; a task's own "fit" or "run" replaces the common one."""
    return {**task.options, **{name: each for name, each in COMMON.items() if name not in task.options}}


def defaults(task: Any, given: Mapping[str, Any] | None = None) -> Sections:
    """The options of a task where nothing but `given`, by name, was asked for (and is not yet set)."""
    presets = _presets(task, given or {})
    return {name: each(**presets.get(name, {})) for name, each in classes(task).items()}


def _presets(task: Any, given: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Those of a task, and what every new run has, where runs that were begun before have it not."""
    found = task.presets(given)
    return {**found, "run": {"ema_warm_up": True, **found.get("run", {})}}


def placed(sections: Sections) -> Sections:
    """The same, with the places of data by absolute paths."""
    return {name: options.placed(each) for name, each in sections.items()}


def to_json(task_name: str, sections: Sections, **besides: Any) -> str:
    """What config.json holds."""
    described = {**besides, "task": task_name, **{name: asdict(each) for name, each in sections.items()}}
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path, argument: str) -> dict[str, Any]:
    """The object in a JSON file. Raises OSError or ValueError, naming `argument` and the file."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # json's and UnicodeDecodeError alike
        raise ValueError(f"{argument}: {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{argument}: {path}: expected an object, got {type(content).__name__}")
    return content


def from_json(
    task: Any, content: Mapping[str, Any], where: str, given: Mapping[str, Any] | None = None
) -> Sections:
    """The sections in `content`; what is left out has its default, `given` as in `defaults`. Of a run (which
    has an id, and wrote all options there were) what is left out came later: it has the value of its class,
    under which all is as it was before.

    Raises ValueError or TypeError, beginning with `where`, for a key that does not exist (the nearest one is
    named) or a value that its option does not take.
    """
    known = classes(task)
    sections = {}
    check_keys(content, (*known, *_BESIDES), where)
    flat = {
        key: value for each in content.values() if isinstance(each, Mapping) for key, value in each.items()
    }
    presets = {} if "id" in content else _presets(task, {**flat, **(given or {})})
    for name, cls in known.items():
        own = content.get(name, {})
        if not isinstance(own, Mapping):
            raise ValueError(f"{where}: {name}: expected an object, got {type(own).__name__}")
        check_keys(own, [each.name for each in fields(cls)], f"{where}: {name}")
        try:
            sections[name] = cls(**{**presets.get(name, {}), **own})
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {name}.{error}") from error
    return sections


def flat(sections: Sections) -> dict[str, Any]:
    """All options by name, which no two sections share."""
    return {name: value for each in sections.values() for name, value in asdict(each).items()}


def given(parsed: Any, sections: Sections) -> list[str]:
    """The names of the options that flags were given for."""
    return [name for name in flat(sections) if hasattr(parsed, name)]


def check_idle(task: Any, sections: Sections, asked: Iterable[str]) -> None:
    """Raises ValueError for the first option that was asked for and changes nothing beside the others, one
    that switches something off among them. Where the run has one process only, so is --timeout."""
    idle = dict(task.idle(sections))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        idle["timeout"] = "this process is alone, and waits for no other; torchrun starts several"
    if "run" in sections and not sections["run"].ema:  # the demo has none
        idle["ema_warm_up"] = "--ema 0 keeps no average"
    for name in asked:
        if name in idle:
            raise ValueError(f"{name}: it would change nothing: {idle[name]}")


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises ValueError for the first of `given` that is not in `known`."""
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: there is no {key!r}{nearest(key, known)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'hidden'?", or all there is where nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"
