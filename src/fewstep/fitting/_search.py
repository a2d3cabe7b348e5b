"""Search over families and numbers of calls for the solver to use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import classical
from .._conditions import cut
from .._json import finite
from ..comparison import compare
from ..families import Family
from ..families._by_name import velocity_tables
from ..field import Field
from ..pairs import Pairs
from ..solver import Solver
from ._budget import BudgetError
from ._fit import run
from ._pairs import Maker, held_back
from ._question import ask
from ._result import Fit
from ._rivals import mean_psnrs
from ._rollout import Rollout
from ._settings import Optimizer, Reference
from .losses import Loss

__all__ = ["FAMILIES", "Search", "search"]

#: Families tried at every number of calls that they allow.
FAMILIES = ("non_stationary", "scale_time")
#: Grids of the classical rivals.
_GRIDS = ("uniform", "cosine")
#: Least gain of a further call, in dB.
_WORTH = 1.0


@dataclass(frozen=True)
class Search:
    """Fitted solvers for several numbers of calls, scored on fresh noises.

    Args:
        fits: the best fit at each number of calls, by validation PSNR.
        rows: one mapping per solver: ``solver``, ``kind`` (``"fitted"`` or ``"classical"``), ``nfe``,
            ``rmse``, ``psnr``, on the test noises.
        calls: network calls by purpose.
        tried: every fit: ``family``, ``nfe``, its validation PSNR and network calls.
        notes: omitted fits and solvers, with the reasons.
    """

    fits: Mapping[int, Fit]
    rows: tuple[Mapping[str, Any], ...]
    calls: Mapping[str, int]
    tried: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[Mapping[str, Any], ...]:
        """Rows that no other row with as few calls improves on, by increasing number of calls."""
        best: list[Mapping[str, Any]] = []
        for row in sorted(self.rows, key=lambda row: (row["nfe"], -row["psnr"])):
            if not best or row["psnr"] > best[-1]["psnr"]:
                best.append(row)
        return tuple(best)

    def recommend(self, psnr: float | None = None) -> Mapping[str, Any]:
        """Return the row with the fewest calls that reaches a PSNR.

        Args:
            psnr: wanted PSNR in dB; by default calls are added while each gains at least 1 dB.

        Raises:
            ValueError: when no solver reaches it.
        """
        front = self.front
        if psnr is None:
            chosen = front[0]
            for row in front[1:]:
                if row["psnr"] - chosen["psnr"] < _WORTH * (row["nfe"] - chosen["nfe"]):
                    break
                chosen = row
            return chosen
        for row in front:
            if row["psnr"] >= psnr:
                return row
        raise ValueError(
            f"recommend: nothing tried reaches {psnr:g} dB; the best is {front[-1]['solver']} with "
            f"{front[-1]['nfe']} calls, {front[-1]['psnr']:.1f} dB; search more calls."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the solvers, JSON-ready."""
        content: dict[str, Any] = finite(
            {
                "rows": list(self.rows),
                "front": list(self.front),
                "recommended": self.recommend(),
                "calls": self.calls,
                "tried": list(self.tried),
                "notes": list(self.notes),
            }
        )
        return content

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def __str__(self) -> str:
        lines = [f"{'calls':>5}  {'RMSE':>10}  {'PSNR':>6}  solver (* on the front)"]
        front = self.front
        for row in sorted(self.rows, key=lambda row: (row["nfe"], row["rmse"])):
            mark = "*" if row in front else " "
            lines.append(f"{row['nfe']:>5}  {row['rmse']:>10.4g}  {row['psnr']:6.1f} {mark}{row['solver']}")
        return "\n".join([*lines, "", self.words(), *(f"note: {note}" for note in self.notes)])

    def words(self, psnr: float | None = None) -> str:
        """Return the recommendation in words."""
        row = self.recommend(psnr)
        reason = (
            "up to there every call gains a dB or more" if psnr is None else f"the fewest for {psnr:g} dB"
        )
        text = f"take {row['solver']} with {row['nfe']} calls, {row['psnr']:.1f} dB: {reason}"
        rivals = [r for r in self.rows if r["kind"] == "classical" and r["psnr"] >= row["psnr"]]
        if row["kind"] == "fitted" and rivals:
            least = min(rivals, key=lambda r: r["nfe"])
            text += f"; the best classical solver needs {least['nfe']}"
        elif row["kind"] == "fitted":
            most = max(r["nfe"] for r in self.rows)
            text += f"; no classical solver gets there with {most} calls or fewer"
        return text


