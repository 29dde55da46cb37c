"""One step of a discriminator or a generator: loss and penalties of any network, fused where it is known."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .. import _backend, losses
from .._arguments import check_floats, whole
from .._choice import step_name
from ..ops._common import plain, transformed
from ..ops.discriminator import SCALARS, MlpOptions, mlp_discriminator_step
from . import autograd_path as general
from . import chain, closed_form, conv_step, generator_path, network
from .layouts import Blocked, SamplesFirst

STATS = SCALARS[2:]


@dataclass(frozen=True)
class StepOutput:
    """What a step gives.

    loss: a scalar with gradient, penalties included. penalty: their part of it, without gradient.
    real_logits [Nr] and fake_logits [Nf], without gradient (real_logits None in a generator's step that
    does not pair). path: what ran, "fused_mlp", "fused_conv",
    "recurrent" or "autograd", and reason: why. stats: see there.
    """

    loss: Tensor
    real_logits: Tensor | None
    fake_logits: Tensor
    penalty: Tensor
    path: str
    reason: str
    # STATS, or the norms alone: the general path leaves the rest to whoever reads it, since a dozen small
    # operators cost as much as a small network's layer.
    _scalars: Tensor | dict[str, Tensor] = field(repr=False)

    @property
    def stats(self) -> dict[str, float]:
        """mean_real and mean_fake, the mean logits; sign_real and sign_fake, the mean signs; norm_real,
        norm_fake and norm_mixed, the mean length of D's input gradient where a penalty computed it; NaN
        stands for nothing computed.

        sign_real is r_t of Karras et al. 2020 (arXiv:2006.06676, eq. 1): near 1 on training samples, the
        discriminator has overfitted and the generator's gradient is about to vanish; they aim at 0.6.
        Reading waits for the device.
        """
        scalars = self._scalars
        if isinstance(scalars, dict):
            scalars = _stats(self.real_logits, self.fake_logits, scalars)
        return dict(zip(STATS, scalars.tolist(), strict=True))


def discriminator_step(
    D: nn.Module,
    real: Tensor,
    fake: Tensor,
    loss: str = "non_saturating",
    *,
    r1: float = 0.0,
    r2: float = 0.0,
    gp: float = 0.0,
    label_smoothing: float = 0.0,
    generator: torch.Generator | None = None,
    sample_dim: int | None = None,
) -> StepOutput:
    """The discriminator's loss on real and fake samples, ready for ``backward``.

    loss: one of ``fusegen.losses.LOSSES`` (the formulas stand there), plus r1/2 mean ||grad D(real)||^2 +
    r2/2 mean ||grad D(fake)||^2 + gp mean (||grad D(x)|| - 1)^2, with x uniform between the pairs of real
    and fake, drawn from ``generator``. label_smoothing: real targets become 1 less this.

    real [Nr, ...] and fake [Nf, ...]: samples of the same features, dtype and device; D gives logits [N],
    [N, 1] or patches [N, 1, h, w], whose mean counts. Both receive gradients where they ask for them; give
    ``fake.detach()`` where the generator is not to be trained. sample_dim: the dim along which samples lie,
    and a promise that D treats each by itself, so that both halves pass D at once; by default D's attribute
    of that name, or 0 for chains of modules known to do so; else D is called twice, real first.

    An exact nn.Sequential of nn.Linear, ReLU, LeakyReLU and Flatten without hooks (parametrised weights are
    fine, and read once: one power iteration of a spectral norm a step) runs in one fused call; with Conv1d,
    Conv2d and batch norms among them, in fusegen's convolutions on the CPU, a penalty in closed form instead
    of by a second backward. A batch norm takes its statistics of real and of fake samples by themselves, as
    two passes would. Everything else goes through autograd (``StepOutput.path`` and ``reason``), and under
    ``set_backend("auto")`` dense layers too where a committed measurement says that torch is faster. On a GPU
    the fused call runs under ``set_backend("fused")``; "auto" takes autograd there until it is measured.
    Under torch.compile a penalty by a second backward breaks the graph: AOTAutograd cannot differentiate
    twice.

    Raises ValueError for unknown names, negative weights, sizes or features that do not fit, a D that ends
    in a Sigmoid; TypeError for wrong types; RuntimeError for mixed devices or dtypes, a D wrapped in DDP or
    FSDP (wrap DiscriminatorStep instead), or a penalty on a D that cannot be differentiated by its input, or
    whose layers FSDP shards one by one.
    """
    losses.check_loss(loss, label_smoothing)
    for name, weight in (("r1", r1), ("r2", r2), ("gp", gp)):
        _penalty_weight(name, weight)
    _check_network(D)
    if (r1 or r2 or gp) and network.has_sharded_layers(D):
        name = "r1" if r1 else "r2" if r2 else "gp"
        raise RuntimeError(
            f"{name}: a penalty differentiates through D twice, but FSDP shards parts of D one by one and "
            "frees their weights in between; shard fusegen.gan.DiscriminatorStep(D) as one unit instead"
        )
    dim = _sample_dim(D, sample_dim)
    _check_samples(real, fake, dim)
    _check_features(D, "real", real)
    if generator is not None:
        _check_generator(generator, real if gp else None)
    if (gp or loss == "relativistic") and real.shape[dim] != fake.shape[dim]:
        what = f"gp={gp}" if gp else "the relativistic loss"
        raise ValueError(
            f"real, fake: expected equal sizes for {what}, got {real.shape[dim]} and {fake.shape[dim]}"
        )
    penalties = (float(r1), float(r2), float(gp))
    mixed = _mix(real, fake, dim, generator) if gp else None
    stack, reason = _fused_stack(D, real, dim)
    faster = "" if stack is None else _faster_on_torch(stack, real, fake, penalties)
    if faster:
        return _dense_step(stack, real, fake, mixed, loss, penalties, label_smoothing, faster)
    if stack is None:
        out, reason = _conv_step(D, real, fake, mixed, loss, penalties, label_smoothing, dim, reason)
        if out is not None:
            return out
        run = _general_step
        if any(penalties) and torch.compiler.is_compiling():
            # AOTAutograd cannot differentiate twice: the graph breaks; under fullgraph=True dynamo says so.
            run = torch.compiler.disable(run, reason="a penalty differentiates twice, which is not compiled")
        return run(D, real, fake, mixed, loss, penalties, label_smoothing, sample_dim, dim, reason)
    options = MlpOptions(loss, False, 1.0 - label_smoothing, *penalties)
    return _fused_step(stack, real, fake, mixed, options, reason)


def generator_step(
    D: nn.Module,
    fake: Tensor,
    loss: str = "non_saturating",
    *,
    real: Tensor | None = None,
    sample_dim: int | None = None,
) -> StepOutput:
    """The generator's loss on fake samples [N, ...]; gradients go to ``fake`` alone, D's parameters receive
    none, also where D checkpoints activations.

    real: as many real samples, for the relativistic loss; not used by the others. Errors as in
    discriminator_step.
    """
    losses.check_loss(loss)
    _check_network(D)
    dim = _sample_dim(D, sample_dim)
    if loss != "relativistic":
        real = None
    elif real is None:
        raise ValueError("real: the relativistic loss pairs fake samples with real ones, got None")
    if real is not None:
        _check_samples(real, fake, dim)
    else:
        _check_sample("fake", fake, dim)
    _check_features(D, "fake", fake)
    if real is not None and real.shape[dim] != fake.shape[dim]:
        raise ValueError(
            "real, fake: expected equal sizes for the relativistic loss, "
            f"got {real.shape[dim]} and {fake.shape[dim]}"
        )
    stack, reason = _fused_stack(D, fake, dim)
    if stack is not None:
        return _fused_step(stack, real, fake, None, MlpOptions(loss, True), reason)
    out, reason = _conv_generator_step(D, real, fake, loss, dim, reason)
    if out is not None:
        return out
    r = None

    def logits(x: Tensor) -> Tensor:
        nonlocal r
        if real is None:
            return general.as_logits(general.called(D, x), x.shape[dim])
        r, f = general.both_logits(D, real.detach(), x, sample_dim)
        r = r.detach()
        return f

    f = generator_path.through(D, logits, fake)
    total = losses.generator_loss(loss, f, r)
    return _output(total, f.new_zeros(()), r, f, {}, _path(D), reason)


class DiscriminatorStep(nn.Module):
    """discriminator_step as a module, for DDP and FSDP: they reduce what ran through their forward, so they
    wrap this.

        step = DistributedDataParallel(DiscriminatorStep(D, loss="hinge", r1=10.0))
        step(real, fake).loss.backward()

    With FSDP too (FullyShardedDataParallel(...) or fully_shard(...)), as one unit where there is a penalty.
    ``generator_step(D, fake)`` needs D's whole weights: ``step.unshard()`` and ``step.reshard()`` around it,
    or FSDP1's ``summon_full_params(step)``.

    The arguments are those of discriminator_step. ``r1`` and the other weights may be changed between steps
    (lazy regularisation), and given to ``forward`` for one step.
    """

    def __init__(
        self,
        D: nn.Module,
        loss: str = "non_saturating",
        *,
        r1: float = 0.0,
        r2: float = 0.0,
        gp: float = 0.0,
        label_smoothing: float = 0.0,
        sample_dim: int | None = None,
    ) -> None:
        super().__init__()
        losses.check_loss(loss, label_smoothing)
        _check_network(D)
        if sample_dim is not None:
            sample_dim = whole("sample_dim", sample_dim, 0)
        self.D = D
        self.loss, self.label_smoothing, self.sample_dim = loss, label_smoothing, sample_dim
        self.r1, self.r2, self.gp = (_penalty_weight(n, w) for n, w in (("r1", r1), ("r2", r2), ("gp", gp)))

    def forward(
        self, real: Tensor, fake: Tensor, *, generator: torch.Generator | None = None, **weights: float
    ) -> StepOutput:
        given = {"r1": self.r1, "r2": self.r2, "gp": self.gp, **weights}
        return discriminator_step(
            self.D, real, fake, self.loss, label_smoothing=self.label_smoothing, generator=generator,
            sample_dim=self.sample_dim, **given,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"loss={self.loss!r}, r1={self.r1}, r2={self.r2}, gp={self.gp}"


# ---- checks -----------------------------------------------------------------------------------------


def _penalty_weight(name: str, weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(weight).__name__}")
    if not 0 <= weight <= sys.float_info.max:  # an int may be beyond
        raise ValueError(f"{name}: expected a finite weight of at least 0, got {weight}")
    return float(weight)


def _check_network(D: nn.Module) -> None:
    if not isinstance(D, nn.Module):
        raise TypeError(f"D: expected an nn.Module, got {type(D).__name__}")
    if network.is_wrapped(D):
        raise RuntimeError(
            f"D: {type(D).__name__} reduces only what runs through its own forward; wrap "
            "fusegen.gan.DiscriminatorStep(D) instead and call that"
        )
    if network.ends_in_sigmoid(D):
        raise ValueError("D: expected logits, but it ends in a Sigmoid; drop it, the losses contain it")


def _sample_dim(D: nn.Module, given: int | None) -> int:
    if given is None and type(D) is nn.Sequential:  # which searches long for what it does not have
        given = D.__dict__.get("sample_dim")
    elif given is None:
        given = getattr(D, "sample_dim", None)
    if given is None:
        return 0
    return given if type(given) is int else whole("sample_dim", given, 0)


def _check_sample(name: str, x: Tensor, dim: int) -> None:
    check_floats(name, x)
    if not 0 <= dim < x.dim():
        raise ValueError(f"{name}: expected samples along dim {dim}, got shape {list(x.shape)}")
    if x.shape[dim] == 0:
        raise ValueError(f"{name}: expected at least one sample, got shape {list(x.shape)}")


def _check_samples(real: Tensor, fake: Tensor, dim: int) -> None:
    _check_sample("real", real, dim)
    _check_sample("fake", fake, dim)
    if real.device != fake.device:
        raise RuntimeError(f"real, fake: expected the same device, got {real.device} and {fake.device}")
    if real.dtype != fake.dtype:
        raise RuntimeError(f"real, fake: expected the same dtype, got {real.dtype} and {fake.dtype}")
    features = [x.shape[:dim] + x.shape[dim + 1 :] for x in (real, fake)]
    if features[0] != features[1]:
        raise ValueError(
            f"real, fake: expected samples of the same shape, got {list(features[0])} and {list(features[1])}"
        )


def _check_features(D: nn.Module, name: str, x: Tensor) -> None:
    """A D of one's own may take samples [N]; layers read them as one sample."""
    if x.dim() == 1 and network.per_sample(D):
        raise ValueError(f"{name}: expected samples of features, [N, ...], got shape {list(x.shape)}")


