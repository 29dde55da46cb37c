"""Sound files of every kind that libsndfile reads."""

import numpy as np
import pytest
from fusegen.data import read_series
from fusegen.data.files.sound import read_sound

soundfile = pytest.importorskip("soundfile")


KINDS = [
    *(
        (form, width)
        for form in ("WAV", "WAVEX", "AIFF")
        for width in ("U8", "16", "24", "32", "FLOAT", "DOUBLE")
    ),
    *(("FLAC", width) for width in ("16", "24")),
]


@pytest.mark.parametrize(("format", "width"), KINDS)
@pytest.mark.parametrize("channels", [1, 6])
def test_every_width_and_kind(tmp_path, width, format, channels):
    subtype = width if width.isalpha() else f"PCM_{width}"
    values = np.stack([np.array([0, 0.5, -1, -0.25]) * (1 - 0.5 * (c % 2)) for c in range(channels)], 1)
    path = tmp_path / f"x.{ {'WAVEX': 'wav'}.get(format, format.lower()) }"
    soundfile.write(path, values, 8000, subtype=subtype, format=format)
    found, rate = read_sound(path)
    assert rate == 8000 and found.tolist() == values.tolist()
    series = read_series(path, 4)
    assert series.values[:, 0].double().tolist() == values.tolist() and len(series.features) == channels


def test_real_numbers_may_go_beyond_full_scale(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array([0, 2, -4.0]), 8000, subtype="FLOAT")
    series = read_series(tmp_path / "x.wav", 3)
    assert series.values[:, 0, 0].tolist() == [0, 0.5, -1]
    assert series.original(series.values)[:, 0, 0].tolist() == [0, 2, -4]


def test_bad_sounds_are_named(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.array([0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"data: .*x.wav holds NaN or infinity, first at sample 1"):
        read_sound(path, "data")
    path.write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"data: .*x.wav is not a sound file"):
        read_sound(path, "data")
    soundfile.write(path, np.zeros(4), 8000)
    soundfile.write(tmp_path / "y.wav", np.zeros(4), 16000)
    with pytest.raises(ValueError, match=r"1 at 8000 Hz in .*x.wav and 1 at 16000 Hz in .*y.wav"):
        read_series(tmp_path, 2)
