"""Philox in plain torch: known answers, and the masks that it makes."""

import pytest
import torch
from fusegen import _philox
from fusegen._inside import ZONEOUT_C, ZONEOUT_H, single

# The known answers of Salmon et al.'s Random123 for philox4x32, 10 rounds: counter and key of zeros, of ones,
# and digits of pi.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def signed(low, high):
    value = high << 32 | low
    return torch.tensor(value - (1 << 64) if value >> 63 else value)


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_known_answers(counter, key, want):
    block = signed(*counter[:2])
    got = _philox.words(signed(*key), counter[3], counter[2], block.view(1))
    assert tuple(int(w) for w in got) == want


def test_an_element_has_its_own_word():
    """By the layout that csrc/kernels/philox.h says: blocks side by side in groups of 16, a word each."""
    n, row, key = 150, 7, torch.tensor(0x1234567890ABCDEF)
    rows = torch.tensor([row])
    for u in (0, 15, 16, 63, 64, 149):
        block = (row * 3 + u // 64) * 16 + u % 16
        word = int(_philox.words(key, ZONEOUT_H, 5, torch.tensor([block]))[u // 16 % 4])
        for rate in (0.25, 0.75):
            dropped = _philox.dropped(key, ZONEOUT_H, 5, rows, n, rate)
            assert dropped.shape == (1, n)
            assert bool(dropped[0, u]) == (word < single(rate) * 2**32)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_statistics(rate):
    """Of 400,000 draws, how many are dropped: within five standard deviations; and masks are independent."""
    rows, key = torch.arange(1000), torch.tensor(-42)
    one, other = (_philox.dropped(key, mask, 0, rows, 400, rate) for mask in (ZONEOUT_H, ZONEOUT_C))
    spread = (rate * (1 - rate) / one.numel()) ** 0.5
    for mask in (one, other):
        assert abs(mask.double().mean().item() - rate) <= 5 * spread
        per_column = (rate * (1 - rate) / 1000) ** 0.5
        assert (mask.double().mean(0) - rate).abs().max() <= 5 * per_column
    both = (one & other).double().mean().item()
    assert abs(both - rate**2) <= 5 * (rate**2 * (1 - rate**2) / one.numel()) ** 0.5
