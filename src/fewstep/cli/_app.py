"""The program: its verbs, and how errors reach the user."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
import typer.core

from .. import __version__
from . import check, compare, demo, distill, fid, fit, inspect, recommend, reflow, sample, train, view

__all__ = ["app", "run"]


class _Program(typer.core.TyperGroup):
    """The program, which says what Ctrl-C and SIGTERM leave behind, where typer would end in silence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted; what was finished is kept", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="fewstep",
    cls=_Program,
    help="Samples of ODE-based generative models in very few network calls.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (demo, train, check, fit, recommend, sample, compare, distill, reflow, inspect, view):
    app.command(verb.__name__.rsplit(".", 1)[1], no_args_is_help=verb is not demo)(verb.command)
app.add_typer(fid.app, name="fid")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Samples of ODE-based generative models in very few network calls."""


def run() -> None:
    """Run the program; a mistake of the user's ends in one sentence and exit status 2."""
    try:
        with _terminated_as_interrupted():
            app()
    except (ValueError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        notes = getattr(error, "__notes__", [])  # with what a network was called that raised it
        typer.echo("\n".join([f"error: {error}", *notes]), err=True)
        sys.exit(2)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, which batch systems and ``timeout`` send, end the program as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
