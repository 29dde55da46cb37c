"""One update of what an optimiser holds: gradients, their length checked and cut, the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .task import Task

T = TypeVar("T")


def update(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    backward: Callable[[], T],
    clip: float = 0.0,
    *,
    scaler: Any = None,
    check: Callable[[Tensor], None] | None = None,
) -> tuple[T, Tensor]:
    """Moves the weights of `module` once, in place. Returns what `backward` did, and the gradient's length.

    backward: leaves gradients in the parameters, which are without any before it. clip: a longer gradient is
    scaled down to this length; 0: none is. scaler: a GradScaler that `backward` scaled the loss by. check: is
    given the length, before it is cut, on the device; where it raises, no weight has moved, and no gradient
    is left.
    """
    optimizer.zero_grad(set_to_none=True)
    result = backward()
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
    if check is not None:
        try:
            check(norm)
        except BaseException:
            optimizer.zero_grad(set_to_none=True)
            raise
    if clip:
        nn.utils.clip_grads_with_norm_(module.parameters(), clip, norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return result, norm.detach()


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam over the model's parameters."""
    # beta2 below torch's 0.999: runs here are short, and the large first gradients must be forgotten in time.
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.95), fused=True)


def training_step(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, carried: Any, clip: float
) -> tuple[Tensor, Any]:
    """One step of a task with one turn and one loss: what `Learner` does, at its plainest.

    Returns the loss before the update, on the device, and what to carry to the next step.
    """

    def backward() -> tuple[Tensor, Any]:
        loss, state = task.loss(model, batch, carried)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss: expected one Tensor, got {type(loss).__name__}")
        loss.backward()
        return loss.detach(), state

    return update(model, optimizer, backward, clip)[0]
