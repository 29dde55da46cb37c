"""What happens inside a recurrence beside the cell's maths: sequences that start anew, dropout, zoneout,
weight drop. The ops and functional forms against the reference formula in float64."""

import fusegen
import pytest
import torch
from cases import DTYPES, covering, oracle_of
from fusegen import ops, reference
from fusegen._inside import Inside
from fusegen.ops import random
from fusegen.ops.layers import OPS
from fusegen.ops.spec import GRU, LSTM, RNN
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import close, same
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

CELLS = {"lstm": (LSTM, False), "gru": (GRU, False), "rnn_tanh": (RNN, False), "rnn_relu": (RNN, True)}
KEY = 0x0123456789ABCDEF
# What is asked for: rates as Inside has them, resets, whether they start from something, training.
ASKED = {
    "resets": ((), True, False, True),
    "starts": ((), True, True, True),
    "state dropout": ((0.3, 0.0, 0.0, 0.0), False, False, True),
    "candidate dropout": ((0.0, 0.3, 0.0, 0.0), False, False, True),
    "zoneout": ((0.0, 0.0, 0.3, 0.4), False, False, True),
    "zoneout in evaluation": ((0.0, 0.0, 0.3, 0.4), False, False, False),
    "all": ((0.2, 0.1, 0.2, 0.1), True, True, True),
    "all in evaluation": ((0.0, 0.0, 0.2, 0.1), True, True, False),
}
# T, B, I, H, P (0: no projection), D, whether ragged; sizes that go by each plan, one step too.
SHAPES = {
    "small": (9, 5, 7, 33, 0, 1, False),
    "ragged": (7, 6, 5, 70, 0, 2, True),
    "projected": (6, 5, 3, 41, 17, 2, True),
    "rows": (11, 16, 40, 150, 0, 1, False),
    "step": (1, 3, 4, 20, 0, 2, False),
    "unit": (3, 1, 1, 1, 0, 1, False),
}


class Case:
    """Tensors of a call, drawn; and what the op and the reference make of them."""

    def __init__(self, cell_name, asked, shape, dtype=torch.float64, seed=0):
        self.spec, self.relu = CELLS[cell_name]
        rates, resets, starts, self.training = asked
        T, B, I, H, P, self.D, ragged = shape
        two, made = self.spec is LSTM, torch.Generator().manual_seed(seed)
        project, P = two and P, P if two and P else H
        G, D = self.spec.gates, self.D

        def draw(*sizes, scale=0.4):
            return (torch.randn(sizes, dtype=torch.float64, generator=made) * scale).to(dtype)

        self.weights = []
        for _ in range(D):
            wide = 0.6 / H**0.5
            biases = draw(G * H), draw(G * H)
            self.weights += [draw(G * H, I, scale=wide), draw(G * H, P, scale=wide), *biases]
            self.weights += [draw(P, H, scale=wide) if project else None] if two else []
        self.states = (draw(D, B, P), *([draw(D, B, H)] if two else []))
        self.starts = (draw(D, B, P), *([draw(D, B, H)] if two else [])) if starts else ()
        self.x = draw(T, B, I)
        self.lengths = torch.tensor([b % (T + 1) for b in range(B)]) if ragged else None
        self.resets = torch.rand(T, B, generator=made) < 0.3 if resets else None
        self.rates = rates if two or not rates else (*rates[:3], 0.0)
        self.key = torch.tensor(KEY + seed)
        self.sent = [draw(T, B, D * P), *map(torch.empty_like, self.states)]
        for s in self.sent[1:]:
            s.copy_(draw(*s.shape))

    def tensors(self):
        return [t for t in (self.x, *self.states, *self.starts, *self.weights) if t is not None]

    def run(self, way, leaves):
        """(outputs) of ``way`` ("op" or "formula") on tensors as ``tensors`` gives them."""
        given, n = iter(leaves), len(self.states)
        x, states = next(given), [next(given) for _ in range(n)]
        h, c = (*(next(given) for _ in self.starts), None, None)[:2]
        weights = [None if w is None else next(given) for w in self.weights]
        inside = Inside(self.resets, h, c, self.key, rates=self.rates, layer=1, training=self.training)
        if way == "op":
            return OPS[self.spec](x, *(*states, None)[:2], weights, self.relu, self.lengths, inside=inside)
        options = {"relu": self.relu} if self.spec is RNN else {}
        formula = getattr(reference, self.spec.name)
        return formula(x, *states, weights, self.lengths, inside=inside, **options)

    def both(self):
        """Outputs and gradients of the op in the case's dtype, and of the formula in float64."""
        made = []
        mine = [t.detach().clone().requires_grad_() for t in self.tensors()]
        for way, leaves in (("op", mine), ("formula", list(oracle_of(*self.tensors())))):
            out = self.run(way, leaves)
            loss = sum((o * s.to(o.dtype)).sum() for o, s in zip(out, self.sent, strict=True))
            made.append((out, torch.autograd.grad(loss, leaves, materialize_grads=True)))
        return made


ROWS = list(covering(sorted(CELLS), sorted(ASKED), sorted(SHAPES), DTYPES, (1, 2)))


