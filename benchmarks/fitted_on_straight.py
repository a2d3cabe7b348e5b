"""The two levers together: fitted solvers on flows with an independent and with a learned coupling.

    python recipes/digits.py --out runs/digits-independent
    python recipes/digits.py --out runs/digits-learned --coupling learned
    python benchmarks/fitted_on_straight.py runs/digits-independent runs/digits-learned

Each folder holds the `flow.safetensors` of a training; the first one is what the others are compared with.
A flow is measured against its own reference (Dormand-Prince, rtol = atol = 1e-6) from the same test
noises: a straighter flow gives other samples from them, so that errors, not samples, are compared. The
yardstick and the protocol of the fits are those of fitted_solvers.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from fitted_solvers import TEST_SEED, study

import fewstep as fs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("flows", nargs="+", type=Path, help="folders of trainings")
    parser.add_argument("--nfe", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--test", type=int, default=256, help="test noises")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    print(
        f"{args.pairs} pairs a fit, {args.test} test noises of seed {TEST_SEED}; (x) is over the first flow's"
    )
    print(f"{'flow':<22} calls  best classical        (x)    fitted    (x)   fitted / first flow's classical")
    first: dict[int, dict[str, float]] = {}
    rows = []
    for folder in args.flows:
        field = fs.models.load_field(folder / "flow.safetensors")
        for nfe in args.nfe:
            (row,) = study(field, nfe, (args.pairs,), args.test)
            base = first.setdefault(nfe, row)
            rows.append({**row, "flow": folder.name})
            over = {key: row[key] / base[key] for key in ("classical_rmse", "fitted_rmse")}
            print(
                f"{folder.name:<22} {nfe:>5}"
                f"  {row['classical_rmse']:.4f} {row['best_classical']:<12} {over['classical_rmse']:5.2f}"
                f"    {row['fitted_rmse']:.4f}  {over['fitted_rmse']:5.2f}"
                f"   {row['fitted_rmse'] / base['classical_rmse']:6.3f}",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
