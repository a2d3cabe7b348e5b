"""A claim of a paper: what was published, the function that measures it, its rows and its table."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

import fewstep as fs
from fewstep.families import Family
from fewstep.fitting import Adam, GaussNewton, Reference
from fewstep.fitting._fit import run
from fewstep.fitting._pairs import Maker
from fewstep.fitting._question import ask
from fewstep.fitting._settings import Optimizer
from fewstep.metrics import Moments

__all__ = ["CLAIMS", "TEST_SEED", "Row", "Size", "Task", "claim", "distance", "measured", "table", "task"]

#: Seed of the evaluation noises; no fit and no setting sees them. Pairs are noises of seeds 0, 1, ...
TEST_SEED = 20_261_121

BESPOKE = "Shaul et al., Bespoke Solvers (ICLR 2024)"
BNS = "Shaul et al., Bespoke Non-Stationary Solvers (ICML 2024)"
FAST_ODE = "Lee, Kim and Ye, Minimizing Trajectory Curvature (ICML 2023)"


@dataclass(frozen=True)
class Size:
    """How much is measured; ``quick`` is for tests, and its numbers mean nothing."""

    quick: bool = False
    #: Pairs of a fit, a quarter of them for validation; test noises; iterations of Adam.
    pairs: int = 64
    test: int = 512
    iterations: int = 100
    #: Steps of a training.
    steps: int = 1500
    #: Folder for figures; ``None`` draws none.
    figures: Path | None = None
    #: Folder of trainings, which are used again.
    runs: Path = Path("runs/papers")

    def few(self, *values: Any) -> tuple[Any, ...]:
        """Return the values, or only the first one where it must be quick."""
        return values[:1] if self.quick else values

    @classmethod
    def small(cls, runs: Path) -> Size:
        """Return settings for tests, with trainings in a folder of their own."""
        return cls(True, pairs=16, test=16, iterations=2, steps=5, runs=runs)


@dataclass(frozen=True)
class Row:
    """One row: its case, its numbers by name, and whether the claim holds in it (``None``: not judged)."""

    case: str
    figures: dict[str, float | int | str]
    holds: bool | None = None


#: What measures a claim: yields rows, and returns a sentence on them.
Measured = Generator[Row, None, str]


@dataclass(frozen=True)
class Claim:
    """A claim, where it was published, and what measures it."""

    name: str
    says: str
    published: str
    source: str
    measure: Callable[[Size], Measured]
    protocol: str
    figures: tuple[str, ...] = ()
    #: How to read the kept rows.
    remark: str = ""


#: The claims by name, in the order of the document.
CLAIMS: dict[str, Claim] = {}


def claim(
    name: str,
    says: str,
    *,
    published: str,
    source: str,
    figures: tuple[str, ...] = (),
    remark: str = "",
) -> Callable[[Callable[[Size], Measured]], Callable[[Size], Measured]]:
    """Register a function as the measurement of a claim; its docstring has the protocol."""

    def register(measure: Callable[[Size], Measured]) -> Callable[[Size], Measured]:
        protocol = " ".join((measure.__doc__ or "").partition("\n\n")[2].split())
        CLAIMS[name] = Claim(name, says, published, source, measure, protocol, figures, remark)
        return measure

    return register


def measured(one: Claim, size: Size, show: Callable[[str], None]) -> dict[str, Any]:
    """Measure a claim, showing each row when it is there; return what the document keeps of it."""
    started, rows = time.perf_counter(), list[Row]()
    generator = one.measure(size)
    while True:
        try:
            rows.append(next(generator))
        except StopIteration as stopped:
            seconds = time.perf_counter() - started
            return {"ours": stopped.value, "seconds": round(seconds), "rows": [asdict(row) for row in rows]}
        show("\n".join(table([asdict(rows[-1])])[0 if _new_head(rows) else 2 :]))


def _new_head(rows: list[Row]) -> bool:
    return len(rows) == 1 or list(rows[-1].figures) != list(rows[-2].figures)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of rows of equal columns in Markdown."""
    judged = any(row["holds"] is not None for row in rows)
    head = ["case", *rows[0]["figures"], *(["holds"] if judged else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        marks = {True: "yes", False: "no", None: ""}
        cells = [
            row["case"],
            *map(_cell, row["figures"].values()),
            *([marks[row["holds"]]] if judged else []),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(value: float | int | str) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"


class Task(NamedTuple):
    """A field, its pairs for fits, and its test pairs."""

    field: fs.Field
    pairs: fs.Pairs
    test: fs.Pairs

    def rmse(self, solver: fs.Solver, test: fs.Pairs | None = None) -> float:
        """Return the mean RMSE of a solver on the test noises."""
        test = test or self.test
        return float(fs.metrics.rmse(solver.sample(test.bind(self.field), test.x0), test.x1))

    def best_classical(self, nfe: int) -> tuple[str, float]:
        """Return the best of all classical solvers on five grids, chosen on the test noises themselves."""
        found = fs.classical.baselines(nfe, self.field.schedule, tuple(fs.classical.GRIDS))
        errors = {name: self.rmse(solver) for name, solver in found.items()}
        name = min((n for n in errors if errors[n] == errors[n]), key=lambda n: errors[n])
        return name, errors[name]

    def fit(self, nfe: int, **options: Any) -> fs.fitting.Fit:
        """Return a fit by default, which is a classical solver where none is better on validation pairs."""
        return fs.fit(self.field, nfe, pairs=self.pairs, **options)

    def variant(
        self, nfe: int, family: str | Family, loss: str = "rmse", optimizer: Optimizer | None = None
    ) -> fs.Solver:
        """Return the fitted solver of a variant, even where a classical one is better on validation pairs."""
        question = ask(self.field, nfe, None, family, None, loss, optimizer or GaussNewton())
        maker = Maker(None, None, Reference(1e-5, 1e-5), 0, None, 4096, False)
        solver = run(question, maker, self.pairs, rivals=False).solver
        assert isinstance(solver, fs.Solver)
        return solver

    def papers(
        self, nfe: int, size: Size, family: str | Family = "scale_time", loss: str = "bound"
    ) -> fs.Solver:
        """Return the variant that is fitted by Adam, as in the papers."""
        return self.variant(nfe, family, loss, Adam(size.iterations))


@cache
def task(name: str, pairs: int, test: int, seed: int = 0) -> Task:
    """Return the task of a bundled field."""
    return of_field(fs.models.bundled(name), pairs, test, seed)


def of_field(field: fs.Field, pairs: int, test: int, seed: int = 0) -> Task:
    shape = field.shape or ()
    made = (
        fs.reference.pairs(field, fs.noise(count, shape, seed=own), rtol=1e-6, atol=1e-6)
        for count, own in ((pairs, seed), (test, TEST_SEED))
    )
    return Task(field, *made)


def distance(samples: torch.Tensor) -> float:
    """Return the Fréchet distance of 8 x 8 pictures to the digits in pixels; it is not FID."""
    data, _ = fs.data.digits()
    return fs.metrics.frechet_distance(*(Moments.of(x.flatten(1)) for x in (samples, data)))
