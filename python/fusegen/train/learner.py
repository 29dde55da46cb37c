"""A run while it learns: all that training moves, one step of it, and its state to save and restore."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .._modes import Average
from .checkpoint import CheckpointError, fill
from .compare import Comparison
from .options import FitOptions, RunOptions
from .seeds import random_state, restore_random, seed_all
from .task import Losses, Task, Turn
from .update import make_optimizer, update
from .workers import Shard, Workers

WARM_UP = 0.05  # of all steps
FINAL_RATE = 0.02  # of the highest learning rate


def learning_rate(step: int, options: FitOptions) -> float:
    """Linear from 0 over the first `WARM_UP` of the steps, then half a cosine to `FINAL_RATE` of the top."""
    rise = max(1, round(WARM_UP * options.steps))
    if step < rise:
        return options.lr * (step + 1) / rise
    through = (step - rise) / max(1, options.steps - rise)
    return options.lr * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * through)) / 2)


class Learner:
    """A task's model with its optimisers, its share of the data and what is carried along.

    `done` counts steps. The learning rate and what a task changes on the way are functions of the step alone
    and need no state. Each process works on its share of every batch, in `accumulate` parts.
    """

    def __init__(self, task: Task, options: FitOptions, setup: RunOptions, workers: Workers):
        self.task, self.options, self.setup, self.workers = task, options, setup, workers
        self.done = 0
        self.best: float | None = None
        self.watch = task.watch(stop_when_diverged=setup.stop_when_diverged)
        task.model.to(workers.device, torch.float64 if setup.precision == "float64" else None)
        parts = setup.accumulate
        shards = [Shard(workers.rank * parts + part, workers.count * parts) for part in range(parts)]
        self._data = [task.data(shard) for shard in shards]
        self._carried: list[Any] = [None] * parts
        self._turns = [_Trained(turn, options, setup, workers) for turn in task.turns()]
        self._autocast = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(setup.precision)
        self._scaler = torch.amp.GradScaler(workers.device.type, enabled=setup.precision == "float16")
        self._average = None
        if setup.ema:
            self._average = AveragedModel(task.model, multi_avg_fn=self._averaging(setup), use_buffers=True)
        if workers.count > 1:
            # The weights are the first process's (DDP sends them); noise must not be the same everywhere.
            seed_all(options.seed + workers.rank)

    def _averaging(self, setup: RunOptions) -> Callable[..., None]:
        """How the average follows the weights."""
        if not setup.ema_warm_up:
            return get_ema_multi_avg_fn(setup.ema)
        average = Average(setup.ema)
        # The steps done are its number of updates; its own count would have to be read from the device.
        return lambda averages, now, _: average(averages, now, self.done)

    @property
    def measured(self) -> nn.Module:
        """The model that is evaluated and sampled: the average where there is one."""
        return self._average.module if self._average is not None else self.task.model

    def advance(self, comparison: Comparison | None = None) -> Mapping[str, Tensor]:
        """One step. Returns this process's losses from before it by name, the minimised one first.

        Each a float64 scalar on the device: reading one waits for all that is queued there.
        """
        self.task.at(self.done, self.options.steps)
        batches = [self._next(part) for part in range(len(self._data))]
        losses: Mapping[str, Tensor]
        if comparison is None:
            losses = self._take_turns(batches)
        else:
            clip, own = self.options.clip, lambda: self._take_turns(batches)
            losses = comparison.pair(self.task, batches[0], self._carried[0], clip, own)
        if self._average is not None:
            self._average.update_parameters(self.task.model)
        self.done += 1
        return losses

    def _next(self, part: int) -> Any:
        batch, begins = next(self._data[part])
        if begins:
            self._carried[part] = None
        return moved(batch, self.workers.device, self.setup.precision == "float64")

    def _take_turns(self, batches: list[Any]) -> dict[str, Tensor]:
        """Each turn that is due, in order, on the same batches. What the last of them carries is kept."""
        sums: dict[str, Tensor] = {}
        carried = self._carried
        for turn in self._turns:
            if self.done % turn.turn.every == 0:
                carried = self._take(turn, batches, sums)
        self._carried = carried
        return sums

    def _take(self, turn: "_Trained", batches: list[Any], sums: dict[str, Tensor]) -> list[Any]:
        """One update. Adds the means of its losses to `sums`, returns what is carried on."""
        for group in turn.optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.options) * turn.turn.rate
        scaler = self._scaler if self._scaler.is_enabled() else None
        carried, norm = update(
            turn.turn.module,
            turn.optimizer,
            lambda: self._backward(turn, batches, sums),
            self.options.clip,
            scaler=scaler,
        )
        if scaler is None:  # which skips what overflowed
            name = "gradient norm" if turn.turn.name == "model" else f"{turn.turn.name} gradient norm"
            sums[name] = norm.double()
        return carried

    def _backward(self, turn: "_Trained", batches: list[Any], sums: dict[str, Tensor]) -> list[Any]:
        """The gradients of all parts. Adds the means of the losses to `sums`, returns what is carried on."""
        carried, parts = [], len(batches)
        for part, batch in enumerate(batches):
            # Gradients are exchanged once, with the last part.
            with turn.exchange(part + 1 == parts):
                with self._lower_precision():
                    losses, state = turn.forward(batch, self._carried[part])
                losses = _named(losses, turn.turn.name)
                loss = next(iter(losses.values()))
                self._scaler.scale(loss / parts).backward()
            carried.append(state)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach().double() / parts
        return carried

    def _lower_precision(self) -> contextlib.AbstractContextManager:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.workers.device.type, self._autocast)

    def _fitting(self, carried: Any) -> Any:
        """A carried state for the model's precision, where it was saved under another one."""
        own = next(self.task.model.parameters()).dtype
        if carried is None:
            return None
        if isinstance(carried, Tensor):
            # Autocast brings to its own type what is not float64.
            return carried if self._autocast and carried.dtype != torch.float64 else carried.to(own)
        return tuple(self._fitting(part) for part in carried)

    # ---- state ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All of it; complete on the first process alone, and to be called by all."""
        carried = [part for own in self.workers.gather(moved(self._carried, "cpu")) for part in own]
        positions = [data.state_dict() for data in self._data]
        data = [position for own in self.workers.gather(positions) for position in own]
        return {
            "step": self.done,
            "best": self.best,
            "model": self.task.model.state_dict(),
            "optimizers": {turn.turn.name: turn.optimizer.state_dict() for turn in self._turns},
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": self._scaler.state_dict(),
            "data": data,
            "fingerprint": self.task.fingerprint(),
            "carried": carried,
            "watch": self.watch.state_dict(),
            "random": self.workers.gather(random_state(self.workers.device)),
        }

    def load_state_dict(self, state: Mapping[str, Any], path: Any) -> None:
        """Goes on from `state`, which was read from `path`.

        Exact with as many processes and parts as saved it, in the same precision; with others, the carried
        state is cut anew along the batch, and random numbers begin anew from the seed and the step.
        Raises CheckpointError for the state of another model, of other data or of other options.
        """
        fingerprint = self.task.fingerprint()
        if state["fingerprint"] != fingerprint:
            raise CheckpointError(f"checkpoint {path} does not fit: the data are not those of its run")
        fill(self.task.model, state["model"], path)
        if (state["average"] is None) != (self._average is None):
            raise CheckpointError(f"checkpoint {path} does not fit: one of the two has no ema")
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        for turn in self._turns:
            turn.optimizer.load_state_dict(state["optimizers"][turn.turn.name])
        if state["scaler"] and self._scaler.is_enabled():  # neither is where the precision is another
            self._scaler.load_state_dict(state["scaler"])
        parts = len(self._data)
        same = len(state["data"]) == parts * self.workers.count
        for part, data in enumerate(self._data):
            try:
                data.load_state_dict(state["data"][self.workers.rank * parts + part if same else 0])
            except ValueError as error:
                raise CheckpointError(f"checkpoint {path} does not fit: {error}") from error
        self.done, self.best = state["step"], state["best"]
        self.watch.load_state_dict(state.get("watch", {}))
        carried = _recut(state["carried"], parts * self.workers.count)
        own = carried[self.workers.rank * parts : (self.workers.rank + 1) * parts]
        self._carried = [self._fitting(moved(each, self.workers.device)) for each in own]
        if len(state["random"]) == self.workers.count:
            restore_random(state["random"][self.workers.rank], self.workers.device)
        else:
            seed_all(self.options.seed + self.workers.rank + (self.done << 20))


