"""One step of a discriminator or a generator: its loss and penalties, by the first route that knows the
network."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .. import _backend, losses
from .._arguments import whole
from . import checks
from .blocks import HeldLabels
from .chain import Chain, parse
from .modules import hooked
from .objective import Objective
from .request import Request, StepOutput
from .routes import autograd, closed_form, convolution, dense, sweeps
from .routes import generator as generator_route

Counted = tuple[int, int] | None  # the dim of a sample's conditions, and where on it they begin


class Route(Protocol):
    """A module of ``routes``."""

    def fits(self, request: Request) -> Any: ...

    def run(self, plan: Any) -> StepOutput: ...


def discriminator_step(
    D: nn.Module,
    real: Tensor,
    fake: Tensor,
    loss: str = "non_saturating",
    *,
    r1: float = 0.0,
    r2: float = 0.0,
    gp: float = 0.0,
    approximate_r1: float | None = None,
    approximate_r2: float | None = None,
    label_smoothing: float = 0.0,
    labels: Tensor | None = None,
    real_labels: Tensor | None = None,
    fake_labels: Tensor | None = None,
    generator: torch.Generator | None = None,
    sample_dim: int | None = None,
    pac: int = 1,
) -> StepOutput:
    """The discriminator's loss on real and fake samples, penalties included, ready for ``backward``: that of
    ``loss``, as ``fusegen.losses`` has it, plus r1/2 mean ||grad D(real)||^2 + r2/2 mean ||grad D(fake)||^2 +
    gp mean (||grad D(x)|| - 1)^2, x uniform between pairs of real and fake samples. (R1, R2: Mescheder et al.
    2018, arXiv:1801.04406; WGAN-GP: Gulrajani et al. 2017, arXiv:1704.00028.)

    Args:
        D: gives logits [N], [N, 1], or patches [N, 1, h, w], whose mean counts. Must not end in a Sigmoid.
        real: samples [Nr, ...] of any floating dtype. Receives a gradient where it asks for one.
        fake: samples [Nf, ...] of the same features, dtype and device; ``fake.detach()`` keeps G out.
        loss: one of ``LOSSES``.
        r1: weight of R1.
        r2: weight of R2.
        gp: weight of WGAN-GP, whose x are drawn from ``generator``.
        approximate_r1: beside r1, a deviation s above 0: the penalty is r1/2 mean ((D(real + s e) - D(real))
            / s)^2, e standard normal from ``generator``: on average R1 plus terms of order s^2, without a
            second backward. It is the approximated R1 of Lin et al. 2025 (arXiv:2501.08316), whose weight of
            ||D(x) - D(N(x, s))||^2 is r1 / (2 s^2). Dropout's masks are the same with noise and without.
        approximate_r2: the same of fake samples and r2, whose noise is drawn after that of real ones.
        label_smoothing: the target of real samples is 1 less this.
        labels: int64 [N], of real and fake samples, for a D that takes (x, labels), as ``Projection`` does.
        real_labels: those of real samples, where they differ.
        fake_labels: those of fake samples, where they differ.
        generator: of all randomness but Dropout's on other paths than fused_mlp; torch's own if None.
        sample_dim: the dim along which samples lie, and a promise that D treats each by itself, so that both
            halves pass D at once; by default D's attribute of that name, or 0 for chains of modules known to
            do so; else D is called twice, real samples first.
        pac: D sees so many neighbours at once (Lin et al. 2018, arXiv:1712.04086): [N, C, ...] become
            [N / pac, pac C, ...], real and fake ones by themselves. All above is then of packed samples.

    Returns a ``StepOutput``, whose ``path`` says what ran; docs/gan.md has the table. A fused step's dropout
    has one key (``dropout_masks``), drawn last. Batch norms take statistics of real and fake samples apart.
    torch.compile breaks its graph at a second backward. Raises ValueError for unknown names, negative
    weights, an approximate_r1 without r1, sizes, features or a pac that do not fit, a D that ends in a
    Sigmoid; TypeError for wrong types; RuntimeError for mixed devices or dtypes, a D wrapped in DDP or FSDP
    (wrap DiscriminatorStep), or a penalty on a D that its input cannot reach or whose layers FSDP shards.
    """
    checks.network(D)
    counted = checks.counted(D)
    deviations = approximate_r1, approximate_r2
    objective = _objective(loss, label_smoothing, (r1, r2, gp), deviations, counted if _holds(D) else None)
    dim = checks.sample_dim(D, sample_dim)
    _check_samples(D, real, fake, objective, dim, generator)
    both = checks.labels(D, labels, real_labels, fake_labels, (real.shape[dim], fake.shape[dim]))
    checks.not_packed(pac, D, both)
    if objective.gp:
        checks.paired_labels(both)
    if isinstance(D, HeldLabels) and _holds(D):
        real, fake = (D.hold(x) if x.requires_grad else x for x in (real, fake))
    real, fake = checks.packed("real", real, dim, pac), checks.packed("fake", fake, dim, pac)
    groups = [
        _beside_noise(x, of_x, s if weight else None, dim, counted, generator)
        for x, of_x, s, weight in zip(
            (real, fake), both, deviations, (objective.near_real, objective.near_fake), strict=True
        )
    ]
    mixed = _mix(real, fake, dim, generator) if objective.gp else None
    request = Request(
        D, _chain(D), objective, groups[0][0], groups[1][0], mixed=mixed, dim=dim, together=sample_dim,
        pac=pac, generator=generator, labels=(groups[0][1], groups[1][1]),
    )  # fmt: skip
    return _run(request, (dense, convolution, closed_form, sweeps, autograd))


def _check_samples(
    D: nn.Module,
    real: Tensor,
    fake: Tensor,
    objective: Objective,
    dim: int,
    generator: torch.Generator | None,
) -> None:
    if any(objective.weights):
        checks.whole_layers(D, objective.penalties)
    checks.samples(real, fake, dim)
    checks.features(D, "real", real)
    checks.conditions(checks.counted(D), "real", real)
    if generator is not None:
        checks.random_generator(generator, real if objective.gp or objective.approximate else None)
    checks.pairs(objective, real, fake, dim)


def _holds(D: nn.Module) -> bool:
    return type(D) is HeldLabels


def _objective(
    loss: str,
    label_smoothing: float,
    weights: tuple[float, float, float],
    deviations: tuple[float | None, float | None],
    held: Counted,
) -> Objective:
    """Of a discriminator's step, its arguments checked: ``weights`` of r1, r2 and gp."""
    losses.check_loss(loss, label_smoothing)
    r1, r2, gp = (checks.penalty(name, w) for name, w in zip(("r1", "r2", "gp"), weights, strict=True))
    near_real = checks.deviation("approximate_r1", deviations[0], "r1", r1)
    near_fake = checks.deviation("approximate_r2", deviations[1], "r2", r2)
    return Objective(
        loss,
        smoothing=label_smoothing,
        r1=r1 if deviations[0] is None else 0.0,
        r2=r2 if deviations[1] is None else 0.0,
        gp=gp,
        near_real=near_real,
        near_fake=near_fake,
        counted=None if held is None else held[1],
    )


