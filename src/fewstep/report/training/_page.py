"""The page of a training run."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import time
from pathlib import Path

from ..._reading import reading
from ..page import Code, Facts, Page, Part, Section, Table, Text
from ._charts import figure_sections, progress_section
from ._previews import preview_section
from ._run import Run, read_run

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
    with reading(folder, "folder of a training", "fewstep train"):
        return _page(folder, every)


def _page(folder: Path, every: float | None) -> Page:
    run = read_run(folder)
    if every is None:
        every = run.fact("settings", "page_every") or 0
    figures = figure_sections(run.metrics, bool(run.fact("coupling", "exact")))
    shape = run.record.get("data", {}).get("shape")
    going_on = _going_on(run)
    running = run.state == "running"
    sections = [
        *preview_section(run.previews, run.fact("objective", "name"), shape),
        *figures,
        *progress_section(run.metrics),
        *_configuration(run),
        *_files(run),
        *([Section("How to go on", going_on)] if running else []),
    ]
    refresh = max(1, round(every)) if running and every > 0 else None
    name = folder.resolve().name
    data = run.record.get("data", {}).get("name") or run.fact("data", "name")
    title = f"Training: {name}" + (f", on {data}" if data and data not in name else "")
    return Page(title, _headline(run), sections, [] if running else going_on, refresh)


def _configuration(run: Run) -> list[Section]:
    record = {key: value for key, value in run.record.items() if key not in ("format", "schema", "ended")}
    facts = dict(record.pop("run", {}))
    # Facts about the data are in two places: name and shape, and count and fingerprint.
    facts["data"] = {**(facts.get("data") or {}), **record.pop("data", {})}
    record["parameters"] = {name: f"{count:,}" for name, count in record.get("parameters", {}).items()}
    if "started" in record:
        record["started"] = _clock(record["started"])
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


def _going_on(run: Run) -> list[Part]:
    """Return the commands for the next steps, as lines to copy."""
    folder, config = shlex.quote(str(run.folder)), run.folder / "config.yaml"
    flow = f"{folder}/flow.safetensors"
    again = f"fewstep train --config {shlex.quote(str(config))} --out {folder}"
    parts: list[Part] = []
    lines = []
    if run.state not in ("running", "finished"):
        at = f"from step {run.saved:,}, the last checkpoint" if run.saved else "from the start"
        parts.append(Text(f"Repeat the command or script that started the run to continue {at}."))
        if config.exists():
            lines.append(again)
    if run.state == "running":
        parts.append(Text("When it has finished:"))
    if run.fact("objective", "name") == "Distillation":
        solver = run.fact("objective", "solver")
        lines.append(f"fewstep sample {flow} {solver['name']}:{solver['nfe']} --out {folder}/samples")
    else:
        lines += [
            f"fewstep fit {flow} --nfe 4 --out {folder}/solvers",
            f"fewstep sample {flow} {folder}/solvers/*-4.json --out {folder}/samples",
        ]
    # More steps would change a cosine decay, which resuming refuses.
    if config.exists() and run.state == "finished" and run.fact("settings", "decay") != "cosine":
        lines.append(f"{again} --steps {2 * run.step}  # for longer")
    return [*parts, Code("\n".join(lines), "How to go on")]


def _headline(run: Run) -> str:
    """Return state, progress and results of a run in a few sentences."""
    sentences = [_stands(run)]
    samples, count = run.metrics.last("samples"), run.fact("data", "count")
    if samples and run.rate:
        epochs = f" ({_count(samples / count)} epochs)" if count else ""
        sentences.append(f"{_count(samples)} samples seen{epochs}, {_count(run.rate)} a second.")
    reached = []
    if (loss := run.metrics.last("loss")) is not None:
        reached.append(f"training loss {loss:.4g}")
    if losses := run.metrics.of("validation_loss"):
        best = min(losses, key=lambda step: losses[step])
        reached.append(f"best validation loss {losses[best]:.4g}, at step {best:,}")
    if reached:
        sentence = "; ".join(reached)
        sentences.append(sentence[0].upper() + sentence[1:] + ".")
    else:
        sentences.append("No figures have been logged yet.")
    if run.state not in ("silent", "finished") and run.seen is not None:
        sentences.append(f"As of {_clock(run.seen)}.")
    return " ".join(sentences)


def _clock(seconds: float) -> str:
    """Format a time in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def _stands(run: Run) -> str:
    step, steps = run.step, run.steps
    at = f"step {step:,}" + (f" of {steps:,} ({100 * step / steps:.0f} %)" if steps else "")
    batch = run.fact("settings", "batch")
    if run.state == "running":
        left = f", about {_duration((steps - step) * batch / run.rate)} left" if steps and run.rate else ""
        return f"Running, at {at}{left}."
    if run.state == "finished":
        return f"Finished: {step:,} steps, {_duration(run.seconds)} of training."
    if run.state == "interrupted":
        return f"Interrupted at {at}{', which is saved' if run.saved == step else ''}."
    if run.state == "failed":
        return f"Failed at {at}: {str(run.record['ended']['why']).rstrip('.')}."
    since = f" since {_clock(run.seen)}" if run.seen is not None else ""
    return f"No news{since}, at {at}: it was probably killed."


def _count(number: float) -> str:
    """Format a count with few digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"
