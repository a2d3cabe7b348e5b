"""A chart as a matplotlib figure has the positions of the page's drawing."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

import fewstep as fs
from fewstep.report.page import Chart, Series
from fewstep.report.page._chart import WIDE, drawing, points
from fewstep.report.page.figures import _path, chart_figure

CHART = Chart(
    "Error",
    "network calls",
    "RMSE",
    [
        Series("euler", [4, 8], [0.1, 0.05], [0.09, 0.04], [0.12, 0.06]),
        Series("fitted x", [4, 8], [0.02, 0.01], strong=True),
    ],
    log_y=True,
)


def patches(figure, name):
    return next(patch for patch in figure.axes[0].patches if patch.get_label() == name)


@pytest.fixture(scope="module")
def figure():
    return chart_figure(CHART)


def test_lines_and_labels_are_where_the_page_has_them(figure):
    shown = [points(series, CHART.log_x, CHART.log_y) for series in CHART.series]
    view = drawing(CHART, shown, [0, 1], *WIDE)
    texts = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    for series, line in zip(CHART.series, view.lines, strict=True):
        corners = patches(figure, series.name).get_path().vertices
        expected = [(view.x(x), view.y(y)) for x, y in zip(series.x, series.y, strict=True)]
        np.testing.assert_allclose(corners, expected, atol=0.06)
        assert texts[line.name] == (float(line.label.x), float(line.label.y))
    for at, text in view.y.marks():
        assert texts[text][1] == float(at) + 4
    assert {"RMSE", "network calls", "4", "8"} <= set(texts)


def test_colours_and_widths_are_those_of_the_style_sheet(figure):
    from fewstep.report.page._context import text_of

    first = re.search(r"--s1: (#\w+);", text_of("page.css"))[1]
    euler, fitted = (patches(figure, name) for name in ("euler", "fitted x"))
    assert to_hex(fitted.get_edgecolor()) == first
    assert fitted.get_linewidth() > euler.get_linewidth()


def test_paths_of_svg():
    disc = _path("M1 5a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z")
    low, high = disc.get_extents().min, disc.get_extents().max
    np.testing.assert_allclose([*low, *high], [1, 1, 9, 9], atol=1e-6)
    square = _path("M1 2H3V4h-2Z")
    np.testing.assert_array_equal(square.vertices[:4], [[1, 2], [3, 2], [3, 4], [1, 4]])


def test_a_comparison_draws_the_chart_of_its_page():
    field = fs.Field(lambda x, t: -x, shape=(2,), name="decay")
    table = fs.compare(field, {"euler": [fs.classical.euler(n) for n in (4, 8)]}, noise=4)
    psnr = table.plot("psnr").axes[0]
    assert psnr.get_title(loc="left") == "PSNR to the reference (dB), decay"
    assert len(patches(table.plot(), "euler").get_path().vertices) == 2
    with pytest.raises(ValueError, match="metric must be one of rmse, psnr, not 'fid'"):
        table.plot("fid")
