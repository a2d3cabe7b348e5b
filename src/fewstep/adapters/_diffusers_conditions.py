"""The conditions among the arguments that a pipeline passed to its network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from .._conditions import row_count
from ._diffusers_reading import Evaluation, Reading
from ._diffusers_values import refuse, same

__all__ = ["Parts", "Path", "candidates", "one_row", "split"]

#: Names that lead to an argument in nested mappings.
Path: TypeAlias = tuple[str, ...]


def candidates(reading: Reading) -> Iterator[set[Path]]:
    """Yield sets of arguments that may have one row per sample, the likeliest first: all of that length."""
    found: set[Path] = set()
    for evaluation in reading.evaluations:
        found |= {path for path, v in _leaves(evaluation.arguments) if row_count(v) == evaluation.rows}
    yield found
    yield from (found - {path} for path in sorted(found))


def _leaves(tree: Mapping[str, Any], prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, name))
            continue
        yield (*prefix, name), value
        if isinstance(value, list | tuple):
            yield from _leaves(_numbered(value), (*prefix, name))


def _numbered(values: Sequence[Any]) -> dict[str, Any]:
    return {str(k): value for k, value in enumerate(values)}


@dataclass
class Parts:
    """Arguments with one row per sample, shared ones that hold tensors, and plain ones.

    Lists of tensors with one row per sample are mappings of them here, and their places in ``lists``.
    """

    own: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    lists: tuple[Path, ...] = ()


def split(
    tree: Mapping[str, Any],
    evaluation: Evaluation,
    blocks: int,
    rows: set[Path],
    prefix: Path = (),
) -> Parts:
    """Sort the arguments of an evaluation, with those at the paths ``rows`` cut to its block of rows."""
    parts, count = Parts(), evaluation.rows // blocks
    for name, value in tree.items():
        path = (*prefix, name)
        if path not in rows and isinstance(value, list | tuple) and (*path, "0") in rows:
            value = _numbered(value)
            parts.lists += (path,)
        if isinstance(value, Mapping):
            inner = split(value, evaluation, blocks, rows, path)
            if inner.own and inner.shared:
                refuse(f"argument {name} holds both tensors of samples and shared ones")
            for kind in ("own", "shared", "fixed"):
                if getattr(inner, kind):
                    getattr(parts, kind)[name] = getattr(inner, kind)
            if not value:
                parts.fixed[name] = {}
            parts.lists += inner.lists
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