def _check_generator(generator: torch.Generator, like: Tensor | None) -> None:
    """like: what it draws for, if anything."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
    if like is None or like.is_meta:
        return
    ours, theirs = generator.device, like.device
    if ours.type != theirs.type or (None not in (ours.index, theirs.index) and ours.index != theirs.index):
        raise RuntimeError(f"generator: expected one of {theirs}, as the samples, got one of {ours}")


def _mix(real: Tensor, fake: Tensor, dim: int, generator: torch.Generator | None) -> Tensor:
    """Uniform between each pair (Gulrajani et al. 2017, section 4)."""
    shape = [1] * real.dim()
    shape[dim] = real.shape[dim]
    share = torch.rand(shape, dtype=real.dtype, device=real.device, generator=generator)
    return torch.lerp(real.detach(), fake.detach(), share)


# ---- the fused path ---------------------------------------------------------------------------------


def _fused_stack(D: nn.Module, x: Tensor, dim: int) -> tuple[network.Dense | None, str]:
    """The dense layers that the fused step will run, or None; and why."""
    if _backend.get_backend() == "torch":
        return None, "set_backend('torch')"
    try:
        stack = network.dense(D)
    except network.NotKnown as error:
        return None, str(error)
    if x.is_cuda:
        why = _backend.why_torch("discriminator_step", x, step=True)
        if why:
            return None, why
    elif not x.is_cpu:
        return None, f"no fused step for device {x.device.type!r}"
    if dim != 0 or (x.dim() != 2 and not stack.flatten):
        return None, "dense layers over more than one dim"
    first = stack.layers[0].in_features
    if math.prod(x.shape[1:]) != first:
        raise ValueError(
            f"real, fake: expected {first} features a sample, as D's first layer has, got {list(x.shape[1:])}"
        )
    return stack, "dense layers with piecewise linear activations"


def _faster_on_torch(stack: network.Dense, real: Tensor, fake: Tensor, penalties) -> str:
    """Why "auto" leaves this step to torch, both halves in one pass through autograd; "" where it does not.

    Only a training step of plain tensors on the CPU, called eagerly: the others were not measured, and some
    autograd cannot do (a penalty in torch.compile, in a torch.func transform).
    """
    if _backend.get_backend() != "auto" or not fake.is_cpu or torch.compiler.is_compiling():
        return ""
    asked = [name for name, weight in zip(("r1", "r1", "gp"), penalties, strict=True) if weight]
    name = step_name(asked[0] if asked else "none")
    if len(asked) > 1 or name not in _backend.cpu_cells():
        return ""
    size, halves = sum(m.in_features * m.out_features for m in stack.layers), len(real) + len(fake)
    rule = _backend.cpu_rule(name, len(stack.layers), size, (halves + 1) // 2, 1, fake.dtype, True)
    # A parametrised weight is read once in a fused step, but at each call of D in autograd's.
    if rule is None or any(type(m) is not nn.Linear for m in stack.layers):
        return ""
    weights, biases = stack.parameters()
    tensors = [t for t in (real, fake, *weights, *biases) if t is not None]
    if not _backend.needs_grad(*weights) or not plain(tensors) or _backend.autocast_dtype(fake) is not None:
        return ""
    _check_kinds(fake, weights, biases)
    return f"torch measured faster at this size ({rule.source})"


def _fused_step(stack, real, fake, mixed, options: MlpOptions, reason: str) -> StepOutput:
    weights, biases = stack.parameters()
    if options.generator:  # gradients go to fake alone, and where it asks for none, backward has to say so
        weights, biases = ([t if t is None else t.detach() for t in kind] for kind in (weights, biases))
    samples = [x if x is None or x.dim() == 2 else x.flatten(1) for x in (real, fake, mixed)]
    tensors = [*samples, *weights, *biases]
    dtype = _backend.autocast_dtype(fake)
    if dtype is not None:
        tensors = [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors]
    else:
        _check_kinds(fake, weights, biases)
    n = len(weights)
    loss, scalars, logits = mlp_discriminator_step(
        *tensors[:3], tensors[3 : 3 + n], tensors[3 + n :], stack.slopes, options
    )
    nr = 0 if real is None else real.shape[0]
    penalty = scalars[1].to(loss.dtype)
    return StepOutput(
        loss, logits[:nr] if nr else None, logits[nr:], penalty, "fused_mlp", reason, scalars[2:]
    )


def _check_kinds(fake: Tensor, weights, biases, layer: str = "dense layer") -> None:
    dtype, device = fake.dtype, fake.device
    if all(t is None or (t.dtype is dtype and t.device == device) for t in (*weights, *biases)):
        return
    for i, pair in enumerate(zip(weights, biases, strict=True)):
        for name, t in zip(("weight", "bias"), pair, strict=True):
            if t is None:
                continue
            if t.device != fake.device:
                raise RuntimeError(f"D: {name} of {layer} {i} is on {t.device}, the samples on {fake.device}")
            if t.dtype != fake.dtype:
                raise RuntimeError(f"D: {name} of {layer} {i} is {t.dtype}, the samples are {fake.dtype}")


# ---- convolutions -----------------------------------------------------------------------------------


def _conv_step(
    D, real, fake, mixed, loss, penalties, label_smoothing, dim, reason
) -> tuple[StepOutput | None, str]:
    """The discriminator's step of a chain with convolutions, or None; and why."""
    try:
        maps, counts = _conv_chain(D, (real, fake, mixed), dim, reason)
        layout = _conv_layout(maps, counts, (real, fake))
        if any(penalties):
            return _penalised_step(
                maps, counts, layout, real, fake, mixed, loss, label_smoothing, penalties
            ), ""
        nr = len(real)
        return _kernel_step(
            maps, counts, layout, real, fake, chain.parameters,
            lambda z: losses.discriminator_loss(loss, z[:nr], z[nr:], label_smoothing),
        ), ""  # fmt: skip
    except network.NotKnown as error:
        return None, str(error)


