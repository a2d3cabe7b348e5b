"""How much of a Jacobian fits into memory."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Room", "room"]


class Room(NamedTuple):
    """How many pairs, and how many perturbations of them, are held at once."""

    pairs: int
    together: int


def room(
    memory: int, columns: int, nfe: int, sample: Tensor, max_batch: int, compared: int | None = None
) -> Room:
    """Chunk sizes that keep a Jacobian within ``memory`` bytes.

    Half is for what stays: ``columns`` moved residuals a pair, the ``2 N + 1`` states and predictions of the
    unperturbed rollout, and some copies of the residual in float64. A quarter is for the rollouts of one
    chunk of perturbations: ``N`` predictions, and eight states that sums and calls pass through. The rest
    is the caller's. What the network itself needs comes on top, for at most ``max_batch`` samples; and one
    pair with one perturbation is always made.

    Args:
        memory: bytes.
        columns: rows of the moved tensor: parameters, and once more those with central differences.
        nfe: ``N``.
        sample: one sample.
        max_batch: most samples that the network is given at once.
        compared: numbers in the residuals of a pair, by default as many as in a sample.
    """
    compared = sample.numel() if compared is None else compared
    state, residual = (count * sample.element_size() for count in (sample.numel(), compared))
    kept = columns * residual + (2 * nfe + 1) * state + 4 * 8 * compared
    pairs = max(1, min(memory // 2 // kept, max_batch))
    rolled = (nfe + 8) * state + max(0, residual - state)
    together = max(1, min(memory // 4 // (rolled * pairs), max_batch // pairs))
    return Room(pairs, together)
