"""The CUDA kernels, run lane by lane on the CPU by the emulator of tests/simt: every kernel, cell, dtype,
handing on, direction and odd shape, forward and backward, against the float64 reference."""

import contextlib
import functools
import itertools
import math

import cases
import pytest
import torch
from fusegen import _backend, _precision, reference
from fusegen.ops.cuda.engine import patience_in, stream_of
from simt_cases import DTYPES, ORDERS, STUCK
from simt_layers import CELL_NAMES, WAYS, Case
from tolerances import close

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

MILLISECOND = 10**6  # of the emulator's clock, which goes on by 100 us a look


AXES = (
    CELL_NAMES,
    (1, 7, 32, 64, 100, 128, 256),
    (1, 3, 8, 17, 32),
    (1, 2, 3, 7),
    DTYPES,
    (False, True),
    WAYS,
    (1, 2),
)


@pytest.mark.parametrize("cell_name, H, B, T, dtype, ragged, way, D", list(cases.covering(*AXES)))
def test_pairs(cell_name, H, B, T, dtype, ragged, way, D):
    Case(cell_name, H, B, T, dtype, ragged=ragged, D=D, way=way).check()


@functools.cache
def triples():
    return list(cases.covering(*AXES, strength=3))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_triples(part):
    for cell_name, H, B, T, dtype, ragged, way, D in triples()[part::16]:
        Case(cell_name, H, B, T, dtype, ragged=ragged, D=D, way=way).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("D, P, ragged", [(1, 5, False), (2, 13, True), (2, 40, False)])
def test_projection(dtype, D, P, ragged):
    Case("lstm", 41, 9, 4, dtype, ragged=ragged, D=D, P=P).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("H, B, T, D", [(136, 70, 2, 2), (300, 33, 1, 1), (65, 17, 3, 2)])
def test_a_launch_a_step(cell_name, H, B, T, D, dtype):
    """Large tiles, several of them, whose rows of R blocks share: in 16-byte copies (136, 300 of 4 bytes) and
    number by number."""
    Case(cell_name, H, B, T, dtype, ragged=T > 1, D=D, way="launch").check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_projection_of_many_rows(dtype):
    """As above; 16-byte copies of all operands."""
    Case("lstm", 136, 40, 3, dtype, ragged=True, D=2, P=24).check()


def test_blocks_share_long_rows_of_R():
    p = simt.gpu_plan(
        "lstm", "float32", tf32=False, backward=True, B=16, H=768, P=768, D=1, device=0, transport="launch"
    )
    assert (p.transport, p.blocks, p.k_splits) == ("launch", 12, 8)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_no_state_however_it_is_handed_on(cell_name, way):
    """Blocks wait for the first hand-over whether or not there is an h0."""
    Case(cell_name, 130, 5, 3, "float32", state=False, way=way).check()


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_no_bias_no_state(cell_name):
    Case(cell_name, 33, 5, 4, "float32", bias=False, state=False).check()
    if cell_name == "lstm":
        Case(cell_name, 33, 5, 4, "float32", bias=False, state=False, P=9).check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_many_slices(cell_name, way):
    """A device so small that a group's blocks take the batch in several slices."""
    simt.set_device(sms=36)
    Case(cell_name, 130, 150, 3, "bfloat16", ragged=True, way=way).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_many_slices_of_one_block(cell_name, dtype):
    """Both passes in blocks that need no other one, each with several slices in both sizes of a slice."""
    simt.set_device(sms=4)
    name, tf32 = ("float32", True) if dtype == "tf32" else (dtype, False)
    for backward in (False, True):
        plan = simt.gpu_plan(
            cell_name, name, tf32=tf32, backward=backward, B=150, H=16, P=16, D=2, device=0,
            transport="best",
        )  # fmt: skip
        assert plan.transport == "block" and plan.slices > 1
    Case(cell_name, 16, 150, 4, dtype, ragged=True, D=2).check()


