"""The program: its verbs and its error messages."""

from __future__ import annotations

import ast
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType

from .._version import __version__
from ._options import call, summary

__all__ = ["VERBS", "run"]

#: Modules of this folder that are verbs, imported on use.
VERBS = (
    "demo", "train", "check", "fit", "recommend", "sample", "compare", "distill", "reflow", "inspect",
    "export", "view", "fid",
)  # fmt: skip

_ABOUT = "Samples of ODE-based generative models in very few network calls."


def run(words: Sequence[str] | None = None) -> None:
    """Run the program; a user error is one sentence and exit status 2."""
    try:
        with _terminated_as_interrupted():
            _run(sys.argv[1:] if words is None else words)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        notes = getattr(error, "__notes__", [])  # with the call of the network that raised it
        print("\n".join([f"error: {error}", *notes]), file=sys.stderr)
        sys.exit(2)


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
        raise ValueError(f"{program}: there is no verb {first!r}; there are {', '.join(verbs)}.")
    return first


def _summary(verb: str) -> str:
    """Return the summary of a verb from its source, as importing it would load torch, which takes seconds."""
    spec = find_spec(f".{verb}", __package__)
    source = spec and spec.loader and spec.loader.get_source(spec.name)  # type: ignore[attr-defined]
    functions = [node for node in ast.parse(source or "").body if isinstance(node, ast.FunctionDef)]
    return next(summary(ast.get_docstring(node) or "") for node in functions if node.name == "command")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, sent by batch systems and ``timeout``, end the program like Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
