"""The op of a layer or a cell, made from its ``CellSpec``: ``fusegen::NAME``, ``fusegen::NAME_backward``, and
where there is more to save than outputs, ``fusegen::NAME_train``.

Inside, every cell is called alike: x, h, c, weights, relu, lengths; c is None of a cell with one state, relu
False of one without a choice, lengths None of a single step. The schemas have what the cell has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _backend, reference
from . import checks, mapped, per_sample, route
from .differentiate import Differentiable, Forward, alias_with_own_version, autograd_function
from .layout import empty_grads, present
from .register import Kernel, below_autograd, register, register_autocast, register_autograd
from .spec import CELLS, CellSpec, Form

Weights = Sequence[Tensor | None]
Outputs = tuple[Any, ...]  # a tensor, or None

_grad_enabled, _any_requires_grad = route._grad_enabled, route._any_requires_grad


# The arguments of a call, alike for every cell: x, h, c, weights, relu, lengths.
Call = tuple[Any, Tensor | None, Tensor | None, Weights, bool, Tensor | None]


class Passes(NamedTuple):
    """Forward and backward on one device.

    ``forward(x, h, c, weights, relu, lengths, packed, train)`` gives all outputs and all that is saved, None
    for what the cell or this call has not; ``backward(call, kept, grads, wanted)`` the gradients wanted of x,
    h, c and the weights, ``kept`` being the first output, gates and cells; ``gate_gradients``, likewise, what
    those of the weights are formed from, ``wanted`` being of x, h and c.
    """

    forward: Callable[..., Outputs]
    backward: Callable[[Call, Outputs, Sequence[Tensor | None], Sequence[bool]], list[Tensor]]
    gate_gradients: Callable[[Call, Outputs, Sequence[Tensor | None], Sequence[bool]], per_sample.Gates]


class RecurrentOp(Differentiable):
    """Makes and calls the op. ``shapes(x, weights, train)`` gives empty tensors as ``Passes.forward`` does.
    ``reference`` has the same function in differentiable torch, under the op's name."""

    def __init__(
        self,
        spec: CellSpec,
        form: Form,
        *,
        cpu: Passes,
        cuda: Passes,
        shapes: Callable[[Tensor, Weights, bool], Outputs],
    ) -> None:
        self.spec, self.form, self.direct, self.direct_cuda = spec, form, cpu, cuda
        self.name = spec.name + form.suffix
        self._formula = getattr(reference, self.name)
        states = len(spec.states)
        unused = 2 - states  # states that other cells have
        self.inputs = 1 + states
        self.outputs = self.differentiable = len(form.outputs) - unused
        # Of what Passes.forward gives: the first output where the cell saves nothing else or its sequence is
        # read again, then what it saves.
        first_saved = len(form.outputs)
        self._saved = slice(first_saved, first_saved + len(spec.saved))
        self.keeps_output = form.has_lengths or not spec.saved
        self._define(cpu, cuda, shapes)
        self._apply, self._apply_directly = autograd_function(self)
        register_autograd(self.name, self._autograd)
        options = bool(spec.has_relu) + form.has_lengths
        wide = self.outputs - 1 if states == 2 else None
        register_autocast(self.name, self.op, self.inputs, options, wide)

    def _define(self, cpu: Passes, cuda: Passes, shapes: Callable[[Tensor, Weights, bool], Outputs]) -> None:
        spec, form, name = self.spec, self.form, self.name
        on_cpu, on_cuda = self.kernels(cpu), self.kernels(cuda)
        x, *states = form.inputs[: self.inputs]
        inputs = ", ".join([f"Tensor {x}", *(f"Tensor? {s}" for s in states), "Tensor?[] weights"])
        inputs += ", bool relu" if spec.has_relu else ""
        given = inputs + (", Tensor? lengths=None" if form.has_lengths else "")
        outputs = [f"Tensor {o}" for o in form.outputs[: self.outputs]]
        saved = [f"Tensor {s}" for s in spec.saved]
        only = "Tensor" if self.outputs == 1 else f"({', '.join(outputs)})"
        self.op = register(
            name,
            Kernel(
                f"({given}, Tensor[]? packed=None) -> {only}",
                on_cpu[name],
                on_cuda[name],
                lambda *args: self._outputs(shapes(args[0], args[self.inputs], False)),
            ),
        )
        self.train_op = self.op
        if saved:
            self.train_op = register(
                f"{name}_train",
                Kernel(
                    f"({given}) -> ({', '.join([*outputs, *saved])})",
                    on_cpu[f"{name}_train"],
                    on_cuda[f"{name}_train"],
                    lambda *args: self._all(shapes(args[0], args[self.inputs], True)),
                ),
            )
        grads = [f"Tensor{'?' if self.outputs > 1 else ''} {g}" for g in form.gradients[: self.outputs]]
        kept = [*(outputs[:1] if self.keeps_output else ()), *saved]
        lengths = ["Tensor? lengths"] if form.has_lengths else []
        at = self.outputs  # of x in backward's arguments
        self.backward_op = register(
            f"{name}_backward",
            Kernel(
                f"({', '.join([*grads, inputs, *lengths, *kept, 'bool[] wanted'])}) -> Tensor[]",
                on_cpu[f"{name}_backward"],
                on_cuda[f"{name}_backward"],
                lambda *args: present(
                    empty_grads((*args[at : at + self.inputs], *args[at + self.inputs]), args[-1])
                ),
            ),
        )

    # ---- between the schemas' arguments and those that all cells have

    def _arguments(
        self,
        x: Tensor | None,
        h: Tensor | None,
        c: Tensor | None,
        weights: Weights,
        relu: bool,
        lengths: Tensor | None,
    ) -> tuple[Any, ...]:
        """As the schemas take them."""
        return (
            x,
            *(h, c)[: self.inputs - 1],
            weights,
            *((relu,) if self.spec.has_relu else ()),
            *((lengths,) if self.form.has_lengths else ()),
        )

    def _uniform(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """(x, h, c, weights, relu, lengths, what else came): of a schema's arguments, from x on. The
        dispatcher drops trailing defaults."""
        x, h, *c = args[: self.inputs]
        weights, *rest = args[self.inputs :]
        relu = rest.pop(0) if self.spec.has_relu else False
        lengths = rest.pop(0) if self.form.has_lengths and rest else None
        return x, h, c[0] if c else None, weights, relu, lengths, rest

    def _outputs(self, given: Outputs) -> Any:
        return given[0] if self.outputs == 1 else given[: self.outputs]

    def _all(self, given: Outputs) -> tuple[Any, ...]:
        return *given[: self.outputs], *given[self._saved]

    def kernels(self, passes: Passes) -> dict[str, Callable[..., Any]]:
        """What runs the registered operators, by their names, with the schemas' arguments."""

        def infer(*args: Any) -> Any:
            *given, rest = self._uniform(args)
            return self._outputs(passes.forward(*given, rest[0] if rest else None, False))

        def train(*args: Any) -> tuple[Any, ...]:
            *given, _ = self._uniform(args)
            return self._all(passes.forward(*given, None, True))

        def backward(*args: Any) -> list[Tensor]:
            grads = args[: self.outputs] if self.inputs == 3 else (*args[: self.outputs], None)
            *given, (*kept, wanted) = self._uniform(args[self.outputs :])
            if self.inputs == 2:
                wanted = [*wanted[:2], False, *wanted[2:]]  # c
            return passes.backward(tuple(given), self._all_kept(kept), grads, wanted)

        found: dict[str, Callable[..., Any]] = {self.name: infer, f"{self.name}_backward": backward}
        return found | {f"{self.name}_train": train} if self.spec.saved else found

    def _all_kept(self, kept: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """(first output, gates, cells) of what was kept, None for what was not."""
        some = kept if self.keeps_output else (None, *kept)
        return (*some, None, None)[:3]

    # ---- calls

    def __call__(
        self,
        x: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        weights: Weights,
        relu: bool = False,
        lengths: Tensor | None = None,
        packed: Sequence[Tensor] | None = None,
    ) -> Any:
        """The op on arguments whose shapes fit; ``packed`` is a list of one blob of ``_C.pack`` per
        direction."""
        tensors = (x, h, c, *weights)
        way = route.of_call(tensors)
        if way == route.DIRECT:
            try:
                if _grad_enabled() and _any_requires_grad(*tensors):
                    return self._apply_directly(True, (relu,), *tensors, lengths)
                given = self.directly(x).forward(x, h, c, weights, relu, lengths, packed, False)
                return given[0] if self.outputs == 1 else given[: self.outputs]
            except (ValueError, RuntimeError, BufferError):
                self._check(x, h, c, weights)
                raise
        if way == route.DISPATCH:
            if not torch.compiler.is_compiling():
                self._check(x, h, c, weights)
            return self.op(*self._arguments(x, h, c, weights, relu, lengths), packed)
        if way == route.MAPPED:
            return self._mapped((x, h, c, *weights, lengths), relu)
        _backend.note(
            f"{self.name} under torch.func or forward-mode differentiation: the reference formula runs"
        )
        return self._by_formula((x, h, c, weights, relu, lengths))

    def _mapped(self, tensors: Sequence[Tensor | None], relu: bool) -> Any:
        x = tensors[0]
        assert x is not None
        dtype = _backend.autocast_dtype(x)
        if dtype is None or x.dtype == torch.float64:
            out = mapped.Recurrence.apply(self, relu, *tensors)
        else:  # as register_autocast does it
            cast = [t if t is None or not t.is_floating_point() else t.to(dtype) for t in tensors]
            with torch.autocast(x.device.type, enabled=False):
                out = mapped.Recurrence.apply(self, relu, *cast)
            if self.outputs > 1 and self.inputs == 3:
                out = (*out[: self.outputs - 1], out[self.outputs - 1].to(x.dtype))
        return self._outputs(out)

    def _check(self, x: Tensor, h: Tensor | None, c: Tensor | None, weights: Weights) -> None:
        """Raises TypeError or RuntimeError where dtypes or devices do not fit together."""
        per = len(self.spec.weights) if self.form.has_lengths else len(weights)
        checks.one_kind(self.name, x, (h, c)[: self.inputs - 1], weights, per)

    def _by_formula(self, given: tuple[Any, ...]) -> Any:
        """``given``: what ``_arguments`` takes. The formulas have lengths before relu."""
        x, h, c, weights, relu, lengths = given
        options = (*((lengths,) if self.form.has_lengths else ()), *((relu,) if self.spec.has_relu else ()))
        return self._formula(x, *(h, c)[: self.inputs - 1], weights, *options)

    def _autograd(self, *args: Any) -> Any:
        x, h, c, weights, relu, lengths, _ = self._uniform(args)
        if _backend.needs_grad(x, h, c, *weights):
            return self._apply(False, (relu,), x, h, c, *weights, lengths)
        return below_autograd(self.op, *args)

    # ---- the gradient: tensors are x, h, c, the weights, lengths

    def forward(self, direct: bool, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> Forward:
        x, h, c, *weights, lengths = tensors
        assert x is not None
        (relu,) = static
        n = self.outputs
        if direct:
            given = self.directly(x).forward(x, h, c, weights, relu, lengths, None, True)
            outputs, kept = given[:n], given[self._saved]
        else:
            given = self.train_op(*self._arguments(x, h, c, weights, relu, lengths))
            given = (given,) if isinstance(given, Tensor) else given
            outputs, kept = given[:n], given[n:]
        if not self.keeps_output:
            return outputs, kept, None
        if not self.form.has_lengths:
            return outputs, (outputs[0], *kept), None
        y, witness = alias_with_own_version(outputs[0])
        return outputs, (y, *kept), witness

    def run_again(
        self, direct: bool, static: tuple[Any, ...], tensors: Sequence[Tensor | None], kept: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        x, h, c, *weights, lengths = tensors
        assert x is not None
        (relu,) = static
        if direct:
            y = self.directly(x).forward(x, h, c, weights, relu, lengths, None, False)[0]
        else:
            y = self.op(*self._arguments(x, h, c, weights, relu, lengths), None)[0]
        return y, *kept[1:]

    def backward(
        self,
        direct: bool,
        static: tuple[Any, ...],
        tensors: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor]:
        x, h, c, *weights, lengths = tensors
        assert x is not None
        (relu,) = static
        wanted = wanted[:-1]  # lengths have no gradient
        if direct:
            given = grads if self.inputs == 3 else (*grads, None)
            call = (x, h, c, weights, relu, lengths)
            grads_of: list[Tensor] = self.directly(x).backward(call, self._all_kept(kept), given, wanted)
            return grads_of
        if self.inputs == 2:
            wanted = [*wanted[:2], *wanted[3:]]
        args = self._arguments(x, h, c, weights, relu, lengths)
        got: Sequence[Tensor] = self.backward_op(*grads, *args, *kept, wanted)
        return got

    def formula(self, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        x, h, c, *weights, lengths = tensors
        out = self._by_formula((x, h, c, weights, *static, lengths))
        return (out,) if isinstance(out, Tensor) else out

    # ---- the gradient inside torch.func

    def forward_all(self, direct: bool, relu: bool, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """The outputs, and what is saved."""
        x, h, c, *weights, lengths = tensors
        assert x is not None
        if direct:
            return self._all(self.directly(x).forward(x, h, c, weights, relu, lengths, None, True))
        given = self.train_op(*self._arguments(x, h, c, weights, relu, lengths))
        return (given,) if isinstance(given, Tensor) else tuple(given)

    def per_group(
        self,
        groups: int,
        relu: bool,
        tensors: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> tuple[Tensor, ...]:
        """As ``backward``, of plain tensors; each weight's gradient has a dim in front, of ``groups`` that
        the batch is made of."""
        x, h, c, *weights, lengths = tensors
        assert x is not None
        given, saved = grads if self.inputs == 3 else (*grads, None), self._all_kept(kept)
        gates = self.directly(x).gate_gradients((x, h, c, weights, relu, lengths), saved, given, wanted[:3])
        if not self.form.has_lengths:  # a step is a sequence of one
            x, h = x.unsqueeze(0), h if h is None else h.unsqueeze(0)
        layer = per_sample.Sequences(
            self.spec, groups, x=x, h0=h, weights=weights, lengths=lengths, kept=saved
        )
        return *present(gates[:3]), *per_sample.of_weights(layer, gates, wanted[3:])


def ops_of(
    form: Form,
    *,
    cpu: Callable[[CellSpec], Passes],
    cuda: Callable[[CellSpec], Passes],
    shapes: Callable[[CellSpec], Callable[[Tensor, Weights, bool], Outputs]],
) -> dict[CellSpec, RecurrentOp]:
    """The op of this form for every cell."""
    return {
        spec: RecurrentOp(spec, form, cpu=cpu(spec), cuda=cuda(spec), shapes=shapes(spec)) for spec in CELLS
    }
