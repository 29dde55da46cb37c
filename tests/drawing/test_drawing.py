"""Pictures: what is in a figure, that its text can be read, that a file is the same each time."""

import io

import numpy as np
import pytest
import torch
from fusegen import drawing
from fusegen.drawing import Panel, images_figure, png, series_figure, training_figure

pytest.importorskip("matplotlib")

IMAGES = torch.linspace(-1.5, 1.5, 7 * 2 * 3).view(7, 1, 2, 3)
SERIES = torch.arange(5.0 * 8 * 2).view(5, 8, 2)
LOG = [
    {"step": 0, "seconds": 0.0, "distance": 9.0, "recall": 0.0},
    {"step": 1, "discriminator loss": 1.0, "generator loss": 2.0, "real sign": 0.5, "lr": 0.1},
    {"step": 2, "discriminator loss": 1.5, "generator loss": 2.5, "real sign": 0.7, "lr": 0.1},
    {"step": 2, "seconds": 0.3, "distance": 4.0, "recall": 0.4, "signal: mode collapse": 1.0},
    {"step": 3, "seconds": 0.4, "discriminator loss": 1.2, "signal: mode collapse": 0.0, "lr": 0.1},
    {"step": 4, "seconds": 0.5, "distance": 3.0, "recall": 0.5},
]


def panels():
    return [Panel(IMAGES, 4, "some", tuple("abcd"), ("one", "two")), Panel(IMAGES[:2], 2)]


def figures():
    return {
        "images": images_figure(panels()),
        "series": series_figure(SERIES, SERIES[:3], features=("volts", "x"), units={"volts": "V"}),
        "a series alone": series_figure(SERIES[..., :1]),
        "curves": training_figure(LOG, "a run"),
    }


@pytest.mark.parametrize("name", ["images", "series", "a series alone", "curves"])
def test_a_file_is_the_same_each_time_as_wide_as_a_page_and_of_legible_letters(name):
    image = pytest.importorskip("PIL.Image")
    figure = figures()[name]
    content = png(figure)
    assert content == png(figures()[name]) and b"Software" not in content
    picture = image.open(io.BytesIO(content))
    assert 100 < picture.width <= 830 and picture.height < 1000
    # Pixels a letter's body has, at a point a 72nd of an inch.
    from matplotlib.text import Text

    texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    assert texts and min(t.get_fontsize() for t in texts) * figure.dpi / 72 >= 11
    drawn = np.asarray(picture.convert("L"))
    assert (drawn[:, [0, -1]] == 255).all(), "cut at the sides"


def test_a_users_own_settings_change_nothing():
    import matplotlib

    want = png(figures()["series"])
    with matplotlib.rc_context({"font.size": 30, "figure.dpi": 30, "axes.facecolor": "red"}):
        assert png(figures()["series"]) == want


