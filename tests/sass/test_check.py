"""tools/check_sass.py: names, limits, and what it says of a kernel."""

import check_sass
import pytest
from sass.rules import Limits

NAMES = {
    "15backward_kernelINS0_4LstmENS_6device4Bf16ENS3_10FormatBf16ELi1EEEvNS": "backward lstm bf16 1",
    "14forward_kernelINS0_3GruEfNS_6device10FormatTf32ELi2ELb1EEEvNS0_9Argu": "forward gru tf32 2 1",
    "16forward_sequenceINS0_4LstmENS_6device4Bf16ENS3_10FormatBf16ELi1E": "forward sequence lstm bf16 1",
    "14forward_kernelINS0_3RnnEfNS_6device9FormatF32ELi1EEEvNS0_9ArgumentsI": "forward rnn f32 1",
    "10normalised20block_product_kernelIfNS_6device10FormatTf32ELb1EEEvNS0_8s": "block product tf32 1",
}


@pytest.mark.parametrize("symbol", NAMES)
def test_a_kernel_is_named(symbol):
    assert check_sass.name_of(f"_ZN7fusegen4cuda{symbol}") == NAMES[symbol]


def test_a_kernel_of_another_kind_keeps_its_symbol():
    assert check_sass.name_of("_Z6strange") == "_Z6strange"


def test_the_first_rule_that_fits_holds(monkeypatch):
    rules = (("backward lstm", Limits(chain=4)), ("backward", Limits(chain=6)))
    monkeypatch.setattr(check_sass, "RULES", rules)
    assert check_sass.limits_of("backward lstm bf16 1").chain == 4
    assert check_sass.limits_of("backward gru bf16 1").chain == 6
    with pytest.raises(SystemExit, match="no rule for forward rnn f32 1"):
        check_sass.limits_of("forward rnn f32 1")


def test_what_is_wrong_is_told(graph, capsys):
    function = graph(
        "step:\n HMMA.16816.F32 R4, R8, R12, RZ\n STL [R1], R4\n @P0 BRA -> step\n EXIT"
    ).function
    found = check_sass.check(function, "backward lstm bf16 1", None, None)
    check_sass.show("backward lstm bf16 1", None, found, False)
    assert capsys.readouterr().out == "backward lstm bf16 1: local memory: 1, at most 0 (0x10 STL [R1], R4)\n"


def test_a_kernel_that_does_not_multiply_has_no_rules(graph):
    assert check_sass.check(graph("STL [R1], R4\n EXIT").function, "strange", None, None) == []


@pytest.mark.parametrize(
    "words, most", [((), 1.0), (("backward", "bf16"), 0.25), (("bf16",), 0.5), (("lstm",), 1.0)]
)
def test_the_words_choose_the_sources(words, most):
    chosen, every = check_sass.wanted_sources(list(words)), check_sass.wanted_sources([])
    assert 0 < len(chosen) <= most * len(every)
