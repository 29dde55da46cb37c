"""Plain plots: what they draw, that they can be read on a telephone, what is refused."""

import io

import numpy as np
import pytest
import torch
from fusegen import drawing

pytest.importorskip("matplotlib")

HALF = {"a": [1.0, 2.0], "b": [0.5, 0.0]}
CURVES = {"one": ([0, 1, 2], [1.0, 0.1, 0.01]), "two": ([0, 1, 2], [2.0, 1.0, 0.5])}


FIGURES = {
    "bars": lambda: drawing.bars_figure(
        HALF, ["x", "y\nz"], title="some bars", value="volts", mark=(1.5, "here")
    ),
    "lines": lambda: drawing.lines_figure(
        CURVES, title="curves", x="step", y="volts", log="y", mark=(1, "there")
    ),
    "distribution": lambda: drawing.distribution_figure(
        {"one": [1.0, 2.0, 2.0], "two": [3.0]}, title="t", x="volts"
    ),
    "points": lambda: drawing.points_figure(
        {"one": ([0.1], [0.9]), "two": ([0.5], [0.5])}, title="t", x="x", y="y"
    ),
    "heat": lambda: drawing.heat_figure(torch.arange(6.0).view(2, 3), title="t", x="x", y="y", label="volts"),
    "curves": lambda: drawing.training_figure(
        [{"step": i, "a loss": 1.0 / i, "b gradient norm": 2.0, "lr": 1.0} for i in (1, 2, 3)], columns=1
    ),
    "images": lambda: drawing.images_figure(
        [drawing.Panel(torch.zeros(9, 1, 4, 4), 9, "some", (), ["a long name"])], drawing.NARROW
    ),
    "series": lambda: drawing.series_figure(torch.arange(20.0).view(5, 2, 2), width=drawing.NARROW),
}


@pytest.mark.parametrize("name", FIGURES)
def test_letters_are_legible_on_a_telephone_and_nothing_is_cut(name):
    image = pytest.importorskip("PIL.Image")
    figure = FIGURES[name]()
    content = drawing.png(figure, 200)
    assert content == drawing.png(FIGURES[name](), 200)
    picture = image.open(io.BytesIO(content))
    assert picture.width <= 2 * 100 * drawing.NARROW + 1
    from matplotlib.text import Text

    texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    # Pixels of a letter's body, where a page shows the picture 358 pixels wide.
    assert min(t.get_fontsize() for t in texts) * 200 / 72 * 358 / picture.width >= 9
    drawn = np.asarray(picture.convert("L"))
    assert (drawn[:, [0, -1]] == 255).all() and (drawn[[0, -1]] == 255).all(), "cut at a side"


def test_bars_have_a_row_for_each_name_and_a_colour_for_each_group():
    axis = FIGURES["bars"]().axes[0]
    assert [bar.get_width() for bar in axis.patches] == [1.0, 2.0, 0.5, 0.0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["x", "y\nz"] and axis.get_xlabel() == "volts"
    low, high = axis.get_ylim()
    assert low > high, "the first is on top"
    at = [bar.get_y() + bar.get_height() / 2 for bar in axis.patches]
    assert at[0] < at[2] and at == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    (mark,) = axis.lines
    assert mark.get_xdata() == [1.5, 1.5]
    assert {t.get_text() for t in axis.figure.legends[0].get_texts()} == {"a", "b", "here"}


def test_stacked_bars_stand_in_one_place():
    axis = drawing.bars_figure({"a": [1.0, 0.0], "b": [0.0, 2.0]}, ["x", "y"], stacked=True).axes[0]
    assert [bar.get_y() + bar.get_height() / 2 for bar in axis.patches] == pytest.approx([0, 1, 0, 1])


def test_lines_are_what_they_were_given():
    axis = FIGURES["lines"]().axes[0]
    assert axis.get_yscale() == "log" and axis.get_xscale() == "linear"
    assert np.array_equal(axis.lines[0].get_ydata(), [1.0, 0.1, 0.01])
    assert drawing.lines_figure(CURVES, log="xy").axes[0].get_xscale() == "log"


@pytest.mark.parametrize("log", [False, True])
def test_a_distribution_is_of_shares(log):
    values = {"one": [1.0, 1.0, 10.0, float("inf")], "two": [100.0, -1.0]}
    axis = drawing.distribution_figure(values, log=log).axes[0]
    assert axis.get_xscale() == ("log" if log else "linear")
    heights = sorted(max(patch.get_xy()[:, 1]) for patch in axis.patches)
    # What is not finite, and on a logarithmic axis not above 0, is left out.
    assert heights == pytest.approx([200 / 3, 100] if log else [50, 200 / 3])


def test_a_distribution_of_one_value_is_drawn():
    drawing.png(drawing.distribution_figure({"one": [2.0, 2.0]}, log=True))


def test_a_map_is_white_at_zero_and_has_its_names():
    axis = drawing.heat_figure(torch.tensor([[0.0, 1.0]]), rows=["r"], columns=["c", "d"]).axes[0]
    (image,) = axis.images
    assert image.cmap(image.norm(0.0))[:3] == (1, 1, 1) and image.norm(1.0) == 1
    assert [t.get_text() for t in axis.get_xticklabels()] == ["c", "d"]
    (signed,) = drawing.heat_figure(torch.tensor([[-2.0, 1.0]]), signed=True).axes[0].images
    assert np.allclose(signed.cmap(signed.norm(0.0))[:3], 1, atol=0.01) and signed.norm(-2.0) == 0


def test_of_many_names_every_so_manyth_is_shown():
    names = [str(i) for i in range(100)]
    axis = drawing.heat_figure(torch.zeros(1, 100), columns=names).axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == names[::4]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: drawing.bars_figure({}, ["x"]), "names: expected 1 to 40, and bars"),
        (lambda: drawing.bars_figure(HALF, [str(i) for i in range(41)]), "names: expected 1 to 40"),
        (lambda: drawing.bars_figure(HALF, ["x"]), "bars: expected 1 values of 'a', got 2"),
        (lambda: drawing.lines_figure({}), "curves: expected at least one"),
        (lambda: drawing.distribution_figure({"a": [float("nan")]}), "groups: expected at least one value"),
        (lambda: drawing.distribution_figure({"a": [-1.0]}, log=True), "groups: expected at least one value"),
        (lambda: drawing.points_figure({}), "groups: expected at least one"),
        (lambda: drawing.heat_figure(torch.zeros(3)), r"values: expected shape \[R, C\]"),
        (lambda: drawing.heat_figure(torch.zeros(1, 2), rows=["a", "b"]), "rows: expected 1 names, got 2"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
