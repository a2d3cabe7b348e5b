"""Conditions of a network: values that all samples share, and values with one row per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Bound",
    "bind",
    "check_mappings",
    "cut",
    "expand_unconditional",
    "explained",
    "in_turn",
    "most_rows",
    "refuse_conditions",
    "row_count",
]

_T = TypeVar("_T")

#: ``change(name, value, counterpart)`` returns the replacement of a value with rows.
_Change = Callable[[str, Any, Any], Any]


@dataclass(frozen=True)
class Bound:
    """Conditions fixed for ``count`` samples.

    Args:
        shared: keyword arguments that all samples share, passed to the network untouched.
        per_sample: those with one row per sample, or one row for all; nested mappings are allowed.
        unconditional: replacements for guidance; those of per-sample values have as many rows, or one.
        count: number of samples.
    """

    shared: Mapping[str, Any]
    per_sample: Mapping[str, Any]
    unconditional: Mapping[str, Any]
    count: int

    def rows(self, index: slice | Tensor) -> Bound:
        """Return the conditions of some of the samples; an index tensor may repeat them."""
        per_sample, unconditional = (
            _follow(tree, self.per_sample, lambda _, value, __: _cut(value, index))
            for tree in (self.per_sample, self.unconditional)
        )
        if isinstance(index, slice):
            count = len(range(self.count)[index])
        else:
            count = int(index.sum()) if index.dtype == torch.bool else len(index)
        return Bound(self.shared, per_sample, unconditional, count)

    def arguments(self, count: int) -> dict[str, Any]:
        """Return the keyword arguments for a batch of ``count`` states, with single rows expanded to it.

        Raises:
            ValueError: when a value has neither one row nor ``count``.
        """
        return {**self.shared, **_expanded(self.per_sample, self.per_sample, count)}

    def away(self, count: int) -> dict[str, Any]:
        """Return those that are replaced in the call that guidance leads away from."""
        return _expanded(self.unconditional, self.per_sample, count)


def bind(
    conditions: Mapping[str, Any] | None,
    per_sample: Mapping[str, Any] | None,
    unconditional: Mapping[str, Any],
    count: int,
    samples: str = "samples",
    origin: tuple[Tensor, int] | None = None,
) -> Bound:
    """Fix the conditions of ``count`` samples.

    Args:
        conditions: shared by all samples.
        per_sample: one row per sample, or one row for all, in tensors, arrays, lists, tuples and mappings of
            them.
        unconditional: replacements for guidance.
        count: number of samples.
        samples: name of the samples in errors.
        origin: for a part of other samples, their indices in those, and the number of those;
            ``unconditional`` may have rows for all of them.

    Raises:
        ValueError: when these are not mappings, overlap, or have a wrong number of rows.
    """
    check_mappings(conditions, per_sample)
    shared, own = conditions or {}, per_sample or {}
    twice = [name for name in own if name in shared]
    if twice:
        raise ValueError(
            f"per_sample: {twice[0]} is in conditions too; a condition is either shared or has one row a "
            "sample."
        )
    _check_rows(own, count, samples, "")

    def checked(name: str, value: Any, _: Any) -> Any:
        if origin is not None and row_count(value) == origin[1]:
            value = _cut(value, origin[0])
        _check_leaf(f"unconditional {name}", value, count, samples)
        return value

    return Bound(dict(shared), dict(own), _follow(unconditional, own, checked), count)


def check_mappings(conditions: object, per_sample: object) -> None:
    """Raise a ``ValueError`` unless both are mappings or missing."""
    for label, value in (("conditions", conditions), ("per_sample", per_sample)):
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(
                f"{label}: must be a mapping of keyword arguments, not {type(value).__name__}; pass "
                f"{label}={{name: value}}."
            )


def refuse_conditions(function: str, *given: Mapping[str, Any] | None) -> None:
    """Raise a ``ValueError`` if conditions are passed with pairs, which have their own."""
    names = [name for conditions in given if conditions is not None for name in conditions]
    if names:
        raise ValueError(
            f"{function}: the pairs given carry their own conditions, but {', '.join(names)} came besides; "
            "pass them to fewstep.reference.pairs, or pass noises, or their number, instead of pairs."
        )


def expand_unconditional(
    unconditional: Mapping[str, Any], conditions: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """Expand single rows of ``unconditional`` whose counterpart in ``conditions`` has ``count`` rows."""

    def widened(_: str, value: Any, other: Any) -> Any:
        return _expand(value, count) if row_count(other) == count and row_count(value) == 1 else value

    return _follow(unconditional, conditions, widened) if count != 1 else dict(unconditional)


def explained(
    call: Callable[[], _T], unconditional: Mapping[str, Any], conditions: Mapping[str, Any], count: int
) -> _T:
    """Return the result of a guided call of the network.

    Raises:
        ValueError: when it fails and ``unconditional`` has rows for other samples than the ``count`` that
            there are. Before it failed they could be those of something else, such as words.
    """
    if torch.compiler.is_compiling():
        return call()

    def checked(name: str, value: Any, other: Any) -> Any:
        if row_count(other) == count:
            _check_leaf(f"unconditional {name}", value, count, "samples")
        return value

    try:
        return call()
    except Exception:
        _follow(unconditional, conditions, checked)
        raise


def cut(per_sample: Mapping[str, Any], index: slice | Tensor) -> dict[str, Any]:
    """Return the rows of some samples; values with one row are unchanged."""
    return _follow(per_sample, per_sample, lambda _, value, __: _cut(value, index))


def in_turn(
    per_sample: Mapping[str, Any], unconditional: Mapping[str, Any], numbers: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the conditions of samples that take the rows in turn: sample ``k`` has row ``k`` modulo ``n``.

    Args:
        per_sample: one row for each of ``n`` samples, or one row for all, which is unchanged.
        unconditional: replacements for guidance; those of per-sample values have as many rows, or one.
        numbers: the numbers ``k``.

    Returns:
        Both, with a row for each number.
    """
    rows = most_rows(per_sample)
    if not rows:
        return dict(per_sample), dict(unconditional)
    taken = bind({}, per_sample, unconditional, rows).rows(torch.as_tensor(numbers) % rows)
    return dict(taken.per_sample), dict(taken.unconditional)


