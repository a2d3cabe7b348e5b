"""One fit for many solvers against solvers fitted one by one, on the same pairs.

    python benchmarks/one_fit_for_many.py                            # every study
    python benchmarks/one_fit_for_many.py calls --fields mixture     # one fit for 4 to 16 calls
    python benchmarks/one_fit_for_many.py guidance --calls 6 8       # one fit for guidance scales 1 to 5
    python benchmarks/one_fit_for_many.py both                       # both at once

Fields: the bundled digits; an exact Gaussian mixture (24 dimensions, 7 modes); the exact mixture with labels
of learned_solvers.py, guided by its labels. Protocol: all fits have their defaults and the same reference
pairs of one seed, a quarter of them for validation, and are scored on fresh noises of another seed; scales
and numbers of calls with a star were not fitted in the one fit. RMSE is the mean over samples of
sqrt(mean_d (x - reference)^2), which on a mixture a few noises between two modes decide; *typical* is the
ratio of geometric means over samples. Network calls are calls of the field, without the common reference.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from learned_solvers import TEST_SEED, Labelled, squared_errors

import fewstep as fs

CALLS = (4, 5, 6, 7, 8, 10, 12, 14, 16)
SCALES = (1, 1.5, 2, 2.5, 3, 4, 5)
#: Those that the one fit is fitted for: several calls, several scales, and both.
FITTED, FITTED_SCALES, FITTED_BOTH = (
    (4, 5, 6, 7, 8, 9, 10, 12, 14, 16),
    (1, 1.5, 2, 3, 4, 5),
    (4, 5, 6, 8, 10, 12),
)

Rows = Iterator[dict[str, Any]]


def fields() -> dict[str, Callable[[], fs.Field]]:
    return {
        "mixture": lambda: fs.models.random_mixture(24, 7).field("mixture"),
        "digits": lambda: fs.models.bundled("digits"),
    }


def guided() -> fs.Field:
    network = Labelled(fs.models.random_mixture(16, 12, std=0.3, seed=3), classes=4)
    return fs.Field(
        network, shape=(16,), unconditional={"label": torch.full((1,), -1)}, name="mixture with labels"
    )


def reference(field: fs.Field, count: int, seed: int, **given: Any) -> fs.Pairs:
    x0 = fs.noise(count, field.shape or (), seed=seed)
    return fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6, **given)


def compared(one: fs.Solver, own: fs.Fit, field: fs.Field, tests: fs.Pairs) -> dict[str, Any]:
    found, best = (squared_errors(solver, field, tests).sqrt() for solver in (one, own.solver))
    return {
        "one_for_all": float(found.mean()),
        "one_by_one": float(best.mean()),
        "standard_error": float(best.std() / len(best) ** 0.5),
        "ratio": float(found.mean() / best.mean()),
        "typical": float((found.log().mean() - best.log().mean()).exp()),
        "calls_one_by_one": own.report.calls["fit"],
    }


def several_calls(names: Iterable[str], calls: Iterable[int], pairs: int, seeds: tuple[int, int]) -> Rows:
    for name in names:
        field = fields()[name]()
        train, tests = reference(field, pairs, seeds[0]), reference(field, 512, seeds[1])
        one = fs.fit(field, FITTED, pairs=train)
        for nfe in calls:
            own = fs.fit(field, nfe, pairs=train)
            yield {
                "field": name,
                "nfe": nfe,
                "fitted": nfe in FITTED,
                **compared(one.at(nfe), own, field, tests),
                "calls_one_for_all": one.report.calls["fit"],
            }


def guidance(calls: Iterable[int], pairs: int, seeds: tuple[int, int]) -> Rows:
    field = guided()
    for nfe in calls:
        yield from _at_scales(field, [nfe], nfe, pairs, seeds)


def both(calls: Iterable[int], pairs: int, seeds: tuple[int, int]) -> Rows:
    yield from _at_scales(guided(), list(calls), FITTED_BOTH, pairs, seeds)


def _at_scales(
    field: fs.Field, calls: list[int], nfe: int | tuple[int, ...], pairs: int, seeds: tuple[int, int]
) -> Rows:
    train, tests = (
        {
            w: reference(field.with_guidance(w), count, seed, per_sample={"label": torch.arange(count) % 4})
            for w in SCALES
        }
        for count, seed in zip((pairs, 512), seeds, strict=True)
    )
    one = fs.fit(field, nfe, guidance=FITTED_SCALES, pairs=train)
    for n in calls:
        for w in SCALES:
            at = field.with_guidance(w)
            own = fs.fit(at, n, pairs=train[w])
            yield {
                "field": "guided",
                "nfe": n,
                "guidance": w,
                "fitted": w in FITTED_SCALES and (n == nfe or n in FITTED_BOTH),
                **compared(one.at(n, w), own, at, tests[w]),
                "calls_one_for_all": one.report.calls["fit"],
            }


def line(row: dict[str, Any]) -> str:
    star = "" if row["fitted"] else " *"
    place = f"{row['nfe']}" + (f", w = {row['guidance']:g}" if "guidance" in row else "")
    cells = (
        row["field"],
        place + star,
        f"{row['one_by_one']:.5f} ± {row['standard_error']:.5f}",
        f"{row['one_for_all']:.5f}",
        f"{row['ratio']:.2f}",
        f"{row['typical']:.2f}",
        f"{row['calls_one_by_one'] / 1000:.0f} thousand",
        f"{row['calls_one_for_all'] / 1000:.0f} thousand for all",
    )
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| field | calls | fitted for it | one fit | ratio | typical | network calls | of the one fit |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", nargs="?", choices=("calls", "guidance", "both", "all"), default="all")
    parser.add_argument("--fields", nargs="+", choices=tuple(fields()), default=list(fields()))
    parser.add_argument("--calls", type=int, nargs="+", help="numbers of calls to score")
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, TEST_SEED), metavar=("PAIRS", "TEST"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seeds = (args.seeds[0], args.seeds[1])
    studies: dict[str, Callable[[], Rows]] = {
        "calls": lambda: several_calls(args.fields, args.calls or CALLS, args.pairs, seeds),
        "guidance": lambda: guidance(args.calls or (6, 8), args.pairs, seeds),
        "both": lambda: both(args.calls or (5, 8, 9), args.pairs, seeds),
    }
    print(HEAD, flush=True)
    rows = []
    for name in studies if args.study == "all" else [args.study]:
        for row in studies[name]():
            rows.append({"study": name, **row})
            print(line(row), flush=True)
            if args.out:
                args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
