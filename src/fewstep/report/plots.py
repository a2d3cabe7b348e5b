"""Plots of solvers, searches and samples, as matplotlib figures that are not shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._extras import require
from ..data import sheet_levels
from ..inspection import Inspection, Stability
from ..solver import Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..fitting import Search

__all__ = [
    "coefficients",
    "flow_scatter",
    "front",
    "inspected",
    "picture_rows",
]


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = require("matplotlib.figure", "plot").Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def front(found: Search) -> Figure:
    """Plot the errors of fitted and classical solvers against calls, with the recommended solver marked."""
    figure, ((axes,),) = _figure(1, 1, (6.4, 4.2))
    for kind, marker in (("fitted", "o"), ("classical", ".")):
        rows = sorted((row for row in found.rows if row["kind"] == kind), key=lambda row: row["nfe"])
        axes.plot([r["nfe"] for r in rows], [r["rmse"] for r in rows], marker=marker, label=f"best {kind}")
        for row in rows:
            at, label = (row["nfe"], row["rmse"]), row["solver"]
            axes.annotate(label, at, (4, 5), textcoords="offset points", fontsize=7, alpha=0.7)
    chosen = found.recommend()
    axes.scatter([chosen["nfe"]], [chosen["rmse"]], s=160, facecolors="none", edgecolors="C3", zorder=4)
    budgets = sorted({row["nfe"] for row in found.rows})
    axes.set(ylabel="RMSE to the reference", yscale="log", xlabel="network calls")
    axes.set_xticks(budgets, [str(nfe) for nfe in budgets])
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def coefficients(solver: Solver) -> Figure:
    """Plot the times of a solver's calls and its coefficients.

    Left: the times. Middle and right: ``a_i`` and ``b_ij`` of the reduced form
    ``x_i = a_i x_0 + sum_j b_ij u_j``, which is comparable between solvers.
    """
    figure, (panels,) = _figure(1, 3, (11, 3.6))
    _draw_coefficients(figure, panels, solver)
    return figure


def inspected(facts: Inspection) -> Figure:
    """Plot the coefficients and, below them, the growth of states and errors.

    Left: the states of ``dx/dt = mu x`` along the path, with the exact ones dotted. Middle: gain of an error
    in each state in the sample of that equation. Right: gain of an error in each call. For a scale-time
    solver a third row has its learned times, scales and their slopes.
    """
    nodes = _nodes(facts.solver)
    rows = 2 if nodes is None else 3
    figure, (upper, (left, middle, right), *lower) = _figure(rows, 3, (11, 3.4 * rows))
    _draw_coefficients(figure, upper, facts.solver)
    if nodes is not None:
        _draw_nodes(lower[0], nodes)
    gains = facts.errors.noise_gain
    right.bar(range(len(gains)), gains)
    right.set(xlabel="call j", title="gain of an error in call j")
    right.xaxis.get_major_locator().set_params(integer=True)
    if facts.stability is not None:
        _draw_stability(left, middle, facts.stability)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _nodes(solver: Solver) -> dict[str, list[float]] | None:
    """Return ``r, t, dt, s, ds`` of a scale-time solver, as its file has them."""
    family = solver.family or {}
    found = {key: family.get(key) for key in ("r", "t", "dt", "s", "ds")}
    sizes = {len(x) if isinstance(x, list | tuple) else 0 for x in found.values()}
    numbers = all(isinstance(x, float) for part in found.values() for x in part or ())
    return found if numbers and len(sizes) == 1 and min(sizes) > 1 else None  # type: ignore[return-value]


def _draw_nodes(panels: Any, nodes: dict[str, list[float]]) -> None:
    left, middle, right = panels
    r, last = nodes["r"], len(nodes["r"]) - 1
    left.plot(r, r, color="0.75", linewidth=1, label="t = r")
    left.plot(r, nodes["t"], marker="o", label="learned")
    middle.axhline(1, color="0.75", linewidth=1)
    middle.plot(r, nodes["s"], marker="o")
    right.plot(r[:last], nodes["dt"][:last], marker="o", label="of t")
    right.plot(r[:last], nodes["ds"][:last], marker="o", label="of s")
    for axes, title in zip(
        panels, ("learned times, t(r)", "learned scales, s(r)", "slopes in r"), strict=True
    ):
        axes.set(xlabel="r", title=title)
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    right.legend(frameon=False)


def _draw_stability(left: Any, middle: Any, found: Stability) -> None:
    paths = zip(found.rates, found.amplification, found.exact, strict=True)
    for k, (rate, states, exact) in enumerate(paths, start=1):
        left.plot(
            found.times, [abs(r) for r in states], marker=".", color=f"C{k}", label=f"$\\mu$ = {rate:g}"
        )
        left.plot(found.times, exact, color=f"C{k}", linewidth=1, linestyle=":")
    # At faster rates explicit solvers diverge, which would hide the other curves.
    for k, (rate, growth) in enumerate(list(zip((0, *found.rates), found.growth, strict=True))[:3]):
        middle.plot(range(len(growth)), growth, marker=".", color=f"C{k}", label=f"$\\mu$ = {rate:g}")
    left.set(xlabel="time", title="$|x / x_0|$ on $dx/dt = \\mu x$", yscale="log")
    left.set_ylim(1e-4, 1e4)
    middle.set(xlabel="state j", title="gain of an error in state j")
    middle.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, middle):
        axes.legend(frameon=False, fontsize="small")


def _draw_coefficients(figure: Figure, panels: Any, solver: Solver) -> None:
    reduced, N = solver.table.unroll(), solver.nfe
    left, middle, right = panels

    left.plot(range(N + 1), [i / N for i in range(N + 1)], color="0.75", linewidth=1, label="uniform")
    left.plot(range(N + 1), [*solver.times, solver.end], marker="o", label=solver.name)
    left.set(xlabel="call", ylabel="time", title="when the network is called", xticks=range(N + 1))
    left.legend(frameon=False)

    middle.axhline(1, color="0.75", linewidth=1)
    middle.plot(range(1, N + 1), reduced.a, marker="o")
    middle.set(xlabel="state i", title="weight of the noise, a", xticks=range(1, N + 1))

    limit = float(reduced.b.abs().max())
    weights = reduced.b.numpy()
    masked = require("numpy", "plot").ma.masked_where(weights == 0, weights)
    picture = right.imshow(masked, cmap="RdBu_r", vmin=-limit, vmax=limit)
    right.set(xlabel="call j", ylabel="state i", title="weights of the calls, b")
    right.set_xticks(range(N), [str(j) for j in range(N)])
    right.set_yticks(range(N), [str(i) for i in range(1, N + 1)])
    figure.colorbar(picture, ax=right, shrink=0.85)
    for axes in (left, middle):
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)


def flow_scatter(samples: Mapping[int, Tensor], states: Tensor) -> Figure:
    """Plot points in the plane for each number of calls, and the paths to the last ones.

    Args:
        samples: points ``(B, 2)`` by number of network calls.
        states: trajectory points ``(P, B, 2)``.
    """
    figure, (panels,) = _figure(1, len(samples) + 1, (2.6 * (len(samples) + 1), 2.8))
    for axes, (nfe, points) in zip(panels, samples.items(), strict=False):
        axes.scatter(*points.detach().cpu().T, s=4, linewidths=0)
        axes.set_title("1 call" if nfe == 1 else f"{nfe} calls", loc="left")
    for path in states.detach().cpu().transpose(0, 1):
        panels[-1].plot(*path.T, linewidth=0.5, color="0.4")
    panels[-1].scatter(*states[-1].detach().cpu().T, s=4, linewidths=0, zorder=3)
    panels[-1].set_title("paths", loc="left")
    for axes in panels:
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def picture_rows(rows: Mapping[str, Tensor], scores: Mapping[str, str] | None = None) -> Figure:
    """Plot one labelled row of samples per solver; column ``k`` has the same noise in every row.

    Args:
        rows: samples in [-1, 1], ``(B, 1 or 3, H, W)``, by name.
        scores: short texts by name, shown below it.
    """
    B = len(next(iter(rows.values())))
    figure, panels = _figure(len(rows), 1, (2.2 + 0.8 * B, 0.86 * len(rows)))
    for (axes,), (name, samples) in zip(panels, rows.items(), strict=True):
        levels = sheet_levels(samples, columns=B).numpy()
        axes.imshow(levels, vmin=0, vmax=255, cmap="gray", interpolation="nearest")
        score = (scores or {}).get(name)
        label = name if score is None else f"{name}\n{score}"
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure
