"""Layers and cells with layer norms and with block-diagonal recurrent matrices, against the formulas of their
sources said with torch alone, against the reference, and against torch.nn."""

import copy
import pickle
from types import SimpleNamespace

import fusegen
import pytest
import torch
import torch.nn.functional as F
from cases import covering, flat, grads, hidden, oracle_of
from fusegen.nn import (
    BlockDiagonalGRU,
    BlockDiagonalGRUCell,
    BlockDiagonalLSTM,
    BlockDiagonalLSTMCell,
    BlockDiagonalRNN,
    BlockDiagonalRNNCell,
    LayerNormGRU,
    LayerNormGRUCell,
    LayerNormLSTM,
    LayerNormLSTMCell,
)
from fusegen.ops.normalised import formula as reference_normalised
from fusegen.ops.normalised import stack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import close
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

THREADS = 2
NORMS = ("haste", "ba", "dreamer")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# (class, options) of every kind of layer, of H units, a multiple of six
KINDS = {
    **{f"LSTM {n}": (LayerNormLSTM, {"norm": n}) for n in NORMS},
    **{f"GRU {n}": (LayerNormGRU, {"norm": n}) for n in NORMS},
    "LSTM ba blocks": (LayerNormLSTM, {"norm": "ba", "block_diagonal": 3}),
    "LSTM dreamer blocks": (LayerNormLSTM, {"norm": "dreamer", "block_diagonal": 6}),
    "GRU haste blocks": (LayerNormGRU, {"norm": "haste", "block_diagonal": 2}),
    "GRU dreamer blocks": (LayerNormGRU, {"norm": "dreamer", "block_diagonal": 3}),
    "LSTM blocks": (BlockDiagonalLSTM, {"block_diagonal": 3}),
    "GRU blocks": (BlockDiagonalGRU, {"block_diagonal": 2}),
    "RNN blocks": (BlockDiagonalRNN, {"block_diagonal": 6}),
    "RNN relu blocks": (BlockDiagonalRNN, {"block_diagonal": 2, "nonlinearity": "relu"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind, I, H, dtype=torch.float64, **options):
    """A layer whose gains and biases are no ones and zeros."""
    cls, more = KINDS[kind]
    m = cls(I, H, **more, **options).to(dtype)
    with torch.no_grad():
        for name, p in m.named_parameters():
            if name.startswith("gain"):
                p.copy_(torch.rand_like(p.float()) + 0.5)
            if name.startswith("bias"):
                p.copy_(torch.randn_like(p.float()) * 0.2)
    return m


def states(m, B, dtype=torch.float64):
    return hidden("LSTM" if len(m._spec.states) == 2 else "GRU", m, B, dtype)


# ---- the formulas of the sources, step by step ------------------------------------------------------------


def norm(a, gain, bias, eps):
    a = (a - a.mean(-1, keepdim=True)) / (a.var(-1, correction=0, keepdim=True) + eps).sqrt()
    return gain * a if bias is None else gain * a + bias


def whole(m, suffix):
    """R with its zeros."""
    R, k = getattr(m, f"weight_hh{suffix}"), m.block_diagonal
    gates = R.view(m._spec.gates, k, m.hidden_size // k, -1)
    return torch.cat([torch.block_diag(*gate) for gate in gates])


def step(m, x, h, c, suffix=""):
    """One step of the layer or cell m, by its class's docstring."""

    def p(name):
        return getattr(m, name + suffix, None)

    H, lstm = m.hidden_size, len(m._spec.states) == 2
    wx, rh = x @ p("weight_ih").T, h @ whole(m, suffix).T
    if m.norm == "none":
        wx = wx if p("bias_ih") is None else wx + p("bias_ih")
        rh = rh if p("bias_hh") is None else rh + p("bias_hh")
    elif m.norm == "dreamer":
        wx, rh = 0 * wx, norm(wx + rh, p("gain_ih"), p("bias_ih"), m.eps)
    else:
        cuts = [2 * H, H] if m.norm == "ba" and not lstm else [len(p("gain_ih"))]
        gx, gh = p("gain_ih").split(cuts), p("gain_hh").split(cuts)
        bx = [None] * 2 if p("bias_ih") is None else p("bias_ih").split(cuts)
        bh = [None] * 2 if p("bias_hh") is None else p("bias_hh").split(cuts)
        wx = torch.cat(
            [norm(a, g, b, m.eps) for a, g, b in zip(wx.split(cuts, -1), gx, bx, strict=False)], -1
        )
        rh = torch.cat(
            [norm(a, g, b, m.eps) for a, g, b in zip(rh.split(cuts, -1), gh, bh, strict=False)], -1
        )
    if lstm:
        i, f, g, o = (wx + rh).split(H, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        seen = norm(c, p("gain_c"), p("bias_c"), m.eps) if m.norm in ("haste", "ba") else c
        return o.sigmoid() * seen.tanh(), c
    if m._spec.gates == 1:
        return (wx + rh).relu() if m.nonlinearity == "relu" else (wx + rh).tanh(), None
    (xr, xz, xn), (hr, hz, hn) = wx.split(H, -1), rh.split(H, -1)
    n = (xn + (xr + hr).sigmoid() * hn).tanh()
    if m.norm in ("ba", "dreamer"):
        u = (xz + hz - float(m.norm == "dreamer")).sigmoid()
        return (1 - u) * h + u * n, None
    z = (xz + hz).sigmoid()
    return z * h + (1 - z) * n, None


def by_hand(m, x, hx=None, resets=None, reset_to=None):
    """One layer in one direction, time-major: y, and the final states."""
    zero = x.new_zeros(x.shape[1], m.hidden_size)
    h, c = (zero, zero) if hx is None else (s[0] for s in (*flat((hx,)), zero[None])[:2])
    to_h, to_c = (zero, zero) if reset_to is None else (*flat((reset_to,)), zero)[:2]
    ys = []
    for t in range(x.shape[0]):
        if resets is not None:
            at = resets[t].unsqueeze(-1)
            h, c = torch.where(at, to_h, h), torch.where(at, to_c, c)
        h, c = step(m, x[t], h, c, "_l0")
        ys.append(h)
    return torch.stack(ys), (h, c) if c is not None else h


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@every_kind
def test_formula(kind, bias):
    """Values and gradients are those of the formula in the docstring; and the reference's are."""
    m = made(kind, 7, 12, bias=bias)
    x, hx = torch.randn(5, 3, 7, dtype=torch.float64, requires_grad=True), states(m, 3)
    hx = tuple(s.requires_grad_() for s in hx) if isinstance(hx, tuple) else hx.requires_grad_()
    y, final = m(x, hx)
    want, last = by_hand(m, x, hx)
    got, want = [y, *(s[0] for s in flat((final,)))], [want, *flat((last,))]
    close(got, want, "value")
    w, leaves = [torch.randn_like(t) for t in want], [x, *flat((hx,)), *m.parameters()]
    close(grads(got, leaves, w), grads(want, leaves, w), "grad")
    weights = m._weights_of("_l0")
    ys, *finals = reference_normalised.layer(m._kind, x, flat((hx,)), weights)
    close([ys, *(s[0] for s in finals)], want, "value")


@pytest.mark.parametrize(("own", "theirs"), [(BlockDiagonalLSTM, nn.LSTM), (BlockDiagonalGRU, nn.GRU)])
def test_blocks_are_torchs_layer_with_zeros(own, theirs):
    for k in (1, 3):
        m, oracle = own(7, 12, block_diagonal=k).double(), theirs(7, 12).double()
        weights = {n: p.detach() for n, p in m.named_parameters()}
        oracle.load_state_dict(weights | {"weight_hh_l0": whole(m, "_l0").detach()})
        x = torch.randn(5, 3, 7, dtype=torch.float64)
        close(flat(m(x)), flat(oracle(x)), "value")


def test_haste_and_ba_are_one_lstm_with_and_without_a_bias():
    haste, ba = made("LSTM haste", 5, 6), LayerNormLSTM(5, 6, norm="ba").double()
    ba.load_state_dict(haste.state_dict() | {"bias_hh_l0": torch.zeros(24, dtype=torch.float64)})
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(flat(haste(x)), flat(ba(x)), strict=True))


def test_parameters_of_each_form():
    names = {n: sorted(LayerNormLSTM(3, 6, norm=n).state_dict()) for n in NORMS}
    both = [
        "bias_c_l0",
        "bias_ih_l0",
        "gain_c_l0",
        "gain_hh_l0",
        "gain_ih_l0",
        "weight_hh_l0",
        "weight_ih_l0",
    ]
    assert names["haste"] == both
    assert names["ba"] == sorted([*both, "bias_hh_l0"])
    assert names["dreamer"] == ["bias_ih_l0", "gain_ih_l0", "weight_hh_l0", "weight_ih_l0"]
    for n in NORMS:
        for name, p in LayerNormGRU(3, 6, norm=n, bias=False).named_parameters():
            assert "bias" not in name
            assert not name.startswith("gain") or (p == 1).all()
    assert LayerNormGRU(3, 6, block_diagonal=3).weight_hh_l0.shape == (18, 2)


# ---- the reference, over shapes, dtypes and options -------------------------------------------------------

SIZES = ((2, 6, 1, 1), (7, 12, 5, 9), (5, 48, 40, 3), (3, 96, 3, 4), (16, 66, 7, 2))
GRID = list(
    covering(
        list(KINDS), SIZES, DTYPES, [False, True], [1, 2], [False, True], [False, True], [False, True], seed=1
    )
)


def reference(m, x, hx, lengths, resets, starts):
    """One layer's oracle: ``reference_normalised.layer`` on time-major input."""
    weights = [w for suffix in m._suffixes(0) for w in m._weights_of(suffix)]
    at = None if resets is None else reference_normalised.Resets(resets, *starts)
    return reference_normalised.layer(
        m._kind, x, hx, weights, None if lengths is None else torch.tensor(lengths), at
    )


@pytest.mark.parametrize(
    "row", GRID, ids=lambda r: f"{r[0]}-{r[1]}-{str(r[2])[6:]}-{'/'.join(str(v) for v in r[3:])}"
)
def test_reference(row, poisoned):
    """Outputs, states and every gradient, in every dtype, ragged or not, with boundaries or without."""
    kind, (I, H, B, T), dtype, both, threads, ragged, resets, starts = row
    torch.set_num_threads(threads)
    m = made(kind, I, H, dtype, bidirectional=both)
    oracle = copy.deepcopy(m).double()
    x, hx = torch.randn(T, B, I).to(dtype), flat((states(m, B, dtype),))
    lengths = torch.randint(0, T + 1, (B,)).tolist() if ragged else None
    at = torch.rand(T, B) < 0.3 if resets else None
    to = [s.flip(1) * 0.5 for s in hx] if resets and starts else [None] * len(hx)
    inputs = [x, *hx, *(s for s in to if s is not None)]
    x, *rest = [t.detach().requires_grad_() for t in inputs]
    hx, to = rest[: len(hx)], rest[len(hx) :] or to
    x64, *rest64 = oracle_of(*inputs)
    hx64, to64 = rest64[: len(hx)], rest64[len(hx) :] or to
    state = tuple(hx) if len(hx) == 2 else hx[0]
    reset_to = None if to[0] is None else tuple(to) if len(to) == 2 else to[0]
    y, final = m(x, state, lengths=lengths, resets=at, reset_to=reset_to)
    got, want = [y, *flat((final,))], reference(oracle, x64, hx64, lengths, at, to64)
    half = dtype.itemsize == 2
    if half and kind.startswith("RNN relu"):  # outputs grow without a bound
        want = [w.float().double() for w in want]
    close(got, list(want), "value normalised" if half else "value")
    w = [torch.randn_like(t) for t in want]
    leaves = [x, *rest, *m.parameters()]
    of_oracle = grads(list(want), [x64, *rest64, *oracle.parameters()], w)
    kind_of = "grad normalised" if half else "grad"
    filled = [torch.zeros_like(t) if g is None else g for g, t in zip(of_oracle, leaves, strict=True)]
    close(list(grads(got, leaves, w)), [g.double() for g in filled], kind_of)


@every_kind
def test_stacked_layers(kind):
    """A stack is its layers one after another; dropout is drawn as torch draws it."""
    m = made(kind, 7, 12, num_layers=3, bidirectional=True, batch_first=True)
    x, hx, lengths = torch.randn(4, 5, 7, dtype=torch.float64), states(m, 4), [5, 0, 3, 1]
    y, final = m(x, hx, lengths=lengths)
    out, finals = x.transpose(0, 1), []
    for layer in range(3):
        weights = [w for suffix in m._suffixes(layer) for w in m._weights_of(suffix)]
        of_layer = [s[2 * layer : 2 * layer + 2] for s in flat((hx,))]
        out, *last = reference_normalised.layer(m._kind, out, of_layer, weights, torch.tensor(lengths))
        finals.append(last)
    close(y, out.transpose(0, 1), "value")
    close(flat((final,)), [torch.cat(s) for s in zip(*finals, strict=True)], "value")
    m.dropout = 0.5
    torch.manual_seed(3)
    dropped = m(x)[0]
    assert not torch.equal(dropped, y)
    torch.manual_seed(3)
    assert torch.equal(dropped, m(x)[0])
    m.eval()
    assert torch.equal(m(x, hx, lengths=lengths)[0], y)


CELLS = {
    "LSTM haste": (LayerNormLSTMCell, {}),
    "LSTM ba": (LayerNormLSTMCell, {"norm": "ba"}),
    "LSTM dreamer": (LayerNormLSTMCell, {"norm": "dreamer", "block_diagonal": 2}),
    "GRU haste": (LayerNormGRUCell, {"block_diagonal": 3}),
    "GRU ba": (LayerNormGRUCell, {"norm": "ba"}),
    "GRU dreamer": (LayerNormGRUCell, {"norm": "dreamer"}),
    "LSTM": (BlockDiagonalLSTMCell, {"block_diagonal": 3}),
    "GRU": (BlockDiagonalGRUCell, {"block_diagonal": 3}),
    "RNN": (BlockDiagonalRNNCell, {"block_diagonal": 3}),
    "RNN relu": (BlockDiagonalRNNCell, {"block_diagonal": 3, "nonlinearity": "relu"}),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, bias):
    cls, options = CELLS[kind]
    m = cls(7, 12, bias=bias, **options).double()
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    pair = len(m._spec.states) == 2
    hx = torch.randn(4, 12, dtype=torch.float64), torch.randn(4, 12, dtype=torch.float64)
    for state in (None, hx):
        zero = x.new_zeros(4, 12)
        want = [s for s in step(m, x, *(state or (zero, zero))) if s is not None]
        got = flat((m(x, state if pair or state is None else state[0]),))
        close(got, want, "value")
        w = [torch.randn_like(t) for t in want]
        close(grads(got, [x, *m.parameters()], w), grads(want, [x, *m.parameters()], w), "grad")
    one = m(x[0], None if not pair else (hx[0][0], hx[1][0]))
    assert flat((one,))[0].shape == (12,)


@pytest.mark.parametrize("kind", ["LSTM haste", "LSTM", "GRU dreamer"])
def test_cells_whose_weights_are_packed_part_by_part(kind):
    """Each is used once, so a cell packs them as it multiplies: more of them than one part holds."""
    cls, options = CELLS[kind]
    m = cls(1100, 1050, **options)
    x, hx = torch.randn(3, 1100), torch.randn(2, 3, 1050)
    state = tuple(hx) if len(m._spec.states) == 2 else hx[0]
    with torch.no_grad():
        got = flat((m(x, state),))
        want = step(m.double(), x.double(), *hx.double())
    close(got, [s for s in want if s is not None], "value")


# ---- forms of input ---------------------------------------------------------------------------------------


@every_kind
def test_packed_unbatched_and_layouts(kind):
    """Each form of input gives what the padded batch gives, boundaries too."""
    m = made(kind, 7, 12, torch.float32, bidirectional=True)
    lengths = [3, 6, 1, 6]
    x, at = torch.randn(6, 4, 7), torch.rand(6, 4) < 0.4
    to = tuple(torch.randn(2, 4, 12) for _ in m._spec.states)
    to = to if len(to) == 2 else to[0]
    want, final = m(x, lengths=lengths, resets=at, reset_to=to)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    flags = pack_padded_sequence(at.unsqueeze(-1).float(), torch.tensor(lengths), enforce_sorted=False)
    y, last = m(packed, resets=flags.data.squeeze(-1).bool(), reset_to=to)
    padded, _ = nn.utils.rnn.pad_packed_sequence(y)
    assert torch.equal(padded, want)
    assert all(torch.equal(a, b) for a, b in zip(flat((last,)), flat((final,)), strict=True))
    one = tuple(s[:, 1] for s in to) if isinstance(to, tuple) else to[:, 1]
    alone, _ = m(x[:, 1], resets=at[:, 1], reset_to=one)
    close(alone, want[:, 1], "value")
    m.batch_first = True
    swapped, _ = m(x.transpose(0, 1), lengths=lengths, resets=at.transpose(0, 1), reset_to=to)
    assert torch.equal(swapped.transpose(0, 1), want)
    strided = torch.randn(6, 4, 14)[..., ::2].transpose(0, 1)
    assert torch.equal(m(strided)[0], m(strided.contiguous())[0])


@every_kind
def test_resets_are_sequences_of_their_own(kind):
    """What a boundary means, said without one: the sequence cut there, each part from ``reset_to``; the
    reverse direction likewise."""
    m = made(kind, 7, 12, bidirectional=True)
    x = torch.randn(9, 1, 7, dtype=torch.float64)
    at = torch.zeros(9, 1, dtype=torch.bool)
    at[3], at[7] = True, True
    to = tuple(torch.randn(2, 1, 12, dtype=torch.float64) for _ in m._spec.states)
    hx = tuple(torch.randn(2, 1, 12, dtype=torch.float64) for _ in m._spec.states)
    parts = []
    for begin, end in ((0, 3), (3, 7), (7, 9)):
        # forward in time a part begins with hx at 0, in reverse with it at the end
        ends = (begin > 0, end < 9)
        start = tuple(
            torch.stack([(t if ends[d] else h)[d] for d in range(2)]) for t, h in zip(to, hx, strict=True)
        )
        parts.append(m(x[begin:end], start if len(start) == 2 else start[0])[0])
    got = m(x, hx if len(hx) == 2 else hx[0], resets=at, reset_to=to if len(to) == 2 else to[0])[0]
    close(got, torch.cat(parts), "value")


@every_kind
def test_reset_to_of_all(kind):
    """One vector for every sequence, whose gradient is summed."""
    m = made(kind, 5, 6)
    x, at = torch.randn(4, 3, 5, dtype=torch.float64), torch.rand(4, 3) < 0.5
    one = tuple(torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in m._spec.states)
    many = tuple(s.detach().expand(1, 3, 6).clone().requires_grad_() for s in one)
    out = [m(x, resets=at, reset_to=s if len(s) == 2 else s[0])[0] for s in (one, many)]
    assert torch.equal(*out)
    for a, b in zip(
        torch.autograd.grad(out[0].sum(), one), torch.autograd.grad(out[1].sum(), many), strict=True
    ):
        close(a, b.sum((0, 1)), "grad")


# ---- gradients --------------------------------------------------------------------------------------------


@every_kind
def test_gradcheck(kind):
    """First order by differences, and the second by the reference formula."""
    m = made(kind, 2, 6, bidirectional=True)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    at = torch.tensor([[True, False], [False, False], [False, True]])
    to = tuple(torch.randn(2, 2, 6, dtype=torch.float64, requires_grad=True) for _ in m._spec.states)
    names = [n for n, _ in m.named_parameters()]

    def run(x, *rest):
        weights, to = dict(zip(names, rest, strict=False)), rest[len(names) :]
        kwargs = {"resets": at, "reset_to": to if len(to) == 2 else to[0]}
        return tuple(flat((torch.func.functional_call(m, weights, (x,), kwargs),)))

    inputs = (x, *(p.detach().requires_grad_() for p in m.parameters()), *to)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@every_kind
def test_gradient_subsets(kind):
    """What is asked for is the same, whatever else is."""
    m = made(kind, 5, 6, torch.float32)
    x, hx = torch.randn(4, 3, 5, requires_grad=True), states(m, 3, torch.float32)
    hx = tuple(s.requires_grad_() for s in flat((hx,)))
    inputs = [x, *hx, *m.parameters()]

    def loss():
        return m(x, hx if len(hx) == 2 else hx[0])[0].square().sum()

    full = torch.autograd.grad(loss(), inputs)
    for t, g in zip(inputs, full, strict=True):
        assert torch.equal(torch.autograd.grad(loss(), t)[0], g)


def test_output_changed_in_place():
    """As torch.nn allows it: backward makes the output again."""
    m, x = made("GRU haste", 5, 6), torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    want = torch.autograd.grad((m(x)[0] * 2).square().sum(), [x, *m.parameters()])
    y = m(x)[0]
    y *= 2
    close(torch.autograd.grad(y.square().sum(), [x, *m.parameters()]), want, "grad")


@every_kind
def test_same_bits_twice(kind):
    m = made(kind, 33, 66, torch.float32, num_layers=2, bidirectional=True)
    x = torch.randn(9, 13, 33, requires_grad=True)
    lengths = [9, 0, 3, 9, 1, 2, 5, 5, 8, 7, 6, 4, 9]
    at, runs = torch.rand(9, 13) < 0.2, []
    for _ in range(3):
        out = flat((m(x, lengths=lengths, resets=at),))
        runs.append([*out, *torch.autograd.grad(sum(o.square().sum() for o in out), [x, *m.parameters()])])
    for again in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], again, strict=True))
    with torch.no_grad():
        assert all(
            torch.equal(a, b)
            for a, b in zip(flat((m(x, lengths=lengths, resets=at),)), runs[0], strict=False)
        )


