"""Plans of every GPU generation: within what the device has, what its code knows and what the build holds."""

import itertools
import re
from pathlib import Path

import pytest
from fusegen import _info

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

CELL_NAMES = ("lstm", "gru", "rnn_tanh")
FORMATS = ("bfloat16", "float16", "float32", "tf32")
# one that is not known today, beside those of the table
GPUS = _info.GPUS | {"sm_130": ("of the future", 240, 227)}
SIZES = ((33, 1), (128, 16), (256, 256), (512, 64), (1024, 16), (1024, 300), (2048, 8), (4096, 1024))


def plan(gpu, cell_name, dtype, backward, H, B, D=1, transport="best", code=None):
    _, sms, shared_kib = GPUS[gpu]
    capability = int(gpu[3:])
    code = _info.code_for(capability, _info.ALL_ARCHS)[1] if code is None else code
    name = "float32" if dtype == "tf32" else dtype
    return simt.gpu_plan_on(
        sms, shared_kib * 1024, capability // 10, code, cell_name, name, dtype == "tf32", backward, B, H, H,
        D, transport,
    )  # fmt: skip


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_plans_keep_within_the_device(cell_name, dtype, gpu):
    _, sms, shared_kib = GPUS[gpu]
    ptx = _info.code_for(int(gpu[3:]), _info.ALL_ARCHS)[1]
    largest = 1 if ptx < 90 else 16 if int(gpu[3:]) < 120 else 8
    for (H, B), backward, D in itertools.product(SIZES, (False, True), (1, 2)):
        p = plan(gpu, cell_name, dtype, backward, H, B, D)
        about = (H, B, backward, D, p.transport)
        assert p.shared_bytes <= shared_kib * 1024, about
        assert p.workspace_bytes > 0, about
        assert p.groups * p.slices * p.rows >= B, about
        wide = gpu == "sm_90" and dtype in FORMATS[:2] and not backward and p.transport == "l2"
        assert p.rows in (
            (16, 32, 64) if p.transport == "launch" else (8, 16, 32, 64) if wide else (8, 16)
        ), about
        if p.transport == "cluster":
            assert 2 <= p.blocks <= largest and p.blocks.bit_count() == 1, about
        if p.transport == "l2":  # all of them wait for each other
            assert p.blocks * p.groups * D <= sms, about
        assert (p.transport == "block") <= (p.blocks == 1), about


@pytest.mark.parametrize("H, B, rows", [
    (1024, 16, 8), (1024, 40, 32), (1024, 256, 32), (1024, 300, 64), (512, 128, 32), (512, 64, 16),
    (64, 3000, 16), (1032, 300, 16), (1020, 256, 16),
])  # fmt: skip
def test_warpgroups_multiply_many_rows(H, B, rows):
    """Machine code of 9.0 alone has their products, of 16-bit numbers, whose rows must begin on 16 bytes."""
    p = plan("sm_90", "lstm", "bfloat16", False, H, B)
    assert p.rows == rows
    assert ("warpgroups" in p.why) == (rows in (32, 64))
    for gpu, dtype, backward in (
        ("sm_90", "float32", False),
        ("sm_90", "bfloat16", True),
        ("sm_100", "bfloat16", False),
    ):
        p = plan(gpu, "lstm", dtype, backward, H, B)
        assert p.transport == "launch" or p.rows <= 16


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("backward", [False, True])
def test_no_clusters_in_code_of_before_them(gpu, backward):
    """What the driver makes of PTX of compute_80 has no clusters, on whatever GPU: h would stay 0."""
    for cell_name, dtype, transport in itertools.product(CELL_NAMES, FORMATS, ("best", "cluster")):
        p = plan(gpu, cell_name, dtype, backward, 256, 16, transport=transport, code=80)
        assert p.transport != "cluster", (cell_name, dtype)


def test_a_device_whose_loaded_code_is_old():
    simt.set_device(major=11, code=80)
    asked = ("lstm", "bfloat16", False, False, 16, 256, 256, 1, 0)
    assert simt.gpu_plan(*asked, "best").transport == "l2" and simt.gpu_code(0) == (110, 80)
    simt.set_device(major=11, code=90)
    assert simt.gpu_plan(*asked, "best").transport == "cluster" and simt.gpu_code(0) == (110, 90)


@pytest.mark.parametrize("gpu, loaded", [
    ("sm_80", (80, 80)), ("sm_86", (80, 80)), ("sm_89", (80, 80)), ("sm_90", (90, 90)),
    ("sm_100", (100, 90)),
    ("sm_103", (100, 90)), ("sm_110", (110, 90)), ("sm_120", (120, 90)), ("sm_121", (120, 90)),
    ("sm_130", (130, 90)),
])  # fmt: skip
def test_code_of_a_build_for_every_gpu(gpu, loaded):
    assert _info.code_for(int(gpu[3:]), _info.ALL_ARCHS) == loaded


def test_code_of_other_builds():
    assert _info.code_for(100, ["90a-real"]) == (0, 0)  # nothing of it runs there
    assert _info.code_for(91, ["80", "90a-real"]) == (91, 80)
    assert _info.code_for(75, _info.ALL_ARCHS) == (0, 0)
    assert _info.code_for(100, ["100-real"]) == (100, 100)
    assert _info.told_code(*_info.code_for(103, _info.ALL_ARCHS)) == "machine code of sm_100"
    assert _info.told_code(*_info.code_for(110, ["80"])) == (
        "PTX of compute_80, which the driver compiles for sm_110"
    )


def test_the_build_for_every_gpu_is_cmakes():
    text = (Path(__file__).parents[2] / "cmake" / "cuda.cmake").read_text()
    found = re.search(r"set\(FUSEGEN_CUDA_ALL_ARCHS ([^)]*)\)", text)
    assert found and tuple(found[1].split()) == _info.ALL_ARCHS
