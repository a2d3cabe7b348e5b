"""Time and memory of the Fréchet distance, against torchmetrics.

    python benchmarks/frechet_distance.py                                    # 50,000 samples
    python benchmarks/frechet_distance.py --samples 2000 --dimensions 64     # a quick look

Two sets of random float32 features come in batches, as from a feature network, and the distance is
computed at the end. Each run has a process of its own, whose peak of resident memory is compared with that of
a process that imports the same libraries and makes the same batches, but measures nothing. Runs of both
sides take turns; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from fewstep.metrics import Moments, frechet_distance

SIDES = ("fewstep", "torchmetrics")


def batches(scale: float, samples: int, size: int, pool: Tensor) -> Iterator[Tensor]:
    """Random features; the pool is drawn once, so that the time is not that of a random generator."""
    for start in range(0, samples, size):
        x = pool[torch.arange(start, min(start + size, samples)) % len(pool)]
        # A factor of its own for each batch keeps the covariance from being that of the pool.
        yield x * scale * (1 + start / samples)


def ours(sets: list[Iterator[Tensor]], d: int) -> float:
    moments = [Moments(), Moments()]
    for side, batched in zip(moments, sets, strict=True):
        for x in batched:
            side.update(x)
    return frechet_distance(*moments)


def theirs(sets: list[Iterator[Tensor]], d: int) -> float:
    network = torch.nn.Identity()  # what comes in are features
    network.num_features = d
    metric = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
    for real, batched in zip((True, False), sets, strict=True):
        for x in batched:
            metric.update(x, real=real)
    return float(metric.compute())


def nothing(sets: list[Iterator[Tensor]], d: int) -> float:
    return sum(float(x.sum()) for batched in sets for x in batched)


def measure(side: str, d: int, samples: int, size: int) -> dict[str, Any]:
    """One run in this process."""
    pool = torch.randn(4 * max(size, d), d, generator=torch.Generator().manual_seed(0))
    sets = [batches(scale, samples, size, pool) for scale in (1.0, 1.1)]
    started, worked = time.perf_counter(), time.process_time()
    value = {"fewstep": ours, "torchmetrics": theirs, "nothing": nothing}[side](sets, d)
    seconds, work = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"value": value, "seconds": seconds, "work": work, "mebibytes": peak}


def in_a_process(side: str, d: int, args: argparse.Namespace) -> dict[str, Any]:
    words = [
        "--side",
        side,
        "--dimensions",
        str(d),
        "--samples",
        str(args.samples),
        "--batch",
        str(args.batch),
    ]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000, help="of each set")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[64, 1024, 2048])
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=[*SIDES, "nothing"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, *args.dimensions, args.samples, args.batch)))
        return
    print(
        f"{args.samples:,} samples a set, batches of {args.batch}, float32 features; "
        f"{torch.get_num_threads()} thread(s) of {os.cpu_count()} on {platform.machine()}, "
        f"torch {torch.__version__}; medians of {args.repeats} runs of each side in turn; seconds of "
        "the processor, and of the clock, on which other programs tell; memory is the peak above that of a "
        "run that measures nothing.\n"
    )
    print("| dimensions | | seconds | range | clock | MiB | distance |\n|---|---|---|---|---|---|---|")
    for d in args.dimensions:
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in (*SIDES, "nothing")}
        for _ in range(args.repeats):
            for side, found in runs.items():
                found.append(in_a_process(side, d, args))
        median = {
            key: {side: statistics.median(run[key] for run in found) for side, found in runs.items()}
            for key in ("value", "seconds", "work", "mebibytes")
        }
        for side in SIDES:
            work = [run["work"] for run in runs[side]]
            extra = median["mebibytes"][side] - median["mebibytes"]["nothing"]
            print(
                f"| {d} | {side} | {median['work'][side]:.2f} | {min(work):.2f} to {max(work):.2f} "
                f"| {median['seconds'][side]:.2f} | {extra:.0f} | {median['value'][side]:.10g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
