"""What the parts of one page share while they are rendered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from ..._extras import require
from .parts import Chart, Choice, Part, Slider

__all__ = ["COLOURS", "Context", "template", "text_of"]

#: How many colours the style sheet has.
COLOURS = 12


@dataclass
class Context:
    """The page in the making.

    Args:
        styles: which colour, marker and dashes a series has, by its name.
        data: what the script reads, by the id of the element that it belongs to.
        made: how many ids there are.
    """

    styles: dict[str, int]
    data: dict[str, Any] = field(default_factory=dict)
    made: int = 0

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Context:
        """One in which series of one name look the same in all of ``parts``."""
        names = dict.fromkeys(name for part in parts for name in _series(part))
        return cls({name: k for k, name in enumerate(names)})

    def new_id(self, kind: str) -> str:
        """An id that no other element of the page has, the same whenever the page is made again."""
        self.made += 1
        return f"{kind}-{self.made}"

    def fill(self, name: str, **values: Any) -> str:
        """The template of a kind of part, filled; markup, which other templates take as it is."""
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
    """A template, with every value in it escaped."""
    return _environment().get_template(name)


def text_of(name: str) -> str:
    """What stands in one of the files beside the templates."""
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _series(part: Part) -> Iterator[str]:
    if isinstance(part, Chart):
        yield from (series.name for series in part.series)
    elif isinstance(part, Choice):
        for option in part.options.values():
            yield from _series(option)
    elif isinstance(part, Slider):
        for frame in part.frames.values():
            yield from _series(frame)
