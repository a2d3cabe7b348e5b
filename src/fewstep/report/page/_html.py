"""HTML of all kinds of parts, readable without the script."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatch

from torch import Tensor

from ..._extras import require
from ...data import is_picture, sheet_levels
from . import parts
from ._chart import NARROW, WIDE, Drawing, Point, dashes, drawing, marker, points
from ._context import Context
from ._numbers import place, short
from ._planes import SIDE, planes_view, window
from ._texts import cell, heat_rows, numbers, spoken, summary, table_rows

__all__ = ["png_size", "render", "sprite"]

SIZES = {"wide": WIDE, "narrow": NARROW}


@singledispatch
def render(part: parts.Part, page: Context, level: int) -> str:
    """Return a part as markup, with a heading of the given level; raise a ``TypeError`` if it is no part."""
    raise TypeError(
        f"page: {type(part).__name__} is not a part of a page; use one of those in fewstep.report.page."
    )


@render.register
def _(part: parts.Text, page: Context, level: int) -> str:
    return page.fill("text", text=part.text)


@render.register
def _(part: parts.Chart, page: Context, level: int) -> str:
    chart_id = page.new_id("chart")
    shown = [points(series, part.log_x, part.log_y) for series in part.series]
    styles = [page.styles[series.name] for series in part.series]
    views = {kind: drawing(part, shown, styles, *size) for kind, size in SIZES.items()}
    page.data[chart_id] = {
        "series": [
            {"name": series.name, "points": [spoken(part, p) for p in line if p.y is not None]}
            for series, line in zip(part.series, shown, strict=True)
        ],
        "views": {kind: _pixels(view, shown) for kind, view in views.items()},
    }
    rows, left_out = numbers(part)
    return page.fill(
        "chart",
        part=part,
        id=chart_id,
        level=level,
        views=views,
        swatch=lambda style: marker(style, 15, 6, 4),
        dashes=dashes,
        legend=list(zip(part.series, styles, strict=True)),
        summary=summary(part, shown),
        empty=all(p.y is None for line in shown for p in line),
        rows=rows,
        left_out=left_out,
    )


@render.register
def _(part: parts.Pictures, page: Context, level: int) -> str:
    columns = max((len(strip.pictures) for strip in part.strips), default=0)
    strips = []
    for strip in part.strips:
        count, height, width = len(strip.pictures), *strip.pictures.shape[-2:]
        strips.append(
            {
                "name": strip.name,
                "score": strip.score,
                "count": count,
                "source": _data_uri(sprite(strip.pictures)),
                "width": count * width,
                "height": height,
                "small": width < 100,
                "part": place(100 * count / columns),
                "alt": f"{count} pictures of {strip.name}" + (f", {strip.score}" if strip.score else ""),
            }
        )
    lead = len(strips) if part.lead is None else part.lead
    groups = [group for group in (strips[:lead], strips[lead:]) if group]
    return page.fill(
        "pictures", part=part, id=page.new_id("pictures"), level=level, groups=groups, columns=columns
    )


@render.register
def _(part: parts.Image, page: Context, level: int) -> str:
    width, height = (part.zoom * pixels for pixels in png_size(part.png))
    return page.fill("image", part=part, source=_data_uri(part.png), width=width, height=height)


@render.register
def _(part: parts.Planes, page: Context, level: int) -> str:
    view = planes_view(part.paths, page.window or window([part]), part.behind)
    lead = len(view) if part.lead is None else part.lead
    groups = [group for group in (view[:lead], view[lead:]) if group]
    return page.fill("planes", part=part, id=page.new_id("planes"), level=level, groups=groups, side=SIDE)


@render.register
def _(part: parts.Timeline, page: Context, level: int) -> str:
    rows = [
        {
            "name": name,
            "style": page.styles.get(name),
            "marks": [(place(100 * time), short(time)) for time in times],
            "text": ", ".join(short(time) for time in times) or "none",
        }
        for name, times in part.rows.items()
    ]
    return page.fill("timeline", part=part, id=page.new_id("timeline"), level=level, rows=rows)


@render.register
def _(part: parts.Grid, page: Context, level: int) -> str:
    return page.fill("grid", part=part, id=page.new_id("grid"), level=level, rows=heat_rows(part))


@render.register
def _(part: parts.Table, page: Context, level: int) -> str:
    rows, numeric = table_rows(part)
    return page.fill("table", part=part, id=page.new_id("table"), rows=rows, numeric=numeric)


@render.register
def _(part: parts.Facts, page: Context, level: int) -> str:
    return page.fill("facts", facts=_facts(part.facts, page))


@render.register
def _(part: parts.Code, page: Context, level: int) -> str:
    return page.fill("code", part=part, id=page.new_id("code"))


@render.register
def _(part: parts.Choice, page: Context, level: int) -> str:
    return _picker("choice", part.label, part.options, page, level)


@render.register
def _(part: parts.Slider, page: Context, level: int) -> str:
    if part.start is not None and part.start not in part.frames:
        raise ValueError(
            f"page: the slider {part.label!r} starts at {part.start}, where it has no frame; it has "
            f"{', '.join(map(str, part.frames))}."
        )
    frames = {str(value): part.frames[value] for value in sorted(part.frames)}
    if all(isinstance(frame, parts.Planes) for frame in frames.values()):
        # One window for all frames, so that only the paths change and not the scale.
        groups = [frame for frame in frames.values() if isinstance(frame, parts.Planes)]
        page = replace(page, window=window(groups))
    return _picker("slider", part.label, frames, page, level, start=part.start)


def _picker(
    kind: str,
    label: str,
    choices: Mapping[str, parts.Part],
    page: Context,
    level: int,
    start: int | None = None,
) -> str:
    picker_id = page.new_id(kind)
    panels = [
        (f"{picker_id}-{k}", name, render(part, page, min(level + 1, 6)))
        for k, (name, part) in enumerate(choices.items())
    ]
    return page.fill("picker", id=picker_id, kind=kind, label=label, panels=panels, level=level, start=start)


def _facts(value: object, page: Context) -> str:
    """Return names and values as a definition list, other sequences as a list, other values as text."""
    if isinstance(value, Mapping):
        return page.fill("definitions", items=[(name, _facts(fact, page)) for name, fact in value.items()])
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if any(isinstance(fact, Mapping) for fact in value):
            return page.fill("items", items=[_facts(fact, page) for fact in value])
        return ", ".join(cell(fact) for fact in value) or "none"
    return cell(value)


def sprite(pictures: Tensor) -> bytes:
    """Return a row of images in [-1, 1], ``(B, 1 or 3, H, W)``, without gaps, as a PNG; one channel is grey.

    Raises:
        ValueError: if they are not images.
    """
    if pictures.ndim != 4 or len(pictures) == 0 or not is_picture(tuple(pictures.shape[1:])):
        raise ValueError(
            f"page: a strip holds images of shape (B, 1 or 3, H, W), not {tuple(pictures.shape)}; reshape "
            "them, or leave the strip out."
        )
    levels = sheet_levels(pictures, columns=len(pictures), gap=0)
    file = io.BytesIO()
    require("PIL.Image", "plot").fromarray(levels.numpy()).save(file, "PNG", optimize=True)
    return file.getvalue()


def png_size(png: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file.

    Raises:
        ValueError: if it is not a PNG file.
    """
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError(
            f"page: Image.png must hold the bytes of a PNG file, not {png[:8]!r}...; save it as PNG."
        )
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _pixels(view: Drawing, shown: Sequence[Sequence[Point]]) -> list[list[list[float]]]:
    return [
        [[round(view.x(p.x), 1), round(view.y(p.y), 1)] for p in line if p.y is not None] for line in shown
    ]