@every_kind
def test_past_the_end_is_not_read(kind):
    m = made(kind, 5, 6, torch.float32)
    x = torch.randn(6, 3, 5)
    clean = m(x, lengths=[6, 2, 0])
    x[2:, 1], x[:, 2] = torch.nan, torch.inf
    at = torch.zeros(6, 3, dtype=torch.bool)
    at[2:, 1], at[:, 2] = True, True  # boundaries past the end have no meaning
    for got in (m(x, lengths=[6, 2, 0]), m(x, lengths=[6, 2, 0], resets=at)):
        assert all(torch.equal(a, b) for a, b in zip(flat((got,)), flat((clean,)), strict=True))


ACCURATE = ("LSTM haste", "LSTM dreamer", "GRU haste", "GRU ba", "GRU dreamer", "LSTM blocks")


@pytest.mark.parametrize("kind", ACCURATE)
def test_accuracy(kind):
    """In float32 no further from float64 than twice what torch makes of the formula; to a last digit."""
    m = made(kind, 24, 48, torch.float32)
    x, dy = torch.randn(30, 8, 24, requires_grad=True), torch.randn(30, 8, 48)
    none = [None] * len(m._spec.states)

    def results(run, layer, x):
        y = run(layer, x)
        return [y, *torch.autograd.grad(y, [x, *layer.parameters()], dy.to(y.dtype))]

    def formula(layer, x):
        return reference(layer, x, none, None, None, none)[0]

    exact = results(formula, copy.deepcopy(m).double(), x.detach().double().requires_grad_())
    ours, torchs = results(lambda layer, x: layer(x)[0], m, x), results(formula, m, x)
    for a, b, c in zip(ours, torchs, exact, strict=True):
        digit = torch.finfo(torch.float32).eps * c.norm()
        assert (a.double() - c).norm() <= 2 * (b.double() - c).norm() + digit


