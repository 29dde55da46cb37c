"""Layers with resets, recurrent dropout, zoneout and weight drop: every kind of input, what stays of the
options, who else takes them."""

import copy
import io
import pickle
from itertools import pairwise

import fusegen
import pytest
import torch
from cases import CELL_NAMES, flat, hidden, label, layer, pair
from fusegen.ops import random
from tolerances import agree, close
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

I, H, T, B = 5, 6, 9, 4
OPTIONS = ({}, {"num_layers": 2, "bidirectional": True, "batch_first": True})
ALL = {"recurrent_dropout": 0.3, "zoneout": (0.2, 0.1), "weight_drop": 0.4}


def options_of(cell_name, **more):
    given = {**ALL, **more}
    return given if cell_name == "LSTM" else {**given, "zoneout": 0.2}


def draw(m, seed=0):
    """x [T, B, I] (or batch-first), resets alike."""
    made = torch.Generator().manual_seed(seed)
    shape = (B, T) if m.batch_first else (T, B)
    x = torch.randn(*shape, I, dtype=m.weight_ih_l0.dtype, generator=made)
    return x, torch.rand(shape, generator=made) < 0.3


def by_segments(m, x, hx, resets):
    """What resets mean, said with torch.nn alone, of one layer and x [T, B, I]: each stretch by itself, as
    sb3-contrib loops over episodes, for each sequence and both directions."""
    zero = torch.zeros_like(hx if isinstance(hx, torch.Tensor) else hx[0])[:, :1]
    ys, lasts = [], []
    for b in range(x.shape[1]):
        cuts = [0, *(t for t in range(1, len(x)) if resets[t, b]), len(x)]
        start = tuple(s[:, b : b + 1] for s in flat(hx))
        if resets[0, b]:  # forward in time alone
            start = tuple(torch.cat([torch.zeros_like(s[:1]), s[1:]]) for s in start)
        parts, firsts, ends = [], None, None
        for begin, end in pairwise(cuts):
            own = [torch.zeros_like(zero) for _ in start]
            if begin == 0:
                own = [torch.cat([s[:1], o[1:]]) for s, o in zip(start, own, strict=True)]
            if end == len(x):
                own = [torch.cat([o[:1], s[1:]]) for s, o in zip(start, own, strict=True)]
            y, final = m(x[begin:end, b : b + 1], tuple(own) if len(own) == 2 else own[0])
            parts.append(y)
            firsts, ends = firsts or flat(final), flat(final)
        ys.append(torch.cat(parts))
        lasts.append([torch.cat([e[:1], f[1:]]) for e, f in zip(ends, firsts, strict=True)])
    return torch.cat(ys, 1), *(torch.cat(s, 1) for s in zip(*lasts, strict=True))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_resets_split_a_sequence(cell_name, bidirectional):
    mine, theirs = pair(layer, cell_name, I, H, bidirectional=bidirectional)
    x, resets = draw(mine)
    hx = hidden(cell_name, mine, B)
    got, want = flat(mine(x, hx, resets=resets)), by_segments(theirs, x, hx, resets)
    close(tuple(got), want, "value")
    sent = [torch.randn_like(t) for t in want]
    for outputs in (got, want):
        sum((o * s).sum() for o, s in zip(outputs, sent, strict=True)).backward()
    for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad, "grad", name)


