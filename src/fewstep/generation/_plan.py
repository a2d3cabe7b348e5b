"""Blocks of samples, and ranges of their numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from .._noises import noise

__all__ = ["Block", "blocks", "draw", "parse_ranges", "spell"]


class Block(NamedTuple):
    """One unit of work: the wanted samples among numbers ``number * size`` to ``(number + 1) * size - 1``."""

    number: int
    seeds: list[int]
    start: int  # number of wanted samples in earlier blocks

    @property
    def range(self) -> str:
        """First and last number, as in file names."""
        return f"{self.seeds[0]:08d}-{self.seeds[-1]:08d}"


def blocks(seeds: Iterable[int], size: int) -> list[Block]:
    """Split the numbers into blocks, at multiples of ``size``.

    Raises:
        ValueError: when there are no numbers, or one is negative or appears twice.
    """
    wanted = sorted(seeds)
    if not wanted or wanted[0] < 0:
        raise ValueError(f"seeds: must be numbers of at least 0, at least one of them, not {wanted[:3]}.")
    twice = [a for a, b in zip(wanted, wanted[1:], strict=False) if a == b]
    if twice:
        raise ValueError(f"seeds: {twice[0]} appears twice; every sample is made once.")
    found: list[Block] = []
    start = 0
    for number, members in groupby(wanted, key=lambda k: k // size):
        found.append(Block(number, list(members), start))
        start += len(found[-1].seeds)
    return found


def draw(seeds: Sequence[int], shape: Sequence[int], seed: int, stream: int = 0) -> Tensor:
    """Return the noises with these numbers, ``(len(seeds), *shape)``."""
    runs = _runs(seeds)
    return torch.cat([noise(b - a + 1, shape, seed=seed, start=a, stream=stream) for a, b in runs])


def spell(seeds: Sequence[int]) -> str:
    """Return ``[0, 1, 2, 7]`` as ``"0-2,7"``."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in _runs(seeds))


def parse_ranges(text: str) -> list[int]:
    """Return ``"0-2,7"`` as ``[0, 1, 2, 7]``; raise a ``ValueError`` on other text."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _runs(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and last number of each run of consecutive numbers."""
    runs = [
        [k for _, k in run] for _, run in groupby(enumerate(seeds), key=lambda entry: entry[1] - entry[0])
    ]
    return [(run[0], run[-1]) for run in runs]
