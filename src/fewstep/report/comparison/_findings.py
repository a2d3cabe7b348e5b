"""The main result of a comparison in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...metrics import figure
from ._rows import Row, best, better, budgets, rows_of_solvers, short

if TYPE_CHECKING:
    from ...comparison import Comparison

__all__ = ["finding", "first_shown", "worse_with_more"]


def first_shown(tables: Sequence[Comparison]) -> int:
    """Return the number of calls at which the gain is largest; one in the middle without fitted solvers."""
    duels = _duels(tables[0])
    known = budgets(tables[0])
    return _clearest(tables[0], duels) if duels else known[(len(known) - 1) // 2]


def finding(table: Comparison) -> str:
    """Return what the fitted solvers gained, or the best row without them, in two or three sentences."""
    failures, duels, metric = len(table.failures), _duels(table), table.metrics[0]
    if failures == len(table.rows):
        return "Every solver failed: no samples are finite."
    if duels:
        nfe = _clearest(table, duels)
        ours, rival = duels[nfe]
        said = (
            _gained(table, nfe, duels) if better(metric, ours[metric], rival[metric]) else _lost(table, duels)
        )
        said += _quality(table, ours)
    else:
        row = best(table.rows, metric)
        said = f"Closest to {_model(table)}: {row['solver']} with {_calls(row)}, {_score(table, row)}."
    return said + (f" {failures} of {len(table.rows)} solvers failed." if failures else "")


def worse_with_more(table: Comparison, metric: str) -> str:
    """Return an explanation for fitted solvers that are worse with more calls; empty if there are none."""
    said = []
    for name, rows in rows_of_solvers(table).items():
        known = [row for row in rows if table.is_fitted(name) and "failure" not in row]
        for fewer, more in zip(known, known[1:], strict=False):
            if better(metric, fewer[metric], more[metric]):
                said.append(
                    f"{name} is worse with {more['nfe']} calls ({short(more[metric])}) than with "
                    f"{fewer['nfe']} ({short(fewer[metric])})"
                )
    if not said:
        return ""
    return (
        f"{'; '.join(said)}. Each number of calls has a fit of its own, made with other noises than these; "
        "fit again with more pairs or another seed where more calls do not help."
    )


def _duels(table: Comparison) -> dict[int, tuple[Row, Row]]:
    """Return the best fitted and the best classical row by the number of calls of the fitted one.

    Where no classical solver has as many calls, it is one of those with the next larger number.
    """
    metric = table.metrics[0]
    known = [row for row in table.rows if "failure" not in row]
    fitted = [row for row in known if table.is_fitted(row["solver"])]
    classical = [row for row in known if not table.is_fitted(row["solver"])]
    found = {}
    for nfe in sorted({row["nfe"] for row in fitted}):
        as_many = min((row["nfe"] for row in classical if row["nfe"] >= nfe), default=None)
        if as_many is not None:
            rivals = [row for row in classical if row["nfe"] == as_many]
            found[nfe] = (best([row for row in fitted if row["nfe"] == nfe], metric), best(rivals, metric))
    return found


def _clearest(table: Comparison, duels: Mapping[int, tuple[Row, Row]]) -> int:
    """Return the number of calls with the largest difference, which is the easiest to see."""
    metric = table.metrics[0]

    def gain(nfe: int) -> float:
        ours, rival = (float(row[metric]) for row in duels[nfe])
        return ours - rival if figure(metric).gain else rival - ours

    return max(duels, key=gain)


def _gained(table: Comparison, nfe: int, duels: Mapping[int, tuple[Row, Row]]) -> str:
    metric = table.metrics[0]
    ours, rival = duels[nfe]
    said = [
        f"At {_calls(ours)}, {ours['solver']} is closest to {_model(table)}: {_score(table, ours)}, best "
        f"classical {short(rival[metric])} ({_named(rival, nfe)})."
    ]
    classical = [row for row in table.rows if not table.is_fitted(row["solver"]) and "failure" not in row]
    beaten = _beaten(ours, classical, metric)
    if beaten > max(nfe, rival["nfe"]):
        said.append(f"No classical solver here is as close with up to {beaten} calls.")
    others = {n: duel for n, duel in duels.items() if n != nfe}
    won = [n for n, (mine, other) in others.items() if better(metric, mine[metric], other[metric])]
    if won:
        said.append(f"A fitted solver is closest at {_listed(won)} calls too.")
    said += [
        f"At {_calls(mine)} it is {_named(other, n)}: {short(other[metric])}, fitted {short(mine[metric])}."
        for n, (mine, other) in others.items()
        if n not in won
    ]
    return " ".join(said)


def _lost(table: Comparison, duels: Mapping[int, tuple[Row, Row]]) -> str:
    """Return the result where no fitted solver is closer than the classical ones."""
    metric, nfe = table.metrics[0], _clearest(table, duels)
    ours, rival = duels[nfe]
    return (
        f"The fitted solvers gain nothing here: at {_calls(ours)}, {_named(rival, nfe)} is closest to "
        f"{_model(table)}, {_score(table, rival)}, best fitted {short(ours[metric])} ({ours['solver']})."
    )


def _quality(table: Comparison, ours: Row) -> str:
    """Return the quality of the samples next to the reference's, if it was measured."""
    for metric in table.metrics:
        own = table.protocol.get("reference", {}).get(metric)
        if own is not None:
            figures = f"{short(ours[metric])}; the reference's {short(own)}"
            return f" {figure(metric).label} of its samples: {figures}."
    return ""


def _beaten(ours: Row, classical: Sequence[Row], metric: str) -> int:
    """Return the largest number of calls up to which every classical solver is worse, or 0."""
    enough = [row["nfe"] for row in classical if not better(metric, ours[metric], row[metric])]
    return max((row["nfe"] for row in classical if not enough or row["nfe"] < min(enough)), default=0)


def _model(table: Comparison) -> str:
    nfe = table.protocol.get("reference", {}).get("nfe")
    return f"the model's {nfe}-call samples" if nfe else "the reference"


def _calls(row: Row) -> str:
    return "1 call" if row["nfe"] == 1 else f"{row['nfe']} calls"


def _named(row: Row, nfe: int) -> str:
    """Return the name of a solver, with its number of calls if that is another one."""
    return str(row["solver"]) if row["nfe"] == nfe else f"{row['solver']}, {_calls(row)}"


def _score(table: Comparison, row: Row) -> str:
    metric = table.metrics[0]
    return f"{figure(metric).label} {short(row[metric])}"


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
