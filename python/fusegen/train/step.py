"""What is learnt (`Task`), and one step of learning it."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Task(Protocol):
    """What is learnt, and from what. It holds nothing that training moves but the model's weights."""

    model: nn.Module

    def batch(self, step: int) -> Any:
        """What step `step` (from 0) trains on: always the same for the same step."""

    def carry(self, step: int, carried: Any) -> Any:
        """What step `step` starts from: what the one before returned, or None where the data begin anew."""

    def loss(self, model: nn.Module, batch: Any, carried: Any) -> tuple[Tensor, Any]:
        """The loss to minimise, and what the next step may start from (a recurrent state, say), detached."""

    def evaluate(self) -> dict[str, float]:
        """Measures on held-out data by name, the one that matters first."""


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam over the model's parameters."""
    # beta2 below torch's 0.999: runs here are short, and the large first gradients must be forgotten in time.
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.95), fused=True)


def training_step(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, carried: Any, clip: float
) -> tuple[float, Any]:
    """Forward, backward, gradients clipped to length `clip`, update.

    Returns the loss before the update, and what to carry to the next step.
    """
    loss, carried = task.loss(model, batch, carried)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item(), carried