# ---- torch's transforms -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["LSTM ba", "GRU dreamer blocks", "RNN blocks"])
def test_compiled_as_one_graph(kind):
    torch._dynamo.reset()
    m = made(kind, 5, 6, torch.float32, num_layers=2, bidirectional=True)
    c = torch.compile(m, fullgraph=True, backend="aot_eager")
    x, at = torch.randn(4, 3, 5, requires_grad=True), torch.rand(4, 3) < 0.3
    for options in ({}, {"lengths": torch.tensor([4, 0, 2])}, {"resets": at}):
        want, got = flat((m(x, **options),)), flat((c(x, **options),))
        close(got, want, "value")
        w, leaves = [torch.randn_like(t) for t in want], [x, *m.parameters()]
        close(grads(got, leaves, w), grads(want, leaves, w), "grad")
        with torch.no_grad():
            close(flat((c(x, **options),)), want, "value")
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", ["LSTM haste", "LSTM dreamer blocks", "GRU ba", "RNN relu blocks"])
def test_opcheck(kind):
    m = made(kind, 5, 6, torch.float32, bidirectional=True)
    op = getattr(torch.ops.fusegen, f"normalised_{m._spec.name}").default
    n = len(m._spec.states)
    x, hx = torch.randn(4, 3, 5, requires_grad=True), [torch.randn(2, 3, 6) for _ in range(n)]
    weights = [w for suffix in m._suffixes(0) for w in m._weights_of(suffix)]
    at, to = torch.rand(4, 3) < 0.5, [torch.randn(2, 3, 6, requires_grad=True) for _ in range(n)]
    for more in ((), (torch.tensor([4, 0, 2]), at, *to)):
        torch.library.opcheck(op, (x, *hx, weights, *m._kind, *more))