def _conv_generator_step(D, real, fake, loss, dim, reason) -> tuple[StepOutput | None, str]:
    """The generator's step of such a chain, or None; and why."""
    try:
        maps, counts = _conv_chain(D, (real, fake, None), dim, reason)
        nr = counts[0]
        return _kernel_step(
            maps, counts, _conv_layout(maps, counts, (real, fake)),
            None if real is None else real.detach(), fake, chain.detached_parameters,
            lambda z: losses.generator_loss(loss, z[nr:], z[:nr] if nr else None),
        ), ""  # fmt: skip
    except network.NotKnown as error:
        return None, str(error)


def _conv_chain(D, samples, dim: int, reason: str) -> tuple[tuple[chain.Map, ...], tuple[int, int, int]]:
    """D's maps, and how many samples there are of each group."""
    fake = samples[1]
    if dim != 0 or fake.dim() < 2 or _backend.get_backend() == "torch" or not chain.possible(D):
        raise network.NotKnown(reason)
    maps = chain.chain(D, tuple(fake.shape[1:]))
    if _backend.autocast_dtype(fake) is not None:
        raise network.NotKnown("convolutions under autocast go through autograd")
    return maps, tuple(0 if x is None else len(x) for x in samples)


def _conv_layout(maps, counts, samples: tuple[Tensor | None, Tensor]) -> Blocked | str:
    """The layout for fusegen's kernels, or why they cannot run."""
    fake = samples[1]
    if not fake.is_cpu:
        return f"there are no kernels of convolutions on {fake.device.type}"
    if torch.compiler.is_compiling():
        return "torch.compile sees torch's own convolutions"
    if transformed():
        return "torch.func and forward mode see through torch's operators alone"
    parts = [part for m in maps for part in (m.module, m.norm) if part is not None]
    tensors = [*samples, *(p for part in parts for p in part.parameters())]
    if not plain(t for t in tensors if t is not None):
        return "its tensors are of another kind than plain ones"
    return Blocked.fitting(maps, counts, fake.dtype)


