"""The report's drawings: size, place and colour of what is drawn."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from aejax.report.drawing import grids, pictures, plots, scatter, style
from tests.report.cases import bars


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(style.png(figure))).convert("RGB")).astype(int)


CURVE = (np.arange(50), np.linspace(3, 1, 50)[:, None] * np.array([[1.0, 1.2]]))
DRAWINGS = {
    "curves": lambda theme: plots.curves({"a": CURVE, "b": CURVE}, "loss", theme=theme),
    "bars": bars,
    "distributions": lambda theme: plots.distributions(
        {"a": {"x": [0.1, 0.3], "y": [2.0]}, "b": {"x": [0.2, 0.2, 0.5]}},
        {"x": "first", "y": "second"},
        level={"x": 0.25},
        level_name="chance",
        theme=theme,
    ),
    "histogram": lambda theme: plots.histogram(np.arange(30.0), "n", "L0", theme=theme),
    "shares": lambda theme: plots.histogram(
        np.linspace(0.01, 1, 30), "n", "share", shares=True, theme=theme
    ),
    "scatter": lambda theme: plots.scatter(
        np.random.default_rng(0).normal(size=(90, 2)), np.arange(90) % 13, theme=theme
    ),
    "unlabelled": lambda theme: plots.scatter(np.eye(2), theme=theme),
    "grid": lambda theme: plots.image_grid(
        np.random.default_rng(0).random((2, 3, 5, 4, 3)), ("a\nb", "c"), "xyz", (0,), theme=theme
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_has_its_size_and_is_not_blank(name):
    """Fails if nothing is drawn, if the theme is ignored, or if drawing twice differs."""
    light, dark = (DRAWINGS[name](theme) for theme in (style.LIGHT, style.DARK))
    wide, tall = light.get_size_inches() * style.DPI
    drawn, other = pixels(light), pixels(dark)
    assert drawn.shape == (round(tall), round(wide), 3)
    for image, theme in ((drawn, style.LIGHT), (other, style.DARK)):
        paper = [int(theme.paper[i : i + 2], 16) for i in (1, 3, 5)]
        share = (np.abs(image - paper).max(axis=-1) > 8).mean()
        assert 0.005 < share < 0.95
    assert style.png(DRAWINGS[name](style.LIGHT)) == style.png(light)


def test_names_do_not_lie_on_each_other():
    """Fails if boxes keep their places, or if one that stands free is moved."""
    centres = np.array([[0.0, 0.0], [0.1, 0.05], [0.1, 0.05], [9.0, 9.0]])
    sizes = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    found = scatter.apart(centres, sizes)
    for i in range(4):
        for j in range(i):
            over = (sizes[i] + sizes[j]) / 2 - np.abs(found[i] - found[j])
            assert over.min() <= 1e-3
    np.testing.assert_array_equal(found[3], centres[3])
    points = np.random.default_rng(0).normal(size=(90, 2))
    texts = plots.scatter(points, np.arange(90) % 2, ("night", "daylight")).axes[0].texts
    boxes = [text.get_window_extent() for text in texts]
    assert not boxes[0].overlaps(boxes[1])


def test_drawing_leaves_no_state_in_pyplot():
    """Fails if a figure is made through pyplot."""
    code = (
        "import sys, numpy as np; from aejax.report.drawing import plots, style;"
        "assert 'matplotlib' not in sys.modules;"
        "style.png(plots.bars(np.ones(3), 'a', 'b'));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 1), (1, 12, 64, 64, 3), (1, 2, 3000, 3000, 1)])
def test_a_grid_shows_each_image_in_its_place(shape):
    """Fails if rows and columns are exchanged, or if a large grid is wider than the page."""
    values = np.linspace(0.2, 1, shape[0] * shape[1]).reshape(shape[:2])
    images = np.broadcast_to(values[:, :, None, None, None], shape)
    drawn = pixels(plots.image_grid(images))
    place = grids.layout(shape, grids.ROOM, (), 64)
    assert drawn.shape[:2] == (place.height, place.width)
    assert place.width <= grids.ROOM
    for row, y in enumerate(place.y):
        for column, x in enumerate(place.x):
            assert drawn[y + 3, x + 3, 0] == pytest.approx(255 * values[row, column], abs=1.5)


def test_missing_images_leave_paper():
    """Fails if NaN is drawn as black."""
    images = np.ones((1, 2, 4, 4, 1)) * 0.1
    images[0, 1] = np.nan
    drawn = pixels(plots.image_grid(images))
    assert (drawn[:, -10:] == 255).all()
    assert (drawn[:, :10] < 60).all()


def test_examples_of_any_kind_become_pictures():
    """Fails if values outside [0, 1] are cut instead of spread, or if a vector loses its axis."""
    vector = np.linspace(-4, 4, 40).reshape(2, 20)
    seen = pictures.look(vector)
    strip = seen.pictures(vector)
    assert strip.shape == (2, 4, 20, 1)
    assert (np.diff(strip[:, 0, 1:-1, 0]) > 0).all()
    assert strip.min() < 0.05
    assert strip.max() > 0.95
    grey = np.random.default_rng(0).random((2, 5, 5, 1))
    np.testing.assert_array_equal(pictures.look(grey).pictures(grey), grey)
    assert not pictures.look(np.zeros((2, 5, 5, 7))).drawable
    weights = np.array([-1.0, 0.0, 1.0, 0.5]).reshape(1, 2, 2, 1)
    below, zero, above, half = pictures.signed(weights).reshape(4, 3)
    assert below[2] > below[0]
    assert above[0] > above[2]
    assert np.ptp(zero) < 0.02
    np.testing.assert_allclose(half, (zero + above) / 2)
