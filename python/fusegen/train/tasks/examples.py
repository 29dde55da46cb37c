"""A few images that a run keeps, to draw from or to show beside what it draws."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data import Images
from .. import files

COLUMNS = 12  # of a picture, and examples kept for it


@dataclass(frozen=True)
class Examples:
    """A few images, kept in the run's folder: what sampling needs of the data.

    pixels: uint8 [n, C, H, W]; labels: int64 [n] and classes: their names, where the model is told them.
    """

    pixels: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]

    @classmethod
    def of(cls, training: Images, held_out: Images, conditional: bool) -> "Examples":
        pixels = held_out.pixels[:COLUMNS].clone()
        if not conditional or training.labels is None or held_out.labels is None:
            return cls(pixels, None, ())
        count = int(max(training.labels.max(), held_out.labels.max())) + 1
        names = [*training.classes, *map(str, range(len(training.classes), count))]
        return cls(pixels, held_out.labels[:COLUMNS].clone(), tuple(names))

    def write(self, path: Path) -> None:
        held: dict[str, Any] = {
            "pixels": self.pixels.numpy(),
            "classes": np.array(self.classes, dtype=np.str_),
        }
        if self.labels is not None:
            held["labels"] = self.labels.numpy()
        content = io.BytesIO()
        np.savez(content, **held)
        files.write(path, content.getvalue())

    @classmethod
    def read(cls, path: Path, argument: str) -> "Examples":
        """Raises OSError or ValueError, naming `argument` and the file."""
        try:
            with np.load(path, allow_pickle=False) as held:
                labels = torch.from_numpy(held["labels"]) if "labels" in held else None
                return cls(torch.from_numpy(held["pixels"]), labels, tuple(map(str, held["classes"])))
        except OSError as error:
            why = error.strerror or error
            raise type(error)(f"{argument}: cannot read {path}: {why}") from error
        except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{argument}: {path} does not hold a run's examples: {error}") from error


def same_class(labels: Tensor) -> Tensor:
    """For each example the number of the next one of its class; its own where there is no other."""
    count = len(labels)
    order = (torch.arange(count).unsqueeze(1) + torch.arange(1, count + 1)) % count
    same = labels.cpu()[order] == labels.cpu().unsqueeze(1)
    return order.gather(1, same.int().argmax(1, keepdim=True))[:, 0].to(labels.device)
