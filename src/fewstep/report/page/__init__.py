"""Report pages: one self-contained HTML file, made of parts."""

from .page import Page, Section
from .parts import (
    Chart,
    Choice,
    Code,
    Facts,
    Grid,
    Image,
    Part,
    Pictures,
    Planes,
    Series,
    Slider,
    Strip,
    Table,
    Text,
    Timeline,
)

__all__ = [
    "Chart",
    "Choice",
    "Code",
    "Facts",
    "Grid",
    "Image",
    "Page",
    "Part",
    "Pictures",
    "Planes",
    "Section",
    "Series",
    "Slider",
    "Strip",
    "Table",
    "Text",
    "Timeline",
]
