"""The velocity of a field as ``f(t, y)``, the form of torchdiffeq, torchdyn, torchode and diffrax."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

from torch import Tensor

from ._conditions import check_mappings
from ._field import FieldBase
from ._field_module import FieldModule

__all__ = ["TimeFirst"]


class TimeFirst(FieldModule):
    """The velocity ``f(t, y, args=None)`` of a field; see :meth:`fewstep.Field.time_first`.

    Integrate it from ``t = 0``, noise, to ``t = 1``, data, or back. Adaptive solvers step over the last time
    and interpolate: times outside [0, 1], where the schedule ends, are taken at that end.

    Args:
        field: the field.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row per sample, or one row for all.

    Shape:
        ``t``: a number, or ``()`` or ``(B,)``; ``y``: ``(B, ...)``; the velocity is like ``y``, of its type.

    Raises:
        TypeError: when ``t`` or ``y`` has another shape, as where they are swapped, or ``args`` are passed.
        ValueError: when conditions are no mapping, or one has a wrong number of rows.
    """

    def __init__(
        self,
        field: FieldBase,
        conditions: Mapping[str, Any] | None = None,
        per_sample: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(field)
        check_mappings(conditions, per_sample)
        self.conditions, self.per_sample = conditions, per_sample

    def forward(self, t: Tensor | float, y: Tensor, args: Any = None) -> Tensor:
        if args is not None and not (isinstance(args, Sized) and len(args) == 0):
            raise TypeError(
                f"time_first: args must be None or empty, not a {type(args).__name__}; pass conditions of "
                "the network to field.time_first(conditions, per_sample)."
            )
        _check(t, y)
        field = self.field
        if self.conditions or self.per_sample:
            field = field.bind(self.conditions, self.per_sample, len(y), "states")
        time = t.clamp(0, 1) if isinstance(t, Tensor) else min(max(t, 0.0), 1.0)
        return field(y, time).to(y.dtype)


def _check(t: object, y: object) -> None:
    if not isinstance(y, Tensor) or y.ndim == 0:
        got = "a tensor of shape ()" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise TypeError(
            f"time_first: it is called as f(t, y) with states y of shape (B, ...), not {got}; a field itself "
            "is called as field(x, t)."
        )
    if isinstance(t, Tensor) and t.ndim and t.shape not in ((1,), (len(y),)):
        raise TypeError(
            f"time_first: t must be one time or one for each of {len(y)} states, not of shape "
            f"{tuple(t.shape)}; it is called as f(t, y)."
        )
    if not isinstance(t, Tensor | float | int):
        raise TypeError(f"time_first: t must be a number or a tensor, not a {type(t).__name__}.")
