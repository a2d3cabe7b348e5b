"""Reading of files: bounded sizes, checked kinds, and one sentence that names the file on any damage."""

from __future__ import annotations

import inspect
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Union, get_args, get_origin

from safetensors import safe_open

if TYPE_CHECKING:  # the options of the command line need no torch, which takes seconds to import
    from torch import Tensor

__all__ = [
    "Tensors",
    "check",
    "check_arguments",
    "check_regular",
    "excerpt",
    "open_file",
    "parse_json",
    "printable",
    "read_bytes",
    "read_object",
    "read_tensors",
    "reading",
]

#: Most characters of what a message quotes, and of a whole message, which begins with a path.
_QUOTED, _MESSAGE = 250, 5_000

#: Most bytes and levels of JSON: what our files need, and few enough that a file beyond is refused in less
#: than 200 MB and two seconds.
_BYTES, _DEPTH = 50_000_000, 100
#: Most of the marks by which texts, entries, names, and lists or objects are counted before they are made;
#: a solver of 3,000 calls has nine million entries.
_COUNTS = {'"': 4_400_000, ",": 10_000_000, ":": 200_000, "[": 100_000, "{": 100_000}
_OTHERS = bytes(set(range(256)) - set("".join(_COUNTS).encode()))  # no such marks
#: Kinds that :func:`check_arguments` checks.
_PLAIN = (str, int, float, bool, None)
_TOO_DEEP = f"it is nested deeper than {_DEPTH} levels"
#: Most digits of a whole number: those of 64 bits.
_DIGITS = 20


@contextmanager
def reading(path: object, what: str, writer: str | None = None) -> Iterator[None]:
    """Read a file in here: any damage becomes one sentence.

    Args:
        path: the file, for messages.
        what: what it should be, such as ``"solver file"``.
        writer: what writes such a file, such as ``"solver.save()"``, if that is known.

    Raises:
        FileNotFoundError: when there is no such file.
        OSError: when it cannot be read, for want of permission for instance.
        ValueError: when it is damaged, or something else.
    """
    try:
        yield
    except FileNotFoundError:
        mend = f"; {writer} writes one" if writer else ""
        raise FileNotFoundError(f"{printable(str(path))}: there is no such {what}{mend}.") from None
    except Exception as error:  # damaged bytes make numpy, zipfile, torch and others raise nearly anything
        if type(error).__name__ == "OutOfMemoryError":
            raise  # of torch: the device is too small, and the file may be sound
        where = excerpt(f"{path}", _MESSAGE)
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(f"{where}: cannot be read ({error.strerror}).") from None
        if isinstance(error, ValueError) and str(error).startswith((f"{path}", where)):
            if (said := excerpt(str(error), _MESSAGE)) == str(error):
                raise  # it says all
            raise ValueError(said) from error
        reason = _reason(error)
        mend = f"write it again with {writer}" if writer else "fetch or make it again"
        raise ValueError(f"{where}: not a readable {what} ({reason.rstrip('.')}); {mend}.") from error


