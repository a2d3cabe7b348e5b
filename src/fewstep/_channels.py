"""Numbers that each channel of the state has for itself: dimension 1 of ``(B, channels, ...)``."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_channels", "check_shared", "factors"]


def factors(numbers: Tensor, lead: int, ndim: int) -> Tensor:
    """Numbers in the shape in which they multiply states.

    Args:
        numbers: ``(*lead)``, or ``(*lead, channels)``.
        lead: how many dimensions come before those of the state.
        ndim: dimensions of a batch of states, ``(B, ...)``.

    Returns:
        ``(*lead, 1, 1, ...)`` or ``(*lead, 1, channels, 1, ...)``, of ``lead + ndim`` dimensions.
    """
    shape = [*numbers.shape[:lead], 1, *numbers.shape[lead:]]
    return numbers.reshape(*shape, *[1] * (lead + ndim - len(shape)))


def check_channels(channels: int | None, x: Tensor, whose: str) -> None:
    """Raise a ``ValueError`` unless states like ``x`` have the channels that the numbers are for."""
    if channels is not None and (x.ndim < 2 or x.shape[1] != channels):
        raise ValueError(
            f"x0: {whose} has numbers of its own for each of {channels} channels, but dimension 1 of a state "
            f"of shape {tuple(x.shape)} has not {channels} of them; sample {channels} channels, or take a "
            "solver without channels."
        )


def check_shared(channels: int | None, what: str) -> None:
    """Raise a ``ValueError`` where each channel has numbers of its own, for what looks at one table."""
    if channels is not None:
        raise ValueError(
            f"{what}: this solver has numbers of its own for each of {channels} channels; pass one of them, "
            f"solver.channel(k), or to the command line --channel k, with k from 0 to {channels - 1}."
        )
