"""What LSTM, GRU and RNN share: arguments at the door, the stack of layers, packed sequences.

They derive from torch.nn.RNNBase, which gives constructor, parameters, initialisation, repr and (harmless
here) flatten_parameters; not from nn.LSTM and its like, at which torch.compile breaks the graph. Weights are
read by name at every call, so weight_norm, parametrize, functional_call and ``.data`` all work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from .. import _backend, _precision
from ..ops import checks, layers, torch_path
from ..ops import inside as inside_ops
from ..ops.inside import NO_RATES, Asked, Rates
from ..ops.spec import CellSpec
from . import _opacus
from ._frozen import Frozen
from ._packed import is_traced, pad, pad_flags, unpad
from ._scripted import NotScripted
from ._states import check_last, run_to_last

States = tuple[Tensor | None, ...]
Given = Tensor | Sequence[Tensor]  # hx: a state, or of the LSTM both

# The union too: a caller need not say which of both it has.
I = TypeVar("I", Tensor, PackedSequence, Tensor | PackedSequence)
S_co = TypeVar("S_co", covariant=True)


class Call(Protocol[S_co]):
    """What type checkers and editors are told that a layer is called as: with the arguments of `forward`, for
    an output of the input's type and final states S. nn.Module's own call is declared to return Any."""

    def __call__(
        self,
        input: I,
        hx: Given | None = None,
        *,
        lengths: Iterable[int] | Tensor | int | None = None,
        resets: Tensor | None = None,
        reset_to: Given | None = None,
        generator: torch.Generator | None = None,
        last: int | None = None,
    ) -> tuple[I, S_co]: ...


_any_autocast = torch._C._is_any_autocast_enabled


class Layers(nn.Module):
    """What a stack of recurrent layers is called with: padded, ragged, packed or unbatched input, states.

    Subclasses run it, time-major."""

    if TYPE_CHECKING:  # at run time the call is nn.Module's, hooks and all
        __call__: Call[Any]
    _no_states: States = (None,)
    batch_first: bool
    num_layers: int
    bidirectional: bool
    hidden_size: int
    proj_size: int
    _is_plain = True  # whether nothing happens inside the recurrences but what a call asks for

    def _run(
        self, x: Tensor, states: States, lengths: Tensor | None, asked: Asked | None = None
    ) -> tuple[Tensor, ...]:
        """The stack on x [T, B, I]: y [T, B, D*P], final states, each [L*D, B, ...]."""
        raise NotImplementedError

    def _asked(self, x: Tensor, resets: Tensor | None, reset_to: Any, generator: Any) -> Asked | None:
        """What happens inside the recurrences of a call on x [T, B, I], of resets [T, B]; None of a plain
        one."""
        for name, given in (("resets", resets), ("reset_to", reset_to), ("generator", generator)):
            if given is not None:
                raise ValueError(f"{self._get_name()}: expected no {name}, which its kernels do not have")
        return None

    def _like(self) -> Tensor:
        """A tensor of the layer's dtype and device."""
        raise NotImplementedError

    def zeros(self, batch: int | None = None) -> Any:
        """The state that a sequence starts with where no hx is given, as hx takes it: zeros [L*D, batch, P]
        (LSTM: a tuple with [L*D, batch, H] too), without the batch if None, of the layer's dtype and device.
        Raises TypeError or ValueError for a batch that is no number of sequences."""
        if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int)):
            raise TypeError(f"{self._get_name()}: expected batch as an int, got {type(batch).__name__}")
        if batch is not None and batch < 0:
            raise ValueError(f"{self._get_name()}: expected a batch of 0 or more sequences, got {batch}")
        W = self._like()
        shape = (self.num_layers * (2 if self.bidirectional else 1), *(() if batch is None else (batch,)))
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: len(self._no_states)]
        return self._result(tuple(W.new_zeros(*shape, n) for n in sizes))

    def _given_states(self, hx: Any, rank: int) -> tuple[Tensor, ...]:
        """hx as a tuple of states, checked for kind and rank (3 batched, 2 unbatched)."""
        if not isinstance(hx, Tensor):
            raise TypeError(f"{self._get_name()}: expected hx to be a Tensor, got {type(hx).__name__}")
        if hx.dim() != rank:
            batched = "batched" if rank == 3 else "unbatched"
            raise RuntimeError(
                f"For {batched} {rank}-D input, hx should also be {rank}-D but got {hx.dim()}-D tensor"
            )
        return (hx,)

    def _result(self, states: tuple[Tensor, ...]) -> Any:
        return states[0]

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Given | None = None,
        *,
        lengths: Iterable[int] | Tensor | int | None = None,
        resets: Tensor | None = None,
        reset_to: Given | None = None,
        generator: torch.Generator | None = None,
        last: int | None = None,
    ) -> tuple[Any, Any]:
        """Runs the stack.

        Args:
            input: [T, B, I], [B, T, I] with batch_first, [T, I] unbatched, or a PackedSequence.
            hx: initial state, [L*D, B, P] (LSTM: a tuple with the cell state [L*D, B, H] too); zeros if None.
            lengths: for padded input, how many steps each sequence has: a list of ints or an integer tensor
                [B] on any device, in any order, 0..T. Output past a sequence's end is zero; final states are
                those of its last step, or hx for length 0. Positions past the end are not read.
            resets: a bool tensor [T, B] ([B, T] with batch_first, [T] unbatched, [sum of lengths] of a
                PackedSequence, as its data), true where a sequence starts anew between the steps t-1 and t:
                forward in time the state is replaced before step t reads it (of t = 0, hx is), in reverse
                before step t-1 does (t = 0 has no meaning there). Gradients stop at the boundary.
            reset_to: what the state becomes there, as hx, or [P] (LSTM: and [H]) for all; zeros if None.
                Gradients reach it.
            generator: a torch.Generator of the CPU, of which recurrent dropout, zoneout and weight drop draw
                in training, instead of torch's own: one key a call, which makes the same masks on any device.
                Rows of a PackedSequence have the masks of its order, the longest first. Inside
                ``torch.func.vmap``, its ``randomness`` says whether samples have one key or one each.
            last: k: the state comes with a dim in front, of the last k steps of the input, the last one at
                -1; a sequence that ended before has its final one there. Each of these steps but the first
                is a call of the kernels of its own. Not of bidirectional layers.

        Returns (output, h_n) or, for the LSTM, (output, (h_n, c_n)), shaped as in torch.nn.
        """
        if not isinstance(input, Tensor):
            if isinstance(input, PackedSequence):
                return self._forward_packed(input, hx, lengths, last, (resets, reset_to, generator))
            raise TypeError(
                f"{self._get_name()}: expected input to be a Tensor or a PackedSequence, "
                f"got {type(input).__name__}"
            )
        rank = input.dim()
        if rank == 3:
            x = input.transpose(0, 1) if self.batch_first else input
        elif rank == 2:
            x = input.unsqueeze(1)
        else:
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {rank}D instead")
        states = self._no_states
        if hx is not None:
            given = self._given_states(hx, rank)
            states = tuple(s.unsqueeze(1) for s in given) if rank == 2 else given
        at = None
        if lengths is not None:
            if rank == 2 and isinstance(lengths, Tensor) and lengths.dim() == 0:
                lengths = lengths.view(1)
            elif rank == 2 and isinstance(lengths, int):
                lengths = [lengths]
            at = checks.as_lengths(self._get_name(), lengths, x)  # type: ignore[arg-type]
        asked = None
        if not (self._is_plain and resets is None and reset_to is None and generator is None):
            resets, reset_to = self._padded(x, rank, resets, reset_to)
            asked = self._asked(x, resets, reset_to, generator)
        out = (
            self._run(x, states, at, asked) if last is None else self._run_to_last(x, states, at, asked, last)
        )
        if rank == 2:
            return out[0].squeeze(1), self._result(tuple(s.squeeze(-2) for s in out[1:]))
        return (out[0].transpose(0, 1) if self.batch_first else out[0]), self._result(out[1:])

    def _run_to_last(
        self, x: Tensor, states: States, lengths: Tensor | None, asked: Asked | None, last: int
    ) -> tuple[Tensor, ...]:
        name = self._get_name()
        check_last(name, last, x.shape[0], self.bidirectional)
        if asked is not None and asked.is_random:
            raise ValueError(
                f"{name}: expected last=None in training with recurrent dropout, zoneout or weight drop, "
                "whose masks are those of one call"
            )

        def run(steps: slice, states: Sequence[Tensor | None], within: Tensor | None) -> tuple[Tensor, ...]:
            part = asked
            if asked is not None and asked.resets is not None:
                part = asked._replace(resets=asked.resets[steps])
            return self._run(x[steps], tuple(states), within, part)

        return run_to_last(run, x.shape[0], states, lengths, last)

    def _padded(self, x: Tensor, rank: int, resets: Any, reset_to: Any) -> tuple[Tensor | None, Any]:
        """resets as [T, B] and states of a batch, of padded or unbatched input."""
        T, B = x.shape[:2]
        if resets is not None:
            form, order = ((T,), "[T]") if rank == 2 else ((T, B), "[T, B]")
            if rank == 3 and self.batch_first:
                form, order = (B, T), "[B, T]"
            resets = inside_ops.as_resets(self._get_name(), resets, form, order)
            if rank == 2:
                resets = resets.unsqueeze(1)
            elif self.batch_first:
                resets = resets.transpose(0, 1)
        if rank == 2 and reset_to is not None:  # of one sequence [L*D, n], but not [n] for all

            def batched(s: Any) -> Any:
                return s.unsqueeze(1) if isinstance(s, Tensor) and s.dim() == 2 else s

            pair = isinstance(reset_to, (tuple, list))
            reset_to = tuple(map(batched, reset_to)) if pair else batched(reset_to)
        return resets, reset_to

    def _forward_packed(
        self,
        input: PackedSequence,
        hx: Any,
        lengths: object,
        last: int | None,
        given_inside: tuple[Any, Any, Any],
    ) -> tuple[PackedSequence, Any]:
        if lengths is not None:
            raise ValueError(
                f"{self._get_name()}: lengths= is for padded input; a PackedSequence has its own"
            )
        data, batch_sizes, order, back = input
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        if is_traced() and last is None and self._is_plain and given_inside == (None, None, None):
            states = self._no_states if hx is None else self._given_states(hx, 3)
            if order is not None:
                states = tuple(None if s is None else s.index_select(1, order) for s in states)
            y, *final = self._record_packed(data, batch_sizes, states)
            if back is not None:
                final = [s.index_select(1, back) for s in final]
            return PackedSequence(y, batch_sizes, order, back), self._result(tuple(final))
        x, at, where = pad(data, batch_sizes)
        states = self._no_states
        if hx is not None:
            given = self._given_states(hx, 3)
            self._check_states(given, x.shape[1])
            states = given if order is None else tuple(s.index_select(1, order) for s in given)
        if at is not None:
            at = at.to(data.device, non_blocking=True)
        (resets, reset_to, generator), asked = given_inside, None
        if not (self._is_plain and resets is None and reset_to is None and generator is None):
            if resets is not None:
                order_of_data = "[sum of lengths], as the data of a PackedSequence"
                resets = inside_ops.as_resets(self._get_name(), resets, (data.shape[0],), order_of_data)
                resets = pad_flags(resets, x.shape[:2], where)
            asked = self._asked(x, resets, reset_to, generator)
            if asked is not None and order is not None and reset_to is not None:
                asked = asked.reordered(order)
        if last is None:
            y, *final = self._run(x, states, at, asked)
        else:
            y, *final = self._run_to_last(x, states, at, asked, last)
        if back is not None:
            final = [s.index_select(-2, back) for s in final]
        return PackedSequence(unpad(y, where), batch_sizes, order, back), self._result(tuple(final))

    def _record_packed(self, data: Tensor, batch_sizes: Tensor, states: States) -> tuple[Tensor, ...]:
        """The stack on a PackedSequence's data [N, I] while torch.jit.trace records."""
        raise RuntimeError(f"{self._get_name()}: torch.jit.trace does not take a PackedSequence here")

    def _check_states(self, states: Sequence[Tensor | None], batch: int) -> None:
        LD = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        for i, s in enumerate(states):
            expected = (LD, batch, sizes[i])
            if s is not None and s.shape != expected:
                name = "hidden" if len(states) == 1 else f"hidden[{i}]"
                raise RuntimeError(f"Expected {name} size {expected}, got {list(s.shape)}")


