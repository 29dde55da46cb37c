"""One step of training a GAN: the discriminator's update, the generator's, and what to know of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from .._arguments import whole
from ..train.update import update
from .augment import DiffAugment
from .options import GanOptions
from .request import StepOutput
from .turns import discriminator_turn, generator_turn

if TYPE_CHECKING:
    from ..models.gan import GAN


class Optimizers(NamedTuple):
    """One for each network.

    generator, discriminator: of these networks' parameters.
    """

    generator: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer

    @classmethod
    def adam(
        cls,
        model: GAN,
        lr: float = 2e-4,
        critic_lr: float | None = None,
        betas: tuple[float, float] = (0.5, 0.99),
    ) -> Optimizers:
        """Adam for both; betas as DCGAN's (arXiv:1511.06434) and StyleGAN2's."""
        return cls(
            torch.optim.Adam(model.generator.parameters(), lr, betas, fused=True),
            torch.optim.Adam(model.discriminator.parameters(), critic_lr or lr, betas, fused=True),
        )


@dataclass(frozen=True)
class GanReport:
    """What a step did.

    step: its number. discriminator_loss: its loss before the update, the penalty left out; penalty: the
    penalty as it was added, None in a step without one. penalty_every: the interval of
    lazy penalties. generator_loss: None where the generator was not trained. stats: ``StepOutput.stats``.
    path and reason: how the discriminator's step ran.
    """

    step: int
    discriminator_loss: float
    penalty: float | None
    penalty_every: int
    generator_loss: float | None
    stats: dict[str, float] = field(repr=False)
    path: str
    reason: str


def gan_step(
    model: GAN,
    real: Tensor,
    optimizers: Optimizers | tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    options: GanOptions | None = None,
    *,
    step: int = 0,
    labels: int | Sequence[int] | Tensor | None = None,
    lengths: int | Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
    augment: DiffAugment | None = None,
) -> GanReport:
    """Trains both networks of ``model`` once, in place, on a batch of real samples: the discriminator first,
    then the generator, from the same fake samples, and its moving average (Goodfellow et al. 2014,
    arXiv:1406.2661).

    Args:
        model: a GAN of ``fusegen.models``, in training mode.
        real: [N, ...] of a floating dtype, or [T, N, ...] of a RecurrentGAN (tokens: integers [T, N]).
            Receives no gradient. Fake samples have its labels, lengths and dtype, under torch.autocast too.
        optimizers: of the generator and of the discriminator, in this order.
        options: losses, penalties and how often; ``GanOptions()`` if None.
        step: its number from 0, which decides what is lazy.
        labels: for a model with classes: an integer for all samples, a sequence or an integer tensor [N].
        lengths: for sequences, in the same forms.
        generator: of all randomness, as in ``discriminator_step``; torch's own if None.
        augment: changes real and fake images, drawn anew for each network's turn; penalties are those there.

    Returns a ``GanReport``. Raises FloatingPointError, naming the step, for NaN or infinity in ``real``, in
    logits, a loss or a gradient, before the update that it would spoil: that network keeps its weights.
    Raises TypeError, ValueError or RuntimeError as ``discriminator_step`` and ``model.critic_input`` do,
    ValueError also for an optimiser without any parameter of its network, RuntimeError where gradients are
    off.
    """
    options = GanOptions() if options is None else options
    if not isinstance(options, GanOptions):
        raise TypeError(f"options: expected GanOptions, got {type(options).__name__}")
    step = whole("step", step, 0)
    _check_model(model)
    opt_g, opt_d = _pair(optimizers)
    _check_holds("generator", opt_g, model.generator)
    _check_holds("discriminator", opt_d, model.discriminator)
    if not model.training:
        raise RuntimeError("model: expected training mode, got evaluation mode; call model.train()")
    if not torch.is_grad_enabled():
        raise RuntimeError(
            "gan_step: expected gradients to be on, got a call within torch.no_grad or torch.inference_mode"
        )
    own = real
    real = model.critic_input(real, labels, lengths).detach()
    _finite(step, "real holds", real)

    def seen(samples: Tensor) -> Tensor:
        return model.critic_input(_changed(samples, augment, generator), labels, lengths)

    fake = model.fakes(real, labels, lengths, generator)
    real = real if augment is None else seen(own).detach()
    out = discriminator_turn(model, real, seen(fake.detach()), options, step, generator)
    _finite(step, "the discriminator's step gives", out.real_logits, out.fake_logits, out.loss)
    _update(step, "discriminator", model.discriminator, opt_d, out, options.clip)

    generator_loss = None
    if (step + 1) % options.generator_every == 0:
        turn = generator_turn(model, real, seen(fake), options, generator)
        _finite(step, "the generator's step gives", turn.fake_logits, turn.loss)
        _update(step, "generator", model.generator, opt_g, turn, options.clip)
        model.update_average()
        generator_loss = turn.loss.item()
    penalty = out.penalty.item()
    return GanReport(
        step=step,
        discriminator_loss=out.loss.item() - penalty,
        penalty=penalty if options.penalties(step) else None,
        penalty_every=options.penalty_every,
        generator_loss=generator_loss,
        stats=out.stats,
        path=out.path,
        reason=out.reason,
    )


def _changed(samples: Tensor, augment: DiffAugment | None, generator: torch.Generator | None) -> Tensor:
    """Samples as the discriminator sees them. Raises TypeError for what is no DiffAugment."""
    if augment is None:
        return samples
    if not isinstance(augment, DiffAugment):
        raise TypeError(f"augment: expected a DiffAugment, got {type(augment).__name__}")
    changed: Tensor = augment(samples, generator=generator)
    return changed


def _check_model(model: GAN) -> None:
    parts = ("generator", "discriminator", "critic_input", "fakes", "critic", "update_average", "training")
    missing = [name for name in parts if not hasattr(model, name)]
    if missing:
        raise TypeError(
            f"model: expected a GAN as those of fusegen.models, got {type(model).__name__} without "
            f"{', '.join(missing)}"
        )


def _pair(optimizers: object) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Both, checked to be two of what has an optimiser's parts."""
    expected = "optimizers: expected two, the generator's and the discriminator's"
    if isinstance(optimizers, str | bytes) or not isinstance(optimizers, Sequence):
        raise TypeError(f"{expected}, got {type(optimizers).__name__}")
    if len(optimizers) != 2:
        raise ValueError(f"{expected}, got {len(optimizers)}")
    if not all(hasattr(one, part) for one in optimizers for part in ("param_groups", "zero_grad", "step")):
        raise TypeError(f"{expected}, got {' and '.join(type(one).__name__ for one in optimizers)}")
    return tuple(optimizers)


