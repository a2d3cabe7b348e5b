"""The command line, with one file per verb."""

from __future__ import annotations

from .._extras import require

__all__ = ["main"]


def main() -> None:
    """Run ``fewstep``: the entry point of the console script."""
    require("yaml", "cli")
    from ._app import run

    run()
