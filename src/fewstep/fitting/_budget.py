"""Budget of network calls: the number of pairs to spend it on, and notes on its size."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ._follow import BUDGET_SPENT, Chosen
from ._pairs import VALIDATION

__all__ = [
    "FEWEST",
    "PAIRS",
    "BudgetError",
    "Ledger",
    "affordable_pairs",
    "budget_notes",
    "check_budget",
]

#: Number of pairs without a budget, and the fewest with one.
PAIRS, FEWEST = 256, 16
#: Gauss-Newton iterations that a budget should allow: the best iterate was earlier in most studies, and the
#: last steps on all pairs cost as many calls as five.
ITERATIONS = 25
#: Trial steps per iteration, on average.
TRIALS = 1.3
#: Share of a budget for pairs, if iterations take minibatches.
SHARE = 0.25
#: Last iterates of a fit that are judged, and the gain in dB over them above which it is unfinished.
LATELY, GAINING = 3, 0.3
#: Validation RMSE over training RMSE beyond which more pairs would help.
GAP = 1.5


class BudgetError(ValueError):
    """The budget of network calls is too small to start."""


class Ledger:
    """Network calls and seconds of a fit by their purpose, and notes."""

    def __init__(self, max_calls: int | None = None) -> None:
        self.max_calls = max_calls
        self.calls: dict[str, int] = {"reference": 0}
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @property
    def spent(self) -> int:
        """Network calls so far, without those for the report only."""
        return sum(calls for purpose, calls in self.calls.items() if purpose != "errors")

    @property
    def left(self) -> float:
        """Remaining network calls."""
        return math.inf if self.max_calls is None else self.max_calls - self.spent

    @contextmanager
    def timed(self, purpose: str) -> Iterator[None]:
        """Count the seconds of a block."""
        started = time.perf_counter()
        yield
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + time.perf_counter() - started


def check_budget(ledger: Ledger, start: int) -> float:
    """Return the calls left to the optimiser; raise if they do not cover the initial solvers."""
    if start > ledger.left:
        raise BudgetError(
            f"fit: max_calls={ledger.max_calls} is not enough: the reference took {ledger.spent} network "
            f"calls and the start takes {start} more; raise max_calls well above {ledger.spent + start}, "
            "or fit on fewer pairs."
        )
    return ledger.left


def affordable_pairs(left: float, nfe: int, reference: float, linearisation: float | None) -> int:
    """Return the number of pairs, 16 to 256, that leaves a budget for Gauss-Newton iterations on them.

    ``left`` calls remain, before any pair is made. The reference and a Jacobian cost calls per pair;
    ``linearisation`` is ``None`` if iterations take minibatches, whose cost does not grow with the pairs.
    """
    if linearisation is None:
        count = SHARE * left / reference
    else:
        training = (1 - VALIDATION) * (linearisation + TRIALS * nfe)
        count = left / (reference + ITERATIONS * (training + VALIDATION * nfe))
    return max(FEWEST, min(PAIRS, math.floor(count)))


def budget_notes(ledger: Ledger, chosen: Chosen, loss: str) -> tuple[str, ...]:
    """Return notes on whether the budget was enough, and what more calls or pairs would bring."""
    max_calls, spent, curve, stopped = ledger.max_calls, ledger.spent, chosen.curve, chosen.stopped
    if max_calls is None:
        return ()
    quality = [row["validation_psnr"] for row in curve]
    before = max(quality[: max(1, len(quality) - LATELY)])
    gain = max(quality) - before
    if stopped != BUDGET_SPENT:
        word = f"max_calls={max_calls:,} sufficed: {stopped} with {max_calls - spent:,} calls left."
    elif len(curve) <= LATELY or gain > GAINING:
        word = (
            f"max_calls={max_calls:,} was spent while validation still improved ({gain:.1f} dB over the last "
            f"{min(LATELY, len(curve) - 1)} iterations); more calls would help."
        )
    else:
        word = (
            f"max_calls={max_calls:,} was spent, and sufficed: validation had hardly improved of late "
            f"({gain:.1f} dB over the last {LATELY} iterations)."
        )
    row = curve[chosen.iteration]
    if loss == "rmse" and row["validation"] > GAP * row["loss"]:
        ratio = row["validation"] / max(row["loss"], 1e-12)
        word += f" Validation RMSE is {ratio:.1f} times that of training, so that more pairs would help."
    return (word,)
