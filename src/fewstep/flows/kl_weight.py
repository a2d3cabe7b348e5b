"""The weight of the KL term as a function of the training step."""

from __future__ import annotations

from dataclasses import dataclass

from .._ranges import NATURAL, NOT_NEGATIVE, POSITIVE, check_fields

__all__ = ["KLWeight"]


@dataclass(frozen=True)
class KLWeight:
    """Beta as a function of the training step: constant, or a linear ramp between two values.

    ``KLWeight(10)`` is constant. A warm-up starts small, so that the encoder can move before the penalty
    sets in: ``KLWeight(10, start=0, steps=5000)``. Annealing starts large and ends small, so that the
    coupling is steady at first: ``KLWeight(5, start=30, steps=50_000)``.

    Args:
        end: the weight after the ramp, more than 0.
        start: the weight at step 0, at least 0; the same as ``end`` when ``None``.
        steps: length of the ramp in optimiser steps.

    Raises:
        ValueError: on a weight or a number of steps out of range.
    """

    end: float
    start: float | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        check_fields("beta", self, end=POSITIVE, start=NOT_NEGATIVE, steps=NATURAL)
        start = self.end if self.start is None else self.start
        if start != self.end and self.steps == 0:
            raise ValueError(f"beta: a ramp from {start} to {self.end} needs steps >= 1, not {self.steps}.")

    def __call__(self, step: int) -> float:
        """Return the weight at an optimiser step."""
        if self.start is None or step >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * step / self.steps

    def describe(self) -> float | dict[str, float]:
        """Return the number, or the ramp's arguments, ready for JSON."""
        if self.start is None:
            return self.end
        return {"start": self.start, "end": self.end, "steps": self.steps}
