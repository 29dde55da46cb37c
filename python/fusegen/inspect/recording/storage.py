"""Where a recording's arrays are kept: in memory as they come, or in a folder, one .npy each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, int]  # B, n


class Array(Protocol):
    """Rows [B, n] of steps, which grow call by call."""

    def take(self, value: Tensor) -> None:
        """Adds value [k, B, n], which nobody writes afterwards."""

    def reserve(self, count: int, value: Tensor) -> None:
        """Adds so many rows of zeros of the size and dtype of ``value``'s."""

    def write(self, rows: Tensor, value: Tensor) -> None:
        """Sets rows of what was reserved last: ``rows`` [k], or [k, B] where sequences differ; value
        [k, B, n]."""

    def write_one(self, b: int, rows: Tensor, value: Tensor) -> None:
        """The same of one sequence: ``rows`` [k], value [k, n]."""

    def commit(self) -> None:
        """What was added is to stay."""

    def roll_back(self) -> None:
        """What was added since then goes."""

    def read(self) -> Tensor:
        """All rows [T, B, n]."""


def mixed(a: int, b: int) -> ValueError:
    return ValueError(
        f"fusegen.inspect: expected one batch size in all calls of a layer, got {a} and {b} rows; "
        "record such calls apart"
    )


class InMemory:
    """Parts on the device where they were made; read as one tensor."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._stay = 0  # of the parts

    def take(self, value: Tensor) -> None:
        self._parts.append(value)

    def reserve(self, count: int, value: Tensor) -> None:
        self._parts.append(value.new_zeros(count, *value.shape[1:]))

    def write(self, rows: Tensor, value: Tensor) -> None:
        if rows.dim() == 1:
            self._parts[-1][rows] = value
        else:
            self._parts[-1][rows, torch.arange(value.shape[1], device=value.device)] = value

    def write_one(self, b: int, rows: Tensor, value: Tensor) -> None:
        self._parts[-1][rows, b] = value

    def commit(self) -> None:
        self._stay = len(self._parts)

    def roll_back(self) -> None:
        del self._parts[self._stay :]

    def read(self) -> Tensor:
        if self._stay > 1:
            there, rest = self._parts[: self._stay], self._parts[self._stay :]
            shapes = {part.shape[1:] for part in there}
            if len(shapes) > 1:
                raise mixed(*(shape[0] for shape in sorted(shapes)[:2]))
            self._parts, self._stay = [torch.cat(there), *rest], 1
        return self._parts[0]


class InFile:
    """A .npy file that is valid after every call. bfloat16, which numpy has not, is kept in float32."""

    HEADER = 128

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows, self._last, self._stay = 0, 0, 0
        self._shape: Shape | None = None
        self._dtype = np.dtype(np.float32)

    def take(self, value: Tensor) -> None:
        self.reserve(len(value), value)
        self.write(torch.arange(len(value)), value)

    def reserve(self, count: int, value: Tensor) -> None:
        shape = (value.shape[1], value.shape[2])
        if self._shape is None:
            self._shape = shape
            self._dtype = _numpy(value[:0]).dtype
            self.path.touch(exist_ok=False)
        elif shape != self._shape:
            raise mixed(self._shape[0], shape[0])
        self._last, self._rows = self._rows, self._rows + count
        self._resize()

    def _resize(self) -> None:
        assert self._shape is not None
        row = self._dtype.itemsize * self._shape[0] * self._shape[1]
        with open(self.path, "r+b") as file:
            file.write(self._header())
            os.ftruncate(file.fileno(), self.HEADER + self._rows * row)

    def commit(self) -> None:
        self._stay = self._rows

    def roll_back(self) -> None:
        if self._rows != self._stay:
            self._last = self._rows = self._stay
            self._resize()

    def _header(self) -> bytes:
        """The format's first version, padded to one length so that it can be written again."""
        assert self._shape is not None
        said = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._rows, *self._shape)}
        text = repr(said).ljust(self.HEADER - 11) + "\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")

    def write(self, rows: Tensor, value: Tensor) -> None:
        if rows.numel() and value.numel():
            there, first = self._mapped(rows)
            at = (rows - first).cpu().numpy()
            there[at if rows.dim() == 1 else (at, np.arange(value.shape[1]))] = _numpy(value)

    def write_one(self, b: int, rows: Tensor, value: Tensor) -> None:
        if rows.numel() and value.numel():
            there, first = self._mapped(rows)
            there[(rows - first).cpu().numpy(), b] = _numpy(value)

    def _mapped(self, rows: Tensor) -> tuple[np.memmap, int]:
        """The rows from the first to the last of these, mapped as long as they are held; and the first."""
        assert self._shape is not None
        first, end = int(rows.min()), int(rows.max()) + 1
        row = self._dtype.itemsize * self._shape[0] * self._shape[1]
        offset = self.HEADER + (self._last + first) * row
        return np.memmap(self.path, self._dtype, "r+", offset, (end - first, *self._shape)), first

    def read(self) -> Tensor:
        return mapped(self.path)


def _numpy(value: Tensor) -> np.ndarray:
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()


def mapped(path: Path) -> Tensor:
    """A .npy file as a tensor on its memory map; what is written to the tensor does not reach the file."""
    try:
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    except ValueError:  # of a file without elements there is nothing to map
        return torch.from_numpy(np.load(path))
