"""What the models over token sequences share: cells, checks, shifted targets, drawing, decoding."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .. import nn as fused
from .._errors import NotFiniteError
from .._modes import evaluating
from ..nn.frozen import frozen
from ..ops.checks import as_lengths

# The recurrent state: h for a GRU or an RNN, (h, c) for an LSTM; each [num_layers, B, hidden_size].
State = Tensor | tuple[Tensor, Tensor]

# Of the sequences of a batch, integers [B]; None where all are full.
Lengths = Sequence[int] | Tensor | None

LAYERS = {"lstm": fused.LSTM, "gru": fused.GRU, "rnn": fused.RNN}

LEFT_OUT = -100  # the target that F.cross_entropy ignores


def recurrent(
    cell: str, input_size: int, hidden_size: int, num_layers: int, dropout: float, **options: Any
) -> nn.RNNBase:
    """A layer of `LAYERS`, with dropout between layers where there is more than one."""
    dropout = dropout if num_layers > 1 else 0.0  # torch.nn warns of one without effect
    return LAYERS[cell](input_size, hidden_size, num_layers, dropout=dropout, **options)


@torch.no_grad()
def open_forget_gates(rnn: nn.RNNBase) -> None:
    """Adds 1 to the bias of an LSTM's forget gates (Jozefowicz et al. 2015); leaves other cells alone."""
    if rnn.mode == "LSTM":
        for name, bias in rnn.named_parameters():
            if name.startswith("bias_ih"):
                bias.chunk(4)[1].add_(1.0)


def run(rnn: nn.RNNBase, x: Tensor, state: State | None, lengths: Tensor) -> tuple[Tensor, State]:
    """The layer on x [T, B, I], sequences of `lengths` (int64 [B] on the CPU): as fusegen's `lengths=`.

    After `fusegen.revert` the layer is torch.nn's: then by packing, which asks for lengths of 1 or more.
    """
    if isinstance(rnn, tuple(LAYERS.values())):
        return rnn(x, state, lengths=lengths)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, state = rnn(packed, state)
    return pad_packed_sequence(output, total_length=len(x))[0], state


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """`function` of each part of a recurrent state."""
    return function(state) if isinstance(state, Tensor) else (function(state[0]), function(state[1]))


# Checks


def check_integers(name: str, tokens: object) -> None:
    """Raises TypeError unless `tokens` is a tensor of integers."""
    if not isinstance(tokens, Tensor):
        raise TypeError(f"{name}: expected an integer tensor, got {type(tokens).__name__}")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f"{name}: expected an integer tensor, got {tokens.dtype}")


def check_range(name: str, tokens: Tensor, size: int) -> None:
    """Raises ValueError for a value outside 0..size-1, on the CPU, where looking costs nothing."""
    if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= size:
            raise ValueError(f"{name}: expected values from 0 to {size - 1}, got {low} to {high}")


def padded(
    name: str, tokens: Tensor, lengths: Lengths, vocab_size: int, lengths_name: str = "lengths"
) -> tuple[Tensor, Tensor]:
    """A padded batch, checked: (tokens int64 [T, B] with 0 past each end, lengths int64 [B] on the CPU).

    tokens: integers [T, B], T at least 1; positions past a sequence's end are not read.
    lengths: a list or an integer tensor [B] of 0..T; None: all T.
    Raises TypeError or ValueError naming `name` or `lengths_name`.
    """
    check_integers(name, tokens)
    if tokens.dim() != 2 or tokens.shape[0] == 0:
        raise ValueError(f"{name}: expected shape [T, B], T at least 1, got {list(tokens.shape)}")
    T, B = tokens.shape
    tokens = tokens.long()
    of_rows = as_lengths(lengths_name, lengths, torch.empty(T, B, 0, device="cpu"))
    if of_rows is None:
        of_rows = torch.full((B,), T, dtype=torch.int64)
    else:
        tokens = tokens.masked_fill(past_end(of_rows, T, tokens.device), 0)
    check_range(name, tokens, vocab_size)
    return tokens, of_rows