def row_count(value: object) -> int | None:
    """Return the length of the first dimension of a tensor, array, list or tuple, else ``None``."""
    # Tuples of types: torch.compile of PyTorch 2.5 cannot follow unions.
    if isinstance(value, (Tensor, np.ndarray)):
        return len(value) if value.ndim else None
    return len(value) if isinstance(value, (list, tuple)) else None


def _follow(
    tree: Mapping[str, Any], other: Mapping[str, Any], change: _Change, prefix: str = ""
) -> dict[str, Any]:
    """Change the values of ``tree`` that have rows and a counterpart with rows in ``other``."""
    changed = dict(tree)
    for name, value in tree.items():
        counterpart = other.get(name)
        if isinstance(value, Mapping):
            inner = counterpart if isinstance(counterpart, Mapping) else {}
            changed[name] = _follow(value, inner, change, f"{prefix}{name}.")
        elif row_count(value) is not None and row_count(counterpart) is not None:
            changed[name] = change(f"{prefix}{name}", value, counterpart)
    return changed


def _check_rows(per_sample: Mapping[str, Any], count: int, samples: str, prefix: str) -> None:
    for name, value in per_sample.items():
        if isinstance(value, Mapping):
            _check_rows(value, count, samples, f"{prefix}{name}.")
        else:
            _check_leaf(f"{prefix}{name}", value, count, samples)


def _check_leaf(name: str, value: Any, count: int, samples: str) -> None:
    rows = row_count(value)
    if rows is None:
        raise ValueError(
            f"per_sample: {name} is a {type(value).__name__} without rows; pass a tensor, array, list or "
            "tuple with one row a sample, or put it into conditions, which all samples share."
        )
    if rows not in (1, count):
        shared = (
            "" if name.startswith("unconditional") else ", or put it into conditions, which all samples share"
        )
        raise ValueError(
            f"{name} has {rows} rows for {count} {samples}; pass one row for each or for all{shared}."
        )


def _expanded(tree: Mapping[str, Any], per_sample: Mapping[str, Any], count: int) -> dict[str, Any]:
    def expanded(name: str, value: Any, _: Any) -> Any:
        _check_leaf(name, value, count, "states")
        return _expand(value, count)

    return _follow(tree, per_sample, expanded)


def _expand(value: Any, count: int) -> Any:
    if len(value) == count:
        return value
    if isinstance(value, Tensor):
        return value.expand(count, *value.shape[1:])
    return np.repeat(value, count, axis=0) if isinstance(value, np.ndarray) else value * count


def _cut(value: Any, index: slice | Tensor) -> Any:
    if len(value) == 1:
        return value
    if isinstance(value, Tensor):
        return value[index if isinstance(index, slice) else index.to(value.device)]
    if isinstance(value, np.ndarray):
        return value[index if isinstance(index, slice) else index.cpu().numpy()]
    numbers = range(len(value))[index] if isinstance(index, slice) else torch.arange(len(value))[index.cpu()]
    rows = [value[int(k)] for k in numbers]
    return rows if isinstance(value, list) else tuple(rows)


def most_rows(per_sample: Mapping[str, Any]) -> int:
    """Return the largest number of rows of values with more than one row, 0 if there are none."""
    counts = (
        most_rows(value) if isinstance(value, Mapping) else row_count(value) or 0
        for value in per_sample.values()
    )
    most = max(counts, default=0)
    return most if most > 1 else 0
