"""The discriminator step by warpgroups whose operands come by bulk copies: edges, penalties, layouts, and
what lanes copy instead, which the run says."""

import pytest
import torch
from fusegen import _backend
from fusegen.ops.cuda import discriminator
from simt_cases import ORDERS
from simt_steps import PENALTIES, Case

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

pytestmark = pytest.mark.usefixtures("step_on_gpu")


@pytest.fixture
def runs(monkeypatch):
    """How the passes ran, one after another."""
    runs = []
    note = discriminator._note
    monkeypatch.setattr(discriminator, "_note", lambda run: (runs.append(run), note(run)))
    simt.set_device(sms=1)
    return runs


def wide(rows, columns, dtype, offset=0, stride=None):
    """Random samples whose rows begin `offset` numbers behind 16 bytes, `stride` numbers apart."""
    stride = stride or columns
    memory = torch.randn(rows * stride + offset + 8).to(dtype)
    start = -memory.data_ptr() % 16 // 2 + offset
    return memory.as_strided((rows, columns), (stride, 1), start)


def told(runs):
    """(products, by bulk copies, torn tiles) of each pass."""
    assert all(r.tile == "warpgroups" and r.together for r in runs)
    return [(r.products, r.bulk, r.torn_tiles) for r in runs]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_edges(runs, penalty, dtype):
    """Widths that are multiples of 8 and neither of 64 nor of 128, rows that end in the first box of a tile
    and in the second; all by bulk copies."""
    for sizes, batches in (((136, 72, 136, 1), (64, 64)), ((72, 136, 8, 1), (66, 68))):
        del runs[:]
        Case(sizes, batches, dtype, "least_squares", penalty).check()
        assert all(products == bulk and products >= 2 for products, bulk, _ in told(runs))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "penalty, batches, torn",
    [
        ("none", (64, 64), (0, 0)),
        ("none", (65, 65), (1, 0)),  # real and fake samples in one box
        ("none", (1, 63), (1, 0)),
        ("gp", (64, 64), (0, 0)),
        ("gp", (40, 40), (1, 0)),
        ("r1 and gp", (64, 64), (0, 0)),
        # samples, and v of real and mixed rows, of two tiles; the tangents there, of one and two
        ("r1 and gp", (40, 40), (3, 3)),
    ],
)
def test_torn_boxes(runs, penalty, batches, torn):
    """64 rows that do not lie on end are copied by lanes, tile by tile."""
    Case((136, 72, 200, 1), batches, "bfloat16", "hinge", penalty, wanted="weights").check()
    assert tuple(t for *_, t in told(runs)) == torn


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_generator(runs, loss):
    """Fake samples alone, or behind real ones."""
    Case((136, 72, 200, 1), (64, 64), "bfloat16", loss, "none", generator=True).check()
    assert told(runs[:1]) == [(4, 4, 0)]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "offset, stride, bulk",
    [
        (0, 136, True),
        (0, 144, True),  # rows padded
        (8, 152, True),
        (1, 144, False),
        (4, 144, False),
        (0, 140, False),
        (0, 137, False),
    ],
)
def test_samples_in_any_layout(runs, offset, stride, bulk):
    """Rows that begin on 16 bytes come by bulk copies; of others the layer is the lanes', which is told and
    counted. Its tangents are not: they read what lies padded."""
    case = Case((136, 72, 200, 1), (64, 64), "bfloat16", "hinge", "r1")
    case.real = wide(64, 136, torch.bfloat16, offset, stride)
    case.run = run_as_they_lie(case)
    before = _backend.fallbacks.total()
    case.check()
    forward, backward = told(runs)
    assert forward[0] - forward[1] == (0 if bulk else 1) and backward[0] == backward[1]
    assert _backend.fallbacks.total() == before + (0 if bulk else 1)


def run_as_they_lie(case):
    """Case.run, which clones: with samples as they lie in memory."""
    real = case.real

    class Kept:
        def clone(self):
            return real.detach()

    def run():
        case.real = Kept()
        try:
            return Case.run(case)
        finally:
            case.real = real

    return run


@pytest.mark.usefixtures("poisoned")
def test_a_single_row_of_any_stride(runs):
    case = Case((136, 8, 1), (1, 129), "bfloat16", "hinge", "r1")
    case.real = torch.randn(400).bfloat16().as_strided((1, 136), (3, 1), 0)
    case.run = run_as_they_lie(case)
    case.check()
    assert all(products == bulk for products, bulk, _ in told(runs))


@pytest.mark.usefixtures("poisoned")
def test_weights_that_do_not_begin_on_16_bytes(runs):
    """Lanes copy for the layer, adjoints and tangents of the second weight, [200, 70]."""
    Case((136, 70, 200, 1), (64, 64), "bfloat16", "hinge", "r1").check()
    forward, backward = told(runs)
    assert forward == (4, 2, 0) and backward == (4, 3, 0)


@pytest.mark.usefixtures("poisoned")
def test_a_deep_network(runs):
    """More jobs than a launch has: its maps are those of its own jobs."""
    before = simt.launches()
    Case((72,) * 12 + (1,), (64, 64), "bfloat16", "hinge", "r1", wanted="weights").check()
    assert simt.launches() - before > 2
    assert all(products == bulk for products, bulk, _ in told(runs))


@pytest.mark.parametrize("penalty", ["none", "r1 and gp"])
def test_a_launch_a_phase(runs, penalty):
    """To the same bits as one launch."""
    simt.set_device(sms=2)
    case = Case((136, 72, 200, 1), (64, 64), "bfloat16", "hinge", penalty)
    want = case.run()
    assert told(runs)
    simt.leave_free(1)
    got = case.run()
    # backward without a penalty is one phase
    assert [r.together for r in runs[2:]] == [False, penalty == "none"]
    for a, b in zip((*got[:3], *got[3]), (*want[:3], *want[3]), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_any_order_gives_the_same_bits(runs, order):
    """Copies land late and in any order, products end as late as they may."""
    simt.set_device(sms=2)
    case = Case((456, 72, 1), (64, 64), "bfloat16", "hinge", "r1", "weights")
    want = case.run()
    simt.set_order(*order)
    got = case.run()
    assert all(products == bulk for products, bulk, _ in told(runs))
    for a, b in zip((*got[:3], *got[3]), (*want[:3], *want[3]), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_shared_memory_for_the_barriers_too():
    """A GPU that has room for the ring alone takes another tile."""
    products = [(4096, 4096, 4096, 0)]
    for shared_bytes, tile in ((192 * 1024 + 64, "warpgroups"), (192 * 1024 + 63, "large")):
        simt.set_device(sms=132, shared_bytes=shared_bytes)
        assert simt.mlp_tile(132, 9, "bfloat16", products) == tile
