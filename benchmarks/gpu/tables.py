"""Markdown tables of the records in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["table", "tables"]


def tables(folder: Path) -> str:
    """Return the records of a folder as Markdown: for each stage the machine, and a table for each part.

    Raises:
        FileNotFoundError: when there is none.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{folder}: there are no records (*.json); run a stage with --out {folder}.")
    return "\n\n".join(_stage(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def _stage(content: Mapping[str, Any]) -> str:
    machine = ", ".join(f"{key} {_flat(value)}" for key, value in content["machine"].items())
    ended = "complete" if content["finished"] else "CUT SHORT"
    blocks = [
        f"## {content['stage']}" + (" (tiny)" if content["tiny"] else ""),
        f"{machine}; {content['seconds']:.0f} s, {ended}.",
        content["protocol"],
    ]
    for part, protocol in content["parts"].items():
        rows = [row for row in content["rows"] if row["part"] == part]
        if rows:
            blocks += [f"### {part}", protocol, table(rows)]
    if content["left_out"]:
        blocks += ["### left out", table(content["left_out"])]
    return "\n\n".join(blocks)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table of all their columns but ``part``; columns without a value are dropped."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if value is not None)
    columns = [key for key in keys if key != "part" or len({row["part"] for row in rows}) > 1]
    lines = [columns, ["---"] * len(columns)]
    lines += [[_shown(row.get(key)) for key in columns] for row in rows]
    return "\n".join(_line(cells) for cells in lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if type(value) is int else str(value).replace("|", "\\|")


def _flat(value: Any) -> str:
    return " ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