def generator_step(
    D: nn.Module,
    fake: Tensor,
    loss: str = "non_saturating",
    *,
    real: Tensor | None = None,
    labels: Tensor | None = None,
    real_labels: Tensor | None = None,
    generator: torch.Generator | None = None,
    sample_dim: int | None = None,
    pac: int = 1,
) -> StepOutput:
    """The generator's loss on fake samples. Gradients go to ``fake`` alone: D's parameters receive none, also
    where D checkpoints activations.

    The losses are those of ``generator_loss``, from Goodfellow et al. 2014 (arXiv:1406.2661) on.

    Args:
        D: the discriminator, as in ``discriminator_step``.
        fake: samples [N, ...] of any floating dtype, with the generator's graph.
        loss: one of ``LOSSES``.
        real: as many real samples, for the relativistic loss; the others do not use it.
        labels: of the fake samples, int64 [N], for a D that takes some; of real ones too, unless real_labels
            are given.
        real_labels: of the real samples.
        generator: of the masks of Dropout in a fused step.
        sample_dim: as in ``discriminator_step``.
        pac: as in ``discriminator_step``.

    Returns a ``StepOutput``. Errors are those of ``discriminator_step``.
    """
    losses.check_loss(loss)
    objective = Objective(loss, True)
    checks.network(D)
    dim = checks.sample_dim(D, sample_dim)
    if loss != "relativistic":
        real = None
        checks.sample("fake", fake, dim)
    elif real is None:
        raise ValueError("real: the relativistic loss pairs fake samples with real ones, got None")
    else:
        checks.samples(real, fake, dim)
    checks.features(D, "fake", fake)
    if generator is not None:
        checks.random_generator(generator, None)
    if real is not None:
        checks.pairs(objective, real, fake, dim)
        real = real.detach()
    checks.conditions(checks.counted(D), "fake", fake)
    both = checks.generator_labels(D, labels, real_labels, real is not None, fake.shape[dim])
    checks.not_packed(pac, D, both)
    if real is not None:
        real = checks.packed("real", real, dim, pac)
    if isinstance(D, HeldLabels) and _holds(D) and fake.requires_grad:
        fake = D.hold(fake)
    fake = checks.packed("fake", fake, dim, pac)
    request = Request(
        D, _chain(D), objective, real, fake, mixed=None, dim=dim, together=sample_dim, pac=pac,
        generator=generator, labels=both,
    )  # fmt: skip
    return _run(request, (dense, convolution, generator_route))


def _chain(D: nn.Module) -> Chain | str:
    D = D.D if type(D) is HeldLabels and not hooked(D) else D
    return parse(D) if _backend.get_backend() != "torch" else "fusegen.set_backend('torch') is set"


