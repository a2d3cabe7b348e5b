import json
import math
import re

import pytest

from fewstep.report.page import Chart, Choice, Page, Section, Series, Text
from fewstep.report.page._axes import Axis, linear_ticks, log_ticks
from fewstep.report.page._chart import NARROW, WIDE, Point, drawing, points, thinned
from fewstep.report.page._context import Context
from fewstep.report.page._texts import interval, numbers, summary


def drawn(*series, width=500, height=300, **options):
    chart = Chart("T", "calls", "RMSE", series, **options)
    shown = [points(s, chart.log_x, chart.log_y) for s in series]
    return drawing(chart, shown, range(len(series)), width, height)


def corners(path):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1, 5, [0, 0.5, 1]),
        (-3, 7, 6, [-2, 0, 2, 4, 6]),
        (0.0013, 0.0047, 4, [0.002, 0.003, 0.004]),
        (1, 100_000, 6, [20_000, 40_000, 60_000, 80_000, 100_000]),
    ],
)
def test_linear_ticks_are_round(low, high, most, ticks):
    assert linear_ticks(low, high, most) == ticks


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (1, 100, 8, [1, 2, 5, 10, 20, 50, 100]),
        (1, 100, 6, [1, 3, 10, 30, 100]),
        (1, 100, 4, [1, 10, 100]),
        (1e-5, 1, 8, [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]),
        (1e-12, 1, 5, [1e-12, 1e-9, 1e-6, 1e-3, 1]),
        (0.21, 0.34, 8, [0.22, 0.24, 0.26, 0.28, 0.3, 0.32, 0.34]),
    ],
)
def test_logarithmic_ticks_are_decades_as_fine_as_there_is_room(low, high, most, ticks):
    assert log_ticks(low, high, most) == pytest.approx(ticks)


def test_a_logarithmic_axis_makes_equal_ratios_equally_long():
    axis = Axis(0.01, 100, True, 300, 100)
    assert axis(0.01) == pytest.approx(300)
    assert axis(1) == pytest.approx(200)
    assert axis(math.sqrt(10)) == pytest.approx(175)
    assert axis(100) == pytest.approx(100)


def test_an_axis_marks_numbers_of_calls_themselves_and_drops_those_without_room():
    values = (2, 3, 4, 8, 16)
    wide = Axis.over(values, log=False, start=0, end=700, gap=56, at_values=True)
    narrow = Axis.over(values, log=False, start=0, end=200, gap=56, at_values=True)
    assert wide.ticks == values
    assert narrow.ticks == (2, 8, 16)
    assert wide.labels() == ["2", "3", "4", "8", "16"]


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("count", [2, 7, 16, 200])
def test_labels_side_by_side_do_not_touch(size, log, count):
    steps = [25_000 * (k + 1) for k in range(count)]
    width, height = size
    line = Series("x", steps, [1.0] * count)
    x = drawn(line, width=width, height=height, log_x=log).x
    half = [3.6 * len(text) for text in x.labels()]
    ends = [(x(tick) - w, x(tick) + w) for tick, w in zip(x.ticks, half, strict=True)]
    assert len(ends) >= 2
    assert all(right < left for (_, right), (left, _) in zip(ends, ends[1:], strict=False))


@pytest.mark.parametrize("log", [False, True])
def test_a_line_that_hardly_varies_looks_flat(log):
    def height(low, high):
        view = drawn(Series("x", [1, 2], [low, high]), log_y=log)
        return abs(view.y(high) - view.y(low)) / abs(view.y.end - view.y.start)

    assert height(0.5200, 0.5207) < 0.02
    assert height(0.40, 0.52) > 0.2


def test_one_value_alone_has_an_axis_around_it():
    for log in (False, True):
        axis = Axis.over([0.5], log=log, start=0, end=100, gap=20)
        assert axis(0.5) == pytest.approx(50)
    assert Axis.over([0.0], log=False, start=0, end=100, gap=20)(0) == 50
    assert Axis.over([], log=True, start=0, end=100, gap=20)(1) == 50


def test_labels_of_small_ticks_are_written_with_powers():
    axis = Axis(1e-7, 1e-3, True, 0, 1, (1e-7, 1e-5, 1e-3))
    assert axis.labels() == ["1e-7", "1e-5", "1e-3"]
    assert Axis(0, 1, False, 0, 1, (0, 0.25, 1000)).labels() == ["0", "0.25", "1,000"]


