"""Options of a verb, from the signature and the docstring of its function.

Parameters before ``*`` are arguments, the others options. Their help is their entry under "Args:" in the
docstring, or in :data:`COMMON`. A parameter whose type is a dataclass, such as
:class:`fewstep.flows.Settings`, becomes one option per field, with the help of the dataclass's docstring, so
that API and command line share one list. Every verb has ``--config``, a YAML file with the same names.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

import yaml

from .._names import guess
from .._reading import excerpt
from .._yaml import parse_yaml, read_yaml

__all__ = ["AtLeast", "Positive", "call", "helped", "summary"]

#: Help of options common to many verbs.
COMMON = {
    "seed": "Seed of the noises.",
    "device": "Torch device, such as cpu, cuda or mps.",
    "as_json": "Print the result as JSON on standard output.",
    "conditions": "Conditions that all samples share, by name: a file .npz, .safetensors or .yaml.",
    "per_sample": "Conditions with one row per sample, or one for all: a file .npz, .safetensors or .yaml.",
}

_WORDS = {int: "a whole number", float: "a number", str: "text", Path: "a path"}


class AtLeast(NamedTuple):
    """A lower bound of a number, in ``Annotated[int, AtLeast(1)]``."""

    least: float


Positive: TypeAlias = Annotated[int, AtLeast(1)]


def helped(**words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add help made from lists, such as those of names, to that of the docstring."""

    def with_help(command: Callable[..., None]) -> Callable[..., None]:
        vars(command)["words"] = words
        return command

    return with_help


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(f"{message.removeprefix('argument ').rstrip('.')}; see {self.prog} --help.")


def call(command: Callable[..., None], program: str, words: Sequence[str]) -> None:
    """Call the function of a verb with the options in the words and in the file of ``--config``.

    Raises:
        ValueError: when a word or an entry is unknown, missing or wrong.
    """
    first = _Parser(program, add_help=False, allow_abbrev=False)
    first.add_argument("--config", metavar="PATH", help="YAML file with options; flags override it.")
    path = first.parse_known_args(words)[0].config
    parser, settings = _parser(command, first, path)
    if not words and any(action.required for action in parser._actions):
        parser.print_help()
        raise SystemExit(2)
    given, others = parser.parse_known_intermixed_args(words)
    if others:
        if not others[0].startswith("-"):
            places = [_place(action) for action in parser._actions if not action.option_strings]
            parser.error(f"{others[0]} is one word too many; there is a place for {', '.join(places)} only")
        flags = (flag for action in parser._actions for flag in action.option_strings)
        parser.error(f"{others[0]} is no option{guess(others[0], flags)}")
    found = {name: value for name, value in vars(given).items() if name != "config"}
    typed = {_place(action): found.get(action.dest) for action in parser._actions}
    for name, (kind, start) in settings.items():
        names = [field.name for field in dataclasses.fields(kind)]
        values = {} if start is MISSING else {each: getattr(start, each) for each in names}
        values |= {each: found.pop(each) for each in names if each in found}
        found[name] = kind.parse(values) if hasattr(kind, "parse") else kind(**values)
    try:
        command(**found)
    except (OSError, ValueError) as error:
        if (said := _placed(str(error), typed)) != str(error):
            error.args = (said,)
        raise


def _placed(said: str, typed: Mapping[str, Any]) -> str:
    """Return a message, behind the name of the place where the word was typed that it begins with."""
    for place, value in typed.items():
        for word in value if isinstance(value, list) else [value]:
            rest = said.removeprefix(f"{word}: ")
            if rest != said and not rest.startswith("--"):  # which says it already
                return f"{place}: {said}"
    return said


def _place(action: argparse.Action) -> str:
    """Return how the help calls an argument or an option."""
    return action.option_strings[-1] if action.option_strings else str(action.metavar)


def _parser(
    command: Callable[..., None], first: _Parser, path: str | None
) -> tuple[_Parser, dict[str, tuple[Any, Any]]]:
    """Return the parser, with the entries of a file as defaults, and the dataclass parameters."""
    entries = {} if path is None else _file(Path(path))
    parameters = inspect.signature(command).parameters
    places = [name.upper() for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    parser = _Parser(
        first.prog,
        usage=" ".join([first.prog, *places, "[OPTIONS]"]),
        description=_text(command),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=30),
        allow_abbrev=False,
        parents=[first],
    )
    try:
        settings = _add_all(parser, command, entries)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--config: {path}: {error}.") from None
    if entries:
        known = [action.dest.removeprefix("as_") for action in parser._actions if action.dest != "help"]
        unknown = ", ".join(key + guess(key, known) for key in entries)
        raise ValueError(
            f"--config: {path} has unknown keys {excerpt(unknown, 100)}; {first.prog} --help lists all."
        )
    return parser, settings


