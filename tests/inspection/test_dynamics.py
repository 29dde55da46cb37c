"""What a layer does, against derivatives by autograd, difference quotients and systems worked out by hand."""

import contextlib
import itertools

import fusegen
import pytest
import torch
from cases import CELL_NAMES, layer
from fusegen import inspect
from tolerances import close
from torch import nn

LENGTHS = [9, 0, 4, 9, 1]
LAYERS = [
    *((fusegen.nn.LSTM, o) for o in ({}, {"proj_size": 2}, {"zoneout": (0.25, 0.125)}, {"bias": False})),
    (fusegen.nn.GRU, {}),
    (fusegen.nn.RNN, {}),
    (fusegen.nn.RNN, {"nonlinearity": "relu"}),
    (fusegen.nn.LayerNormLSTM, {"norm": "ba"}),
    (fusegen.nn.LayerNormGRU, {"norm": "dreamer", "block_diagonal": 2}),
    (fusegen.nn.BlockDiagonalGRU, {"block_diagonal": 3}),
]


def made(cls, options, **more):
    return cls(3, 6, dtype=torch.float64, **options, **more).eval()


def named(v):
    return v.__name__ if isinstance(v, type) else str(v)


# ---- steps, states, Jacobians --------------------------------------------------------------------------


@pytest.mark.parametrize("cls, options", LAYERS, ids=named)
def test_a_step_is_the_layers(cls, options):
    """From every state visited the function gives the next, in both directions of a stack, ragged, with
    resets."""
    m = made(cls, options, num_layers=2, bidirectional=True)
    x, resets = torch.randn(9, 5, 3, dtype=torch.float64), torch.rand(9, 5) < 0.3
    for number, d in itertools.product(range(2), range(2)):
        step = inspect.step_of(m, layer=number, direction=d)
        run = lambda: m(x, lengths=LENGTHS, resets=resets)
        seen = inspect.visited(m, run, layer=number, direction=d, limit=None)
        assert seen.states.shape == (sum(LENGTHS), step.size) and seen.inputs.shape[1] == step.inputs
        close(step(seen.states, seen.inputs), seen.after, "value")


@pytest.mark.parametrize("cls", [fusegen.nn.LSTMCell, fusegen.nn.GRUCell, fusegen.nn.LayerNormLSTMCell])
def test_a_cells_step(cls):
    m = cls(3, 6, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)

    def run():
        state = None
        for t in range(4):
            state = m(x[t], state)

    seen = inspect.visited(m, run)
    close(inspect.step_of(m)(seen.states, seen.inputs), seen.after, "value")


def test_visited_is_a_draw():
    m, x = fusegen.nn.GRU(3, 6), torch.randn(9, 5, 3)
    ways = [inspect.visited(m, lambda: m(x), limit=7, seed=s).states for s in (0, 0, 1)]
    assert torch.equal(ways[0], ways[1]) and not torch.equal(ways[0], ways[2]) and len(ways[0]) == 7
    with pytest.raises(ValueError, match="was not called"):
        inspect.visited(m, lambda: None)


@pytest.mark.parametrize("cls, options", LAYERS, ids=named)
def test_jacobians_are_difference_quotients(cls, options):
    step = inspect.step_of(made(cls, options))
    s, x = torch.randn(2, step.size, dtype=torch.float64) * 0.5, torch.randn(2, 3, dtype=torch.float64)
    got, e = inspect.jacobians(step, s, x), 1e-6
    for j in range(step.size):
        move = torch.zeros(step.size, dtype=torch.float64)
        move[j] = e
        slope = (step(s + move, x) - step(s - move, x)) / (2 * e)
        assert (got[:, :, j] - slope).abs().max() < 1e-8