def test_points_are_where_the_scales_say():
    """By hand: linear between the frame's sides, 2.5 % of the numbers free at each side, 4 % above."""
    view = drawn(Series("a", [0, 10], [0, 100]))
    (first, last) = corners(view.lines[0].line)
    length = view.x.end - view.x.start
    assert first == pytest.approx((view.x.start + length * 0.25 / 10.5, view.y.start), abs=0.06)
    top = view.y.start - (view.y.start - view.y.end) * 100 / 104
    assert last == pytest.approx((view.x.start + length * 10.25 / 10.5, top), abs=0.06)


def test_on_two_logarithmic_axes_a_power_is_a_straight_line():
    x = [1, 2, 4, 8, 16]
    line = corners(drawn(Series("a", x, [v**-2.0 for v in x]), log_x=True, log_y=True).lines[0].line)
    slopes = [(d - b) / (c - a) for (a, b), (c, d) in zip(line, line[1:], strict=False)]
    assert slopes == pytest.approx([slopes[0]] * 4, rel=5e-3)
    assert slopes[0] > 0  # pixels go down


def test_gaps_interrupt_the_line():
    nan, inf = float("nan"), float("inf")
    view = drawn(Series("a", range(8), [1, 2, None, 3, nan, 4, inf, 5]))
    assert view.lines[0].line.count("M") == 4
    assert len(corners(view.lines[0].line)) == 5
    assert view.lines[0].marks.count("Z") == 5


def test_what_a_logarithmic_axis_cannot_show_is_a_gap():
    view = drawn(Series("a", [1, 2, 3], [1, 0, 2], low=[0.5, -1, 1], high=[2, 1, 3]), log_y=True)
    assert len(corners(view.lines[0].line)) == 2
    assert view.lines[0].whiskers.count("V") == 2


def test_an_interval_that_goes_below_what_a_logarithm_can_show_reaches_the_edge():
    view = drawn(Series("a", [1, 2], [1, 1], low=[0.5, -0.1], high=[2, 2]), log_y=True)
    starts = re.findall(r"M[-\d.]+ ([-\d.]+)V", view.lines[0].whiskers)
    assert float(starts[0]) < float(starts[1]) == view.y.start


def test_few_points_have_whiskers_and_many_have_a_band():
    few = drawn(Series("a", [1, 2], [1, 2], [0, 1], [2, 3])).lines[0]
    many = drawn(Series("a", range(50), [1.0] * 50, [0.0] * 50, [2.0] * 50)).lines[0]
    assert (few.band, many.whiskers) == ("", "")
    assert few.whiskers.count("V") == 2
    assert len(corners(many.band)) == 100
    ys = [y for _, y in corners(many.band)]
    assert len(set(ys[:50])) == len(set(ys[50:])) == 1
    assert ys[0] < ys[-1]  # the upper ends first


def test_markers_differ_and_strong_lines_have_no_gaps():
    lines = drawn(*(Series(str(k), [1], [1]) for k in range(6))).lines
    shapes = {re.sub(r"[-\d. ]+", "", line.marks) + str(len(line.marks)) for line in lines}
    assert len(shapes) >= 5
    assert len({line.dashes for line in lines[:4]}) == 4
    strong = drawn(Series("a", [1, 2], [1, 2]), Series("b", [1, 2], [1, 2], strong=True)).lines
    assert strong[1].strong
    assert strong[1].dashes == ""


def test_names_at_the_ends_keep_their_distance_and_their_order():
    view = drawn(*(Series(f"s{k}", [1, 2], [1, 1 + k / 1000]) for k in range(6)))
    heights = [float(line.label.y) for line in view.lines]
    gaps = [a - b for a, b in zip(heights, heights[1:], strict=False)]
    assert min(gaps) >= 14.8
    assert max(heights) <= view.y.start + 5
    assert all(float(line.label.x) > view.x.end for line in view.lines)


def test_long_names_stay_in_the_legend():
    assert drawn(Series("n" * 60, [1], [1]), Series("b", [1], [1])).lines[0].label is None
    assert drawn(Series("alone", [1], [1])).lines[0].label is None


def test_thinning_keeps_extremes_ends_and_gaps():
    heights = [math.sin(k / 300) for k in range(5000)]
    heights[1234], heights[3456] = 9.0, -9.0
    heights[2000:2200] = [None] * 200
    shown = thinned([Point(float(k), y) for k, y in enumerate(heights)], False)
    assert len(shown) <= 410
    kept = {p.x: p.y for p in shown}
    assert (kept[1234], kept[3456]) == (9.0, -9.0)
    assert {0.0, 4999.0} <= set(kept)
    assert any(p.y is None and 2000 <= p.x < 2200 for p in shown)
    assert [p.x for p in shown] == sorted(kept)


