"""record: the reference's gates, h and c, from the kernels that run."""

import contextlib
import copy
import pickle

import fusegen
import numpy as np
import pytest
import torch
from cases import CELL_NAMES, CELLS, DTYPES, SMALL, cell, flat, hidden, label, layer, options_of
from fusegen import inspect
from inside_cells import direction, stack
from tolerances import close
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

LENGTHS = [9, 0, 4, 9, 1]
MODES = {"training": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def check(found, want, what=""):
    """A plane's arrays, all of them, against a loop's."""
    assert set(found.arrays) == set(want)
    for name, t in want.items():
        close(found.array(name), t, "value", f"{what}{found}, {name}")


def time_major(m, x):
    return x.transpose(0, 1) if m.batch_first else x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize(
    "cell_name, options",
    [(c, o) for c in CELL_NAMES for o in options_of(c)],
    ids=lambda v: label(v) if isinstance(v, dict) else v,
)
def test_gates_are_the_loops(cell_name, options, lengths, mode, poisoned):
    I, H, B, T = SMALL
    m = layer(cell_name, I, H, dtype=torch.float64, **options)
    x = (
        torch.randn(B, T, I, dtype=torch.float64)
        if m.batch_first
        else torch.randn(T, B, I, dtype=torch.float64)
    )
    m.train(mode == "training")
    with MODES[mode](), inspect.record(m) as rec:
        m(x, lengths=lengths)
    want = stack(cell_name, m, time_major(m, x), lengths)
    assert set(rec[""].planes) == set(want)
    for key, arrays in want.items():
        check(rec[""][key], arrays)
        T_of = torch.tensor([T] * B if lengths is None else lengths)
        assert torch.equal(rec[""][key].mask, torch.arange(T).unsqueeze(1) < T_of)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_gates_are_the_loops_to_the_layers_tolerance(cell_name, dtype):
    I, H, B, T = SMALL
    m = layer(cell_name, I, H, dtype=dtype, num_layers=2)
    x = torch.randn(T, B, I, dtype=dtype)
    with inspect.record(m) as rec:
        m(x)
    for key, arrays in stack(cell_name, m, x).items():
        for name, want in arrays.items():
            kind = torch.float32 if name == "c" and dtype.itemsize == 2 else dtype
            got = rec[""][key].array(name)
            assert got.dtype == kind, name
            close(got.to(dtype), want, "value", name)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
def test_results_and_gradients_are_the_same_bits(cell_name, lengths):
    I, H, B, T = SMALL
    m = layer(cell_name, I, H, num_layers=2, bidirectional=True, dropout=0.5)
    x = torch.randn(T, B, I, requires_grad=True)

    def run(context):
        torch.manual_seed(1)
        with context:
            y, states = m(x, lengths=lengths)
        return flat((y, states, torch.autograd.grad(y.square().sum(), [x, *m.parameters()])))

    got, want = run(inspect.record(m)), run(contextlib.nullcontext())
    assert all(map(torch.equal, got, want))


@pytest.mark.parametrize("kind", ["memory", "folder"])
@pytest.mark.parametrize("lengths", [None, LENGTHS, "packed"])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_parts_are_the_whole(cell_name, lengths, kind, tmp_path):
    """With states, resets, both directions and a choice of units and steps."""
    I, H, B, T = SMALL
    m = layer(cell_name, I, H, num_layers=2, bidirectional=True, dtype=torch.float64).eval()
    x = torch.randn(T, B, I, dtype=torch.float64)
    hx, resets = hidden(cell_name, m, B), torch.rand(T, B) < 0.3
    resets[4, 2] = resets[1, 4] = True  # behind a sequence's last step
    given, more = x, {"resets": resets}
    if lengths == "packed":
        given, more = (
            pack_sequence([x[:n, b] for b, n in enumerate([3, 9, 1, 7, 9])], enforce_sorted=False),
            {},
        )
    elif lengths is not None:
        more["lengths"] = lengths
    where = {"folder": tmp_path / "rec"} if kind == "folder" else {}
    with torch.no_grad(), inspect.record(m) as whole:
        y, states = m(given, hx, **more)
    with (
        torch.no_grad(),
        inspect.record(m, part=4, steps=[1, 3, 4, 8], units=slice(2, 30, 3), **where) as rec,
    ):
        y_parts, states_parts = m(given, hx, **more)
    close(*(t.data if lengths == "packed" else t for t in (y_parts, y)), "value")
    close(states_parts, states, "value")
    for plane in whole[""]:
        part = rec[""][plane.layer, plane.direction]
        assert part.steps.tolist() == [1, 3, 4, 8]
        assert torch.equal(part.mask, plane.mask[[1, 3, 4, 8]])
        for name in plane.arrays:
            close(part.array(name), plane.array(name)[[1, 3, 4, 8], :, 2:30:3], "value", f"{plane} {name}")


def test_parts_run_where_they_are_asked_for(monkeypatch):
    seen = []
    m = fusegen.nn.LSTM(3, 4)
    forward = fusegen._C.layer_forward
    monkeypatch.setattr(
        fusegen._C, "layer_forward", lambda *args: seen.append(args[1].shape[0]) or forward(*args)
    )
    with torch.no_grad(), inspect.record(m, part=4, units=[0]):
        m(torch.randn(10, 2, 3))
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("grad", [True, False])
def test_each_layer_runs_once_as_in_training(grad, monkeypatch):
    keeps_gates = []
    m = fusegen.nn.LSTM(3, 4, num_layers=2).eval()
    forward = fusegen._C.layer_forward
    monkeypatch.setattr(
        fusegen._C, "layer_forward", lambda *args: keeps_gates.append(args[9] is not None) or forward(*args)
    )
    with torch.set_grad_enabled(grad), inspect.record(m):
        m(torch.randn(10, 2, 3))
    assert keeps_gates == [True, True]


@pytest.mark.parametrize("given", ["packed", "packed in order", "unbatched", "batch_first"])
def test_the_order_is_the_callers(given):
    m = fusegen.nn.GRU(3, 5, batch_first=given == "batch_first", dtype=torch.float64)
    lengths = [9, 5, 2] if given == "packed in order" else [2, 9, 5]
    x = torch.randn(9, 3, 3, dtype=torch.float64)
    with inspect.record(m) as rec:
        if given == "unbatched":
            m(x[:, 0])
            x, lengths = x[:, :1], None
        elif given == "batch_first":
            m(x.transpose(0, 1), lengths=lengths)
        else:
            m(pack_padded_sequence(x, lengths, enforce_sorted=given == "packed in order"))
    check(rec[""][0, 0], stack("GRU", m, x, lengths)[0, 0])
    if lengths:
        assert rec[""].mask.sum(0).tolist() == lengths


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("cell_name", CELLS)
def test_a_cells_calls_follow_each_other(cell_name, grad):
    m = cell(cell_name, 3, 5, dtype=torch.float64)
    x, state = torch.randn(6, 2, 3, dtype=torch.float64), None
    with torch.set_grad_enabled(grad), inspect.record(m) as rec:
        for t in range(6):
            state = m(x[t], state)
    name = {"RNNCell_tanh": "RNN_TANH", "RNNCell_relu": "RNN_RELU"}.get(
        cell_name, cell_name.removesuffix("Cell")
    )
    check(rec[""].only, direction(name, x, [*m._weights(), None]))
    assert rec[""].calls == 6


def test_calls_of_a_layer_follow_each_other():
    m = fusegen.nn.LSTM(3, 5, num_layers=2)
    x = torch.randn(10, 2, 3)
    with torch.no_grad():
        with inspect.record(m) as rec:
            _, state = m(x[:4])
            m(x[4:], state)
        with inspect.record(m, steps=slice(3, None, 2)) as some:
            _, state = m(x[:4])
            m(x[4:], state)
        with inspect.record(m) as whole:
            m(x)
        with inspect.record(m) as last:
            m(x, last=3)
    for plane in whole[""]:
        for name in plane.arrays:
            for other in (rec, last):
                close(other[""][plane.layer, plane.direction].array(name), plane.array(name), "value")
            close(some[""][plane.layer, 0].array(name), plane.array(name)[3::2], "value")


NORMALISED = [
    (fusegen.nn.LayerNormLSTM, {"norm": n, "block_diagonal": k})
    for n in ("haste", "ba", "dreamer")
    for k in (1, 2)
] + [
    (fusegen.nn.LayerNormGRU, {"norm": n, "block_diagonal": k})
    for n in ("haste", "ba", "dreamer")
    for k in (1, 2)
]
NORMALISED += [
    (getattr(fusegen.nn, f"BlockDiagonal{c}"), {"block_diagonal": 2}) for c in ("LSTM", "GRU", "RNN")
]


def normalised_loop(m, x, lengths):
    """By the layer's own formula, a step at a time: it shows its gates by what it gives for h and c."""
    from fusegen.ops.normalised import formula

    weights = [None if w is None else w.detach() for w in m._weights_of("_l0")]
    kind, (T, B, _), H = m._kind, x.shape, m.hidden_size
    state = tuple(x.new_zeros(B, H) for _ in m._spec.states)
    found = []
    for t in range(T):
        gx = formula._input_part(x[t], weights, kind)
        a = formula._recurrent_part(gx, state[0], weights, kind)
        if m._spec.name == "lstm":
            i, f, g, o = (a if kind.norm == "dreamer" else gx + a).chunk(4, -1)
            gates = {"i": i.sigmoid(), "f": f.sigmoid(), "g": g.tanh(), "o": o.sigmoid()}
        elif m._spec.name == "gru":
            a_r, a_z, q = a.chunk(3, -1)
            x_r, x_z, x_n = (torch.zeros_like(a) if kind.norm == "dreamer" else gx).chunk(3, -1)
            r, z = (x_r + a_r).sigmoid(), (x_z + a_z - float(kind.norm == "dreamer")).sigmoid()
            gates = {"r": r, "z": z, "n": (x_n + r * q).tanh()}
        else:
            gates = {}
        new = formula._STEPS[kind.cell](gx, *state, weights, kind)
        live = (torch.tensor(lengths) > t).unsqueeze(1)
        now = gates | dict(zip(("h", "c"), new, strict=False))
        found.append({k: torch.where(live, v, 0) for k, v in now.items()})
        state = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
    return {k: torch.stack([step[k] for step in found]) for k in found[0]}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "cls, options", NORMALISED, ids=lambda v: label(v) if isinstance(v, dict) else v.__name__
)
def test_normalised_layers(cls, options, grad, poisoned):
    m = cls(3, 6, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in m.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    x = torch.randn(9, 5, 3, dtype=torch.float64)
    with torch.set_grad_enabled(grad), inspect.record(m) as rec:
        m(x, lengths=LENGTHS)
    check(rec[""].only, normalised_loop(m, x, LENGTHS))


def test_normalised_cells():
    m = fusegen.nn.LayerNormGRUCell(3, 6, dtype=torch.float64)
    whole = fusegen.nn.LayerNormGRU(3, 6, dtype=torch.float64)
    whole.load_state_dict({f"{k}_l0": v for k, v in m.state_dict().items()})
    x, h = torch.randn(4, 2, 3, dtype=torch.float64), None
    with torch.no_grad(), inspect.record(m) as rec:
        for t in range(4):
            h = m(x[t], h)
    check(rec[""].only, normalised_loop(whole, x, [4, 4]))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("grad", [True, False])
def test_zoneout_in_evaluation(cell_name, grad):
    rate = (0.25, 0.125) if cell_name == "LSTM" else 0.25  # as the kernels hold them, in float32
    m = layer(cell_name, 3, 5, bidirectional=True, zoneout=rate, dtype=torch.float64).eval()
    x = torch.randn(9, 5, 3, dtype=torch.float64)
    with torch.set_grad_enabled(grad), inspect.record(m) as rec:
        m(x, lengths=LENGTHS)
    zoneout = rate if cell_name == "LSTM" else (rate, 0.0)
    for key, want in stack(cell_name, m, x, LENGTHS, zoneout).items():
        check(rec[""][key], want)


@pytest.mark.parametrize("on", ["state", "candidate"])
def test_dropout_in_training_is_that_of_the_call(on):
    """h and c are those that the call gave; a gate is what it was before its mask."""
    m = fusegen.nn.LSTM(
        3, 5, recurrent_dropout=0.5, recurrent_dropout_on=on, zoneout=(0.2, 0.1), weight_drop=0.2
    )
    x = torch.randn(9, 4, 3)
    torch.manual_seed(3)
    y, (_, c) = m(x)
    torch.manual_seed(3)
    with inspect.record(m, part=2, units=[4, 0]) as rec:
        y_seen, _ = m(x)
    assert torch.equal(y_seen, y)
    assert torch.equal(rec[""].h, y[..., [4, 0]]) and torch.equal(rec[""].c[-1], c[0, :, [4, 0]])
    assert rec[""].gates["g"].abs().min() > 0


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_resets(cell_name):
    """Each piece is a sequence of its own."""
    m = layer(cell_name, 3, 5, dtype=torch.float64)
    x, resets = torch.randn(9, 1, 3, dtype=torch.float64), torch.zeros(9, 1, dtype=torch.bool)
    resets[[4, 7]] = True
    with inspect.record(m) as rec:
        m(x, resets=resets)
    parts = [stack(cell_name, m, x[a:b])[0, 0] for a, b in ((0, 4), (4, 7), (7, 9))]
    check(rec[""].only, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "make", [fusegen.nn.LSTM, fusegen.nn.GRU, fusegen.nn.LayerNormLSTM, fusegen.nn.LSTMCell]
)
def test_autocast(make, grad):
    m, x = make(3, 5), torch.randn(4, 2, 3)
    given = x[0] if make is fusegen.nn.LSTMCell else x
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        want = m(given)
        with inspect.record(m) as rec:
            got = m(given)
    same = [(a, b) for a, b in zip(flat(got), flat(want), strict=True)]
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in same)
    assert rec[""].h.dtype == torch.bfloat16
    assert torch.equal(rec[""].h[-1], flat(got)[0] if make is fusegen.nn.LSTMCell else got[0][-1])