class _Trained:
    """A turn with its optimiser, its forward pass ready for several processes and for the compiler."""

    def __init__(self, turn: Turn, options: FitOptions, setup: RunOptions, workers: Workers):
        self.turn = turn
        self.optimizer = (turn.optimizer or make_optimizer)(turn.module, options.lr)
        forward: nn.Module = _Forward(turn)
        self._parallel = None
        if workers.count > 1:
            ids = [workers.device.index] if workers.device.type == "cuda" else None
            forward = self._parallel = DistributedDataParallel(forward, device_ids=ids)
        self.forward = torch.compile(forward) if setup.compile else forward

    def exchange(self, now: bool) -> contextlib.AbstractContextManager:
        if self._parallel is None or now:
            return contextlib.nullcontext()
        return self._parallel.no_sync()


class _Forward(nn.Module):
    """A turn's loss as a forward pass: DDP exchanges the gradients of what runs through one."""

    def __init__(self, turn: Turn):
        super().__init__()
        self.module, self._loss = turn.module, turn.loss

    def forward(self, batch: Any, carried: Any) -> tuple[Losses, Any]:
        return self._loss(self.module, batch, carried)


def _named(losses: Losses, turn: str) -> Mapping[str, Tensor]:
    if isinstance(losses, Tensor):
        return {"loss" if turn == "model" else f"{turn} loss": losses}
    return losses


def moved(tree: Any, device: torch.device | str, double: bool = False) -> Any:
    """The tensors in lists, tuples and dicts on `device`; double: those of real numbers as float64."""
    if isinstance(tree, Tensor):
        return tree.to(device, torch.float64 if double and tree.is_floating_point() else None)
    if isinstance(tree, list | tuple):
        return type(tree)(moved(each, device, double) for each in tree)
    if isinstance(tree, dict):
        return {name: moved(each, device, double) for name, each in tree.items()}
    return tree


def _recut(carried: list[Any], count: int) -> list[Any]:
    """The same carried state in `count` parts along the batch, dim 1."""
    if len(carried) == count or carried[0] is None:
        return carried if len(carried) == count else [None] * count
    if isinstance(carried[0], Tensor):
        return list(torch.cat(carried, 1).tensor_split(count, 1))
    return list(zip(*(_recut(list(each), count) for each in zip(*carried, strict=True)), strict=True))
