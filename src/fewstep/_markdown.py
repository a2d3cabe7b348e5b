"""Text of others in Markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["line", "quoted"]


def line(value: Any) -> str:
    """Return text for Markdown, without tags and columns of its own."""
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|")


def quoted(text: str) -> str:
    """Return a line of :func:`line` as code."""
    return f"`{text.replace('`', chr(39)).replace('&lt;', '<')}`"
