"""The page of a training run."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
from pathlib import Path

from ..page import Code, Facts, Page, Part, Section, Table, Text
from ._charts import figure_sections, progress_section
from ._previews import preview_section
from ._run import Run, read_run
from ._words import clock, headline

__all__ = ["training_page"]


def training_page(folder: str | os.PathLike[str], every: float | None = None) -> Page:
    """Return the page of a training run, at any time during it or afterwards.

    It shows what the run has: logged metrics, previews and files.

    Args:
        folder: folder of the run, written by :class:`fewstep.flows.Trainer`.
        every: seconds between two writes of the page, after which a browser reloads it while the run
            continues; the run's ``page_every`` when ``None``.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when its ``run.json`` is damaged, or of a newer version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder.")
    run = read_run(folder)
    if every is None:
        every = run.fact("settings", "page_every") or 0
    figures = figure_sections(run.metrics, bool(run.fact("coupling", "exact")))
    shape = run.record.get("data", {}).get("shape")
    sections = [
        *figures[:1],
        *preview_section(run.previews, run.fact("objective", "name"), shape),
        *figures[1:],
        *progress_section(run.metrics),
        *_configuration(run),
        *_files(run),
        *_going_on(run),
    ]
    refresh = max(1, round(every)) if run.state == "running" and every > 0 else None
    name = folder.resolve().name
    data = run.record.get("data", {}).get("name") or run.fact("data", "name")
    title = f"Training: {name}" + (f", on {data}" if data and data not in name else "")
    return Page(title, headline(run), sections, refresh)


def _configuration(run: Run) -> list[Section]:
    record = {key: value for key, value in run.record.items() if key not in ("format", "schema", "ended")}
    facts = dict(record.pop("run", {}))
    # Facts about the data are in two places: name and shape, and count and fingerprint.
    facts["data"] = {**(facts.get("data") or {}), **record.pop("data", {})}
    record["parameters"] = {name: f"{count:,}" for name, count in record.get("parameters", {}).items()}
    if "started" in record:
        record["started"] = clock(record["started"])
    found = {key: value for key, value in {**facts, **record}.items() if value not in (None, {})}
    return [Section("Configuration", [Facts(found)])] if found else []


def _files(run: Run) -> list[Section]:
    known = {
        "flow.safetensors": "the flow, for use",
        "encoder.safetensors": "the encoder of the coupling",
        "metrics.jsonl": "metrics, one line per report",
        "run.json": "networks, data and versions of the run",
        "config.yaml": "the configuration, for another training",
        "best.safetensors": "checkpoint with the lowest validation loss",
    }
    rows = []
    for path in sorted([*run.folder.glob("*.*"), *run.folder.glob("checkpoints/*.safetensors")]):
        if path.is_dir() or path.name == "index.html" or path.name.startswith("."):
            continue
        name = path.relative_to(run.folder).as_posix()
        otherwise = "checkpoint, for resuming" if "/" in name else ""
        if name.startswith(("flow-", "encoder-")):
            otherwise = "another average of the weights"
        with contextlib.suppress(FileNotFoundError):  # an old checkpoint that was just removed
            rows.append((name, known.get(path.name, otherwise), math.ceil(path.stat().st_size / 1000)))
    parts: list[Part] = []
    if rows:
        parts.append(Table(f"Files in {run.folder}", ("file", "what it is", "kB"), rows))
    if damaged := run.metrics.damaged:
        parts.append(Text(f"metrics.jsonl has {damaged} damaged lines, which are omitted here."))
    return [Section("Files", parts)] if parts else []


def _going_on(run: Run) -> list[Section]:
    """Return the commands for the next steps."""
    folder, config = shlex.quote(str(run.folder)), run.folder / "config.yaml"
    flow = f"{folder}/flow.safetensors"
    parts: list[Part] = []
    if run.state not in ("running", "finished"):
        at = f"from step {run.saved:,}, the last checkpoint" if run.saved else "from the start"
        parts.append(Text(f"Repeat the command or script that started the run to continue {at}."))
    again = f"fewstep train --config {shlex.quote(str(config))} --out {folder}"
    if config.exists() and run.state not in ("running", "finished"):
        parts.append(Code(again, "go on"))
    # More steps would change a cosine decay, which resuming refuses.
    if config.exists() and run.state == "finished" and run.fact("settings", "decay") != "cosine":
        parts.append(Code(f"{again} --steps {2 * run.step}", "train for longer"))
    if not (run.folder / "flow.safetensors").exists():
        parts.append(Text("A finished run has flow.safetensors, for sampling and fitting."))
    if run.fact("objective", "name") == "Distillation":
        solver = run.fact("objective", "solver")
        calls = f"{solver['name']}:{solver['nfe']}"
        parts.append(Code(f"fewstep sample {flow} {calls} --out {folder}/samples", "sample"))
    else:
        parts += [
            Code(f"fewstep sample {flow} midpoint:4 --out {folder}/samples", "sample"),
            Code(f"fewstep fit {flow} --nfe 4 --out {folder}/solvers", "fit a solver"),
            Code(f"fewstep sample {flow} {folder}/solvers/*-4.json --out {folder}/fitted", "both levers"),
        ]
    return [Section("How to go on", parts)]
