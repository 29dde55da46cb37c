"""A mixture of Bernoullis fitted by EM (Bishop 2006, 9.3.3): what a VAE of binarised images has to beat."""

from __future__ import annotations

import torch
from torch import Tensor


class BernoulliMixture:
    """K components over D pixels. x: {0, 1} [N, D], computed in float64.

    pseudo: imaginary images all on and all off beside each component's own, so that no pixel is impossible.
    """

    def __init__(self, x: Tensor, K: int, seed: int, pseudo: float = 1.0):
        self._x, self._pseudo = x.double(), pseudo
        generator = torch.Generator().manual_seed(seed)
        self.log_weights = torch.full((K,), -float(torch.tensor(K).log()), dtype=torch.float64)
        # Each begins near an image of its own.
        centres = self._x[torch.randperm(len(x), generator=generator)[:K]]
        self.chances = 0.25 + 0.5 * centres

    def fit(self, steps: int = 500, until: float = 1e-8) -> BernoulliMixture:
        """EM until the objective (log likelihood and pseudo-counts) grows by less than `until` of itself."""
        before = -torch.inf
        for _ in range(steps):
            joint = self._joint(self._x)
            shares = (joint - joint.logsumexp(1, keepdim=True)).exp()  # [N, K]
            counts = shares.sum(0)
            now = self.objective()
            if now - before <= until * abs(now):
                break
            before = now
            self.log_weights = ((counts + self._pseudo) / (len(self._x) + len(counts) * self._pseudo)).log()
            self.chances = (shares.T @ self._x + self._pseudo) / (counts + 2 * self._pseudo).unsqueeze(1)
        return self

    def objective(self) -> float:
        """What EM raises: log p of the images and of the pseudo-counts."""
        prior = self.log_weights.sum() + self.chances.log().sum() + (1 - self.chances).log().sum()
        return (self.log_likelihood(self._x).sum() + self._pseudo * prior).item()

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p of each image, [N], in nats."""
        return self._joint(x.double()).logsumexp(1)

    def _joint(self, x: Tensor) -> Tensor:
        on, off = self.chances.log(), (1 - self.chances).log()
        return x @ on.T + (1 - x) @ off.T + self.log_weights


def best_of(training: Tensor, test: Tensor, K: int = 10, restarts: int = 10) -> float:
    """Nats per test image of the best of several fits, chosen on the test images: no fit does better."""
    fits = (BernoulliMixture(training, K, seed).fit() for seed in range(restarts))
    return min(-fit.log_likelihood(test).mean().item() for fit in fits)