def _kernel_step(maps, counts, layout, real, fake, parameters, objective) -> StepOutput:
    if isinstance(layout, str):
        raise network.NotKnown(layout)
    for m in maps:
        if m.norm is not None:
            _check_norm(m, counts, fake.dtype)
    p = parameters(maps)
    _check_maps(maps, fake, p)
    step = conv_step.Step(maps, layout, counts, objective)
    loss, logits = conv_step.run(step, real, fake, p)
    nr = counts[0]
    why = "convolutions and piecewise linear activations, in blocks of samples"
    return _output(loss, loss.new_zeros(()), logits[:nr] if nr else None, logits[nr:], {}, "fused_conv", why)


def _penalised_step(maps, counts, layout, real, fake, mixed, loss, smoothing, penalties) -> StepOutput:
    if any(m.norm is not None for m in maps):
        raise network.NotKnown("a batch norm ties the samples of a penalty together")
    if isinstance(layout, str):
        layout, where = SamplesFirst(maps, counts), f"torch's operators: {layout}"
    else:
        where = "blocks of samples"
    p = chain.parameters(maps)
    _check_maps(maps, fake, p)
    step = closed_form.Step(maps, layout, loss, smoothing, closed_form.Penalties(*penalties, counts))
    value, penalty, logits, norms = closed_form.run(step, real, fake, mixed, p)
    nr = counts[0]
    why = f"convolutions and piecewise linear activations: the penalty in closed form, in {where}"
    return _output(value, penalty, logits[:nr], logits[nr:], norms, "fused_conv", why)


