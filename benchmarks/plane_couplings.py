"""Couplings in the plane at equal budget: what each does to curvature, few-step error and samples.

    python benchmarks/plane_couplings.py --out runs/plane-couplings   # ten minutes on one CPU thread
    python benchmarks/plane_couplings.py --data tree --out runs/tree
    python benchmarks/plane_couplings.py --only independent pooled-ot --trainings 3 --steps 3000

The two Gaussians, their network and their noise N(0, diag(36, 1)) are those of ``examples/two_gaussians.py``;
checkerboard and tree start from N(0, I) and have a network twice as wide. Every flow gets 6,000 steps of 512
data. For several sets of noises and of data that no training saw, in the coordinates of the plane:

* curvature: E || (x(1) - x(0)) - dx/dt ||^2 per dimension on Euler paths of 128 steps;
* truncation error: RMSE of Euler's n-call sample to Dormand-Prince's (tolerance 1e-6), same noise;
* distance to the data of Dormand-Prince's samples: the exact Wasserstein-2 distance of 2,000 of them to as
  many data, and the energy distance; W2 of the samples of 4 and of 32 calls of midpoint's method, too. The
  last row is what two sets of data have.

Half of the noises are the others mirrored, left and right, and half of the two Gaussians' data are of each:
else the luck of how many fall to either side, 16 apart, would drown all that couplings do to the Wasserstein
distance. Means and standard deviations are over the sets, of all trainings. Training resumes where it was
interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import ot
import torch
from planes import PLANES, Plane
from torch import Tensor

import fewstep as fs
from fewstep.data import ArrayDataset
from fewstep.flows import (
    Coupled,
    Coupling,
    FlowMatching,
    Independent,
    Learned,
    MinibatchOT,
    Mixed,
    PooledOT,
    Settings,
    Trainer,
)
from fewstep.networks import MLP, GaussianEncoder

CALLS = (1, 2, 4, 8, 16)
SEED = 7_000_000  # of the first evaluation


class PlaneOT(MinibatchOT):
    """Optimal transport for distances in the plane, not in the coordinates of the noise."""

    def __init__(self, noise_std: Tensor) -> None:
        super().__init__()
        self.noise_std = noise_std

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        x0, _, kl = super().couple(noise * self.noise_std, x1 * self.noise_std, generator)
        return Coupled(x0 / self.noise_std, x1, kl)


def coupled(name: str, plane: Plane) -> Coupling:
    """Return the coupling ``independent``, ``minibatch-ot``, ``pooled-ot``, ``learned-B`` or ``mixed-B``."""
    torch.manual_seed(1)
    kind, _, beta = name.partition("-")
    fixed = {
        "independent": Independent,
        "minibatch-ot": lambda: PlaneOT(plane.noise_std),
        "pooled-ot": lambda: PooledOT(noises=2),  # for distances in the coordinates of the noise
    }
    if name in fixed:
        return fixed[name]()
    encoder = GaussianEncoder(MLP((2,), width=64, blocks=2, out_channels=4))
    return {"learned": Learned, "mixed": Mixed}[kind](encoder, beta=float(beta))


COUPLINGS = ("independent", "learned-5", "learned-10", "learned-20", "mixed-10", "minibatch-ot", "pooled-ot")


def train(plane: Plane, coupling: Coupling, out: Path, steps: int, seed: int = 0) -> fs.Field:
    """Train a flow in the coordinates of the noise."""
    torch.manual_seed(seed)
    flow = MLP((2,), width=64 if plane is PLANES["gaussians"] else 128, blocks=3)
    settings = Settings(
        steps=steps, batch=512, lr=2e-3, warmup=100, decay="cosine", ema=(100_000,), checkpoint_every=2000,
        seed=seed,
    )  # fmt: skip
    data = ArrayDataset(plane.draw(100_000, 0) / plane.noise_std, name=out.parent.name)
    objective = FlowMatching(flow, coupling, units=plane.noise_std)
    return fs.Field(
        Trainer(objective, data, settings, out=out, device="cpu", progress=False).run(),
        shape=(2,),
        name=out.name,
    )


def paths(field: fs.Field, plane: Plane, noise: Tensor, calls: int) -> fs.Path:
    """Euler's paths, in the coordinates of the plane."""
    path = fs.classical.euler(calls).sample(field, noise, trajectory=True)
    return path._replace(x1=path.x1 * plane.noise_std, states=path.states * plane.noise_std)


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The exact Wasserstein-2 distance of two sets of points."""
    uniform = torch.full((len(x),), 1 / len(x), dtype=torch.float64).numpy()
    cost = torch.cdist(x.double(), y.double()).square().numpy()
    return float(ot.emd2(uniform, uniform, cost, numItermax=10**7)) ** 0.5


def energy(x: Tensor, y: Tensor) -> float:
    """The energy distance ``2 E|x - y| - E|x - x'| - E|y - y'|``, without bias."""
    across, x_alone, y_alone = (torch.cdist(a.double(), b.double()) for a, b in ((x, y), (x, x), (y, y)))
    return float(2 * across.mean() - sum(d.sum() / (len(d) * (len(d) - 1)) for d in (x_alone, y_alone)))


def distances(plane: Plane, samples: Tensor, seed: int) -> dict[str, float]:
    data = plane.draw(len(samples), seed)
    return {"W2": wasserstein(samples, data), "energy": energy(samples, data)}


def measure(field: fs.Field, plane: Plane, count: int, seed: int) -> dict[str, float]:
    noise = fs.noise(count // 2, (2,), seed=seed)
    noise = torch.cat([noise, noise * torch.tensor([-1.0, 1.0])])
    exact = fs.reference.pairs(field, noise, rtol=1e-6, atol=1e-6, batch=count).x1 * plane.noise_std
    row = {"curvature": fs.metrics.curvature(paths(field, plane, noise, 128)).mean().item()}
    row |= {
        f"rmse {calls}": fs.metrics.rmse(paths(field, plane, noise, calls).x1, exact).item()
        for calls in CALLS
    }
    for calls in (4, 32):
        few = fs.classical.midpoint(calls // 2).sample(field, noise) * plane.noise_std
        row[f"W2 {calls}"] = wasserstein(few, plane.draw(count, seed))
    return row | distances(plane, exact, seed)


def summary(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard deviation of each figure."""
    figures = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    return {
        name: [x.mean().item(), x.std(correction=min(1, len(rows) - 1)).item()] for name, x in figures.items()
    }


