"""The ablations of Bespoke Solvers: which loss, and which parts of a scale-time solver, matter.

    python benchmarks/bespoke_ablations.py losses       # the losses, for scale-time RK2
    python benchmarks/bespoke_ablations.py parts        # RK1 or RK2; time, scale or both
    python benchmarks/bespoke_ablations.py parts --optimizer gauss_newton --loss rmse

Fields: the bundled digits, and the exact flow of their kernel density estimate. Protocol: scale-time solvers
with Adam (learning rate 0.05, cosine, 32 pairs an iteration) on 96 of 128 pairs, the iterate with the best
PSNR on the other 32; the score is the mean RMSE of fresh noises to a Dormand-Prince reference, averaged over
draws of the pairs, with their spread. Every claim is judged in every row by these averages:

* RK2 is better than RK1 at equal calls, plain and fitted (Bespoke Solvers, figures 3, 9, 10).
* Time alone is better than scale alone, and both are better than time alone (figure 15, at few calls).
* The endpoint's RMSE is a better loss than those that follow the path, step by step (bound, local) or point
  by point (nodes): what LD3, S4S and EPD hold of 5 calls and fewer, and BezierFlow of RK2 with 6.
* The weights of the bound are worth having: bound is better than local. The paper compares the two nowhere
  that we know of.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import fewstep as fs
from fewstep.families import ScaleTime
from fewstep.fitting import Adam, GaussNewton, Reference

TEST_SEED = 20_261_121
PAIRS, TEST = 128, 512
VARIANTS = {
    "losses": ("rmse", "log_mse", "nodes", "local", "bound"),
    "parts": (
        "euler/none",
        "euler/both",
        "midpoint/none",
        "midpoint/scale",
        "midpoint/time",
        "midpoint/both",
    ),
}
#: Claims as (what they say of the errors, better, worse).
CLAIMS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "losses": (
        ("rmse < bound", "rmse", "bound"),
        ("rmse < local", "rmse", "local"),
        ("rmse < nodes", "rmse", "nodes"),
        ("bound < local", "bound", "local"),
    ),
    "parts": (
        ("RK2 < RK1, plain", "midpoint/none", "euler/none"),
        ("RK2 < RK1, fitted", "midpoint/both", "euler/both"),
        ("time < scale", "midpoint/time", "midpoint/scale"),
        ("both < time", "midpoint/both", "midpoint/time"),
    ),
}


def fitted(
    what: str, name: str, field: fs.Field, nfe: int, pairs: fs.Pairs, args: argparse.Namespace
) -> fs.Solver:
    """The solver of one variant, fitted on some pairs."""
    base, _, train = ("midpoint/both" if what == "losses" else name).partition("/")
    family = ScaleTime(base, nfe if base == "euler" else nfe // 2, "both" if train == "none" else train)
    if train == "none":
        return family.solver()
    loss = name if what == "losses" else args.loss
    optimizer = Adam(args.iterations) if args.optimizer == "adam" else GaussNewton()
    options: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "reference": Reference(1e-5, 1e-5)}
    return fs.fit(field, nfe, family=family, pairs=pairs, **options).solver


def study(what: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a field and number of calls: the RMSE of every variant for every draw, and the verdicts."""
    for model in args.models:
        field = fs.models.bundled(model)
        draws = [fs.noise(PAIRS, field.shape, seed=seed) for seed in range(args.seeds)]
        fresh = fs.noise(TEST, field.shape, seed=TEST_SEED)
        *pairs, test = (fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6) for x0 in (*draws, fresh))
        for nfe in args.nfe:
            started, scores = time.perf_counter(), {}
            for name in (*VARIANTS[what], *args.also):
                solvers = [fitted(what, name, field, nfe, draw, args) for draw in pairs]
                scores[name] = [
                    float(fs.metrics.rmse(solver.sample(field, test.x0), test.x1)) for solver in solvers
                ]
            means = {name: statistics.fmean(values) for name, values in scores.items()}
            verdicts = {claim: means[better] < means[worse] for claim, better, worse in CLAIMS[what]}
            seconds = time.perf_counter() - started
            yield {"field": model, "nfe": nfe, "rmse": scores, "verdicts": verdicts, "seconds": seconds}


def cells(row: dict[str, Any]) -> list[str]:
    marks = []
    for values in row["rmse"].values():
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 and max(values) > min(values) else ""
        marks.append(f"{statistics.fmean(values):.4f}{spread}")
    return [row["field"], str(row["nfe"]), *marks, *("yes" if v else "no" for v in row["verdicts"].values())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=tuple(CLAIMS))
    parser.add_argument("--models", nargs="+", default=["digits", "digits-kde"])
    parser.add_argument("--nfe", type=int, nargs="+", default=[4, 6, 8, 10], help="even numbers of calls")
    parser.add_argument("--seeds", type=int, default=1, help="draws of the pairs")
    parser.add_argument("--iterations", type=int, default=100, help="of Adam")
    parser.add_argument("--optimizer", choices=("adam", "gauss_newton"), default="adam")
    parser.add_argument("--loss", default="bound", help="of the study of parts")
    parser.add_argument("--also", nargs="+", default=[], help="more losses, such as soft and pseudo_huber")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    if args.what == "parts" and args.also:
        parser.error("parts: has no more losses; leave --also out.")
    if args.what == "losses" and args.optimizer != "adam":
        parser.error("losses: bound, local and soft need Adam; leave --optimizer out.")
    torch.set_num_threads(args.threads)
    rows = []
    for row in study(args.what, args):
        if not rows:
            head = ["field", "calls", *row["rmse"], *row["verdicts"]]
            print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
        print("| " + " | ".join(cells(row)) + " |", flush=True)
        rows.append(row)
    print()
    for claim, *_ in CLAIMS[args.what]:
        failed = [f"{row['field']} {row['nfe']}" for row in rows if not row["verdicts"][claim]]
        print(f"{claim}: holds in {len(rows) - len(failed)} of {len(rows)} rows", end="")
        print(f", not in {', '.join(failed)}" if failed else "")
    print(f"{sum(row['seconds'] for row in rows):.0f} seconds")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
