"""Result of a comparison: one row per solver, and the samples that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._json import finite
from .._names import check_name
from .._rows import cell, csv_of, markdown_of
from ..metrics.features import too_few
from ..reference import remarks
from ..solver import Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..report.page import Page

__all__ = ["Comparison", "Kept"]


@dataclass(frozen=True)
class Kept:
    """The first few samples of a comparison, from the same noises in every row.

    Args:
        solvers: the solver of each row.
        samples: its first samples, ``(K, ...)``; NaN if the solver failed, likewise in ``paths``.
        paths: their trajectory points, ``(P, K, 2)``, if samples are points in the plane.
        reference: the reference's samples from those noises, ``(K, ...)``.
        reference_path: its path at equally spaced times, if samples are points in the plane.
    """

    solvers: tuple[Solver, ...]
    samples: tuple[Tensor, ...]
    reference: Tensor
    paths: tuple[Tensor, ...] = ()
    reference_path: Tensor | None = None


@dataclass(frozen=True)
class Comparison:
    """Scores of solvers against the reference of one model, on the same noises.

    Args:
        rows: one mapping per solver: ``model``, ``solver``, ``nfe``, network ``forwards`` per sample, the
            metrics (means over noises with their 95 % confidence intervals, ``<metric>_low`` and
            ``<metric>_high``), and ``milliseconds`` per sample. If the solver ended in NaN or infinity, the
            metrics and times are NaN, and ``failure``, which no other row has, is the reason.
        metrics: the metrics' names, as columns.
        protocol: how it was measured.
        kept: samples for the page, if any were kept.
    """

    rows: tuple[Mapping[str, Any], ...]
    metrics: tuple[str, ...]
    protocol: Mapping[str, Any]
    kept: Kept | None = None

    @property
    def failures(self) -> list[str]:
        """One sentence for each solver that ended in NaN or infinity."""
        return [
            f"{row['solver']} with {row['nfe']} calls failed: {row['failure']}"
            for row in self.rows
            if "failure" in row
        ]

    @property
    def notes(self) -> list[str]:
        """Caveats on the numbers, one sentence each."""
        features = self.protocol.get("quality", {}).get("features")
        dims = features.get("dims") if isinstance(features, Mapping) else None
        few = too_few(self.protocol["samples"], dims) if dims else ""
        notes = remarks(self.protocol.get("reference", {}))
        return [*notes, f"Fréchet distance: {few}."] if few else notes

    def is_fitted(self, solver: str) -> bool:
        """True for the names of fitted solvers."""
        return solver in self.protocol.get("fitted", ()) or solver.startswith(("fitted", "lifted"))

    def is_lifted(self, solver: str) -> bool:
        """True for the names of solvers with corrections."""
        return solver.startswith("lifted ")

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.rows[0]["model"])

    def to_json(self) -> str:
        """Return rows and protocol as JSON, with ``null`` for numbers that are not finite."""
        content = finite({"rows": list(self.rows), "protocol": self.protocol})
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return all columns of the rows as comma-separated values."""
        return csv_of(self.rows)

    def to_markdown(self) -> str:
        """Return a Markdown table with one line per solver."""
        return markdown_of(self.rows, ("solver", "nfe", *self.metrics))

    def by_nfe(self, metric: str) -> str:
        """Return a table of one metric, with a line per solver and a column per NFE."""
        budgets = sorted({row["nfe"] for row in self.rows})
        names = list(dict.fromkeys(row["solver"] for row in self.rows))
        cells = {(row["solver"], row["nfe"]): cell(row, metric) for row in self.rows}
        width = max(len(metric), *map(len, names))
        lines = [f"{metric:<{width}}" + "".join(f"{f'{nfe} calls':>12}" for nfe in budgets)]
        lines += [
            f"{name:<{width}}" + "".join(f"{cells.get((name, nfe), ''):>12}" for nfe in budgets)
            for name in names
        ]
        return "\n".join(lines)

    def plot(self, metric: str = "rmse") -> Figure:
        """Return a matplotlib figure of a metric against NFE, as the page has it.

        Raises:
            ValueError: if the metric was not measured.
        """
        from ..report.comparison import chart
        from ..report.page.figures import chart_figure

        check_name("plot: metric", metric, self.metrics)
        return chart_figure(chart(self, metric))

    def page(self) -> Page:
        """Return a page with errors, pictures or trajectories, and the coefficients of the solvers."""
        from ..report.comparison import comparison_page

        return comparison_page([self])

    def __str__(self) -> str:
        parts = [*(self.by_nfe(metric) for metric in self.metrics), "\n".join([*self.failures, *self.notes])]
        return "\n\n".join(part for part in parts if part)
