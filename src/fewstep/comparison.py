"""Compare solvers on the same noises."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import reference
from ._json import finite
from .field import Field
from .metrics import METRICS
from .pairs import Pairs
from .pairs import noise as draw_noise
from .solver import Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "check_metrics", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Scores of solvers against the reference, on noises common to all.

    Args:
        rows: one mapping a solver: ``solver``, ``nfe``, the metrics, and ``milliseconds`` a sample.
        metrics: the metrics' names, as columns.
        protocol: how it was measured.
    """

    rows: tuple[Mapping[str, Any], ...]
    metrics: tuple[str, ...]
    protocol: Mapping[str, Any]

    def to_json(self) -> str:
        """Rows and protocol as JSON; ``null`` stands for what is not finite."""
        content = finite({"rows": list(self.rows), "protocol": self.protocol})
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """A table, one line a solver."""
        columns = ("solver", "nfe", *self.metrics)
        lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
        lines += [" | ".join(_cell(row[column]) for column in columns) for row in self.rows]
        return "".join(f"| {line} |\n" for line in lines)

    def by_nfe(self, metric: str) -> str:
        """A table of one metric: a line a solver, a column an NFE."""
        budgets = sorted({row["nfe"] for row in self.rows})
        names = list(dict.fromkeys(row["solver"] for row in self.rows))
        cells = {(row["solver"], row["nfe"]): _cell(row[metric]) for row in self.rows}
        width = max(len(metric), *map(len, names))
        lines = [f"{metric:<{width}}" + "".join(f"{f'{nfe} calls':>12}" for nfe in budgets)]
        lines += [
            f"{name:<{width}}" + "".join(f"{cells.get((name, nfe), ''):>12}" for nfe in budgets)
            for name in names
        ]
        return "\n".join(lines)

    def plot(self, metric: str = "rmse") -> Figure:
        """Error against NFE, a matplotlib figure."""
        from .report.plots import error_against_nfe

        return error_against_nfe(self, metric)

    def __str__(self) -> str:
        return "\n\n".join(self.by_nfe(metric) for metric in self.metrics)


def compare(
    field: Field,
    solvers: Iterable[Solver] | Mapping[str, Solver | Sequence[Solver]],
    *,
    noise: int | Tensor | Pairs = 256,
    metrics: Sequence[str] = ("rmse", "psnr"),
    seed: int = 1_000_003,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    batch: int = 256,
    progress: bool = False,
    **conditions: Any,
) -> Comparison:
    """Score solvers against the reference solution from the same noises.

    Args:
        field: the model.
        solvers: solvers, or by the name to show a solver or several with different NFE.
        noise: how many noises to draw, or the noises, or pairs that have their reference already.
        metrics: names in :data:`fewstep.metrics.METRICS`.
        seed: seed of the noises that are drawn; not the default seed of fitting.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of the reference.
        batch: samples at once.
        progress: show a progress bar of the reference.
        **conditions: passed to the network; tensors with one row a noise go with the noises.

    Raises:
        ValueError: on an unknown metric, no solver, noise without a known shape, or conditions besides pairs.
    """
    check_metrics(metrics)
    named = list(_named(solvers))
    if not named:
        raise ValueError("compare: there is no solver to score; pass one at least.")
    pairs = _with_reference(field, noise, seed, rtol, atol, batch, progress, conditions)
    rows = []
    for name, solver in named:
        started = time.perf_counter()
        samples = [
            solver.sample(field, pairs.x0[i : i + batch], **pairs.conditions_of(slice(i, i + batch)))
            for i in range(0, len(pairs), batch)
        ]
        x1 = torch.cat(samples)
        milliseconds = 1000 * (time.perf_counter() - started) / len(pairs)
        scores = {metric: float(METRICS[metric](x1, pairs.x1)) for metric in metrics}
        rows.append({"solver": name, "nfe": solver.nfe, **scores, "milliseconds": milliseconds})
    protocol = {
        "field": field.describe(),
        "samples": len(pairs),
        "seed": seed if isinstance(noise, int) else None,
        "reference": {**pairs.provenance, "nfe": pairs.nfe, "error": pairs.error},
    }
    return Comparison(tuple(rows), tuple(metrics), protocol)


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise a ``ValueError`` that names the metrics that do not exist."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"compare: unknown metrics {', '.join(unknown)}; known are {', '.join(METRICS)}.")


def _named(
    solvers: Iterable[Solver] | Mapping[str, Solver | Sequence[Solver]],
) -> Iterator[tuple[str, Solver]]:
    if not isinstance(solvers, Mapping):
        yield from ((solver.name, solver) for solver in solvers)
        return
    for name, group in solvers.items():
        yield from ((name, solver) for solver in ([group] if isinstance(group, Solver) else group))


def _with_reference(
    field: Field,
    noise: int | Tensor | Pairs,
    seed: int,
    rtol: float,
    atol: float,
    batch: int,
    progress: bool,
    conditions: Mapping[str, Any],
) -> Pairs:
    if isinstance(noise, Pairs):
        if conditions:
            raise ValueError(
                f"compare: the pairs given carry their own conditions, but {', '.join(conditions)} came "
                "besides; pass them to fewstep.reference.pairs, or pass the noises alone."
            )
        return noise
    if isinstance(noise, int):
        if field.shape is None:
            raise ValueError(
                f"compare: noise={noise} asks for noises, but the field's shape is unknown; pass the noises "
                "themselves, or Field(..., shape=...)."
            )
        noise = draw_noise(noise, field.shape, seed=seed)
    return reference.pairs(field, noise, rtol=rtol, atol=atol, batch=batch, progress=progress, **conditions)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