@pytest.mark.parametrize(("cell_name", "asked", "shape", "dtype", "threads"), ROWS, ids=str)
def test_as_the_formula(cell_name, asked, shape, dtype, threads, poisoned):
    torch.set_num_threads(threads)
    (out, grads), (want, want_grads) = Case(cell_name, ASKED[asked], SHAPES[shape], dtype).both()
    close(out, want, "value")
    for i, (g, w) in enumerate(zip(grads, want_grads, strict=True)):
        if cell_name == "rnn_relu" and dtype in (torch.bfloat16, torch.float16):
            same(g, w, f"gradient {i}", "norm at a kink")
        else:
            close(g, w, "grad", f"gradient {i}")


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("cell_name", CELLS)
def test_gradcheck(cell_name, asked):
    case = Case(cell_name, ASKED[asked], (3, 3, 2, 4, 2, 2, True))
    leaves = [t.requires_grad_() for t in case.tensors()]
    assert gradcheck(lambda *ts: case.run("op", ts), leaves, fast_mode=True)


@pytest.mark.parametrize("asked", ["starts", "all", "all in evaluation"])
@pytest.mark.parametrize("cell_name", CELLS)
def test_gradgradcheck(cell_name, asked):
    case = Case(cell_name, ASKED[asked], (3, 2, 2, 3, 2, 1, False))
    leaves = [t.requires_grad_() for t in case.tensors()]
    assert gradgradcheck(lambda *ts: case.run("op", ts), leaves, fast_mode=True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    cell_name=st.sampled_from(sorted(CELLS)),
    sizes=st.tuples(*[st.integers(1, n) for n in (6, 9, 5, 70, 40)], st.integers(1, 2), st.booleans()),
    rates=st.tuples(*[st.sampled_from([0.0, 0.1, 0.6])] * 4),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    threads=st.integers(1, 2),
)
def test_any_shape_and_options(cell_name, sizes, rates, flags, threads):
    torch.set_num_threads(threads)
    resets, starts, training = flags
    rates = rates if training else (0.0, 0.0, *rates[2:])
    if not (resets or any(rates)):
        resets = True
    (out, grads), (want, want_grads) = Case(
        cell_name, (rates, resets, starts and resets, training), sizes
    ).both()
    close(out, want, "value")
    close(grads, want_grads, "grad")


