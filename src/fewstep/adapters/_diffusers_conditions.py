"""The conditions among the arguments that a pipeline passed to its network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._conditions import row_count
from ._diffusers_reading import Evaluation, Reading
from ._diffusers_values import refuse, same

__all__ = ["Parts", "candidates", "one_row", "split"]


def candidates(reading: Reading) -> Iterator[set[tuple[str, ...]]]:
    """Yield sets of arguments that may have one row per sample, the likeliest first: all of that length."""
    found: set[tuple[str, ...]] = set()
    for evaluation in reading.evaluations:
        found |= {path for path, v in _leaves(evaluation.arguments) if row_count(v) == evaluation.rows}
    yield found
    yield from (found - {path} for path in sorted(found))


def _leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


@dataclass
class Parts:
    """Arguments with one row per sample, shared ones that hold tensors, and plain ones."""

    own: dict[str, Any]
    shared: dict[str, Any]
    fixed: dict[str, Any]


def split(
    tree: Mapping[str, Any],
    evaluation: Evaluation,
    blocks: int,
    rows: set[tuple[str, ...]],
    prefix: tuple[str, ...] = (),
) -> Parts:
    parts, count = Parts({}, {}, {}), evaluation.rows // blocks
    for name, value in tree.items():
        path = (*prefix, name)
        if isinstance(value, Mapping):
            inner = split(value, evaluation, blocks, rows, path)
            if inner.own and inner.shared:
                refuse(f"argument {name} holds both tensors of samples and shared ones")
            for into, found in zip(vars(parts).values(), vars(inner).values(), strict=True):
                if found:
                    into[name] = found
            if not value:
                parts.fixed[name] = {}
        elif path in rows:
            start = evaluation.block * count
            parts.own[name] = value[start : start + count]
        elif _holds_tensors(value):
            parts.shared[name] = value
        else:
            parts.fixed[name] = value
    return parts


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(_holds_tensors, value)))


def one_row(value: Any) -> Any:
    """Return one row of a value whose rows are all the same, which then serves any number of samples."""
    if isinstance(value, Mapping):
        return {name: one_row(inner) for name, inner in value.items()}
    return value[:1] if all(same(value[0], row) for row in value) else value
