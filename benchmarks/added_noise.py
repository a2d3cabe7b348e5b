"""Does added noise help at 6 to 20 calls? The rate of the noise, found by distances to the data.

    python benchmarks/added_noise.py mixture digits --json noise.json
    python benchmarks/added_noise.py digits --distance sliced --methods sa_solver dpmpp_2m_sde --calls 12 20
    python benchmarks/added_noise.py mnist --methods sa_solver --calls 12 --grids uniform --refinements 1

For every method and number of calls, the rate ``eta`` and the grid of times are searched: a list of rates on
every grid, then golden-section search around the best. (``eta`` is ``tau^2`` of SA-Solver, and of EDM's churn
the share of the largest one.) What is minimised is a moment or feature loss, over three sets of noises: the
Frechet distance to the data, in coordinates (mixture), pixels (digits) or the features of a classifier
(MNIST), or the sliced Wasserstein distance. The first columns are those means by rate, on the best grid.
Then the best pair, and the best grid at ``eta = 0``, are scored on fresh noises, several times. Both start
from the same noises, so that the gain is paired; its interval is Student's, at 95%.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

import fewstep as fs
from fewstep.classical import GRIDS, dpmpp_2m_sde, edm_stochastic, euler_ancestral, sa_solver
from fewstep.metrics import Moments, frechet_distance

CALLS = (6, 8, 12, 20)
RATES = (0.0, 0.1, 0.3, 0.6, 1.0)
SEARCHED = (101, 102, 103)  # seeds of the noises of the search
CHURN = math.sqrt(2) - 1  # the largest, as a share of the level


def _edm(eta: float, grid: Sequence[float]) -> fs.Solver:
    return edm_stochastic(churn=eta * CHURN * (len(grid) - 1), grid=grid)


#: Solvers as functions of the rate and the grid, and how many steps make so many calls on straight paths.
METHODS: dict[str, tuple[Callable[..., fs.Solver], Callable[[int], int]]] = {
    "euler_ancestral": (lambda eta, grid: euler_ancestral(eta=eta, grid=grid), lambda nfe: nfe),
    "dpmpp_2m_sde": (lambda eta, grid: dpmpp_2m_sde(eta=eta, grid=grid), lambda nfe: nfe),
    "sa_solver": (lambda eta, grid: sa_solver(tau=math.sqrt(eta), grid=grid), lambda nfe: nfe),
    "edm_stochastic": (_edm, lambda nfe: nfe // 2 + 1),
}


class Task(NamedTuple):
    """A model, the distance of samples to its data, and numbers of samples and trials."""

    field: fs.Field
    distance: Callable[[Tensor], float]
    count: int
    trials: int


def task(name: str, distance: str) -> Task:
    field = fs.models.bundled(name)
    if name == "mnist":
        if distance == "sliced":
            raise ValueError("--distance: of MNIST there are moments of features alone; take frechet.")
        return Task(field, _classifier_distance(), 320, 3)
    if name == "digits":
        data, count = fs.data.digits()[0], 2048
    else:
        data, count = field.model.sample_data(400_000, torch.Generator().manual_seed(0)), 8192
    return Task(field, _frechet(data) if distance == "frechet" else _sliced(data, count), count, 6)


def _moments(x: Tensor) -> Moments:
    moments = Moments()
    moments.update(x.flatten(1).double())
    return moments


def _frechet(data: Tensor) -> Callable[[Tensor], float]:
    real = _moments(data)
    return lambda x: frechet_distance(_moments(x), real)


def _sliced(data: Tensor, count: int) -> Callable[[Tensor], float]:
    """Wasserstein distance of order 1, the mean over 256 directions; quantiles where numbers differ."""
    directions = torch.randn(data[0].numel(), 256, generator=torch.Generator().manual_seed(0))
    directions /= directions.norm(dim=0)
    at = (torch.arange(count) + 0.5) / count
    sorted_data = (data.flatten(1).float() @ directions).sort(dim=0).values
    real = sorted_data[(at * len(data)).long()]
    return lambda x: float(((x.flatten(1) @ directions).sort(dim=0).values - real).abs().mean())


def _classifier_distance() -> Callable[[Tensor], float]:
    features = fs.metrics.features.load("mnist")
    real = fs.metrics.features.load_reference("mnist").moments
    return lambda x: frechet_distance(_moments(features(fs.metrics.features.quantize(x))), real)


class Search:
    """Distances of a method with so many calls, as functions of rate and grid, over seeds of the noises."""

    def __init__(self, of: Task, method: str, nfe: int) -> None:
        self.task, self.nfe = of, nfe
        self.make, steps = METHODS[method]
        self.steps = steps(nfe)
        self.at = cache(self.at)

    def at(self, eta: float, grid: str, seeds: Sequence[int] = SEARCHED) -> list[float]:
        solver = self.make(eta=eta, grid=GRIDS[grid](self.steps, self.task.field.schedule))
        if solver.nfe != self.nfe:
            raise ValueError(f"{solver.name} makes {solver.nfe} calls, not {self.nfe}.")
        return [self.task.distance(draw(self.task, solver, seed)) for seed in seeds]

    def best(self, rates: Sequence[float], grids: Sequence[str], refinements: int) -> tuple[float, str]:
        """Return the best rate and grid: of the lists, then between the neighbours of the best rate."""
        eta, grid = min(((r, g) for r in rates for g in grids), key=lambda pair: mean(self.at(*pair)))

        def loss(rate: float) -> float:
            return mean(self.at(rate, grid))

        k = rates.index(eta)
        low, high = rates[max(k - 1, 0)], rates[min(k + 1, len(rates) - 1)]
        share = (math.sqrt(5) - 1) / 2
        tried = [eta]
        for _ in range(refinements):
            a, b = high - share * (high - low), low + share * (high - low)
            tried += [a, b]
            low, high = (low, b) if loss(a) < loss(b) else (a, high)
        return min(tried, key=loss), grid


def draw(of: Task, solver: fs.Solver, seed: int) -> Tensor:
    """Samples from the noises of a seed, which are the same for every solver."""
    generator = torch.Generator().manual_seed(seed)
    x0, *noises = torch.randn(1 + max(CALLS), of.count, *of.field.shape, generator=generator)
    return solver.sample(of.field, x0, noises=lambda k, like: noises[k])


def row(of: Task, method: str, nfe: int, args: argparse.Namespace) -> dict[str, Any]:
    """Search, and score on other noises."""
    search, seeds = Search(of, method, nfe), tuple(range(1, 1 + of.trials))
    curve = {rate: min(mean(search.at(rate, grid)) for grid in args.grids) for rate in args.rates}
    plain = min(args.grids, key=lambda grid: mean(search.at(0.0, grid)))
    eta, grid = search.best(args.rates, args.grids, args.refinements)
    without, found = search.at(0.0, plain, seeds), search.at(eta, grid, seeds)
    gains = [a - b for a, b in zip(without, found, strict=True)]
    reach = float(student.ppf(0.975, of.trials - 1)) * stdev(gains) / math.sqrt(of.trials)
    return {
        "model": of.field.name,
        "method": method,
        "calls": nfe,
        "curve": curve,
        "grid at 0": plain,
        "at 0": mean(without),
        "eta": eta,
        "grid": grid,
        "at eta": mean(found),
        "gain": mean(gains),
        "reach": reach,
    }


@cache
def baseline(of: Task, solver: fs.Solver) -> float:
    """The distance of a solver of the ODE, as the mean over the trials."""
    return mean(of.distance(draw(of, solver, seed)) for seed in range(1, 1 + of.trials))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", choices=("mixture", "digits", "mnist"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--calls", nargs="+", type=int, default=list(CALLS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=["uniform", "cosine"])
    parser.add_argument("--refinements", type=int, default=3, help="steps of golden-section search")
    parser.add_argument("--distance", choices=("frechet", "sliced"), default="frechet")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    columns = " | ".join(f"{rate:g}" for rate in args.rates)
    print(f"| model | calls | method | {columns} | best eta | eta = 0, fresh | best, fresh | gain |")
    print("|" + "---|" * (7 + len(args.rates)))
    rows = []
    for of in (task(name, args.distance) for name in args.models):
        for nfe in args.calls:
            classical = baseline(of, fs.classical.named("deis3/cosine", nfe))
            exact = baseline(of, fs.classical.midpoint(32))
            print(f"| {of.field.name} | {nfe} | deis3/cosine {classical:.4g}, 64 calls {exact:.4g} |")
            for method in args.methods:
                found = row(of, method, nfe, args) | {"classical": classical, "exact": exact}
                rows.append(found)
                numbers = " | ".join(f"{value:.3g}" for value in found["curve"].values())
                best = f"{found['eta']:.2g} ({found['grid']})"
                fresh = f"{found['at 0']:.3g} | {found['at eta']:.3g}"
                gain = f"{found['gain']:.2g} ± {found['reach']:.1g}"
                print(
                    f"| {of.field.name} | {nfe} | {method} | {numbers} | {best} | {fresh} | {gain} |",
                    flush=True,
                )
                if args.json is not None:
                    args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