@pytest.mark.parametrize("shape", ["ragged", "projected", "rows"])
@pytest.mark.parametrize("cell_name", CELLS)
def test_the_same_bits_twice_and_for_any_threads(cell_name, shape):
    """Forward and dreset: sums of weight gradients are split over threads alike."""
    made = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        made.append(Case(cell_name, ASKED["all"], SHAPES[shape], torch.float32).both()[0])
    for out, _ in made[1:]:
        assert all(torch.equal(a, b) for a, b in zip(out, made[0][0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(made[1][1], made[2][1], strict=True))


def test_masks_do_not_depend_on_who_makes_them():
    """Each place has its own, and a layer's are those of its number."""
    case = Case("lstm", ASKED["zoneout"], SHAPES["small"])
    one = case.run("op", case.tensors())[0]
    case.key = case.key + 1
    assert not torch.equal(one, case.run("op", case.tensors())[0])


@pytest.mark.parametrize("cell_name", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("asked", ["starts", "all", "all in evaluation"])
def test_opcheck(cell_name, asked):
    case = Case(cell_name, ASKED[asked], (3, 2, 4, 5, 0, 2, True), torch.float32)
    spec, op = case.spec, OPS[case.spec]
    relu = (False,) if spec is RNN else ()
    states = len(spec.states)
    given = (case.x, *case.states, case.weights, *relu, case.lengths)
    inside = (case.resets, *case.starts, case.key, list(case.rates), 1, case.training)
    opcheck(op.op, (*given, None, *inside))
    leaves = [t.clone().requires_grad_() for t in (case.x, *case.states, *case.starts)]
    opcheck(
        op.op,
        (*leaves[: 1 + states], case.weights, *relu, case.lengths, None, case.resets, *leaves[1 + states :],
         *inside[1 + states :]),
    )  # fmt: skip
    opcheck(op.train_op, (*given, *inside))
    y, *rest = op.train_op(*given, *inside)
    kept = rest[states:] if spec.saved else []
    mean = rest[states:] if not spec.saved and not case.training else []
    wanted = [t is not None for t in (case.x, *case.states, *case.weights, *case.starts)]
    opcheck(op.backward_op, (*case.sent, *given, y, *kept, wanted, *inside, *mean))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_weight_drop(dtype, threads):
    torch.set_num_threads(threads)
    R, key = torch.randn(4 * 70, 150, dtype=dtype), torch.tensor(KEY)
    got = random.weight_drop(R, key, 3, 0.4)
    assert torch.equal(got, reference.weight_drop(R, key, 3, 0.4))
    assert 0.35 < (got == 0).double().mean().item() < 0.45
    opcheck(torch.ops.fusegen.weight_drop.default, (R, key, 3, 0.4))


def test_weight_drop_is_its_own_gradient():
    R, key = torch.randn(5, 6, dtype=torch.float64, requires_grad=True), torch.tensor(KEY)
    assert gradcheck(lambda R: random.weight_drop(R, key, 0, 0.5), [R])
    assert gradgradcheck(lambda R: random.weight_drop(R, key, 0, 0.5) ** 2, [R])
    (g,) = torch.autograd.grad(random.weight_drop(R, key, 0, 0.5).sum(), R)
    assert torch.equal(g, reference.weight_drop(torch.ones_like(R), key, 0, 0.5))


def test_each_key_is_another():
    torch.manual_seed(3)
    keys = [int(random.draw_key()) for _ in range(100)]
    assert len(set(keys)) == 100
    torch.manual_seed(3)
    assert keys[0] == int(random.draw_key())
    own = torch.Generator().manual_seed(9)
    assert int(random.draw_key(own)) == int(random.draw_key(torch.Generator().manual_seed(9)))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_functional_forms(name):
    """Of one layer, what the op gives; weights of evaluation are whole."""
    case = Case({"rnn": "rnn_tanh"}.get(name, name), ASKED["starts"], SHAPES["ragged"])
    two = case.spec is LSTM
    zoneout = (0.2, 0.1) if two else 0.2
    form, given = getattr(ops, name), (case.x, *case.states, case.weights, case.lengths)
    own = torch.Generator().manual_seed(2)
    options = {"recurrent_dropout": 0.3, "zoneout": zoneout, "resets": case.resets}
    reset_to = case.starts if two else case.starts[0]
    got = form(*given, **options, reset_to=reset_to, generator=own)
    case.key = random.draw_key(torch.Generator().manual_seed(2))
    inside = Inside(
        case.resets, *(*case.starts, None)[:2], case.key, rates=(0.3, 0.0, 0.2, 0.1 if two else 0.0)
    )
    want = getattr(reference, name)(*given, inside=inside)
    close(got, want, "value")
    same_as_plain = form(*given, weight_drop=0.5, recurrent_dropout=0.5, training=False)
    assert all(torch.equal(a, b) for a, b in zip(same_as_plain, form(*given), strict=True))
    dropped = form(*given, weight_drop=0.5, generator=torch.Generator().manual_seed(2))
    per = len(case.spec.weights)
    weights = [
        reference.weight_drop(w, case.key, i // per, 0.5) if i % per == 1 else w
        for i, w in enumerate(case.weights)
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(dropped, form(*given[:-2], weights, case.lengths), strict=True)
    )


BAD = {
    "float resets": ({"resets": torch.zeros(4, 3)}, TypeError, "resets of dtype torch.bool"),
    "list": ({"resets": [[True]]}, TypeError, "resets to be a bool Tensor"),
    "turned": ({"resets": torch.zeros(3, 4, dtype=torch.bool)}, ValueError, r"shape \(4, 3\).*got \(3, 4\)"),
    "alone": ({"reset_to": torch.zeros(6)}, ValueError, "reset_to together with resets"),
    "shape": (
        {"resets": torch.zeros(4, 3, dtype=torch.bool), "reset_to": torch.zeros(5)},
        ValueError,
        r"reset_to of shape \(1, 3, 6\), or \(6,\) for all, got \(5,\)",
    ),
    "dtype": (
        {"resets": torch.zeros(4, 3, dtype=torch.bool), "reset_to": torch.zeros(6, dtype=torch.float64)},
        ValueError,
        "reset_to of the input's dtype",
    ),
    "one": ({"recurrent_dropout": 1.0}, ValueError, "recurrent_dropout: expected a number"),
    "negative": ({"weight_drop": -0.1}, ValueError, "weight_drop: expected a number"),
    "nan": ({"zoneout": float("nan")}, ValueError, "zoneout: expected a number"),
    "text": ({"zoneout": "0.1"}, TypeError, "zoneout: expected a number"),
    "bool": ({"recurrent_dropout": True}, TypeError, "recurrent_dropout: expected a number"),
    "where": ({"recurrent_dropout_on": "h"}, ValueError, "recurrent_dropout_on: expected one of"),
    "generator": ({"generator": 3}, TypeError, "generator to be a torch.Generator of the CPU, got int"),
}


@pytest.mark.parametrize(("options", "error", "says"), BAD.values(), ids=BAD)
def test_bad_input(options, error, says):
    weights = [torch.randn(18, 2), torch.randn(18, 6), None, None]
    with pytest.raises(error, match=says):
        ops.gru(torch.randn(4, 3, 2), None, weights, **options)


def test_the_torch_backend_runs_the_formula():
    case = Case("gru", ASKED["all"], SHAPES["small"])
    fusegen.set_backend("torch")
    given = (case.x, *case.states, case.weights)
    got = ops.gru(*given, resets=case.resets, zoneout=0.3, generator=torch.Generator().manual_seed(1))
    fusegen.set_backend("fused")
    want = ops.gru(*given, resets=case.resets, zoneout=0.3, generator=torch.Generator().manual_seed(1))
    close(got, want, "value")
