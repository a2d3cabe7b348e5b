import math

import numpy as np
import pytest
import scipy.stats
import torch

import fewstep as fs
from fewstep.metrics import METRICS, ErrorMeter, Estimate, Moments, estimate_error, paired_difference


def errors(seed, count=40):
    """Mean square errors with a long tail."""
    return torch.from_numpy(np.random.default_rng(seed).gamma(2.0, size=count))


@pytest.mark.parametrize("count", [2, 3, 4, 6, 11, 30, 1000])
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).normal(3, 2, count)
    found = Estimate.of(torch.from_numpy(values))
    low, high = scipy.stats.t.interval(
        0.95, count - 1, loc=values.mean(), scale=values.std(ddof=1) / math.sqrt(count)
    )
    assert (found.value, found.count) == (pytest.approx(values.mean()), count)
    tolerance = (high - low) * (1e-5 if count > 10 else 1e-3)
    assert found.low == pytest.approx(low, abs=tolerance)
    assert found.high == pytest.approx(high, abs=tolerance)
    assert found.margin == pytest.approx((high - low) / 2, abs=tolerance)


def test_a_single_sample_says_nothing_of_the_mean():
    found = Estimate.of(torch.tensor([3.0]))
    assert (found.value, found.low, found.high) == (3, -math.inf, math.inf)


def test_it_reads_well():
    assert str(Estimate(0.123456, 0.12, 0.1268, 256)) == "0.1235 ± 0.0034 (256 samples)"


def test_values_may_come_in_batches():
    values = errors(0)
    moments = Moments.of(values[:7, None]) + Moments.of(values[7:, None])
    found, expected = Estimate.of(moments), Estimate.of(values)
    assert found.value == pytest.approx(expected.value, rel=1e-14)
    assert found.margin == pytest.approx(expected.margin, rel=1e-12)


#: The metrics as functions of samples and their reference.
FUNCTIONS = {
    "rmse": fs.metrics.rmse,
    "psnr": fs.metrics.psnr,
    "pooled_rmse": fs.metrics.pooled_rmse,
}


@pytest.mark.parametrize("metric", list(METRICS))
class TestMetric:
    def test_the_value_is_that_of_the_function(self, metric):
        x, y = fs.noise(20, (3,), seed=1), fs.noise(20, (3,), seed=2)
        found = estimate_error(metric, fs.metrics.per_sample_mse(x, y))
        assert found.value == pytest.approx(float(FUNCTIONS[metric](x, y)), rel=1e-14)
        assert found.low < found.value < found.high
        assert found.count == 20

    def test_batches_give_what_the_whole_gives(self, metric):
        mse = errors(1)
        first, second = ErrorMeter(), ErrorMeter()
        for batch in mse[:30].split(8):
            first.update(batch)
        second.update(mse[30:])
        expected = estimate_error(metric, mse)
        for meter in (first + second, (first + second).over_processes()):
            found = meter.estimate(metric)
            assert found.value == pytest.approx(expected.value, rel=1e-13)
            assert found.margin == pytest.approx(expected.margin, rel=1e-11)
            assert found.count == 40

    def test_the_interval_covers_the_truth_in_95_of_100_repetitions(self, metric):
        """Of 100 errors from a gamma law, whose moments are known."""
        shape, count, repetitions = 4.0, 100, 1500
        draws = torch.from_numpy(np.random.default_rng(7).gamma(shape, size=(repetitions, count)))
        truth = {
            "rmse": math.gamma(shape + 0.5) / math.gamma(shape),
            "psnr": 20 * math.log10(2) - 10 / math.log(10) * float(torch.digamma(torch.tensor(shape))),
            "pooled_rmse": math.sqrt(shape),
        }[metric]
        found = [estimate_error(metric, mse) for mse in draws]
        covered = sum(one.low <= truth <= one.high for one in found) / repetitions
        assert covered == pytest.approx(0.95, abs=0.015)  # 2.7 standard deviations

    def test_the_paired_difference_is_that_of_the_metrics_with_a_narrower_interval(self, metric):
        mse = errors(2)
        other = mse * 1.1 + 0.01 * errors(3)
        found = paired_difference(mse, other, metric)
        first, second = estimate_error(metric, mse), estimate_error(metric, other)
        assert found.value == pytest.approx(first.value - second.value, rel=1e-12)
        assert found.margin < 0.2 * math.hypot(first.margin, second.margin)
        assert found.high < 0 or metric == "psnr"
        assert found.low > 0 or metric != "psnr"

    def test_independent_errors_gain_nothing_by_pairing(self, metric):
        mse, other = errors(4, 4000), errors(5, 4000)
        margins = [estimate_error(metric, x).margin for x in (mse, other)]
        assert paired_difference(mse, other, metric).margin == pytest.approx(math.hypot(*margins), rel=0.05)

    def test_equal_solvers_do_not_differ(self, metric):
        found = paired_difference(errors(6), errors(6), metric)
        assert found.value == 0
        assert found.margin < 1e-7

    def test_exact_samples(self, metric):
        found = estimate_error(metric, torch.zeros(5, dtype=torch.float64))
        assert math.isfinite(found.value)
        assert found.margin == 0


@pytest.mark.parametrize("scale", [1e-80, 1e-7, 1e80])
def test_errors_of_any_size_have_intervals(scale):
    """Whose slopes are beyond float32."""
    one, scaled = (estimate_error("pooled_rmse", errors(7) * factor) for factor in (1, scale))
    assert scaled.value == pytest.approx(one.value * math.sqrt(scale), rel=1e-12)
    assert scaled.margin == pytest.approx(one.margin * math.sqrt(scale), rel=1e-12)


def test_the_intervals_of_paired_differences_cover_the_truth():
    rng = np.random.default_rng(8)
    mse = torch.from_numpy(rng.gamma(4.0, size=(1500, 100)))
    other = mse + torch.from_numpy(rng.gamma(2.0, size=(1500, 100)))  # gamma again, of shape 6
    truth = 2 - math.sqrt(6)
    found = [paired_difference(x, y, "pooled_rmse") for x, y in zip(mse, other, strict=True)]
    covered = sum(one.low <= truth <= one.high for one in found) / len(found)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_of_a_law_with_a_heavy_tail_the_interval_is_too_narrow():
    """As the class says: few samples seldom show the errors that make the mean."""
    draws = torch.from_numpy(np.random.default_rng(9).lognormal(0, 2, size=(1000, 50)))
    found = [Estimate.of(values) for values in draws]
    covered = sum(one.low <= math.exp(2) <= one.high for one in found) / len(found)
    assert 0.6 < covered < 0.8


class TestErrors:
    def test_more_than_one_value_a_sample(self):
        with pytest.raises(ValueError, match=r"one number a sample, \(n,\), not of shape \(2, 2\)"):
            Estimate.of(torch.zeros(2, 2))
        with pytest.raises(ValueError, match="one number a sample, not 2; take the moments of one column"):
            Estimate.of(Moments.of(torch.zeros(3, 2)))
        with pytest.raises(
            ValueError, match=r"one mean square error a sample, \(n,\), not of shape \(2, 2\)"
        ):
            estimate_error("rmse", torch.zeros(2, 2))

    def test_no_samples(self):
        with pytest.raises(ValueError, match="needs at least 1 feature vectors, not 0"):
            Estimate.of(torch.zeros(0))

    def test_other_noises(self):
        with pytest.raises(ValueError, match="errors on the same noises, not on 40 and 39"):
            paired_difference(errors(0), errors(0)[1:])

    def test_an_unknown_metric(self):
        with pytest.raises(ValueError, match=r"must be one of rmse, psnr, pooled_rmse.* not 'fid'"):
            paired_difference(errors(0), errors(0), "fid")
        with pytest.raises(ValueError, match="not 'fid'"):
            ErrorMeter().estimate("fid")
