"""Markdown tables of the records in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._record import STAGES

__all__ = ["table", "tables"]


def tables(folder: Path) -> str:
    """Return the records of a folder as Markdown: for each stage the machine, and a table for each part.

    Raises:
        FileNotFoundError: when there is none.
    """
    files = [file for stage in STAGES if (file := folder / f"{stage}.json").exists()]
    if not files:
        raise FileNotFoundError(f"{folder}: has no record of a stage; run one with --out {folder}.")
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
        rows = [_without_part(row) for row in content["rows"] if row["part"] == part]
        if rows:
            blocks += [f"### {part}", protocol, _by_way(rows) if "way" in rows[0] else table(rows)]
    if content["left_out"]:
        blocks += ["### left out", table(content["left_out"])]
    return "\n\n".join(blocks)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, without the columns that have no value."""
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if value is not None))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_shown(row.get(key)) for key in columns] for row in rows]
    return "\n".join(_line(cells) for cells in lines)


def _by_way(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of each measure with the ways as columns, whose order is that of the first row."""
    found: dict[str, dict[tuple[tuple[str, Any], ...], dict[str, str]]] = {name: {} for name in MEASURES}
    for row in rows:
        keys = list(row)
        place = tuple((key, row[key]) for key in keys[: keys.index("way")])
        for name, shown in MEASURES.items():
            if row.get(name) is not None:
                found[name].setdefault(place, {})[row["way"]] = shown(row)
    return "\n\n".join(
        f"{name}:\n\n" + table([{**dict(place), **cells} for place, cells in places.items()])
        for name, places in found.items()
        if places
    )


def _without_part(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "part"}


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if type(value) is int else str(value).replace("|", "\\|")


#: Measures of rows with ways, and how they are shown.
MEASURES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "us_per_call": lambda row: _shown(row["us_per_call"]),
    "images_per_s": lambda row: _shown(row["images_per_s"]),
    "ratio": lambda row: f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
    "extra_us_per_call": lambda row: _shown(row["extra_us_per_call"]),
    "peak_mib": lambda row: _shown(row["peak_mib"]),
    "first_s": lambda row: _shown(row["first_s"]),
}


def _flat(value: Any) -> str:
    return " ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
