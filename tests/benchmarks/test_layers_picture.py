"""The picture of layers: what was run, all of it, and nothing else."""

from dataclasses import replace

import pytest
from benchmark_rows import a_row
from pages import picture
from pages.measured import PEERS, compared

pytest.importorskip("matplotlib")


def rows_of(*cases):
    """(cell, mode, (H, B, T), peer, ratio) each, the ratio being of fused and frozen."""
    return [
        replace(
            a_row(),
            cell=cell,
            mode=mode,
            H=H,
            I=H,
            B=B,
            T=T,
            peer=peer,
            ratio_fused=ratio,
            ratio_frozen=ratio,
        )
        for cell, mode, (H, B, T), peer, ratio in cases
    ]


def marks(figure):
    """Of every mark, its panel, its place in pixels and the half of its width."""
    figure.draw_without_rendering()
    found = []
    for axis in figure.axes:
        for group in axis.collections:
            radius = group.get_sizes()[0] ** 0.5 / 2 * figure.dpi / 72
            found += [(axis, *axis.transData.transform(place), radius) for place in group.get_offsets()]
    return found


PARTIAL = (
    ("gru", "inference", (256, 1, 100), "onednn", 0.55),
    ("gru", "inference", (256, 32, 100), "torch", 1.9),
    ("gru", "inference", (256, 32, 100), "openvino", 12.0),
)
MIXED = (
    *PARTIAL,
    ("lstm", "training", (64, 32, 100), "torch", 0.01),
    ("gru", "training", (64, 32, 100), "onnxruntime", 1.0),
    ("rnn", "inference", (64, 32, 100), "torch", 1.0),
)


@pytest.mark.parametrize(
    "cases, titles, shapes, legend",
    [
        (
            PARTIAL,
            ["GRU inference"],
            ["H256 B1 T100", "H256 B32 T100"],
            ["torch.nn", "OpenVINO", "oneDNN from C++"],
        ),
        (
            MIXED,
            ["GRU inference", "RNN inference", "LSTM training", "GRU training"],
            ["H64 B32 T100", "H256 B1 T100", "H256 B32 T100"],
            ["torch.nn", "ONNX Runtime", "OpenVINO", "oneDNN from C++"],
        ),
    ],
    ids=["one panel", "four panels"],
)
def test_only_what_was_run_is_drawn_and_all_of_it_lies_inside(cases, titles, shapes, legend):
    figure = picture.figure_of(rows_of(*cases), compared, PEERS)
    assert [axis.get_title(loc="left") for axis in figure.axes] == titles
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == shapes
    (drawn,) = figure.legends
    assert [text.get_text() for text in drawn.get_texts()] == legend
    found = marks(figure)
    assert len(found) == len(cases)
    for axis, x, y, radius in found:
        box = axis.get_window_extent()
        assert box.x0 + radius < x < box.x1 - radius and box.y0 + radius < y < box.y1 - radius
    for axis in figure.axes:  # a column's lowest panel has the numbers
        lowest = not any(
            other.get_position().y0 < axis.get_position().y0
            and abs(other.get_position().x0 - axis.get_position().x0) < 0.01
            for other in figure.axes
        )
        shown = [label.get_text() for label in axis.get_xticklabels() if label.get_visible()]
        assert ("1×" in shown) == lowest