def _run(request: Request, routes: tuple[Route, ...]) -> StepOutput:
    """By the first route that the step fits; the last takes every one."""
    for route in routes:
        plan = route.fits(request)
        if not isinstance(plan, str):
            return route.run(plan)
        if plan:
            request = request._replace(reason=plan)
    raise RuntimeError(f"no route takes this step: {request.reason}")


class DiscriminatorStep(nn.Module):
    """discriminator_step as a module, for DDP and FSDP: they reduce what ran through their forward, so they
    wrap this.

        step = DistributedDataParallel(DiscriminatorStep(D, loss="hinge", r1=10.0))
        step(real, fake.detach()).loss.backward()

    With FSDP too (FullyShardedDataParallel(...) or fully_shard(...)), as one unit where there is a penalty.
    ``generator_step(D, fake)`` needs D's whole weights: ``step.unshard()`` and ``step.reshard()`` around it,
    or FSDP1's ``summon_full_params(step)``.

    The arguments are those of discriminator_step. ``r1`` and the other weights may be changed between steps
    (lazy regularisation), and given to ``forward`` for one step. In a step whose r1 is 0, approximate_r1 does
    nothing; the same holds for r2.

    r1, r2, gp, approximate_r1, approximate_r2, label_smoothing, sample_dim and pac, their errors and their
    papers (Mescheder et al. 2018, Gulrajani et al. 2017, Lin et al. 2018) are those of
    ``discriminator_step``.
    """

    def __init__(
        self,
        D: nn.Module,
        loss: str = "non_saturating",
        *,
        r1: float = 0.0,
        r2: float = 0.0,
        gp: float = 0.0,
        approximate_r1: float | None = None,
        approximate_r2: float | None = None,
        label_smoothing: float = 0.0,
        sample_dim: int | None = None,
        pac: int = 1,
    ) -> None:
        super().__init__()
        losses.check_loss(loss, label_smoothing)
        checks.network(D)
        if sample_dim is not None:
            sample_dim = whole("sample_dim", sample_dim, 0)
        self.D, self.pac = D, whole("pac", pac, 1)
        self.loss, self.label_smoothing, self.sample_dim = loss, label_smoothing, sample_dim
        self.r1, self.r2, self.gp = (checks.penalty(n, w) for n, w in (("r1", r1), ("r2", r2), ("gp", gp)))
        checks.deviation("approximate_r1", approximate_r1, "r1", self.r1)
        checks.deviation("approximate_r2", approximate_r2, "r2", self.r2)
        self.approximate_r1, self.approximate_r2 = approximate_r1, approximate_r2

    def forward(
        self,
        real: Tensor,
        fake: Tensor,
        *,
        labels: Tensor | None = None,
        real_labels: Tensor | None = None,
        fake_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        **weights: float,
    ) -> StepOutput:
        """One step on real [Nr, ...] and fake [Nf, ...], as ``discriminator_step`` makes it. weights: r1, r2
        or gp for this step alone."""
        given: dict[str, float] = {"r1": self.r1, "r2": self.r2, "gp": self.gp, **weights}
        near_real, near_fake = (
            s if given[name] else None
            for name, s in (("r1", self.approximate_r1), ("r2", self.approximate_r2))
        )
        return discriminator_step(
            self.D, real, fake, self.loss, label_smoothing=self.label_smoothing, labels=labels,
            real_labels=real_labels, fake_labels=fake_labels, generator=generator,
            sample_dim=self.sample_dim, pac=self.pac, approximate_r1=near_real, approximate_r2=near_fake,
            **given,
        )  # fmt: skip

    def extra_repr(self) -> str:
        near = (("approximate_r1", self.approximate_r1), ("approximate_r2", self.approximate_r2))
        more = "".join(f", {name}={s}" for name, s in near if s is not None)
        more += "" if self.pac == 1 else f", pac={self.pac}"
        return f"loss={self.loss!r}, r1={self.r1}, r2={self.r2}, gp={self.gp}{more}"


def _mix(real: Tensor, fake: Tensor, dim: int, generator: torch.Generator | None) -> Tensor:
    """Uniform between each pair (Gulrajani et al. 2017, section 4)."""
    shape = [1] * real.dim()
    shape[dim] = real.shape[dim]
    share = torch.rand(shape, dtype=real.dtype, device=real.device, generator=generator)
    return torch.lerp(real.detach(), fake.detach(), share)


def _beside_noise(
    x: Tensor,
    labels: Tensor | None,
    deviation: float | None,
    dim: int,
    counted: Counted,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor | None]:
    """Samples, and behind them the same with noise of this deviation in what counts of them, where there is
    one; and their labels."""
    if not deviation:
        return x, labels
    noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    if counted is not None:
        at, width = counted
        noise.narrow(at, width, noise.shape[at] - width).zero_()
    return torch.cat((x, x + deviation * noise), dim), _twice(labels)


def _twice(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else torch.cat((labels, labels))
