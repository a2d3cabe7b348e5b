"""A page: its sections, and the HTML file that they become."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .parts import Part

__all__ = ["Page", "Section"]


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it."""

    title: str
    parts: Sequence[Part]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """A page to look at, in one file that needs no network.

    Args:
        title: what it shows.
        summary: what was found, in a sentence or two.
        sections: its sections.
        refresh: seconds after which it is to be read again, for a page of something that goes on.
    """

    title: str
    summary: str
    sections: Sequence[Section]
    refresh: int | None = None

    def html(self) -> str:
        """The whole file."""
        raise NotImplementedError

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        raise NotImplementedError
