"""Text descriptions of solvers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .._gains import gains
from ..inspection import Inspection, Stability, inspect
from ..solver import Solver

__all__ = ["describe", "warnings"]

#: Line length.
WIDTH = 104


def describe(solver: Solver, facts: Inspection | None = None) -> str:
    """Describe a solver: calls, times, order, needs and warnings first, then coefficients and stability.

    Args:
        solver: the solver.
        facts: result of :func:`fewstep.inspect`; computed by default.
    """
    facts = inspect(solver) if facts is None else facts
    cautions = [line for text in warnings(facts) for line in _wrapped(f"warning: {text}", "         ")]
    first = [*_summary(facts), *_order(facts), *_needs(facts), *cautions]
    parts = [first, _origin(solver), _calls(facts), _consistency(facts), _stability(facts), _errors(facts)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def warnings(facts: Inspection) -> list[str]:
    """Return sentences about what may go wrong with a solver."""
    solver, needs = facts.solver, facts.needs
    found = []
    if needs.calls_at_end:
        found.append(
            "it calls the network at t = 1, where trained networks are least reliable; if it does worse than "
            "expected, use a solver without a call there, such as midpoint."
        )
    for j in needs.uninformative_calls:
        found.append(
            f"call {j}, at t = {solver.times[j]:g}, uses a prediction of the {solver.prediction} where the "
            f"state is pure {solver.prediction}, so that the network adds no information."
        )
    for j in needs.calls_back_in_time:
        found.append(f"call {j} goes back in time, from t = {solver.times[j - 1]:g} to {solver.times[j]:g}.")
    if needs.shortest_step < 1e-3:
        found.append(
            f"its shortest step is {needs.shortest_step:.2g} of the path, less than networks with a thousand "
            "discrete times, or times in half precision, can resolve."
        )
    if not facts.exactness.consistent and solver.family is None:
        found.append(
            f"it is inconsistent, most of all in state {facts.exactness.worst_row}, and not marked as "
            "fitted: a coefficient may be damaged."
        )
    if facts.errors.cancellation is None or facts.errors.cancellation > 3:
        found.append(
            "its weights of the calls nearly cancel, so that errors of the network are amplified up to "
            f"{facts.errors.total:.3g} times in the sample."
        )
    largest = facts.errors.largest_coefficient
    if largest > 20:
        found.append(f"its largest coefficient is {largest:.3g}, which amplifies rounding in low precision.")
    return found


def _summary(facts: Inspection) -> list[str]:
    solver = facts.solver
    steps, stages = len(solver.points) - 1, solver.nfe + 1 - len(solver.points)
    return [
        f"{solver.name}: {_counted(solver.nfe, 'network call')} a sample, {_counted(steps, 'step')}"
        + (f" with {_counted(stages, 'stage')}" if stages else ""),
        *_wrapped(f"times: {', '.join(f'{t:.5g}' for t in solver.times)}, and ends at {solver.end:g}", "  "),
        f"reads {solver.prediction} predictions"
        + ("" if solver.schedule is None else f" under {solver.schedule!r}"),
    ]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)


def _calls(facts: Inspection) -> list[str]:
    solver = facts.solver
    stages = [i for i in range(solver.nfe + 1) if i not in solver.points]
    lines = [
        f"{'call':>4}  {'time':>8}  {'gain':>6}  next state = C . states + D . calls"
        + (" (* stage)" if stages else ""),
    ]
    rows = zip(solver.times, facts.errors.noise_gain, solver.C, solver.D, strict=True)
    for j, (t, gain, c, d) in enumerate(rows):
        star = "*" if j + 1 in stages else " "
        start = f"{j:>4}  {t:8.5f}  {_short(gain):>6}  x{j + 1}{star} = "
        terms = [*_terms(c, "x"), *_terms(d, "u")] or ["0"]
        lines += _wrapped(start + "  ".join(terms), " " * len(start))
    return lines


def _order(facts: Inspection) -> list[str]:
    solver, found = facts.solver, facts.convergence
    if found is not None:
        how = "with more steps" if found.how == "refined" else "repeated on equal pieces of the path"
        order = f"{found.order:.2f}, measured {how}, {found.calls[0]} to {found.calls[-1]} calls"
    else:
        order = "not measured: " + {
            "inconsistent": "an inconsistent table does not converge",
            "one schedule": f"a table of {solver.prediction} predictions for one schedule cannot be refined; "
            "give a classical solver by name instead of its file",
            "not refinable": "the method has no version with more steps",
            "rounding": "all its errors are below rounding",
        }.get(str(facts.not_measured), "")
    return _wrapped(f"order: {order}", "  ")


def _consistency(facts: Inspection) -> list[str]:
    solver, exact = facts.solver, facts.exactness
    # The problems that a consistent solver solves exactly.
    kinds = ("a constant", "the slope 1") if solver.schedule is None else ("the noise", "the data")
    worst = [max(map(_size, row)) for row in exact.residuals.values()]
    last = [_size(row[-1]) for row in exact.residuals.values()]
    if exact.consistent:
        consistency = (
            f"consistent; residuals up to {worst[0]:.1g} for {kinds[0]}, {worst[1]:.1g} for {kinds[1]}"
        )
    else:
        origin = "fitted, " if solver.family else ""
        consistency = (
            f"{origin}not consistent: the sample misses {kinds[0]} by {last[0]:.2g} and {kinds[1]} by "
            f"{last[1]:.2g}, states do by up to {worst[0]:.2g} and {worst[1]:.2g}"
        )
    lines = _wrapped(consistency, "  ")
    exactly = []
    if exact.quadrature_degree is not None and exact.quadrature_degree >= 0:
        exactly.append(f"for velocities polynomial in time of degree {exact.quadrature_degree}")
    if exact.linear_order is not None and exact.linear_order >= 1:
        exactly.append(f"for dx/dt = mu x up to mu^{exact.linear_order}")
    return lines + ([f"  one pass is exact {' and '.join(exactly)}"] if exactly else [])


def _stability(facts: Inspection) -> list[str]:
    found = facts.stability
    if found is None:
        return []
    if found.real_limit is None:
        limit = "never"
    else:
        limit = "for every mu < 0" if found.real_limit < 1e-6 else f"from mu = -{found.real_limit:.4g}"
    gains = ", ".join(
        f"{_short(max(row))} (mu\u00a0=\u00a0{mu:g})"
        for mu, row in zip((0.0, *found.rates), found.growth, strict=True)
    )
    form = "" if facts.solver.prediction == "velocity" else ", in the form for velocities"
    return [
        f"stability on dx/dt = mu x{form}: some state outgrows x0 {limit}",
        *_amplification(found),
        *_wrapped(f"  gain of an error in a state, at most {gains}", "  "),
    ]


def _amplification(found: Stability) -> list[str]:
    columns = list(zip(found.rates, found.amplification, found.exact, strict=True))
    lines = [f"  {'time':>8}" + "".join(f"{f'mu = {rate:g}':>12}{'exact':>9}" for rate, _, _ in columns)]
    for i, t in enumerate(found.times):
        cells = "".join(f"{_short(states[i]):>12}{_short(exact[i]):>9}" for _, states, exact in columns)
        lines.append(f"  {t:8.5f}{cells}")
    return lines


def _errors(facts: Inspection) -> list[str]:
    errors, gains = facts.errors, facts.errors.noise_gain
    return [
        f"errors of the network, 1 in every call: up to {_short(errors.total)} in the sample, most from call "
        f"{gains.index(max(gains))} ({_short(max(gains))})",
        f"  independent ones: {_short(math.hypot(*gains))} root mean square; largest coefficient: "
        f"{_short(errors.largest_coefficient)}",
    ]


def _needs(facts: Inspection) -> list[str]:
    needs = facts.needs
    lines = [f"needs: memory for {needs.states} states and predictions at once, the new one included"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for schedule, kinds in needs.readable.items():
        groups.setdefault(kinds, []).append(schedule)
    networks = "; ".join(f"{', '.join(kinds) or 'none'} on {', '.join(on)}" for kinds, on in groups.items())
    lines += _wrapped(f"  networks that predict {networks}", "  ")
    if needs.fitted_for:
        known = (f"{key} {_plain(value)}" for key, value in needs.fitted_for.items() if value is not None)
        lines += _wrapped(f"  fitted for: {', '.join(known)}", "  ")
        if needs.fitted_for.get("guidance") is not None:
            lines.append(
                f"  at the guidance scale {needs.fitted_for['guidance']:g} alone; fit again for another"
            )
    else:
        lines.append("  no model in particular: any shape, condition and guidance")
    return lines


def _origin(solver: Solver) -> list[str]:
    lines = [f"family: {solver.family['name']}"] if solver.family else []
    if solver.scores and "validation_rmse" in solver.scores:
        scores = {k: math.inf if v is None else v for k, v in solver.scores["validation_rmse"].items()}
        ranked = sorted(scores.items(), key=lambda item: item[1])
        text = "validation RMSE: " + ", ".join(f"{name} {error:.4g}" for name, error in ranked)
        lines += _wrapped(text, "  ")
        if known := list(gains(solver.scores)):
            lines += _wrapped(f"  against the best other: {', '.join(known)}", "  ")
    return lines + [line for entry in solver.citation for line in _wrapped(f"cite: {entry}", "  ")]


def _plain(value: Any) -> str:
    """Return a schedule as ``vp(beta_min=0.1)``, a shape as ``3x32x32``, names with commas, or text."""
    if isinstance(value, Mapping) and "name" in value:
        options = ", ".join(f"{key}={option}" for key, option in value.items() if key != "name")
        return f"{value['name']}({options})" if options else str(value["name"])
    if isinstance(value, list | tuple):
        return ("x" if all(isinstance(one, int) for one in value) else ", ").join(map(str, value))
    return str(value)


def _terms(coefficients: Sequence[Any], symbol: str) -> list[str]:
    # A no-break space keeps a number with its symbol when lines are wrapped.
    return [f"{c:+.4f}\u00a0{symbol}{j}" for j, c in enumerate(coefficients) if c != 0]


def _short(value: float) -> str:
    """Format a number with few digits, in at most eight characters."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"
    return f"{value:.1e}"


def _size(residual: float) -> float:
    return math.inf if math.isnan(residual) else abs(residual)


def _wrapped(text: str, indent: str) -> list[str]:
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\u00a0", " ") for line in lines]
