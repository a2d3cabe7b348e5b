"""Sections of the page: samples, error and cost against the number of calls, and the solvers' numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import quantiles
from typing import TYPE_CHECKING

from ..._gains import GAINS, best_rival, ratio_to_rival
from ...data import is_picture
from ...lifted import Lifted
from ...metrics import figure
from ...solver import Solver
from ..page import (
    Chart,
    Choice,
    Facts,
    Grid,
    Part,
    Pictures,
    Planes,
    Section,
    Series,
    Strip,
    Table,
    Text,
    Timeline,
)
from ._findings import worse_with_more
from ._rows import budgets, by_model, failed, of_kept, ranked, rows_of_solvers, several, short

if TYPE_CHECKING:
    from ...comparison import Comparison, Kept

__all__ = ["chart", "cost", "errors", "fits", "lifts", "numbers", "samples"]

#: Images per row, and paths per plane.
_PICTURES, _PATHS = 12, 48

#: Rows or planes at first: the reference, the best classical and the best fitted solver.
_LEAD = 3


def errors(tables: Sequence[Comparison]) -> Section:
    """Return charts of every metric against the number of network calls."""
    charts = {
        figure(metric).axis: by_model(tables, lambda table, metric=metric: chart(table, metric))  # type: ignore[misc]
        for metric in tables[0].metrics
    }
    return Section(
        "Error and quality against network calls",
        [Choice("Figure", charts) if len(charts) > 1 else next(iter(charts.values())), *_failures(tables)],
    )


def _failures(tables: Sequence[Comparison]) -> list[Part]:
    """Return the reasons for missing points, if there are any."""
    of = {table.model: f" on {table.model}" if len(tables) > 1 else "" for table in tables}
    why = {
        f"{row['solver']} with {row['nfe']} calls{of[row['model']]}": row["failure"]
        for table in tables
        for row in table.rows
        if "failure" in row
    }
    return [Text("Some solvers failed, and have no point:"), Facts(why)] if why else []


def _noises(tables: Sequence[Comparison]) -> str:
    counts = {table.protocol.get("samples") for table in tables}
    return f"{counts.pop()} noises" if len(counts) == 1 and None not in counts else "the noises"


def chart(table: Comparison, metric: str) -> Chart:
    """Return the chart of a metric against the number of network calls, one line per solver."""
    series = []
    for name, rows in rows_of_solvers(table).items():
        low, high = ([row.get(f"{metric}_{end}") for row in rows] for end in ("low", "high"))
        known = None not in (*low, *high)
        series.append(
            Series(
                name,
                [row["nfe"] for row in rows],
                [row[metric] for row in rows],
                low if known else None,
                high if known else None,
                strong=table.is_fitted(name),
            )
        )
    own = table.protocol.get("reference", {}).get(metric)
    of = _noises([table])
    said = [f"Means over {of}, the same for every solver, with 95 % confidence intervals."]
    said += [] if own is None else [f"The reference's own: {short(own)}.", *table.notes]
    said += [why] if (why := worse_with_more(table, metric)) else []
    return Chart(
        f"{figure(metric).axis}, {table.model}",
        "network calls",
        figure(metric).axis,
        series,
        log_y=not figure(metric).gain,
        note=" ".join(said),
    )


def cost(tables: Sequence[Comparison]) -> list[Section]:
    """Return a table of the time of a network call and of a sample, if any solver has no corrections."""
    calls = budgets(tables[0])
    columns = [
        *several(tables, "model"), "network forwards a call", "ms a call and sample",
        "lower quartile", "upper quartile",
        *(f"ms a sample, {nfe} calls" for nfe in calls),
    ]  # fmt: skip
    rows: list[list[str | float]] = []
    for table in tables:
        bare = [row for row in table.rows if not table.is_lifted(row["solver"])]
        if not bare:
            continue
        times = [row["milliseconds"] / row["nfe"] for row in bare if "failure" not in row]
        low, middle, high = quantiles(times, n=4) if len(times) > 1 else (times or [math.nan]) * 3
        forwards = table.rows[0]["forwards"] // table.rows[0]["nfe"]
        times_of = (nfe * middle for nfe in calls)
        rows.append([*several(tables, table.model), forwards, middle, low, high, *times_of])
    intro = (
        "A sample takes as long as its network calls; the time of a table is too short to measure. The "
        "time of a call is therefore taken from all solvers without corrections, measured one after the "
        "other, in batches; the spread between the quartiles comes from other work on the machine."
    )
    parts = [Table("The median over all solvers", columns, rows)]
    return [Section("Network calls and seconds", parts, intro)] if rows else []


def samples(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Return images, or paths in the plane, for every number of calls, if samples are either."""

    def shown(kept: Kept) -> bool:
        return bool(kept.paths) or is_picture(tuple(kept.reference.shape[1:]))

    parts = of_kept(tables, shown, lambda *frame: (_planes if frame[1].paths else _strips)(*frame), first)
    return [Section("Samples from the same noises", parts)] if parts else []


def _note(table: Comparison, nfe: int) -> str:
    """Say that figures beside samples are of more noises than are shown, and what failed."""
    of = f"{figure(table.metrics[0]).label}: mean over {_noises([table])}, the first of which are shown."
    return " ".join(part for part in (of, failed(table, nfe)) if part)


def _strips(table: Comparison, kept: Kept, nfe: int) -> Pictures:
    metric, calls = table.metrics[0], table.protocol["reference"]["nfe"]
    strips = [Strip("reference", kept.reference[:_PICTURES], f"{calls} calls")]
    strips += [
        Strip(row["solver"], kept.samples[k][:_PICTURES], f"{figure(metric).label} {short(row[metric])}")
        for k, row in ranked(table, nfe)
        if "failure" not in row
    ]
    return Pictures(f"{table.model}, {nfe} network calls", strips, _note(table, nfe), _LEAD)


