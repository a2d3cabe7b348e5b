"""The metrics against independent sources: other libraries, closed forms, definitions written out.

    python benchmarks/metric_oracles.py        # a Markdown table, in a minute

Features are correlated Gaussians, 20 draws of each case; what is printed is the greatest relative deviation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.spatial
import scipy.stats
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.regression import MeanSquaredError

import fewstep as fs
from fewstep import metrics

DRAWS = 20


class Case(NamedTuple):
    """One line of the table; ``compare(seed)`` is ours and the oracle's."""

    metric: str
    oracle: str
    compare: Callable[[int], tuple[float | list[float], float | list[float]]]


def draw(seed: int, count: int, d: int = 32, mean: float = 0.0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(mean + rng.normal(size=(count, d)) @ rng.normal(size=(d, d)) / math.sqrt(d))


def sets(seed: int, count: int, other: int, d: int = 32) -> tuple[Tensor, Tensor]:
    return draw(2 * seed, count, d), draw(2 * seed + 1, other, d, mean=0.2)


def deviation(found: float | list[float], expected: float | list[float]) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    return float((np.abs(found - expected) / np.abs(expected)).max())


# ------------------------------------------------------------------------------------ errors of samples


def error_cases() -> Iterator[Case]:
    def pictures(seed: int) -> tuple[Tensor, Tensor]:
        return tuple(fs.noise(16, (3, 8, 8), seed=2 * seed + k, dtype=torch.float64) for k in (0, 1))

    def psnr(seed: int) -> tuple[float, float]:
        x, y = pictures(seed)
        theirs = PeakSignalNoiseRatio(data_range=2.0, dim=(1, 2, 3)).set_dtype(torch.float64)
        return float(metrics.psnr(x, y)), float(theirs(x, y))

    def pooled(seed: int) -> tuple[float, float]:
        x, y = pictures(seed)
        theirs = MeanSquaredError(squared=False).set_dtype(torch.float64)
        return float(metrics.pooled_rmse(x, y)), float(theirs(x.flatten(), y.flatten()))

    def rmse(seed: int) -> tuple[float, float]:
        x, y = pictures(seed)
        norms = np.linalg.norm((x - y).flatten(1).numpy(), axis=1) / math.sqrt(192)
        return float(metrics.rmse(x, y)), norms.mean()

    def interval(seed: int) -> tuple[list[float], list[float]]:
        values = np.random.default_rng(seed).gamma(2, size=12 + 7 * seed)
        found = metrics.Estimate.of(torch.from_numpy(values))
        error = scipy.stats.sem(values)
        ends = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), error)
        return [found.low, found.high], list(ends)

    yield Case("`rmse`", "numpy", rmse)
    yield Case("`psnr`", "torchmetrics, one ratio a sample", psnr)
    yield Case("`pooled_rmse`", "torchmetrics", pooled)
    yield Case("`Estimate`, 12 to 145 samples", "scipy.stats.t.interval", interval)


# ------------------------------------------------------------------------------------ sets of features


def frechet(x: Tensor, y: Tensor) -> float:
    return metrics.frechet_distance(metrics.Moments.of(x), metrics.Moments.of(y))


def frechet_cases() -> Iterator[Case]:
    def theirs(count: int, other: int) -> Callable[[int], tuple[float, float]]:
        def compare(seed: int) -> tuple[float, float]:
            x, y = sets(seed, count, other)
            network = torch.nn.Identity()
            network.num_features = 32
            metric = FrechetInceptionDistance(feature=network)
            metric.update(x, real=True)
            metric.update(y, real=False)
            return frechet(x, y), float(metric.compute())

        return compare

    def root(seed: int) -> tuple[float, float]:
        x, y = (z.numpy() for z in sets(seed, 500, 400))
        S, T = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        overlap = np.trace(scipy.linalg.sqrtm(S @ T)).real
        expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(S + T) - 2 * overlap
        return frechet(*sets(seed, 500, 400)), expected

    def scaled(seed: int) -> tuple[float, float]:
        """Of ``x`` and ``3 x + 1``: covariances that commute."""
        x = draw(seed, 500)
        trace = float(x.var(dim=0).sum())
        return frechet(x, 3 * x + 1), float((2 * x.mean(dim=0) + 1).square().sum()) + 4 * trace

    yield Case("`frechet_distance`, 500 and 400 samples, d = 32", "torchmetrics", theirs(500, 400))
    yield Case("`frechet_distance`, 500 and 400 samples", "scipy.linalg.sqrtm", root)
    yield Case("`frechet_distance`, 20 and 400 samples", "torchmetrics", theirs(20, 400))
    yield Case("`frechet_distance`, of x and 3 x + 1", "closed form", scaled)


