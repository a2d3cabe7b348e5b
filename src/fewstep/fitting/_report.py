"""Record of a fit: errors, calls, seconds and iterates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .._gains import GAINS, best_rival, gains, ratio_to_rival, times
from .._json import finite

__all__ = ["KINDS", "FitReport", "few_decide", "place"]

#: Factor between the ratios of the mean and of the typical noise above which a note says so.
FAR = 1.3
LEFT = (
    "left: gain of the best last row for each sample, of the noise and the calls at the states visited here "
    "(by chance: with another sample's added); other states, or one more call, may gain more"
)

_NUMBER, _TEXT = (float, None), (str, None)
#: The kinds of what :meth:`FitReport.to_dict` returns; of those with ``None``, older records may lack some.
KINDS: dict[str, Any] = {
    **dict.fromkeys(("family", "start", "optimizer", "loss", "stopped"), str),
    **dict.fromkeys(("parameters", "best_iteration"), int),
    **dict.fromkeys(("seed", "feature_calls", "last_steps"), (int, None)),
    "pairs": {"train": int, "validation": int},
    "calls": {str: int},
    "seconds": {str: float},
    "reference_error": _NUMBER,
    "curve": [{str: _NUMBER}],
    "reference": (dict, None),
    "notes": [str],
    "rows": [
        {
            "nfe": int,
            "guidance": _NUMBER,
            "model": _TEXT,
            "trained": bool,
            "errors": {str: _NUMBER},
            "outdone_by": _TEXT,
            "returned": _TEXT,
            **dict.fromkeys(GAINS, _NUMBER),
        }
    ],
}
#: Most calls of a solver in a record: its table is a square of so many.
_CALLS = 1000


@dataclass(frozen=True)
class FitReport:
    """The record of a fit.

    Errors are the RMSE on the validation pairs, by which the iterate was chosen; for an unbiased score,
    compare on fresh noises with :func:`fewstep.compare`.

    Args:
        family: the family's name.
        start: name of the solver at ``theta = 0`` in the errors.
        optimizer: ``"gauss_newton"`` or ``"adam"``.
        loss: name of the training loss.
        parameters: number of fitted parameters.
        pairs: numbers of ``train`` and ``validation`` pairs.
        rows: one entry per task: ``nfe``, ``guidance`` if scales were fitted, ``model`` if several fields
            were, ``trained`` (false if it was only validated); ``errors``, RMSE by solver: ``fitted``, the
            start and, with one task, every classical solver with as many calls; ``outdone_by``, the best
            classical solver whose error is smaller, the pairs that count most for either side left aside if
            there are eight or more, or ``None``; ``returned``, that solver if it is returned in place of the
            fitted one, and its errors are given; ``typical``, the median over
            pairs of the ratio of the fitted solver's error to that of its best rival; ``left``, the share by
            which the RMSE would fall if the last row had the best coefficients for each pair (of the noise
            and all predictions, at the states that this solver visits), and ``by_chance``, that by which it
            would if those of another pair were added, both ``None`` for samples of fewer than
            ``4 (nfe + 1)`` numbers and for a classical solver in place of a fit.
        calls: network calls, one per sample and evaluation: ``reference``, ``plan`` (to choose the number of
            pairs that a budget allows), ``search`` (to choose the start, first iterations included), ``fit``
            (training and validation) and ``errors`` (only for ``rows``).
        seconds: wall time by the same purposes.
        reference_error: estimated RMSE of the reference, the largest of all tasks; NaN if unknown.
        best_iteration: the chosen iterate; 0 is the start.
        last_steps: steps from there on training and validation pairs together, which the errors leave out.
        stopped: why the optimiser stopped.
        curve: one entry per iterate: iteration, loss, validation RMSE and PSNR (of the features, for a loss
            of features), network calls so far, the search included.
        seed: seed of the noises.
        reference: provenance of the pairs.
        notes: caveats to read before trusting the result.
        feature_calls: samples passed to the map of a loss of features; not network calls.
    """

    family: str
    start: str
    optimizer: str
    loss: str
    parameters: int
    pairs: Mapping[str, int]
    rows: tuple[Mapping[str, Any], ...]
    calls: Mapping[str, int]
    seconds: Mapping[str, float]
    reference_error: float
    best_iteration: int
    stopped: str
    curve: tuple[Mapping[str, float], ...] = field(repr=False)
    seed: int = 0
    reference: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    feature_calls: int = 0
    last_steps: int = 0

    @property
    def errors(self) -> Mapping[str, float]:
        """RMSE by solver of a single task.

        Raises:
            ValueError: when there are several tasks, whose errors are in ``rows``.
        """
        if len(self.rows) > 1:
            raise ValueError(f"report: this fit has {len(self.rows)} tasks; read the errors in report.rows.")
        return dict(self.rows[0]["errors"])

    @property
    def rival(self) -> str:
        """The best other solver of a single task, the start included."""
        return best_rival(self.errors)

    @property
    def ratio(self) -> float:
        """Error of the fitted solver divided by that of its best rival."""
        return ratio_to_rival(self.errors)

    def facts(self, nfe: int, guidance: float | None = None) -> dict[str, Any]:
        """Return protocol and scores of one of the fitted solvers, JSON-ready, for its file."""
        protocol = self.to_dict()
        scores = [
            {"validation_rmse": row["errors"], **{key: row[key] for key in GAINS}}
            for row in protocol.pop("rows")
            if (row["nfe"], row["guidance"]) == (nfe, guidance)
        ]
        return {"protocol": protocol, "scores": scores[0] if scores else None}

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready copy, with ``None`` for values that are not finite."""
        record: dict[str, Any] = finite(asdict(self))
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> FitReport:
        """Return the report of :meth:`to_dict`; errors of ``None`` are infinite."""
        rows = [
            {
                **row,
                **{key: row.get(key) for key in ("guidance", "model", *GAINS)},  # older records have none
                "errors": {k: math.inf if v is None else v for k, v in row["errors"].items()},
            }
            for row in record["rows"]
        ]
        _check_rows(rows)
        unknown = record["reference_error"] is None
        return cls(**{
            **record,
            "rows": tuple(rows),
            "curve": tuple(record["curve"]),
            "notes": tuple(record["notes"]),
            "reference_error": math.nan if unknown else record["reference_error"],
        })  # fmt: skip

    def __str__(self) -> str:
        spent = {key: count for key, count in self.calls.items() if key != "errors"}
        lines = [
            f"{self.family} from {self.start}, {self.parameters} parameters; {self.optimizer} on "
            f"{self.loss}, {self.pairs['train']} + {self.pairs['validation']} pairs"
            + (f", then {self.last_steps} steps on all" if self.last_steps else ""),
            *(_words(row) for row in self.rows),
            f"{sum(spent.values()):,} network calls "
            f"({' + '.join(f'{count:,} {key}' for key, count in spent.items())}), "
            f"{sum(self.seconds.values()):.1f} s; {self.stopped}",
        ]
        if not all(row["trained"] for row in self.rows):
            lines.append("* not fitted, only validated")
        if len(self.rows) == 1:
            ordered = sorted(self.errors.items(), key=lambda item: item[1])
            lines.append("validation RMSE: " + ", ".join(f"{name} {value:.4g}" for name, value in ordered))
            if all(value > self.errors["fitted"] for name, value in ordered if name != "fitted"):
                lines.append(f"the fit is better on validation than all {len(ordered) - 1} others")
        if any(row["left"] is not None for row in self.rows):
            lines.append(LEFT)
        if self.feature_calls:
            lines.append(f"{self.feature_calls:,} samples were given to the feature map")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ``ValueError`` on the rows of a file that no fit could have."""
    if not any(row["trained"] for row in rows):
        raise ValueError("rows: none is of a fitted solver")
    for row in rows:
        if not 1 <= row["nfe"] <= _CALLS:
            raise ValueError(f"rows: nfe must be 1 to {_CALLS}, not {row['nfe']}")
        if len(row["errors"]) < 2 or "fitted" not in row["errors"]:
            raise ValueError("rows: errors must be those of the fitted solver and of others")


def few_decide(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Note where the ratio of the mean errors is far from that of the typical noise."""
    for row in rows:
        ratio, typical = ratio_to_rival(row["errors"]), row["typical"]
        if ratio and typical and max(ratio / typical, typical / ratio) > FAR:
            yield (
                f"a few noises decide the RMSE of {place(row)}: it is {times(ratio)} that of "
                f"{best_rival(row['errors'])}, but the median of the noises' own ratios is {times(typical)}."
            )


def place(row: Mapping[str, Any]) -> str:
    """Describe the number of calls, the guidance scale and the field of a row."""
    where = f"{row['nfe']} calls" + ("" if row["guidance"] is None else f" at guidance {row['guidance']:g}")
    return where + ("" if row["model"] is None else f" of {row['model']}")


def _words(row: Mapping[str, Any]) -> str:
    """Describe one task: its error, its ratios to the best rival, and what is left."""
    errors, star, ratio = row["errors"], "" if row["trained"] else "*", times(ratio_to_rival(row["errors"]))
    rival = best_rival(errors)
    error = f"{place(row)}{star}: RMSE {errors['fitted']:.4g}, {ratio} {rival} ({errors[rival]:.4g})"
    return ", ".join([error, *gains(row)])
