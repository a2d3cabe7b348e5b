"""The command line, with one file per verb."""

from __future__ import annotations

import os

from .._extras import require
from ._interrupts import leave, watch_signals

__all__ = ["main"]


def main() -> None:
    """Run ``fewstep``: the entry point of the console script; it handles signals from then on."""
    watch_signals()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost process costs a backtrace a rank
    try:
        require("yaml", "cli")
        from ._app import run

        run()
    except KeyboardInterrupt as error:  # outside of what run() watches
        leave(*(error.args or (2,)))