def wide_case(cell_name, dtype, H, B, T, D, sms, **options):
    """A layer on a device so small that warpgroups multiply 32 or 64 rows of the batch at a time."""
    simt.set_device(sms=sms)
    plan = simt.gpu_plan(
        cell_name, dtype, tf32=False, backward=False, B=B, H=H, P=H, D=D, device=0, transport="l2"
    )
    assert plan.transport == "l2" and plan.rows >= 32
    return Case(cell_name, H, B, T, dtype, ragged=True, D=D, way="l2", **options), plan


WIDE = [  # H, B, T, D, rows of a slice, slices: a part of the last block's units, of a stage, of a slice
    (136, 30, 4, 1, 32, 1),
    (136, 33, 3, 2, 32, 2),
    (136, 150, 3, 2, 64, 3),
    (264, 65, 2, 1, 32, 3),
]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("H, B, T, D, rows, slices", WIDE)
def test_many_rows_at_a_time(cell_name, dtype, H, B, T, D, rows, slices):
    blocks = math.ceil(H / (128 if cell_name.startswith("rnn") else 32))
    case, plan = wide_case(cell_name, dtype, H, B, T, D, sms=D * blocks)
    assert (plan.rows, plan.slices, plan.k_splits) == (rows, slices, 1)
    case.check()


@pytest.mark.parametrize("B, rows", [(20, 32), (140, 64)])
@pytest.mark.parametrize(
    "cell_name, H, sms", [("rnn_tanh", 520, 9), pytest.param("lstm", 520, 33, marks=pytest.mark.slow)]
)
def test_warpgroups_that_share_rows_of_R(cell_name, H, sms, B, rows):
    case, plan = wide_case(cell_name, "bfloat16", H, B, 2, 1, sms)
    assert (plan.rows, plan.k_splits) == (rows, 2)
    case.check()


@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_many_rows_of_which_some_go_wrong(cell_name):
    """A late start is no hang; NaN and infinity stay where they come in; a length out of range makes its own
    sequence NaN; a block that never hears of the others leaves."""
    sms = 2 if cell_name == "rnn_tanh" else 5
    case, _ = wide_case(cell_name, "bfloat16", 136, 40, 3, 1, sms, patience=20 * MILLISECOND)
    simt.start_late(2, 2000)
    case.check()
    simt.start_late(0, 0)
    want = case.forward()[0]
    case.x = case.x.clone()
    case.x[0, 3, 0], case.x[1, 7, 0] = torch.nan, torch.inf
    case.lengths = case.lengths.clone()
    case.lengths[5] = 4
    got = case.forward()[0]
    keep = [b for b in range(40) if b not in (3, 5, 7)]
    assert got[:, 5].isnan().all() and torch.equal(got[:, keep], want[:, keep])
    with pytest.raises(ValueError, match=r"outside 0\.\.T, of row 5"):
        case.forward()
    case.lengths[5] = 3
    simt.hang_at(1)
    y, h_n, *_ = case.forward(train=False)
    assert y.isnan().any() and h_n.isnan().any()
    simt.hang_at(0)
    with pytest.raises(RuntimeError, match=r"had waited in vain for block \d at turn"):
        case.forward()


@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_many_rows_in_any_order(cell_name):
    case, _ = wide_case(cell_name, "bfloat16", 72, 70, 3, 1, 3 if cell_name != "rnn_tanh" else 1)
    first = None
    for order in ORDERS:
        simt.set_order(*order)
        got = case.forward()[: 3 if cell_name == "lstm" else 2]  # what is saved is not whole past an end
        first = first or got
        assert all(torch.equal(a, b) for a, b in zip(got, first, strict=True)), order


@pytest.mark.parametrize(
    "way, blocks", [("l2", n) for n in range(1, 17)] + [("cluster", n) for n in (2, 4, 8, 16)]
)
def test_group_sizes(way, blocks):
    """Groups of 1 to 16 blocks that hand each other every step."""

    def smallest(cell_name, dtype):
        """The first H whose group has so many blocks."""
        name, tf32 = ("float32", True) if dtype == "tf32" else (dtype, False)
        for H in range(1, 1100, 7):
            plan = simt.gpu_plan(
                cell_name, name, tf32=tf32, backward=False, B=3, H=H, P=H, D=1, device=0, transport=way
            )
            if plan.transport == way and plan.blocks == blocks:
                return H
        return None

    cells = list(itertools.product(DTYPES, CELL_NAMES))
    found = (
        (smallest(cell_name, dtype), cell_name, dtype) for dtype, cell_name in cells[blocks:] + cells[:blocks]
    )
    H, cell_name, dtype = next(f for f in found if f[0])
    Case(cell_name, H, 3, 2, dtype, ragged=True, way=way).check()


