"""The state that the parts of one page share while they are rendered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from ..._extras import require
from ._planes import Window
from .parts import Chart, Choice, Part, Slider

__all__ = ["COLOURS", "Context", "template", "text_of"]

#: Number of colours in the style sheet.
COLOURS = 12


@dataclass
class Context:
    """The state of a page while it is rendered."""

    styles: dict[str, int]  # index of the colour, marker and dashes of a series, by name
    data: dict[str, Any] = field(default_factory=dict)  # for the script, by element id
    made: Counter[str] = field(default_factory=Counter)  # ids of each kind
    window: Window | None = None  # common to planes; None if each has its own

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Context:
        """One in which series of one name look the same in all of ``parts``."""
        styles: dict[str, int] = {}
        charts = [[series.name for series in chart.series] for part in parts for chart in _charts(part)]
        for name in dict.fromkeys(name for names in charts for name in names):
            beside = {styles.get(other) for names in charts if name in names for other in names}
            # A look of its own while there are some; then one that no line in the same chart has.
            unused = [k for k in range(COLOURS) if k not in styles.values()]
            apart = [k for k in range(COLOURS) if k not in beside]
            styles[name] = next(iter([*unused, *apart]), len(styles) % COLOURS)
        return cls(styles)

    def new_id(self, kind: str) -> str:
        """Return an id unique on the page and reproducible."""
        self.made[kind] += 1
        return f"{kind}-{self.made[kind]}"

    def fill(self, name: str, **values: Any) -> str:
        """Fill the template of a kind of part; return markup that other templates do not escape."""
        filled: str = require("markupsafe", "plot").Markup(template(f"{name}.html.j2").render(values))
        return filled


@cache
def _environment() -> Any:
    jinja2 = require("jinja2", "plot")
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fewstep.report.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template(name: str) -> Any:
    """Return a template that escapes all values."""
    return _environment().get_template(name)


def text_of(name: str) -> str:
    """Return the content of a file beside the templates."""
    return files(__package__).joinpath(f"templates/{name}").read_text(encoding="utf-8")


def _charts(part: Part) -> Iterator[Chart]:
    if isinstance(part, Chart):
        yield part
    elif isinstance(part, Choice | Slider):
        inner = part.options if isinstance(part, Choice) else part.frames
        for choice in inner.values():
            yield from _charts(choice)