@pytest.mark.parametrize("kind", ["LSTM haste", "GRU dreamer"])
def test_autocast(kind):
    """Computed and given in bfloat16, but for c_n; gradients in float32."""
    m = made(kind, 5, 6, torch.float32, num_layers=2)
    x, at = torch.randn(4, 3, 5), torch.rand(4, 3) < 0.3
    with torch.autocast("cpu", torch.bfloat16):
        y, final = m(x, resets=at, reset_to=tuple(torch.randn(6) for _ in m._spec.states)
                     if len(m._spec.states) == 2 else torch.randn(6))  # fmt: skip
    assert y.dtype == flat((final,))[0].dtype == torch.bfloat16
    if len(m._spec.states) == 2:
        assert final[1].dtype == torch.float32
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in m.parameters())


@every_kind
def test_under_torch_func(kind):
    """Transforms of torch.func see the reference formula; the same results."""
    m = made(kind, 5, 6)
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    close(torch.func.vmap(lambda one: m(one)[0], in_dims=1, out_dims=1)(x), m(x)[0], "value")
    want = torch.autograd.grad(m(x.requires_grad_())[0].square().sum(), x)[0]
    close(torch.func.grad(lambda t: m(t)[0].square().sum())(x.detach()), want, "grad")


def test_backend_torch_runs_the_formula():
    m, x = made("LSTM ba", 5, 6), torch.randn(4, 3, 5, dtype=torch.float64)
    want = m(x)[0]
    fusegen.set_backend("torch")
    before = sum(fusegen._backend.fallbacks.values())
    close(m(x)[0], want, "value")
    assert sum(fusegen._backend.fallbacks.values()) == before + 1