SHARES = [  # cell, dtypes, H, the best way, blocks: each shape of a block's share of R, beyond test_pairs'
    *((cell, ("bfloat16", "float16"), 300, "cluster", 16) for cell in ("lstm", "gru")),
    *((cell, ("float32", "tf32"), 300, "l2", 19) for cell in ("lstm", "gru")),
    ("rnn_tanh", ("bfloat16", "float16"), 600, "cluster", 16),
    ("rnn_tanh", ("float32", "tf32"), 600, "l2", 19),
]
LARGEST = [
    *((cell, ("bfloat16", "float16"), 520, "l2", 33) for cell in ("lstm", "gru")),
    *((cell, ("float32", "tf32"), 520, "l2", 65) for cell in ("lstm", "gru")),
    ("rnn_tanh", ("bfloat16", "float16"), 1040, "l2", 33),
    ("rnn_tanh", ("float32", "tf32"), 1040, "l2", 65),
]


@pytest.mark.parametrize(
    ("cell_name", "dtype", "H", "way", "blocks"),
    [
        pytest.param(cell, dtype, H, way, blocks, marks=[pytest.mark.slow] * (shares is LARGEST))
        for shares in (SHARES, LARGEST)
        for cell, dtypes, H, way, blocks in shares
        for dtype in dtypes
    ],
)
def test_shares_of_R_in_backward(cell_name, dtype, H, way, blocks):
    """A block's units are 8 to 64 here, sent from one tile for two owners to eight tiles for two."""
    name, tf32 = ("float32", True) if dtype == "tf32" else (dtype, False)
    plan = simt.gpu_plan(
        cell_name, name, tf32=tf32, backward=True, B=3, H=H, P=H, D=1, device=0, transport="best"
    )
    assert (plan.transport, plan.blocks) == (way, blocks)
    Case(cell_name, H, 3, 2, dtype, ragged=True).check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_any_order_gives_the_same_bits(cell_name, way):
    case = Case(cell_name, 130, 9, 3, "bfloat16", ragged=True, D=2, way=way)
    first = None
    for order in ORDERS:
        simt.set_order(*order)
        got = [*itertools.chain(*case.run())]
        first = first or got
        assert all(torch.equal(a, b) for a, b in zip(got, first, strict=True)), order


@pytest.mark.parametrize("way, H, D", [("l2", 130, 1), ("cluster", 130, 2)])
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_a_hang_is_ended(cell_name, way, H, D):
    """The watchdog: a block that never hears of the others leaves, outputs are NaN, the next call raises,
    the one after works."""
    case = Case(cell_name, H, 3, 3, "float16", D=D, way=way, patience=200 * MILLISECOND)
    simt.hang_at(1)
    y, h_n, *_ = case.forward(train=False)
    assert y.isnan().any() and h_n.isnan().any()
    simt.hang_at(0)
    awaited = r"block \d+" if way == "l2" else "the other blocks of its cluster"
    told = rf"block \d of group 0, direction \d, had waited in vain for {awaited} at turn 2\b"
    with pytest.raises(RuntimeError, match=told):
        case.run()
    case.check()


@pytest.mark.parametrize("way", ["l2", "cluster"])
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_a_late_start_is_no_hang(cell_name, way):
    """Until all blocks of a group have met, their waits have no limit: a busy GPU starts them when it can."""
    case = Case(cell_name, 130, 3, 4, "bfloat16", way=way, patience=20 * MILLISECOND)
    simt.start_late(2, 2000)  # 200 ms
    case.check()


@pytest.mark.parametrize("way", ["l2", "cluster"])
def test_patience_without_end(way):
    """0: sanitizers and debuggers make any wait long. The emulator ends the hang instead."""
    case = Case("lstm", 130, 3, 4, "bfloat16", way=way, patience=0)
    simt.hang_at(1)
    with pytest.raises(RuntimeError, match=STUCK):
        case.forward(train=False)