def study(
    plane: Plane,
    names: Sequence[str],
    out: Path,
    steps: int,
    samples: int,
    sets: int,
    trainings: int = 1,
) -> dict[str, dict[str, list[float]]]:
    """Train with each coupling in folders of their own; return mean and deviation of each figure."""
    seeds, results = range(SEED, SEED + sets), {}
    for name in names:
        rows = []
        for k in range(trainings):
            field = train(plane, coupled(name, plane), out / (f"{name}-{k}" if k else name), steps, k)
            rows += [measure(field, plane, samples, seed) for seed in seeds]
        results[name] = summary(rows)
        print(name, {k: round(mean, 4) for k, (mean, _) in results[name].items()}, file=sys.stderr)
    two_draws = [distances(plane, plane.draw(samples, seed + 500), seed) for seed in seeds]
    return {**results, "two sets of data": summary(two_draws)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", choices=PLANES, default="gaussians")
    parser.add_argument("--out", type=Path, default=Path("runs/plane-couplings"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--sets", type=int, default=5, help="sets of noises and data to evaluate on")
    parser.add_argument("--trainings", type=int, default=1, help="number of trainings with each coupling")
    parser.add_argument("--only", nargs="+", default=COUPLINGS, metavar="COUPLING")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plane = PLANES[args.data]
    results = study(plane, args.only, args.out, args.steps, args.samples, args.sets, args.trainings)

    base = next(iter(results.values()))
    ratios = ["curvature", *(f"rmse {calls}" for calls in CALLS)]
    apart = ["W2 4", "W2 32", "W2", "energy"]
    print(
        f"{'coupling':<17}"
        + "".join(f"{key:>10} (x)  " for key in ratios)
        + "".join(f"{k:>18}" for k in apart)
    )
    for name, row in results.items():
        cells = [f"{row[k][0]:9.3f} {row[k][0] / base[k][0]:5.3f} " for k in ratios if k in row]
        cells += [f"{row[k][0]:9.3f} +- {row[k][1]:.3f}" if k in row else f"{'':18}" for k in apart]
        print(f"{name:<17}{''.join(cells):>{16 * len(ratios) + 18 * len(apart)}}")
    facts = {"data": args.data, "steps": args.steps, "samples": args.samples, "trainings": args.trainings}
    (args.out / "results.json").write_text(
        json.dumps(facts | {"rows": results}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
