"""How long units hold what they have."""

from __future__ import annotations

from torch import Tensor

from ..recording.recorded import Plane


def time_constants(plane: Plane) -> Tensor:
    """How many steps each unit keeps what it holds, [U] in float64: 1 / (1 - f), f being the share of the old
    state that a step keeps (Tallec and Ollivier 2018, arXiv:1804.11188, section 2).

    plane: of ``record``, with the gate that keeps: f of an LSTM, z of a GRU (1 - z where the form of a
    normalised one has them the other way round). f is its geometric mean over the recorded steps of all
    sequences, since what is kept over steps is a product of gates; padding is left out. 1 where nothing is
    kept, infinite where all is. Zoneout, and what comes back through the recurrent matrix, are not counted.

    Raises ValueError for an RNN, which has no such gate, and where nothing was recorded of it.
    """
    kept = plane.keep.double()[plane.mask.to(plane.keep.device)]
    if not len(kept):
        raise ValueError(f"fusegen.inspect.time_constants: {plane!r} has no step of any sequence")
    return 1 / (1 - kept.log().mean(0).exp())
