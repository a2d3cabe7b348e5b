import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

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


def test_a_row_has_the_forwards_and_the_time_of_a_sample(monkeypatch):
    guided = fs.Field(lambda x, t, label: -x, shape=(2,), guidance=2, unconditional={"label": torch.zeros(1)})
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)  # a second for a batch
    monkeypatch.setattr("fewstep.comparison._measure.time", clock)
    (row,) = fs.compare(guided, [EULER], noise=7, batch=3, per_sample={"label": torch.ones(7, 1)}).rows
    assert (row["nfe"], row["forwards"]) == (4, 8)
    assert row["milliseconds"] == pytest.approx(1000 / 3)


def test_the_reference_may_be_on_a_fixed_grid():
    """Two Runge-Kutta steps for a rough network, as of :func:`fewstep.reference.pairs`."""
    x0 = fs.noise(6, (2,), seed=3)
    table = fs.compare(field(), [EULER], noise=x0, steps=2)
    pairs = fs.reference.pairs(field(), x0, steps=2)
    assert table.protocol["reference"]["steps"] == 2
    assert table.protocol["reference"]["error"] == pairs.error > 1e-5
    assert table.rows[0]["rmse"] == fs.compare(field(), [EULER], noise=pairs).rows[0]["rmse"]


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


def test_noises_that_are_drawn_lie_where_they_are_wanted(monkeypatch):
    drawn = []

    def draw(count, shape, *, seed, device):
        drawn.append(device)
        return noise(count, shape, seed=seed)

    noise = fs.noise
    monkeypatch.setattr("fewstep.pairs.noise", draw)
    fs.compare(field(), [EULER], noise=3, device="cpu:0")
    assert drawn == [torch.device("cpu:0")]
    with pytest.raises(ValueError, match="device: 'nowhere' cannot be used"):
        fs.compare(field(), [EULER], noise=3, device="nowhere")


def test_conditions_go_with_their_noises():
    conditional = fs.Field(lambda x, t, target: target - x, shape=(2,))
    target = fs.noise(7, (2,), seed=1)
    (row,) = fs.compare(
        conditional, [fs.classical.rk4(4)], noise=7, batch=3, per_sample={"target": target}
    ).rows
    assert row["rmse"] < 1e-4


def test_conditions_besides_pairs_are_refused_not_ignored():
    pairs = fs.Pairs(torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="carry their own conditions, but label came besides"):
        fs.compare(field(), [EULER], noise=pairs, conditions={"label": 3})


def test_different_solvers_of_one_name_and_number_of_calls_are_told_apart():
    solvers = [fs.classical.named(name, 8) for name in ("deis3", "deis3/cosine", "deis3")]
    assert [row["solver"] for row in fs.compare(field(), solvers, noise=3).rows] == ["deis3", "deis3/cosine"]
    renamed = replace(solvers[1], name="deis3")
    assert [row["solver"] for row in fs.compare(field(), [solvers[0], renamed], noise=3).rows] == [
        "deis3", "deis3 (2)"
    ]  # fmt: skip


def test_a_network_that_is_a_function_has_its_name():
    def swirl(x, t):
        return -x

    networks = (swirl, lambda x, t: -x)
    tables = [fs.compare(fs.Field(network, shape=(2,)), [EULER], noise=2) for network in networks]
    names = [table.model for table in tables]
    assert names == ["swirl", "model"]


def test_one_solver_needs_no_list():
    one, listed = (fs.compare(field(), given, noise=3).rows[0] for given in (EULER, [EULER]))
    assert one["rmse"] == listed["rmse"]


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