def test_a_device_without_kernels_is_told():
    """The formula runs there, and is counted; under "fused" it is an error. Shapes alone need no kernel."""
    elsewhere = SimpleNamespace(is_cpu=False, is_meta=False, device=torch.device("xpu"), dtype=torch.float32)
    with pytest.raises(RuntimeError, match=r"normalised_gru: .*no fused kernels for device 'xpu'"):
        stack._runs_formula("normalised_gru", elsewhere)
    fusegen.set_backend("auto")
    before = sum(fusegen._backend.fallbacks.values())
    assert stack._runs_formula("normalised_gru", elsewhere)
    assert sum(fusegen._backend.fallbacks.values()) == before + 1
    m = LayerNormGRU(5, 6, bidirectional=True, device="meta")
    y, h_n = m(torch.zeros(4, 3, 5, device="meta"))
    assert y.shape == (4, 3, 12) and h_n.shape == (2, 3, 6) and y.is_meta


@every_kind
def test_copies(kind):
    m, x = made(kind, 5, 6, torch.float32), torch.randn(4, 3, 5)
    for other in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert torch.equal(other(x)[0], m(x)[0])
    twin = type(m)(5, 6, **KINDS[kind][1])
    twin.load_state_dict(m.state_dict())
    assert torch.equal(twin(x)[0], m(x)[0])
    assert repr(m).startswith(type(m).__name__)