def past_end(lengths: Tensor, T: int, device: torch.device) -> Tensor:
    """bool [T, B], True from each sequence's end on."""
    return torch.arange(T, device=device).unsqueeze(1) >= lengths.to(device)


# Teacher forcing


def shifted(tokens: Tensor, lengths: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
    """What a decoder reads and what it should say, both int64 [T + 1, B], for `padded` sequences.

    Read: `start`, then the tokens. Say: the tokens, then `end`, then `LEFT_OUT`.
    """
    row = tokens.new_full((1, tokens.shape[1]), start)
    read = torch.cat([row, tokens])
    say = torch.cat([tokens, torch.zeros_like(row)])
    at = torch.arange(len(say), device=say.device).unsqueeze(1)
    ends = lengths.to(say.device)
    return read, say.masked_fill(at == ends, end).masked_fill(at > ends, LEFT_OUT)


def log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each sequence in nats, [B], from logits [T, B, V] and targets [T, B] with `LEFT_OUT`."""
    logits = logits.flatten(0, 1)
    wide = torch.promote_types(logits.dtype, torch.float32)
    loss = F.cross_entropy(logits.to(wide), targets.flatten(), ignore_index=LEFT_OUT, reduction="none")
    return -loss.view(targets.shape).sum(0)


# Decoding


@contextmanager
def decoding(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, recurrent weights packed once; every training flag returns after it."""
    # no_grad, not inference_mode: what comes out may be trained on
    with evaluating(model), torch.no_grad(), frozen(model):
        yield


def finite(logits: Tensor, position: int) -> Tensor:
    """logits, in float32 or wider. Raises NotFiniteError where they are not finite."""
    if not logits.isfinite().all():
        raise NotFiniteError(f"decoding: the logits of token {position} are not finite")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def unroll(
    advance: Callable[[Tensor], Tensor],
    choose: Callable[[Tensor], Tensor],
    first: Tensor,
    end: int,
    max_length: int,
) -> tuple[Tensor, Tensor]:
    """Sequences one token at a time: (tokens int64 [T, B] with 0 past each end, lengths int64 [B]).

    advance: the logits [B, V] after tokens [B], which is `first` at the first call. choose: tokens [B] from
    logits. A sequence stops before `end`, or at max_length. T: the longest, at least 1.
    """
    tokens = first.new_zeros(max(max_length, 1), len(first))
    lengths, going = torch.zeros_like(first), torch.ones_like(first, dtype=torch.bool)
    step = first
    for t in range(max_length):
        step = choose(finite(advance(step), t)).to(first.device)
        going = going & (step != end)
        if not going.any():
            break
        tokens[t] = step.where(going, 0)
        lengths += going
    return trimmed(tokens, lengths), lengths


def trimmed(tokens: Tensor, lengths: Tensor) -> Tensor:
    """The first rows of tokens [T, ...]: as many as the longest of `lengths`, at least 1."""
    return tokens[: max(1, int(lengths.max())) if lengths.numel() else 1]


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One token for each row, int64 [...], from finite logits [..., V]; options as in `TextLSTM.generate`.

    With a generator, the numbers are drawn on its device, and the tokens lie there.
    """
    if temperature == 0:
        return logits.argmax(-1)
    if generator is not None:
        logits = logits.to(generator.device)
    # Doubles, and the largest logit at 0, so that no temperature makes a NaN. Sorted before either: rounding
    # must not turn a close second into a tie.
    ordered, tokens = logits.sort(dim=-1, descending=True, stable=True)
    chances = ((ordered[..., :top_k].double() - ordered[..., :1].double()) / temperature).softmax(-1)
    if top_p is not None:
        # A token stays while those before it have not reached p: the likeliest always does.
        chances = chances * (chances.cumsum(-1) - chances < top_p)
    return tokens.gather(-1, torch.multinomial(chances, 1, generator=generator))[..., 0]
