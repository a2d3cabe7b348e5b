"""Time of sampling over that of the bare network calls: the executor must not be noticed.

    python benchmarks/executor_overhead.py

Protocol: the bundled MNIST U-Net, batch 64, 8 calls. A sampling and a bare loop that calls the network
8 times on one fixed input alternate; each round gives one ratio, and the median over rounds is reported.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import fewstep as fs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    field = fs.models.bundled("mnist")
    x0 = fs.noise(64, (1, 28, 28))
    for name, solver in {
        "midpoint": fs.classical.midpoint(4),
        "non_stationary": fs.families.NonStationary(fs.classical.adams_bashforth(2, 8)).solver(),
        "dpmpp_2m": fs.classical.dpmpp("2M", 8),
    }.items():
        ratios = [sampling_over_bare(field, solver, x0) for _ in range(args.rounds)]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        median = statistics.median(ratios)
        print(f"{name}: sampling / bare calls = {median:.4f} (median of {args.rounds}, {spread})")


def sampling_over_bare(field: fs.Field, solver: fs.Solver, x0: torch.Tensor) -> float:
    started = time.perf_counter()
    solver.sample(field, x0)
    middle = time.perf_counter()
    bare_calls(field.model, x0, solver.times)
    return (middle - started) / (time.perf_counter() - middle)


@torch.no_grad()
def bare_calls(network: torch.nn.Module, x: torch.Tensor, times: tuple[float, ...]) -> None:
    for t in times:
        network(x, torch.full((len(x),), t))


if __name__ == "__main__":
    main()