def _check_holds(name: str, optimizer: torch.optim.Optimizer, net: nn.Module) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in held for p in net.parameters()):
        raise ValueError(
            "optimizers: expected the generator's and the discriminator's, in this order, "
            f"got one without any parameter of the {name}"
        )


def _finite(step: int, what: str, *tensors: Tensor | None) -> None:
    for x in tensors:
        if x is None or x.is_meta:
            continue  # for a later check to name its device
        if not bool(x.detach().isfinite().all()):
            value = "NaN" if bool(x.detach().isnan().any()) else "infinity"
            raise FloatingPointError(f"step {step}: {what} {value}; nothing was updated with it")


def _update(
    step: int, name: str, net: nn.Module, optimizer: torch.optim.Optimizer, out: StepOutput, clip: float
) -> None:
    """Backward, the length of the gradient checked (and cut), and the update. Autocast is for the forward
    pass: backward runs without it, and the weights that it cast and keeps are forgotten once they are old."""

    def backward() -> None:
        with torch.autocast(out.loss.device.type, enabled=False):
            out.loss.backward()

    def check(norm: Tensor) -> None:
        if not bool(norm.isfinite()):
            raise FloatingPointError(
                f"step {step}: the {name}'s gradient is of length {norm.item()}; its weights are as before"
            )

    update(net, optimizer, backward, clip, check=check)
    torch.clear_autocast_cache()