@pytest.mark.parametrize("options", OPTIONS, ids=label)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_inputs_of_every_kind(cell_name, options):
    """Padded with lengths, packed and, one by one, unbatched."""
    m = layer(cell_name, I, H, dtype=torch.float64, **options)
    x, resets = draw(m)
    lengths = torch.tensor([4, 9, 1, 6])
    hx, to = hidden(cell_name, m, B), hidden(cell_name, m, B)
    y, final = m(x, hx, lengths=lengths, resets=resets, reset_to=to)
    time_major = (lambda t: t.transpose(0, 1)) if m.batch_first else (lambda t: t)
    for order in ({"enforce_sorted": False}, {}):
        by = lengths.argsort(descending=True) if not order else torch.arange(B)
        pick = lambda t, by=by: t.index_select(1, by)
        at = pack_padded_sequence(pick(time_major(x)), lengths[by], **order)
        flags = pack_padded_sequence(pick(time_major(resets)), lengths[by], **order).data
        given = [tuple(map(pick, flat(s))) for s in (hx, to)]
        given = [s if len(s) == 2 else s[0] for s in given]
        packed, last = m(at, given[0], resets=flags, reset_to=given[1])
        padded = pad_packed_sequence(packed, batch_first=m.batch_first, total_length=T)[0]
        assert torch.equal(time_major(padded), pick(time_major(y)))
        assert all(torch.equal(a, pick(b)) for a, b in zip(flat(last), flat(final), strict=True))
    for b, n in enumerate(lengths):
        one = [tuple(s[:, b] for s in flat(s)) for s in (hx, to)]
        one = [s if len(s) == 2 else s[0] for s in one]
        flags = time_major(resets)[:n, b]
        y_b, final_b = m(time_major(x)[:n, b], one[0], resets=flags, reset_to=one[1])
        agree(y_b, time_major(y)[:n, b])
        agree(tuple(flat(final_b)), tuple(s[:, b] for s in flat(final)))


@pytest.mark.parametrize("T", [1, 6])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_a_mask_without_a_bit_changes_nothing(cell_name, T):
    """Nor a mask that lies any way in memory; starts that nothing begins from get zeros."""
    m = layer(cell_name, I, H, bidirectional=True)
    x, B = torch.randn(T, 9, I), 9
    starts = torch.randn(H, requires_grad=True)
    reset_to = (starts, starts) if cell_name == "LSTM" else starts
    leaves = [*m.parameters(), starts]
    want = (y := m(x)[0], *torch.autograd.grad(y.sum(), leaves, materialize_grads=True))
    none = torch.zeros(B, T, dtype=torch.bool)
    for resets in (none.T, none.T.contiguous(), none.new_zeros(T, 2 * B)[:, ::2]):
        y = m(x, resets=resets, reset_to=reset_to)[0]
        got = (y, *torch.autograd.grad(y.sum(), leaves))
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("at", [0, 8, 17])
def test_one_bit_alone_is_seen(cell_name, at):
    """Wherever it lies among the words of a mask."""
    m = layer(cell_name, I, H)
    x, resets = torch.randn(2, 9, I), torch.zeros(2, 9, dtype=torch.bool)
    resets.view(-1)[at] = True
    hx = torch.randn(1, 9, H)
    y = m(x, (hx, hx) if cell_name == "LSTM" else hx, resets=resets)[0]
    plain = m(x, (hx, hx) if cell_name == "LSTM" else hx)[0]
    changed = (y != plain).any(-1)
    assert changed.view(-1)[at] and changed[:, at % 9].sum() == changed.sum()


@pytest.mark.parametrize("cell_name", ["LSTM", "GRU"])
def test_one_start_for_all(cell_name):
    m = layer(cell_name, I, H, num_layers=2, bidirectional=True, dtype=torch.float64)
    x, resets = draw(m)
    one = [torch.randn(H, dtype=torch.float64, requires_grad=True) for _ in range(1 + (cell_name == "LSTM"))]
    every = [s.detach().expand(4, B, H).clone().requires_grad_() for s in one]
    got, want = (m(x, resets=resets, reset_to=s if len(s) == 2 else s[0])[0] for s in (one, every))
    assert torch.equal(got, want)
    got = torch.autograd.grad(got.square().sum(), one)
    want = torch.autograd.grad(want.square().sum(), every)
    close(got, tuple(g.sum((0, 1)) for g in want), "grad")