def test_recompute_keeps_its_gates_while_it_is_seen():
    m = fusegen.nn.LSTM(3, 5, recompute=2)
    x = torch.randn(9, 2, 3)
    with inspect.record(m) as rec:
        m(x)[0].sum().backward()
    assert rec[""].gates["f"].shape == (9, 2, 5) and m.weight_hh_l0.grad is not None


# ---- what is chosen ------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(3, 6, num_layers=2, bidirectional=True)
        self.heads = nn.ModuleDict({"a": nn.GRU(12, 4), "b": nn.GRUCell(4, 4)})

    def forward(self, x):
        y, _ = self.heads["a"](self.encoder(x)[0])
        return self.heads["b"](y[-1])


@pytest.fixture
def model():
    return fusegen.convert(Model())


def test_converted_modules_by_their_names(model):
    with inspect.record(model) as rec:
        model(torch.randn(7, 2, 3))
    assert list(rec) == ["encoder", "heads.a", "heads.b"]
    assert list(rec["encoder"].planes) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert rec["heads.b"].h.shape == (1, 2, 4) and list(rec["heads.a"].gates) == ["r", "z", "n"]


def test_a_choice(model):
    chosen = {
        "layers": [1],
        "directions": [0],
        "units": [5, 1],
        "steps": slice(2, 6, 2),
        "arrays": ["f", "h"],
    }
    with inspect.record(model, "encoder", **chosen) as rec, inspect.record(model) as whole:
        model(torch.randn(7, 2, 3))
    plane, all_of = rec["encoder"].only, whole["encoder"][1, 0]
    assert set(plane.arrays) == {"f", "h"} and plane.steps.tolist() == [2, 4]
    assert torch.equal(plane.gates["f"], all_of.gates["f"][[2, 4]][..., [5, 1]])
    assert torch.equal(plane.h, all_of.h[[2, 4]][..., [5, 1]])
    with pytest.raises(ValueError, match="holds h, f, not 'c'"):
        _ = plane.c


