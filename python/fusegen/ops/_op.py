"""An op with a gradient: its registration with torch.library, its autograd function, and the way a call
takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backend
from .._backend import needs_grad
from . import _common as c

_LIB = torch.library.Library("fusegen", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag,)
_grad_enabled = torch.is_grad_enabled
_any_requires_grad = torch._C._any_requires_grad  # of a list with None in it, it says no: give it tensors
_NOTHING = torch.empty(0, device="cpu")
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


class Kernel(NamedTuple):
    """One registered operator: its schema without the name, what runs on the CPU, the shapes it gives, and
    what runs on an NVIDIA GPU."""

    schema: str
    cpu: Callable
    fake: Callable
    cuda: Callable


class Op:
    """fusegen::NAME, and where it has more to save than outputs fusegen::NAME_train, and
    fusegen::NAME_backward.

    Arguments everywhere: x and the states (``inputs``, ``n`` of them, all differentiable), ``weights`` (a
    flat list, differentiable), then ``extra``: options, and for sequences lengths last. ``forward`` takes
    ``packed`` after them, and gives the outputs and saves nothing. ``train`` gives further tensors to save;
    ``keep`` numbers what backward needs of all it gives. ``backward`` takes the outputs' gradients (or None),
    inputs, weights, extra, what was kept, and a bool per input and weight; it returns a list of the gradients
    wanted. ``formula`` is the same function in differentiable torch; ``wide`` numbers the output that keeps
    the input's dtype under autocast.
    """

    def __init__(
        self,
        name: str,
        forward: Kernel,
        train: Kernel | None,
        backward: Kernel,
        formula: Callable,
        *,
        n: int,
        per: int,
        keep: Sequence[int],
        wide: int | None = None,
    ) -> None:
        self.name, self.formula, self.n, self.per, self.wide = name, formula, n, per, wide
        self.infer, self.backward = forward.cpu, backward.cpu
        self.cuda = (forward.cuda, (train or forward).cuda, backward.cuda)
        self.ragged = "lengths" in forward.schema
        self.op = self._register(name, forward)
        self.backward_op = self._register(f"{name}_backward", backward)
        if train is None:
            self.train, self.train_op = forward.cpu, self.op
        else:
            self.train, self.train_op = train.cpu, self._register(f"{name}_train", train)
        self.function = _function(self, tuple(keep))
        # Python's part of Function.apply only looks for torch.func transforms: a DIRECT call has none
        self._apply = super(torch.autograd.Function, self.function).apply
        _LIB.impl(name, self._autograd, "Autograd")
        for device in ("cpu", "cuda"):
            _LIB.impl(name, partial(self._autocast, device), _AUTOCAST_KEYS[device])

    @staticmethod
    def _register(name: str, kernel: Kernel) -> Callable:
        _LIB.define(name + kernel.schema, tags=_TAGS)
        _LIB.impl(name, kernel.cpu, "CPU")
        _LIB.impl(name, kernel.cuda, "CUDA")
        torch.library.register_fake(f"fusegen::{name}", kernel.fake, lib=_LIB)
        return getattr(torch.ops.fusegen, name).default

    def __call__(self, inputs: tuple, weights: Sequence[Tensor | None], extra: tuple, packed=None):
        """The op on arguments whose shapes fit; ``packed`` is a list of one blob of ``_C.pack`` per
        direction."""
        tensors = (*inputs, *weights)
        way = c.route(tensors)
        if way == c.DIRECT:
            try:
                if _grad_enabled() and _any_requires_grad(*tensors):
                    return self._apply(True, *extra, *tensors)
                return self.infer(*inputs, weights, *extra, packed)
            except (ValueError, RuntimeError, BufferError):
                self.check_kinds(inputs, weights)
                raise
        if way == c.DISPATCH:
            if not torch.compiler.is_compiling():
                self.check_kinds(inputs, weights)
            return self.op(*inputs, weights, *extra, packed)
        _backend.note(
            f"{self.name} under torch.func or forward-mode differentiation: the reference formula runs"
        )
        return self._by_formula(inputs, weights, extra)

    def check_kinds(self, inputs: tuple, weights: Sequence[Tensor | None]) -> None:
        """Raises TypeError or RuntimeError where dtypes or devices do not fit together."""
        c.check_kinds(self.name, inputs[0], inputs[1:], weights, self.per)

    def _by_formula(self, inputs, weights, extra):
        lengths = extra[-1:] if self.ragged else ()
        return self.formula(*inputs, weights, *lengths, *extra[: len(extra) - len(lengths)])

    def _autograd(self, *args):
        inputs, weights, rest = args[: self.n], args[self.n], args[self.n + 1 :]
        if needs_grad(*inputs, *weights):
            extra = (*rest, None)[: self._extras]  # the dispatcher drops trailing defaults
            return self.function.apply(False, *extra, *inputs, *weights)
        with torch._C._AutoDispatchBelowAutograd():
            return self.op(*args)

    def _autocast(self, device: str, *args):
        """Computes and gives everything in the autocast dtype, but for ``wide``. As in torch, float64 is left
        alone."""
        dtype = torch.get_autocast_dtype(device)
        below = torch._C.DispatchKeySet(torch._C._dispatch_key_parse(_AUTOCAST_KEYS[device]))

        def cast(t):
            return t if t is None or t.dtype == torch.float64 else t.to(dtype)

        inputs, weights = args[: self.n], args[self.n]
        extra = (*args[self.n + 1 :], None)[: self._extras]
        with torch._C._ExcludeDispatchKeyGuard(below):
            out = self.op(*map(cast, inputs), [cast(w) for w in weights], *extra)
        if self.wide is None:
            return out
        return tuple(t.to(inputs[0].dtype) if i == self.wide else t for i, t in enumerate(out))

    @property
    def _extras(self) -> int:
        return self.ragged + ("relu" in str(self.op._schema))


def _function(op: Op, keep: tuple[int, ...]) -> type[torch.autograd.Function]:
    """The autograd function of an op: ``apply(direct, *extra, *inputs, *weights)``."""
    n, extras, ragged, k = op.n, op._extras, op.ragged, len(keep)
    options = extras - ragged
    outputs = len(op.op._schema.returns)
    aside = op.ragged and keep[0] == 0

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, direct, *args):
            tensors = args[extras:]
            out = (op.train if direct else op.train_op)(*tensors[:n], tensors[n:], *args[:extras])
            if isinstance(out, Tensor):
                out = (out,)
            ctx.options = args[:options]
            kept = [out[i] for i in keep]
            ctx.witness = None
            if aside:
                kept[0], ctx.witness = _aside(kept[0])
            ctx.save_for_backward(*kept, *args[options:])
            if outputs == 1:
                return out[0]
            ctx.set_materialize_grads(False)
            return tuple(out[:outputs])

        @staticmethod
        def backward(ctx, *grads):
            saved = ctx.saved_tensors
            kept, lengths, tensors = saved[:k], saved[k : k + ragged], saved[k + ragged :]
            want = _wanted(ctx, tensors, ragged and lengths[0] is not None)
            extra = (*ctx.options, *lengths)
            way = c.backward_route(grads, tensors)
            if torch.is_grad_enabled() or way == c.REFERENCE:
                got = _formula_gradient(op, tensors, extra, want, grads)
            else:
                inputs = (*tensors[:n], tensors[n:], *extra)
                if ctx.witness is not None and ctx.witness[0]._version != ctx.witness[1]:
                    _backend.note(f"{op.name} whose output was changed in place: it runs again for backward")
                    again = (op.infer if way == c.DIRECT else op.op)(*inputs, None)
                    kept = (again[0], *kept[1:])
                run = op.backward if way == c.DIRECT else op.backward_op
                got = run(*grads, *inputs, *kept, want)
            it = iter(got)
            return (*(None,) * (1 + extras), *[next(it) if w else None for w in want])

    Function.__name__ = Function.__qualname__ = f"fusegen_{op.name}"
    return Function


def _aside(y: Tensor) -> tuple[Tensor, tuple[Tensor, int]]:
    """An alias of y with a version counter of its own, to be saved without a copy; and a witness, a tensor
    without elements on y's counter, with the count now. Where y is changed in place, as torch.nn allows it,
    autograd does not raise: the witness's count has moved."""
    witness = y.detach()
    if type(y) is Tensor and not y.is_meta:  # else there is no memory to let go of
        witness.data = _NOTHING  # keeps the counter
    return y.data, (witness, witness._version)