def test_fitted_solvers_are_called_by_their_family_whatever_their_nfe():
    fitted = [replace(fs.classical.euler(n), family={"name": "curve", "theta": []}) for n in (2, 4)]
    table = fs.compare(field(), [EULER, *fitted], noise=4)
    assert [row["solver"] for row in table.rows] == ["euler", "fitted curve", "fitted curve"]


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
    rows = tuple({"model": "m", **row} for row in rows)
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
    lines = {patch.get_label(): patch.get_path() for patch in axes.patches}
    assert (len(lines["euler"]), len(lines["fitted"])) == (2, 1)


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match=r"metrics must be one of rmse, psnr, pooled_rmse.* not 'fid'"):
        fs.compare(field(), [EULER], metrics=["rmse", "fid"])


def test_means_over_noises_have_intervals():
    (row,) = fs.compare(field(), [EULER], noise=50, metrics=["rmse", "psnr", "pooled_rmse"]).rows
    for metric in ("rmse", "psnr", "pooled_rmse"):
        assert row[f"{metric}_low"] < row[metric] < row[f"{metric}_high"]


def test_csv_has_every_column_and_gaps():
    rows = ({"solver": "euler", "nfe": 4, "rmse": 0.1}, {"solver": "a, b", "nfe": 8, "kid": 0.5})
    table = fs.Comparison(rows, ("rmse",), {})
    assert table.to_csv() == 'solver,nfe,rmse,kid\neuler,4,0.1,\n"a, b",8,,0.5\n'


class TestKept:
    def test_nothing_is_kept_unless_asked_for(self):
        assert fs.compare(field(), [EULER], noise=3).kept is None

    def test_samples_are_those_of_the_solvers_over_batches(self):
        x0 = fs.noise(7, (2, 3), seed=2)
        kept = fs.compare(field((2, 3)), [EULER, MIDPOINT], noise=x0, batch=3, keep=5).kept
        for solver, samples in zip((EULER, MIDPOINT), kept.samples, strict=True):
            torch.testing.assert_close(samples, solver.sample(field((2, 3)), x0[:5]))
        torch.testing.assert_close(kept.reference, x0[:5] * math.exp(-1), rtol=1e-4, atol=1e-5)
        assert kept.solvers == (EULER, MIDPOINT)
        assert kept.paths == ()
        assert kept.reference_path is None

    def test_points_in_the_plane_have_paths(self):
        x0 = fs.noise(6, (2,), seed=2)
        kept = fs.compare(field(), [EULER, MIDPOINT], noise=x0, keep=4).kept
        assert [path.shape for path in kept.paths] == [(5, 4, 2), (3, 4, 2)]
        torch.testing.assert_close(kept.paths[0][0], x0[:4])
        torch.testing.assert_close(kept.paths[1][-1], kept.samples[1])
        assert kept.reference_path.shape == (33, 4, 2)
        torch.testing.assert_close(kept.reference_path[16], x0[:4] * math.exp(-0.5), rtol=1e-4, atol=1e-5)

    def test_the_model_has_a_curvature(self):
        """Of x0 e^-t: E_t (x'(t) - (x(1) - x(0)))^2 over (x(1) - x(0))^2, by hand."""
        protocol = fs.compare(field(), [EULER], noise=6, keep=1).protocol
        square = (1 - math.exp(-2)) / 2
        chord = (1 - math.exp(-1)) ** 2
        assert protocol["curvature"]["relative"] == pytest.approx((square - chord) / chord, rel=2e-3)


class Mean:
    """A quality that is the mean of all samples, and how many meters were made."""

    names = ("mean",)

    def __init__(self):
        self.meters = 0

    def describe(self):
        return {"quality": "mean"}

    def meter(self):
        self.meters += 1
        return MeanMeter()


class MeanMeter:
    def __init__(self):
        self.seen = []

    def update(self, x1):
        self.seen.append(x1)

    def figures(self):
        return {"mean": float(torch.cat(self.seen).mean())}


