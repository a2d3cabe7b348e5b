"""YAML of settings: plain values in a bounded number and depth, without aliases, and every name once."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import yaml

from ._reading import read_bytes, reading

__all__ = ["parse_yaml", "read_yaml"]

#: Most characters and values, the prompts of many samples, and levels.
_CHARACTERS, _VALUES, _DEPTH = 1 << 22, 200_000, 50

#: By libyaml where PyYAML was built with it, which is seven times as fast.
_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: str | os.PathLike[str], where: str) -> Any:
    """Read a YAML file, called ``where`` in the one sentence on its damage."""
    with reading(where, "YAML file", "an editor"):
        return parse_yaml(read_bytes(path, 4 * _CHARACTERS).decode())


def parse_yaml(text: str) -> Any:
    """Return what a text of YAML says.

    Raises:
        ValueError: when it is no YAML, too long or too deep, or has aliases or a name twice in one mapping.
    """
    if len(text) > _CHARACTERS:
        raise ValueError(
            f"it has {len(text):,} characters, and may have {_CHARACTERS:,}; use .npz, for numbers and text"
        )
    try:
        _check_events(text)
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _check_events(text: str) -> None:
    """Raise a ``ValueError`` for aliases, too many values or too many levels, before any is made."""
    values = depth = 0
    for event in yaml.parse(text, _Parser):
        # A few aliases of aliases name billions of values.
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias (*name), which settings may not; write the value out")
        values += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if values > _VALUES:
            raise ValueError(f"it has more than {_VALUES:,} values; use .npz, for numbers and text")
        if depth > _DEPTH:
            raise ValueError(f"it is nested deeper than {_DEPTH} levels")


class _Loader(_Parser):  # type: ignore[misc, valid-type]
    """PyYAML's loader of plain values, with every name once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, count in names.most_common(1):
            if count > 1:
                raise ValueError(f"it has {name!r:.60} twice in one mapping")
        return super().construct_mapping(node, deep)