@pytest.mark.parametrize(
    "given, nanoseconds",
    [({}, 10**10), ({"FUSEGEN_PATIENCE": "0"}, 0), ({"FUSEGEN_PATIENCE": "0.5"}, 5 * 10**8)],
)
def test_patience_of_the_environment(given, nanoseconds):
    assert patience_in(given) == nanoseconds


@pytest.mark.parametrize("given", ["long", "-1", "nan", "inf"])
def test_patience_that_is_no_number_of_seconds(given):
    with pytest.raises(ValueError, match="FUSEGEN_PATIENCE: expected seconds"):
        patience_in({"FUSEGEN_PATIENCE": given})


@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_clusters_in_code_that_has_none(cell_name):
    """Code from before sm_90 that is launched in clusters all the same is never silently wrong."""
    case = Case(cell_name, 130, 3, 3, "bfloat16", way="cluster")
    simt.set_old_code(True)
    y, h_n, *_ = case.forward(train=False)
    assert y.isnan().all() and h_n.isnan().all()
    with pytest.raises(RuntimeError, match="planned in clusters"):
        case.run()


@pytest.mark.parametrize("way, free", [("l2", 1), ("cluster", 1)])
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_blocks_that_do_not_fit_at_once(cell_name, way, free):
    """A device that others use too: a launch a step runs, the results are right, and the fallback is told."""
    simt.set_device(major=8 if way == "l2" else 9)
    case = Case(cell_name, 130, 5, 3, "float32")
    plan = simt.gpu_plan(
        cell_name, "float32", tf32=False, backward=False, B=5, H=130, P=130, D=1, device=0, transport="best"
    )
    assert plan.transport == way
    case.check()
    told = f"{case.spec.name} on GPU: {way} does not fit on this device, launch ran"
    before = _backend.fallbacks[told]
    simt.leave_free(free)
    case.check()
    assert _backend.fallbacks[told] == before + 2


@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_a_cluster_that_does_not_fit_goes_through_l2(cell_name):
    """The driver finds no room for one (MIG): its blocks are resident all the same, and R stays there."""
    case = Case(cell_name, 130, 5, 3, "bfloat16", way="cluster")
    case.check()
    told = f"{case.spec.name} on GPU: cluster does not fit on this device, l2 ran"
    before = _backend.fallbacks[told]
    simt.let_clusters_fit(False)
    case.check()
    assert _backend.fallbacks[told] == before + 2


def test_clusters_need_not_all_fit_at_once():
    """They do not wait for each other."""
    case = Case("lstm", 130, 70, 2, "bfloat16", way="cluster")
    p = simt.gpu_plan(
        "lstm", "bfloat16", tf32=False, backward=False, B=70, H=130, P=130, D=1, device=0, transport="cluster"
    )
    assert p.transport == "cluster" and p.groups > 1
    simt.leave_free(p.blocks)
    before = sum(_backend.fallbacks.values())
    case.check()
    assert sum(_backend.fallbacks.values()) == before


@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_autocast_around_backward_changes_nothing(cell_name):
    case = Case(cell_name, 33, 5, 4, "float32")
    want = case.run()
    with torch.autocast("cpu", torch.bfloat16):
        with torch.autocast("cpu", enabled=False):
            y, _, _, gates, kept = case.forward()
        got = case.backward((y, gates, kept), case.grads)
    assert all(torch.equal(a, b) for a, b in zip(got, want[1], strict=True))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("bad", [-1, 5, 2**40, -(2**60)])
def test_a_bad_length_is_told(cell_name, bad):
    """Lengths on a GPU are not read back: that sequence's results are NaN, and the next call raises."""
    case = Case(cell_name, 19, 4, 4, "float32", ragged=True)
    want, _ = case.run()
    case.lengths = case.lengths.clone()
    case.lengths[2] = bad
    got = case.forward()
    for a, b, rows in zip(got, want, (1, 1, 1), strict=False):
        assert a.select(rows, 2).isnan().all()
        keep = [0, 1, 3]
        assert torch.equal(a.index_select(rows, torch.tensor(keep)), b.index_select(rows, torch.tensor(keep)))
    with pytest.raises(ValueError, match=r"outside 0\.\.T"):
        case.run()


