"""What a layer does where Opacus' GradSampleModule puts hooks on it, and the grad sampler that it asks then.

Opacus asks its hooks for the input and the gradient of the output alone. What else a call was given (hx,
lengths) is remembered here, and what its layers kept for backward is found in autograd's graph; what hooks
cannot tell is refused by name: a gradient that reaches the final states, a PackedSequence, unbatched input.
Opacus is no dependency: nothing here imports it but ``register``.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..ops import checks, layers

_HOOK = "capture_activations_hook"  # Opacus', as GradSampleModule puts it on a layer
_OTHER_WAY = "Opacus' grad_sample_mode='no_op' takes it, with torch.func.vmap(torch.func.grad(loss)) of yours"


class _Run(NamedTuple):
    """Of one layer's op: x, h, c, the weights and lengths, and what it kept for backward."""

    tensors: Sequence[Tensor | None]
    kept: Sequence[Tensor]


class _Given:
    """What a call was given beside its input."""

    def __init__(self, hx: Any, lengths: Tensor | None, random_state: tuple[Tensor, Tensor | None] | None):
        self.hx, self.lengths = hx, lengths
        self.random_state = random_state  # of the CPU and the GPU, before dropout
        self.nodes: list[weakref.ref[Any]] = []  # of autograd's graph, a layer each

    def runs(self) -> list[_Run] | None:
        """What forward ran, where autograd's graph has it."""
        nodes = [node() for node in self.nodes]
        if not nodes or any(n is None or _was_changed(n) for n in nodes):
            return None
        return [vars(node).pop("run_for_samples") for node in nodes]


def register(types: Sequence[type[nn.Module]]) -> None:
    """Makes ``grad_sampler`` Opacus' own of these types."""
    importlib.import_module("opacus.grad_sample").register_grad_sampler(list(types))(grad_sampler)


