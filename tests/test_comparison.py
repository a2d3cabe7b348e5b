import json
import math

import pytest
import torch
from matplotlib.figure import Figure

import fewstep as fs


def strictly(text):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def field(shape=(2,)):
    return fs.Field(lambda x, t: -x, shape=shape, name="decay")


EULER, MIDPOINT = fs.classical.euler(4), fs.classical.midpoint(2)


def test_rows_hold_the_errors_of_samples_from_the_same_noises():
    """On u = -x Euler multiplies by (1 - 1/4)^4, and the exact factor is 1/e."""
    x0 = fs.noise(6, (2,), seed=5)
    (row,) = fs.compare(field(), [EULER], noise=x0).rows
    assert (row["solver"], row["nfe"]) == ("euler", 4)
    per_sample = (x0 * (0.75**4 - math.exp(-1))).square().mean(1)
    assert row["rmse"] == pytest.approx(float(per_sample.sqrt().mean()), rel=1e-4)
    assert row["psnr"] == pytest.approx(float((10 * (4 / per_sample).log10()).mean()), rel=1e-4)
    assert row["milliseconds"] > 0


def test_noise_as_a_number_a_tensor_or_pairs_gives_the_same_rows():
    x0 = fs.noise(6, (2,), seed=3)
    pairs = fs.reference.pairs(field(), x0, rtol=1e-6, atol=1e-6)
    tables = [
        fs.compare(field(), [EULER], noise=6, seed=3),
        fs.compare(field(), [EULER], noise=x0),
        fs.compare(field(), [EULER], noise=pairs),
    ]
    assert len({table.rows[0]["rmse"] for table in tables}) == 1
    assert [table.protocol["seed"] for table in tables] == [3, None, None]
    assert all(table.protocol["samples"] == 6 for table in tables)


def test_a_batch_smaller_than_the_noises_changes_nothing():
    whole, parts = (fs.compare(field(), [EULER], noise=7, batch=batch).rows[0] for batch in (7, 3))
    assert whole["rmse"] == pytest.approx(parts["rmse"], rel=1e-4)


def test_conditions_go_with_their_noises():
    conditional = fs.Field(lambda x, t, target: target - x, shape=(2,))
    target = fs.noise(7, (2,), seed=1)
    (row,) = fs.compare(conditional, [fs.classical.rk4(4)], noise=7, batch=3, target=target).rows
    assert row["rmse"] < 1e-4


def test_conditions_besides_pairs_are_refused_not_ignored():
    pairs = fs.Pairs(torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="carry their own conditions, but label came besides"):
        fs.compare(field(), [EULER], noise=pairs, label=3)


def test_protocol_says_how_it_was_measured():
    protocol = fs.compare(field(), [EULER], noise=3).protocol
    assert protocol["field"] == field().describe()
    assert protocol["reference"]["method"] == "dopri5"
    assert protocol["reference"]["error"] < 1e-5
    assert protocol["reference"]["nfe"] > 6


def test_several_solvers_under_one_name():
    groups = {"mine": [fs.classical.euler(n) for n in (2, 4)], "other": MIDPOINT}
    table = fs.compare(field(), groups, noise=4)
    assert [(row["solver"], row["nfe"]) for row in table.rows] == [("mine", 2), ("mine", 4), ("other", 4)]


def test_json_holds_rows_and_protocol():
    table = fs.compare(field(), [EULER, MIDPOINT], noise=4)
    content = strictly(table.to_json())
    assert content["rows"] == [dict(row) for row in table.rows]
    assert content["protocol"]["samples"] == 4


def test_json_is_strict_where_pairs_have_no_error_estimate():
    x0 = fs.noise(4, (2,))
    table = fs.compare(field(), [EULER], noise=fs.Pairs(x0, x0 * math.exp(-1)))
    assert strictly(table.to_json())["protocol"]["reference"]["error"] is None


def comparison():
    rows = (
        {"solver": "euler", "nfe": 4, "rmse": 0.123456, "milliseconds": 1.0},
        {"solver": "euler", "nfe": 8, "rmse": 0.05, "milliseconds": 1.0},
        {"solver": "fitted", "nfe": 8, "rmse": 0.001, "milliseconds": 1.0},
    )
    return fs.Comparison(rows, ("rmse",), {"field": {"model": "m"}, "samples": 4})


def test_markdown_has_a_line_a_solver():
    assert comparison().to_markdown() == (
        "| solver | nfe | rmse |\n"
        "| --- | --- | --- |\n"
        "| euler | 4 | 0.1235 |\n"
        "| euler | 8 | 0.05 |\n"
        "| fitted | 8 | 0.001 |\n"
    )


def test_by_nfe_has_a_column_a_budget_and_gaps_where_nothing_was_measured():
    head, euler, fitted = comparison().by_nfe("rmse").splitlines()
    assert head.split() == ["rmse", "4", "calls", "8", "calls"]
    assert euler.split() == ["euler", "0.1235", "0.05"]
    assert fitted.split() == ["fitted", "0.001"]
    assert fitted.index("0.001") + len("0.001") == euler.index("0.05") + len("0.05")


def test_plot_returns_a_figure_with_a_line_a_solver():
    figure = comparison().plot()
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert {line.get_label(): list(line.get_xdata()) for line in axes.lines} == {
        "euler": [4, 8],
        "fitted": [8],
    }
    assert list(axes.lines[0].get_ydata()) == [0.123456, 0.05]


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match=r"unknown metrics fid; known are rmse, psnr, pooled_rmse\.$"):
        fs.compare(field(), [EULER], metrics=["rmse", "fid"])


def test_no_solver_at_all_is_an_error():
    with pytest.raises(ValueError, match="compare: there is no solver to score"):
        fs.compare(field(), [], noise=2)


def test_noises_of_unknown_shape_are_refused():
    with pytest.raises(ValueError, match=r"noise=9 asks for noises, .* or Field\(..., shape=...\)"):
        fs.compare(fs.Field(lambda x, t: -x), [EULER], noise=9)
