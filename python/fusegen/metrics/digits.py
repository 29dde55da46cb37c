"""A small classifier of scikit-learn's digits, whose features stand in for Inception's where there is no
download. Figures with it are "digits Frechet distance" and so on, never FID."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._arguments import whole
from ..data.pictures import digits

TRAINED_ON = 1500  # of the 1,797 digits, drawn once; the others measure the accuracy
_SIDE = 28


class DigitsClassifier(nn.Module):
    """Two convolutions, 64 features, 10 logits. Images [N, 1, H, W] in [-1, 1] of any size, which are brought
    to 28 x 28.

    ``features(x)`` [N, 64] feed the last layer; ``forward(x)`` are the logits. accuracy: on the digits that
    it has not seen, once ``digits_classifier`` has trained it.

    In place of the Inception network of Salimans et al. 2016 (arXiv:1606.03498); its figures are never
    called FID or IS.
    """

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(24 * 7 * 7, self.num_features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(self.num_features, 10)
        self.accuracy = float("nan")

    def features(self, x: Tensor) -> Tensor:
        """x: [N, 1, H, W] -> [N, 64]. Raises ValueError for another shape."""
        if x.dim() != 4 or x.shape[1] != 1:
            raise ValueError(f"images: expected grey ones [N, 1, H, W], got shape {list(x.shape)}")
        if x.shape[2:] != (_SIDE, _SIDE):
            x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True)
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, 1, H, W] -> logits [N, 10]. Raises ValueError for another shape."""
        return self.head(self.features(x))


@lru_cache(maxsize=2)
def digits_classifier(seed: int = 0) -> DigitsClassifier:
    """The classifier, trained in a few seconds; the same seed, torch and thread count give the same one, kept
    for this process. In evaluation mode, without gradients. torch's global random numbers are not moved.

    Raises ModuleNotFoundError where scikit-learn is missing, RuntimeError if it learnt too little.

    The layers are those of ``DigitsClassifier``, for features as Heusel et al. 2017 (arXiv:1706.08500) use
    Inception's.
    """
    seed = whole("seed", seed, 0, 2**63 - 1)
    data = digits(_SIDE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, y = data.samples(), torch.as_tensor(data.labels)
        order = torch.randperm(len(data))
        seen, unseen = order[:TRAINED_ON], order[TRAINED_ON:]
        model = DigitsClassifier()
        with torch.enable_grad():
            _train(model, x[seen], y[seen])
    model.eval().requires_grad_(False)
    model.accuracy = (model(x[unseen]).argmax(1) == y[unseen]).double().mean().item()
    if model.accuracy < 0.95:
        raise RuntimeError(f"the digits classifier has learnt too little: accuracy {model.accuracy:.3f}")
    return model


def _train(model: nn.Module, x: Tensor, y: Tensor, epochs: int = 16, batch: int = 50) -> None:
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            # Shifts of up to two pixels and a little noise: features of strokes, not of places and values.
            dy, dx = torch.randint(-2, 3, (2,)).tolist()
            shifted = x[index].roll((dy, dx), (2, 3))
            F.cross_entropy(model(shifted + 0.1 * torch.randn_like(shifted)), y[index]).backward()
            optimizer.step()
            schedule.step()