def test_a_quality_sees_all_samples_of_a_solver_and_those_of_the_reference():
    x0 = fs.noise(7, (2,), seed=4)
    table = fs.compare(field(), [EULER, MIDPOINT], noise=x0, batch=3, quality=Mean())
    assert table.metrics == ("rmse", "psnr", "mean")
    for row, solver in zip(table.rows, (EULER, MIDPOINT), strict=True):
        assert row["mean"] == pytest.approx(float(solver.sample(field(), x0).mean()), rel=1e-5)
    assert table.protocol["reference"]["mean"] == pytest.approx(float(x0.mean()) * math.exp(-1), rel=1e-3)
    assert table.protocol["quality"] == {"quality": "mean"}


def test_no_solver_at_all_is_an_error():
    with pytest.raises(ValueError, match="compare: there is no solver to score"):
        fs.compare(field(), [], noise=2)


def test_noises_of_unknown_shape_are_refused():
    with pytest.raises(ValueError, match=r"noise=9 draws noises, .* or Field\(..., shape=...\)"):
        fs.compare(fs.Field(lambda x, t: -x), [EULER], noise=9)


class TestFailures:
    """A network that returns NaN at t = 1/2, where two steps of Euler call it and three do not."""

    solvers = (fs.classical.euler(2), fs.classical.euler(3))

    def table(self, **options):
        x0 = fs.noise(6, (2,), seed=5)
        hole = fs.Field(self.velocity, shape=(2,), name="hole")
        pairs = fs.Pairs(x0, x0 * math.exp(-1))
        return fs.compare(hole, self.solvers, noise=pairs, **options)

    @staticmethod
    def velocity(x, t):
        return -x.where(t[0] != 0.5, math.nan)

    def test_one_failing_solver_does_not_lose_the_others(self):
        failed, sound = self.table(quality=Mean()).rows
        figures = ("rmse", "rmse_low", "psnr", "psnr_high", "mean", "milliseconds")
        assert all(math.isnan(failed[name]) for name in figures)
        assert failed["failure"].startswith("the network returned NaN or infinity at call 1 of 2, t = 0.5")
        assert sound["rmse"] > 0
        assert "failure" not in sound

    @pytest.mark.parametrize(("table", "number"), [("C", 1e39), ("D", -1e39), ("C", 1e300), ("C", 3e38)])
    def test_one_overflowing_solver_does_not_lose_the_others(self, table, number):
        rows = [list(row) for row in getattr(MIDPOINT, table)]
        rows[1][0] = number
        wild = replace(MIDPOINT, name="wild", **{table: tuple(map(tuple, rows))})
        found = fs.compare(field(), {"wild": wild, "sound": MIDPOINT}, noise=fs.noise(8, (2,)) * 10, keep=2)
        failed, sound = found.rows
        assert math.isnan(failed["rmse"])
        assert failed["failure"].startswith("solver 'wild' overflows")
        assert "failure" not in sound
        assert "wild with 4 calls failed: solver 'wild' overflows" in str(found)
        twice = fs.noise(8, (2,), dtype=torch.float64)
        if abs(number) < 1e100:
            assert wild.sample(field(), twice).isfinite().all()  # as float64 has room

    def test_tables_say_so(self):
        table = self.table()
        assert table.by_nfe("rmse").splitlines()[1].split()[:2] == ["euler", "failed"]
        assert str(table).splitlines()[-1].startswith("euler with 2 calls failed: the network returned NaN")
        assert "| euler | 2 | failed | failed |" in table.to_markdown()
        assert strictly(table.to_json())["rows"][0]["rmse"] is None

    def test_rows_and_what_is_kept_stay_together(self):
        kept = self.table(keep=4).kept
        assert kept.samples[0].isnan().all()
        assert [samples.shape for samples in kept.samples] == [(4, 2)] * 2
        assert [path.shape for path in kept.paths] == [(3, 4, 2), (4, 4, 2)]
        assert kept.paths[1].isfinite().all()

    def test_a_failure_is_tried_again(self, tmp_path):
        first, again = (self.table(cache=tmp_path).failures for _ in range(2))
        assert first == again
        assert len(first) == len(list(tmp_path.iterdir())) == 1
