"""The op of a layer or a cell, made from its ``CellSpec``: ``fusegen::NAME``, ``fusegen::NAME_backward``, and
where there is more to save than outputs, ``fusegen::NAME_train``.

Inside, every cell is called alike: x, h, c, weights, relu, lengths, inside; c is None of a cell with one
state, relu False of one without a choice, lengths and inside (``_inside.Inside``) None of a single step. The
schemas have what the cell has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _backend, reference
from .._inside import Inside
from . import checks, route
from .differentiate import Differentiable, Forward, alias_with_own_version, autograd_function
from .layout import empty_grads, present
from .register import Kernel, below_autograd, register, register_autocast, register_autograd
from .spec import CELLS, CellSpec, Form
from .transform import mapped, per_sample

Weights = Sequence[Tensor | None]
Outputs = tuple[Any, ...]  # a tensor, or None

_grad_enabled, _any_requires_grad = route._grad_enabled, route._any_requires_grad


# The arguments of a call, alike for every cell: x, h, c, weights, relu, lengths, inside.
Call = tuple[Any, Tensor | None, Tensor | None, Weights, bool, Tensor | None, Inside | None]
# Of a call, that are no tensors: relu, recompute, and where there is an Inside its last three.
Options = tuple[Any, ...]


# Of x, weights, train and, of a layer, recompute: empty tensors as Passes.forward gives them.
Shapes = Callable[..., Outputs]


class Passes(NamedTuple):
    """Forward and backward on one device.

    ``forward(x, h, c, weights, relu, lengths, packed, train, inside, recompute)`` gives all outputs and all
    that is saved, None for what the cell or this call has not; ``backward(call, kept, grads, wanted,
    recompute)`` the gradients wanted of x, h, c, the weights and, where there is an Inside, of its reset_h
    and reset_c, ``kept`` being the first output, gates and cells. An RNN saves gates, h before zoneout, where
    that takes a mean. ``recompute``, which an LSTM's or GRU's layer may be told: k, where backward makes the
    gates again, else 0. ``gate_gradients``, of a call without an Inside, gives what gradients of weights are
    formed from, ``wanted`` being of x, h and c.
    """

    forward: Callable[..., Outputs]
    backward: Callable[..., list[Tensor]]
    gate_gradients: Callable[[Call, Outputs, Sequence[Tensor | None], Sequence[bool]], per_sample.Gates]


class RecurrentOp(Differentiable):
    """Makes and calls the op.
    ``reference`` has the same function in differentiable torch, under the op's name."""

    def __init__(
        self,
        spec: CellSpec,
        form: Form,
        *,
        cpu: Passes,
        cuda: Passes,
        shapes: Shapes,
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

    def _define(self, cpu: Passes, cuda: Passes, shapes: Shapes) -> None:
        spec, form, name = self.spec, self.form, self.name
        on_cpu, on_cuda = self.kernels(cpu), self.kernels(cuda)
        x, *states = form.inputs[: self.inputs]
        inputs = ", ".join([f"Tensor {x}", *(f"Tensor? {s}" for s in states), "Tensor?[] weights"])
        inputs += ", bool relu" if spec.has_relu else ""
        given = inputs + (", Tensor? lengths=None" if form.has_lengths else "")
        starts = "".join(f", Tensor? reset_{s}=None" for s in spec.states)
        inside = (
            f", Tensor? resets=None{starts}, Tensor? key=None, float[] rates=[], int layer=0, "
            "bool training=True"
            if form.has_lengths
            else ""
        )
        inside += ", int recompute=0" if form.has_lengths and spec.saved else ""
        outputs = [f"Tensor {o}" for o in form.outputs[: self.outputs]]
        saved = [f"Tensor {s}" for s in spec.saved]
        only = "Tensor" if self.outputs == 1 else f"({', '.join(outputs)})"
        self.op = register(
            name,
            Kernel(
                f"({given}, Tensor[]? packed=None{inside}) -> {only}",
                on_cpu[name],
                on_cuda[name],
                lambda *args: self._outputs(shapes(args[0], args[self.inputs], False)),
            ),
        )
        self.train_op = self.op
        if saved or form.has_lengths:
            self.train_op = register(
                f"{name}_train",
                Kernel(
                    f"({given}{inside}) -> ({', '.join([*outputs, *(saved or ['Tensor gates'])])})",
                    on_cpu[f"{name}_train"],
                    on_cuda[f"{name}_train"],
                    lambda *args: self._empty_training(shapes, args),
                ),
            )
        grads = [f"Tensor{'?' if self.outputs > 1 else ''} {g}" for g in form.gradients[: self.outputs]]
        kept = [*(outputs[:1] if self.keeps_output else ()), *saved]
        lengths = ["Tensor? lengths"] if form.has_lengths else []
        given = ", ".join([*grads, inputs, *lengths, *kept, "bool[] wanted"])
        # an RNN reads it off its output else
        mean = ", Tensor? gates=None" if form.has_lengths and not saved else ""
        self.backward_op = register(
            f"{name}_backward",
            Kernel(
                f"({given}{inside}{mean}) -> Tensor[]",
                on_cpu[f"{name}_backward"],
                on_cuda[f"{name}_backward"],
                self._empty_grads,
            ),
        )

    # ---- between the schemas' arguments and those that all cells have

    def _arguments(self, call: Call, *between: Any, recompute: int = 0) -> tuple[Any, ...]:
        """As the schemas take them; ``between``: what stands before what an Inside holds."""
        x, h, c, weights, relu, lengths, inside = call
        return (
            x,
            *(h, c)[: self.inputs - 1],
            weights,
            *((relu,) if self.spec.has_relu else ()),
            *((lengths,) if self.form.has_lengths else ()),
            *between,
            *self._behind(inside, recompute),
        )

    def _behind(self, inside: Inside | None, recompute: int) -> tuple[Any, ...]:
        """What the schemas end with, without trailing defaults."""
        if recompute:
            return (*self._flat(inside or Inside()), recompute)
        return () if inside is None else self._flat(inside)

    def _flat(self, inside: Inside) -> tuple[Any, ...]:
        resets, h, c, key, rates, layer, training = inside
        return (resets, *(h, c)[: self.inputs - 1], key, rates, layer, training)

    def _uniform(self, args: Sequence[Any], between: int = 0) -> tuple[Any, ...]:
        """(x, h, c, weights, relu, lengths, inside, the ``between`` arguments before what is inside, the
        rest): of a schema's arguments, from x on. The dispatcher drops trailing defaults."""
        x, h, *c = args[: self.inputs]
        weights, *rest = args[self.inputs :]
        relu = rest.pop(0) if self.spec.has_relu else False
        lengths = rest.pop(0) if self.form.has_lengths and rest else None
        middle, rest = rest[:between], rest[between:]
        inside, rest = self._inside_of(rest)
        return x, h, c[0] if c else None, weights, relu, lengths, inside, middle, rest

    def _inside_of(self, given: list[Any]) -> tuple[Inside | None, list[Any]]:
        """Of a schema's arguments from resets on; None where they ask for nothing. And those behind them."""
        if not given:
            return None, given
        states = self.inputs - 1
        before = given[: 1 + states] + [None] * (2 - states)
        inside = Inside(*(before + [None] * 3)[:3], *given[1 + states : 5 + states])
        inside = inside._replace(rates=tuple(inside.rates))
        asked = inside.resets is not None or any(inside.rates)
        return inside if asked else None, given[5 + states :]

    def _outputs(self, given: Outputs) -> Any:
        return given[0] if self.outputs == 1 else given[: self.outputs]

    def _all(self, given: Outputs, inside: Inside | None, x: Tensor) -> tuple[Any, ...]:
        saved = given[self._saved]
        if not self.spec.saved and self.form.has_lengths:
            gates = given[len(self.form.outputs)]
            if inside is None or not inside.expects:
                gates = x.new_empty(0)
            elif gates is None:
                gates = given[0].new_empty(self._shape_of_mean(given))
            saved = (gates,)
        return *given[: self.outputs], *saved

    def _shape_of_mean(self, given: Outputs) -> tuple[int, ...]:
        y, h_n = given[:2]
        return h_n.shape[0], *y.shape[:2], h_n.shape[2]

    def _empty_training(self, shapes: Shapes, args: Sequence[Any]) -> tuple[Any, ...]:
        """What the op of training gives, not yet written."""
        x, *_, inside, _, recompute = self._uniform(args)
        return self._all(shapes(x, args[self.inputs], True, *recompute), inside, x)

    def _empty_grads(self, *args: Any) -> list[Tensor]:
        """What backward gives, not yet written."""
        x, h, c, weights, *_, inside, middle, _ = self._uniform(args[self.outputs :], self._kept + 1)
        starts = () if inside is None else (inside.reset_h, inside.reset_c)[: self.inputs - 1]
        states = (h, c)[: self.inputs - 1]
        return present(empty_grads((x, *states, *weights, *starts), middle[-1]))

    @property
    def _kept(self) -> int:
        """How many tensors backward's schema has of forward."""
        return self.keeps_output + len(self.spec.saved)

    def kernels(self, passes: Passes) -> dict[str, Callable[..., Any]]:
        """What runs the registered operators, by their names, with the schemas' arguments."""

        def infer(*args: Any) -> Any:
            *given, inside, packed, _ = self._uniform(args, 1)
            more = () if inside is None else (inside,)
            return self._outputs(passes.forward(*given, packed[0] if packed else None, False, *more))

        def train(*args: Any) -> tuple[Any, ...]:
            *given, inside, _, recompute = self._uniform(args)
            more = _more(inside, *recompute)
            return self._all(passes.forward(*given, None, True, *more), inside, given[0])

        def backward(*args: Any) -> list[Tensor]:
            grads = args[: self.outputs] if self.inputs == 3 else (*args[: self.outputs], None)
            *given, inside, (*kept, wanted), rest = self._uniform(args[self.outputs :], self._kept + 1)
            if self.inputs == 2:
                wanted = [*wanted[:2], False, *wanted[2:]]  # c
                wanted += [False] if inside is not None else []
            if not self.spec.saved:
                kept, rest = kept + rest[:1], []
            return passes.backward((*given, inside), self._all_kept(kept), grads, wanted, *rest)

        found: dict[str, Callable[..., Any]] = {self.name: infer, f"{self.name}_backward": backward}
        trains = self.spec.saved or self.form.has_lengths
        return found | {f"{self.name}_train": train} if trains else found

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
        inside: Inside | None = None,
        recompute: int = 0,
    ) -> Any:
        """The op on arguments whose shapes fit; ``packed`` is a list of one blob of ``_C.pack`` per
        direction; ``recompute``: of what forward would save for backward, only every so many steps' cells are
        kept (0: all), from which backward makes it again."""
        if inside is not None or recompute:
            return self._call_inside((x, h, c, weights, relu, lengths, inside), packed, recompute)
        tensors = (x, h, c, *weights)
        way = route.of_call(tensors)
        if way == route.DIRECT:
            try:
                if _grad_enabled() and _any_requires_grad(*tensors):
                    return self._apply_directly(True, (relu, 0), *tensors, lengths)
                given = self.directly(x).forward(x, h, c, weights, relu, lengths, packed, False)
                return given[0] if self.outputs == 1 else given[: self.outputs]
            except (ValueError, RuntimeError, BufferError):
                self._check(x, h, c, weights)
                raise
        if way == route.DISPATCH:
            if not torch.compiler.is_compiling():
                self._check(x, h, c, weights)
            return self.op(*self._arguments((x, h, c, weights, relu, lengths, None), packed))
        if way == route.MAPPED:
            return self._mapped((x, h, c, *weights, lengths), relu)
        return self._transformed((x, h, c, weights, relu, lengths, None))

    def _call_inside(self, call: Call, packed: Sequence[Tensor] | None, recompute: int) -> Any:
        x, h, c, weights, relu, lengths, inside = call
        tensors = (x, h, c, *weights, *(() if inside is None else (inside.reset_h, inside.reset_c)))
        way = route.of_call(tensors)
        if way == route.MAPPED and inside is None:  # nothing is made again there
            return self._mapped((x, h, c, *weights, lengths), relu)
        if way in (route.REFERENCE, route.MAPPED):
            return self._transformed(call)
        if way == route.DISPATCH or not (_grad_enabled() and _any_requires_grad(*tensors)):
            if not torch.compiler.is_compiling():
                self._check(x, h, c, weights)
            if way == route.DISPATCH:
                return self.op(*self._arguments(call, packed, recompute=recompute))
            more = _more(inside)
            given = self.directly(x).forward(x, h, c, weights, relu, lengths, packed, False, *more)
            return self._outputs(given)
        self._check(x, h, c, weights)
        return self._apply_directly(True, *_split(call, recompute))

    def by_formula(
        self,
        x: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        weights: Weights,
        relu: bool,
        lengths: Tensor | None,
        packed: None,
        inside: Inside,
        recompute: int = 0,
    ) -> Any:
        """The same as calling it, in torch's own operators: where there are no kernels."""
        _backend.note(
            f"{self.name} with resets, masks or zoneout without kernels: the reference formula runs"
        )
        return self._by_formula((x, h, c, weights, relu, lengths, inside))

    def _transformed(self, call: Call) -> Any:
        _backend.note(
            f"{self.name} under torch.func or forward-mode differentiation: the reference formula runs"
        )
        return self._by_formula(call)

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

    def _by_formula(self, call: Call) -> Any:
        """The formulas have lengths before relu."""
        x, h, c, weights, relu, lengths, inside = call
        options = (*((lengths,) if self.form.has_lengths else ()), *((relu,) if self.spec.has_relu else ()))
        more = {} if inside is None else {"inside": inside}
        return self._formula(x, *(h, c)[: self.inputs - 1], weights, *options, **more)

    def _autograd(self, *args: Any) -> Any:
        *given, inside, _, recompute = self._uniform(args, 1)
        x, h, c, weights, _, _ = given
        starts = () if inside is None else (inside.reset_h, inside.reset_c)
        if _backend.needs_grad(x, h, c, *weights, *starts):
            return self._apply(False, *_split((*given, inside), *recompute))
        return below_autograd(self.op, *args)

    # ---- the gradient: static and tensors as _split gives them

    def forward(self, direct: bool, static: Options, tensors: Sequence[Tensor | None]) -> Forward:
        call = _joined(static, tensors)
        x, h, c, weights, relu, lengths, inside = call
        n, expects, recompute = self.outputs, inside is not None and inside.expects, static[1]
        if direct:
            more = _more(inside, recompute)
            given = self.directly(x).forward(x, h, c, weights, relu, lengths, None, True, *more)
            outputs, kept = given[:n], given[self._saved]
            if expects and not self.spec.saved:
                kept = (given[len(self.form.outputs)],)
        else:
            trains = self.spec.saved or expects
            op, between = (self.train_op, ()) if trains else (self.op, (None,))
            given = op(*self._arguments(call, *between, recompute=recompute))
            given = (given,) if isinstance(given, Tensor) else given
            outputs, kept = given[:n], given[n:]
        if not self.keeps_output:
            return outputs, kept, None
        if not self.form.has_lengths:
            return outputs, (outputs[0], *kept), None
        y, witness = alias_with_own_version(outputs[0])
        return outputs, (y, *kept), witness

    def run_again(
        self, direct: bool, static: Options, tensors: Sequence[Tensor | None], kept: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        call = _joined(static, tensors)
        x, h, c, weights, relu, lengths, inside = call
        if direct:
            more = _more(inside)
            y = self.directly(x).forward(x, h, c, weights, relu, lengths, None, False, *more)[0]
        else:
            y = self.op(*self._arguments(call, None))[0]
        return y, *kept[1:]

    def backward(
        self,
        direct: bool,
        static: Options,
        tensors: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor]:
        call, recompute = _joined(static, tensors), static[1]
        inside = call[6]
        if inside is None:
            wanted = wanted[:-1]  # lengths have no gradient
        else:
            wanted = [*wanted[:-5], *wanted[-3:-1]]  # nor have resets and the key
        if direct:
            given = grads if self.inputs == 3 else (*grads, None)
            passes, again = self.directly(call[0]), (recompute,) if recompute else ()
            grads_of: list[Tensor] = passes.backward(call, self._all_kept(kept), given, wanted, *again)
            return grads_of
        if self.inputs == 2:
            wanted = [*wanted[:2], *wanted[3:]]
            wanted = wanted if inside is None else wanted[:-1]
        args = self._arguments((*call[:6], None))
        kept, mean = kept[: self._kept], kept[self._kept :]
        rest = (*self._behind(inside, recompute), *mean)
        got: Sequence[Tensor] = self.backward_op(*grads, *args, *kept, wanted, *rest)
        return got

    def formula(self, static: Options, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        out = self._by_formula(_joined(static, tensors))
        return (out,) if isinstance(out, Tensor) else out

    # ---- the gradient inside torch.func

    def forward_all(self, direct: bool, relu: bool, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """The outputs, and what is saved."""
        x, h, c, *weights, lengths = tensors
        assert x is not None
        if direct:
            given = self.directly(x).forward(x, h, c, weights, relu, lengths, None, True)
            return *given[: self.outputs], *given[self._saved]
        op, between = (self.train_op, ()) if self.spec.saved else (self.op, (None,))
        given = op(*self._arguments((x, h, c, weights, relu, lengths, None), *between))
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
        call = (x, h, c, weights, relu, lengths, None)
        gates = self.directly(x).gate_gradients(call, saved, given, wanted[:3])
        if not self.form.has_lengths:  # a step is a sequence of one
            x, h = x.unsqueeze(0), h if h is None else h.unsqueeze(0)
        layer = per_sample.Sequences(
            self.spec, groups, x=x, h0=h, weights=weights, lengths=lengths, kept=saved
        )
        return *present(gates[:3]), *per_sample.of_weights(layer, gates, wanted[3:])


def _more(inside: Inside | None, recompute: int = 0) -> tuple[Any, ...]:
    """What Passes.forward is given behind ``train``."""
    return (inside, recompute) if recompute else () if inside is None else (inside,)


def _split(call: Call, recompute: int = 0) -> tuple[Any, ...]:
    """(what is no tensor, then the tensors) of a call, as its autograd function takes them: x, h, c, the
    weights, lengths, and what an Inside has."""
    x, h, c, weights, relu, lengths, inside = call
    if inside is None:
        return (relu, recompute), x, h, c, *weights, lengths
    resets, reset_h, reset_c, key, *rest = inside
    return (relu, recompute, *rest), x, h, c, *weights, lengths, resets, reset_h, reset_c, key


def _joined(static: Options, tensors: Sequence[Tensor | None]) -> Call:
    """The call that was split."""
    relu, _, *rest = static
    inside = None
    if rest:
        *tensors, resets, reset_h, reset_c, key = tensors
        inside = Inside(resets, reset_h, reset_c, key, *rest)
    x, h, c, *weights, lengths = tensors
    return x, h, c, weights, relu, lengths, inside


def ops_of(
    form: Form,
    *,
    cpu: Callable[[CellSpec], Passes],
    cuda: Callable[[CellSpec], Passes],
    shapes: Callable[[CellSpec], Shapes],
) -> dict[CellSpec, RecurrentOp]:
    """The op of this form for every cell."""
    return {
        spec: RecurrentOp(spec, form, cpu=cpu(spec), cuda=cuda(spec), shapes=shapes(spec)) for spec in CELLS
    }
