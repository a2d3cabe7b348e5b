"""Axes: a scale from numbers to pixels, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ._numbers import place, short

__all__ = ["Axis", "linear_ticks", "log_ticks"]


@dataclass(frozen=True)
class Axis:
    """A scale, with ``low`` at the pixel ``start`` and ``high`` at ``end``, and its increasing ticks."""

    low: float
    high: float
    log: bool
    start: float
    end: float
    ticks: tuple[float, ...] = ()

    @classmethod
    def over(
        cls,
        values: Iterable[float],
        *,
        log: bool,
        start: float,
        end: float,
        gap: float,  # least distance of two ticks in pixels
        margin: float = 0.0,  # share of the length left free at either end
        from_zero: bool = False,  # start at 0 if no value is negative and some are near it
        flat: float = 0.0,  # least length, as a share of the largest value
        letter: float = 0.0,  # width of a letter in pixels, for labels that stand side by side
        at_values: bool = False,  # put ticks at the values if they are few whole numbers
    ) -> Axis:
        """Return an axis that covers ``values``, which are finite, and positive where ``log``."""
        known = sorted(set(values)) or [1.0]
        low, high = _spread(known[0], known[-1], log, flat)
        if log:
            factor = (high / low) ** margin
            low, high = low / factor, high * factor
        else:
            anchored = from_zero and 0 <= known[0] < 0.5 * known[-1]
            extra = margin * (high - low)
            low, high = 0.0 if anchored else low - extra, high + extra
        bare = cls(low, high, log, start, end)
        whole = at_values and len(known) <= 16 and all(value == int(value) for value in known)
        wanted = 0.6 * gap if whole else gap
        while True:
            most = max(2, int(abs(end - start) / wanted))
            ticks = (
                bare._apart(known, wanted) if whole else (log_ticks if log else linear_ticks)(low, high, most)
            )
            found = cls(low, high, log, start, end, tuple(ticks))
            # Side by side, labels need their width and a blank.
            if len(ticks) <= 2 or found._narrowest() >= letter * (1 + max(map(len, found.labels()))):
                return found
            wanted *= 1.25

    def __call__(self, value: float) -> float:
        """Return the pixel of a number."""
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def labels(self) -> list[str]:
        """The labels of the ticks."""
        return [_tick_text(tick, self.ticks) for tick in self.ticks]

    def marks(self) -> list[tuple[str, str]]:
        """The pixels of the ticks, and their labels."""
        return [(place(self(tick)), text) for tick, text in zip(self.ticks, self.labels(), strict=True)]

    def _narrowest(self) -> float:
        """Return the least distance of two ticks in pixels."""
        at = [self(tick) for tick in self.ticks]
        return min(abs(b - a) for a, b in zip(at, at[1:], strict=False))

    def _apart(self, values: Sequence[float], gap: float) -> list[float]:
        """Return the values whose pixels are at least ``gap`` apart, with priority for the ends."""
        kept = [values[-1]]
        for value in values:
            if all(abs(self(value) - self(other)) >= gap for other in kept):
                kept.append(value)
        return sorted(kept)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most ``most`` multiples of 1, 2 or 5 times a power of ten in ``[low, high]``."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return powers of ten in ``[low, high]``, with 2 and 5 or 3 times them; or linear ticks if few fit."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**k for k in range(first, last + 1) for f in factors]
        ticks = [float(f"{tick:.12g}") for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most:
            break
    if len(ticks) > most:
        ticks = ticks[:: math.ceil(len(ticks) / most)]
    enough = len(ticks) >= (2 if high >= 10 * low else 3)
    return ticks if enough else [tick for tick in linear_ticks(low, high, most) if tick > 0]


def _spread(low: float, high: float, log: bool, flat: float) -> tuple[float, float]:
    """Return two different ends, apart by a share ``flat`` of the values at least."""
    if log:
        if high <= low * (1 + 1e-9):
            return low / 2, high * 2
        factor = max(1.0, (1 + flat) * low / high) ** 0.5
        return low / factor, high * factor
    size = max(abs(low), abs(high))
    if high - low <= 1e-12 * size:
        around = size / 2 or 1.0
    else:
        around = max(0.0, flat * size - (high - low)) / 2
    return low - around, high + around


def _tick_text(tick: float, ticks: Sequence[float]) -> str:
    """Format a tick with as many digits as the finest tick needs."""
    sizes = [abs(value) for value in ticks if value != 0]
    if tick == 0 or not sizes:
        return "0" if tick == 0 else short(tick)
    if min(sizes) >= 1e-4 and max(sizes) < 1e7:
        return f"{float(f'{tick:.6g}'):,}".removesuffix(".0") if abs(tick) >= 1e-4 else short(tick)
    mantissa, exponent = f"{tick:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