def test_a_projection_keeps_its_h_whole():
    m = fusegen.nn.LSTM(3, 6, proj_size=2)
    with inspect.record(m, units=[5]) as rec:
        y, _ = m(torch.randn(4, 2, 3))
    assert torch.equal(rec[""].h, y) and rec[""].c.shape == (4, 2, 1)
    with inspect.record(m, units=slice(None, None, -1)) as rec, inspect.record(m) as whole:
        m(torch.randn(4, 2, 3))
    assert torch.equal(rec[""].c, whole[""].c.flip(-1))


def test_what_a_caller_writes_into_its_output_is_not_seen():
    m = fusegen.nn.LSTM(3, 6)
    with torch.no_grad(), inspect.record(m) as rec:
        y, _ = m(torch.randn(4, 2, 3))
        kept = y.clone()
        y.zero_()
    assert torch.equal(rec[""].h, kept)


# ---- what is left behind, and what is refused ----------------------------------------------------------


def test_nothing_is_left_behind(model):
    before = [set(vars(m)) for m in model.modules()]
    with inspect.record(model) as rec, inspect.record(model, "encoder") as inner:
        copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        model(torch.randn(3, 2, 3))
    assert [set(vars(m)) for m in model.modules()] == before
    for other in (copied, pickled):
        assert [set(vars(m)) for m in other.modules()] == before
        other(torch.randn(3, 2, 3))
    assert rec["encoder"].calls == inner["encoder"].calls == 1
    assert torch.equal(rec["encoder"][1, 1].c, inner["encoder"][1, 1].c)
    with contextlib.suppress(RuntimeError), inspect.record(model):
        raise RuntimeError
    assert [set(vars(m)) for m in model.modules()] == before