def search(
    field: Field,
    nfe: int | Sequence[int],
    *,
    families: Sequence[str | Family] = FAMILIES,
    loss: str | Loss = "rmse",
    optimizer: str | Optimizer = "gauss_newton",
    pairs: int | Pairs = 128,
    test: int = 64,
    max_calls: int | None = None,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
    reference: Reference | None = None,
    seed: int = 0,
    batch: int = 4096,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Search:
    """Fit every family at each number of calls that it allows, and keep the best fits.

    All fits share the reference pairs; the best is chosen by its PSNR on the validation quarter of them, and
    scored together with the best classical solver (of all, on two grids, by the same validation pairs) on
    noises after those of the pairs, which are used for no choice.

    Args:
        field: the model.
        nfe: numbers of network calls to search.
        families: names as in :func:`fewstep.fit`, or families.
        loss: as in :func:`fewstep.fit`.
        optimizer: likewise.
        pairs: number of reference pairs to make, or the pairs.
        test: number of noises for the scores.
        max_calls: stop before the search makes more network calls than this; remaining calls are shared
            equally among the remaining fits, and a fit that needs more is omitted with a note.
        conditions: keyword arguments of the network that all noises share.
        per_sample: keyword arguments with one row per noise, ``pairs + test`` rows, or one row for all.
        reference: settings of the reference.
        seed: seed of the noises.
        batch: most samples per network call.
        device: device of the noises; by default that of the network.
        progress: show progress bars.

    Raises:
        ValueError: on arguments that do not fit together, or a budget too small for every fit.
    """
    budgets = sorted(set(nfe)) if isinstance(nfe, Iterable) and not isinstance(nfe, str) else [nfe]
    families = [families] if isinstance(families, str) else families
    if not budgets:
        raise ValueError("search: nfe is empty; pass numbers of network calls, such as (4, 6, 8).")
    jobs = [(n, family) for n in budgets for family in families if _fits(family, n)]
    questions = {job: ask(field, job[0], None, job[1], None, loss, optimizer) for job in jobs}
    maker = Maker(conditions, per_sample, reference or Reference(), seed, device, batch, progress)
    pairs, tests = _pairs_and_tests(field, pairs, test, maker)
    maker = replace(maker, conditions=None, per_sample=None)  # the pairs have them
    calls = {"reference": pairs.calls, "test": tests.calls, "fit": 0, "classical": 0}
    judge, held_out = Rollout(field, batch), held_back(pairs)[1]

    # Reserve the calls for scoring: two solvers per number of calls on the test noises, and the rivals.
    rivals = {n: classical.baselines(n, field.schedule, _GRIDS) for n in budgets}
    scoring = sum(2 * n * len(tests) + n * len(rivals[n]) * len(held_out) for n in budgets)
    scoring += sum(2 * n * len(held_out) for n, _ in jobs)
    fits: dict[int, Fit] = {}
    tried: list[dict[str, Any]] = []
    notes: list[str] = []
    for k, ((n, family), question) in enumerate(questions.items()):
        share = None
        if max_calls is not None:
            share = pairs.calls + (max_calls - scoring - sum(calls.values())) // (len(jobs) - k)
        try:
            found = run(question, maker, pairs, max_calls=share, rivals=False)
        except BudgetError as error:
            notes.append(f"{family} with {n} calls was left out: {error}")
            continue
        spent = sum(found.report.calls.values()) - found.report.calls["reference"]
        calls["fit"] += spent
        psnr = found.report.curve[found.report.best_iteration]["validation_psnr"]
        if all(psnr > row["validation_psnr"] for row in tried if row["nfe"] == n):
            fits[n] = found
        tried.append({"family": found.report.family, "nfe": n, "validation_psnr": psnr, "calls": spent})
    if not fits:
        raise ValueError(f"search: max_calls={max_calls} leaves nothing for any fit; raise it. {notes[0]}")

    best = {n: _best_classical(rivals[n], judge, held_out) for n in budgets}
    calls["classical"] = judge.calls
    solvers = {"fitted": {n: f.solver for n, f in fits.items()}, "classical": best}
    rows, failures = _scored(field, solvers, tests)
    calls["test"] += len(tests) * sum(int(row["nfe"]) for row in rows)
    return Search(fits, tuple(rows), calls, tuple(tried), (*notes, *failures))


def _pairs_and_tests(field: Field, pairs: int | Pairs, test: int, maker: Maker) -> tuple[Pairs, Pairs]:
    """Return pairs to fit on and pairs of the noises after them; given pairs pass on their conditions."""
    if isinstance(pairs, Pairs):
        given = maker(field, pairs)  # raises where conditions came besides
        rows = cut(pairs.per_sample, torch.arange(test) % len(pairs))
        return given, replace(maker, conditions=pairs.conditions, per_sample=rows)(field, test, len(pairs))
    field.bind(maker.conditions, maker.per_sample, pairs + test, "noises")
    own = maker.per_sample or {}
    first, rest = (cut(own, part) for part in (slice(0, pairs), slice(pairs, pairs + test)))
    return replace(maker, per_sample=first)(field, pairs), replace(maker, per_sample=rest)(field, test, pairs)


def _scored(
    field: Field, solvers: Mapping[str, Mapping[int, Solver]], tests: Pairs
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return rows of the solvers of each kind on test pairs, and notes on those that failed."""
    rows: list[Mapping[str, Any]] = []
    notes: list[str] = []
    for kind, its in solvers.items():
        table = compare(field, its.values(), noise=tests, metrics=("rmse", "psnr"))
        rows += [{**row, "kind": kind} for row in table.rows if "failure" not in row]
        notes += table.failures
    if not rows:
        raise FloatingPointError(f"search: no solver gives finite samples on the test noises. {notes[-1]}")
    return rows, notes


def _fits(family: str | Family, nfe: int) -> bool:
    if isinstance(family, Family):
        return family.nfe == nfe
    return family != "scale_time" or nfe % 2 == 0


def _best_classical(solvers: Mapping[str, Solver], judge: Rollout, pairs: Pairs) -> Solver:
    """Return the solver with the best PSNR on some pairs, with its name."""
    scores = mean_psnrs(judge, velocity_tables(solvers, judge.field), pairs)
    best = max(scores, key=lambda name: scores[name])
    return replace(solvers[best], name=best)
