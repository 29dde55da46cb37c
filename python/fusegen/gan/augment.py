"""DiffAugment: the same random, differentiable changes of real and fake images before a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._arguments import check_floats

SHIFT = 1 / 8  # of an image's side, at most, by which translation moves it
HOLE = 1 / 2  # of an image's side: the side of the square that cutout empties


class DiffAugment(nn.Module):
    """Differentiable augmentation (Zhao et al. 2020, arXiv:2006.10738) of images [N, C, H, W], values in
    [-1, 1]: whatever D sees is changed at random, real and fake samples by the same rules, so that D cannot
    learn a small set of images by heart, and the generator does not learn the changes, since its gradient
    passes them.

    policy: some of "color", "translation", "cutout", as a sequence or with commas between, applied in this
    order, each image with draws of its own, with the paper's strengths:

    - color: brightness (a uniform number in [-0.5, 0.5) is added), saturation (the distance from the mean
      over channels times one in [0, 2); grey images have none), contrast (the distance from the image's mean
      times one in [0.5, 1.5));
    - translation: by whole pixels, up to 1/8 of the side each way, zeros moved in;
    - cutout: a square of half the side around a uniform place becomes 0; what lies outside is lost.

        augment = DiffAugment("color,translation,cutout")
        out = discriminator_step(D, augment(real), augment(fake.detach()), r1=10.0)
        generator_step(D, augment(fake)).loss.backward()  # through the changes

    So the step's path stays what D's is. A penalty is then that of D at the changed points, by its own input;
    for the gradient by the images themselves, through the changes, give nn.Sequential(augment, D) as the
    discriminator, which runs by autograd.

    Raises TypeError or ValueError, naming the argument, for a policy or images that do not fit.
    """

    def __init__(self, policy: str | Iterable[str] = "color,translation,cutout") -> None:
        super().__init__()
        self.policy = _policy(policy)

    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The images changed, of the same shape, dtype and device, with gradient to ``images``, of any order.

        generator: of the draws; by default torch's own of the images' device.
        """
        check_floats("images", images)
        if images.dim() != 4:
            raise ValueError(f"images: expected shape [N, C, H, W], got {list(images.shape)}")
        draw = _Draw(images, generator)
        for name in self.policy:
            images = _CHANGES[name](images, draw)
        return images

    def extra_repr(self) -> str:
        return repr(",".join(self.policy))


def _policy(given: str | Iterable[str]) -> tuple[str, ...]:
    """Its names in the order in which they are applied."""
    if not isinstance(given, Iterable):
        raise TypeError(f"policy: expected text or a sequence of it, got {type(given).__name__}")
    names = [str(name).strip() for name in (given.split(",") if isinstance(given, str) else given)]
    wrong = [name for name in names if name not in _CHANGES]
    if wrong or not names or len(set(names)) < len(names):
        got = given if isinstance(given, str) else ",".join(names)
        raise ValueError(
            f"policy: expected some of {', '.join(_CHANGES)}, each once, with commas between, got {got!r}"
        )
    return tuple(name for name in _CHANGES if name in names)


class _Draw:
    """Random numbers, one for each image."""

    def __init__(self, images: Tensor, generator: torch.Generator | None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
        self._like, self._generator = images, generator
        self._device = images.device if generator is None else generator.device

    def uniform(self) -> Tensor:
        """[N, 1, 1, 1] in [0, 1)"""
        like = self._like
        # In float32 whatever the images are, so that a seed gives the same changes in every precision.
        drawn = torch.rand(len(like), 1, 1, 1, device=self._device, generator=self._generator)
        return drawn.to(like.device, like.dtype)

    def whole(self, least: int, most: int) -> Tensor:
        """int64 [N] from least to most."""
        shape = (len(self._like),)
        drawn = torch.randint(least, most + 1, shape, device=self._device, generator=self._generator)
        return drawn.to(self._like.device)


def _color(x: Tensor, draw: _Draw) -> Tensor:
    x = x + (draw.uniform() - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (2 * draw.uniform())
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (draw.uniform() + 0.5)


def _translation(x: Tensor, draw: _Draw) -> Tensor:
    for dim in (2, 3):
        side = x.shape[dim]
        most = int(side * SHIFT + 0.5)
        shift = draw.whole(-most, most)
        # A zero on each side of the image is what a place outside it reads.
        padded = F.pad(x, (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0))
        place = torch.arange(1, side + 1, device=x.device) + shift[:, None]  # [N, side]
        place = place.clamp(0, side + 1).view(len(x), 1, *((side, 1) if dim == 2 else (1, side)))
        x = padded.gather(dim, place.expand(x.shape))
    return x


def _cutout(x: Tensor, draw: _Draw) -> Tensor:
    inside = []
    for dim in (2, 3):
        side = x.shape[dim]
        hole = int(side * HOLE + 0.5)
        # Centres lie anywhere on the image, for an even hole on its edges too: each begins a pixel later.
        begin = draw.whole(0, side - hole % 2) - hole // 2
        place = torch.arange(side, device=x.device) - begin[:, None]
        within = (place >= 0) & (place < hole)
        inside.append(within.view(len(x), 1, *((side, 1) if dim == 2 else (1, side))))
    return x.masked_fill(inside[0] & inside[1], 0.0)


_CHANGES: dict[str, Callable[[Tensor, _Draw], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
