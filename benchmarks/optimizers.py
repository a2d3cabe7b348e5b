"""Gauss-Newton against Adam: network calls, seconds and error on noises never used in fitting.

    python benchmarks/optimizers.py                 digits and mixture, 4 and 8 calls
    python benchmarks/optimizers.py digits --nfe 4

Every optimiser fits the same non-stationary family to the same 24 pairs under the RMSE, and the iterate
with the best PSNR on the same 8 others is kept; the error is the mean RMSE of 256 fresh noises to a
Dormand-Prince reference (rtol = atol = 1e-6). Network calls are one for each sample and evaluation,
validation included and the reference left out, as it is the same for all. A forward-mode derivative counts
as two calls. Adam's count has the recomputed forward passes of its checkpoints, but not the backward
passes, each as dear as two calls or so.

The lines of BNS and LD3 are no results: they are the forward calls of the training procedures that were
published (about 600 thousand rollouts; 100 pairs for 7 epochs), had they been followed at this number of
calls.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import fewstep as fs
from fewstep.families import Family, NonStationary
from fewstep.fitting import ENDPOINT_LOSSES, Adam, GaussNewton
from fewstep.fitting._adam import EndpointObjective, adam
from fewstep.fitting._gauss_newton import Iterate, gauss_newton
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._task import Task

TRAIN, VALIDATION, TEST = 24, 8, 256
SEED, TEST_SEED = 77, 31_337
#: Rollouts of published training procedures.
PUBLISHED = {"BNS, published budget": 600_000, "LD3, published budget": 100 * 7}
LOSS = ENDPOINT_LOSSES["rmse"]

OPTIMIZERS = {
    "Gauss-Newton, directions": GaussNewton(),
    "Gauss-Newton, differences": GaussNewton(jacobian="differences"),
    "Gauss-Newton, differences of 1e-3": GaussNewton(jacobian="differences", step=1e-3),
    "Gauss-Newton, jvp": GaussNewton(jacobian="jvp"),
    "Adam, 300 iterations": Adam(300),
    "Adam, 600 iterations": Adam(600),
}


def iterates(
    settings: GaussNewton | Adam, rollout: Rollout, family: Family, pairs: fs.Pairs
) -> Iterator[Iterate]:
    if isinstance(settings, GaussNewton):
        return gauss_newton([Task(rollout, family.member(), pairs)], LOSS, settings)
    return adam(EndpointObjective(rollout, family, LOSS), family.size, pairs, settings)


def rmse(field: fs.Field, family: Family, theta: torch.Tensor, pairs: fs.Pairs) -> float:
    x1 = family.solver(theta).sample(field, pairs.x0)
    return float(fs.metrics.rmse(x1, pairs.x1))


def study(name: str, nfe: int) -> Iterator[dict[str, Any]]:
    """Fit one model at one number of calls with every optimiser."""
    field = fs.models.bundled(name)
    x0 = fs.noise(TRAIN + VALIDATION, field.shape or (), seed=SEED)
    train, held_out = fs.reference.pairs(field, x0).split(VALIDATION)
    test = fs.reference.pairs(field, fs.noise(TEST, field.shape or (), seed=TEST_SEED))
    family = NonStationary(fs.classical.baselines(nfe, field.schedule)["ab2"], field.schedule)
    facts = {"model": name, "nfe": nfe}
    start = torch.zeros(family.size, dtype=torch.float64)
    yield {**facts, "optimizer": "start (ab2)", "rmse": rmse(field, family, start, test)}
    for label, settings in OPTIMIZERS.items():
        rollout, started = Rollout(field, 4096), time.perf_counter()
        best, theta = -float("inf"), start
        for iterate in iterates(settings, rollout, family, train):
            table = family.table(iterate.theta).unroll()
            psnr = float(fs.metrics.mean_psnr(rollout.squared_error(table, held_out)))
            if psnr > best:
                best, theta = psnr, iterate.theta
        seconds = time.perf_counter() - started
        error = rmse(field, family, theta, test)
        yield {**facts, "optimizer": label, "rmse": error, "calls": rollout.calls, "seconds": seconds}
    for label, rollouts in PUBLISHED.items():
        yield {**facts, "optimizer": label, "calls": rollouts * nfe}


def line(row: dict[str, Any]) -> str:
    error = f"{row['rmse']:.5f}" if "rmse" in row else "-"
    calls = f"{row['calls']:,}" if "calls" in row else "-"
    seconds = f"{row['seconds']:.1f} s" if "seconds" in row else "-"
    return f"  {row['optimizer']:34} RMSE {error:>8} {calls:>10} calls {seconds:>8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=["digits", "mixture"], help="bundled models")
    parser.add_argument("--nfe", nargs="*", type=int, default=[4, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for model in args.models:
        for nfe in args.nfe:
            print(f"\n{model}, {nfe} calls")
            for row in study(model, nfe):
                rows.append(row)
                print(line(row), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
