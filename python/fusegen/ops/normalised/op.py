"""torch.ops.fusegen.normalised_lstm, normalised_gru and normalised_rnn: one layer of normalised cells, or of
cells whose recurrent matrix is of blocks, over a whole sequence, and its gradient.

The formulas, and the order of a direction's weights, are those of ``formula``. Those of
two cells have a ``_train`` kind too, which also gives what the gradient needs; an RNN's output suffices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import _backend
from .. import checks, route
from ..cuda import normalised as cuda_normalised
from ..cuda.engine import ENGINE
from ..differentiate import Differentiable, Forward, alias_with_own_version, autograd_function
from ..layout import empty_grads, present
from ..register import _AUTOCAST_KEYS, _LIBRARY, Kernel, below_autograd, register, register_autograd
from ..spec import GRU, LSTM, RNN, CellSpec
from . import formula
from .formula import WEIGHTS, Kind, Resets
from .passes import CPU, PER, Call, Made, Passes, empty_outputs

CUDA = cuda_normalised.passes(ENGINE)


class NormalisedOp(Differentiable):
    """Makes and calls the op of a cell. A call's tensors, as its autograd function takes them: x, the states,
    the weights, the states behind a boundary, then lengths and resets, which have no gradient; static is its
    Kind."""

    def __init__(self, spec: CellSpec) -> None:
        self.spec, self.name = spec, f"normalised_{spec.name}"
        self.direct, self.direct_cuda = CPU, CUDA
        self.states = len(spec.states)
        self.outputs = self.differentiable = 1 + self.states
        self._saved_names = {LSTM: ("saved", "cells", "stats"), GRU: ("saved", "stats")}.get(spec, ())
        self._define()
        self._apply, self._apply_directly = autograd_function(self)
        register_autograd(self.name, self._autograd)
        for device, key in _AUTOCAST_KEYS.items():
            below = torch._C.DispatchKeySet(torch._C._dispatch_key_parse(key))
            _LIBRARY.impl(self.name, partial(self._autocast, device, below), key)

    def _define(self) -> None:
        states, name = self.spec.states, self.name
        of = [f"Tensor? {s}0" for s in states]
        inputs = ", ".join(
            ["Tensor x", *of, "Tensor?[] weights", "str cell", "str norm", "int blocks", "float eps"]
        )
        optional = ["lengths", "resets", *(f"reset_{s}" for s in states)]
        given = inputs + "".join(f", Tensor? {t}=None" for t in optional)
        outputs = ["Tensor y", *(f"Tensor {s}_n" for s in states)]
        saved = [f"Tensor {s}" for s in self._saved_names]

        def infer(passes: Passes) -> Callable[..., Any]:
            return lambda *args: self._outputs(passes.forward(self.spec, self._call(args), False))

        def train(passes: Passes) -> Callable[..., Any]:
            return lambda *args: self._all(passes.forward(self.spec, self._call(args), True))

        shapes = Passes(empty_outputs, CPU.backward)
        self.op = register(
            name, Kernel(f"({given}) -> ({', '.join(outputs)})", infer(CPU), infer(CUDA), infer(shapes))
        )
        self.train_op = self.op
        if saved:
            schema = f"({given}) -> ({', '.join([*outputs, *saved])})"
            self.train_op = register(f"{name}_train", Kernel(schema, train(CPU), train(CUDA), train(shapes)))
        needed = inputs + "".join(f", Tensor? {t}" for t in optional)
        grads = ", ".join(f"Tensor? d{o.split()[1]}" for o in outputs)

        def backward(passes: Passes) -> Callable[..., Any]:
            def run(*args: Any) -> list[Tensor]:
                grads, call, made, wanted = self._backward_call(args)
                return passes.backward(self.spec, call, made, grads, wanted)

            return run

        def empty(*args: Any) -> list[Tensor]:
            _, call, _, wanted = self._backward_call(args)
            return present(empty_grads(call.tensors, wanted))

        self.backward_op = register(
            f"{name}_backward",
            Kernel(
                f"({grads}, {needed}, {', '.join([outputs[0], *saved])}, bool[] wanted) -> Tensor[]",
                backward(CPU),
                backward(CUDA),
                empty,
            ),
        )

    # ---- between the schemas' arguments and a Call

    def _call(self, args: Sequence[Any]) -> Call:
        """Of a schema's arguments, from x on. The dispatcher drops trailing defaults."""
        n = self.states
        h0, c0 = (*args[1 : 1 + n], None)[:2]
        weights, *kind = args[1 + n : 6 + n]
        optional = (*args[6 + n :], None, None, None, None)[: 2 + n]
        lengths, resets = optional[:2]
        reset_h, reset_c = (*optional[2:], None)[:2]
        return Call(
            Kind(*kind), args[0], h0=h0, c0=c0, weights=weights, lengths=lengths, resets=resets,
            reset_h=reset_h, reset_c=reset_c,
        )  # fmt: skip

    def _arguments(self, call: Call) -> tuple[Any, ...]:
        """As the schemas take them."""
        n = self.states
        states, resets = (call.h0, call.c0)[:n], (call.reset_h, call.reset_c)[:n]
        return (call.x, *states, list(call.weights), *call.kind, call.lengths, call.resets, *resets)

    def _backward_call(self, args: Sequence[Any]) -> tuple[tuple[Tensor | None, ...], Call, Made, list[bool]]:
        n, kept = self.outputs, 1 + len(self._saved_names)
        end = len(args) - 1
        grads = (*args[:n], None)[:3]
        wanted = list(args[end])
        if self.states == 1:  # neither c0 nor reset_c
            wanted = [*wanted[:2], False, *wanted[2:], False]
        return grads, self._call(args[n : end - kept]), self._made(args[end - kept : end]), wanted

    def _made(self, kept: Sequence[Tensor]) -> Made:
        """Of what was kept: y and what is saved."""
        y, *saved = kept
        named: dict[str, Tensor] = dict(zip(self._saved_names, saved, strict=True))
        return Made(y, y, None, named.get("saved"), named.get("cells"), named.get("stats"))

    def _outputs(self, made: Made) -> tuple[Any, ...]:
        return made[: self.outputs]

    def _all(self, made: Made) -> tuple[Any, ...]:
        return *made[: self.outputs], *(getattr(made, name) for name in self._saved_names)

    # ---- calls

    def __call__(self, call: Call) -> tuple[Tensor, ...]:
        """The op on arguments whose shapes fit."""
        tensors = call.tensors
        way = route.of_call(tensors)
        given: tuple[Tensor, ...]
        if way == route.DIRECT:
            self._check(call)
            if torch.is_grad_enabled() and _backend.needs_grad(*tensors):
                given = self._apply_directly(True, call.kind, *tensors, call.lengths, call.resets)
                return given
            return self._outputs(self.directly(call.x).forward(self.spec, call, False))
        if way == route.DISPATCH:
            if not torch.compiler.is_compiling():
                self._check(call)
            given = self.op(*self._arguments(call))
            return given
        _backend.note(
            f"{self.name} under torch.func or forward-mode differentiation: the reference formula runs"
        )
        return self.by_formula(call)

    def _check(self, call: Call) -> None:
        """Raises TypeError or RuntimeError where dtypes or devices do not fit together."""
        checks.one_kind(self.name, call.x, (call.h0, call.c0), (), PER)
        for i, w in enumerate(call.weights):
            checks.same_kind(self.name, f"{WEIGHTS[i % PER]} of direction {i // PER}", call.x, w)
        for name, s in (("reset_h", call.reset_h), ("reset_c", call.reset_c)):
            checks.same_kind(self.name, name, call.x, s)

    def by_formula(self, call: Call) -> tuple[Tensor, ...]:
        """In differentiable torch."""
        states = (call.h0, call.c0)[: self.states]
        resets = None if call.resets is None else Resets(call.resets, call.reset_h, call.reset_c)
        return formula.layer(call.kind, call.x, states, call.weights, call.lengths, resets)

    def _autograd(self, *args: Any) -> Any:
        call = self._call(args)
        if _backend.needs_grad(*call.tensors):
            return self._apply(False, call.kind, *call.tensors, call.lengths, call.resets)
        return below_autograd(self.op, *args)

    def _autocast(self, device: str, below: torch._C.DispatchKeySet, *args: Any) -> Any:
        """Computed and given in autocast's dtype, but for c_n, which keeps x's; float64 is left alone."""
        dtype, call = torch.get_autocast_dtype(device), self._call(args)

        def cast(t: Tensor | None) -> Tensor | None:
            return t if t is None or t.dtype == torch.float64 else t.to(dtype)

        x, h0, c0, *weights, reset_h, reset_c = map(cast, call.tensors)
        assert x is not None
        cast_call = call._replace(x=x, h0=h0, c0=c0, weights=weights, reset_h=reset_h, reset_c=reset_c)
        with torch._C._ExcludeDispatchKeyGuard(below):
            out = self.op(*self._arguments(cast_call))
        return (*out[:2], out[2].to(call.x.dtype)) if self.states == 2 else out

    # ---- the gradient

    def _of_tensors(self, kind: Any, tensors: Sequence[Tensor | None]) -> Call:
        x, h0, c0, *weights, reset_h, reset_c, lengths, resets = tensors
        assert x is not None
        return Call(
            kind, x, h0=h0, c0=c0, weights=weights, lengths=lengths, resets=resets, reset_h=reset_h,
            reset_c=reset_c,
        )  # fmt: skip

    def forward(self, direct: bool, static: Any, tensors: Sequence[Tensor | None]) -> Forward:
        call, n = self._of_tensors(static, tensors), self.outputs
        if direct:
            given = self._all(self.directly(call.x).forward(self.spec, call, True))
        else:
            given = self.train_op(*self._arguments(call))
        y, witness = alias_with_own_version(given[0])
        return given[:n], (y, *given[n:]), witness

    def run_again(
        self, direct: bool, static: Any, tensors: Sequence[Tensor | None], kept: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        call = self._of_tensors(static, tensors)
        if direct:
            y = self.directly(call.x).forward(self.spec, call, False).y
        else:
            y = self.op(*self._arguments(call))[0]
        return y, *kept[1:]

    def backward(
        self,
        direct: bool,
        static: Any,
        tensors: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor]:
        call, wanted = self._of_tensors(static, tensors), list(wanted[:-2])
        if direct:
            given = (*grads, None)[:3]
            passes: Passes = self.directly(call.x)
            return passes.backward(self.spec, call, self._made(kept), given, wanted)
        if self.states == 1:
            wanted = [*wanted[:2], *wanted[3:-1]]
        got: Sequence[Tensor] = self.backward_op(*grads, *self._arguments(call), *kept, wanted)
        return got

    def formula(self, static: Any, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        return self.by_formula(self._of_tensors(static, tensors))


OPS = {spec: NormalisedOp(spec) for spec in (LSTM, GRU, RNN)}