def _add_all(
    parser: _Parser, command: Callable[..., None], entries: dict[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Add the arguments and options of a command, and return its dataclass parameters."""
    parameters, settings = inspect.signature(command).parameters, dict[str, tuple[Any, Any]]()
    kinds = get_type_hints(command, include_extras=True)
    helps = COMMON | vars(command).get("words", {}) | _documented(command)
    for name, parameter in parameters.items():
        kind, start = kinds[name], MISSING if parameter.default is parameter.empty else parameter.default
        if not dataclasses.is_dataclass(kind):
            positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            _add(parser, name, kind, start, helps.get(name, ""), entries, positional)
            continue
        settings[name] = kind, start
        group = parser.add_argument_group(_plainly(summary(kind.__doc__ or "")).rstrip("."))
        inner, texts = get_type_hints(kind, include_extras=True), helps | _documented(kind)
        for field in dataclasses.fields(kind):
            made = field.default if field.default_factory is MISSING else field.default_factory()
            default = made if start is MISSING else getattr(start, field.name)
            one_of = f" One of {', '.join(field.metadata['choices'])}." if "choices" in field.metadata else ""
            text = texts.get(field.name, "") + one_of
            _add(group, field.name, inner[field.name], default, text, entries)
    return settings


def _add(
    group: Any,
    name: str,
    kind: Any,
    default: Any,
    text: str,
    entries: dict[str, Any],
    positional: bool = False,
) -> None:
    """Add an argument or an option; an entry of the file is its default."""
    key, plain, many = name.removeprefix("as_"), _plain(kind), get_origin(kind) is list
    entry = entries.pop(key, None)
    flag = key.upper() if positional else f"--{key.replace('_', '-')}"
    unset = default is None or default is MISSING or default is False or default == ()
    shown = "" if unset else f" [{_spelt(default)}]"
    facts: dict[str, Any] = {"help": (text + shown).replace("%", "%%"), "default": argparse.SUPPRESS}
    if plain is bool:
        if entry not in (None, True, False):
            raise argparse.ArgumentTypeError(f"{key} must be true or false, not {excerpt(repr(entry))}")
        default = argparse.SUPPRESS if entry is None else entry
        group.add_argument(
            flag, dest=name, action=argparse.BooleanOptionalAction, **facts | {"default": default}
        )
        return
    facts |= {"type": partial(_read, kind), "metavar": flag if positional else _metavar(plain)}
    needed = default is MISSING and entry is None
    if entry is not None:
        words = [str(each) for each in entry] if many and isinstance(entry, list) else [_spelt(entry)]
        for word in words:
            try:
                _read(kind, word)
            except argparse.ArgumentTypeError as error:
                raise argparse.ArgumentTypeError(f"{key} {error}") from None
        facts["default"] = words if many and isinstance(entry, list) else words[0]
    if positional:
        group.add_argument(name, nargs=("+" if needed else "*") if many else None if needed else "?", **facts)
    else:
        group.add_argument(flag, dest=name, required=needed, **facts)


def _read(kind: Any, text: str) -> Any:
    """Convert a word to the type of its option, from YAML unless that is a number or text."""
    plain = _plain(kind)
    if plain in _WORDS:
        try:
            value = plain(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {_WORDS[plain]}, not {excerpt(text)!r}") from None
        for bound in _bounds(kind):
            if value < bound.least:
                raise argparse.ArgumentTypeError(f"must be at least {bound.least:g}, not {text}")
        return value
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{excerpt(text)!r} is not YAML ({excerpt(str(error))})") from None
    if get_origin(plain) is not tuple:
        return value
    values = value if isinstance(value, list) else text.split(",") if text else []
    return tuple(_read(get_args(plain)[0], str(each)) for each in values)


def _file(path: Path) -> dict[str, Any]:
    """Return the entries of a YAML file."""
    entries = read_yaml(path, f"--config: {path}") or {}
    if not isinstance(entries, dict):
        raise ValueError(
            f"--config: {path} must hold options as 'name: value', not {excerpt(repr(entries))}."
        )
    odd = [key for key in entries if not isinstance(key, str)]
    if odd:
        raise ValueError(
            f"--config: {path} has the key {odd[0]!r:.60}, which YAML reads as no text; quote it."
        )
    return {key.replace("-", "_"): value for key, value in entries.items()}


def _spelt(value: Any) -> str:
    """Return a value as a word: lists of numbers with commas, everything else but text as YAML."""
    if isinstance(value, list | tuple) and not any(isinstance(each, list | dict) for each in value):
        return ",".join(map(str, value))
    dumped = isinstance(value, list | dict)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip() if dumped else str(value)


def _plain(kind: Any) -> Any:
    """Return the type without ``None`` and bounds; literals are text."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        others = [part for part in get_args(kind) if part is not type(None)]
        return _plain(others[0]) if len(others) == 1 else Path if Path in others else kind
    return str if get_origin(kind) in (Literal, list) else kind


def _bounds(kind: Any) -> tuple[Any, ...]:
    """Return the bounds of a type, or of what else than ``None`` it may be."""
    if get_origin(kind) is Annotated:
        return tuple(kind.__metadata__)
    return tuple(bound for part in get_args(kind) for bound in _bounds(part))


def _metavar(plain: Any) -> str:
    return {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}.get(plain, "YAML")


def summary(text: str) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _text(documented: Any) -> str:
    """Return a docstring up to its sections."""
    return _plainly(re.split(r"\n(?:Args|Raises|Returns):\n", inspect.getdoc(documented) or "")[0].strip())


def _documented(documented: Any) -> dict[str, str]:
    """Return the entries under "Args:" of parameters or fields, also of base classes."""
    found: dict[str, str] = {}
    for each in reversed(documented.__mro__) if isinstance(documented, type) else [documented]:
        _, _, rest = inspect.cleandoc(each.__doc__ or "").partition("\nArgs:\n")
        for entry in re.split(r"\n(?=    \w+: )", "\n" + re.split(r"\n(?=\S)", rest)[0]):
            name, _, text = entry.strip().partition(": ")
            text = " ".join(text.split())
            found[name] = _plainly(text[:1].upper() + text[1:])
    return found


def _plainly(text: str) -> str:
    """Return text without reStructuredText markup."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return re.sub(r"``?\"?(.*?)\"?``?", r"\1", text)