def _wanted(ctx, tensors: Sequence[Tensor | None], before: bool) -> list[bool]:
    """Which of ``tensors``, the last arguments of ``apply``, this very backward is asked to give a gradient
    for.

    ``ctx.needs_input_grad`` only tells what requires grad; asking the engine saves the weight gradients when
    ``torch.autograd.grad(loss, x)`` wants x alone. ``before``: whether a tensor (lengths) came before them.
    """
    need = list(ctx.needs_input_grad[-len(tensors) :])
    if torch.compiler.is_compiling():
        return need
    nodes = iter(ctx.next_functions[before:])
    for i, t in enumerate(tensors):
        if t is None:
            continue
        node = next(nodes)[0]
        if need[i]:
            try:
                need[i] = torch._C._will_engine_execute_node(node)
            except RuntimeError:  # raised for a leaf that torch.autograd.grad captures: it is asked for
                need[i] = True
    return need


def _formula_gradient(op: Op, tensors: Sequence[Tensor | None], extra: tuple, want: list[bool], grads):
    """The wanted gradients of the op's formula: what backward does under create_graph=True, where they are
    differentiable again, and where ``grads`` are batched or carry tangents, which kernels do not see.

    Each wanted input is replaced by an alias first: where one input was computed from another, the derivative
    must be the partial one.
    """
    again = torch.is_grad_enabled()
    why = "create_graph=True" if again else "batched gradients or forward-mode differentiation"
    _backend.note(f"{op.name} under {why}: the differentiable reference formula runs")
    with torch.enable_grad():
        alias = [t.view_as(t) if w else t for t, w in zip(tensors, want, strict=True)]
        outputs = op._by_formula(alias[: op.n], alias[op.n :], extra)
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    given = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
    return torch.autograd.grad(
        [o for o, _ in given],
        [t for t, w in zip(alias, want, strict=True) if w],
        [g for _, g in given],
        create_graph=again,
        materialize_grads=True,
    )
