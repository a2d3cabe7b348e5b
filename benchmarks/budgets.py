"""Errors of fits within a budget of network calls, which choose their pairs by it.

    python benchmarks/budgets.py                                  every field; an hour on one core
    python benchmarks/budgets.py digits mixture --nfe 8 --budgets 100000
    python benchmarks/budgets.py digits --jacobian differences --pairs 64

Development noises: fits draw their pairs from seeds 99 and 31337, and are scored on 512 noises of seed 77 by
the mean over samples of the RMSE to a Dormand-Prince reference (rtol = atol = 1e-6), and of the PSNR, which a
few noises that fall to another mode do not decide; both are means over the two fits. Network calls include
the reference, and none that only the report needs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

import fewstep as fs
from fewstep.fitting import GaussNewton
from fewstep.metrics import mean_psnr, per_sample_mse

SEEDS, TEST_SEED, TEST = (99, 31_337), 77, 512


def mixture(dimension: int, modes: int, std: float) -> fs.Field:
    return fs.models.random_mixture(dimension, modes, std=std).field(f"mixture-{dimension}")


FIELDS: dict[str, Callable[[], fs.Field]] = {
    "digits": lambda: fs.models.bundled("digits"),
    "digits-kde": lambda: fs.models.bundled("digits-kde"),
    "mixture": lambda: fs.models.bundled("mixture"),
    "mixture-16": lambda: mixture(16, 8, 0.2),
    "mixture-64": lambda: mixture(64, 12, 0.15),
}


def study(field: fs.Field, test: fs.Pairs, nfe: int, **options: Any) -> dict[str, float]:
    """The means over two fits."""
    rows = []
    for seed in SEEDS:
        started = time.perf_counter()
        fit = fs.fit(field, nfe, seed=seed, **options)
        seconds = time.perf_counter() - started
        mse = per_sample_mse(fit.solver.sample(field, test.x0), test.x1)
        pairs = sum(fit.report.pairs.values())
        calls = sum(count for purpose, count in fit.report.calls.items() if purpose != "errors")
        rows.append((float(mse.sqrt().mean()), float(mean_psnr(mse)), pairs, calls, seconds))
    means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    return dict(zip(("rmse", "psnr", "pairs", "calls", "seconds"), means, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("fields", nargs="*", choices=[*FIELDS, []], help="which; all by default")
    parser.add_argument("--nfe", nargs="*", type=int, default=[4, 8, 12])
    parser.add_argument("--budgets", nargs="*", type=int, default=[30_000, 100_000, 300_000])
    parser.add_argument("--pairs", nargs="*", type=int, default=[], help="so many pairs, without a budget")
    parser.add_argument("--jacobian", default="directions", help="directions, differences or jvp")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    limits = [{"pairs": count} for count in args.pairs] or [{"max_calls": calls} for calls in args.budgets]
    print("| field | calls | limit | pairs | RMSE | PSNR | network calls | seconds |\n" + "|" + "---|" * 8)
    for name in args.fields or FIELDS:
        field = FIELDS[name]()
        x0 = fs.noise(TEST, field.shape or (), seed=TEST_SEED)
        test = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6)
        for nfe in args.nfe:
            for limit in limits:
                row = study(field, test, nfe, optimizer=GaussNewton(jacobian=args.jacobian), **limit)
                print(
                    f"| {name} | {nfe} | {next(iter(limit.values())):,} | {row['pairs']:.0f} "
                    f"| {row['rmse']:.5f} | {row['psnr']:.1f} | {row['calls'] / 1000:.0f} thousand "
                    f"| {row['seconds']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
