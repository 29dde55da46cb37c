"""Arrays in .npy and .npz files, memory-mapped: a data set may be larger than memory."""

import os
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .paths import path_of


def read_array(path: str | os.PathLike[str], name: str | None = None, argument: str = "path") -> np.ndarray:
    """The array in a .npy file, or array `name` of a .npz (which may be left out where there is one only).

    Memory-mapped, changes not written back; an array that is compressed inside its .npz is read into memory.
    Raises OSError or ValueError, beginning with `argument`; no pickled object is ever loaded.

    path: of the file. The array is of any shape, [N] or [N, C, H, W] or another, and has the dtype that it
    has in the file.
    """
    path = path_of(path, argument)
    try:
        if path.suffix.lower() == ".npz":
            array = _read_npz(path, name, argument)
        else:
            array = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        if error.strerror:
            raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
        raise ValueError(f"{argument}: {path} is not an array file: {error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if str(error).startswith(f"{argument}: "):
            raise
        objects = "Python objects" in str(error) or "pickle" in str(error)
        why = "it holds Python objects, which are not loaded, or is no file of numpy's" if objects else error
        raise ValueError(f"{argument}: {path} is not an array file, or is cut short: {why}") from error
    if array.size == 0:
        raise ValueError(f"{argument}: {path} is empty: its shape is {list(array.shape)}")
    return array


def read_tokens(
    path: str | os.PathLike[str], name: str | None = None, argument: str = "path"
) -> tuple[Tensor, int]:
    """Numbers of tokens [N], and how many different ones there can be: 256 for uint8, else the largest + 1.

    Errors as in `read_array`.

    path: a .npy or .npz file; name: of its array, argument: what messages begin with.
    """
    array = read_array(path, name, argument)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        found = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"{argument}: {path}: expected integers [N], the numbers of tokens, got {found}")
    if array.dtype == np.uint8:
        return torch.from_numpy(array), 256
    least, most = int(array.min()), int(array.max())
    if least < 0 or most >= 2**31:
        raise ValueError(f"{argument}: {path}: expected tokens from 0 to 2147483647, got {least} to {most}")
    if array.dtype.byteorder not in "=|" or (array.dtype.kind == "u" and array.dtype.itemsize > 2):
        array = array.astype(np.int32)
    return torch.from_numpy(array), most + 1


def _read_npz(path: Path, name: str | None, argument: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            if not names:
                raise ValueError(f"{argument}: {path} has no arrays")
            asked = "more than one array" if name is None else f"no array {name!r}"
            raise ValueError(f"{argument}: {path} has {asked}: {', '.join(names)}")
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            with archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    with open(path, "rb") as file:
        # The local header repeats the name and has extra bytes of its own length (PKWARE's APPNOTE, 4.3.7).
        file.seek(member.header_offset + 26)
        name_length, extra_length = (int.from_bytes(file.read(2), "little") for _ in range(2))
        file.seek(name_length + extra_length, os.SEEK_CUR)
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ValueError(f"its .npy format is {version}")
        shape, fortran, dtype = header[version](file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not loaded")
        order: Literal["F", "C"] = "F" if fortran else "C"
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, mode="c", offset=file.tell(), shape=shape, order=order)