def test_images_stand_row_by_row_cut_to_black_and_white():
    figure = images_figure(panels())
    some, other = figure.axes
    assert some.get_title(loc="left") == "some" and not other.get_title(loc="left")
    assert [t.get_text() for t in some.get_xticklabels()] == list("abcd")
    assert [t.get_text() for t in some.get_yticklabels()] == ["one", "two"]
    for i, image in enumerate(some.images):
        left, right, bottom, top = image.get_extent()
        assert (int(left), int(top)) == (i % 4, i // 4) and right - left > 0.9 and bottom - top > 0.9
        pixels = image.get_array()
        assert pixels.shape == (2, 3, 3) and np.allclose(pixels[..., 0], pixels[..., 2])
        assert np.allclose(pixels[..., 0], ((IMAGES[i, 0] + 1) / 2).clamp(0, 1), atol=1e-6)
    # Rows and columns of pixels that are square.
    box = some.get_window_extent()
    assert box.width / 4 / 3 == pytest.approx(box.height / 2 / 2, rel=0.01)


def test_as_many_lines_as_a_picture_holds():
    """A line more than matplotlib can write is refused before anything is drawn."""
    lines = drawing.most_lines(1, 40, 4, most=0.5)
    images = torch.zeros(lines, 1, 40, 4)
    named = [Panel(part, 1, "some", ("a",)) for part in images.tensor_split(4)]
    height = int.from_bytes(png(images_figure(named, most=0.5))[20:24], "big")
    assert 65_000 < height <= 65_535
    with pytest.raises(ValueError, match=f"at most {lines} lines of images, .* got {lines + 1}"):
        images_figure([*named, Panel(images[:1], 1)], most=0.5)


def test_coloured_images_are_coloured():
    x = torch.stack([torch.full((2, 2), v) for v in (-1.0, 0.0, 1.0)])[None]
    assert np.allclose(images_figure([Panel(x, 1)]).axes[0].images[0].get_array()[0, 0], [0, 0.5, 1])


def test_series_have_axes_units_and_the_data_beside_on_one_scale():
    figure = figures()["series"]
    assert len(figure.axes) == 4
    left, right = figure.axes[:2]
    assert left.get_title(loc="left") == "the data" and right.get_title(loc="left") == "drawn"
    assert left.get_ylabel() == "volts\nV" and figure.axes[2].get_ylabel() == "x"
    assert figure.axes[2].get_xlabel() == figure.axes[3].get_xlabel() == "step"
    assert left.get_ylim() == right.get_ylim() and len(left.lines) == len(right.lines) == drawing.LINES
    assert np.array_equal(right.lines[5].get_ydata(), SERIES[:, 5, 0])
    assert np.array_equal(left.lines[5].get_ydata(), SERIES[:3, 5, 0])


def test_of_many_features_the_first_are_drawn_and_the_picture_says_so():
    figure = series_figure(torch.zeros(3, 2, 11))
    assert len(figure.axes) == 8 and "the first 8 of 11" in figure.axes[0].get_title(loc="left")


def test_large_numbers_are_told_by_letter():
    figure = series_figure(torch.linspace(0, 4e7, 10).view(10, 1, 1))
    png(figure)
    assert {t.get_text()[-1] for t in figure.axes[0].get_yticklabels() if t.get_text()} >= {"M"}


def test_curves_have_a_panel_for_each_kind_and_shade_what_was_wrong():
    figure = figures()["curves"]
    axes = {axis.get_title(loc="left"): axis for axis in figure.axes if axis.lines}
    assert list(axes)[:2] == ["distance", "losses"] and len(axes) == 4
    assert np.array_equal(axes["distance"].lines[0].get_xydata(), [[0, 9], [2, 4], [4, 3]])
    names = [t.get_text() for t in axes["losses"].get_legend().get_texts()]
    assert names == ["discriminator", "generator"]
    (span,) = axes["losses"].patches
    assert span.get_x() == 2 and span.get_width() == 1
    assert figure.get_suptitle() == "a run" and figure.get_supxlabel() == "shaded: mode collapse 2–3"


@pytest.mark.parametrize(
    ("values", "scale"), [((2000.0, 3.0), "log"), ((9.0, 3.0), "linear"), ((9.0, 0.0), "linear")]
)
def test_what_spans_much_is_drawn_on_a_logarithmic_axis(values, scale):
    axis = training_figure([{"step": i, "distance": value} for i, value in enumerate(values)]).axes[0]
    assert axis.get_yscale() == scale
    if scale == "log":
        png(axis.figure)
        assert "100" in [t.get_text() for t in axis.get_yticklabels()]


def test_long_curves_of_losses_are_averaged():
    log = [{"step": i, "seconds": i, "a loss": float(i % 2), "lr": 1.0} for i in range(1, 601)]
    (line,) = training_figure(log).axes[0].lines
    assert len(line.get_ydata()) == 60 and set(line.get_ydata()) == {0.5}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: images_figure([]), "panels: expected images"),
        (lambda: images_figure([Panel(IMAGES[:0], 1)]), "panels: expected images"),
        (lambda: images_figure([Panel(IMAGES, 1), Panel(IMAGES[..., :2], 1)]), "images of one shape"),
        (lambda: images_figure([Panel(IMAGES, 0)]), "columns: expected an integer at least 1"),
        (lambda: series_figure(SERIES[0]), r"drawn: expected shape \[T, N, F\]"),
        (lambda: series_figure(SERIES, SERIES[:, :0]), r"real: expected shape \[T, N, F\]"),
        (
            lambda: series_figure(SERIES, SERIES[..., :1]),
            "drawn, real: expected as many features, got 2 and 1",
        ),
        (lambda: training_figure([]), "log: expected at least one line"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (drawing.check, lambda: images_figure(panels()), lambda: png(None)):
        with pytest.raises(
            ModuleNotFoundError, match="matplotlib is needed for this: pip install matplotlib"
        ):
            call()