def excerpt(text: str, most: int = _QUOTED) -> str:
    """Return a text fit to print, or its beginning where it has more than ``most`` characters."""
    text = printable(text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."


def printable(text: str, keep: str = "") -> str:
    """Return a text with escapes for all that a terminal would obey, such as line breaks, but ``keep``."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = excerpt(" ".join(str(error).split()) or type(error).__name__)
    return f"it lacks {text}" if isinstance(error, KeyError) else text


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise a ``ValueError`` for a pipe or a device, of which a reader might wait for the end forever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder raises an error of its own
        raise ValueError("it is a pipe or a device, not a regular file")


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes."""
    check_regular(path)
    return open(path, "rb")


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Return what a file holds, unless that is more than ``most`` bytes."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def read_object(path: str | os.PathLike[str], what: str, writer: str) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        FileNotFoundError: when there is no such file.
        OSError: when it cannot be read.
        ValueError: when it holds something else.
    """
    with reading(path, what, writer):
        return parse_json(read_bytes(path, _BYTES).decode("utf-8-sig"))


def parse_json(text: str, most: int = _BYTES) -> dict[str, Any]:
    """Return the object in a text of JSON of at most ``most`` characters, counted before it is parsed.

    Raises:
        ValueError: when it is none, has a name twice, numbers beyond 64 bits, or is too long or too deep.
    """
    if len(text) > most:
        raise ValueError(f"it has {len(text):,} characters, and may have {most:,}")
    _check_marks(text)
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"not complete JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if not isinstance(found, dict):
        raise ValueError(f"it must hold one JSON object, not {type(found).__name__}")
    level: list[Any] = [found]
    for _ in range(_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise ValueError(_TOO_DEEP)
    if "\\ud" in text or "\\uD" in text:
        json.dumps(found, ensure_ascii=False).encode()  # raises on half a character, which nothing can print
    return found


def _check_marks(text: str) -> None:
    """Raise a ``ValueError`` when a text of JSON has too many entries, names, lists or objects."""
    if all(text.count(mark) <= most for mark, most in _COUNTS.items()):
        return
    # Those inside strings are none: strings go, after the quotes inside them.
    plain = text.replace("\\\\", "").replace('\\"', "").encode(errors="replace").translate(None, _OTHERS)
    for mark, most in _COUNTS.items():
        if (count := plain.count(mark.encode())) > most:
            raise ValueError(f"it has {count:,} {mark!r}, and may have {most:,}")
        if mark == '"':
            plain = re.sub(rb'"[^"]*"?', b"", plain.replace(b'""', b""))  # most strings held no marks


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has {twice!r:.60} twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"it has a whole number of {len(digits)} digits")
    return int(digits)


def check(value: object, kind: Any, where: str) -> None:
    """Raise a ``ValueError`` unless a value from JSON is of a kind.

    Args:
        value: the value.
        kind: ``str``, ``int``, ``bool``, ``float`` (which whole numbers are, too), ``dict`` or ``None``;
            ``[kind]`` for a list; ``{str: kind}`` for an object of any names; ``{"name": kind}`` for one with
            these names among others, where a missing one is ``None``; a tuple of alternatives.
        where: the name of the value, for the message.
    """
    if isinstance(kind, tuple):
        if not any(_fits(value, one) for one in kind):
            check(value, next(one for one in kind if one is not None), where)
    elif isinstance(kind, list) and isinstance(value, list):
        if kind[0] is float and {float, int}.issuperset(map(type, value)):
            return  # most of what is long, in a tenth of the time
        for index, one in enumerate(value):
            check(one, kind[0], f"{where}[{index}]")
    elif isinstance(kind, dict) and isinstance(value, Mapping):
        for name in value if str in kind else kind:
            check(value.get(name), kind.get(name, kind.get(str)), f"{where}.{name}" if where else str(name))
    elif not _is(value, kind):
        raise ValueError(f"{excerpt(where)}: must be {_words(kind)}, not {value!r:.60}")


def check_arguments(make: Callable[..., object], arguments: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` unless numbers and text from JSON are of the kinds in a signature."""
    parameters = inspect.signature(make, eval_str=True).parameters
    for name in arguments.keys() & parameters.keys():
        annotation = parameters[name].annotation
        union = get_origin(annotation) in (Union, UnionType)
        kinds = (
            [None if kind is NoneType else kind for kind in get_args(annotation)] if union else [annotation]
        )
        if all(kind in _PLAIN for kind in kinds):
            check(arguments[name], tuple(kinds), name)


def _fits(value: object, kind: Any) -> bool:
    try:
        check(value, kind, "")
    except ValueError:
        return False
    return True


def _is(value: object, kind: Any) -> bool:
    if not isinstance(kind, type):
        return kind is None and value is None  # else a list or an object was wanted
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _words(kind: Any) -> str:
    if isinstance(kind, list | dict):
        return "a list" if isinstance(kind, list) else "an object"
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}
    return words.get(kind, "null")


class Tensors(NamedTuple):
    """What a safetensors file holds: its tensors by name, and one of its metadata, an object of JSON."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def read_tensors(
    path: str | os.PathLike[str],
    key: str | None,
    *,
    only: tuple[str, ...] | None = None,
    device: str = "cpu",
    most: int = _BYTES,
) -> Tensors:
    """Read a safetensors file, within :func:`reading`.

    Args:
        path: the file.
        key: name of the metadata that hold the facts; ``None`` for a file without.
        only: names of the tensors to read, which must be there; by default all.
        device: device of the tensors.
        most: most bytes of the header; safetensors itself takes 100,000,000.
    """
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > most:
            raise ValueError(f"its header claims {length:,} bytes, and may have {most:,}")
        _check_marks(file.read(length).decode("latin-1"))  # before a tensor is made for each of its names
    with safe_open(path, "pt", device=device) as file:
        metadata = file.metadata() or {}
        if key is not None and key not in metadata:
            raise ValueError(f"its metadata lack {key!r}")
        facts = {} if key is None else parse_json(metadata[key], most)
        return Tensors(
            {name: file.get_tensor(name) for name in (file.keys() if only is None else only)}, facts
        )
