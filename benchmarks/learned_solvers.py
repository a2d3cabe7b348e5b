"""Learned solvers against classical ones over many fields: how many calls each needs.

    python benchmarks/learned_solvers.py                         # fields that need no file, an hour
    python benchmarks/learned_solvers.py --only digits guided    # those whose names begin so
    python benchmarks/learned_solvers.py --flows mnist-learned=runs/learned/flow.safetensors
    python benchmarks/learned_solvers.py --rows one.json two.json --figure docs/results/learned-solvers.png

The last writes the table and the figure of rows that earlier runs kept with --out.

Fields: exact Gaussian mixtures in 2, 16 and 64 dimensions under three schedules; an exact mixture with
labels, guided (w = 3); the bundled flows; the rough fields of rough_networks.py; flows given as files.
Protocol: fits see their own pairs only (seed 0), a quarter of them for validation, and are scored on fresh
noises of another seed. The classical solver at a number of calls is the best on those very test noises of
every solver of fewstep.classical.baselines on five grids. RMSE is the mean over samples of
sqrt(mean_d (x - reference)^2), with its standard error; *needs* is the fewest calls with which any classical
solver has that RMSE. The gain in dB is the mean PSNR over that of the best classical solver by mean PSNR: a
mean of logarithms, which is not decided by the few noises that fall to another mode. Network calls include
the fit's reference.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rough_networks import ROUGH
from torch import Tensor, nn

import fewstep as fs
from fewstep.metrics import mean_psnr, per_sample_mse
from fewstep.schedules import VP, CondOT, Cosine

TEST_SEED = 20_261_121
GRIDS = ("uniform", "cosine", "quadratic", "karras", "log_snr")
CLASSICAL = (4, 6, 8, 10, 12, 16, 20, 24, 32)


class Labelled(nn.Module):
    """The exact velocity of a mixture, given which of its components may be; -1 for all of them."""

    def __init__(self, mixture: fs.models.GaussianMixture, classes: int) -> None:
        super().__init__()
        self.whole = mixture
        means, std = mixture.means, mixture.variances[0].sqrt()
        self.parts = nn.ModuleList(
            fs.models.GaussianMixture(means[k::classes], float(std)) for k in range(classes)
        )
        self.eval()

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        velocity = self.whole(x, t)
        for k, part in enumerate(self.parts):
            velocity = torch.where((label == k)[:, None], part(x, t), velocity)
        return velocity


def guided(scale: float = 3.0) -> tuple[fs.Field, Callable[[int], dict[str, Tensor]]]:
    network = Labelled(fs.models.random_mixture(16, 12, std=0.3, seed=3), classes=4)

    def everything(count: int) -> dict[str, Tensor]:
        return {"label": torch.arange(count) % 4}

    class Guided(nn.Module):
        """Guidance inside the model: the empty label is as long as the batch, whatever that is."""

        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            away = network(x, t, torch.full_like(label, -1))
            return away + scale * (network(x, t, label) - away)

    return fs.Field(Guided().eval(), shape=(16,), name=f"guided mixture, w = {scale:g}"), everything


#: The field (with its conditions), pairs, numbers of calls, test noises, most calls of classical solvers.
Task = tuple[Callable[[], Any], int, tuple[int, ...], int, int]


def of_network(make: Callable[[], fs.Field]) -> Task:
    """Return the task of a network that takes long to call."""
    return make, 64, (4, 6, 8, 10), 64, 20


def fields() -> dict[str, Task]:
    """Return the tasks by name."""
    budgets, most = (4, 6, 8, 10, 12, 16), max(CLASSICAL)
    found: dict[str, Task] = {}
    for dimension, modes, std in ((2, 4, 0.3), (16, 8, 0.2), (64, 12, 0.15)):
        for schedule in (CondOT(), Cosine(), VP()):

            def make(d: int = dimension, k: int = modes, s: float = std, sch: Any = schedule) -> fs.Field:
                return fs.models.random_mixture(d, k, std=s, schedule=sch).field(f"mixture, {d} dimensions")

            found[f"mixture-{dimension}-{schedule.name}"] = (make, 256, budgets, 4096, most)
    found["guided"] = (guided, 256, budgets, 4096, most)
    found["digits"] = (lambda: fs.models.bundled("digits"), 128, budgets, 512, most)
    found["digits-kde"] = (lambda: fs.models.bundled("digits-kde"), 256, budgets[:4], 512, most)
    for name, rough in ROUGH.items():
        small = name.startswith("mixture")
        found[name] = (rough, 256, budgets, 1024, most) if small else of_network(rough)
    return found


def squared_errors(solver: fs.Solver, field: fs.Field, pairs: fs.Pairs) -> Tensor:
    parts = []
    for first in range(0, len(pairs), 512):
        part = pairs[first : first + 512]
        parts.append(per_sample_mse(solver.sample(part.bind(field), part.x0), part.x1))
    return torch.cat(parts)


def study(
    name: str, made: Any, pairs: int, budgets: tuple[int, ...], test: int, most: int
) -> Iterator[dict[str, Any]]:
    field, conditions = made if isinstance(made, tuple) else (made, lambda count: {})
    x0 = fs.noise(test, field.shape, seed=TEST_SEED)
    tests = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6, per_sample=conditions(test))
    best: dict[int, tuple[float, str]] = {}
    psnr: dict[int, float] = {}
    for nfe in (n for n in CLASSICAL if n <= most):
        found = fs.classical.baselines(nfe, field.schedule, GRIDS)
        mse = {n: squared_errors(solver, field, tests) for n, solver in found.items()}
        mse = {n: e for n, e in mse.items() if e.isfinite().all()}
        best[nfe] = min((float(e.sqrt().mean()), n) for n, e in mse.items())
        psnr[nfe] = max(float(mean_psnr(e)) for e in mse.values())
    x0 = fs.noise(pairs, field.shape, seed=0)
    train = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6, per_sample=conditions(pairs))
    for nfe in budgets:
        fit = fs.fit(field, nfe, pairs=train)
        mse = squared_errors(fit.solver, field, tests)
        error = mse.sqrt()
        rmse = float(error.mean())
        yield {
            "field": name,
            "pairs": pairs,
            "nfe": nfe,
            "rmse": rmse,
            "standard_error": float(error.std() / len(error) ** 0.5),
            "classical": best[nfe][0],
            "classical_solver": best[nfe][1],
            "ratio": rmse / best[nfe][0],
            "needs": next((n for n in sorted(best) if best[n][0] <= rmse), None),
            "most": max(best),
            "gain": float(mean_psnr(mse)) - psnr[nfe],
            "gain_needs": next((n for n in sorted(psnr) if psnr[n] >= float(mean_psnr(mse))), None),
            "start": fit.report.errors[fit.report.start],
            "validation": fit.report.errors["fitted"],
            "from": fit.report.start,
            "returned": fit.solver.name,
            "network_calls": sum(calls for part, calls in fit.report.calls.items() if part != "errors"),
            "seconds": fit.report.seconds["fit"],
        }


def markdown(rows: list[dict[str, Any]]) -> str:
    head = (
        "field",
        "calls",
        "fitted RMSE",
        "best classical",
        "RMSE",
        "ratio",
        "classical needs",
        "gain, classical needs",
        "network calls",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows:
        needs, by_psnr = (r[k] or f"over {r['most']}" for k in ("needs", "gain_needs"))
        gain = f"{r['gain']:+.1f} dB, {by_psnr}"
        error = f"{r['rmse']:.4f} ± {r['standard_error']:.4f}"
        calls = f"{r['network_calls'] / 1000:.0f} thousand"
        cells = (
            r["field"],
            r["nfe"],
            error,
            r["classical_solver"],
            f"{r['classical']:.4f}",
            f"{r['ratio']:.2f}",
        )
        lines.append("| " + " | ".join(map(str, (*cells, needs, gain, calls))) + " |")
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["field"] for row in rows))
    columns = min(4, len(names))
    height = math.ceil(len(names) / columns)
    picture = Figure(figsize=(3.2 * columns, 2.6 * height), layout="constrained")
    panels = picture.subplots(height, columns, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        own = [row for row in rows if row["field"] == name]
        calls = [row["nfe"] for row in own]
        axes.plot(calls, [row["classical"] for row in own], marker=".", label="best classical")
        axes.errorbar(
            calls,
            [row["rmse"] for row in own],
            [2 * row["standard_error"] for row in own],
            marker="o",
            label="fitted",
        )
        axes.set(title=name, yscale="log", xticks=calls)
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(names) :]:
        axes.axis("off")
    panels[0].legend(frameon=False)
    picture.supxlabel("network calls")
    picture.supylabel("RMSE to the reference")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="only fields whose names begin like one of these"
    )
    parser.add_argument("--flows", nargs="*", default=[], help="NAME=FILE.safetensors")
    parser.add_argument("--rows", type=Path, nargs="+", help="measure nothing; read rows that --out wrote")
    parser.add_argument("--nfe", type=int, nargs="+", help="numbers of calls, instead of each field's own")
    parser.add_argument("--pairs", type=int, help="number of pairs, instead of each field's own")
    parser.add_argument(
        "--most", type=int, help="most calls of classical solvers, instead of each field's own"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    parser.add_argument("--figure", type=Path, help="write the figure to this PNG")
    args = parser.parse_args()
    if args.rows:
        show([row for path in args.rows for row in json.loads(path.read_text())], args.figure)
        return
    torch.set_num_threads(args.threads)
    chosen = {name: rest for name, rest in fields().items() if name.startswith(tuple(args.only))}
    for flow in args.flows:
        name, _, path = flow.partition("=")
        chosen[name] = of_network(lambda path=path: fs.models.load_field(path))
    rows: list[dict[str, Any]] = []
    for name, (make, pairs, budgets, test, most) in chosen.items():
        budgets, pairs = tuple(args.nfe or budgets), args.pairs or pairs
        for row in study(name, make(), pairs, budgets, test, args.most or most):
            rows.append(row)
            print(markdown([row]).splitlines()[-1], flush=True)
        if args.out:
            args.out.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows, args.figure)


def show(rows: list[dict[str, Any]], path: Path | None) -> None:
    print("\n" + markdown(rows))
    if path:
        figure(rows, path)


if __name__ == "__main__":
    main()
