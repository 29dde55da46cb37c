"""The dropouts of AWD-LSTM (Merity et al. 2018, arXiv:1708.02182): of steps alike, of tokens, of weights.

Each draws from torch's global random numbers of the device, and scales what is kept by 1 / (1 - p).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn._base import Recurrent
from ..ops import functional, torch_path
from ._sequences import State


def locked(x: Tensor, p: float) -> Tensor:
    """x [T, ...] times one mask for all T steps (variational dropout, Gal and Ghahramani 2016)."""
    return x * F.dropout(x.new_ones(1, *x.shape[1:]), p)


def embedding(embedded: Tensor, tokens: Tensor, vocab_size: int, p: float) -> Tensor:
    """embedded [T, ..., E] of tokens [T, ...], all of a dropped token's places 0.

    One mask over the vocabulary, so a token is there in the whole batch or nowhere (Gal and Ghahramani 2016).
    The same as dropping rows of the matrix, without a copy of it.
    """
    if not p:
        return embedded
    mask = F.dropout(embedded.new_ones(vocab_size, 1), p)
    return embedded * F.embedding(tokens, mask)


def run_layers(
    rnn: nn.RNNBase, x: Tensor, state: State | None, between: Callable[[Tensor], Tensor], weight_drop: float
) -> tuple[Tensor, State]:
    """The layers of an `rnn` one by one on x [T, B, I]; results as the module's own.

    rnn: unidirectional, with biases and without projections: fusegen's, or torch.nn's after
    `fusegen.revert`. between: of a layer's output, before the next. weight_drop: the chance of a zero in the
    recurrent matrices, one mask a call for all steps (DropConnect, Wan et al. 2013). The rnn's own dropout
    and its hooks take no part.
    """
    parts = 2 if rnn.mode == "LSTM" else 1
    given: Sequence[Tensor | None] = (None,) * parts
    if state is not None:
        given = (state,) if isinstance(state, Tensor) else state
    finals = []
    for layer in range(rnn.num_layers):
        if layer:
            x = between(x)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(rnn, f"{name}_l{layer}") for name in names]
        if weight_drop:
            weights[1] = F.dropout(weights[1], weight_drop)
        x, *final = _layer(rnn, x, [None if s is None else s[layer : layer + 1] for s in given], weights)
        finals.append(final)
    h_n, *c_n = (torch.cat(each) for each in zip(*finals, strict=True))
    return x, (h_n, c_n[0]) if c_n else h_n


def _layer(
    rnn: nn.RNNBase, x: Tensor, state: list[Tensor | None], weights: list[Tensor]
) -> tuple[Tensor, ...]:
    cell = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh"}[rnn.mode]
    if not isinstance(rnn, Recurrent):
        return torch_path.layers(cell, x, state, weights, None)
    if cell == "lstm":
        h_0, c_0 = state
        return functional.lstm(x, h_0, c_0, [*weights, None])
    return (functional.gru if cell == "gru" else functional.rnn)(x, state[0], weights)