# Of what is called with itself, the methods that fusegen.inspect replaces in a module for a while.
TAPPED = ("_run", "_step", "_forward_packed")


def untapped(state: dict[str, Any]) -> dict[str, Any]:
    """What a copy is made of: ``state``, a module's, without them."""
    for name in TAPPED:
        state.pop(name, None)
    return state


_OPTIONS = ("recurrent_dropout", "recurrent_dropout_on", "zoneout", "weight_drop")


def _option(name: str, read: Callable[[Any], Any]) -> Any:
    """A property of ``Recurrent``, checked where it is set."""
    return property(read, lambda self, value: self._regularise(**{name: value}))


class Recurrent(Layers, NotScripted, RNNBase):
    """A stack of recurrent layers. Subclasses name their cell."""

    _spec: CellSpec
    _frozen: Frozen | None = None  # inside fusegen.frozen
    _rates: Rates = NO_RATES  # of modules that were torch.nn's
    _dropout_on = "state"
    recompute: int | None = None

    def __init__(self, *args: Any, recompute: int | None, **kwargs: Any) -> None:
        checks.as_recompute(type(self).__name__, recompute)
        super().__init__(*args, **kwargs)
        if recompute is not None:  # else it has what torch.nn's has, and nothing more
            self.recompute = recompute

    def _regularise(self, **given: Any) -> None:
        """Keeps these of the four options below, checked, beside the others."""
        now = {name: getattr(self, name) for name in _OPTIONS} | given
        rates = inside_ops.as_rates(self._get_name(), len(self._spec.states), **now)
        new = (rates, now["recurrent_dropout_on"])
        if new != (self._rates, self._dropout_on):  # else it has what torch.nn's has, and nothing more
            (self._rates, self._dropout_on), self._is_plain = new, not any(rates)

    def _recurrent_dropout(self) -> float:
        return max(self._rates.state, self._rates.candidate)

    def _recurrent_dropout_on(self) -> str:
        return self._dropout_on

    def _zoneout(self) -> float | tuple[float, float]:
        rates = self._rates
        return (rates.zoneout_h, rates.zoneout_c) if len(self._spec.states) == 2 else rates.zoneout_h

    def _weight_drop(self) -> float:
        return self._rates.weight_drop

    recurrent_dropout = _option("recurrent_dropout", _recurrent_dropout)
    recurrent_dropout_on = _option("recurrent_dropout_on", _recurrent_dropout_on)
    zoneout = _option("zoneout", _zoneout)
    weight_drop = _option("weight_drop", _weight_drop)

    def extra_repr(self) -> str:
        said: str = super().extra_repr()
        defaults = (0.0, "state", (0.0, 0.0) if len(self._spec.states) == 2 else 0.0, 0.0)
        for name, default in zip(_OPTIONS, defaults, strict=True):
            if (value := getattr(self, name)) != default:
                said += f", {name}={value!r}"
        return said if self.recompute is None else f"{said}, recompute={self.recompute}"

    def _asked(self, x: Tensor, resets: Tensor | None, reset_to: Any, generator: Any) -> Asked | None:
        name, h, c = self._get_name(), None, None
        if reset_to is not None:
            if resets is None:
                raise ValueError(f"{name}: expected reset_to together with resets, got it alone")
            P, H = self.proj_size or self.hidden_size, self.hidden_size
            planes = (self.num_layers * (2 if self.bidirectional else 1), x.shape[1])
            h, c = inside_ops.as_starts(name, reset_to, x, planes, (P, H)[: len(self._spec.states)])
        generator = inside_ops.as_generator(name, generator)
        if resets is not None:
            resets = inside_ops.own(resets, x)
        return Asked(resets, h, c, self._rates, self.training, generator)

    @property
    def _zones(self) -> bool:
        """Whether evaluation too is another than the plain layer's."""
        return bool(self._rates.zoneout_h or self._rates.zoneout_c)

    def _like(self) -> Tensor:
        W = self._weights(0)[0]
        assert W is not None
        return W

    def _weights(self, layer: int) -> list[Tensor | None]:
        """The weights of one layer, flat as the ops take them, read by name."""
        D = 2 if self.bidirectional else 1
        own = self._parameters
        out: list[Tensor | None] = []
        for names in self._all_weights[layer * D : (layer + 1) * D]:
            found: list[Tensor | None]
            try:
                found = [own[name] for name in names]
            except KeyError:  # computed by a parametrization, or set by a hook: an attribute
                found = [getattr(self, name) for name in names]
            if not self.bias:
                found[2:2] = (None, None)
            if len(found) < len(self._spec.weights):
                found.append(None)
            out += found
        return out

    def _run(
        self,
        x: Tensor,
        states: States,
        lengths: Tensor | None,
        asked: Asked | None = None,
        tap: layers.Tap | None = None,
    ) -> tuple[Tensor, ...]:
        L = self.num_layers
        weights = [self._weights(layer) for layer in range(L)] if L > 1 else [self._weights(0)]
        W = weights[0][0]
        assert W is not None
        (T, B, I), dtype, autocast = x.shape, x.dtype, _any_autocast()
        if self.input_size != I:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {I}"
            )
        if dtype is not W.dtype and not autocast:
            raise ValueError(
                f"RNN input dtype ({dtype}) does not match weight dtype ({W.dtype}). "
                f"Convert input: input.to({W.dtype}), or convert model: model.to({dtype})"
            )
        if T == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if states[0] is not None:
            self._check_states(states, B)
        packed = None
        frozen = None if autocast or torch.compiler.is_compiling() else self._frozen
        if frozen and (frozen.pays(T, B, self.hidden_size) or lengths is not None or self.proj_size):
            packed = partial(frozen.blobs, self)
        every = self.recompute
        recompute = 0 if every is None else checks.as_recompute(self._get_name(), every)
        out = layers.run(
            self._spec, x, states, weights, relu=self.mode == "RNN_RELU", lengths=lengths,
            dropout=self.dropout, training=self.training, packed=packed, asked=asked,
            recompute=recompute, tap=tap,
        )  # fmt: skip
        if autocast:
            dtype_of_autocast = _backend.autocast_dtype(x)
            ragged, projected = lengths is not None, self.proj_size > 0
            out = _precision.as_torch_gives(
                self._spec.name,
                out,
                x,
                states,
                computed=dtype_of_autocast,
                ragged=ragged,
                projected=projected,
            )
        return out

    def _record_packed(self, data: Tensor, batch_sizes: Tensor, states: States) -> tuple[Tensor, ...]:
        weights = [w for layer in range(self.num_layers) for w in self._weights(layer)]
        stack = torch_path.Stack(self.num_layers, self.bidirectional, self.dropout, self.training)
        flat = torch_path.flat_weights(weights, len(self._spec.weights))
        _backend.note(f"{self._spec.name} under torch.jit.trace: torch's own operators are recorded")
        name = self._spec.engine_name(self.mode == "RNN_RELU")
        return torch_path.packed(name, data, batch_sizes, states, flat, stack)

    def _init_flat_weights(self) -> None:
        super()._init_flat_weights()
        # RNNBase's cache, not read here: a computed weight in it would keep a graph alive and forbid deepcopy
        self._flat_weights = [None if w is None or not w.is_leaf else w for w in self._flat_weights]

    def register_forward_hook(self, hook: Any, **options: Any) -> Any:
        """As torch.nn's; Opacus' hook brings along what tells it of hx and lengths."""
        handle = super().register_forward_hook(hook, **options)
        if _opacus.is_hook(hook):
            _opacus.watch(self, hook)
        return handle

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_frozen", None)
        return untapped(state)


def refuse(module: str, options: dict[str, Any]) -> None:
    """Raises as torch.nn does for options that a GRU or RNN does not have."""
    if "proj_size" in options:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    for name in options:
        raise TypeError(f"{module}.__init__() got an unexpected keyword argument {name!r}")
