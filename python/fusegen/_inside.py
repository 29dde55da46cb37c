"""What a recurrent layer may be asked to do inside its recurrence, beside its cell's maths."""

from __future__ import annotations

import struct
from typing import NamedTuple

from torch import Tensor

# Of masks: the order of `rates`, and the numbers by which their random words are told apart
# (csrc/kernels/philox.h). The last is not a layer's but of a discriminator's dropout.
STATE_DROPOUT, CANDIDATE_DROPOUT, ZONEOUT_H, ZONEOUT_C, WEIGHT_DROP, DISCRIMINATOR = range(6)


class Inside(NamedTuple):
    """One layer's, of D directions, as its op takes it.

    ``resets`` [T, B] bool: true where a sequence starts anew between the steps t-1 and t, from ``reset_h``
    [D, B, P] and ``reset_c`` [D, B, H], or zero. ``rates``: how likely an element of h is dropped where R
    reads it (one mask a sequence), one of the candidate (a mask a step), and a unit of h and of c keeps its
    old state (zoneout); or (). ``key``, of which masks are made, is an int64 on the CPU; ``layer`` is its
    number in the stack. Out of ``training`` nothing is dropped and zoneout takes its expectation.
    """

    resets: Tensor | None = None
    reset_h: Tensor | None = None
    reset_c: Tensor | None = None
    key: Tensor | None = None
    rates: tuple[float, ...] = ()
    layer: int = 0
    training: bool = True

    @property
    def expects(self) -> bool:
        """Whether h is a mean of the old and the new one."""
        return not self.training and bool(self.rates) and self.rates[ZONEOUT_H] > 0


def single(rate: float) -> float:
    """A probability as the kernels hold it, in float32."""
    rounded: float = struct.unpack("f", struct.pack("f", rate))[0]
    return rounded
