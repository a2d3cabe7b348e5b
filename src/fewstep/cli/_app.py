"""The program: its verbs and its error messages."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .._names import check_name
from .._reading import printable
from .._version import __version__
from ._interrupts import leave_at_once, say
from ._options import call, summary

__all__ = ["VERBS", "run"]

#: Modules of this folder that are verbs, imported on use.
VERBS = (
    "demo", "train", "check", "fit", "lift", "recommend", "sample", "compare", "distill", "reflow", "inspect",
    "export", "view", "fid",
)  # fmt: skip

#: The folder of the package, and Python's way to show a warning.
_PACKAGE, _format = str(Path(__file__).parents[1]), warnings.formatwarning

#: Errors of an output without room, or without a reader.
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)

#: Most characters of a message, which may quote a file.
_LONGEST = 10_000

_ABOUT = "Samples of ODE-based generative models in very few network calls."


def run(words: Sequence[str] | None = None) -> None:
    """Run the program; a user error is one sentence and exit status 2."""
    warnings.formatwarning = _note
    try:
        _run(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
    except (KeyboardInterrupt, ValueError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        sys.exit(_ended(error))
    finally:
        leave_at_once()


def _ended(error: BaseException) -> int:
    """Say in a line why the program ends, and return its status."""
    number = leave_at_once()  # an interrupt may have become another error on its way
    if isinstance(error, KeyboardInterrupt):
        number = error.args[0] if error.args else signal.SIGINT
    if number:
        say()
        return 128 + number
    if _broken_output(error):
        error = OSError(f"standard output cannot be written ({error}).")
    leave_at_once(said=True)
    print(_sentence(error), file=sys.stderr)
    return 2


def _broken_output(error: BaseException) -> bool:
    """Return whether an error is of standard output, which then takes no more, not even at Python's end."""
    if not isinstance(error, OSError) or error.errno not in _UNWRITTEN or error.filename is not None:
        return False
    try:
        print(flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")
        return True
    return False


def _sentence(error: BaseException) -> str:
    """Return the message of an error, without torch's backtrace in C++, with the rank under torchrun."""
    text = str(error).partition("\nException raised from")[0]
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    rank = f"rank {os.environ['RANK']}: " if several else ""
    notes = getattr(error, "__notes__", [])  # with the call of the network that raised it
    text = "\n".join([f"error: {rank}{text}", *notes])
    return printable(text[:_LONGEST], keep="\n")


def _note(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
    """Return the text of a warning: a sentence of ours, and with its place what libraries warn of."""
    if category is UserWarning and isinstance(place[0], str) and _PACKAGE in place[0]:
        return f"note: {printable(str(message)[:_LONGEST])}\n"
    return _format(message, category, *place, **line)


def _run(words: Sequence[str]) -> None:
    verb = _chosen("fewstep", _ABOUT, VERBS, _summary, words)
    if verb is None:
        return
    module = importlib.import_module(f".{verb}", __package__)
    if not hasattr(module, "COMMANDS"):
        call(module.command, f"fewstep {verb}", words[1:])
        return
    commands: Mapping[str, Callable[..., None]] = module.COMMANDS
    program, about = f"fewstep {verb}", summary(module.command.__doc__)
    kind = _chosen(program, about, commands, lambda name: summary(commands[name].__doc__ or ""), words[1:])
    if kind is not None:
        call(commands[kind], f"{program} {kind}", words[2:])


def _chosen(
    program: str, about: str, verbs: Collection[str], describe: Callable[[str], str], words: Sequence[str]
) -> str | None:
    """Return the verb named by the first word; ``None`` if help or the version was printed."""
    first = words[0] if words else "--help"
    if first == "--version" and program == "fewstep":
        print(__version__)
        return None
    if first in ("--help", "-h"):
        listed = "\n".join(f"  {name:<{max(map(len, verbs))}}  {describe(name)}" for name in verbs)
        print(f"usage: {program} VERB ...\n\n{about}\n\n{listed}\n\nMore: {program} VERB --help")
        if words:
            return None
        sys.exit(2)
    if first not in verbs:
        check_name(f"{program}: the verb", first, verbs)
    return first


def _summary(verb: str) -> str:
    """Return the summary of a verb from its source, as importing it would load torch, which takes seconds."""
    spec = find_spec(f".{verb}", __package__)
    source = spec and spec.loader and spec.loader.get_source(spec.name)  # type: ignore[attr-defined]
    functions = [node for node in ast.parse(source or "").body if isinstance(node, ast.FunctionDef)]
    return next(summary(ast.get_docstring(node) or "") for node in functions if node.name == "command")
