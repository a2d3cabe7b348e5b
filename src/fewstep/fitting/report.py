"""What a fit did: errors, calls, seconds, and how it got there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .._json import finite

__all__ = ["FitReport"]


@dataclass(frozen=True)
class FitReport:
    """The record of a fit.

    Errors are the RMSE of the validation pairs, on which the iterate was chosen; for a score free of
    that choice compare on fresh noises with :func:`fewstep.compare`.

    Args:
        nfe: calls of the fitted solver.
        family: the family's name.
        optimizer: ``"gauss_newton"`` or ``"adam"``.
        loss: the name of the loss that was minimised.
        parameters: numbers fitted.
        pairs: ``train`` and ``validation`` pairs.
        errors: RMSE by solver: ``fitted``, ``start``, and every classical one at the same NFE.
        calls: network calls, one for each sample and evaluation: ``reference``, ``plan`` (to find how many
            pairs a budget allows), ``search`` (for the start, with ``init="auto"``), ``fit`` (training and
            validation) and ``baselines`` (only for the table of errors).
        seconds: wall time, split likewise.
        reference_error: estimated RMSE of the reference.
        best_iteration: the iterate that was kept, 0 being the start.
        stopped: why the optimiser stopped.
        curve: one entry an iterate: iteration, loss, validation RMSE and PSNR (of the features, where the
            loss is of those), network calls so far.
        notes: what the reader should know before trusting the result.
        feature_calls: samples that the map of a loss of features was given, which are no network calls.
    """

    nfe: int
    family: str
    optimizer: str
    loss: str
    parameters: int
    pairs: Mapping[str, int]
    errors: Mapping[str, float]
    calls: Mapping[str, int]
    seconds: Mapping[str, float]
    reference_error: float
    best_iteration: int
    stopped: str
    curve: tuple[Mapping[str, float], ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    feature_calls: int = 0

    @property
    def best_classical(self) -> str:
        """Name of the classical solver with the least error here."""
        classical = {k: v for k, v in self.errors.items() if k not in ("fitted", "start")}
        return min(classical, key=lambda name: classical[name], default="start")

    @property
    def ratio(self) -> float:
        """Error of the fitted solver over that of the best classical one."""
        return self.errors["fitted"] / self.errors[self.best_classical]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, in which ``None`` stands for what is not finite."""
        record: dict[str, Any] = finite(asdict(self))
        return record

    def __str__(self) -> str:
        spent = {key: count for key, count in self.calls.items() if key != "baselines"}
        lines = [
            f"{self.family}, {self.nfe} calls, {self.parameters} parameters: "
            f"RMSE {self.errors['fitted']:.4g}, {self.ratio:.2f}x "
            f"{self.best_classical} ({self.errors[self.best_classical]:.4g})",
            f"{self.optimizer} on {self.loss}, {self.pairs['train']} + {self.pairs['validation']} pairs, "
            f"{sum(spent.values()):,} network calls "
            f"({' + '.join(f'{count:,} {key}' for key, count in spent.items())}), "
            f"{sum(self.seconds.values()):.1f} s; {self.stopped}",
            "validation RMSE: "
            + ", ".join(f"{k} {v:.4g}" for k, v in sorted(self.errors.items(), key=lambda item: item[1])),
        ]
        if self.feature_calls:
            lines.append(f"{self.feature_calls:,} samples were given to the feature map")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
