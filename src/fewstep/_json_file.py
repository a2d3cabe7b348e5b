"""JSON files of one object each, laid out for people and validated when read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._files import write_text
from ._json import finite

__all__ = ["read_format", "read_json", "write_json"]


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write an object to ``path``, atomically; numbers that are not finite become ``null``."""
    lines = (f"  {json.dumps(key)}: {_layout(value)}" for key, value in finite(content).items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_json(
    path: str | os.PathLike[str],
    kind: str,
    saved_by: str,
    format: str,
    schema: int,
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> dict[str, Any]:
    """Read the object in the file at ``path``.

    Args:
        path: the file.
        kind: name of the kind of file, for messages.
        saved_by: the call that writes such a file, for messages.
        format: required value of ``format``.
        schema: required value of ``schema``.
        required: further keys that must be present.
        optional: keys that may be present.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not a complete object of this format and schema with these keys.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such {kind} file; {saved_by} writes one.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not complete JSON ({error}); the file is truncated or damaged, write it again "
            f"with {saved_by}."
        ) from None
    if not isinstance(content, dict) or content.get("format") != format:
        raise ValueError(f"{path}: not a {kind} file; its 'format' must be {format!r}.")
    if content.get("schema") != schema:
        raise ValueError(
            f"{path}: written with schema {content.get('schema')!r}, but this version of fewstep reads "
            f"schema {schema}; upgrade fewstep."
        )
    required = ("format", "schema", *required)
    missing = [key for key in required if key not in content]
    unknown = [key for key in content if key not in (*required, *optional)]
    if missing or unknown:
        raise ValueError(
            f"{path}: " + " and ".join(
                f"{label} {', '.join(map(repr, keys))}"
                for label, keys in (("lacks", missing), ("has unknown keys", unknown))
                if keys
            ) + f"; a {kind} file has {', '.join((*required, *optional))}."
        )  # fmt: skip
    return content


def read_format(path: str | os.PathLike[str]) -> str | None:
    """The ``format`` that a JSON file names; ``None`` where it cannot be read as an object of JSON."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("format") if isinstance(content, dict) else None


def _layout(value: Any) -> str:
    """Return JSON with one line per row of a table and per entry of an object."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
    if isinstance(value, dict) and value:
        entries = (f"{json.dumps(str(k))}: {json.dumps(v)}" for k, v in value.items())
        return "{\n    " + ",\n    ".join(entries) + "\n  }"
    return json.dumps(value)
