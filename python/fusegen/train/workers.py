"""The processes of one run, as torchrun starts them: their shares of the data, what they tell one another."""

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

ROLL_CALL = 5.0  # seconds that the others have to answer after a failure


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` equal parts of every batch, in the order of the ranks.

    Raises ValueError where a batch cannot be dealt out equally.
    """

    index: int = 0
    count: int = 1

    def of(self, total: int, argument: str = "batch") -> slice:
        """This part of `total` samples. Raises ValueError, naming `argument`, where they do not divide."""
        if total % self.count:
            raise ValueError(
                f"{argument}: expected a multiple of {self.count} (processes x accumulate), got {total}"
            )
        size = total // self.count
        return slice(self.index * size, (self.index + 1) * size)


class Workers:
    """This process among those of its run; alone unless torchrun started it.

    rank, count: which of how many. device: where this process computes. restarts: how often torchrun has
    begun the run anew after a failure.

    device: cpu, cuda, cuda:N or auto. timeout: seconds to wait for another process. Raises ValueError for a
    device that is not here; that the others do not come in time is torch.distributed's own error.
    """

    def __init__(self, device: str = "auto", timeout: float = 600.0):
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        self.device = device_named(device)
        self._group = None
        if self.count > 1:
            self._meet(timedelta(seconds=timeout))

    def _meet(self, timeout: timedelta) -> None:
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
        # torchrun keeps one store over its restarts: without a prefix, dead processes would be looked for.
        self._store = dist.PrefixStore(f"fusegen/{self.restarts}", store)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=self._store, rank=self.rank, world_size=self.count, timeout=timeout
        )
        # Plain numbers and objects travel between CPUs: nothing there waits for a GPU.
        self._group = dist.new_group(backend="gloo", timeout=timeout)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, measures and speaks."""
        return self.rank == 0

    def mean(self, values: list[float]) -> list[float]:
        """The mean of each value over the processes."""
        return [total / self.count for total in self._sum(values)]

    def any(self, flags: list[bool]) -> list[bool]:
        """Of each flag, whether any process raised it."""
        return [total > 0 for total in self._sum([float(flag) for flag in flags])]

    def _sum(self, values: list[float]) -> list[float]:
        if self.count == 1:
            return values
        totals = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(totals, group=self._group)
        return totals.tolist()

    def gather(self, own: Any) -> list[Any]:
        """What each process gave, by rank, on the first; an empty list on the others."""
        if self.count == 1:
            return [own]
        gathered = [None] * self.count if self.first else None
        dist.gather_object(own, gathered, dst=0, group=self._group)
        return gathered or []

    def broadcast(self, value: Any) -> Any:
        """The first process's value, on all."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def speak(self, line: str) -> None:
        """Says on stderr why this process ends. Of several that all end, the first speaks; the others wait
        until it has, since torchrun ends it once one of them is gone. One that ends alone speaks itself.
        """
        if self.count > 1 and not self.first:
            until = time.monotonic() + ROLL_CALL
            try:
                while time.monotonic() < until:
                    if self._store.check(["said"]):
                        return
                    time.sleep(0.05)
            except RuntimeError:  # the store went with the first process, which had spoken
                return
            line = f"rank {self.rank}: {line}"
        print(line, file=sys.stderr, flush=True)
        if self.count > 1 and self.first:
            with contextlib.suppress(RuntimeError):
                self._store.set("said", "")

    def missing(self) -> list[int]:
        """After a failure: the ranks that do not answer a roll call within `ROLL_CALL` seconds."""
        if self.count == 1:
            return []
        until = time.monotonic() + ROLL_CALL
        try:
            self._store.set(f"here/{self.rank}", "")
            absent = [rank for rank in range(self.count) if rank != self.rank]
            while absent and time.monotonic() < until:
                absent = [rank for rank in absent if not self._store.check([f"here/{rank}"])]
                time.sleep(0.05)
            return absent
        except RuntimeError:  # the store went with the process or the machine that kept it
            return [0]

    def leave(self) -> None:
        """Ends what connects the processes; nothing where this one is alone."""
        if self._group is not None:
            dist.destroy_process_group()
            self._group = None


def device_named(name: str) -> torch.device:
    """cpu, cuda (this process's own), cuda:N, or auto. Raises ValueError for what is not there."""
    local = os.environ.get("LOCAL_RANK")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    expected = f"device: expected cpu, cuda, cuda:N or auto, got {name!r}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(expected) from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(expected)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("device: torch sees no GPU here")
        if device.index is None:
            device = torch.device("cuda", int(local or 0))
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"device: {device} is not there, torch sees {torch.cuda.device_count()} GPU(s)")
        torch.cuda.set_device(device)
    return device
