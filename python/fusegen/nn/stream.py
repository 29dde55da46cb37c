"""fusegen.Stream: a layer, a stack or a cell a step at a time, its state kept inside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import _C
from ..ops import route
from ..ops.checks import DTYPES
from ._base import Recurrent
from .cells import RecurrentCell
from .convert import converted, recurrent_modules
from .normalised import normalised_module
from .quantized import Quantized

States = Tensor | tuple[Tensor, Tensor]


class Stream:
    """A recurrent module prepared for step-by-step inference on the CPU: voice activity, keyword spotting,
    control loops, anything that gets its input bit by bit.

    ``stream(x)`` runs the next step, or a block of steps, from where the last call ended. Weights are copied
    and packed and all memory is taken when the stream is made (but for larger blocks than any before), and a
    call records no gradients: changes of the module made later are not seen. ``batch`` independent sessions
    run side by side, a row each.

    Args:
        module: a LSTM, GRU or RNN, a stack of them (num_layers), or a cell, of fusegen.nn or torch.nn; or a
            model in which there is exactly one. Projections are taken, both directions and zoneout are not.
            Dropout, recurrent and between layers, and weight drop are those of inference: none.
        batch: rows of x, each a session.
        threads: that share a call; more than one pays where the weights do not fit one core's L2 cache.

    Raises TypeError if ``module`` is not a Module; ValueError for one that is quantized, with nothing
    recurrent in it, with more than one recurrent module, bidirectional, on another device than the CPU, or
    of another dtype than float32, bfloat16, float16 or float64, and for ``batch`` or ``threads`` below 1.
    """

    def __init__(self, module: nn.Module, batch: int = 1, *, threads: int = 1) -> None:
        for name, n in (("batch", batch), ("threads", threads)):
            if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                raise ValueError(f"fusegen.Stream: expected {name} to be an integer of 1 or more, got {n!r}")
        own = _one_recurrent(module)
        with converted(own), torch.no_grad():
            cell, layers = _weights(own)
        W, R = layers[0][0], layers[0][1]
        assert W is not None and R is not None
        self._stack = _C.Stream(cell, layers, batch, threads)
        self.batch, self.threads, self.dtype = batch, threads, W.dtype
        self.input_size, self.output_size = W.shape[1], R.shape[1]
        self.hidden_size: int = own.hidden_size  # type: ignore[assignment]
        self.num_layers, self._has_c = len(layers), cell == "lstm"
        self._outputs: dict[int | None, tuple[Tensor, Any]] = {}
        self._room = self._empty(0)
        self._all = torch.arange(batch, device="cpu")

    def __call__(self, x: Tensor | np.ndarray[Any, Any], copy: bool = False) -> Any:
        """The next step or steps.

        x: [B, I], or a block [T, B, I], a tensor or a numpy array of the stream's dtype. Gives y [B, P] or
        [T, B, P], of x's kind: memory of the stream, which the next call writes again, unless ``copy``.
        Threads that share a stream take turns, and need ``copy``.

        Raises ValueError for another batch, input size, dtype or device.
        """
        if isinstance(x, np.ndarray):
            y, as_numpy = self._new_output(x, None) if copy else self._output(x)
            self._stack.run(torch.from_numpy(np.ascontiguousarray(x)), y)
            return as_numpy
        if not isinstance(x, Tensor):
            raise TypeError(
                f"fusegen.Stream: expected x to be a Tensor or a numpy array, got {type(x).__name__}"
            )
        if not x.is_cpu:
            raise ValueError(f"fusegen.Stream: expected x on the CPU, got a tensor on {x.device}")
        if not route.is_seen_by_nobody(x):
            x = self._plain(x)
        y = (self._new_output(x, None) if copy else self._output(x))[0]
        self._stack.run(x if x.is_contiguous() else x.contiguous(), y)
        return y

    def reset(self, rows: Iterable[int] | Tensor | None = None) -> None:
        """Begins all sessions, or those of ``rows``, anew: their states are zero. Raises ValueError for a row
        that there is not."""
        self._stack.set_states(self._rows(rows), None, None)

    @property
    def state(self) -> States:
        """A copy of the states: h [L, B, P], or of a LSTM (h, c [L, B, H]). Can be set to such, None being
        zero; raises ValueError for one that does not fit."""
        return self.state_of(None)

    @state.setter
    def state(self, states: States | None) -> None:
        self.set_state_of(None, states)

    def state_of(self, rows: Iterable[int] | Tensor | None) -> States:
        """The states of these sessions, as ``state``: B is the number of rows."""
        which = self._rows(rows)
        h = self._empty(self.num_layers, len(which), self.output_size)
        c = self._empty(self.num_layers, len(which), self.hidden_size) if self._has_c else None
        self._stack.get_states(which, h, c)
        return h if c is None else (h, c)

    def set_state_of(self, rows: Iterable[int] | Tensor | None, states: States | None) -> None:
        """Sets the states of these sessions, in the form that ``state_of`` gives."""
        which = self._rows(rows)
        if not isinstance(states, (Tensor, tuple, list, type(None))):
            raise ValueError(
                f"fusegen.Stream: expected state as tensors or None, got {type(states).__name__}"
            )
        given = (states,) if isinstance(states, Tensor) else (None, None) if states is None else tuple(states)
        sizes = (self.output_size, self.hidden_size)[: 1 + self._has_c]
        if states is not None and len(given) != len(sizes):
            raise ValueError(
                f"fusegen.Stream: expected {('a tensor h', 'a pair (h, c)')[self._has_c]} as state, got "
                f"{len(given)} tensors"
            )
        for name, s, size in zip("hc", given, sizes, strict=False):
            shape = (self.num_layers, len(which), size)
            fits = isinstance(s, Tensor) and s.shape == shape and s.dtype == self.dtype and s.is_cpu
            if s is not None and not fits:
                came = type(s).__name__
                if isinstance(s, Tensor):
                    came = f"{tuple(s.shape)} of {s.dtype} on {s.device}"
                raise ValueError(
                    f"fusegen.Stream: expected the state {name} of shape {shape} and {self.dtype} on the "
                    f"CPU, got {came}"
                )
        h, c = (*(None if s is None else self._plain(s).contiguous() for s in given), None)[:2]
        self._stack.set_states(which, h, c)

    def __reduce__(self) -> Any:
        """Refuses copies and pickles by TypeError: packed weights and states are memory of the engine."""
        raise TypeError(
            "fusegen.Stream: a stream cannot be copied or pickled; make another from its module, and set its "
            "state to this one's"
        )

    def __repr__(self) -> str:
        return (
            f"Stream({self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"batch={self.batch}, threads={self.threads}, dtype={self.dtype})"
        )

    def _output(self, x: Any) -> tuple[Tensor, Any]:
        """The stream's memory of y for this x, as a tensor and as an array: one for blocks of all lengths, of
        the size of the longest."""
        T = x.shape[0] if x.ndim == 3 else None
        try:
            return self._outputs[T]
        except KeyError:
            room = self._room
            if room.numel() < (n := (T or 1) * self.batch * self.output_size):
                room = self._room = self._empty(n)
                self._outputs.clear()
            return self._outputs.setdefault(T, self._new_output(x, room))

    def _new_output(self, x: Any, room: Tensor | None) -> tuple[Tensor, Any]:
        """The same in this room, or in memory of its own."""
        shape = (*(x.shape[:1] if x.ndim == 3 else ()), self.batch, self.output_size)
        y = self._empty(*shape) if room is None else room[: math.prod(shape)].view(shape)
        return y, None if self.dtype == torch.bfloat16 else y.numpy()

    def _rows(self, rows: Iterable[int] | Tensor | None) -> Tensor:
        if rows is None:
            return self._all
        if isinstance(rows, Tensor):
            right = rows.dim() == 1 and not rows.is_floating_point() and rows.dtype != torch.bool
            if right and not rows.is_complex():
                return rows.to("cpu", torch.int64).contiguous()
        elif isinstance(rows, Iterable):
            listed = [*rows]
            if all(isinstance(row, (int, np.integer)) and not isinstance(row, bool) for row in listed):
                return torch.tensor(listed, dtype=torch.int64, device="cpu")
        raise ValueError(f"fusegen.Stream: expected rows as a list of integers, got {rows!r}")

    def _plain(self, t: Tensor) -> Tensor:
        """t as the engine may read it: not of a trace or a transform, and with its sign in its numbers."""
        route.check_without_op("fusegen.Stream", (t,))
        return t.detach().resolve_neg()

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device="cpu")


def _one_recurrent(module: nn.Module) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise TypeError(f"fusegen.Stream: expected a torch.nn.Module, got {type(module).__name__}")
    found = recurrent_modules(module)
    for name, m in module.named_modules():
        if isinstance(m, Quantized):
            raise ValueError(
                f"fusegen.Stream: {name or 'the module'} ({type(m).__name__}) is quantized; "
                "fusegen.dequantize(module) gives one to stream"
            )
    if (other := normalised_module(module)) is not None:
        raise ValueError(f"fusegen.Stream: {other} has norms or blocks, which a stream's kernels lack")
    if len(found) != 1:
        names = ", ".join(name for name, _ in found) or "none"
        raise ValueError(
            f"fusegen.Stream: expected {type(module).__name__} to have one recurrent layer, stack or cell, "
            f"got {names}"
        )
    return found[0][1]


def _weights(m: nn.Module) -> tuple[str, Sequence[Sequence[Tensor | None]]]:
    """The cell as the engine names it, and of each layer W, R, b_ih, b_hh and for LSTM W_hr."""
    assert isinstance(m, (Recurrent, RecurrentCell))
    what = f"fusegen.Stream: {m._get_name()}"
    if getattr(m, "bidirectional", False):
        raise ValueError(f"{what} is bidirectional: its reverse direction begins where the sequence ends")
    if isinstance(m, Recurrent):
        if m._zones:
            raise ValueError(f"{what} has zoneout={m.zoneout}, whose mean of states a stream does not take")
        spec, relu = m._spec, m.mode == "RNN_RELU"
        layers = [m._weights(layer) for layer in range(m.num_layers)]
    else:
        spec, relu = m._op.spec, getattr(m, "nonlinearity", "tanh") == "relu"
        layers = [[*m._weights(), *[None] * (len(spec.weights) - 4)]]
    for w in (w for weights in layers for w in weights if w is not None):
        if w.device.type != "cpu" or w.dtype not in DTYPES:
            dtypes = ", ".join(map(str, DTYPES))
            raise ValueError(f"{what}: expected weights on the CPU of {dtypes}, got {w.dtype} on {w.device}")
    return spec.engine_name(relu), [
        [None if w is None else w.detach().contiguous() for w in ws] for ws in layers
    ]