@pytest.mark.parametrize(
    "names, said",
    [
        ("enocder", "nearest is 'encoder'"),
        (["heads.c"], "nearest is 'heads."),
        ("heads", "is named"),
        ([], "at least one"),
        (["heads.a", "heads.a", "x"], "is named 'x'"),
    ],
)
def test_a_name_that_is_none(model, names, said):
    with pytest.raises(ValueError, match=said), inspect.record(model, names):
        pass


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"layers": [2]}, ValueError, "layers 0..1, not 2"),
        ({"directions": [-1]}, ValueError, "at least 0"),
        ({"units": [6]}, ValueError, "units 0..5, not 6"),
        ({"units": ["a"]}, TypeError, "units"),
        ({"steps": [3, 1]}, ValueError, "increasing"),
        ({"steps": slice(-3, None)}, ValueError, "steps.start"),
        ({"arrays": ["q"]}, ValueError, "no array is named 'q'"),
        ({"part": 0}, ValueError, "part"),
        ({"steps": 3}, TypeError, "steps: expected a slice or numbers, got int"),
        ({"units": 3}, TypeError, "units: expected a slice or numbers, got int"),
        ({"folder": __file__}, NotADirectoryError, "expected folder to be a folder"),
    ],
    ids=str,
)
def test_a_choice_that_is_none(model, options, error, said):
    with pytest.raises(error, match=said), inspect.record(model, "encoder", **options):
        pass
    assert "_run" not in vars(model.encoder)


