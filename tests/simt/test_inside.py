"""What happens inside the recurrence of the CUDA kernels, in the emulator, against the float64 reference:
sequences that start anew, by every way of handing on, and dropout and zoneout, by a launch a step."""

import itertools
import math

import cases
import pytest
import torch
from fusegen import _philox
from fusegen.ops.cuda import layers as cuda_layers
from simt_cases import DTYPES, ORDERS
from simt_layers import CELL_NAMES, WAYS, Case

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

WHERE = ("first", "last", "all", "some")
# Units of one block and of several, whole and in part; kernels of both of backward's shapes.
AXES = (
    CELL_NAMES,
    (1, 7, 64, 100, 130),
    (1, 3, 9, 17),
    (1, 2, 4),
    DTYPES,
    (False, True),  # ragged
    WAYS,
    (1, 2),
    WHERE,
    (False, True),  # reset_to
)


def units(way):
    """What one block holds, where one is asked for; else what takes several."""
    return 33 if way == "block" else 130


@pytest.mark.parametrize("cell_name, H, B, T, dtype, ragged, way, D, where, to", list(cases.covering(*AXES)))
def test_resets(cell_name, H, B, T, dtype, ragged, way, D, where, to):
    Case(cell_name, H, B, T, dtype, ragged, D, way=way, resets=where, reset_to=to).check()


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_resets_of_both_directions(cell_name, way, where):
    """Ragged rows, of which some end between boundaries."""
    Case(cell_name, units(way), 9, 4, "float32", True, 2, way=way, resets=where, reset_to=True).check()