def test_on_a_logarithmic_axis_the_early_points_are_kept():
    shown = thinned([Point(float(k), float(k % 7)) for k in range(1, 100_001, 20)], True)
    assert [p.x for p in shown[:10]] == [1 + 20 * k for k in range(10)]
    assert len(shown) <= 410


def test_numbers_are_all_in_the_table_unless_they_are_very_many():
    chart = Chart("T", "calls", "y", [Series("a", [1, 2], [0.031, None], [0.029, None], [0.033, None])])
    assert numbers(chart) == ([("1", ["0.0310 (0.0290 to 0.0330)"]), ("2", [""])], 0)
    two = Chart("T", "calls", "y", [Series("a", [1, 3], [1, 3]), Series("b", [2, 3], [2, 4])])
    assert numbers(two)[0] == [("1", ["1", ""]), ("2", ["", "2"]), ("3", ["3", "4"])]
    long = Chart("T", "step", "y", [Series("a", range(5000), range(5000))])
    rows, left_out = numbers(long)
    assert (len(rows), left_out) == (200, 4800)
    assert (rows[0][0], rows[-1][0]) == ("0", "4,999")


def test_a_chart_is_told_in_words():
    chart = Chart("T", "calls", "RMSE", [Series("a", [2, 8], [0.5, 0.25]), Series("b", [4], [1])])
    shown = [points(s, False, False) for s in chart.series]
    assert summary(chart, shown) == "RMSE against calls. a: from 0.500 at 2 to 0.250 at 8. b: 1 at 4."
    assert interval(0.5, None, 0.75) == "0.500"


def test_what_is_read_out_lies_where_it_is_drawn(rendered):
    chart = Chart("T", "calls", "RMSE", [Series("a", [2, 4, 8], [0.5, None, 0.25]), Series("b", [2], [1])])
    tree = rendered(chart)
    data = json.loads(tree.all("script", id="data")[0].text)["chart-1"]
    assert data["series"][0] == {
        "name": "a",
        "points": [["2 calls", "0.500"], ["8 calls", "0.250"]],
    }
    for kind in ("wide", "narrow"):
        lines = tree.all("svg", class_=kind)[0].all("path", class_="line")
        assert [tuple(p) for p in data["views"][kind][0]] == corners(lines[0].attributes["d"])


def test_strong_lines_lie_on_top(rendered):
    strong = Series("a", [1, 2], [1, 2], strong=True)
    tree = rendered(Chart("T", "x", "y", [strong, Series("b", [1, 2], [2, 1]), Series("c", [1, 2], [2, 1])]))
    for kind in ("wide", "narrow"):
        groups = tree.all("svg", class_=kind)[0].all("g", class_="series")
        assert [e.attributes["data-series"] for e in groups] == ["b", "c", "a"]
    assert [e.text.strip() for e in tree.all("ul", class_="legend")[0].all("li")] == ["a", "b", "c"]


def test_a_chart_without_points_says_so(rendered):
    tree = rendered(Chart("T", "step", "loss", [Series("a", [], []), Series("b", [1], [None])], log_y=True))
    assert any(e.text == "no points" for e in tree.all("text"))


def test_a_series_must_have_as_many_of_each_number(rendered):
    with pytest.raises(ValueError, match="'a' must have as many of each number, not 2 of x, 1 of y"):
        rendered(Chart("T", "x", "y", [Series("a", [1, 2], [1])]))


def test_a_name_looks_the_same_on_the_whole_page(parsed):
    def chart(*names):
        return Chart("T", "x", "y", [Series(name, [1, 2], [1, 2]) for name in names])

    page = Page(
        "t", "s", [Section("s", [chart("a", "b"), Choice("c", {"1": Text(""), "2": chart("c", "b", "a")})])]
    )
    looks = {}
    for group in parsed(page.html()).all("g", class_="series"):
        looks.setdefault(group.attributes["data-series"], set()).add(group.attributes["class"])
    assert {name: len(classes) for name, classes in looks.items()} == {"a": 1, "b": 1, "c": 1}
    assert len(set.union(*looks.values())) == 3


def test_more_names_than_colours_share_them_but_not_in_one_chart():
    charts = [
        Chart("T", "x", "y", [Series(f"{k}-{j}", [1], [1]) for j in range(10)] + [Series("all", [1], [1])])
        for k in range(3)
    ]
    styles = Context.of(charts).styles
    assert len(styles) == 31
    for chart in charts:
        assert len({styles[series.name] for series in chart.series}) == 11
    crowded = Context.of([Chart("T", "x", "y", [Series(str(k), [1], [1]) for k in range(15)])]).styles
    assert set(crowded.values()) <= set(range(12))
