"""What LSTM, GRU and RNN share: arguments at the door, the stack of layers, packed sequences.

They derive from torch.nn.RNNBase, which gives constructor, parameters, initialisation, repr and (harmless
here) flatten_parameters; not from nn.LSTM and its like, at which torch.compile breaks the graph. Weights are
read by name at every call, so weight_norm, parametrize, functional_call and ``.data`` all work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from .. import _backend
from ..ops import _common, torch_path
from ._packed import pad, unpad

_any_autocast = torch._C._is_any_autocast_enabled


class Recurrent(RNNBase):
    """A stack of recurrent layers. Subclasses name their cell and run one layer of it."""

    _cell: str
    _per_direction = 4
    _no_states: tuple[None, ...] = (None,)
    _frozen = None  # Packed of every layer, inside fusegen.frozen

    def _layer(self, x: Tensor, states, weights, lengths: Tensor | None, packed) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _given_states(self, hx, rank: int) -> tuple[Tensor, ...]:
        """hx as a tuple of states, checked for kind and rank (3 batched, 2 unbatched)."""
        if not isinstance(hx, Tensor):
            raise TypeError(f"{self._get_name()}: expected hx to be a Tensor, got {type(hx).__name__}")
        if hx.dim() != rank:
            batched = "batched" if rank == 3 else "unbatched"
            raise RuntimeError(
                f"For {batched} {rank}-D input, hx should also be {rank}-D but got {hx.dim()}-D tensor"
            )
        return (hx,)

    def _result(self, states: tuple[Tensor, ...]):
        return states[0]

    def forward(self, input, hx=None, *, lengths=None):
        """Runs the stack.

        Args:
            input: [T, B, I], [B, T, I] with batch_first, [T, I] unbatched, or a PackedSequence. hx: initial
            state, [L*D, B, P] (LSTM: a tuple with the cell state [L*D, B, H] too); zeros if None. lengths:
            for padded input, how many steps each sequence has: a list of ints or an integer tensor [B] on any
                device, in any order, 0..T. Output past a sequence's end is zero; final states are those of
                its last step, or hx for length 0. Positions past the end are not read.

        Returns (output, h_n) or, for the LSTM, (output, (h_n, c_n)), shaped as in torch.nn.
        """
        if not isinstance(input, Tensor):
            if isinstance(input, PackedSequence):
                return self._forward_packed(input, hx, lengths)
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
            states = self._given_states(hx, rank)
            if rank == 2:
                states = tuple(s.unsqueeze(1) for s in states)
        if lengths is not None:
            if rank == 2 and (
                isinstance(lengths, int) or (isinstance(lengths, Tensor) and lengths.dim() == 0)
            ):
                lengths = [lengths]
            lengths = _common.as_lengths(self._get_name(), lengths, x)
        y, final = self._run(x, states, lengths)
        if rank == 2:
            return y.squeeze(1), self._result(tuple(s.squeeze(1) for s in final))
        return (y.transpose(0, 1) if self.batch_first else y), self._result(final)

    def _forward_packed(self, input: PackedSequence, hx, lengths):
        if lengths is not None:
            raise ValueError(
                f"{self._get_name()}: lengths= is for padded input; a PackedSequence has its own"
            )
        data, batch_sizes, order, back = input
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        states = self._no_states
        if hx is not None:
            states = self._given_states(hx, 3)
            self._check_states(states, int(batch_sizes[0]))
            if order is not None:
                states = tuple(s.index_select(1, order) for s in states)
        x, lengths, where = pad(data, batch_sizes)
        if lengths is not None:
            lengths = lengths.to(data.device, non_blocking=True)
        y, final = self._run(x, states, lengths)
        if back is not None:
            final = tuple(s.index_select(1, back) for s in final)
        return PackedSequence(unpad(y, where), batch_sizes, order, back), self._result(final)

    def _check_states(self, states, batch: int) -> None:
        LD = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        for i, s in enumerate(states):
            expected = (LD, batch, sizes[i])
            if s.shape != expected:
                name = "hidden" if len(states) == 1 else f"hidden[{i}]"
                raise RuntimeError(f"Expected {name} size {expected}, got {list(s.shape)}")

    def _weights(self, layer: int) -> list[Tensor | None]:
        """The weights of one layer, flat as the ops take them, read by name."""
        D = 2 if self.bidirectional else 1
        own = self._parameters
        out: list[Tensor | None] = []
        for names in self._all_weights[layer * D : (layer + 1) * D]:
            try:
                found = [own[name] for name in names]
            except KeyError:  # computed by a parametrization, or set by a hook: an attribute
                found = [getattr(self, name) for name in names]
            if not self.bias:
                found[2:2] = (None, None)
            if len(found) < self._per_direction:
                found.append(None)
            out += found
        return out

    def _run(self, x: Tensor, states, lengths: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The stack on time-major x [T, B, I]: (y [T, B, D*P], final states, each [L*D, B, ...])."""
        weights = self._weights(0)
        (T, B, I), dtype, autocast = x.shape, x.dtype, _any_autocast()
        if self.input_size != I:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {I}"
            )
        if dtype is not weights[0].dtype and not autocast:
            W = weights[0].dtype
            raise ValueError(
                f"RNN input dtype ({dtype}) does not match weight dtype ({W}). "
                f"Convert input: input.to({W}), or convert model: model.to({dtype})"
            )
        if T == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if states[0] is not None:
            self._check_states(states, B)
        if _backend.use_torch(self._cell, x, self.hidden_size, B, T, states, weights, lengths):
            return self._run_torch(x, states, lengths)
        packed = None
        frozen = None if autocast or torch.compiler.is_compiling() else self._frozen
        if frozen and (frozen.pays(T, B, self.hidden_size) or lengths is not None or self.proj_size):
            packed = frozen.blobs(self)
        L = self.num_layers
        if L == 1:
            y, *final = self._layer(x, states, weights, lengths, packed and packed[0])
            return y, tuple(final)

        D = 2 if self.bidirectional else 1
        finals = []
        for layer in range(L):
            if layer:
                if self.dropout and self.training:
                    x = F.dropout(x, self.dropout, True)
                weights = self._weights(layer)
            here = tuple(None if s is None else s[layer * D : (layer + 1) * D] for s in states)
            x, *final = self._layer(x, here, weights, lengths, packed and packed[layer])
            finals.append(final)
        final = [torch.cat(s) for s in zip(*finals, strict=True)]
        if (
            len(final) == 2 and final[1].dtype != dtype
        ):  # autocast: all layers but the first have 16-bit input
            final[1] = final[1].to(dtype)
        return x, tuple(final)

    def _run_torch(self, x: Tensor, states, lengths: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        kind = self.mode.lower()
        flat = [getattr(self, name) for name in self._flat_weights_names]
        y, *final = torch_path.layers(
            kind, x, states, flat, lengths, self.num_layers, self.bidirectional, self.dropout, self.training
        )
        return y, tuple(final)

    def _init_flat_weights(self) -> None:
        super()._init_flat_weights()
        # RNNBase's cache, not read here: a computed weight in it would keep a graph alive and forbid deepcopy
        self._flat_weights = [None if w is None or not w.is_leaf else w for w in self._flat_weights]

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_frozen", None)
        return state