def test_training_learns_to_recall():
    """The first element of a sequence, ten steps later: an optimiser finds it."""
    torch.manual_seed(0)
    m, head = LayerNormGRU(2, 24, norm="dreamer", block_diagonal=2), nn.Linear(24, 1)
    optimiser = torch.optim.Adam([*m.parameters(), *head.parameters()], 1e-2)
    for _ in range(150):
        x = torch.randn(10, 32, 2)
        loss = F.mse_loss(head(m(x)[0][-1]).squeeze(-1), x[0, :, 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2, loss


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*KINDS]), I=st.integers(1, 20), units=st.integers(1, 9), B=st.integers(1, 9),
    T=st.integers(1, 6), both=st.booleans(), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_random_shapes(kind, I, units, B, T, both, seed):
    torch.manual_seed(seed)
    m = made(kind, I, 6 * units, bidirectional=both)
    x, at = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True), torch.rand(T, B) < 0.3
    lengths = torch.randint(0, T + 1, (B,)).tolist()
    n = len(m._spec.states)
    got = flat((m(x, lengths=lengths, resets=at),))
    want = reference(m, x, [None] * n, lengths, at, [None] * n)
    close(got, list(want), "value")
    w, leaves = [torch.randn_like(t) for t in want], [x, *m.parameters()]
    close(grads(got, leaves, w), grads(list(want), leaves, w), "grad")