def grad_sampler(layer: Any, activations: Sequence[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    """The gradients of each sample: of every parameter that requires one, [B, ...]. ``activations`` [input
    [B, T, I]] and ``backprops`` [B, T, D*P] as Opacus' hooks hand them, the gradient scaled for a loss that
    was a mean.

    Runs the layer's backward again, then one batched product a weight; forward too only where it ran by
    torch's operators, under autocast or with recompute.

    Gradients have their parameter's dtype, floating; all that the layer takes. Raises RuntimeError or
    ValueError, naming what, for calls whose gradients the hooks cannot tell (see ``fusegen.opacus``).
    """
    calls: list[_Given] = vars(layer).get("_given", [])
    if len(calls) != len(layer.activations) + 1:
        raise RuntimeError(
            f"{layer._get_name()}: expected Opacus' hooks from the call on, got them put on between a call "
            "and its backward"
        )
    given = calls.pop()
    own = {id(p) for p in layer.parameters() if p.requires_grad}
    weights = [layer._weights(i) for i in range(layer.num_layers)]
    if unknown := [w for of in weights for w in of if w is not None and id(w) not in own and w.requires_grad]:
        raise RuntimeError(
            f"{layer._get_name()}: expected weights that are its own parameters, got {len(unknown)} "
            f"that are computed (parametrized, say); {_OTHER_WAY}"
        )
    with torch.no_grad(), torch._C._DisableAutocast():
        dropped = _dropped(layer, given, backprops.transpose(0, 1))
        runs = given.runs() or _run_again(layer, activations[0].transpose(0, 1), given, weights, dropped)
        return _back(layer, runs, weights, own, dropped, backprops.transpose(0, 1))


def _dropped(layer: Any, given: _Given, like: Tensor) -> list[Tensor]:
    """What the output of each layer but the last was multiplied by, drawn as forward drew it."""
    if given.random_state is None:
        return []
    (cpu, gpu), devices = given.random_state, [like.device] if like.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, like.device)
        ones = torch.ones_like(like, memory_format=torch.contiguous_format)
        return [F.dropout(ones, layer.dropout, True) for _ in range(layer.num_layers - 1)]


def _run_again(
    layer: Any,
    x: Tensor,
    given: _Given,
    weights: Sequence[Sequence[Tensor | None]],
    dropped: Sequence[Tensor],
) -> list[_Run]:
    op, D = layers.OPS[layer._spec], 2 if layer.bidirectional else 1
    states = (None,) * len(layer._no_states) if given.hx is None else given.hx
    runs = []
    for i, of_layer in enumerate(weights):
        if i and dropped:
            x = x * dropped[i - 1]
        assert of_layer[0] is not None
        x = x.to(of_layer[0].dtype)
        h, c = (*(None if s is None else s[i * D : (i + 1) * D].to(x.dtype) for s in states), None)[:2]
        tensors = (x, h, c, *of_layer, given.lengths)
        outputs = op.forward_all(True, layer.mode == "RNN_RELU", tensors)
        runs.append(_Run(tensors, (*outputs[:1], *outputs[op.outputs :])))
        x = outputs[0]
    return runs


def _back(
    layer: Any,
    runs: Sequence[_Run],
    weights: Sequence[Sequence[Tensor | None]],
    own: set[int],
    dropped: Sequence[Tensor],
    dy: Tensor,
) -> dict[nn.Parameter, Tensor]:
    """The samples' gradients, from the last layer to the first."""
    op = layers.OPS[layer._spec]
    found: dict[nn.Parameter, Tensor] = {}
    for i, run in reversed([*enumerate(runs)]):
        wanted = [w is not None and id(w) in own for w in weights[i]]
        grads = (dy.to(run.kept[0].dtype), *[None] * (op.outputs - 1))
        relu, inputs = layer.mode == "RNN_RELU", (i > 0, False, False)
        got = iter(op.per_group(dy.shape[1], relu, run.tensors, run.kept, grads, (*inputs, *wanted)))
        if i:
            dy = next(got)
            dy = dy * dropped[i - 1] if dropped else dy
        for w in compress(weights[i], wanted):
            assert isinstance(w, nn.Parameter)
            found[w] = found[w] + next(got) if w in found else next(got)  # layers may share it
    return found


# ---------------------------------------------------------------- what Opacus does not hand over


def is_hook(hook: object) -> bool:
    """Whether this forward hook is Opacus', which remembers inputs for a grad sampler."""
    owner = getattr(hook, "__self__", None)
    return getattr(hook, "__name__", "") == _HOOK and hasattr(owner, "hooks_enabled")


def watch(layer: Any, hook: Any) -> None:
    """Registers the layer's type, and remembers what its calls are given from now on: a layer calls it when
    Opacus' hook is put on it."""
    if getattr(hook.__self__, "force_functorch", False):
        raise RuntimeError(
            f"{layer._get_name()} under Opacus: expected grad_sample_mode='hooks', got 'functorch', which "
            "takes no layers that give states besides their output"
        )
    register((type(layer),))
    if "_watched" not in vars(layer):
        layer._watched = True
        layer.register_forward_pre_hook(_remember, with_kwargs=True)
        layer.register_forward_hook(_look_at_output)


def refuse(layer: Any) -> None:
    """Of layers and cells that no grad sampler knows, when Opacus' hook is put on them."""
    raise RuntimeError(
        f"{layer._get_name()} under Opacus: its samples' gradients are not what hooks can form; {_OTHER_WAY}"
    )


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


def _look_at_output(layer: Any, args: tuple[Any, ...], output: Any) -> None:
    if _listening(layer) is None:
        return
    if calls := vars(layer).get("_given"):
        calls[-1].nodes = _remembered(layer, output[0])

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


def _remembered(layer: Any, y: Tensor) -> list[weakref.ref[Any]]:
    """The nodes of autograd's graph that the layer's op made, first layer first, each with its ``_Run`` on it
    until a grad sampler takes it, or the graph goes. None where something else ran."""
    name = f"fusegen_{layers.OPS[layer._spec].name}"
    nodes: list[Any] = []
    node: Any = y.grad_fn
    while node is not None and len(nodes) < layer.num_layers:
        if getattr(getattr(node, "_forward_cls", None), "__name__", "") == name:
            nodes.insert(0, node)
        node = node.next_functions[0][0] if node.next_functions else None
    runs = []
    for i, node in enumerate(nodes):
        saved, kept = node.saved_tensors, node.kept
        run = _Run(saved[kept:], saved[:kept])
        own = run.tensors[3:-1]
        if any(a is not b for a, b in zip(own, layer._weights(i), strict=False)) or any(node.static[1:]):
            return []
        runs.append(run)
    if len(runs) < layer.num_layers:
        return []
    for node, run in zip(nodes, runs, strict=True):
        node.run_for_samples = run
    return [weakref.ref(node) for node in nodes]


def _was_changed(node: Any) -> bool:
    """Whether the output was, in place."""
    return node.witness is not None and node.witness[0]._version != node.witness[1]