def test_the_caller_may_write_its_resets_again():
    m = layer("LSTM", I, H, dtype=torch.float64)
    x, resets = draw(m)
    want = torch.autograd.grad(m(x, resets=resets)[0].sum(), m.weight_hh_l0)[0]
    y, _ = m(x, resets=resets)
    resets.logical_not_()
    assert torch.equal(torch.autograd.grad(y.sum(), m.weight_hh_l0)[0], want)


# ---- masks


@pytest.mark.parametrize("options", OPTIONS, ids=label)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_compiled_makes_the_same_masks(cell_name, options):
    m = layer(cell_name, I, H, **options, **options_of(cell_name))
    x, resets = draw(m)
    torch._dynamo.reset()
    c = torch.compile(m, fullgraph=True, backend="aot_eager")
    made = []
    for module in (m, c):
        torch.manual_seed(4)
        y, _ = module(x, resets=resets)
        made.append((y, *torch.autograd.grad(y.square().sum(), [*m.parameters()])))
    agree(made[1], made[0])
    assert not torch.equal(c(x, resets=resets)[0], made[0][0])


def test_inductor_neither_folds_nor_merges_keys():
    m = layer("LSTM", I, H, **ALL)
    x, _ = draw(m)
    torch._dynamo.reset()

    def twice(x):
        return m(x)[0], m(x)[0]

    c = torch.compile(twice, fullgraph=True)
    torch.manual_seed(4)
    want = twice(x)
    torch.manual_seed(4)
    got = c(x)
    agree(got, want)
    assert not torch.equal(got[0], got[1])
    assert not torch.equal(c(x)[0], got[0])


def test_a_graph_takes_no_generator():
    """Said in one line."""
    m, generator = layer("LSTM", I, H, **ALL), torch.Generator()
    x, _ = draw(m)
    torch._dynamo.reset()
    c = torch.compile(lambda x: m(x, generator=generator)[0], fullgraph=True, backend="eager")
    with pytest.raises(RuntimeError, match=r"expected generator=None inside torch.compile\(fullgraph=True"):
        c(x)