# ---- bad input, and what other parts of fusegen make of them ----------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: LayerNormLSTM(3, 6, norm="batch"), ValueError, "norm: expected one of 'haste', 'ba'"),
        (lambda: LayerNormGRU(3, 6, block_diagonal=4), ValueError, "to divide hidden_size = 6, got 4"),
        (lambda: BlockDiagonalLSTM(3, 6, block_diagonal=0), ValueError, "an integer at least 1, got 0"),
        (lambda: BlockDiagonalRNN(3, 6, block_diagonal=2.0), TypeError, "an integer, got float"),
        (lambda: BlockDiagonalRNN(3, 6, "x", block_diagonal=2), TypeError, "num_layers: expected an"),
        (lambda: BlockDiagonalRNN(3, 6, 1, "x", block_diagonal=2), ValueError, "nonlinearity: expected"),
        (lambda: LayerNormGRU(3, 6, eps=0), ValueError, "eps: expected a number above 0"),
        (lambda: LayerNormGRU(3, 6, dropout=2), ValueError, "dropout: expected a number at least 0"),
        (lambda: LayerNormLSTMCell(0, 6), ValueError, "LayerNormLSTMCell: input_size: expected an"),
        (lambda: LayerNormGRUCell(3, 6, block_diagonal=5), ValueError, "expected block_diagonal to"),
    ],
)  # fmt: skip
def test_bad_arguments_of_constructors(make, error, said):
    with pytest.raises(error, match=said):
        make()


