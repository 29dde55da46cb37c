"""record to a folder and to a file: what comes back, what is missing, and how much memory it takes."""

import fusegen
import numpy as np
import pytest
import torch
from cases import DTYPES, label
from fusegen import inspect
from tolerances import close


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_folder_and_a_file_come_back(dtype, tmp_path):
    m = fusegen.nn.LSTM(3, 6, dtype=dtype, bidirectional=True)
    x = torch.randn(7, 2, 3, dtype=dtype)
    with torch.no_grad():
        with inspect.record(m) as memory:
            m(x), m(x, lengths=[3, 7])
        with inspect.record(m, folder=tmp_path / "made/rec", part=3) as rec:
            m(x)
            assert np.load(tmp_path / "made/rec/model.l0.d1.h.npy").shape == (
                7,
                2,
                6,
            )  # whole after each call
            m(x, lengths=[3, 7])
    file = memory.save(tmp_path / "rec.npz")
    for other in (rec, inspect.load(tmp_path / "made/rec"), inspect.load(file)):
        for plane in memory[""]:
            got = other[""][plane.layer, plane.direction]
            assert torch.equal(got.mask, plane.mask) and other[""].calls == 2
            for name in plane.arrays:
                want = plane.array(name)
                kept = want.float() if want.dtype == torch.bfloat16 else want
                assert got.array(name).dtype == kept.dtype
                close(got.array(name), kept.double(), "value", name)
    mapped = np.load(tmp_path / "made/rec/model.l0.d0.f.npy", mmap_mode="r")
    assert mapped.shape == (14, 2, 6) and isinstance(mapped, np.memmap)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with (
        pytest.raises(FileExistsError, match="holds something"),
        inspect.record(fusegen.nn.GRU(3, 4), folder=tmp_path),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recording"):
        inspect.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no"):
        inspect.load(tmp_path / "x.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="no recording"):
        inspect.load(tmp_path / "other.npz")
    with inspect.record(fusegen.nn.GRU(3, 4)) as rec, pytest.raises(ValueError, match=r"ends in \.npz"):
        rec.save(tmp_path / "x.zip")


def resident(kind):
    """This process's memory in bytes: VmRSS, or its peak VmHWM since it was set back."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(kind))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=label)
def test_a_sequence_longer_than_memory_has_gates_for(options, tmp_path):
    """T = 100,000: input, output and 64 MiB are enough for arrays of 154 MB a direction."""
    T, H = 100_000, 64
    m = fusegen.nn.LSTM(8, H, **options).eval()
    x = torch.randn(T, 1, 8)
    with torch.no_grad():
        m(x[:1000])
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")
        before = resident("VmRSS")
        with inspect.record(m, folder=tmp_path / "rec") as rec:
            y, _ = m(x)
        peak = resident("VmHWM") - before
    held = sum(p.stat().st_size for p in (tmp_path / "rec").glob("*.npy"))
    assert held > 6 * T * H * 4
    assert peak < y.nbytes + x.nbytes + (64 << 20), f"{peak >> 20} MiB for an output of {y.nbytes >> 20}"
    close(rec[""][0, 0].h[-5:], y[-5:, :, :H].double(), "value")
