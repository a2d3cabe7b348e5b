import json
import math
import re
from dataclasses import replace

import pytest
import torch

import fewstep as fs
from fewstep.report.comparison import comparison_page, write_comparison
from fewstep.report.comparison._summary import finding
from fewstep.report.page import Chart, Choice, Code, Facts, Grid, Pictures, Planes, Slider, Table, Timeline


def decay(shape, name="decay"):
    return fs.Field(lambda x, t: -x, shape=shape, name=name)


def fitted(nfe):
    """A solver that is called fitted, and exact on the decay."""
    return fs.classical.rk4(nfe // 4)


def table(shape=(2,), name="decay", metrics=("rmse", "psnr"), keep=3):
    solvers = {
        "euler": [fs.classical.euler(n) for n in (4, 8)],
        "midpoint": [fs.classical.midpoint(2)],
        "fitted non_stationary": [fitted(4), fitted(8)],
    }
    return fs.compare(decay(shape), solvers, noise=6, metrics=metrics, keep=keep, model=name)


def parts(page, kind):
    """All parts of one kind on a page, however deep in choices and sliders."""

    def walk(part):
        if isinstance(part, kind):
            yield part
        for inner in getattr(part, "options", getattr(part, "frames", {})).values():
            yield from walk(inner)

    return [found for section in page.sections for part in section.parts for found in walk(part)]


def headings(page):
    return [section.title for section in page.sections]


def test_a_chart_has_a_line_a_solver_with_intervals():
    one = table()
    chart, psnr, against_time = parts(comparison_page([one]), Chart)
    assert [series.name for series in chart.series] == ["euler", "midpoint", "fitted non_stationary"]
    euler = chart.series[0]
    assert euler.x == [4, 8]
    assert euler.y == [row["rmse"] for row in one.rows[:2]]
    assert euler.low == [row["rmse_low"] for row in one.rows[:2]]
    assert [series.strong for series in chart.series] == [False, False, True]
    assert (chart.log_y, psnr.log_y) == (True, False)
    assert (against_time.log_x, against_time.x_label) == (True, "milliseconds a sample")


def test_pictures_have_the_reference_first_and_then_the_best():
    one = table((1, 3, 4))
    four, eight = parts(comparison_page([one]), Pictures)
    assert [strip.name for strip in four.strips] == [
        "reference",
        "fitted non_stationary",
        "midpoint",
        "euler",
    ]
    assert [strip.name for strip in eight.strips] == ["reference", "fitted non_stationary", "euler"]
    assert torch.equal(four.strips[0].pictures, one.kept.reference)
    assert torch.equal(four.strips[3].pictures, one.kept.samples[0])
    assert four.strips[3].score == f"RMSE {one.rows[0]['rmse']:.3g}"


def test_points_in_the_plane_have_paths_and_no_pictures():
    page = comparison_page([table((2,))])
    assert "Trajectories" in headings(page)
    assert "The same noises" not in headings(page)
    four, _ = parts(page, Planes)
    assert [name.split(",")[0] for name in four.paths] == [
        "reference", "fitted non_stationary", "midpoint", "euler"
    ]  # fmt: skip
    assert [path.shape[0] for path in four.paths.values()] == [33, 2, 3, 5]


@pytest.mark.parametrize("shape", [(7,), (4, 3, 3)])
def test_other_shapes_have_neither(shape):
    titles = headings(comparison_page([table(shape)]))
    assert not {"Trajectories", "The same noises"} & set(titles)


def test_numbers_are_those_of_the_solvers():
    page = comparison_page([table()])
    times = parts(page, Timeline)[0].rows
    assert times["euler"] == (0, 0.25, 0.5, 0.75)
    grid = next(grid for grid in parts(page, Grid) if "midpoint" in grid.title)
    # x1 = x0 + u0/4, x2 = x0 + u1/2, ...
    assert grid.values == [
        [1, 0.25, None, None, None],
        [1, 0, 0.5, None, None],
        [1, 0, 0.5, 0.25, None],
        [1, 0, 0.5, 0, 0.5],
    ]
    assert (grid.rows[0], grid.columns[:2]) == ("x1", ["x0", "u0"])


def test_without_kept_samples_there_are_figures_alone():
    page = comparison_page([table(keep=0)])
    assert headings(page) == [
        "Error and quality against network calls",
        "Error against time",
        "All figures",
        "How it was measured, and how to do it again",
    ]


def test_several_models_are_a_choice_everywhere():
    page = comparison_page([table((1, 3, 4), "one"), table((1, 3, 4), "two")])
    choices = [part for part in parts(page, Choice) if part.label == "Model"]
    assert len(choices) == 7
    assert all(list(choice.options) == ["one", "two"] for choice in choices)
    assert {slider.label for slider in parts(page, Slider)} == {"Network calls"}
    assert len(parts(page, Table)[-1].rows) == 10


def test_models_measured_differently_do_not_go_on_one_page():
    with pytest.raises(ValueError, match="one or more with the same metrics"):
        comparison_page([table(), table(metrics=["psnr"])])
    with pytest.raises(ValueError, match="one or more with the same metrics"):
        comparison_page([])


def test_the_summary_names_the_greatest_gain_and_what_others_need():
    rows = [("euler", 4, 0.4), ("euler", 8, 0.2), ("midpoint", 8, 0.1), ("euler", 16, 0.01)]
    mine = [("fitted", 4, 0.2), ("fitted", 8, 0.02)]
    rows = tuple(
        {"model": "m", "solver": s, "nfe": n, "rmse": e, "milliseconds": 1.0} for s, n, e in rows + mine
    )
    found = fs.Comparison(rows, ("rmse",), {"reference": {}})
    assert finding(found) == (
        "On m, with 8 network calls, fitted has RMSE 0.02; the best of the classical solvers here, midpoint, "
        "has 0.1, and the first of them to be as good needs 16 calls."
    )
    fewer = fs.Comparison(rows[:3] + rows[4:], ("rmse",), {"reference": {}})
    assert finding(fewer).endswith("has 0.1, and none of them is as good with up to 8 calls.")
    only = fs.Comparison(rows[:3], ("rmse",), {"reference": {}})
    assert finding(only) == "On m the best RMSE is 0.1, of midpoint with 8 calls."


def test_the_protocol_and_the_command_are_there():
    page = comparison_page([table()], command="fewstep compare x")
    assert parts(page, Code)[0].text == "fewstep compare x"
    facts = parts(page, Facts)[0].facts
    assert facts["reference"]["method"] == "dopri5"
    assert facts["field"]["model"] == "decay"


def test_sliders_start_where_most_is_gained():
    """The fitted solver is 300 times better than Euler with 8 calls, and 60 times than midpoint with 4."""
    sliders = parts(comparison_page([table((1, 3, 4))]), Slider)
    assert {slider.start for slider in sliders} == {8}


def test_models_have_their_curvature():
    """Of x0 e^-t: E_t (x'(t) - (x(1) - x(0)))^2 over (x(1) - x(0))^2, by hand."""
    curved, everything = parts(comparison_page([table()]), Table)
    ((model, _, relative, calls),) = curved.rows
    chord = (1 - math.exp(-1)) ** 2
    assert relative == pytest.approx(((1 - math.exp(-2)) / 2 - chord) / chord, rel=2e-3)
    assert (model, calls > 6, len(everything.rows)) == ("decay", True, 5)


def test_headings_of_the_table_are_words():
    (everything,) = parts(comparison_page([table(keep=0)]), Table)
    assert list(everything.columns[:7]) == [
        "model", "solver", "network calls", "network forwards", "RMSE", "RMSE from", "RMSE to"
    ]  # fmt: skip


def test_files_of_a_comparison(tmp_path):
    files = write_comparison(
        [table((1, 3, 4), "a/b"), table((1, 3, 4), "c")], tmp_path, command="fewstep compare x"
    )
    names = [file.rpartition("/")[2] for file in files]
    assert names == [
        "results.json", "results.csv", "results.md", "index.html", "error-against-nfe-a-b.png",
        "error-against-nfe-c.png",
    ]  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["rows"]) == len(results["solvers"]) == 10
    assert results["solvers"][0]["times"] == [0, 0.25, 0.5, 0.75]
    assert set(results["protocols"]) == {"a/b", "c"}
    assert (
        (tmp_path / "results.csv")
        .read_text()
        .startswith("model,solver,nfe,forwards,rmse,rmse_low,rmse_high,")
    )
    assert (tmp_path / "results.md").read_text().startswith("| model | solver | nfe | rmse | psnr |")
    html = (tmp_path / "index.html").read_text()
    assert not re.search(r"(src|href)=.https?:", html)
    assert "fitted non_stationary" in html