def _planes(table: Comparison, kept: Kept, nfe: int) -> Planes:
    metric, shown = table.metrics[0], kept.reference_path
    paths = {} if shown is None else {"reference": shown[:, :_PATHS]}
    scores = {"reference": f"{table.protocol['reference']['nfe']} calls"}
    for k, row in ranked(table, nfe):
        if "failure" not in row:
            paths[row["solver"]] = kept.paths[k][:, :_PATHS]
            scores[row["solver"]] = f"{figure(metric).label} {short(row[metric])}"
    title = f"{table.model}, {nfe} network calls"
    return Planes(title, paths, _note(table, nfe), scores, kept.reference, _LEAD)


def numbers(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Return times and reduced coefficients of every solver, if solvers were kept."""
    times, weights = (of_kept(tables, lambda kept: True, part, first) for part in (_times, _weights))
    intro = (
        "Every solver is one table: each state x1, x2 and so on is a weight times the noise x0 plus weights "
        "times the network's velocities u0, u1 and so on. The last row is the sample."
    )
    if any(table.is_lifted(row["solver"]) for table in tables for row in table.rows):
        intro += " A lifted solver corrects the states by small networks, too."
    title = "Times and coefficients of the solvers"
    return [Section(title, [*times, *weights], intro)] if times else []


def fits(tables: Sequence[Comparison]) -> list[Section]:
    """Return what the kept solvers that were fitted gained on the validation pairs of their fits, if any."""
    rows: list[list[str | float | None]] = []
    for head, solver in _kept(tables):
        scores = {} if isinstance(solver, Lifted) else solver.scores or {}  # of its table
        errors = {k: v for k, v in scores.get("validation_rmse", {}).items() if v is not None}
        if "fitted" in errors and len(errors) > 1:
            ratio = ratio_to_rival(errors)
            rows.append([*head, errors["fitted"], best_rival(errors), ratio, *map(scores.get, GAINS)])
    columns = [
        *several(tables, "model"), "solver", "calls", "RMSE", "best other", "ratio", "typical ratio",
        "left", "by chance",
    ]  # fmt: skip
    intro = (
        "The ratio is that of the RMSE to the best other solver's; the typical one, the median over noises "
        "of their own, is not decided by a few that fall to another mode. Left is the share by which the "
        "RMSE would fall if the last row had the best coefficients for each sample, of the noise and the "
        "calls at the states visited here: no shared coefficients gain more, other states or one more call "
        "may. By chance is the share with the calls of another sample."
    )
    parts = [Table("Gains", columns, rows)]
    return [Section("The fits on their validation pairs", parts, intro)] if rows else []


def lifts(tables: Sequence[Comparison]) -> list[Section]:
    """Return what the corrections of kept solvers gained on the validation pairs of their lifts, if any."""
    rows: list[list[str | float | None]] = []
    for head, solver in _kept(tables):
        facts = solver.lift if isinstance(solver, Lifted) else {}
        if facts:
            after, before = (facts["validation_rmse"][key] for key in ("lifted", "solver"))
            own = facts["pairs"]["train"], facts["weights"], facts["share_of_a_call"]
            rows.append([*head, after, before, after / before, *own])
    columns = [
        *several(tables, "model"), "solver", "calls", "RMSE", "without corrections", "ratio", "pairs",
        "weights", "time in calls",
    ]  # fmt: skip
    intro = (
        "The errors are those on the pairs that were held out from the training of the corrections. The time "
        "is that of all corrections of a batch over that of one network call, where they were trained."
    )
    parts = [Table("Lifts", columns, rows)]
    return [Section("The lifts on their validation pairs", parts, intro)] if rows else []


def _kept(tables: Sequence[Comparison]) -> Iterator[tuple[list[str | float], Solver]]:
    """Yield the first cells of a row for each kept solver, and the solver."""
    for table in tables:
        for row, solver in zip(table.rows, table.kept.solvers if table.kept else (), strict=False):
            yield [*several(tables, table.model), row["solver"], solver.nfe], solver


def _at(table: Comparison, kept: Kept, nfe: int) -> dict[str, Solver]:
    """Return the solvers with ``nfe`` calls, the best first."""
    return {row["solver"]: kept.solvers[k] for k, row in ranked(table, nfe)}


def _times(table: Comparison, kept: Kept, nfe: int) -> Part:
    return Timeline(
        f"Times of {nfe} calls",
        {name: solver.times for name, solver in _at(table, kept, nfe).items()},
        "Time 0 is noise and 1 is data.",
    )


def _weights(table: Comparison, kept: Kept, nfe: int) -> Part:
    learned = _learned(table, _at(table, kept, nfe))
    return Choice("Solver", {name: _grid(solver, name) for name, solver in learned.items()})


def _learned(table: Comparison, solvers: dict[str, Solver]) -> dict[str, Solver]:
    """Return the fitted solvers and the best classical one for comparison, or all if none is fitted."""
    fitted = {name: solver for name, solver in solvers.items() if table.is_fitted(name)}
    best = next((name for name in solvers if name not in fitted), None)
    known = {} if best is None else {best: solvers[best]}
    return {**fitted, **known} if fitted else solvers


def _grid(solver: Solver, name: str) -> Grid:
    reduced, N = solver.table.unroll(), solver.nfe
    values = [
        [float(reduced.a[i]), *(float(reduced.b[i, j]) if j <= i else None for j in range(N))]
        for i in range(N)
    ]
    columns = ["x0", *(f"u{j}" for j in range(N))]
    return Grid(f"Weights of {name}, {N} calls", values, [f"x{i + 1}" for i in range(N)], columns)
