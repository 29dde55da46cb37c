"""What a layer does where Opacus' GradSampleModule puts hooks on it, and the grad sampler that it asks then.

Opacus asks its hooks for the input and the gradient of the output alone. What else a call was given (hx,
lengths) is remembered here; what it cannot tell is refused by name: a gradient that reaches the final states,
a PackedSequence, unbatched input. Opacus is no dependency:
nothing here imports it but ``register``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..ops import checks, layers
from ..ops.recurrent import RecurrentOp

_HOOK = "capture_activations_hook"  # Opacus', as GradSampleModule puts it on a layer
_OTHER_WAY = "grad_sample_mode='functorch' takes it, with torch.func.vmap(torch.func.grad(loss)) of your own"


class _Given(NamedTuple):
    """What a call was given beside its input."""

    hx: Any
    lengths: Tensor | None
    random_state: tuple[Tensor, Tensor | None] | None  # of the CPU and the GPU, before dropout


def register(types: Sequence[type[nn.Module]]) -> None:
    """Makes ``grad_sampler`` Opacus' own of these types."""
    importlib.import_module("opacus.grad_sample").register_grad_sampler(list(types))(grad_sampler)


def grad_sampler(layer: Any, activations: Sequence[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    """The gradients of each sample: of every parameter that requires one, [B, ...]. ``activations`` [input
    [B, T, I]] and ``backprops`` [B, T, D*P] as Opacus' hooks hand them, the gradient scaled for a loss that
    was a mean.

    Runs the layer's recurrences again, forward with the same dropout and backward, then one batched product a
    weight.
    """
    calls: list[_Given] = vars(layer).get("_given", [])
    if len(calls) != len(layer.activations) + 1:
        raise RuntimeError(
            f"{layer._get_name()}: expected Opacus' hooks from the call on, got them put on between a call "
            "and its backward"
        )
    given = calls.pop()
    own = {id(p): p for p in layer.parameters() if p.requires_grad}
    x, B = activations[0].transpose(0, 1), backprops.shape[0]
    with torch.enable_grad(), torch._C._DisableAutocast():
        weights = [layer._weights(i) for i in range(layer.num_layers)]
        if unknown := [
            w for of in weights for w in of if w is not None and id(w) not in own and w.requires_grad
        ]:
            raise RuntimeError(
                f"{layer._get_name()}: expected weights that are its own parameters, got {len(unknown)} "
                f"that are computed (parametrized, say); {_OTHER_WAY}"
            )
        apart = {key: p.detach().unsqueeze(0).expand(B, *p.shape).requires_grad_() for key, p in own.items()}
        y = _run(layer, x, given, [[w if w is None else apart.get(id(w), w) for w in of] for of in weights])
        found = torch.autograd.grad(y, list(apart.values()), backprops.transpose(0, 1).to(y.dtype))
    return {own[key]: g for key, g in zip(apart, found, strict=True)}


def _run(layer: Any, x: Tensor, given: _Given, weights: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """The output [T, B, D*P]; of ``weights``, those with a dim more in front get a gradient of each
    sample."""
    op, D = layers.OPS[layer._spec], 2 if layer.bidirectional else 1
    states = (None,) * len(layer._no_states) if given.hx is None else given.hx
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices, enabled=given.random_state is not None):
        if given.random_state is not None:
            cpu, gpu = given.random_state
            torch.set_rng_state(cpu)
            if gpu is not None:
                torch.cuda.set_rng_state(gpu, x.device)
        for i, of_layer in enumerate(weights):
            if i and layer.dropout:
                x = F.dropout(x, layer.dropout, True)
            h, c = (*(None if s is None else s[i * D : (i + 1) * D] for s in states), None)[:2]
            x = _Apart.apply(op, layer.mode == "RNN_RELU", x, h, c, *of_layer, given.lengths)
    return x


class _Apart(torch.autograd.Function):
    """The op on x, h, c, the weights and lengths. A weight that requires a gradient comes as a view of B of
    it, and gets one of each sample."""

    @staticmethod
    def forward(ctx: Any, op: RecurrentOp, relu: bool, *tensors: Tensor | None) -> Tensor:
        x, h, c, *weights, lengths = tensors
        own = zip(weights, ctx.needs_input_grad[5:-1], strict=True)
        tensors = (x, h, c, *(w[0] if n and w is not None else w for w, n in own), lengths)
        outputs = op.forward_all(True, relu, tensors)
        kept = (*outputs[:1], *outputs[op.outputs :])
        ctx.op, ctx.relu, ctx.kept = op, relu, len(kept)
        ctx.save_for_backward(*kept, *tensors)
        return outputs[0]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        saved, op = ctx.saved_tensors, ctx.op
        kept, tensors = saved[: ctx.kept], saved[ctx.kept :]
        wanted = ctx.needs_input_grad[2:-1]
        grads = (dy, *[None] * (op.outputs - 1))
        got = iter(op.per_group(dy.shape[1], ctx.relu, tensors, kept, grads, wanted))
        return (None, None, *[next(got) if w else None for w in wanted], None)


# ---------------------------------------------------------------- what Opacus does not hand over


def is_hook(hook: object) -> bool:
    """Whether this forward hook is Opacus', which remembers inputs for a grad sampler."""
    owner = getattr(hook, "__self__", None)
    return getattr(hook, "__name__", "") == _HOOK and hasattr(owner, "hooks_enabled")


def watch(layer: Any) -> None:
    """Registers the layer's type, and remembers what its calls are given from now on: a layer calls it when
    Opacus' hook is put on it."""
    register((type(layer),))
    if "_watched" not in vars(layer):
        layer._watched = True
        layer.register_forward_pre_hook(_remember, with_kwargs=True)
        layer.register_forward_hook(_refuse_gradients_of_states)


def _listening(layer: Any) -> Any:
    """Opacus' hooks of this layer, where they will ask for gradients of this call; else None."""
    if not (layer.training and torch.is_grad_enabled()):
        return None
    hooks = [hook.__self__ for hook in layer._forward_hooks.values() if is_hook(hook)]
    return hooks[0] if hooks and hooks[0].hooks_enabled else None


def _remember(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    hooks = _listening(layer)
    if hooks is None or not any(p.requires_grad for p in layer.parameters()):
        return None
    name, kwargs = layer._get_name(), dict(kwargs)
    input = args[0] if args else kwargs.pop("input")
    if len(args) > 1:
        kwargs["hx"] = args[1]
    if isinstance(input, PackedSequence):
        raise RuntimeError(
            f"{name} under Opacus: expected padded input and lengths=, got a PackedSequence, of which "
            "hooks do not see the samples"
        )
    if input.dim() != 3:
        raise RuntimeError(f"{name} under Opacus: expected a batch of 3 dimensions, got {input.dim()}")
    if hooks.batch_first != layer.batch_first:
        raise ValueError(
            f"{name} under Opacus: expected one order of dims, got batch_first={layer.batch_first} of the "
            f"layer and {hooks.batch_first} of GradSampleModule"
        )
    if not layer._is_plain:
        raise ValueError(
            f"{name} under Opacus: expected no recurrent_dropout, zoneout or weight_drop, which its samples' "
            f"gradients do not have; {_OTHER_WAY}"
        )
    if not layer._is_plain:
        raise ValueError(
            f"{name} under Opacus: expected no recurrent_dropout, zoneout or weight_drop, which its samples' "
            f"gradients do not have; {_OTHER_WAY}"
        )
    if more := [key for key in kwargs if key not in ("hx", "lengths") and kwargs[key] is not None]:
        raise ValueError(
            f"{name} under Opacus: expected hx and lengths alone, got {', '.join(more)}; {_OTHER_WAY}"
        )
    x = input.transpose(0, 1) if layer.batch_first else input
    lengths, hx, random_state = kwargs.get("lengths"), kwargs.get("hx"), None
    if lengths is not None:
        lengths = kwargs["lengths"] = checks.as_lengths(name, lengths, x)
    if hx is not None:
        hx = tuple(s.detach().to(x.dtype) for s in ([hx] if isinstance(hx, Tensor) else hx))
    if layer.dropout and layer.num_layers > 1:
        random_state = torch.get_rng_state(), torch.cuda.get_rng_state(x.device) if x.is_cuda else None
    vars(layer).setdefault("_given", []).append(_Given(hx, lengths, random_state))
    return (input,), kwargs


def _refuse_gradients_of_states(layer: Any, args: tuple[Any, ...], output: Any) -> None:
    if _listening(layer) is None:
        return

    def refuse(gradient: Tensor | None) -> None:
        if gradient is not None and gradient.any():
            raise RuntimeError(
                f"{layer._get_name()} under Opacus: a gradient reached the final states, of which its hooks "
                "know nothing; take the last step from the output (of each sequence, with lengths), or "
                f"{_OTHER_WAY}"
            )

    final = output[1]
    for state in (final,) if isinstance(final, Tensor) else final:
        if state.requires_grad:
            state.register_hook(refuse)
