"""Pages of sections, and their HTML files."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256

from ..._files import write_text
from ..._version import __version__
from ._context import Context, template, text_of
from ._html import render
from .parts import Part

__all__ = ["Page", "Section"]


@dataclass(frozen=True)
class Section:
    """A heading and its content."""

    title: str
    parts: Sequence[Part]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """A page in one file that needs no internet connection.

    It is complete without its script, and on paper: options and frames follow each other, each under its
    name. The script turns them into tabs and sliders, and keeps the reader's choices while the tab is open.
    Needs the extra ``plot``.

    Args:
        title: title of the page.
        summary: the main result, in one or two sentences; every line is a paragraph.
        sections: its sections.
        lead: parts between the summary and the first section.
        refresh: seconds after which a browser reloads the page, while its subject still changes.
    """

    title: str
    summary: str
    sections: Sequence[Section]
    lead: Sequence[Part] = ()
    refresh: int | None = None

    def html(self) -> str:
        """Return the complete file."""
        context = Context.of([part for section in self.sections for part in section.parts])
        lead = [render(part, context, 2) for part in self.lead]
        sections = [
            (section, [render(part, context, 3) for part in section.parts]) for section in self.sections
        ]
        script = text_of("page.js") + (text_of("refresh.js") if self.refresh else "")
        filled: str = template("page.html.j2").render(
            page=self,
            lead=lead,
            sections=sections,
            data=context.data,
            style=text_of("page.css"),
            script=script,
            script_hash=b64encode(sha256(script.encode()).digest()).decode(),
            version=__version__,
            made=datetime.now(timezone.utc),
        )
        return filled

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically."""
        write_text(path, self.html())