def _check_norm(m: chain.Map, counts, dtype: torch.dtype) -> None:
    """Raises NotKnown for a norm that torch would refuse, which then does."""
    kind, norm = type(m.norm).__name__, m.norm
    if any(n * math.prod(m.outer) == 1 for n in counts):
        raise network.NotKnown(f"{kind} gets one value a channel")
    for statistic in (norm.running_mean, norm.running_var):
        if statistic is not None and (statistic.shape != (norm.num_features,) or statistic.dtype != dtype):
            raise network.NotKnown(f"{kind} has running statistics of another shape or dtype")


def _check_maps(maps, fake: Tensor, p: chain.Parameters) -> None:
    """Raises NotKnown for weights that are not of their modules' sizes, RuntimeError for another dtype or
    device than the samples'."""
    for m, W in zip(maps, p.weights, strict=True):
        if W.shape != m.weight_shape:
            raise network.NotKnown(f"{type(m.module).__name__} has a weight of shape {list(W.shape)}")
    _check_kinds(fake, p.weights, p.biases, "map")
    _check_kinds(fake, p.norm_weights, p.norm_biases, "the norm behind map")


# ---- the general path -------------------------------------------------------------------------------


def _general_step(
    D, real, fake, mixed, loss, penalties, label_smoothing, sample_dim, dim, reason
) -> StepOutput:
    return _autograd_step(
        lambda x: general.as_logits(general.called(D, x), x.shape[dim]),
        lambda r, f: general.both_logits(D, r, f, sample_dim),
        real, fake, mixed, loss, penalties, label_smoothing, dim, _path(D), reason,
    )  # fmt: skip


