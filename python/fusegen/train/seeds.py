"""The random numbers of python, numpy, torch and the GPU: begun anew from a seed, kept and restored."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Begins the random numbers of python, numpy and torch anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (what users of np.random draw from)
    torch.manual_seed(seed % 2**64)


def random_state(device: torch.device) -> dict[str, Any]:
    """Where the random numbers of python, numpy, torch and the GPU stand."""
    name, key, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(key, np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random(state: Mapping[str, Any], device: torch.device) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, key, *rest = state["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
