"""The parts of a page, as plain data without layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

__all__ = [
    "Chart",
    "Choice",
    "Code",
    "Facts",
    "Grid",
    "Image",
    "Part",
    "Pictures",
    "Planes",
    "Series",
    "Slider",
    "Strip",
    "Table",
    "Text",
    "Timeline",
]

#: A value in a table cell, or beside a name.
Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: name in legend and table; series of the same name have the same colour on the whole page.
        x: positions of its points, increasing.
        y: values; ``None`` (or a number that is not finite) for a missing point.
        low: lower ends of the points' intervals, if they have any.
        high: upper ends.
        strong: draw a thicker line, for the subject of the page.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    strong: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one axis, with an accessible table of their points."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """A row of images in [-1, 1], ``(B, 1 or 3, H, W)``, with a name and a short score."""

    name: str
    pictures: Tensor
    score: str = ""


@dataclass(frozen=True)
class Pictures:
    """Rows of images; those in a column correspond, for example by their noise.

    Args:
        title: title.
        strips: the rows.
        note: caption.
        lead: number of rows shown first; the others are folded. All by default.
    """

    title: str
    strips: Sequence[Strip]
    note: str = ""
    lead: int | None = None


@dataclass(frozen=True)
class Image:
    """A complete image.

    Args:
        png: the bytes of a PNG file.
        alt: description for screen readers.
        caption: caption.
        zoom: width of one of its pixels in pixels of the page, if there is room.
    """

    png: bytes
    alt: str
    caption: str = ""
    zoom: int = 1


@dataclass(frozen=True)
class Planes:
    """Paths of points in the plane by name, each ``(P, B, 2)``, drawn side by side on one scale.

    Args:
        title: title.
        paths: the paths.
        note: caption.
        scores: short scores by name.
        behind: points ``(B, 2)`` drawn behind the paths of every plane, such as data.
        lead: number of planes shown first; the others are folded. All by default.
    """

    title: str
    paths: Mapping[str, Tensor]
    note: str = ""
    scores: Mapping[str, str] = field(default_factory=dict)
    behind: Tensor | None = None
    lead: int | None = None


@dataclass(frozen=True)
class Timeline:
    """Times of events in [0, 1], with one row of marks per name."""

    title: str
    rows: Mapping[str, Sequence[float]]
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """Numbers of either sign as colours and digits; ``None`` for an empty cell.

    Args:
        title: title.
        values: one sequence per row.
        rows: the rows' names.
        columns: the columns' names.
    """

    title: str
    values: Sequence[Sequence[float | None]]
    rows: Sequence[str]
    columns: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of values under headings, sortable by any column."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


@dataclass(frozen=True)
class Facts:
    """Names and values, which may be facts again."""

    facts: Mapping[str, object]


@dataclass(frozen=True)
class Code:
    """Lines to copy into a terminal."""

    text: str
    label: str = "command"


@dataclass(frozen=True)
class Choice:
    """A choice between parts by name; all choices with the same label on a page change together."""

    label: str
    options: Mapping[str, Part]


@dataclass(frozen=True)
class Slider:
    """A choice between parts by number; all sliders with the same label on a page move together.

    Args:
        label: name of the number.
        frames: parts by number.
        start: the number shown first; the least by default.
    """

    label: str
    frames: Mapping[int, Part]
    start: int | None = None


Part: TypeAlias = (
    Text | Chart | Pictures | Image | Planes | Timeline | Grid | Table | Facts | Code | Choice | Slider
)