def test_export():
    m = layer("GRU", I, H, **options_of("GRU")).eval()
    x, resets = draw(m)
    program = torch.export.export(m, (x,), {"resets": resets}).module()
    agree(program(x, resets=resets)[0], m(x, resets=resets)[0])


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_a_generator_gives_the_key(cell_name):
    m = layer(cell_name, I, H, **options_of(cell_name))
    x, _ = draw(m)
    before = torch.get_rng_state()
    one, same, other = (m(x, generator=torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("on", ["state", "candidate"])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_evaluation_drops_nothing(cell_name, on):
    m = layer(cell_name, I, H, recurrent_dropout=0.4, recurrent_dropout_on=on, weight_drop=0.3).eval()
    plain = layer(cell_name, I, H)
    plain.load_state_dict(m.state_dict())
    x, _ = draw(m)
    before = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(flat(m(x)), flat(plain(x)), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_zoneout_keeps_units(cell_name):
    """Of 40,000 units, how many kept their state: within five standard deviations."""
    zoneout = (0.3, 0.0) if cell_name == "LSTM" else 0.3
    m = layer(cell_name, I, 100, zoneout=zoneout)
    y, _ = m(torch.randn(101, 4, I))
    kept = (y[1:] == y[:-1]) & ((y[1:] != 0) | ("RELU" not in cell_name))
    live = (y[:-1] != 0) | ("RELU" not in cell_name)
    n = live.sum().item()
    assert abs(kept[live].double().mean().item() - 0.3) <= 5 * (0.3 * 0.7 / n) ** 0.5


def test_layers_and_directions_have_masks_of_their_own():
    m = layer("RNN_TANH", H, H, num_layers=2, bidirectional=True, weight_drop=0.5)
    key = random.draw_key()
    dropped = [random.weight_drop(m.weight_hh_l0, key, place, 0.5) == 0 for place in range(4)]
    assert len({d.numpy().tobytes() for d in dropped}) == 4


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_autocast(cell_name):
    m = layer(cell_name, I, H, num_layers=2, **options_of(cell_name))
    x, resets = draw(m)
    to = hidden(cell_name, m, B, torch.float32)
    given = {"resets": resets, "reset_to": to}
    with torch.autocast("cpu", torch.bfloat16):
        y, final = m(x, **given, generator=torch.Generator().manual_seed(3))
    half = copy.deepcopy(m).bfloat16()
    to = tuple(s.bfloat16() for s in to) if cell_name == "LSTM" else to.bfloat16()
    want, _ = half(x.bfloat16(), resets=resets, reset_to=to, generator=torch.Generator().manual_seed(3))
    wide = torch.float32 if cell_name == "GRU" else torch.bfloat16  # as torch.nn's
    assert y.dtype == flat(final)[-1].dtype == wide
    agree(y.bfloat16(), want)


def test_torch_func_sees_the_formula():
    m = layer("LSTM", I, H, dtype=torch.float64, **ALL)
    x, resets = draw(m)
    params = {k: p.detach() for k, p in m.named_parameters()}

    def loss(params):
        more = {"resets": resets, "generator": torch.Generator().manual_seed(1)}
        return functional_call(m, params, (x,), more)[0].square().sum()

    got = torch.func.grad(loss)(params)
    loss(dict(m.named_parameters())).backward()
    for name, p in m.named_parameters():
        close(got[name], p.grad, "grad", name)


# ---- the module


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_options_stay(cell_name):
    m = layer(cell_name, I, H, **options_of(cell_name), recurrent_dropout_on="candidate")
    zoneout = (0.2, 0.1) if cell_name == "LSTM" else 0.2
    said = f"recurrent_dropout=0.3, recurrent_dropout_on='candidate', zoneout={zoneout}, weight_drop=0.4"
    buffer = io.BytesIO()
    torch.save(m, buffer)
    buffer.seek(0)
    for made in (m, copy.deepcopy(m), pickle.loads(pickle.dumps(m)), torch.load(buffer, weights_only=False)):
        assert said in repr(made)
        assert (made.recurrent_dropout, made.zoneout, made.weight_drop) == (0.3, zoneout, 0.4)
        x, _ = draw(made)
        y, want = (o(x, generator=torch.Generator().manual_seed(1))[0] for o in (made, m))
        assert torch.equal(y, want)
    m.weight_drop = m.recurrent_dropout = 0.0
    m.zoneout = (0.0, 0.0) if cell_name == "LSTM" else 0.0
    assert "=0" not in repr(m)
    assert torch.equal(m(x)[0], m(x)[0])
    with pytest.raises(ValueError, match="weight_drop: expected a number"):
        m.weight_drop = 1.5


def test_converted_modules_take_resets_and_options():
    m = fusegen.convert(torch.nn.LSTM(I, H))
    x, resets = draw(m)
    assert m.zoneout == (0.0, 0.0)
    m(x, resets=resets)
    m.zoneout = (0.5, 0.0)
    assert not torch.equal(m(x)[0], m(x)[0])
    with pytest.raises(ValueError, match=r"fusegen.revert.*zoneout=\(0.5, 0.0\)"):
        fusegen.revert(m)
    m.zoneout = (0.0, 0.0)
    assert type(fusegen.revert(m)) is torch.nn.LSTM


@pytest.mark.parametrize("training", [True, False])
def test_frozen(training):
    m = layer("GRU", I, 64, **options_of("GRU")).train(training)
    x, resets = draw(m)
    with torch.no_grad():
        want = m(x, resets=resets, generator=torch.Generator().manual_seed(1))
        with fusegen.frozen(m):
            got = m(x, resets=resets, generator=torch.Generator().manual_seed(1))
    agree(got, want)


@pytest.mark.parametrize("take", [fusegen.Stream, fusegen.quantize], ids=["Stream", "quantize"])
def test_inference_without_zoneout(take):
    with pytest.raises(ValueError, match=r"LSTM.* has zoneout=\(0.2, 0.1\)"):
        take(layer("LSTM", I, H, **ALL))
    take(layer("LSTM", I, H, recurrent_dropout=0.3, weight_drop=0.2))


def test_quantized_layers_refuse_resets():
    m = fusegen.quantize(layer("LSTM", I, H))
    with pytest.raises(ValueError, match="QuantizedLSTM: expected no resets"):
        m(torch.randn(T, B, I), resets=torch.zeros(T, B, dtype=torch.bool))


def test_onnx(tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"GRU\) has zoneout=0\.2: expected no resets, masks or zoneout"):
        fusegen.onnx.export(layer("GRU", I, H, zoneout=0.2), (torch.randn(T, B, I),), path)
    fusegen.onnx.export(layer("GRU", I, H, recurrent_dropout=0.2), (torch.randn(T, B, I),), path)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = layer("GRU", I, H)

        def forward(self, x, resets):
            return self.gru(x, resets=resets)[0]

    with pytest.raises(ValueError, match="expected no resets, masks or zoneout, which ONNX"):
        fusegen.onnx.export(Model(), (torch.randn(T, B, I), torch.zeros(T, B, dtype=torch.bool)), path)


# ---- bad input


def flags(*shape):
    return torch.zeros(shape, dtype=torch.bool)


BAD = {
    "turned": (
        {"batch_first": True},
        (B, T),
        {"resets": flags(T, B)},
        ValueError,
        r"shape \(4, 9\), \[B, T\]",
    ),
    "unbatched": ({}, (T,), {"resets": flags(T, 1)}, ValueError, r"shape \(9,\), \[T\], got \(9, 1\)"),
    "float": ({}, (T, B), {"resets": torch.zeros(T, B)}, TypeError, "dtype torch.bool, got torch.float32"),
    "alone": ({}, (T, B), {"reset_to": flags(1)}, ValueError, "reset_to together with resets"),
    "one state": (
        {},
        (T, B),
        {"resets": flags(T, B), "reset_to": torch.zeros(H)},
        TypeError,
        r"reset_to as a pair \(h, c\), got Tensor",
    ),
    "state shape": (
        {"num_layers": 2},
        (T, B),
        {"resets": flags(T, B), "reset_to": (torch.zeros(2, B, H), torch.zeros(1, B, H))},
        ValueError,
        r"reset_to\[1\] of shape \(2, 4, 6\), or \(6,\) for all, got \(1, 4, 6\)",
    ),
    "generator": ({}, (T, B), {"generator": 1}, TypeError, "generator to be a torch.Generator"),
}


@pytest.mark.parametrize(("options", "shape", "given", "error", "says"), BAD.values(), ids=BAD)
def test_bad_input(options, shape, given, error, says):
    m = layer("LSTM", I, H, **options)
    with pytest.raises(error, match=says):
        m(torch.randn(*shape, I), **given)


def test_bad_packed_input():
    m = layer("LSTM", I, H)
    packed = pack_padded_sequence(torch.randn(T, B, I), torch.tensor([9, 6, 4, 1]))
    with pytest.raises(ValueError, match=r"shape \(20,\), \[sum of lengths\].*got \(9, 4\)"):
        m(packed, resets=flags(T, B))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"zoneout": 0.3}, ValueError, "zoneout as a pair of numbers"),
        (
            {"zoneout": (0.3, 1.0)},
            ValueError,
            r"zoneout\[1\]: expected a number at least 0 and below 1, got 1",
        ),
        ({"recurrent_dropout": "x"}, TypeError, "recurrent_dropout: expected a number, got str"),
        ({"recurrent_dropout_on": "c"}, ValueError, "recurrent_dropout_on: expected one of"),
    ],
    ids=str,
)
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        layer("LSTM", I, H, **options)
