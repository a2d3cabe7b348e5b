"""YAML of settings: plain values in a bounded number, without aliases, and every name once."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import yaml

from ._reading import read_bytes, reading

__all__ = ["parse_yaml", "read_yaml"]

#: Most characters and values: the prompts of many samples.
_CHARACTERS, _VALUES = 1 << 22, 200_000


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
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain values, with bounds."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # A few aliases of aliases name billions of values.
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*name), which settings may not; write the value out")
        self.values += 1
        if self.values > _VALUES:
            raise ValueError(f"it has more than {_VALUES:,} values; use .npz, for numbers and text")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, count in names.most_common(1):
            if count > 1:
                raise ValueError(f"it has {name!r:.60} twice in one mapping")
        return super().construct_mapping(node, deep)