class TestFailures:
    """A network that returns NaN at t = 1/2, where Euler calls it with two and four calls, not with three."""

    def table(self, shape, budgets=(2, 3, 4), name="hole"):
        hole = fs.Field(lambda x, t: -x.where(t[0] != 0.5, math.nan), shape=shape, name=name)
        solvers = {"euler": [fs.classical.euler(n) for n in budgets], "fitted": fs.classical.heun(1)}
        return fs.compare(hole, solvers, noise=5, keep=3, model=name)

    def test_the_chart_has_a_gap_and_the_reason_stands_below(self):
        choice, _, why = comparison_page([self.table((7,))]).sections[0].parts
        euler, _ = next(iter(choice.options.values())).series
        assert [math.isnan(y) for y in euler.y] == [True, False, True]
        assert list(why.facts) == ["euler with 2 calls", "euler with 4 calls"]
        assert "returned NaN or infinity at call 1 of 2, t = 0.5" in why.facts["euler with 2 calls"]

    def test_there_is_nothing_to_see_of_it(self):
        page = comparison_page([self.table((1, 3, 3))])
        strips = [[strip.name for strip in part.strips] for part in parts(page, Pictures)]
        assert strips == [["reference", "fitted"], ["reference", "euler"], ["reference"]]
        notes = [part.note for part in parts(page, Pictures)]
        assert [note.partition(": ")[2] for note in notes] == ["euler.", "", "euler."]
        planes = list(parts(comparison_page([self.table((2,))]), Planes))
        assert [len(part.paths) for part in planes] == [2, 2, 1]
        assert all(path.isfinite().all() for part in planes for path in part.paths.values())

    def test_the_summary_counts_failures_and_compares_with_none(self):
        assert finding(self.table((2,))).endswith(" 2 of 4 solvers failed.")
        assert finding(self.table((2,), (2,))).startswith("On hole the best RMSE is ")

    def test_where_all_fail_there_is_a_page_nevertheless(self, tmp_path):
        failed = self.table((2,), (2, 4))
        failed = replace(failed, rows=failed.rows[:2], kept=None)
        write_comparison([failed, replace(self.table((2,), (3,), "other"), kept=None)], tmp_path)
        html = (tmp_path / "index.html").read_text()
        assert "On hole every solver failed: no samples are finite. On other " in html
        assert "euler with 2 calls on hole" in html
        assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["rmse"] is None
