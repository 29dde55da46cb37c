"""oneDNN's own primitives, called from C++ (onednn/onednn_rnn.cpp) in this process, on torch's OpenMP pool.

The shared library is built on first use against the PyPI wheels onednn-cpu-gomp and onednn-devel-cpu-gomp. It
is loaded after torch, so that its libgomp.so.1 is the copy already in the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import torch

from harness.peer import BaseRunner, NotCompared, Unavailable
from harness.problem import GATES

SOURCE = Path(__file__).parent / "onednn" / "onednn_rnn.cpp"
# Position of oneDNN's gates in torch's order: GRU u(=z),r,o(=n) from r,z,n; LSTM is torch's i,f,g,o.
GATE_ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}


def permute(cell: str, weight: torch.Tensor) -> torch.Tensor:
    """Gate blocks along the first dimension from torch's order to oneDNN's or back: its own inverse."""
    blocks = weight.chunk(len(GATE_ORDER[cell]))
    return torch.cat([blocks[i] for i in GATE_ORDER[cell]])


def join_bias(cell: str, b_ih: torch.Tensor, b_hh: torch.Tensor) -> torch.Tensor:
    """oneDNN's one bias, float32: the sum; GRU: z, r summed, then b_in, then b_hn apart."""
    b_ih, b_hh = permute(cell, b_ih).float(), permute(cell, b_hh).float()
    if cell != "gru":
        return b_ih + b_hh
    H = b_ih.numel() // 3
    return torch.cat([b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :], b_hh[2 * H :]])


def split_bias(cell: str, dbias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of b_ih and b_hh from the gradient of the joined bias."""
    if cell != "gru":
        return dbias, dbias
    H = dbias.numel() // 4
    gates, n_x, n_h = dbias[: 2 * H], dbias[2 * H : 3 * H], dbias[3 * H :]
    return permute(cell, torch.cat([gates, n_x])), permute(cell, torch.cat([gates, n_h]))


class Shape(ctypes.Structure):
    """struct Shape of onednn_rnn.cpp."""

    _fields_ = [
        ("cell", ctypes.c_char_p),
        *((name, ctypes.c_int) for name in ("T", "B", "I", "H", "bf16", "train")),
    ]


@cache
def library() -> ctypes.CDLL:
    """Build if the source, the compiler flags or the installation changed, then load."""
    root = Path(os.environ.get("ONEDNN_ROOT", sys.prefix))
    header, shared = root / "include/oneapi/dnnl/dnnl.hpp", root / "lib/libdnnl.so"
    if not header.exists() or not shared.exists():
        raise Unavailable("needs `pip install onednn-cpu-gomp onednn-devel-cpu-gomp` (or ONEDNN_ROOT)")
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", f"-I{root}/include"]
    link = [f"-L{root}/lib", "-ldnnl", f"-Wl,-rpath,{root}/lib"]
    command = [os.environ.get("CXX", "g++"), *flags, str(SOURCE), *link]
    key = hashlib.sha256(SOURCE.read_bytes() + "\0".join(command).encode()).hexdigest()[:16]
    built = SOURCE.parent / "build" / f"onednn_rnn-{key}{sysconfig.get_config_var('SHLIB_SUFFIX')}"
    if not built.exists():
        built.parent.mkdir(exist_ok=True)
        done = subprocess.run([*command, "-o", str(built)], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"{command[0]} failed: {done.stderr.strip().splitlines()[0]}")
    loaded = ctypes.CDLL(str(built))
    loaded.fg_onednn_create.restype = ctypes.c_void_p
    loaded.fg_onednn_create.argtypes = [ctypes.POINTER(Shape), ctypes.c_void_p]
    loaded.fg_onednn_run.argtypes = loaded.fg_onednn_destroy.argtypes = [ctypes.c_void_p]
    loaded.fg_onednn_error.restype = loaded.fg_onednn_version.restype = ctypes.c_char_p
    return loaded


class OnednnRunner(BaseRunner):
    def __init__(self, problem):
        case, self.library = problem.case, library()
        self.cell, self.train = case.cell, case.train
        w, r, b_ih, b_hh = problem.weights
        G, T, B, I, H = GATES[case.cell], case.T, case.B, case.I, case.H
        real = case.torch_dtype
        bias = join_bias(case.cell, b_ih, b_hh)
        # In the order of struct Buffers; gradients are float32 for bf16 data too.
        self.buffers = {
            "x": problem.x, "w": permute(case.cell, w), "r": permute(case.cell, r), "bias": bias,
            "y": torch.empty(T, B, H, dtype=real), "h_n": torch.empty(B, H, dtype=real),
            "c_n": torch.empty(B, H), "dy": problem.dy.float(), "dx": torch.empty(T, B, I),
            "dw": torch.empty(G * H, I), "dr": torch.empty(G * H, H), "dbias": torch.empty_like(bias),
        }  # fmt: skip
        pointers = (ctypes.c_void_p * len(self.buffers))(*(b.data_ptr() for b in self.buffers.values()))
        bf16 = case.dtype == "bfloat16"
        shape = Shape(cell=case.cell.encode(), T=T, B=B, I=I, H=H, bf16=bf16, train=case.train)
        self.layer = self.library.fg_onednn_create(shape, pointers)
        if not self.layer:
            raise Unavailable(self.library.fg_onednn_error().decode())

    def close(self) -> None:
        self.library.fg_onednn_destroy(self.layer)
        self.layer = None

    def run(self) -> None:
        if self.library.fg_onednn_run(self.layer):
            raise RuntimeError(self.library.fg_onednn_error().decode())

    def results(self) -> dict[str, torch.Tensor]:
        names = ["y", "h_n"] + ["c_n"] * (self.cell == "lstm") + ["dx"] * self.train
        found = {name: self.buffers[name] for name in names}
        if self.train:
            found["dweight_ih"] = permute(self.cell, self.buffers["dw"])
            found["dweight_hh"] = permute(self.cell, self.buffers["dr"])
            found["dbias_ih"], found["dbias_hh"] = split_bias(self.cell, self.buffers["dbias"])
        return found


class Onednn:
    name = "onednn"

    def prepare(self, problem) -> OnednnRunner:
        if problem.case.dtype not in ("float32", "bfloat16") or problem.case.form != "layer":
            raise NotCompared
        return OnednnRunner(problem)