@pytest.mark.parametrize("where", ["none", "beyond"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_boundaries_that_are_none(cell_name, way, where):
    """Nowhere, or past lengths alone: the same bits as without, and nothing reaches what states become."""
    case = Case(cell_name, units(way), 9, 3, "bfloat16", True, 2, way=way, resets=where, reset_to=True)
    got, grads = case.run()
    case.inside, into = None, len(case.into)
    plain, plain_grads = case.run()
    assert all(torch.equal(a, b) for a, b in zip(got, plain, strict=True))
    close_to_plain = zip(grads[:-into], plain_grads, strict=True)  # dR is another product of the same numbers
    assert all(torch.allclose(a, b, rtol=0.02, atol=1e-2) for a, b in close_to_plain)
    assert not any(g.any() for g in grads[-into:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("D, P, where", [(1, 5, "some"), (2, 13, "all"), (2, 40, "some")])
def test_resets_with_a_projection(dtype, D, P, where):
    Case("lstm", 41, 9, 4, dtype, D == 2, D, P=P, resets=where, reset_to=True).check()


@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("state", [False, True])
def test_resets_without_biases(cell_name, state):
    Case(cell_name, 33, 5, 4, "float32", bias=False, state=state, resets="some").check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_resets_of_many_slices(cell_name, way):
    """A device so small that a group's blocks take the batch in several slices, and 128 rows' boundaries do
    not hold all."""
    simt.set_device(sms=36)
    Case(cell_name, 130, 150, 2, "bfloat16", True, way=way, resets="some", reset_to=True).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_resets_of_many_slices_of_one_block(cell_name, dtype):
    simt.set_device(sms=4)
    Case(cell_name, 16, 150, 2, dtype, True, 2, resets="some", reset_to=True).check()


def wide(cell_name, H, B, T, D, sms, resets="some", **options):
    """A layer on a device so small that warpgroups multiply 32 or 64 rows of the batch at a time."""
    simt.set_device(sms=sms)
    plan = simt.gpu_plan(
        cell_name, "bfloat16", tf32=False, backward=False, B=B, H=H, P=H, D=D, device=0, transport="l2",
        resets=True,
    )  # fmt: skip
    case = Case(cell_name, H, B, T, "bfloat16", True, D, way="l2", resets=resets, reset_to=True, **options)
    return case, plan


@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize(
    "H, B, T, D, rows, slices", [(136, 33, 3, 2, 32, 2), (136, 150, 2, 2, 64, 3), (264, 65, 2, 1, 32, 3)]
)
def test_resets_of_many_rows_at_a_time(cell_name, H, B, T, D, rows, slices):
    blocks = math.ceil(H / (128 if cell_name.startswith("rnn") else 32))
    case, plan = wide(cell_name, H, B, T, D, sms=D * blocks)
    assert (plan.rows, plan.slices) == (rows, slices)
    case.check()


@pytest.mark.parametrize("B, rows", [(20, 32), (140, 64)])
def test_resets_where_warpgroups_share_rows_of_R(B, rows):
    case, plan = wide("rnn_tanh", 520, B, 2, 1, 9)
    assert (plan.rows, plan.k_splits) == (rows, 2)
    case.check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_resets_in_any_order_give_the_same_bits(cell_name, way):
    case = Case(cell_name, units(way), 3, 3, "bfloat16", True, way=way, resets="some", reset_to=True)
    first = None
    for order in ORDERS:
        simt.set_order(*order)
        got = [*itertools.chain(*case.run())]
        first = first or got
        assert all(torch.equal(a, b) for a, b in zip(got, first, strict=True)), order


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_what_comes_before_a_boundary_does_not_matter(cell_name, way):
    """NaN and infinity stop there, forward and backward."""
    case = Case(cell_name, units(way), 4, 4, "bfloat16", way=way, resets="none", reset_to=True)
    case.inside.resets[2, 1] = True
    want, want_grads = case.run()
    case.x = case.x.clone()
    case.x[0, 1, 0], case.x[1, 1, 2] = torch.nan, torch.inf
    got, grads = case.run()
    assert got[0][1, 1].isnan().any()
    assert torch.equal(got[0][2:], want[0][2:]) and torch.equal(got[1], want[1])
    assert torch.equal(grads[0][2:], want_grads[0][2:])
    into = len(case.into)
    assert all(torch.equal(a, b) for a, b in zip(grads[-into:], want_grads[-into:], strict=True))


def test_plans_know_of_resets():
    """What states become takes shared memory, and a plan for one call is not another's."""
    asked = ("lstm", "bfloat16", False, False, 16, 256, 256, 1, 0, "best")
    plain, resets = simt.gpu_plan(*asked), simt.gpu_plan(*asked, True)
    assert plain.transport == resets.transport and plain.shared_bytes < resets.shared_bytes
    case = Case("lstm", 33, 3, 2, "float32", resets="some")
    engine = case.passes.forward.args[0]
    engine.plan = lambda asked, *inside: simt.gpu_plan(*asked, "best")
    with pytest.raises(ValueError, match=r"plan: expected one of .*with resets"):
        case.forward()


# ---- dropout and zoneout

RATES = {
    "state": (0.4, 0.0, 0.0, 0.0),
    "candidate": (0.0, 0.3, 0.0, 0.0),
    "zoneout": (0.0, 0.0, 0.3, 0.2),
    "h alone": (0.0, 0.0, 0.5, 0.0),
    "c alone": (0.0, 0.0, 0.0, 0.5),
    "all": (0.25, 0.25, 0.2, 0.3),
}
MASKED = (
    ("lstm", "gru", "rnn_tanh", "rnn_relu"),
    (1, 33, 64, 130),
    (1, 5, 40),
    (1, 2, 3),
    DTYPES,
    (False, True),  # ragged
    (1, 2),
    tuple(RATES),
    (None, "some", "all"),
    (True, False),  # training
)


def rates_of(cell_name, rates):
    """c is the LSTM's alone."""
    return RATES[rates] if cell_name == "lstm" else (*RATES[rates][:3], 0.0)


@pytest.mark.parametrize(
    "cell_name, H, B, T, dtype, ragged, D, rates, where, training", list(cases.covering(*MASKED))
)
def test_masks(cell_name, H, B, T, dtype, ragged, D, rates, where, training):
    dtype = "float32" if cell_name == "rnn_relu" else dtype  # rounding may change relu's side of zero
    Case(
        cell_name, H, B, T, dtype, ragged, D, resets=where, reset_to=where is not None,
        rates=rates_of(cell_name, rates), training=training,
    ).check()  # fmt: skip


PROJECTED = (((1, 5, None), (2, 13, "some"), (2, 40, "all")), tuple(RATES), (True, False))


@pytest.mark.parametrize("of, rates, training", list(cases.covering(*PROJECTED)))
def test_masks_with_a_projection(of, rates, training):
    D, P, where = of
    Case(
        "lstm", 41, 9, 3, "float32", D == 2, D, P=P, resets=where, reset_to=where is not None,
        rates=RATES[rates], training=training,
    ).check()  # fmt: skip


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_masks_of_no_states_and_biases(cell_name, state):
    Case(cell_name, 33, 5, 4, "float32", bias=False, state=state, rates=rates_of(cell_name, "all")).check()


@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_calls_with_masks_are_a_launch_a_step(cell_name):
    asked = (cell_name, "bfloat16", False, False, 16, 256, 256, 1, 0, "best")
    plan = simt.gpu_plan(*asked, False, True)
    assert plan.transport == "launch" and "dropout and zoneout" in plan.why
    assert simt.gpu_plan(*asked).transport != "launch"


@pytest.mark.parametrize("mask", range(5))
def test_a_mask_alone(mask):
    key = torch.tensor(-(2**60) - 12345)
    made = torch.empty(7, 129, dtype=torch.uint8)
    simt.gpu_mask(0, key, mask, 3, 0.3, made)
    assert torch.equal(made.bool(), _philox.dropped(key, mask, 3, torch.arange(7), 129, 0.3))


def test_another_key_is_another_mask():
    case = Case("gru", 64, 5, 3, "float32", rates=(0.5, 0.0, 0.0, 0.0))
    first, again = case.forward()[0], case.forward()[0]
    case.inside = case.inside._replace(key=case.inside.key + 1)
    assert torch.equal(first, again) and not torch.equal(first, case.forward()[0])


@pytest.mark.parametrize("rates", [(0.5, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (-0.1, 0.0, 0.0, 0.0)])
def test_bad_rates(rates):
    case = Case("gru", 33, 3, 2, "float32", rates=rates)
    with pytest.raises(ValueError, match="rates: expected"):
        case.forward()


@pytest.mark.parametrize("key", [None, torch.tensor(1.0), torch.tensor([1])])
def test_bad_keys(key):
    case = Case("gru", 33, 3, 2, "float32", rates=RATES["all"])
    case.inside = case.inside._replace(key=key)
    with pytest.raises(ValueError, match="key: expected"):
        case.forward()


def test_masks_are_not_captured(monkeypatch):
    class OnGpu:
        is_cuda, device = True, torch.device("cuda", 0)

    cuda_layers.refuse_capture("lstm", torch.empty(1))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    cuda_layers.refuse_capture("lstm", torch.empty(1))
    with pytest.raises(RuntimeError, match=r"lstm: dropout and zoneout .*cannot be captured.* on cuda:0"):
        cuda_layers.refuse_capture("lstm", OnGpu())