@pytest.mark.parametrize("cell_name", CELL_NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_nan_and_inf_travel(cell_name, way):
    """They reach their own sequence alone, and nothing hangs."""
    case = Case(cell_name, 130, 5, 4, "bfloat16", way=way)
    want, _ = case.run()
    case.x = case.x.clone()
    case.x[1, 2, 0], case.x[2, 4, 0] = torch.nan, torch.inf
    got, _ = case.run()
    assert got[0][1:, 2].isnan().any() and torch.equal(got[0][:1, 2], want[0][:1, 2])
    assert torch.equal(got[0][:, [0, 1, 3]], want[0][:, [0, 1, 3]])


@pytest.mark.parametrize("way", WAYS)
def test_relu_passes_gradients_at_nan(way):
    """As torch does: a NaN that a last step gave leaves the gradients by x finite, and right."""
    case = Case("rnn_relu", 33, 5, 3, "float32", way=way)
    case.x = case.x.clone()
    case.x[2, 1, 0] = torch.nan
    (y, _), grads = case.run()
    inputs = cases.oracle_of(case.x, *case.starts, *case.weights)
    want = reference.rnn(inputs[0], inputs[1], list(inputs[2:]), None, True)
    wanted = torch.autograd.grad(want, inputs[:2], [g.double() for g in case.grads])
    assert y[2, 1].isnan().all() and wanted[0].isfinite().all()
    close(grads[:2], list(wanted), "grad on tensor cores")


@pytest.mark.parametrize(
    "sms, shared_kib, major",
    [(108, 163, 8), (84, 99, 8), (142, 99, 8), (132, 227, 9), (148, 227, 10), (170, 99, 12)],
)
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_choice_fits_the_device(cell_name, sms, shared_kib, major):
    """Plans on sm_80, 86, 89, 90, 100, 120: shared memory, resident blocks, clusters, the whole batch."""
    simt.set_device(sms, shared_kib * 1024, major)
    largest = 1 if major < 9 else 8 if major == 12 else 16
    ways = set()
    for dtype, tf32 in (("bfloat16", False), ("float32", False), ("float32", True)):
        for H, B, D in itertools.product(
            (1, 64, 100, 128, 256, 512, 777, 1024, 2048, 5000), (1, 16, 64, 256, 3000), (1, 2)
        ):
            for backward in (False, True):
                p = simt.gpu_plan(
                    cell_name,
                    dtype,
                    tf32=tf32,
                    backward=backward,
                    B=B,
                    H=H,
                    P=H,
                    D=D,
                    device=0,
                    transport="best",
                )
                ways.add(p.transport)
                assert p.shared_bytes <= shared_kib * 1024
                assert p.groups * p.slices * p.rows >= B
                assert (p.groups - 1) * p.slices * p.rows < B
                if p.transport in ("l2", "cluster"):
                    assert p.blocks * p.groups * D <= sms
                if p.transport == "cluster":
                    assert p.blocks <= largest and p.blocks & (p.blocks - 1) == 0
                if p.transport == "block":
                    assert p.blocks == 1
    assert ways == {"launch", "block", "l2"} | ({"cluster"} if major >= 9 else set())


def test_tf32_follows_the_switch_of_torch(monkeypatch):
    monkeypatch.undo()
    for allowed in (True, False):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=allowed):
            assert _precision.recurrence_in_tf32(torch.float32) == allowed
            assert not _precision.recurrence_in_tf32(torch.bfloat16)