def test_spectrum_of_a_rotation():
    """An RNN of ReLUs that are all on turns by an angle and shrinks: eigenvalues 0.9 exp(+-i angle)."""
    m = fusegen.nn.RNN(1, 2, nonlinearity="relu", bias=False, dtype=torch.float64)
    angle = torch.tensor(0.1, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    with torch.no_grad():
        m.weight_hh_l0.copy_(0.9 * turn)
    got = inspect.jacobian_spectrum(inspect.step_of(m), torch.ones(1, 2), torch.zeros(1, 1))
    close(got.abs(), torch.full((1, 2), 0.9, dtype=torch.float64), "value")
    close(got.angle().abs(), angle.expand(1, 2), "value")


def test_jacobians_of_bad_input():
    step = inspect.step_of(fusegen.nn.GRU(3, 6))
    with pytest.raises(ValueError, match=r"states \[N, 6\]"):
        inspect.jacobians(step, torch.zeros(2, 5), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="as many inputs"):
        inspect.jacobians(step, torch.zeros(2, 6), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"direction in 0\.\.0"):
        inspect.step_of(fusegen.nn.GRU(3, 6), direction=1)
    with pytest.raises(ValueError, match="the name of one of"):
        inspect.step_of(nn.ModuleList([fusegen.nn.GRU(3, 6), fusegen.nn.GRU(3, 6)]))


# ---- fixed points --------------------------------------------------------------------------------------


def test_fixed_points_of_two_units_apart():
    """h' = tanh(2 h) unit by unit stands still at 0 and at +-h*, tanh(2 h*) = h*: nine points, of which the
    four corners are stable."""
    m = fusegen.nn.RNN(1, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        m.weight_hh_l0.copy_(2 * torch.eye(2))
    grid = torch.linspace(-1.1, 1.1, 9, dtype=torch.float64)
    got = inspect.fixed_points(inspect.step_of(m), torch.cartesian_prod(grid, grid))
    star = 0.9575040240772687  # by bisection
    assert len(got.points) == 9 and (got.speeds <= 1e-16).all()
    want = torch.cartesian_prod(*[torch.tensor([-star, 0, star], dtype=torch.float64)] * 2)
    assert torch.cdist(want, got.points).min(1).values.max() < 1e-7
    slopes = (2 * (1 - got.points.square())).abs().sort(1, descending=True).values
    assert (got.eigenvalues.abs() - slopes).abs().max() < 1e-6
    assert torch.equal(got.unstable, (slopes > 1).sum(1)) and sorted(got.unstable.tolist()).count(0) == 4


@pytest.mark.parametrize("cls", [fusegen.nn.LSTM, fusegen.nn.GRU, fusegen.nn.LayerNormGRU])
def test_fixed_points_stand_still_in_the_layer(cls):
    m = made(cls, {})
    x = torch.randn(20, 2, 3, dtype=torch.float64)
    seen = inspect.visited(m, lambda: m(x))
    before = seen.states.clone()
    got = inspect.fixed_points(inspect.step_of(m), seen.states, x[0, 0])
    assert torch.equal(seen.states, before) and len(got.points) >= 1
    h = got.points[:1, :6].unsqueeze(0)
    state = (h, got.points[:1, 6:].unsqueeze(0)) if cls is fusegen.nn.LSTM else h
    y, _ = m(x[0, 0].expand(1, 1, 3), state)
    assert (y - h).abs().max() < 1e-7


def test_slow_points_and_bad_input():
    m = fusegen.nn.RNN(1, 1, nonlinearity="relu", dtype=torch.float64)
    with torch.no_grad():  # h' = h + 0.001 for h > 0: nowhere still, everywhere slow
        for name, value in (("weight_hh_l0", 1.0), ("bias_ih_l0", 1e-3), ("bias_hh_l0", 0.0)):
            getattr(m, name).fill_(value)
    step, states = inspect.step_of(m), torch.full((1, 1), 0.5)
    assert len(inspect.fixed_points(step, states).points) == 0
    assert inspect.fixed_points(step, states, slow=1e-5).speeds.item() == pytest.approx(5e-7)
    with pytest.raises(ValueError, match="slow"):
        inspect.fixed_points(step, states, slow=1e-20)
    with pytest.raises(ValueError, match=r"input \[1\]"):
        inspect.fixed_points(step, states, torch.zeros(2))


# ---- time constants, saturation ------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [2.0, 10.0, 100.0])
@pytest.mark.parametrize(
    "cls, options, gate, sign",
    [
        (fusegen.nn.LSTM, {}, 1, 1),
        (fusegen.nn.GRU, {}, 1, 1),
        (fusegen.nn.LayerNormGRU, {"norm": "haste"}, 1, 1),
        (fusegen.nn.LayerNormGRU, {"norm": "ba"}, 1, -1),
    ],
    ids=named,
)
def test_time_constants_of_gates_that_are_set(cls, options, gate, sign, tau):
    """A gate of bias log(tau - 1) alone keeps 1 - 1 / tau of the state."""
    m = made(cls, options)
    bias = torch.log(torch.tensor(tau - 1, dtype=torch.float64))
    with torch.no_grad():
        for name, p in m.named_parameters():
            p.fill_(0.0)
            if name.startswith("bias_ih"):
                p[gate * 6 : (gate + 1) * 6] = sign * bias
    with inspect.record(m) as rec:
        m(torch.randn(9, 5, 3, dtype=torch.float64), lengths=LENGTHS)
    close(inspect.time_constants(rec[""].only), torch.full((6,), tau, dtype=torch.float64), "value")


def test_time_constants_are_of_the_geometric_mean():
    m = fusegen.nn.LSTM(3, 6, dtype=torch.float64)
    with inspect.record(m) as rec:
        m(torch.randn(9, 5, 3, dtype=torch.float64), lengths=LENGTHS)
    f = rec[""].gates["f"]
    kept = torch.cat([f[:n, b] for b, n in enumerate(LENGTHS)])
    want = 1 / (1 - kept.prod(0) ** (1 / len(kept)))
    close(inspect.time_constants(rec[""].only), want, "value")
    with inspect.record(fusegen.nn.RNN(3, 6)) as rec, pytest.raises(ValueError, match="no gate that keeps"):
        inspect.time_constants(next(iter(rec.planes())))


def test_saturation_and_dead_units():
    m = fusegen.nn.LSTM(3, 6, dtype=torch.float64)
    with torch.no_grad():
        m.bias_ih_l0[6:9] = 20.0  # forget gates of three units, open
        m.bias_ih_l0[9:12] = -20.0
        m.bias_ih_l0[12] = -20.0  # a candidate at -1
        m.bias_ih_l0[18] = -100.0  # an output gate, shut
    with inspect.record(m) as rec:
        m(torch.randn(9, 5, 3, dtype=torch.float64), lengths=LENGTHS)
    got = inspect.saturation(rec[""].only)
    assert got["f"].high.tolist() == [1, 1, 1, 0, 0, 0] and got["f"].low.tolist() == [0, 0, 0, 1, 1, 1]
    assert got["g"].low[0] == 1
    i, g = (torch.cat([rec[""].gates[name][:n, b] for b, n in enumerate(LENGTHS)]) for name in "ig")
    got = inspect.saturation(rec[""].only, 0.4, 0.6)["g"]
    assert torch.equal(got.low, (g < -0.2).double().mean(0)) and 0 < got.low[1:].mean() < 1
    assert torch.equal(got.high, (g > 0.2).double().mean(0))
    got = inspect.saturation(rec[""].only, 0.4, 0.6)["i"]
    assert torch.equal(got.low, (i < 0.4).double().mean(0)) and torch.equal(
        got.high, (i > 0.6).double().mean(0)
    )
    assert inspect.dead_units(rec[""].only).tolist() == [True] + [False] * 5
    with pytest.raises(ValueError, match="high"):
        inspect.saturation(rec[""].only, 0.9, 0.1)


# ---- lags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_gradients_by_lag_are_norms_of_jacobians(cell_name, batch_first):
    m = layer(cell_name, 3, 5, dtype=torch.float64, batch_first=batch_first)
    oracle = layer(cell_name, 3, 5, own=False, dtype=torch.float64)
    oracle.load_state_dict(m.state_dict())
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    got = inspect.gradient_by_lag(m, x.transpose(0, 1) if batch_first else x, at=5, batch_first=batch_first)
    norms = []
    for lag in range(6):
        each = [
            torch.autograd.functional.jacobian(lambda one, b=b: oracle(one)[0][5, b], x)[:, 5 - lag, b].norm()
            for b in range(2)
        ]
        norms.append(torch.stack(each).mean())
    close(got.norms, torch.stack(norms), "grad")


def test_a_memory_that_halves():
    """h' = h / 2 + x: the norm at a lag is 2^-lag, and 99 % of the sum lie within seven steps."""
    m = fusegen.nn.RNN(1, 1, nonlinearity="relu", bias=False, dtype=torch.float64)
    with torch.no_grad():
        m.weight_hh_l0.fill_(0.5), m.weight_ih_l0.fill_(1.0)
    got = inspect.gradient_by_lag(m, torch.ones(40, 1, 1, dtype=torch.float64))
    close(got.norms, 0.5 ** torch.arange(40, dtype=torch.float64), "grad")
    assert got.reach == 6


def test_random_probes_have_the_same_mean():
    m, x = fusegen.nn.LSTM(3, 5, dtype=torch.float64), torch.randn(7, 2, 3, dtype=torch.float64)
    exact = inspect.gradient_by_lag(m, x).norms
    drawn = inspect.gradient_by_lag(m, x, probes=400).norms
    assert ((drawn / exact - 1).abs() < 0.25).all()
    assert torch.equal(drawn, inspect.gradient_by_lag(m, x, probes=400).norms)


@pytest.mark.parametrize("options", [{"at": 7}, {"share": 2}, {"probes": 0}], ids=str)
def test_lags_of_bad_input(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        inspect.gradient_by_lag(fusegen.nn.GRU(3, 5), torch.randn(7, 2, 3), **options)


# ---- ablation and patching -----------------------------------------------------------------------------


def by_hand(m, x, change, number, d, lengths=None):
    """A stack whose plane (number, d) goes through ``change(own step, h, c)`` after every step of its own:
    (output, [h_n ...]) by ``step_of``."""
    x, finals = x.double(), []
    T, B, _ = x.shape
    for layer_number in range(m.num_layers):
        outs = []
        for direction in range(2 if m.bidirectional else 1):
            step = inspect.step_of(m, layer=layer_number, direction=direction)
            P = getattr(m, "proj_size", 0) or m.hidden_size
            y = x.new_zeros(T, B, P)
            ends = []
            for b in range(B):
                n = T if lengths is None else lengths[b]
                state = x.new_zeros(1, step.size)
                for s in range(n):
                    t = n - 1 - s if direction else s
                    state = step(state, x[t, b].unsqueeze(0))
                    if (layer_number, direction) == (number, d):
                        state, y[t, b] = change(t, b, state, state[0, :P])
                    else:
                        y[t, b] = state[0, :P]
                ends.append(state[0])
            outs.append(y)
            finals.append(torch.stack(ends))
        x = torch.cat(outs, -1)
    return x, finals


@pytest.mark.parametrize("lengths", [None, [9, 0, 4]], ids=["full", "ragged"])
@pytest.mark.parametrize("cls, options", [pair for pair in LAYERS if "proj_size" not in pair[1]], ids=named)
def test_an_ablated_unit_is_zero_for_all(cls, options, lengths):
    m = made(cls, options, num_layers=2, bidirectional=True)
    x = torch.randn(9, 3, 3, dtype=torch.float64)

    def change(t, b, state, h):
        state = state.clone()
        state[0, [1, 3]] = 0
        return state, state[0, :6]

    want, finals = by_hand(m, x, change, 0, 1, lengths)
    plain, _ = m(x, lengths=lengths)
    with torch.no_grad(), inspect.record(m) as rec, inspect.ablate(m, [1, 3], layer=0, direction=1):
        y, state = m(x, lengths=lengths)
    close(y, want, "value")
    h_n = state[0] if isinstance(state, tuple) else state
    close(h_n[1], finals[1][:, :6], "value")
    assert (rec[""][0, 1].h[..., [1, 3]] == 0).all() and (rec[""][0, 1].h[..., [0, 2, 4, 5]] != 0).any()
    again, _ = m(x, lengths=lengths)
    assert torch.equal(again, plain)


def test_an_ablated_unit_of_a_projection():
    m = fusegen.nn.LSTM(3, 6, proj_size=2, dtype=torch.float64)
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    with inspect.ablate(m, 4):
        y, _ = m(x)
    with torch.no_grad():
        m.weight_hr_l0[:, 4] = 0
    close(y, m(x)[0], "value")


def test_gradients_of_an_ablated_layer():
    m = fusegen.nn.LSTM(3, 6)
    x = torch.randn(9, 2, 3, requires_grad=True)
    with inspect.ablate(m, range(6)):
        y, _ = m(x)
    (got,) = torch.autograd.grad(y.sum(), x)
    assert (y == 0).all() and (got == 0).all()


@pytest.mark.parametrize("units", [None, [0, 3]], ids=["all", "units"])
@pytest.mark.parametrize("lengths", [None, [9, 0, 4]], ids=["full", "ragged"])
@pytest.mark.parametrize("cls, options", LAYERS, ids=named)
def test_a_patched_state_goes_on_from_there(cls, options, lengths, units):
    if units and "proj_size" in options:
        return
    d = 0 if lengths else 1
    m = made(cls, options, num_layers=2, bidirectional=True)
    x, other = torch.randn(2, 9, 3, 3, dtype=torch.float64)
    for after in (0, 3, 8):
        with torch.no_grad(), inspect.record(m) as source:
            m(other)
        new = source[""][1, d].state(after)
        flat = torch.cat(new, -1) if isinstance(new, tuple) else new
        P = options.get("proj_size", 6)

        def change(t, b, state, h, after=after, flat=flat):
            if t == after:
                mine = torch.ones(len(state[0]), dtype=torch.bool)
                if units:
                    mine = torch.tensor([u % 6 in units for u in range(len(mine))])
                return torch.where(mine, flat[b], state), h
            return state, h

        want, finals = by_hand(m, x, change, 1, d, lengths)
        put = inspect.patch(m, new, after, layer=1, direction=d, units=units)
        with torch.no_grad(), inspect.record(m) as rec, put:
            y, state = m(x, lengths=lengths)
        close(y, want, "value")
        h_n = state[0] if isinstance(state, tuple) else state
        close(h_n[2 + d], finals[2 + d][:, :P], "value")
        close(rec[""][1, d].h, want[..., d * P : (d + 1) * P], "value")


def test_a_patch_counts_steps_over_calls():
    m, x = fusegen.nn.LSTM(3, 6), torch.randn(8, 2, 3)
    with inspect.record(m) as rec:
        m(torch.randn(8, 2, 3))
    new = rec[""].only.state(5)
    with inspect.patch(m, new, 5):
        whole, _ = m(x)
    with inspect.patch(m, new, 5):
        _, state = m(x[:4])
        part, _ = m(x[4:], state)
    close(part, whole[4:].double(), "value")
    cell = fusegen.nn.LSTMCell(3, 6)
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in m.state_dict().items()})
    state = None
    with inspect.patch(cell, new, 5):
        for t in range(8):
            state = cell(x[t], state)
    close(state[0], whole[-1].double(), "value")


def test_gradients_reach_the_state_that_is_put_in():
    m, x = fusegen.nn.GRU(3, 6, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    h = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    with inspect.patch(m, h, 2):
        y, _ = m(x)
    (got,) = torch.autograd.grad(y[3:].sum(), h)
    (want,) = torch.autograd.grad(m(x[3:], h.unsqueeze(0))[0].sum(), h)
    close(got, want, "grad")


def test_changes_of_a_loss():
    m = fusegen.nn.LSTM(3, 6).eval()
    x = torch.randn(5, 2, 3)
    loss = lambda: m(x)[0].square().sum()
    effects = inspect.ablation_effects(m, loss, units=[2, 5])
    for effect, unit in zip(effects, (2, 5), strict=True):
        change = inspect.change_of_loss(loss, inspect.ablate(m, unit))
        with inspect.ablate(m, unit):
            assert change.after == loss().item()
        assert change.before == loss().item() and change.change == change.after - change.before == effect
    both = inspect.change_of_loss(loss, [inspect.ablate(m, 2), inspect.ablate(m, 5)])
    assert both.after == inspect.change_of_loss(loss, inspect.ablate(m, [2, 5])).after


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda m: inspect.ablate(m, [6]), ValueError, r"units 0\.\.5, not 6"),
        (lambda m: inspect.ablate(m, 0, layer=1), ValueError, r"layer in 0\.\.0"),
        (lambda m: inspect.ablate(m, 0, "rnn"), ValueError, "nearest is ''"),
        (lambda m: inspect.patch(m, torch.zeros(2, 6), 1), ValueError, "2 states, got 1"),
        (
            lambda m: inspect.patch(m, (torch.zeros(2, 6), torch.zeros(2, 5)), 1),
            ValueError,
            r"state 1 \[2, 6\]",
        ),
        (lambda m: inspect.patch(m, (torch.zeros(6), torch.zeros(6)), -1), ValueError, "after"),
    ],
)
def test_interventions_of_bad_input(make, error, said):
    m = fusegen.nn.LSTM(3, 6)
    with pytest.raises(error, match=said), make(m):
        m(torch.randn(5, 2, 3))
    assert "_run" not in vars(m)


def test_patches_that_cannot_be():
    m, h = fusegen.nn.GRU(3, 6, bidirectional=True, recurrent_dropout=0.5), torch.zeros(6)
    with inspect.patch(m, h, 2), pytest.raises(RuntimeError, match="no masks"):
        m(torch.randn(5, 2, 3))
    with inspect.patch(m.eval(), h, 2, direction=1), pytest.raises(RuntimeError, match="reverse"):
        m(torch.randn(5, 2, 3), lengths=[5, 3])
    with contextlib.suppress(RuntimeError), inspect.patch(m, h, 2):
        raise RuntimeError
    assert "_run" not in vars(m)
