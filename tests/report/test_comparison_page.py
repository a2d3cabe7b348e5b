import json
import math
import re
from dataclasses import replace

import pytest
import torch

import fewstep as fs
from fewstep.report.comparison import chart, comparison_page, write_comparison
from fewstep.report.comparison._findings import finding, first_shown, worse_with_more
from fewstep.report.comparison._rows import better
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
    lines, psnr = parts(comparison_page([one]), Chart)
    assert [series.name for series in lines.series] == ["euler", "midpoint", "fitted non_stationary"]
    euler = lines.series[0]
    assert euler.x == [4, 8]
    assert euler.y == [row["rmse"] for row in one.rows[:2]]
    assert euler.low == [row["rmse_low"] for row in one.rows[:2]]
    assert [series.strong for series in lines.series] == [False, False, True]
    assert (lines.log_y, psnr.log_y) == (True, False)


def test_pictures_come_first_with_reference_best_classical_and_best_fitted_solver():
    one = table((1, 3, 4))
    page = comparison_page([one])
    assert headings(page)[:2] == ["Samples from the same noises", "Error and quality against network calls"]
    four, eight = parts(page, Pictures)
    assert [strip.name for strip in four.strips] == [
        "reference",
        "midpoint",
        "fitted non_stationary",
        "euler",
    ]
    assert four.lead == 3
    assert [strip.name for strip in eight.strips] == ["reference", "euler", "fitted non_stationary"]
    assert torch.equal(four.strips[0].pictures, one.kept.reference)
    for strip, row in zip(four.strips[1:], (2, 3, 0), strict=True):
        assert torch.equal(strip.pictures, one.kept.samples[row])
    assert four.strips[3].score == f"RMSE {one.rows[0]['rmse']:.3g}"


def test_figures_beside_samples_say_of_how_many_noises_they_are():
    (strips, _), (planes, _) = (
        parts(comparison_page([table(shape)]), kind)
        for shape, kind in (((1, 3, 4), Pictures), ((2,), Planes))
    )
    assert strips.note == planes.note == "RMSE: mean over 6 noises, the first of which are shown."
    error, _ = parts(comparison_page([table()]), Chart)
    assert error.note.startswith("Means over 6 noises, the same for every solver")


def test_the_better_figure():
    assert better("rmse", 0.1, 0.2)
    assert not better("rmse", 0.2, 0.1)
    assert all(better(gain, 0.2, 0.1) for gain in ("psnr", "precision", "recall", "density", "coverage"))
    for nothing in (None, math.nan, -math.inf, math.inf):
        assert better("rmse", 9.0, nothing)
        assert better("psnr", -9.0, nothing)
        assert not better("psnr", nothing, nothing)


def test_what_the_reference_has_itself_stands_under_its_chart():
    one = table(metrics=["rmse"], keep=0)
    rows = tuple({**row, "kid": 0.5} for row in one.rows)
    protocol = {**one.protocol, "reference": {**one.protocol["reference"], "kid": 0.25}}
    rmse, kid = parts(comparison_page([fs.Comparison(rows, ("rmse", "kid"), protocol)]), Chart)
    assert "The reference's own" not in rmse.note
    assert kid.note.endswith("The reference's own: 0.25.")


def test_points_in_the_plane_have_paths_and_no_pictures():
    page = comparison_page([table((2,))])
    assert "Samples from the same noises" in headings(page)
    assert not list(parts(page, Pictures))
    four, _ = parts(page, Planes)
    assert list(four.paths) == ["reference", "midpoint", "fitted non_stationary", "euler"]
    assert [path.shape[0] for path in four.paths.values()] == [33, 3, 2, 5]
    assert four.scores["reference"].endswith(" calls")
    assert all(score.startswith("RMSE ") for name, score in four.scores.items() if name != "reference")
    assert four.behind.shape == (3, 2)


@pytest.mark.parametrize("shape", [(7,), (4, 3, 3)])
def test_other_shapes_have_neither(shape):
    titles = headings(comparison_page([table(shape)]))
    assert titles[0] == "Error and quality against network calls"


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


def test_weights_are_those_of_fitted_solvers_and_the_best_classical_one():
    grids = parts(comparison_page([table()]), Grid)
    assert [grid.title for grid in grids] == [
        "Weights of fitted non_stationary, 4 calls",
        "Weights of midpoint, 4 calls",
        "Weights of fitted non_stationary, 8 calls",
        "Weights of euler, 8 calls",
    ]
    only = fs.compare(decay((2,)), [fs.classical.euler(2), fs.classical.midpoint(1)], noise=3, keep=1)
    assert len(parts(comparison_page([only]), Grid)) == 2


