"""Six couplings in the plane at equal budget: what each does to curvature, few-step error and samples.

    python benchmarks/plane_couplings.py --out runs/plane-couplings   # ten minutes on one CPU thread

The problem, the network and the settings are those of ``examples/two_gaussians.py``, where the noise is
N(0, diag(36, 1)); every flow gets 6,000 steps of 512 data. For several sets of noises and of data that no
training saw, in the coordinates of the plane:

* curvature: E || (x(1) - x(0)) - dx/dt ||^2 per dimension on Euler paths of 128 steps;
* truncation error: RMSE of Euler's n-call sample to Dormand-Prince's (tolerance 1e-6), same noise;
* distance to the data of Dormand-Prince's samples: the exact Wasserstein-2 distance of 2,000 of them to as
  many data, and the energy distance. The last row is what two sets of data have.

Half of the noises are the others mirrored, left and right, and half of the data are of each cluster: else the
luck of how many fall to either side, 16 apart, would drown all that couplings do to the Wasserstein distance.
Means and standard deviations are over the sets. Training resumes where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import ot
import torch
from torch import Tensor

import fewstep as fs
from fewstep.flows import Coupled, Independent, Learned, MinibatchOT, Mixed

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from two_gaussians import NOISE_STD, draw, encoder, flow_matching, paths, train

CALLS = (1, 2, 4, 8, 16)
SEED = 7_000_000  # of the first evaluation


class PlaneOT(MinibatchOT):
    """Optimal transport for distances in the plane, not in the coordinates of the noise."""

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        x0, _, kl = super().couple(noise * NOISE_STD, x1 * NOISE_STD, generator)
        return Coupled(x0 / NOISE_STD, x1, kl)


COUPLINGS = {
    "independent": Independent,
    "learned-5": lambda: Learned(encoder(), beta=5),
    "learned-10": lambda: Learned(encoder(), beta=10),
    "learned-20": lambda: Learned(encoder(), beta=20),
    "mixed-10": lambda: Mixed(encoder(), beta=10),
    "minibatch-ot": PlaneOT,
}


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The exact Wasserstein-2 distance of two sets of points."""
    uniform = torch.full((len(x),), 1 / len(x), dtype=torch.float64).numpy()
    cost = torch.cdist(x.double(), y.double()).square().numpy()
    return float(ot.emd2(uniform, uniform, cost, numItermax=10**7)) ** 0.5


def energy(x: Tensor, y: Tensor) -> float:
    """The energy distance ``2 E|x - y| - E|x - x'| - E|y - y'|``, without bias."""
    across, x_alone, y_alone = (torch.cdist(a.double(), b.double()) for a, b in ((x, y), (x, x), (y, y)))
    return float(2 * across.mean() - sum(d.sum() / (len(d) * (len(d) - 1)) for d in (x_alone, y_alone)))


def distances(samples: Tensor, seed: int) -> dict[str, float]:
    data = draw(len(samples), seed)
    return {"W2": wasserstein(samples, data), "energy": energy(samples, data)}


def measure(field: fs.Field, count: int, seed: int) -> dict[str, float]:
    noise = fs.noise(count // 2, (2,), seed=seed)
    noise = torch.cat([noise, noise * torch.tensor([-1.0, 1.0])])
    exact = fs.reference.pairs(field, noise, rtol=1e-6, atol=1e-6, batch=count).x1 * NOISE_STD
    row = {"curvature": fs.metrics.curvature(paths(field, noise, 128)).mean().item()}
    row |= {f"rmse {calls}": fs.metrics.rmse(paths(field, noise, calls).x1, exact).item() for calls in CALLS}
    return row | distances(exact, seed)


def summary(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard deviation of each figure."""
    figures = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    return {name: [x.mean().item(), x.std().item()] for name, x in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/plane-couplings"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--sets", type=int, default=5, help="sets of noises and data to evaluate on")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seeds = range(SEED, SEED + args.sets)

    results = {}
    for name, coupling in COUPLINGS.items():
        field = train(flow_matching(coupling()), args.out / name, args.steps)
        results[name] = summary([measure(field, args.samples, seed) for seed in seeds])
        print(name, {k: round(mean, 4) for k, (mean, _) in results[name].items()}, file=sys.stderr)
    two_draws = [distances(draw(args.samples, seed + 500), seed) for seed in seeds]
    results["two sets of data"] = summary(two_draws)

    base = results["independent"]
    heads = "".join(f"   n={calls:<3} (x) " for calls in CALLS)
    print(f"{'coupling':<17} curvature   (x) {heads}  W2             energy")
    for name, row in results.items():
        ratios = [f"{row[k][0]:8.3f} {row[k][0] / base[k][0]:5.3f}" for k in base if k in row][:-2]
        apart = (
            f"{row['W2'][0]:7.3f} +- {row['W2'][1]:.3f}  {row['energy'][0]:8.4f} +- {row['energy'][1]:.4f}"
        )
        print(f"{name:<17} {''.join(ratios):<86} {apart}")
    facts = {"steps": args.steps, "samples": args.samples, "seeds": list(seeds), "rows": results}
    (args.out / "results.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