X = torch.zeros(4, 3, 5)
FLAGS, H = torch.zeros(4, 3, dtype=torch.bool), torch.zeros(6)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"resets": FLAGS.int()}, TypeError, "resets of dtype torch.bool, got torch.int32"),
        ({"resets": [True]}, TypeError, "resets to be a bool Tensor .*, got list"),
        ({"resets": FLAGS.T}, ValueError, r"resets of shape \(4, 3\), .*, got \(3, 4\)"),
        ({"reset_to": (X, X)}, ValueError, "reset_to together with resets"),
        ({"resets": FLAGS, "reset_to": X}, TypeError, r"reset_to as a pair \(h, c\), got Tensor"),
        ({"resets": FLAGS, "reset_to": (H, 1.0)}, TypeError, r"reset_to\[1\] to be a Tensor, got float"),
        ({"resets": FLAGS, "reset_to": (H, H.expand(1, 2, 6))}, ValueError,
         r"reset_to\[1\] of shape \(1, 3, 6\), or \(6,\) for all, got \(1, 2, 6\)"),
        ({"resets": FLAGS, "reset_to": (H, H.double())}, ValueError, r"reset_to\[1\] of the input"),
        ({"generator": torch.Generator()}, ValueError, "expected no generator, since it draws no masks"),
        ({"hx": (torch.zeros(1, 2, 6),) * 2}, RuntimeError, r"Expected hidden\[0\] size \(1, 3, 6\)"),
        ({"hx": torch.zeros(1, 3, 6)}, TypeError, "hx to be a tuple of two Tensors"),
        ({"lengths": [5, 1, 1]}, ValueError, r"lengths in 0..4 .*got lengths\[0\] = 5"),
        ({"input": X.double()}, ValueError, "does not match weight dtype"),
        ({"input": X[..., :4]}, RuntimeError, "Expected 5, got 4"),
        ({"input": X[:0]}, RuntimeError, "larger than 0"),
        ({"input": "x"}, TypeError, "input to be a Tensor or a PackedSequence"),
    ],
)  # fmt: skip
def test_bad_arguments_of_calls(more, error, said):
    with pytest.raises(error, match=said):
        LayerNormLSTM(5, 6)(**{"input": X} | more)


def test_bad_resets_of_packed_input():
    packed = pack_padded_sequence(X, torch.tensor([4, 2, 1]))
    with pytest.raises(ValueError, match=r"resets of shape \(7,\), .*, got \(4, 3\)"):
        LayerNormLSTM(5, 6)(packed, resets=FLAGS)
    with pytest.raises(ValueError, match="a PackedSequence has its own"):
        LayerNormLSTM(5, 6)(packed, lengths=[1, 2, 3], resets=torch.zeros(7, dtype=torch.bool))


@pytest.mark.parametrize("m", [LayerNormLSTM(5, 6), BlockDiagonalGRUCell(5, 6, block_diagonal=2)], ids=type)
def test_what_other_parts_refuse(m, tmp_path):
    """By name, in one line; and what they leave alone."""
    model = nn.Sequential(m)
    said = rf"0 \({type(m).__name__}\) has norms or blocks"
    with pytest.raises(ValueError, match=said):
        fusegen.Stream(model)
    with pytest.raises(ValueError, match=said):
        fusegen.quantize(model)
    with pytest.raises(ValueError, match=said):
        fusegen.onnx.export(model, (X,), tmp_path / "m.onnx")
    assert fusegen.convert(model)[0] is m
    assert fusegen.revert(model)[0] is m
    x = X if isinstance(m, LayerNormLSTM) else X[0]
    with torch.no_grad(), fusegen.frozen(model):
        assert all(torch.equal(a, b) for a, b in zip(flat((model(x),)), flat((m(x),)), strict=True))
    with pytest.raises(RuntimeError, match=r"torch\.jit\.script and torch\.onnx\.export"):
        torch.jit.script(m)
