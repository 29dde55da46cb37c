"""The recurrent parts of models that people train: our own code, at the sizes that were published.

Each network stands on torch.nn, as its users' does; what surrounds the recurrent layers is here only where it
stands between them, or as the whole step of a language model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Published:
    """One model. Sizes: input I and width H of the recurrent layers, batch B, steps T.

    make(model) gives the network, whose forward takes the inputs by name and returns its outputs by name;
    draw(model, generator) gives the inputs. In training `leaves` among the inputs get gradients, and
    `gradients` come in through `driven` among the outputs. update(network): what follows backward.
    """

    name: str
    source: str
    I: int
    H: int
    B: int
    T: int
    make: Callable[[Published], nn.Module] = field(compare=False)
    draw: Callable[[Published, torch.Generator], dict] = field(compare=False)
    leaves: tuple[str, ...] = ("x",)
    driven: tuple[str, ...] = ("y",)
    form: str = "recurrent"
    vocabulary: int = 0
    update: Callable[[nn.Module], None] | None = field(default=None, compare=False)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def sequence(model: Published, generator: torch.Generator) -> dict:
    """x [T, B, I] ~ N(0, 1)."""
    return {"x": normal(generator, model.T, model.B, model.I)}


# -- word_language_model -----------------------------------------------------------------------------------


class WordLayers(nn.Module):
    """Two layers of LSTM with dropout 0.2 on what goes in, between and out; the state is carried on."""

    def __init__(self, model: Published):
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.rnn = nn.LSTM(model.I, model.H, num_layers=2, dropout=0.2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Named:
        y, (h, c) = self.rnn(self.drop(x), (h, c))
        return {"y": self.drop(y), "h_n": h, "c_n": c}


class WordModel(nn.Module):
    """The whole model, to the loss of the next token over the vocabulary."""

    def __init__(self, model: Published):
        super().__init__()
        self.encoder = nn.Embedding(model.vocabulary, model.I)
        self.layers = WordLayers(model)
        self.decoder = nn.Linear(model.H, model.vocabulary)

    def forward(self, tokens: Tensor, targets: Tensor, h: Tensor, c: Tensor) -> Named:
        out = self.layers(self.encoder(tokens), h, c)
        loss = F.cross_entropy(self.decoder(out["y"]).flatten(0, 1), targets.flatten())
        return {"loss": loss, "h_n": out["h_n"], "c_n": out["c_n"]}


def carried(model: Published, generator: torch.Generator) -> Named:
    """The state after the last chunk, detached: [2, B, H] each."""
    return {name: torch.tanh(normal(generator, 2, model.B, model.H)) for name in ("h", "c")}


def word_inputs(model: Published, generator: torch.Generator) -> dict:
    return sequence(model, generator) | carried(model, generator)


def token_inputs(model: Published, generator: torch.Generator) -> dict:
    tokens = torch.randint(model.vocabulary, (model.T + 1, model.B), generator=generator)
    return {"tokens": tokens[:-1], "targets": tokens[1:]} | carried(model, generator)


def clipped_descent(network: nn.Module) -> None:
    """The example's update: gradients clipped to a norm of 0.25, then p -= lr * gradient.

    Its rate is 20; with 0 the work is the same, and all rounds and contestants find the same weights.
    """
    nn.utils.clip_grad_norm_(network.parameters(), 0.25)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(p.grad, alpha=0.0)


# -- AWD-LSTM ----------------------------------------------------------------------------------------------


class AwdLayers(nn.Module):
    """Three LSTM layers of their own, I -> H -> H -> I, one dropout mask for all steps between them."""

    def __init__(self, model: Published):
        super().__init__()
        widths = (model.I, model.H, model.H, model.I)
        self.rnns = nn.ModuleList(nn.LSTM(n, m) for n, m in pairwise(widths))

    def forward(self, x: Tensor) -> Named:
        for i, rnn in enumerate(self.rnns):
            if i:
                x = x * F.dropout(x.new_ones(1, *x.shape[1:]), 0.25, self.training)
            x, _ = rnn(x)
        return {"y": x}


# -- CRNN, Demucs ------------------------------------------------------------------------------------------


class CrnnLayers(nn.Module):
    """Two bidirectional LSTMs, each with a Linear behind it: 512 features -> H -> 37 classes."""

    classes = 37  # 26 letters, 10 digits, the blank

    def __init__(self, model: Published):
        super().__init__()
        self.rnns = nn.ModuleList(nn.LSTM(n, model.H, bidirectional=True) for n in (model.I, model.H))
        self.linears = nn.ModuleList(nn.Linear(2 * model.H, m) for m in (model.H, self.classes))

    def forward(self, x: Tensor) -> Named:
        for rnn, linear in zip(self.rnns, self.linears, strict=True):
            x = linear(rnn(x)[0])
        return {"y": x}


class DemucsLayers(nn.Module):
    """Two layers of bidirectional LSTM, a Linear back to H, and the way around them."""

    def __init__(self, model: Published):
        super().__init__()
        self.rnn = nn.LSTM(model.I, model.H, num_layers=2, bidirectional=True)
        self.linear = nn.Linear(2 * model.H, model.I)

    def forward(self, x: Tensor) -> Named:
        return {"y": x + self.linear(self.rnn(x)[0])}


# -- Tacotron 2 --------------------------------------------------------------------------------------------


class TacotronCells(nn.Module):
    """A decoder step's two LSTMCells: I (prenet 256, context 512) -> H, and H + 512 -> H, dropout 0.1 on h.

    The attention between them is no recurrent layer: the context is given.
    """

    context = 512

    def __init__(self, model: Published):
        super().__init__()
        self.attention_rnn = nn.LSTMCell(model.I, model.H)
        self.decoder_rnn = nn.LSTMCell(model.H + self.context, model.H)

    def forward(self, x: Tensor, context: Tensor, h1: Tensor, c1: Tensor, h2: Tensor, c2: Tensor) -> Named:
        h1, c1 = self.attention_rnn(torch.cat((x, context), -1), (h1, c1))
        h1 = F.dropout(h1, 0.1, self.training)
        h2, c2 = self.decoder_rnn(torch.cat((h1, context), -1), (h2, c2))
        return {"h1": h1, "c1": c1, "h2": F.dropout(h2, 0.1, self.training), "c2": c2}


STATES = ("h1", "c1", "h2", "c2")


def decoder_inputs(model: Published, generator: torch.Generator) -> dict:
    context = TacotronCells.context
    drawn = {"x": model.I - context, "context": context} | dict.fromkeys(STATES, model.H)
    return {name: normal(generator, model.B, width) for name, width in drawn.items()}


# -- DeepAR, PAR -------------------------------------------------------------------------------------------


class DeepArLayers(nn.Module):
    """Two layers of LSTM with dropout 0.1 between, batch first."""

    def __init__(self, model: Published):
        super().__init__()
        self.rnn = nn.LSTM(model.I, model.H, num_layers=2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Named:
        y, (h, c) = self.rnn(x)
        return {"y": y, "h_n": h, "c_n": c}


def batch_first(model: Published, generator: torch.Generator) -> dict:
    return {"x": normal(generator, model.B, model.T, model.I)}


class ParNet(nn.Module):
    """Rows and their sequence's context through a Linear, a packed GRU, and a Linear back to rows."""

    columns, context = 15, 6  # four numbers of three columns each, three tokens; two of context

    def __init__(self, model: Published):
        super().__init__()
        self.down = nn.Linear(self.columns + self.context, model.I)
        self.rnn = nn.GRU(model.I, model.H)
        self.up = nn.Linear(model.H, self.columns)

    def forward(self, rows: PackedSequence, context: Tensor) -> Named:
        x, lengths = pad_packed_sequence(rows)
        x = self.down(torch.cat((x, context.expand(x.shape[0], *context.shape)), -1))
        y, _ = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
        y, lengths = pad_packed_sequence(y)
        return {"y": pack_padded_sequence(self.up(y), lengths, enforce_sorted=False).data}


