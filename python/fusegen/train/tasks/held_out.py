"""What is held out of data without a split of their own, and the examples that a run keeps for sampling."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import files

_SEED = 0  # of the split: the same for every run, so that runs compare


def parted(count: int, share: float, argument: str, what: str) -> tuple[Tensor, Tensor]:
    """Numbers from 0 to count - 1, int64: (those to learn from, a random `share` held out), always the same.

    Raises ValueError, naming `argument`, where a side would be empty.
    """
    held_out = round(count * share)
    if not 0 < held_out < count:
        raise ValueError(f"{argument}: {count} {what} are too few to hold {share:g} of them out")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SEED))
    return order[held_out:], order[:held_out]


def keep_json(path: Path, value: Any) -> None:
    files.write(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def kept_json(path: Path | None, argument: str) -> Sequence[Any]:
    """The list in a run's file. Raises OSError or ValueError, naming `argument` and the file."""
    if path is None:
        raise ValueError(f"{argument}: expected a run's folder, got none")
    try:
        found = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{argument}: {path} is not JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise ValueError(f"{argument}: {path}: expected a list that is not empty")
    return found
