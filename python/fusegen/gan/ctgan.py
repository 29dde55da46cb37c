"""The fused step in the training loop of the ``ctgan`` package (Xu et al. 2019, arXiv:1907.00503):

from fusegen.gan.ctgan import fused_critic
with fused_critic():
    CTGAN(epochs=300).fit(table, discrete_columns)
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import whole
from .step import discriminator_step, generator_step

_MODULE = "ctgan.synthesizers.ctgan"


@contextmanager
def fused_critic(discriminator_steps: int = 1) -> Iterator[None]:
    """Within it, ``ctgan.CTGAN.fit`` makes a critic whose turn is one ``discriminator_step``: its Wasserstein
    loss and penalty on packed samples, Dropout's masks included, to the gradients that the package's own code
    has for the same masks and interpolates.

    discriminator_steps: CTGAN's option of that name. The generator's gradient passes through the critic
    without those of its weights, which the package computes and drops. It replaces the package's class while
    it is open, for all threads. Raises ImportError without ctgan, TypeError or ValueError for a count below
    1, and ``fit`` ValueError for one that is not CTGAN's.
    """
    module: Any = importlib.import_module(_MODULE)
    steps, before = whole("discriminator_steps", discriminator_steps, 1), module.Discriminator

    def made(*args: Any, **options: Any) -> FusedCritic:
        module.Discriminator = before  # by which name its own __init__ finds its base
        try:
            critic = before(*args, **options)  # within another such block a fused one
            return FusedCritic(critic.critic if isinstance(critic, FusedCritic) else critic, steps)
        finally:
            module.Discriminator = made

    module.Discriminator = made
    try:
        yield
    finally:
        module.Discriminator = before


class FusedCritic(nn.Module):
    """A critic of ctgan's as its loop calls one: fake samples, real samples, their penalty, so many times;
    then the generator's fake samples.

    critic: the package's Discriminator. steps: turns of the critic for one of the generator.
    ``fused_critic`` makes one; its errors are there.
    """

    def __init__(self, critic: nn.Module, steps: int) -> None:
        super().__init__()
        self.critic, self.steps = critic, steps
        self._turns, self._logits = 0, list[Tensor]()

    def _out_of_step(self) -> ValueError:
        return ValueError(
            "discriminator_steps: expected that of CTGAN's own options, by which its critic's calls are told "
            f"from its generator's, got {self.steps}"
        )

    @property
    def _inner(self) -> tuple[nn.Module, int]:
        """The network that the critic packs samples for, and how many."""
        critic: Any = self.critic
        return critic.seq, critic.pac

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N / pac]: in the generator's turn their mean, which is all that the loop takes of them; in
        its own zeros, until ``calc_gradient_penalty`` puts the values in."""
        D, pac = self._inner
        if len(self._logits) == 2:
            raise self._out_of_step()
        if self._turns == self.steps:
            self._turns = 0
            return -generator_step(D, x, "wasserstein", pac=pac).loss
        self._logits.append(x.new_zeros(len(x) // pac, requires_grad=torch.is_grad_enabled()))
        return self._logits[-1]

    def calc_gradient_penalty(
        self, real_data: Tensor, fake_data: Tensor, device: Any = "cpu", pac: int = 10, lambda_: float = 10
    ) -> Tensor:
        """The whole step: the loop's own loss of the logits adds nothing to its gradient."""
        if len(self._logits) != 2:
            raise self._out_of_step()
        D, _ = self._inner
        real, fake = real_data.detach(), fake_data.detach()
        out = discriminator_step(D, real, fake, "wasserstein", gp=lambda_, pac=pac)
        for given, z in zip(self._logits, (out.fake_logits, out.real_logits), strict=True):
            if z is not None:
                given.data.copy_(z)
        self._logits, self._turns = [], self._turns + 1
        return out.loss
