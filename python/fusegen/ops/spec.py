"""What tells one recurrent cell from another: the table from which their ops are made, on either device.

A new cell is an entry here, its formula in ``reference``, and its kernels.
"""

from __future__ import annotations

from typing import NamedTuple

_WEIGHTS = ("W", "R", "b_ih", "b_hh")


class CellSpec(NamedTuple):
    """A recurrent cell: h = f(W x + b_ih, R h + b_hh)."""

    name: str  # "lstm": of its op, and in the table of measurements
    gates: int  # G: W is [G*H, I], R [G*H, P]
    states: tuple[str, ...]  # what a step hands to the next
    weights: tuple[str, ...]  # of one direction of a layer; a cell has the first four
    saved: tuple[str, ...]  # what backward needs of forward; where there is nothing, h itself
    # as the engine and torch's own operators name it; a cell with two of them takes ``relu``: (without, with)
    engine_names: tuple[str, ...]

    @property
    def has_relu(self) -> bool:
        """Whether a call chooses between two activations."""
        return len(self.engine_names) == 2

    def engine_name(self, relu: bool) -> str:
        """One of ``engine_names``."""
        return self.engine_names[relu]


LSTM = CellSpec("lstm", 4, ("h", "c"), (*_WEIGHTS, "W_hr"), ("gates", "cells"), ("lstm",))
GRU = CellSpec("gru", 3, ("h",), _WEIGHTS, ("gates",), ("gru",))
RNN = CellSpec("rnn", 1, ("h",), _WEIGHTS, (), ("rnn_tanh", "rnn_relu"))

CELLS = (LSTM, GRU, RNN)
WEIGHTS_OF_A_CELL = len(_WEIGHTS)


class Form(NamedTuple):
    """What tells the op of a layer, over a sequence, from that of a cell, one step: the names in its schema.

    ``inputs``, ``outputs`` and ``gradients`` are those of a cell with two states; one with one lacks the
    last.
    """

    suffix: str
    inputs: tuple[str, str, str]  # x and the states
    outputs: tuple[str, ...]
    gradients: tuple[str, ...]
    has_lengths: bool


LAYER = Form("", ("x", "h0", "c0"), ("y", "h_n", "c_n"), ("dy", "dh_n", "dc_n"), True)
CELL = Form("_cell", ("x", "h", "c"), ("h_out", "c_out"), ("dh", "dc"), False)
