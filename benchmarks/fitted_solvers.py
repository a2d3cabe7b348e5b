"""Fitted solvers against every classical one, at equal NFE, on noises never used in fitting.

    python benchmarks/fitted_solvers.py                 every study
    python benchmarks/fitted_solvers.py mnist digits    some of them

Protocol: the yardstick is the best, on the test noises, of every solver of fewstep.classical.baselines (19 to
24 of them: Runge-Kutta, Adams-Bashforth, DDIM, DPM-Solver and DPM-Solver++, UniPC, DEIS, iPNDM, LMS, Heun in
sigma), each on uniform, cosine, quadratic, Karras and log-SNR grids. Errors are the mean over samples of the
RMSE to a Dormand-Prince reference (rtol = atol = 1e-6). Fits use the defaults but for what a line says; a
quarter of the pairs is validation, and network calls include the reference. Test noises have a seed of their
own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import fewstep as fs

GRIDS = ("uniform", "cosine", "quadratic", "karras", "log_snr")
TEST_SEED = 20_261_121


def study(
    field: fs.Field, nfe: int, sizes: tuple[int, ...], test_count: int, **options: Any
) -> Iterator[dict[str, Any]]:
    """Fit with several numbers of pairs and score each fit on fresh noises."""
    x0 = fs.noise(test_count, field.shape or (), seed=TEST_SEED)
    test = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6)
    classical = fs.classical.baselines(nfe, field.schedule, GRIDS)
    metrics = ("rmse", "pooled_rmse", "psnr")
    scores = {row["solver"]: row for row in fs.compare(field, classical, noise=test, metrics=metrics).rows}
    best = min(scores.values(), key=lambda row: row["rmse"])
    for pairs in sizes:
        started = time.perf_counter()
        fit = fs.fit(field, nfe, pairs=pairs, **options)
        seconds = time.perf_counter() - started
        start = fit.report.start
        row = fs.compare(field, {"fitted": fit.solver}, noise=test, metrics=metrics).rows[0]
        yield {
            "field": field.name,
            "schedule": field.schedule.name,
            "family": f"{fit.report.family}, {fit.report.optimizer} on {fit.report.loss}",
            "nfe": nfe,
            "pairs": pairs,
            "best_classical": best["solver"],
            "classical_rmse": best["rmse"],
            "start_rmse": scores[start]["rmse"],
            "fitted_rmse": row["rmse"],
            "ratio": row["rmse"] / best["rmse"],
            "over_start": row["rmse"] / scores[start]["rmse"],
            "pooled_ratio": row["pooled_rmse"] / min(r["pooled_rmse"] for r in scores.values()),
            "psnr_gain_db": row["psnr"] - max(r["psnr"] for r in scores.values()),
            "network_calls": fit.report.calls["reference"] + fit.report.calls["fit"],
            "seconds": seconds,
            "reference_error": test.error,
        }


def mixture(schedule: fs.schedules.Schedule) -> fs.Field:
    return fs.models.random_mixture(24, 7, schedule=schedule).field("mixture, 24 dimensions, 7 modes")


STUDIES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "digits": lambda: (
        row for nfe in (4, 6, 8, 10) for row in study(fs.models.bundled("digits"), nfe, (32, 64), 512)
    ),
    "mnist": lambda: (
        row
        for nfe in (4, 6, 8)
        for row in study(fs.models.bundled("mnist"), nfe, (32,), 256, max_calls=100_000)
    ),
    "mixture-cond-ot": lambda: study(mixture(fs.schedules.CondOT()), 8, (8, 16, 32, 64, 128, 256), 2048),
    "mixture-cosine": lambda: study(mixture(fs.schedules.Cosine()), 8, (8, 16, 32, 64, 128, 256), 2048),
    "digits-kde": lambda: (
        row for nfe in (4, 8) for row in study(fs.models.bundled("digits-kde"), nfe, (64, 256), 512)
    ),
}


def line(row: dict[str, Any]) -> str:
    return (
        f"  {row['nfe']:>2} calls, {row['pairs']:>3} pairs, {row['family']}: RMSE {row['fitted_rmse']:.5f}"
        f" = {row['ratio']:.3f} x {row['best_classical']} ({row['classical_rmse']:.5f})"
        f", {row['over_start']:.3f} x start, pooled {row['pooled_ratio']:.3f} x"
        f", {row['psnr_gain_db']:+.1f} dB; {row['network_calls']:,} calls, {row['seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], help="which; all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.studies or STUDIES:
        print(f"\n{name}")
        for row in STUDIES[name]():
            rows.append(row)
            print(line(row), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