def kernel(seed: int) -> tuple[float, float]:
    x, y = sets(seed, 300, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features
        theirs = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=300)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    return metrics.squared_mmd(x, y, block=64), float(theirs.compute()[0])


def written_out(seed: int) -> tuple[list[float], list[float]]:
    """Precision, recall, density and coverage, with every distance in one matrix."""
    real, generated = sets(seed, 400, 300, d=6)
    x, y = real.numpy(), generated.numpy()
    across = scipy.spatial.distance.cdist(y, x)

    def radii(z: np.ndarray, k: int) -> np.ndarray:
        return np.sort(scipy.spatial.distance.cdist(z, z), axis=1)[:, k]

    dense = across <= radii(x, 5)
    expected = [
        (across <= radii(x, 3)).any(axis=1).mean(),
        (across <= radii(y, 3)[:, None]).any(axis=0).mean(),
        dense.sum() / (5 * len(y)),
        dense.any(axis=0).mean(),
    ]
    found = metrics.precision_recall(real, generated, block=128)
    return [found.precision, found.recall, found.density, found.coverage], expected


def neighbours(seed: int) -> tuple[list[float], list[float]]:
    generated, training = sets(seed, 300, 500)
    found = metrics.nearest_neighbours(generated, training, generated, block=128)
    theirs = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(training.numpy())
    return found.distances.tolist(), theirs.kneighbors(generated.numpy())[0][:, 0].tolist()


# ---------------------------------------------------------------------------------------------- flows


def flow_cases() -> Iterator[Case]:
    field = fs.Field(lambda x, t: ((2 * t - 1) / (t**2 + (1 - t) ** 2))[:, None] * x)

    def noise(seed: int) -> Tensor:
        return fs.noise(8, (3,), seed=seed, dtype=torch.float64)

    def curvature(seed: int) -> tuple[list[float], list[float]]:
        x0 = noise(seed)
        path = fs.classical.midpoint(100).sample(field, x0, trajectory=True)
        return metrics.curvature(path).tolist(), ((2 - math.pi / 2) * x0.square().mean(dim=1)).tolist()

    def order(seed: int) -> tuple[list[float], list[float]]:
        found = []
        for solver in (fs.classical.euler, fs.classical.midpoint, fs.classical.rk4):
            coarse, fine = (
                metrics.inversion_error(field, solver(n), noise(seed)).error.value for n in (48, 96)
            )
            found.append(math.log2(coarse / fine))
        return found, [1, 3, 5]

    yield Case("`curvature`, 100 steps", "closed form (2 - pi/2) x^2 of a Gaussian flow", curvature)
    yield Case("order of `inversion_error`: Euler, midpoint, RK4", "1, 3, 5 (the next odd order)", order)


def main() -> None:
    cases = [
        *error_cases(),
        *frechet_cases(),
        Case("`squared_mmd`, 300 samples", "torchmetrics, one subset of all", kernel),
        Case("`precision_recall`, 400 and 300 samples, d = 6", "numpy, the definitions", written_out),
        Case("`nearest_neighbours`, 300 of 500", "scikit-learn, k-d tree", neighbours),
        *flow_cases(),
    ]
    print("| metric | oracle | greatest relative deviation |\n|---|---|---|")
    for case in cases:
        worst = max(deviation(*case.compare(seed)) for seed in range(DRAWS))
        print(f"| {case.metric} | {case.oracle} | {worst:.0e} |", flush=True)


if __name__ == "__main__":
    main()
