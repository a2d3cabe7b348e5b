"""The program: its verbs, and how errors reach the user."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import __version__
from . import check, compare, demo, distill, fid, fit, inspect, recommend, reflow, sample, train, view

__all__ = ["app", "run"]

app = typer.Typer(
    name="fewstep",
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
        app()
    except (ValueError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted; what was finished is kept", err=True)
        sys.exit(130)
