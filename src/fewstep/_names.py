"""Names that users write: which of the known ones was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ._reading import excerpt

__all__ = ["check_name", "guess"]

#: Most characters of a name that is compared, as the time grows with its square.
_LONGEST = 60


def check_name(where: str, name: object, known: Iterable[str], besides: str = "") -> str:
    """Return a name, or raise a ``ValueError`` unless it is one of the known names.

    Args:
        where: begins the message, such as ``"fit: loss"``.
        name: what was given.
        known: the names.
        besides: what else is allowed, such as ``", or a Loss"``.
    """
    known = list(known)
    if not isinstance(name, str) or name not in known:
        given = f"{excerpt(repr(name), _LONGEST)}{guess(name, known)}"
        raise ValueError(f"{where} must be one of {', '.join(known)}{besides}, not {given}.")
    return name


def guess(name: object, known: Iterable[str]) -> str:
    """Return `` (did you mean 'NAME'?)`` with the known name nearest to ``name``, nothing if none is near.

    Case, spaces, hyphens and underscores do not count, and ``++`` is read as ``pp``.
    """
    spelt = {_plain(each): each for each in known}
    near = difflib.get_close_matches(_plain(str(name)[:_LONGEST]), spelt, 1)
    return f" (did you mean {spelt[near[0]]!r}?)" if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("++", "pp").translate(str.maketrans("", "", " -_"))
