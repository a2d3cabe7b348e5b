"""Chunk sizes that keep a Jacobian within memory."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Room", "room"]


class Room(NamedTuple):
    """Numbers of pairs, and of perturbations of them, per chunk."""

    pairs: int
    together: int


def room(
    memory: int, columns: int, nfe: int, sample: Tensor, max_batch: int, compared: int | None = None
) -> Room:
    """Return chunk sizes that keep a Jacobian within ``memory`` bytes.

    Half of the memory is for the results: ``columns`` residuals per pair, the ``2 N + 1`` states and
    predictions of the unperturbed rollout, and some float64 copies of the residual. A quarter is for the
    rollouts of one chunk of perturbations: ``N`` predictions and eight temporary states. The rest is left to
    the caller. The network's own memory, for at most ``max_batch`` samples, is not included. A chunk has at
    least one pair and one perturbation.

    Args:
        memory: bytes.
        columns: columns per pair: one for each parameter, two with central differences.
        nfe: ``N``.
        sample: one sample.
        max_batch: most samples per network call.
        compared: numbers in the residuals of a pair, by default as many as in a sample.
    """
    compared = sample.numel() if compared is None else compared
    state, residual = (count * sample.element_size() for count in (sample.numel(), compared))
    kept = columns * residual + (2 * nfe + 1) * state + 4 * 8 * compared
    pairs = max(1, min(memory // 2 // kept, max_batch))
    rolled = (nfe + 8) * state + max(0, residual - state)
    together = max(1, min(memory // 4 // (rolled * pairs), max_batch // pairs))
    return Room(pairs, together)