def test_without_kept_samples_there_are_figures_alone():
    page = comparison_page([table(keep=0)])
    assert headings(page) == [
        "Error and quality against network calls",
        "Network calls and seconds",
        "All figures",
        "How it was measured, and how to do it again",
    ]


def test_several_models_are_a_choice_everywhere():
    page = comparison_page([table((1, 3, 4), "one"), table((1, 3, 4), "two")])
    choices = [part for part in parts(page, Choice) if part.label == "Model"]
    assert len(choices) == 6
    assert page.summary.splitlines()[0].startswith("one: At ")
    assert all(list(choice.options) == ["one", "two"] for choice in choices)
    assert {slider.label for slider in parts(page, Slider)} == {"Network calls"}
    assert len(parts(page, Table)[-1].rows) == 10


def test_models_measured_differently_do_not_go_on_one_page():
    with pytest.raises(ValueError, match="one or more with the same metrics"):
        comparison_page([table(), table(metrics=["psnr"])])
    with pytest.raises(ValueError, match="one or more with the same metrics"):
        comparison_page([])


def test_the_gains_of_fits_are_a_table():
    scores = {
        "validation_rmse": {"heun": None, "euler": 0.5, "ab2": 0.2, "fitted": 0.05},
        "typical": 0.3,
        "left": 0.1,
    }
    one = replace(fitted(4), scores={**scores, "by_chance": None})
    kept = fs.compare(
        decay((2,)), {"fitted": [one, fitted(8)], "euler": fs.classical.euler(4)}, noise=6, keep=3
    )
    page = comparison_page([kept])
    (gains,) = (part for part in parts(page, Table) if part.caption == "Gains")
    assert gains.rows == [["fitted", 4, 0.05, "ab2", 0.25, 0.3, 0.1, None]]
    assert "The fits on their validation pairs" in headings(page)
    two = comparison_page([kept, replace(kept, rows=tuple({**row, "model": "other"} for row in kept.rows))])
    (gains,) = (part for part in parts(two, Table) if part.caption == "Gains")
    assert [row[:2] for row in gains.rows] == [["decay", "fitted"], ["other", "fitted"]]
    assert "typical ratio" in page.html()
    assert "The fits on their validation pairs" not in headings(comparison_page([table()]))


def rows(*figures):
    found = ({"solver": s, "nfe": n, "rmse": e, "milliseconds": 1.0} for s, n, e in figures)
    return tuple({"model": "m", **row} for row in found)


CLASSICAL = [("euler", 4, 0.4), ("euler", 8, 0.2), ("midpoint", 8, 0.1), ("euler", 16, 0.01)]


PROTOCOL = {"reference": {"nfe": 122}}


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (
            [("fitted", 4, 0.05), ("fitted", 8, 0.005), ("fitted", 16, 0.5)],
            "At 4 calls, fitted is closest to the model's 122-call samples: RMSE 0.05, best classical 0.4 "
            "(euler). No classical solver here is as close with up to 8 calls. A fitted solver is closest at "
            "8 calls too. At 16 calls it is euler: 0.01, fitted 0.5.",
        ),
        (
            [("fitted", 4, 0.35), ("fitted", 8, 0.02), ("fitted", 16, 0.001)],
            "At 8 calls, fitted is closest to the model's 122-call samples: RMSE 0.02, best classical 0.1 "
            "(midpoint). A fitted solver is closest at 4 and 16 calls too.",
        ),
        (
            [("fitted", 5, 0.02)],
            "At 5 calls, fitted is closest to the model's 122-call samples: RMSE 0.02, best classical 0.1 "
            "(midpoint, 8 calls).",
        ),
        (
            [("fitted", 4, 0.5), ("fitted", 8, 0.15)],
            "The fitted solvers gain nothing here: at 8 calls, midpoint is closest to the model's 122-call "
            "samples, RMSE 0.1, best fitted 0.15 (fitted).",
        ),
        ([], "Closest to the model's 122-call samples: euler with 16 calls, RMSE 0.01."),
    ],
    ids=["several", "largest-difference", "other-calls", "worse", "none"],
)
def test_the_headline_says_what_was_gained_in_numbers(mine, said):
    assert finding(fs.Comparison(rows(*CLASSICAL, *mine), ("rmse",), PROTOCOL)) == said


def test_a_page_opens_at_the_calls_with_the_largest_difference():
    mine = [("fitted", 4, 0.35), ("fitted", 8, 0.02), ("fitted", 16, 0.001)]
    found = rows(*CLASSICAL, *mine)
    assert first_shown([fs.Comparison(found, ("rmse",), {})]) == 8
    decibels = tuple({**row, "psnr": -20 * math.log10(row["rmse"])} for row in found)
    assert first_shown([fs.Comparison(decibels, ("psnr",), {})]) == 16
    assert first_shown([fs.Comparison(rows(*CLASSICAL), ("rmse",), {})]) == 8