def _dense_step(stack: network.Dense, real, fake, mixed, loss, penalties, smoothing, reason) -> StepOutput:
    """Dense layers through autograd: what a training script would write, both halves in one pass."""
    return _autograd_step(
        stack.logits,
        lambda r, f: stack.logits(torch.cat((r, f))).split((len(r), len(f))),
        real, fake, mixed, loss, penalties, smoothing, 0, "autograd", reason,
    )  # fmt: skip


def _autograd_step(
    logits_of, both_logits, real, fake, mixed, loss, penalties, label_smoothing, dim, path, reason
) -> StepOutput:
    r1, r2, gp = penalties
    general.check_gradients_on(r1=r1, r2=r2, gp=gp)
    x_real = _with_gradient(real) if r1 else real
    x_fake = _with_gradient(fake) if r2 else fake
    r, f = both_logits(x_real, x_fake)
    total = losses.discriminator_loss(loss, r, f, label_smoothing)
    penalty, norms = total.new_zeros(()), {}
    for name, factor, logits, x in (("real", r1, r, x_real), ("fake", r2, f, x_fake)):
        if factor:
            v = general.input_gradient(logits, x, "r1" if name == "real" else "r2", x.shape[dim], dim)
            penalty = penalty + factor / 2 * v.square().sum(1).mean()
            norms[f"norm_{name}"] = v.detach().norm(dim=1).mean()
    if gp:
        x = mixed.requires_grad_()
        v = general.input_gradient(logits_of(x), x, "gp", x.shape[dim], dim)
        norm = general.gradient_penalty_norms(v)
        penalty = penalty + gp * (norm - 1).square().mean()
        norms["norm_mixed"] = norm.detach().mean()
    if any(penalties):
        total = total + penalty
    return _output(total, penalty, r, f, norms, path, reason)


def _with_gradient(x: Tensor) -> Tensor:
    """x for a penalty: an alias, so that x itself keeps only the gradients that it asked for."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _output(loss, penalty, r, f, norms: dict[str, Tensor], path: str, reason: str) -> StepOutput:
    f = f.detach()
    r = None if r is None else r.detach()
    scalars = _stats(r, f, norms) if torch.compiler.is_compiling() else norms
    return StepOutput(loss, r, f, penalty.detach(), path, reason, scalars)


@torch.no_grad()
def _stats(r: Tensor | None, f: Tensor, norms: dict[str, Tensor]) -> Tensor:
    """STATS as float64 [7], NaN for what was not computed."""
    nan = f.new_full((), math.nan)
    values = {"mean_fake": f.mean(), "sign_fake": f.sign().mean(), **norms}
    if r is not None:
        values |= {"mean_real": r.mean(), "sign_real": r.sign().mean()}
    return torch.stack([values.get(name, nan).double() for name in STATS])


def _path(D: nn.Module) -> str:
    return "recurrent" if network.has_recurrence(D) else "autograd"
