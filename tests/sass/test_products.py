"""tools/check_products.py: every rule is seen to be broken and to be kept."""

import check_products
import pytest

COPY, PRODUCT = "UTMALDG.2D [UR8], [UR4]", "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24"


def loop(name, *code):
    return "\n".join((f"{name}:", *code, PRODUCT, f"@P0 BRA -> {name}"))


def kernel(boxes="", lanes="", more=""):
    """The loops that a kernel has, with something more in the first of boxes and the first of lanes."""
    return "\n".join((
        "unit:", "BAR.SYNC.DEFER_BLOCKING 0x0",
        loop("layer", COPY, boxes), loop("adjoint", COPY), loop("gradient", COPY, "STS.128 [R2], R40"),
        loop("layer_by_lanes", "LDGSTS.E.BYPASS.128 [R2], desc[UR8][R4.64]", lanes), loop("adjoint_by_lanes"),
        more, "@P1 BRA -> unit", "EXIT",
    ))  # fmt: skip


BROKEN = {
    "boxes: CALL": kernel("CALL.REL.NOINC -> unit"),
    "lanes: integer division": kernel(lanes="I2F.RP R5, R6"),
    "lanes: local memory": kernel(lanes="STL [R1], R4"),
    "boxes: generic load or store": kernel("LD.E.128 R40, desc[UR8][R2.64]"),
    "boxes: copy by lanes": kernel("LDGSTS.E.BYPASS.128 [R2], desc[UR8][R4.64]"),
    "boxes: load or store of numbers": kernel("LDG.E.U16 R20, desc[UR8][R2.64]"),
    "boxes: emptied L1": kernel("@P0 CCTL.IVALL"),
    "boxes: fence": kernel("FENCE.VIEW.ASYNC.S"),
    "boxes: instructions": kernel("IADD3 R1, R2, R3, RZ\n" * 134),
    "lanes: instructions": kernel(lanes="IADD3 R1, R2, R3, RZ\n" * 320),
    "boxes: loops": kernel(more=loop("third", COPY)),
    "lanes: loops": kernel(more=loop("third")),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_is_broken(function, rule):
    found, _, _ = check_products.broken(function(BROKEN[rule]))
    assert len(found) == 1 and found[0].startswith(rule + ": ")


def test_what_stands_elsewhere_breaks_none(function):
    found, kinds, lines = check_products.broken(
        function(kernel(more="CALL.REL.NOINC -> unit\n STL [R1], R4"))
    )
    assert found == [] and kinds == {"boxes": 2, "boxes and lanes": 1, "lanes": 2} and len(lines) == 5


def test_the_kernels_of_warpgroup_tiles_are_told():
    name = "11step_kernelINS_6device4Bf16ENS2_10FormatBf16ENS0_4TileINS0_8TileSizeILi128ELi128EEE"
    for plain in "10":
        found = check_products.KERNEL.search(name + f"Li2ELi8ELi1ELi1ELb1EEELb{plain}EEEvNS0_4BulkI")
        assert found is not None and found[1] == plain
        assert not check_products.KERNEL.search(name + f"Li2ELi2ELi4ELi1ELb0EEELb{plain}EEEvNS0_4BulkI")


def test_a_second_product_is_one_with_options(function):
    code = function(kernel(more=loop("bend", COPY, "STS.128 [R2], R40")))
    assert [f.split(": ")[:2] for f in check_products.broken(code)[0]] == [["boxes and lanes", "loops"]]
    assert check_products.broken(code, check_products.WITH_OPTIONS)[0] == []


def test_words_of_other_kernels_choose_none(capsys):
    assert check_products.main(["--only", "backward lstm bf16"]) == 0
    assert capsys.readouterr().out == ""
