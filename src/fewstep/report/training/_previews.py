"""Previews of a training run, with a slider over the step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..._reading import check_regular
from ..page import Choice, Image, Part, Section, Slider, Text
from ..page._html import png_size

__all__ = ["preview_section"]

#: Maximum of steps shown, and of bytes of images, so that a page can be sent by mail.
_STEPS, _BYTES = 12, 12_000_000

#: Width in pixels to which small images are enlarged, by whole factors.
_WIDTH = 720

_KINDS = {
    "samples": "Samples: a row each with 1, 2, 4, 8 and 32 network calls of Euler's method; a column is one "
    "noise.",
    "trajectories": "Paths: a row is one sample on its way from noise, on the left, to data.",
    "estimates": "Estimates: the flow's prediction of the data at the same times of the same paths.",
    "inversions": "From data to noise: a row is one held-out picture on its way back, with 32 calls.",
    "coupled": "The coupling: held-out pictures, the noises drawn for them, and the flow's samples from "
    "those noises with 4 and 32 calls.",
}
_PLANE = "Points after 1, 2, 4, 8 and 32 network calls of Euler's method, and some of their paths."
_STUDENT = "The teacher's samples in the first row; the student's, from the same noises, below."


def preview_section(
    previews: Mapping[str, Mapping[int, Path]], objective: str | None, shape: list[int] | None
) -> list[Section]:
    """Return a choice between kinds of images, with a slider over the step that they share."""
    steps = sorted({step for files in previews.values() for step in files})
    shown = _chosen(steps, previews)
    captions = dict(_KINDS)
    if objective == "Distillation":
        captions["samples"] = _STUDENT
    elif shape is not None and len(shape) < 3:
        captions["samples"] = _PLANE
    kinds: dict[str, Part] = {}
    damaged = []
    for kind in sorted(previews, key=lambda kind: [*_KINDS, kind].index(kind)):
        caption = captions.get(kind, f"{kind.replace('-', ' ').capitalize()}.")
        frames: dict[int, Part] = {}
        for step in shown:
            if (path := previews[kind].get(step)) is not None:
                try:
                    check_regular(path)
                    png = path.read_bytes()
                    zoom = max(1, _WIDTH // png_size(png)[0])
                except ValueError:
                    damaged.append(path.name)
                    continue
                alt = f"{kind} after step {step:,}"
                frames[step] = Image(png, alt, f"Step {step:,}. {caption}", zoom)
        if frames:
            last = max(frames)
            kinds[kind.capitalize()] = Slider("Step", frames, start=last) if len(frames) > 1 else frames[last]
    parts: list[Part] = [Choice("Kind", kinds)] if len(kinds) > 1 else [*kinds.values()]
    if damaged:
        parts.append(Text(f"Omitted, as damaged: {', '.join(damaged)}."))
    if not parts:
        return []
    if left_out := len(steps) - len(shown):
        parts.append(
            Text(f"{left_out} more of the {len(steps)} steps that have pictures are in the folder previews/.")
        )
    return [Section("Pictures", parts, "With the averaged weights, from the same noises at every step.")]


def _chosen(steps: list[int], previews: Mapping[str, Mapping[int, Path]]) -> list[int]:
    """Return evenly spaced steps, including the last, with files within the size limit."""
    sizes = dict.fromkeys(steps, 0)
    for files in previews.values():
        for step, path in files.items():
            sizes[step] += path.stat().st_size
    last = len(steps) - 1
    for count in range(min(_STEPS, len(steps)), 1, -1):
        chosen = [steps[k * last // (count - 1)] for k in range(count)]
        if sum(sizes[step] for step in chosen) <= _BYTES:
            return chosen
    return steps[-1:]