def test_the_headline_says_what_samples_are_like_where_that_was_measured():
    found = tuple({**row, "frechet_mnist": 0.5} for row in rows(*CLASSICAL, ("fitted", 8, 0.02)))
    table = fs.Comparison(found, ("rmse", "frechet_mnist"), {"reference": {"frechet_mnist": 0.3}})
    assert finding(table).endswith(" Fréchet distance of its samples: 0.5; the reference's 0.3.")


def test_a_fitted_solver_that_is_worse_with_more_calls_is_explained():
    mine = [("fitted", 4, 0.05), ("fitted", 8, 0.07), ("fitted", 16, 0.001)]
    table = fs.Comparison(rows(*CLASSICAL, ("midpoint", 16, 0.3), *mine), ("rmse",), {})
    why = worse_with_more(table, "rmse")
    assert why.startswith("fitted is worse with 8 calls (0.07) than with 4 (0.05). Each number of calls")
    assert "midpoint" not in why
    assert chart(table, "rmse").note.endswith(why)
    assert worse_with_more(fs.Comparison(rows(*CLASSICAL, *mine[::2]), ("rmse",), {}), "rmse") == ""


def test_a_fitted_solver_is_known_by_its_family_whatever_its_name():
    fit = fs.fit(decay((2,)), nfe=2, pairs=8, max_calls=2000)
    given = {"mine": fit, "euler": fs.classical.euler(2)}
    one = fs.compare(decay((2,)), given, noise=6, keep=3)
    assert one.protocol["fitted"] == ["mine"]
    error, _ = parts(comparison_page([one]), Chart)
    assert [series.strong for series in error.series] == [True, False]


def test_costs_are_those_of_the_median_call():
    times = [("euler", 2, 2.0), ("euler", 4, 12.0), ("midpoint", 8, 16.0)]  # 1, 3 and 2 ms a call
    measured = tuple(
        {"model": "m", "solver": s, "nfe": n, "forwards": 2 * n, "rmse": 0.1, "milliseconds": t}
        for s, n, t in times
    )
    page = comparison_page([fs.Comparison(measured, ("rmse",), {"reference": {}})])
    (row,) = parts(page, Table)[0].rows
    assert row == [2, 2.0, 1.0, 3.0, 4.0, 8.0, 16.0]


def test_the_protocol_and_the_command_are_there():
    page = comparison_page([table()], command="fewstep compare x")
    assert parts(page, Code)[0].text == "fewstep compare x"
    facts = parts(page, Facts)[0].facts
    assert facts["reference"]["method"] == "dopri5"
    assert facts["field"]["model"] == "decay"


def test_sliders_start_at_the_largest_difference():
    one = table((1, 3, 4))
    sliders = parts(comparison_page([one]), Slider)
    assert {slider.start for slider in sliders} == {first_shown([one])}


def test_models_have_their_curvature():
    """Of x0 e^-t: E_t (x'(t) - (x(1) - x(0)))^2 over (x(1) - x(0))^2, by hand."""
    curved, _, everything = parts(comparison_page([table()]), Table)
    ((_, relative, calls),) = curved.rows
    chord = (1 - math.exp(-1)) ** 2
    assert relative == pytest.approx(((1 - math.exp(-2)) / 2 - chord) / chord, rel=2e-3)
    assert (calls > 6, len(everything.rows)) == (True, 5)


def test_headings_of_the_table_are_words():
    _, everything = parts(comparison_page([table(keep=0)]), Table)
    assert list(everything.columns[:6]) == [
        "solver", "network calls", "network forwards", "RMSE", "RMSE from", "RMSE to"
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
        assert [note.partition("under the chart: ")[2] for note in notes] == ["euler.", "", "euler."]
        planes = list(parts(comparison_page([self.table((2,))]), Planes))
        assert [len(part.paths) for part in planes] == [2, 2, 1]
        assert all(path.isfinite().all() for part in planes for path in part.paths.values())

    def test_the_summary_counts_failures_and_compares_with_none(self):
        assert finding(self.table((2,))).endswith(" 2 of 4 solvers failed.")
        assert finding(self.table((2,), (2,))).startswith("Closest to the model's ")

    def test_where_all_fail_there_is_a_page_nevertheless(self, tmp_path):
        failed = self.table((2,), (2, 4))
        failed = replace(failed, rows=failed.rows[:2], kept=None)
        write_comparison([failed, replace(self.table((2,), (3,), "other"), kept=None)], tmp_path)
        html = (tmp_path / "index.html").read_text()
        assert "hole: Every solver failed: no samples are finite. other: " in html
        assert "euler with 2 calls on hole" in html
        assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["rmse"] is None
