"""What single units of a network draw, and where a discriminator looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ... import _arguments
from ..._modes import evaluating
from ...models import GAN, RecurrentGAN
from ...nn._base import Layers
from ...nn.cells import Cell
from ..dynamics.interventions import ablate, unit_dim


class UnitEffects(NamedTuple):
    """units: the K numbers, in the order asked for; change [K], float64: the mean absolute change of what is
    made when a unit is silent; maps [K, ...]: the mean change (silent less whole), averaged over the samples,
    in the shape of one."""

    units: tuple[int, ...]
    change: Tensor
    maps: Tensor

    def strongest(self) -> list[int]:
        """Rows of ``units``, those of the largest change first."""
        rows: list[int] = self.change.argsort(descending=True, stable=True).tolist()
        return rows


def unit_effects(
    model: nn.Module,
    make: Callable[[], Tensor],
    name: str,
    units: Sequence[int] | None = None,
    *,
    sample_dim: int = 0,
) -> UnitEffects:
    """What each unit of a layer adds to what a network makes: each is silenced alone (``ablate``), and the
    change is measured (GAN dissection, Bau et al. 2019, arXiv:1811.10597, in small).

    Args:
        model: the generator, or a model that it is a part of; in evaluation mode for this.
        make: runs it from fixed noise and gives its samples, the same each time: a Tensor [N, ...] of images
            or [T, N, ...] of sequences, of any real dtype.
        name: the layer, as ``model.named_modules()`` has it: a convolution, an activation, a Linear, or a
            recurrent layer (its first, where it is a stack).
        units: numbers; all if None.
        sample_dim: the dim along which the N samples lie: 0 for images, 1 for sequences.

    Without gradients; what is measured is in float64. Raises TypeError or ValueError, naming the nearest
    name, for a layer or unit that does not exist, and ValueError where ``make`` gives something else each
    time, or no numbers.
    """
    what = "fusegen.inspect.unit_effects"
    with evaluating(model), torch.no_grad():
        whole = _samples(what, make())
        if not torch.equal(whole, _samples(what, make())):
            raise ValueError(f"{what}: expected make() to give the same samples each time")
        chosen = range(_count(what, model, make, name)) if units is None else units
        given = _arguments.wholes(f"{what}: units", list(chosen), 0)
        change, maps = [], []
        for unit in given:
            with ablate(model, unit, name):
                moved = _samples(what, make()) - whole
            change.append(moved.abs().mean())
            maps.append(moved.mean(sample_dim))
    if not given:
        raise ValueError(f"{what}: units: expected at least one")
    return UnitEffects(given, torch.stack(change), torch.stack(maps))


def _samples(what: str, made: object) -> Tensor:
    if not isinstance(made, Tensor) or not made.numel():
        came = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ValueError(f"{what}: expected make() to give a Tensor of samples, got {came}")
    return made.detach().double().cpu()


def _count(what: str, model: nn.Module, make: Callable[[], Tensor], name: str) -> int:
    """How many units the layer has."""
    with ablate(model, [], name):  # refuses a name that is none
        m = dict(model.named_modules())[name]
    if isinstance(m, (Layers, Cell)):
        return m.hidden_size
    seen: list[int] = []
    handle = m.register_forward_hook(lambda m, _, out: seen.append(out.shape[unit_dim(m, out)]))
    try:
        make()
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"{what}: {name} was not called by make()")
    return seen[0]


def input_gradient(
    gan: GAN,
    samples: Tensor,
    labels: Tensor | Sequence[int] | int | None = None,
    lengths: Tensor | Sequence[int] | int | None = None,
) -> Tensor:
    """The gradient of the discriminator's logit with respect to each value of its samples: where it looks,
    and which way it would have them changed to call them more real (saliency, Simonyan et al. 2014,
    arXiv:1312.6034).

    gan: an ``MLPGAN``, a ``DCGAN`` or a ``RecurrentGAN``; its discriminator is in evaluation mode for this.
    samples: floats, [N, ...] of images, [T, N, F] of series; tokens as integers [T, N] or one-hot [T, N, V].
    labels, lengths: as the model's ``critic_input`` takes them.

    Returns a Tensor of the samples' shape, of tokens [T, N, V]: what each token in each place would add.
    Raises TypeError for another model, and as ``critic_input``.
    """
    what = "fusegen.inspect.input_gradient"
    if not isinstance(gan, GAN):
        raise TypeError(f"{what}: expected a GAN, got {type(gan).__name__}")
    with evaluating(gan.discriminator), torch.enable_grad():
        x = gan.critic_input(samples, labels, lengths).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(gan.discriminator(x).sum(), x)
    if isinstance(gan, RecurrentGAN):
        return gradient[..., : gan.features].contiguous()
    if gradient.dim() == samples.dim():  # labels are planes behind the samples' own, or there are none
        return gradient[:, : samples.shape[1]].contiguous()
    return gradient[:, : samples[0].numel()].reshape(samples.shape)
