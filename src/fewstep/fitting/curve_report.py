"""What a fit of many solvers at once did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .._json import finite
from ..pairs import Pairs

__all__ = ["CurveReport"]


@dataclass(frozen=True)
class CurveReport:
    """The record of the fit of a curve in the number of calls, the guidance scale, or both.

    Errors are the RMSE of the validation pairs, on which the iterate was chosen.

    Args:
        nfes: the numbers of calls that were fitted.
        parameters: numbers fitted.
        pairs: ``train`` and ``validation`` pairs.
        errors: one entry a solver, fitted or only looked at: ``nfe``, ``guidance`` where scales were
            fitted, ``fitted`` (the curve's RMSE) and ``start`` (the plain base solver's).
        calls: network calls, one for each sample and evaluation: ``reference``, ``fit`` (training and
            validation) and ``errors`` (only for the table of errors).
        seconds: wall time, split likewise.
        reference_error: estimated RMSE of the reference, ``None`` where it is not known.
        best_iteration: the iterate that was kept, 0 being the start.
        stopped: why the optimiser stopped.
        curve: one entry an iterate: iteration, loss, validation RMSE and PSNR, network calls so far.
        notes: what the reader should know before trusting the result.
        scales: the guidance scales that were fitted, if any.
    """

    nfes: tuple[int, ...]
    parameters: int
    pairs: Mapping[str, int]
    errors: tuple[Mapping[str, float], ...]
    calls: Mapping[str, int]
    seconds: Mapping[str, float]
    reference_error: float | None
    best_iteration: int
    stopped: str
    curve: tuple[Mapping[str, float], ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        record: Mapping[str, Any],
        errors: Sequence[Mapping[str, float]],
        references: Iterable[Pairs],
        nfes: Sequence[int],
        scales: Sequence[float] = (),
    ) -> CurveReport:
        """The report of a fit, with notes on what went badly.

        Args:
            record: what :func:`fit_shared` tells.
            errors: likewise, with ``nfe`` and perhaps ``guidance``.
            references: the reference pairs.
            nfes: the numbers of calls that were fitted.
            scales: the guidance scales.
        """
        known = [pairs.error for pairs in references if not math.isnan(pairs.error)]
        error = max(known, default=None)
        return cls(
            nfes=tuple(nfes),
            scales=tuple(scales),
            errors=tuple(errors),
            reference_error=error,
            notes=_notes(errors, error),
            **record,
        )

    def facts(self, fitted_for: Mapping[str, Any], nfe: int, **at: float) -> dict[str, Any]:
        """What the file of one of the solvers tells besides its numbers.

        Args:
            fitted_for: the field.
            nfe: the solver's number of calls.
            **at: its guidance scale, if it has one, as ``guidance``.

        Raises:
            ValueError: when fewer calls were not fitted.
        """
        least = min(self.nfes)
        if nfe < least:
            raise ValueError(
                f"solver: nfe={nfe} is below the least number of calls fitted, {least}, and no curve "
                f"holds there; fit it with nfes that begin at {nfe}."
            )
        protocol = self.to_dict()
        place = {"nfe": nfe, **at}
        scores = [
            {key: row[key] for key in ("fitted", "start")}
            for row in protocol.pop("errors")
            if all(row[key] == value for key, value in place.items())
        ]
        return {
            "fitted_for": {**fitted_for, **at},
            "protocol": protocol,
            "scores": {"validation_rmse": scores[0]} if scores else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, in which ``None`` stands for what is not finite."""
        record: dict[str, Any] = finite(asdict(self))
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CurveReport:
        """The report that :meth:`to_dict` wrote."""
        keys = ("nfes", "errors", "curve", "notes", "scales")
        return cls(**{**record, **{key: tuple(record.get(key, ())) for key in keys}})

    def __str__(self) -> str:
        total = self.calls["reference"] + self.calls["fit"]
        scales = f" at guidance {', '.join(f'{w:g}' for w in self.scales)}" if self.scales else ""
        lines = [
            f"curve through {', '.join(map(str, self.nfes))} calls{scales}, {self.parameters} parameters",
            f"{self.pairs['train']} + {self.pairs['validation']} pairs, {total:,} network calls "
            f"({self.calls['reference']:,} reference + {self.calls['fit']:,} fit), "
            f"{sum(self.seconds.values()):.1f} s; {self.stopped}",
            *(
                f"{row['nfe']:3d} calls{self._where(row)} RMSE {row['fitted']:.4g}, base {row['start']:.4g}"
                for row in self.errors
            ),
            "* not fitted",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _where(self, row: Mapping[str, float]) -> str:
        """The guidance scale of an entry, if it has one, and a star where it was not fitted."""
        known = row["nfe"] in self.nfes and row.get("guidance", 0.0) in (self.scales or (0.0,))
        return (f" at {row['guidance']:<4g}" if self.scales else "") + (" " if known else "*")


def _notes(errors: Sequence[Mapping[str, float]], reference_error: float | None) -> tuple[str, ...]:
    worse = [
        f"{row['nfe']}" + (f" (guidance {row['guidance']:g})" if "guidance" in row else "")
        for row in errors
        if row["fitted"] > row["start"]
    ]
    notes = []
    if worse:
        notes.append(
            f"with {', '.join(worse)} calls the curve is worse on validation than the plain base solver; fit "
            "that very place too, or more pairs."
        )
    if reference_error is not None and reference_error > 0.2 * min(row["fitted"] for row in errors):
        notes.append(
            f"the reference's own error ({reference_error:.2g}) is not small against the least of the "
            "curve's; tighten rtol and atol."
        )
    return tuple(notes)
