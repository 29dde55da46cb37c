"""Samples in a new order each time round, for tasks whose samples stand alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._arguments import whole

_WINDOW = 50  # batches that are sorted by length together


class Shuffled:
    """Numbers of samples, for ever: each pass over `count` has an order of its own, drawn from `seed` and the
    number of the pass; what does not fill a batch at the end of a pass is left to the next order.

    batch: samples in a step, over all parts. part: the slice of them that comes out here (`Shard.of`).
    lengths: integers [count], of sequences: those in a batch are then of about one length, so that little is
    padded; the batches still come in random order.
    The position is a number of steps, so that it means the same to every part.
    Raises ValueError where there are fewer samples than one batch.

    Each item is int64 [N], the numbers of a batch or of the part of it.
    """

    def __init__(
        self, count: int, batch: int, seed: int, part: slice | None = None, lengths: Tensor | None = None
    ):
        self.count, self.batch = whole("count", count, 1), whole("batch", batch, 1)
        if count < batch:
            raise ValueError(f"batch: expected at most {count}, the number of samples, got {batch}")
        self._seed, self._part, self._lengths = whole("seed", seed, 0), part or slice(None), lengths
        self._step, self._pass, self._order = 0, -1, torch.empty(0, dtype=torch.int64)

    def __next__(self) -> tuple[Tensor, bool]:
        """int64 [B of this part]; and False: samples that stand alone carry nothing."""
        number, at = divmod(self._step, self.count // self.batch)
        if number != self._pass:
            self._order, self._pass = self._ordered(number), number
        self._step += 1
        return self._order[at * self.batch : (at + 1) * self.batch][self._part], False

    def _ordered(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + number) % 2**63)
        order = torch.randperm(self.count, generator=generator)
        if self._lengths is None:
            return order
        whole_batches = order[: self.count // self.batch * self.batch]
        windows = whole_batches.split(self.batch * _WINDOW)
        by_length = torch.cat([window[self._lengths[window].argsort(stable=True)] for window in windows])
        batches = by_length.view(-1, self.batch)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        # Or the last part of a batch would have the longest.
        return batches[:, torch.randperm(self.batch, generator=generator)].flatten()

    def state_dict(self) -> dict[str, int]:
        """The position: steps taken."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from what `state_dict` gave."""
        self._step = state["step"]


class Fetched:
    """What `fetch` makes of the numbers that `order` gives: a task's `Batches`.

    order: of ``Shuffled``. fetch: takes int64 [N], the numbers of a batch, and gives it, of any kind.
    Raises what ``fetch`` raises; errors in a state are those of ``Shuffled``.
    """

    def __init__(self, order: Shuffled, fetch: Callable[[Tensor], Any]):
        self._order, self._fetch = order, fetch

    def __next__(self) -> tuple[Any, bool]:
        """(what was fetched, False)"""
        index, begins = next(self._order)
        return self._fetch(index), begins

    def state_dict(self) -> dict[str, int]:
        """The position of `order`."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from what `state_dict` gave."""
        self._order.load_state_dict(state)