def test_what_was_not_called_or_not_recorded(model):
    with inspect.record(model) as rec:
        model.encoder(torch.randn(3, 2, 3))
    with pytest.raises(ValueError, match=r"heads\.a was not called"):
        _ = rec["heads.a"].h
    with pytest.raises(KeyError, match="nearest is 'encoder'"):
        rec["encoders"]
    with pytest.raises(ValueError, match="several planes"):
        _ = rec["encoder"].h
    with pytest.raises(ValueError, match="one of the"):
        rec["encoder"][2, 0]


def test_batches_of_several_sizes_are_told():
    m = fusegen.nn.GRU(3, 4)
    with inspect.record(m) as rec:
        m(torch.randn(3, 2, 3)), m(torch.randn(3, 5, 3))
    with pytest.raises(ValueError, match="one batch size"):
        _ = rec[""].h
    with pytest.raises(ValueError, match="one batch size"):
        _ = rec[""].mask


def compiled(m):
    m.compile(backend="eager")
    return m


REFUSED = {
    "a stream": (lambda: fusegen.Stream(nn.LSTM(3, 4)), TypeError, "a Stream keeps no gates"),
    "no module": (lambda: 3, TypeError, "torch.nn.Module"),
    "nothing recurrent": (lambda: nn.Linear(3, 4), ValueError, "a recurrent layer"),
    "torch.nn's": (lambda: nn.LSTM(3, 4), ValueError, r"fusegen.convert\(model\) first"),
    "quantized": (lambda: fusegen.quantize(nn.Sequential(nn.LSTM(3, 4))), ValueError, "is quantized"),
    "torch.compile": (
        lambda: torch.compile(fusegen.nn.LSTM(3, 4), backend="eager"),
        RuntimeError,
        "torch.compile's",
    ),
    "Module.compile": (lambda: compiled(fusegen.nn.LSTM(3, 4)), RuntimeError, "torch.compile's"),
    "TorchScript": (
        lambda: torch.jit.trace(fusegen.nn.LSTM(3, 4), torch.randn(2, 1, 3)),
        RuntimeError,
        "TorchScript",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_cannot_be_recorded(what):
    make, error, said = REFUSED[what]
    with pytest.raises(error, match=said) as raised, inspect.record(make()):
        pass
    assert "\n" not in str(raised.value)


def test_calls_that_cannot_be_recorded(model):
    m, x = model.encoder, torch.randn(3, 2, 3)
    with inspect.record(m):
        fusegen.set_backend("torch")
        with pytest.raises(RuntimeError, match="'torch', which gives no gates"):
            m(x)
        fusegen.set_backend("auto")
        with pytest.raises(RuntimeError, match=r"torch\.func"):
            torch.func.vmap(lambda one: m(one)[0], in_dims=2, out_dims=2)(torch.randn(3, 2, 4, 3))
        with pytest.raises(RuntimeError, match=r"torch\.compile's graphs"):
            torch.compile(m, backend="eager", fullgraph=True)(x)
    m(x)


FOLDERS = {"memory": lambda tmp: {}, "folder": lambda tmp: {"folder": tmp / "rec", "part": 4}}


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("grad", [True, False])
def test_a_call_that_raises_leaves_nothing_behind(kind, grad, tmp_path, monkeypatch):
    """Its first layer was made whole, and a part of its second."""
    m, x, left = fusegen.nn.LSTM(3, 4, num_layers=2), torch.randn(10, 2, 3), []
    forward = fusegen._C.layer_forward

    def run(*args):
        if left and left.pop() == 0:
            raise KeyboardInterrupt
        return forward(*args)

    monkeypatch.setattr(fusegen._C, "layer_forward", run)
    with torch.set_grad_enabled(grad), inspect.record(m, **FOLDERS[kind](tmp_path)) as rec:
        m(x)
        left[:] = range(2 if grad or kind == "memory" else 5)
        with pytest.raises(KeyboardInterrupt):
            m(x)
        y, _ = m(x)
    for other in (rec, inspect.load(tmp_path / "rec")) if kind == "folder" else (rec,):
        assert other[""].calls == 2 and other[""].steps == 20
        for plane in other[""]:
            assert plane.mask.shape == (20, 2)
            assert {plane.array(name).shape for name in plane.arrays} == {(20, 2, 4)}
        close(other[""][1, 0].h[10:], y, "value")


def test_a_folder_of_a_process_that_was_killed_holds_its_calls(tmp_path, monkeypatch):
    """Its index was written while calls came; the files may hold more, and never less."""
    from fusegen.inspect.recording import recorded

    monkeypatch.setattr(recorded, "_OFTEN", 0.0)
    m, x = fusegen.nn.LSTM(3, 4), torch.randn(10, 2, 3)
    with torch.no_grad(), inspect.record(m, folder=tmp_path / "rec") as rec:
        m(x)
        monkeypatch.setattr(recorded, "_OFTEN", 1e9)
        m(x)
        killed = inspect.load(tmp_path / "rec")
        assert np.load(tmp_path / "rec/model.l0.d0.h.npy").shape == (20, 2, 4)
    assert killed[""].calls == 1 and torch.equal(killed[""].h, rec[""].h[:10])
    np.save(tmp_path / "rec/model.l0.d0.h.npy", np.zeros((5, 2, 4), np.float32))
    with pytest.raises(ValueError, match="is cut off: expected 20 steps, got 5"):
        _ = inspect.load(tmp_path / "rec")[""].h


def test_a_file_of_a_model_whose_layers_were_not_all_called(model, tmp_path):
    with inspect.record(model) as rec:
        model.encoder(torch.randn(3, 2, 3))
    loaded = inspect.load(rec.save(tmp_path / "rec.npz"))
    assert torch.equal(loaded["encoder"][1, 1].h, rec["encoder"][1, 1].h)
    for other in (rec, loaded):
        with pytest.raises(ValueError, match=r"heads\.a was not called"):
            _ = next(iter(other["heads.a"])).h


def test_what_was_recorded_is_read_while_more_comes():
    m, x = fusegen.nn.GRU(3, 4), torch.randn(5, 2, 3)
    with inspect.record(m) as rec:
        m(x)
        assert rec[""].h.shape == (5, 2, 4)
        copied, pickled = copy.deepcopy(rec), pickle.loads(pickle.dumps(rec))
        m(x)
    assert rec[""].h.shape == (10, 2, 4) and rec[""].mask.shape == (10, 2) and rec[""].calls == 2
    for other in (copied, pickled):
        assert torch.equal(other[""].gates["z"], rec[""].gates["z"][:5]) and other[""].calls == 1


def test_a_module_of_two_names_is_asked_for_by_either():
    m = nn.ModuleDict({"a": fusegen.nn.GRU(3, 3)})
    m["b"] = m["a"]
    with inspect.record(m, "b") as rec:
        m["a"](torch.randn(2, 1, 3))
    assert list(rec) == ["b"] and rec["b"].calls == 1
    with inspect.record(m) as rec:
        m["b"](torch.randn(2, 1, 3))
    assert list(rec) == ["a"] and rec["a"].calls == 1
    with pytest.raises(ValueError, match="the same module as 'a'"), inspect.record(m, ["a", "b"]):
        pass


def test_hooks_see_what_they_saw(model):
    seen = []
    model.encoder.register_forward_hook(lambda m, args, out: seen.append(out[0]))
    with inspect.record(model) as rec:
        model(torch.randn(3, 2, 3))
    assert torch.equal(seen[0][..., :6], rec["encoder"][1, 0].h)
