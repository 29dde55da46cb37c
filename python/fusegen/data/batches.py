"""Samples in a new order each time round, for tasks whose samples stand alone."""

import torch
from torch import Tensor

from .._arguments import whole


class Shuffled:
    """Numbers of samples, for ever: each pass over `count` has an order of its own, drawn from `seed` and the
    number of the pass; what does not fill a batch at the end of a pass is left to the next order.

    batch: samples in a step, over all parts. part: the slice of them that comes out here (`Shard.of`).
    The position is a number of steps, so that it means the same to every part.
    Raises ValueError where there are fewer samples than one batch.
    """

    def __init__(self, count: int, batch: int, seed: int, part: slice | None = None):
        self.count, self.batch = whole("count", count, 1), whole("batch", batch, 1)
        if count < batch:
            raise ValueError(f"batch: expected at most {count}, the number of samples, got {batch}")
        self._seed, self._part = whole("seed", seed, 0), part or slice(None)
        self._step, self._pass, self._order = 0, -1, torch.empty(0, dtype=torch.int64)

    def __next__(self) -> tuple[Tensor, bool]:
        """int64 [B of this part]; and False: samples that stand alone carry nothing."""
        number, at = divmod(self._step, self.count // self.batch)
        if number != self._pass:
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + number) % 2**63)
            self._order, self._pass = torch.randperm(self.count, generator=generator), number
        self._step += 1
        return self._order[at * self.batch : (at + 1) * self.batch][self._part], False

    def state_dict(self) -> dict[str, int]:
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._step = state["step"]
