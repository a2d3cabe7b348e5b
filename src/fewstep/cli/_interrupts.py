"""The end of the program on Ctrl-C and SIGTERM: one line, and status 130 or 143, whenever they come."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

__all__ = ["leave", "leave_at_once", "say", "watch_signals"]

#: Process that watches, whose forked children end without a word; the signal that it ends of, or 0; whether
#: it has said so.
_state: dict[str, Any] = {"pid": None, "ending": None, "said": False}


#: Seconds that a call outside of Python, such as one that waits for other processes, may hold up a signal;
#: less than the 30 that torchrun and batch systems leave.
_PATIENCE = 20.0


def watch_signals() -> None:
    """From now on Ctrl-C and SIGTERM, which batch systems send, raise ``KeyboardInterrupt(number)``.

    Where that would be lost or change its kind, in an import, a finaliser or while the program is ending
    already, they end it at once, and soon in a call that does not return to Python. To be called before
    imports that take long.
    """
    _state.update(pid=os.getpid(), ending=None, said=False)
    sys.unraisablehook = _unraisable
    for number in (signal.SIGINT, signal.SIGTERM):
        # What starts in the background of a shell ignores Ctrl-C. Only the main thread may set handlers.
        with suppress(ValueError):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
    if threading.current_thread() is threading.main_thread() and os.name == "posix":
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=_hasten, args=(read,), daemon=True).start()


def leave_at_once(said: bool = False) -> int:
    """From now on signals end the program at once; return the one that has come before, or 0.

    Args:
        said: without a line, as another one tells why the program ends.
    """
    _state.update(ending=_state["ending"] or 0, said=_state["said"] or said)
    number: int = _state["ending"]
    return number


def leave(number: int) -> NoReturn:
    """End the program now, with one line and the status of a signal."""
    say()
    os._exit(128 + number)


def say() -> None:
    """Write the line, once."""
    if os.getpid() == _state["pid"] and not _state["said"]:
        _state["said"] = True
        with suppress(OSError):
            os.write(2, b"interrupted; what was finished is kept\n")


def _interrupt(number: int, frame: FrameType | None) -> None:
    importing = False
    while frame is not None and not importing:
        importing, frame = frame.f_code.co_filename.startswith("<frozen importlib"), frame.f_back
    if importing or _state["ending"] is not None or os.getpid() != _state["pid"]:
        leave(number)
    _state["ending"] = number
    raise KeyboardInterrupt(number)


def _hasten(read: int) -> None:
    """End the program if the main thread, which handles signals, stays where it is when one comes."""
    while True:
        number = os.read(read, 1)[0]
        place, end = _place(), time.monotonic() + _PATIENCE
        while number in (signal.SIGINT, signal.SIGTERM) and _place() == place:
            if time.monotonic() > end:
                leave(number)
            time.sleep(0.05)


def _place() -> tuple[int, int] | None:
    """Return where the main thread is, or ``None`` when Python has left it."""
    collects = gc.isenabled()
    gc.disable()  # a collection within the call waits for a lock that the call holds (CPython issue 106883)
    try:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
    finally:
        if collects:
            gc.enable()
    return (id(frame), frame.f_lasti) if frame else None


def _unraisable(what: Any) -> None:
    if isinstance(what.exc_value, KeyboardInterrupt) and what.exc_value.args:
        leave(what.exc_value.args[0])
    sys.__unraisablehook__(what)
