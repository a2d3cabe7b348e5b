"""What a page is made of: plain data, which says nothing of how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

#: What stands in a cell of a table, or beside a name.
Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: what the legend and the table call it; series of one name have one colour on the whole page.
        x: where its points are, increasing.
        y: how high; ``None`` (or a number that is not finite) where there is no point.
        low: lower ends of the points' intervals, if they have any.
        high: upper ends.
        strong: whether it is what the page is about, and drawn thicker.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    strong: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one axis, with a table of their points for those who cannot see them."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """A row of pictures in [-1, 1], ``(B, 1 or 3, H, W)``, with a name and a short score under it."""

    name: str
    pictures: Tensor
    score: str = ""


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures; column ``k`` belongs together, such as by its noise."""

    title: str
    strips: Sequence[Strip]
    note: str = ""


@dataclass(frozen=True)
class Image:
    """A picture that is finished.

    Args:
        png: the bytes of a PNG file.
        alt: what is to be seen in it.
        caption: what stands under it.
        zoom: how many pixels of the page one of its pixels is wide, where there is room.
    """

    png: bytes
    alt: str
    caption: str = ""
    zoom: int = 1


@dataclass(frozen=True)
class Planes:
    """Paths of points in the plane by name, each ``(P, B, 2)``, drawn side by side to one scale."""

    title: str
    paths: Mapping[str, Tensor]
    note: str = ""


@dataclass(frozen=True)
class Timeline:
    """When something happens in [0, 1], a row of marks each."""

    title: str
    rows: Mapping[str, Sequence[float]]
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """Numbers of either sign as colours and digits; ``None`` where there is none.

    Args:
        title: what they are.
        values: a sequence a row.
        rows: the rows' names.
        columns: the columns' names.
    """

    title: str
    values: Sequence[Sequence[float | None]]
    rows: Sequence[str]
    columns: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of values under headings; a reader may sort by any column."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for, which may be facts again."""

    facts: Mapping[str, object]


@dataclass(frozen=True)
class Code:
    """Lines to copy into a terminal."""

    text: str
    label: str = "command"


@dataclass(frozen=True)
class Choice:
    """One of several parts, chosen by name; all choices of one label on a page move together."""

    label: str
    options: Mapping[str, Part]


@dataclass(frozen=True)
class Slider:
    """One of several parts, chosen by a number; all sliders of one label on a page move together.

    Args:
        label: what the number counts.
        frames: a part a number.
        start: the number that is shown first; the least by default.
    """

    label: str
    frames: Mapping[int, Part]
    start: int | None = None


Part: TypeAlias = (
    Text | Chart | Pictures | Image | Planes | Timeline | Grid | Table | Facts | Code | Choice | Slider
)
