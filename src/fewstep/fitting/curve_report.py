"""What the fit of a curve did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .._json import finite

__all__ = ["CurveReport"]


@dataclass(frozen=True)
class CurveReport:
    """The record of the fit of a curve.

    Errors are the RMSE of the validation pairs, on which the iterate was chosen.

    Args:
        nfes: the numbers of calls that were fitted.
        parameters: numbers fitted.
        pairs: ``train`` and ``validation`` pairs.
        errors: one entry a number of calls, fitted or only looked at: ``nfe``, ``fitted`` (the curve's RMSE)
            and ``start`` (the plain base solver's).
        calls: network calls, one for each sample and evaluation: ``reference``, ``fit`` (training and
            validation) and ``errors`` (only for the table of errors).
        seconds: wall time, split likewise.
        reference_error: estimated RMSE of the reference, ``None`` where it is not known.
        best_iteration: the iterate that was kept, 0 being the start.
        stopped: why the optimiser stopped.
        curve: one entry an iterate: iteration, loss, validation RMSE and PSNR, network calls so far.
        notes: what the reader should know before trusting the result.
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

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, in which ``None`` stands for what is not finite."""
        record: dict[str, Any] = finite(asdict(self))
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CurveReport:
        """The report that :meth:`to_dict` wrote."""
        lists = {key: tuple(record[key]) for key in ("nfes", "errors", "curve", "notes")}
        return cls(**{**record, **lists})

    def __str__(self) -> str:
        total = self.calls["reference"] + self.calls["fit"]
        lines = [
            f"curve through {', '.join(map(str, self.nfes))} calls, {self.parameters} parameters",
            f"{self.pairs['train']} + {self.pairs['validation']} pairs, {total:,} network calls "
            f"({self.calls['reference']:,} reference + {self.calls['fit']:,} fit), "
            f"{sum(self.seconds.values()):.1f} s; {self.stopped}",
            *(
                f"{row['nfe']:3d} calls{' ' if row['nfe'] in self.nfes else '*'} "
                f"RMSE {row['fitted']:.4g}, base {row['start']:.4g}"
                for row in self.errors
            ),
            "* not fitted",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
