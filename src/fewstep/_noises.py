"""Standard normal noises: those that samples start from, and those that rows of a table add."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._execute import Call
from ._ranges import COUNT, NATURAL, check_range

__all__ = ["Noises", "check_noises", "noise", "noises", "with_noises"]

#: The noises that a solver adds, ``(noises, B, ...)``, or ``noises(k, like)``, which returns noise ``k``.
Noises = Tensor | Callable[[int, Tensor], Tensor]


def noise(
    count: int,
    shape: Sequence[int],
    *,
    seed: int = 0,
    start: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw the standard normal noises number ``start`` to ``start + count - 1`` of a seed.

    Noise ``k`` comes from its own counter-based generator, keyed by ``(seed, k)``, and so does not depend on
    the batch.

    Args:
        count: number of noises, at least 1.
        shape: shape of one sample.
        seed: seed, 0 or more.
        start: number of the first noise.
        stream: number of the noise among several of one sample: 0 for the one that it starts from, and
            ``k + 1`` for noise ``k`` that a solver adds; see :func:`noises`.
        dtype: floating-point type of the result; drawn in float64 and rounded.
        device: device of the result.

    Returns:
        Tensor of shape ``(count, *shape)``.

    Raises:
        ValueError: when a number is out of range.
    """
    (count,) = check_range("noise", COUNT, count=count)
    seed, start, stream = check_range("noise", NATURAL, seed=seed, start=start, stream=stream)
    keys = (np.array([seed, k], dtype=np.uint64) for k in range(start, start + count))
    # The counter of a stream begins where no draw of the one before arrives: 2^192 blocks further.
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    made = (np.random.Generator(np.random.Philox(key=key, counter=counter)) for key in keys)
    draws = [generator.standard_normal(tuple(shape)) for generator in made]
    return torch.from_numpy(np.stack(draws)).to(dtype).to(device)  # some devices have no float64


def noises(seed: int = 0, start: int = 0) -> Callable[[int, Tensor], Tensor]:
    """Return the noises that a solver adds to the samples that start from ``noise(count, shape, seed=seed)``.

    Noise ``k`` of sample ``n`` is noise ``n`` of :func:`noise` with ``stream=k + 1``, whatever the batch.

    Args:
        seed: seed of the noises that the samples start from, 0 or more.
        start: number of the first sample.

    Returns:
        A function for ``solver.sample(field, x0, noises=...)``.
    """
    seed, start = check_range("noises", NATURAL, seed=seed, start=start)

    def draw(k: int, like: Tensor) -> Tensor:
        drawn = noise(len(like), like.shape[1:], seed=seed, start=start, stream=k + 1, dtype=like.dtype)
        return drawn.to(like.device)

    return draw


def check_noises(noises: Noises | None, count: int, x0: Tensor, name: str) -> None:
    """Raise a ``ValueError`` unless these can be the ``count`` noises that a solver adds to samples."""
    if noises is None and count:
        raise ValueError(
            f"sample: solver {name!r} adds {count} noises, but noises is missing; pass a tensor of shape "
            f"{(count, *x0.shape)}, or fs.noises(seed=0), which draws them for each sample."
        )
    if isinstance(noises, Tensor) and noises.shape != (count, *x0.shape):
        raise ValueError(
            f"sample: noises has shape {tuple(noises.shape)}, but solver {name!r} adds {count} noises to x0 "
            f"of shape {tuple(x0.shape)}; pass a tensor of shape {(count, *x0.shape)}, or fs.noises(seed=0)."
        )
    if noises is not None and not isinstance(noises, Tensor) and not callable(noises):
        raise ValueError(
            f"sample: noises must be a tensor or a function of (k, like), such as fs.noises(seed=0), not "
            f"{noises!r:.60}."
        )


def with_noises(
    call: Call, noises: Noises, rows: Sequence[int], predictions: MutableMapping[int, Tensor]
) -> Call:
    """Return ``call`` of :func:`~fewstep._execute.execute`, followed by the noise that the next row adds.

    Args:
        call: the network.
        noises: the noises.
        rows: the rows that add noise.
        predictions: what the rows read, where noises have negative numbers.
    """
    numbers = {i: k for k, i in enumerate(rows)}

    def call_and_draw(j: int, x: Tensor, t: Any) -> Tensor:
        predicted = call(j, x, t)
        if j in numbers:
            predictions[~j] = _read(noises, numbers[j], x)
        return predicted

    return call_and_draw


def _read(noises: Noises, k: int, like: Tensor) -> Tensor:
    found = noises[k] if isinstance(noises, Tensor) else noises(k, like)
    if found.shape != like.shape:
        raise ValueError(
            f"sample: noises({k}, like) has shape {tuple(found.shape)}, but must have that of the states, "
            f"{tuple(like.shape)}; draw it with torch.randn_like, or pass fs.noises(seed=0)."
        )
    return found.to(like.dtype)
