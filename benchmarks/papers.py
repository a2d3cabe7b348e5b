"""Every claim of the two papers that this project builds on, one command each.

    python benchmarks/papers.py --list
    python benchmarks/papers.py losses                             # measure one, and print its rows
    python benchmarks/papers.py all --out docs/results             # keep rows and figures, and write the page

Bespoke Solvers (Shaul et al., ICLR 2024, with its successor, ICML 2024) and Fast-ODE (Lee, Kim and Ye, ICML
2023). The published figures are of large networks on ImageNet and CIFAR-10, and of FID; ours are of small
flows on a CPU, and mostly of the error against the exact solution from the same noises. So a claim is about
an order, a ratio or a trend. Rows are kept in papers.json, from which papers.md is written; --out without a
claim writes the page anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from claims import CLAIMS, Size, measured, table

HEAD = """# The claims of the papers

Every claim of *Bespoke Solvers* (Shaul et al., ICLR 2024) and its successor *Bespoke Non-Stationary
Solvers* (ICML 2024), and of *Minimizing Trajectory Curvature of ODE-based Generative Models* (Lee, Kim and
Ye, ICML 2023, known as Fast-ODE), with the published figure, ours, and the command. `python
benchmarks/papers.py all --out docs/results` measures all of them and writes this page.

The published figures are of large networks on CIFAR-10, ImageNet and AFHQ. Ours are of small ones on one
core of a CPU: `digits`, a perceptron on 8x8 digits; `digits-kde`, the exact flow of their kernel density
estimate; `mixture`, an exact mixture in 24 dimensions; `mnist`, a U-Net; and flows in the plane. RMSE is
the mean over evaluation noises of the error against an adaptive Dormand-Prince solution (tolerance 1e-6)
from the same noise. Evaluation noises (seed 20261121) are seen by no fit; pairs have seed 0, and a quarter
of them chooses the iterate. The best classical solver is the best of 19 to 24 solvers on five grids, chosen
on the evaluation noises themselves. *Distance* is the Fréchet distance to the digits in pixels, which is
not FID. Seconds are wall time of one thread on a machine with several times as many programs as cores;
alone it takes about a third. `papers.py` stands for `python benchmarks/papers.py`.
"""


def page(kept: dict[str, Any]) -> str:
    """Return the document of all kept rows."""
    lines = [HEAD, "| claim | published | ours | holds in | command | seconds |", "|" + "---|" * 6]
    known = [(CLAIMS[name], kept[name]) for name in CLAIMS if name in kept]
    for one, found in known:
        judged = [row["holds"] for row in found["rows"] if row["holds"] is not None]
        holds = f"{sum(judged)} of {len(judged)} rows" if judged else ""
        cells = (f"[{one.says}](#{one.name})", one.published, found["ours"], holds, f"`papers.py {one.name}`")
        lines.append("| " + " | ".join((*cells, str(found["seconds"]))) + " |")
    if missing := [one for one in CLAIMS.values() if one.name not in kept]:
        lines += ["", "Not measured yet:", ""]
        lines += [f"* {one.says}: `papers.py {one.name}`. Published: {one.published}." for one in missing]
    for one, found in known:
        lines += ["", f"## {one.name}", "", f"{one.says} ({one.source}).", ""]
        lines += [f"`python benchmarks/papers.py {one.name}`, {found['seconds']} seconds. {one.protocol}", ""]
        lines += [
            f"Published: {one.published}.",
            "",
            f"Ours: {found['ours']}." + (f" {one.remark}." if one.remark else ""),
        ]
        rows: list[dict[str, Any]] = []
        for row in [*found["rows"], None]:
            if rows and (row is None or list(row["figures"]) != list(rows[0]["figures"])):
                lines += ["", *table(rows)]
                rows = []
            rows.append(row)
        lines += [line for name in one.figures for line in ("", f"![{one.says}]({name})")]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("claim", nargs="*", help="names of claims, or all")
    parser.add_argument("--list", action="store_true", help="list the claims")
    parser.add_argument("--quick", action="store_true", help="shrunken settings, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder of papers.json, papers.md and figures")
    args = parser.parse_args()
    if args.list:
        for one in CLAIMS.values():
            print(f"{one.name:<16} {one.says}")
        return
    if args.quick and args.out:
        parser.error("--quick: its numbers mean nothing; leave --out out.")
    names = list(CLAIMS) if args.claim == ["all"] else args.claim
    if unknown := [name for name in names if name not in CLAIMS]:
        parser.error(f"there is no claim {', '.join(unknown)}; there are {', '.join(CLAIMS)}, and all.")
    if not names and not args.out:
        parser.error("name a claim, or --list them.")
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", "(solver|fit: the pairs)")  # on purpose, of another field than fitted
    store = args.out and args.out / "papers.json"
    kept = json.loads(store.read_text(encoding="utf-8")) if store and store.exists() else {}
    size = Size.small(Path(tempfile.mkdtemp())) if args.quick else Size(figures=args.out)
    for name in names:
        one = CLAIMS[name]
        print(f"\n{one.name}: {one.says}\npublished: {one.published}\n", flush=True)
        kept[name] = measured(one, size, lambda line: print(line, flush=True))
        print(f"\nours: {kept[name]['ours']} ({kept[name]['seconds']} seconds)", flush=True)
        if store:
            store.parent.mkdir(parents=True, exist_ok=True)
            store.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if store:
        store.with_suffix(".md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
