"""What an answer is attributed from: a score for each sample, as a function of what the model reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..._modes import evaluating
from ..recording.names import nearest

Model = nn.Module | Callable[[Tensor], Any]
Target = int | Tensor | Callable[[Any], Tensor]


@contextmanager
def in_evaluation(model: Model) -> Iterator[None]:
    """A Module in evaluation mode, each part back in its own mode afterwards; a function as it is."""
    if isinstance(model, nn.Module):
        with evaluating(model):
            yield
    else:
        yield


class Question:
    """A model, what it reads, and which of its outputs is asked about.

    x: a tensor whose dim ``batch_dim`` is the batch. target: a class, or a class a sample [B], of an output
    [B, C] (a tuple's first entry is the output); or a function of the output that gives [B]. at: None, or
    the module (or its name) whose output takes the place of x: an embedding's, where x are tokens.
    """

    def __init__(
        self,
        what: str,
        model: Model,
        x: Tensor,
        target: Target,
        *,
        batch_dim: int,
        at: nn.Module | str | None,
        differentiates: bool = True,
    ) -> None:
        if not callable(model):
            raise TypeError(f"{what}: expected a Module or a function, got {type(model).__name__}")
        if not isinstance(x, Tensor):
            raise TypeError(f"{what}: expected x to be a Tensor, got {type(x).__name__}")
        if not 0 <= batch_dim < x.dim():
            raise ValueError(f"{what}: expected batch_dim in 0..{x.dim() - 1}, got {batch_dim}")
        self.what, self.model, self.x, self.target, self.batch_dim = what, model, x, target, batch_dim
        self.batch = x.shape[batch_dim]
        self.at = None if at is None else self._module(at)
        if differentiates and self.at is None and not x.is_floating_point():
            raise TypeError(f"{what}: expected at=, the embedding, for x of {x.dtype}, which has no gradient")

    def _module(self, at: nn.Module | str) -> nn.Module:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"{self.what}: expected a Module for at=, got {type(self.model).__name__}")
        named: dict[str, nn.Module] = dict(self.model.named_modules())
        if isinstance(at, nn.Module):
            if not any(at is m for m in named.values()):
                raise ValueError(f"{self.what}: expected at= as a part of the model, got another module")
            return at
        if at not in named:
            raise ValueError(f"{self.what}: no module is named {at!r}{nearest(at, named)}")
        return named[at]

    def read(self) -> Tensor:
        """What the score is a function of: x, or what ``at`` gives, detached."""
        if self.at is None:
            return self.x.detach()
        seen: list[Tensor] = []
        hook = self.at.register_forward_hook(lambda m, args, out: seen.append(out))
        try:
            with torch.no_grad():
                self.model(self.x)
        finally:
            hook.remove()
        if len(seen) != 1 or not isinstance(seen[0], Tensor):
            raise ValueError(f"{self.what}: expected at= to give one tensor a call, got {len(seen)} outputs")
        return seen[0].detach()

    def score(self, value: Tensor) -> Tensor:
        """[B], of ``value`` in place of what is read."""
        if self.at is None:
            return self._scored(self.model(value))
        hook = self.at.register_forward_hook(lambda m, args, out: value)
        try:
            return self._scored(self.model(self.x))
        finally:
            hook.remove()

    def of_input(self, x: Tensor) -> Tensor:
        """[B], of another x."""
        return self._scored(self.model(x))

    def _scored(self, out: Any) -> Tensor:
        if callable(self.target) and not isinstance(self.target, Tensor):
            scores = self.target(out)
        else:
            out = out[0] if isinstance(out, (tuple, list)) else out
            if not isinstance(out, Tensor) or out.dim() != 2 or out.shape[0] != self.batch:
                shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise ValueError(
                    f"{self.what}: expected an output [{self.batch}, classes] for a target that is a class, "
                    f"got {shape}; give a function of the output as the target"
                )
            classes = torch.as_tensor(self.target, device=out.device).long().expand(self.batch)
            if ((classes < 0) | (classes >= out.shape[1])).any():
                raise ValueError(f"{self.what}: expected target in 0..{out.shape[1] - 1}, got {self.target}")
            scores = out.gather(1, classes.unsqueeze(1)).squeeze(1)
        if not isinstance(scores, Tensor) or scores.shape != (self.batch,):
            shape = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"{self.what}: expected the target to give [{self.batch}], got {shape}")
        return scores