@pytest.mark.parametrize(
    ("cell_name", "dtype"),
    # relu's side of zero is open to 16-bit rounding; test_pairs compares given the side
    [*((k, torch.float32) for k in cases.CELL_NAMES), *((k, torch.bfloat16) for k in cases.CELL_NAMES[:3])],
    ids=str,
)
def test_layers(cell_name, dtype, layers_on_gpu):
    """Whole modules through autograd, with every option of the constructor."""
    for options in cases.options_of(cell_name):
        mine, oracle = cases.pair(cases.layer, cell_name, 7, 33, dtype, **options)
        x = (
            (torch.randn(5, 9, 7) if options.get("batch_first") else torch.randn(9, 5, 7))
            .to(dtype)
            .requires_grad_()
        )
        hx = cases.hidden(cell_name, mine, 5, dtype)
        x64, hx64 = cases.oracle_of(x, hx)
        got, want = cases.flat(mine(x, hx)), cases.flat(oracle(x64, hx64))
        close(got, want, "value on tensor cores", cases.label(options))
        w = [torch.randn_like(o) for o in want]
        close(
            cases.grads(got, (x, *mine.parameters()), w),
            cases.grads(want, (x64, *oracle.parameters()), w),
            "grad on tensor cores",
            cases.label(options),
        )


@pytest.mark.parametrize("name", ["lstmm", "rnn", "", None, 1])
def test_a_wrong_name_of_a_cell_or_dtype(name):
    with pytest.raises(ValueError, match=rf"cell: expected 'lstm', .* or 'rnn_relu', got {name!r}"):
        simt.gpu_cell_plan(name, "float32", tf32=False, B=3, I=7, H=9, device=0)
    with pytest.raises(ValueError, match=rf"dtype: expected 'float32', .* or 'float64', got {name!r}"):
        simt.gpu_plan(
            "lstm", name, tf32=False, backward=False, B=3, H=9, P=9, D=1, device=0, transport="best"
        )
    with pytest.raises(ValueError, match="transport: expected"):
        simt.gpu_plan(
            "lstm", "float32", tf32=False, backward=False, B=3, H=9, P=9, D=1, device=0, transport="magic"
        )


@pytest.mark.parametrize(
    "change, error",
    [
        ({"h0": torch.zeros(1, 3, 8)}, "h0: expected a contiguous tensor of shape"),
        ({"h0": torch.zeros(1, 3, 9, dtype=torch.float64)}, "h0: expected the dtype"),
        ({"R": [torch.zeros(36, 8)]}, "W_hr: expected a projection"),
        ({"workspace": torch.empty(1, dtype=torch.uint8)}, "workspace: expected"),
        ({"lengths": torch.ones(4, dtype=torch.int64)}, "lengths: expected"),
        ({"gx": torch.zeros(2, 3, 36, dtype=torch.float64)}, "gx: expected float32, bfloat16 or float16"),
        (
            {"plan": ("lstm", "float32", False, False, 4, 9, 9, 1, 0, "best")},
            "plan: expected one of",
        ),
        (
            {"plan": ("lstm", "float32", False, True, 3, 9, 9, 1, 0, "best")},
            "got one of backward",
        ),
        (
            {"plan": ("lstm", "float16", False, False, 3, 9, 9, 1, 0, "best")},
            "plan: expected one of",
        ),
    ],
)
def test_bad_arguments(change, error):
    z = torch.zeros
    arguments = {
        "plan": None, "stream": 0, "patience": 10**9,
        "gx": z(2, 3, 36), "R": [z(36, 9)], "W_hr": [], "b_hn": [],
        "h0": None, "c0": None, "lengths": None, "y": z(2, 3, 9),
        "h_n": z(1, 3, 9), "c_n": z(1, 3, 9), "gates": None, "cells": None,
        "workspace": torch.empty(1 << 20, dtype=torch.uint8), "error": torch.zeros(1, dtype=torch.int64),
    }  # fmt: skip
    for more, told in (({}, None), (change, error)):
        given = arguments | more
        P = given["R"][0].shape[1]
        asked = given["plan"] or ("lstm", "float32", False, False, 3, 9, P, 1, 0, "best")
        given["plan"] = simt.gpu_plan(*asked)
        with pytest.raises(ValueError, match=told) if told else contextlib.nullcontext():
            simt.gpu_forward(*given.values())


def test_the_engine_is_given_the_current_stream(monkeypatch):
    """What no CPU tensor goes through: the handle of torch's stream."""

    class OnGpu:
        is_cuda, device = True, torch.device("cuda", 1)

    class Stream:
        cuda_stream = 1234

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream if device.index == 1 else None)
    assert stream_of(OnGpu()) == 1234
    assert stream_of(torch.empty(1)) == 0
