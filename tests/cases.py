"""Shapes, options and oracles that the tests share. Odd sizes on purpose: nothing here is a multiple of a
register."""

import itertools
import random
from contextlib import contextmanager

import fusegen
import torch
from fusegen.ops import route
from torch import nn

CELL_NAMES = ("LSTM", "GRU", "RNN_TANH", "RNN_RELU")
CELLS = ("LSTMCell", "GRUCell", "RNNCell_tanh", "RNNCell_relu")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# (I, H, B, T): each of 1, 7, 33, 41, 257 at each place, one step, one row, and sizes around tiles of 6, 8 and
# 16.
SHAPES = (
    (1, 1, 1, 1),
    (7, 33, 5, 9),
    (33, 7, 33, 4),
    (41, 16, 6, 7),
    (16, 48, 13, 5),
    (257, 41, 3, 3),
    (5, 257, 7, 2),
    (64, 64, 32, 6),
    (3, 8, 1, 33),
    (12, 24, 257, 2),
)
SMALL = (7, 33, 5, 9)

# Constructor options, each once alone and a few together.
OPTIONS = (
    {},
    {"bias": False},
    {"bidirectional": True},
    {"num_layers": 3},
    {"batch_first": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
)
LSTM_OPTIONS = ({"proj_size": 5}, {"proj_size": 5, "num_layers": 2, "bidirectional": True, "bias": False})


def options_of(cell_name: str):
    """The options to test a layer of this cell with."""
    return OPTIONS + LSTM_OPTIONS if cell_name == "LSTM" else OPTIONS


def label(options: dict) -> str:
    """Options as a test id."""
    return ",".join(f"{k}={v}" for k, v in options.items()) or "plain"


def layer(cell_name: str, I: int, H: int, own: bool = True, **options) -> nn.Module:
    """A layer of the cell so named: fusegen's (own) or torch.nn's."""
    name, _, nonlinearity = cell_name.partition("_")
    if nonlinearity:
        options["nonlinearity"] = nonlinearity.lower()
    return getattr(fusegen.nn if own else nn, name)(I, H, **options)


def cell(cell_name: str, I: int, H: int, own: bool = True, **options) -> nn.Module:
    """A cell so named: fusegen's (own) or torch.nn's."""
    name, _, nonlinearity = cell_name.partition("_")
    if nonlinearity:
        options["nonlinearity"] = nonlinearity
    return getattr(fusegen.nn if own else nn, name)(I, H, **options)


def pair(make, cell_name: str, I: int, H: int, dtype=torch.float64, **options) -> tuple[nn.Module, nn.Module]:
    """(fusegen's module in dtype, torch.nn's in float64), ``make`` being ``layer`` or ``cell``; the same
    weights."""
    mine = make(cell_name, I, H, dtype=dtype, **options)
    oracle = make(cell_name, I, H, own=False, dtype=torch.float64, **options)
    oracle.load_state_dict(mine.state_dict())
    return mine, oracle


def hidden(cell_name: str, m: nn.Module, B: int, dtype=torch.float64):
    """A random initial state for a layer: a tensor, or a tuple for the LSTM."""
    LD = m.num_layers * (2 if m.bidirectional else 1)
    h = torch.randn(LD, B, m.proj_size or m.hidden_size, dtype=dtype) * 0.5
    return (h, torch.randn(LD, B, m.hidden_size, dtype=dtype)) if cell_name == "LSTM" else h


def tree(f, t):
    """f of every tensor of a tensor, None, or nested tuple."""
    return tuple(tree(f, s) for s in t) if isinstance(t, (tuple, list)) else None if t is None else f(t)


def flat(t) -> list[torch.Tensor]:
    """The tensors of a nested tuple."""
    return [s for u in t for s in flat(u)] if isinstance(t, (tuple, list)) else [] if t is None else [t]


def oracle_of(*ts):
    """Leaf copies in float64 that require grad."""
    return tuple(tree(lambda t: t.detach().double().requires_grad_(), t) for t in ts)


def grads(outputs, inputs, weights_of_outputs):
    """Gradients of sum(output * weight) for all inputs."""
    outputs = flat(outputs)
    loss = sum((o * w.to(o.dtype)).sum() for o, w in zip(outputs, weights_of_outputs, strict=True))
    return torch.autograd.grad(loss, inputs, allow_unused=True)


@contextmanager
def through_reference():
    """fusegen's modules run the reference formula inside, in their own dtype: rounded where the kernels
    round."""
    of_call = route.of_call
    route.of_call = lambda tensors: route.REFERENCE
    try:
        yield
    finally:
        route.of_call = of_call


def by_sequence(m: nn.Module, x: torch.Tensor, hx, lengths):
    """What ``lengths`` means, said with torch.nn alone: each sequence by itself, zeros after its end;
    time-major x."""
    ys, states = [], []
    for b, n in enumerate(lengths):
        own = None if hx is None else tree(lambda s, b=b: s[:, b : b + 1], hx)
        one = x[:n, b : b + 1]
        if n == 0:
            D = 2 if m.bidirectional else 1
            y = x.new_zeros(0, 1, D * (m.proj_size or m.hidden_size))
            LD = D * m.num_layers
            if own is None:
                own = x.new_zeros(LD, 1, m.proj_size or m.hidden_size)
                if m.mode == "LSTM":
                    own = (own, x.new_zeros(LD, 1, m.hidden_size))
            final = own
        else:
            y, final = m(one.transpose(0, 1) if m.batch_first else one, own)
            y = y.transpose(0, 1) if m.batch_first else y
        ys.append(torch.cat([y, y.new_zeros(x.shape[0] - n, 1, y.shape[2])]))
        states.append(flat(final))
    final = tuple(torch.cat(s, 1) for s in zip(*states, strict=True))
    return torch.cat(ys, 1), final if len(final) > 1 else final[0]


def covering(*axes, strength=2, seed=0):
    """Rows of choices in which every combination of values of any ``strength`` axes occurs."""
    rng = random.Random(seed)
    groups = list(itertools.combinations(range(len(axes)), strength))

    def covered(row):
        return {(group, tuple(row[i] for i in group)) for group in groups}

    left = {
        (group, values)
        for group in groups
        for values in itertools.product(*(range(len(axes[i])) for i in group))
    }
    while left:
        rows = [[rng.randrange(len(axis)) for axis in axes] for _ in range(60)]
        group, values = min(left, key=lambda each: tuple(zip(*each, strict=True)))
        for row in rows:
            for i, value in zip(group, values, strict=True):
                row[i] = value
        best = max(rows, key=lambda row, left=left: len(covered(row) & left))
        left = left - covered(best)
        yield tuple(axis[k] for axis, k in zip(axes, best, strict=True))