def data_set(model: Published, generator: torch.Generator) -> dict:
    """All sequences as one PackedSequence; a few are shorter than the others."""
    lengths = [model.T // (2 + i) if i < 3 else model.T for i in range(model.B)]
    rows = pack_sequence([normal(generator, n, ParNet.columns) for n in lengths], enforce_sorted=False)
    return {"rows": rows, "context": normal(generator, model.B, ParNet.context)}


# -- The list ----------------------------------------------------------------------------------------------

WORDS = {"I": 200, "H": 200, "B": 20, "T": 35}
MODELS = [
    Published(
        "word_language_model", "pytorch/examples, its defaults", **WORDS, make=WordLayers, draw=word_inputs,
    ),
    Published(
        "word_language_model", "the same with its embedding, product and loss over WikiText-2's vocabulary",
        **WORDS, make=WordModel, draw=token_inputs, leaves=(), driven=("loss",), form="step",
        vocabulary=33_278, update=clipped_descent,
    ),
    Published(
        "awd_lstm", "Merity et al. 2018 (B 20, T 70), at widths 200-400-400-200 and without weight drop",
        I=200, H=400, B=20, T=70, make=AwdLayers, draw=sequence,
    ),
    Published(
        "crnn", "Shi et al. 2015, crnn.pytorch: BiLSTM(256) twice on 512 features; a line of 248 pixels",
        I=512, H=256, B=4, T=63, make=CrnnLayers, draw=sequence,
    ),
    Published(
        "demucs", "Hybrid Demucs (Défossez 2021): the residual branch of encoder layer 4, 48 * 2**4 / 4 "
        "channels; an excerpt of 11 s is 5 overlapping windows of 200 steps",
        I=192, H=192, B=5, T=200, make=DemucsLayers, draw=sequence,
    ),
    *(
        Published(
            "tacotron2", "Shen et al. 2018, NVIDIA's sizes: a decoder step", I=768, H=1024, B=B, T=1,
            make=TacotronCells, draw=decoder_inputs, leaves=("x", "context", *STATES), driven=STATES,
        )
        for B in (1, 32)
    ),
    Published(
        "deepar", "Salinas et al. 2020, GluonTS: two layers of 40, dropout 0.1, batches of 32; 48 steps of "
        "context and 24 of prediction", I=11, H=40, B=32, T=72, make=DeepArLayers, draw=batch_first,
    ),
    Published(
        "par", "Zhang et al. 2022, DeepEcho's PARNet: the whole data set packed, here of the size of SDV's "
        "nasdaq100_2019 (103 companies, 252 trading days, a start and an end)",
        I=32, H=32, B=103, T=254, make=ParNet, draw=data_set, leaves=(),
    ),
]  # fmt: skip
