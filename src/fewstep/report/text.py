"""A solver in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..solver import Solver

__all__ = ["describe"]


def describe(solver: Solver) -> str:
    """What a person wants to know of a solver: calls, times, coefficients, origin, warnings."""
    stages = [i for i in range(solver.nfe + 1) if i not in solver.points]
    lines = [
        f"{solver.name}: {solver.nfe} network calls a sample, {len(solver.points) - 1} steps"
        + (f" with {len(stages)} stages" if stages else ""),
        f"reads {solver.prediction} predictions"
        + ("" if solver.schedule is None else f" under {solver.schedule!r}"),
        "",
        f"{'call':>4}  {'time':>8}  next state = C . states + D . calls",
    ]
    for j, (t, c, d) in enumerate(zip(solver.times, solver.C, solver.D, strict=True)):
        lines.append(f"{j:>4}  {t:8.5f}  x{j + 1} = {_sum(c, 'x')}  {_sum(d, 'u')}")
    if solver.family:
        lines += ["", f"family: {solver.family['name']}"]
    if solver.fitted_for:
        facts = ", ".join(f"{key} {value}" for key, value in solver.fitted_for.items() if value is not None)
        lines.append(f"fitted for: {facts}")
    if solver.scores and "validation_rmse" in solver.scores:
        scores = {k: math.inf if v is None else v for k, v in solver.scores["validation_rmse"].items()}
        ranked = sorted(scores.items(), key=lambda item: item[1])
        lines.append("validation RMSE: " + ", ".join(f"{name} {error:.4g}" for name, error in ranked))
    lines += [f"cite: {entry}" for entry in solver.citation]
    return "\n".join([*lines, *(f"warning: {text}" for text in _warnings(solver))])


def _sum(coefficients: Sequence[float], symbol: str) -> str:
    terms = [f"{c:+.4f} {symbol}{j}" for j, c in enumerate(coefficients) if c != 0]
    return " ".join(terms)


def _warnings(solver: Solver) -> list[str]:
    warnings = []
    if 1.0 in solver.times:
        warnings.append(
            "it calls the network at t = 1, where trained networks are least reliable; if it does worse than "
            "expected, take a solver that stops short of it, such as midpoint."
        )
    largest = max((abs(c) for row in (*solver.C, *solver.D) for c in row), default=0.0)
    if largest > 20:
        warnings.append(
            f"its largest coefficient is {largest:.3g}, which amplifies rounding in low precision."
        )
    return warnings
