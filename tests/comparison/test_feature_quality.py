import pytest

import fewstep as fs
from fewstep.comparison import FeatureQuality
from fewstep.metrics import Moments, frechet_distance, precision_recall, squared_mmd
from fewstep.metrics.features import FeatureNetwork, quantize

EULER = fs.classical.euler(4)


def field(shape):
    return fs.Field(lambda x, t: -x, shape=shape, name="decay")


class TestFeatureQuality:
    """In features that are the levels of the pixels themselves."""

    shape = (1, 2, 2)

    def quality(self, whole=False):
        network = FeatureNetwork.of(lambda pictures: pictures.flatten(1) / 1.0, "pixels", dims=4)
        real = quantize(0.3 * fs.noise(90, self.shape, seed=8)).flatten(1).float()
        return FeatureQuality(network, Moments.of(real), real if whole else None), real

    def levels(self, solver, x0):
        return quantize(solver.sample(field(self.shape), x0)).flatten(1).float()

    def test_the_distance_is_that_of_the_rounded_samples(self):
        x0 = fs.noise(40, self.shape, seed=5)
        quality, real = self.quality()
        (row,) = fs.compare(field(self.shape), [EULER], noise=x0, batch=7, quality=quality).rows
        own = Moments.of(self.levels(EULER, x0))
        assert row["frechet_pixels"] == pytest.approx(frechet_distance(own, Moments.of(real)), rel=1e-9)
        assert "fid" not in row

    def test_the_network_sees_few_pictures_at_once(self):
        quality, _ = self.quality(whole=True)
        seen, network = [], quality.network
        quality.network = lambda pictures: seen.append(len(pictures)) or network(pictures)
        meter = quality.meter()
        meter.update(fs.noise(150, self.shape))
        assert (seen, meter._moments.count, sum(map(len, meter._seen))) == ([64, 64, 22], 150, 150)

    def test_with_the_features_themselves_there_are_five_more_figures(self):
        x0 = fs.noise(40, self.shape, seed=5)
        quality, real = self.quality(whole=True)
        table = fs.compare(field(self.shape), [EULER], noise=x0, batch=7, quality=quality)
        (row,), own = table.rows, self.levels(EULER, x0)
        shares = precision_recall(real, own)
        assert row["kernel_pixels"] == pytest.approx(squared_mmd(real, own), rel=1e-9)
        assert (row["precision"], row["coverage"]) == (shares.precision, shares.coverage)
        assert table.metrics[2:] == (
            "frechet_pixels", "kernel_pixels", "precision", "recall", "density", "coverage"
        )  # fmt: skip

    def test_only_inception_has_fid(self):
        quality, _ = self.quality(whole=True)
        quality.network.distance_name = "FID"
        assert quality.names[:2] == ("fid", "kid")
