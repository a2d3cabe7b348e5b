"""JSON files of one object each, laid out for people and validated when read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ._files import write_text
from ._json import finite
from ._reading import check, excerpt, parse_json, read_object

__all__ = ["read_format", "read_json", "write_json"]


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write an object to ``path``, atomically; numbers that are not finite become ``null``.

    Raises:
        ValueError: when it is more, or has other numbers or text, than :func:`read_json` reads.
    """
    lines = (f"  {json.dumps(key)}: {_layout(value)}" for key, value in finite(content).items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    try:
        parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: not written, as it could not be read again ({error}).") from None
    write_text(path, text)


def read_json(
    path: str | os.PathLike[str],
    kind: str,
    saved_by: str,
    format: str,
    schema: int,
    required: Mapping[str, Any],
    optional: Mapping[str, Any],
) -> dict[str, Any]:
    """Read the object in the file at ``path``.

    Args:
        path: the file.
        kind: name of the kind of file, for messages.
        saved_by: the call that writes such a file, for messages.
        format: required value of ``format``.
        schema: required value of ``schema``.
        required: further keys that must be present, with the kinds of their values for
            :func:`fewstep._reading.check`.
        optional: keys that may be present, likewise; ``null`` is as if they were not.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not a complete object of this format and schema with these keys.
    """
    content = read_object(path, f"{kind} file", saved_by)
    if content.get("format") != format:
        raise ValueError(f"{path}: not a {kind} file; its 'format' must be {format!r}.")
    if content.get("schema") != schema:
        raise ValueError(
            f"{path}: written with schema {content.get('schema')!r:.60}, but this version of fewstep "
            f"reads schema {schema}; upgrade fewstep."
        )
    names = ("format", "schema", *required)
    missing = [key for key in names if key not in content]
    unknown = [key for key in content if key not in (*names, *optional)]
    if missing or unknown:
        raise ValueError(
            f"{path}: " + " and ".join(
                f"{label} {excerpt(', '.join(map(repr, keys)), 100)}"
                for label, keys in (("lacks", missing), ("has unknown keys", unknown))
                if keys
            ) + f"; a {kind} file has {', '.join((*names, *optional))}."
        )  # fmt: skip
    given = {key: value for key, value in optional.items() if content.get(key) is not None}
    try:
        check(content, {**required, **given}, "")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; write it again with {saved_by}.") from None
    return content


def read_format(path: str | os.PathLike[str]) -> str | None:
    """The ``format`` that a JSON file names; ``None`` where it cannot be read as an object of JSON."""
    try:
        found = read_object(path, "file", "fewstep").get("format")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _layout(value: Any) -> str:
    """Return JSON with one line per row of a table and per entry of an object."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
    if isinstance(value, dict) and value:
        entries = (f"{json.dumps(str(k))}: {json.dumps(v)}" for k, v in value.items())
        return "{\n    " + ",\n    ".join(entries) + "\n  }"
    return json.dumps(value)
