"""Options of a verb, from the signature and the docstring of its function.

Parameters before ``*`` are arguments, the others options. Their help is what "Args:" in the docstring says of
them, or :data:`COMMON` where it is silent. A parameter of a dataclass, such as
:class:`fewstep.flows.Settings`, stands for an option a field, with the help of the dataclass's own docstring:
API and command line have one list. Every verb takes ``--config``, a YAML file of the same names.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

import yaml

__all__ = ["COMMON", "AtLeast", "Positive", "call", "helped", "summary"]

#: Help of the options that most verbs have.
COMMON = {
    "seed": "Seed of the noises.",
    "device": "Torch device, such as cpu, cuda or mps.",
    "as_json": "Print the result as JSON on standard output.",
    "config": "YAML file with options; flags override it.",
    "conditions": "Conditions that all samples share, by name: a file .npz, .safetensors or .yaml.",
    "per_sample": "Conditions with a row a sample, or one for all: a file .npz, .safetensors or .yaml.",
}


class AtLeast(NamedTuple):
    """A bound of a number, in ``Annotated[int, AtLeast(1)]``."""

    least: float


Positive: TypeAlias = Annotated[int, AtLeast(1)]

_WORDS = {int: "a whole number", float: "a number", str: "text", Path: "a path", bool: "true or false"}


def helped(**words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add help that is put together from lists, such as those of names, to what the docstring says."""

    def with_help(command: Callable[..., None]) -> Callable[..., None]:
        vars(command)["words"] = words
        return command

    return with_help


@dataclass(frozen=True)
class _Option:
    """An argument or an option: a parameter of the function, or a field of a parameter."""

    name: str
    kind: Any
    default: Any
    help: str
    positional: bool = False
    owner: str = ""

    @property
    def flag(self) -> str:
        name = self.name.removeprefix("as_")
        return name.upper() if self.positional else f"--{name.replace('_', '-')}"

    @property
    def key(self) -> str:
        """The name in a file."""
        return self.name.removeprefix("as_")

    @property
    def many(self) -> bool:
        return get_origin(self.kind) is list

    def add_to(self, group: Any) -> None:
        """Let argparse take the words; they are read when it is known which there are."""
        shown = "" if self.default in (None, MISSING, False, ()) else f" [{_spelt(self.default)}]"
        facts: dict[str, Any] = {"help": (self.help + shown).replace("%", "%%")}
        kind = _plain(self.kind)
        if kind is bool:
            facts |= {"dest": self.name, "action": "store_true"}
        elif self.positional:
            facts |= {"metavar": self.flag, "nargs": "*" if self.many else "?"}
        else:
            facts |= {"dest": self.name, "metavar": kind.__name__.upper() if kind in _WORDS else "YAML"}
        group.add_argument(self.name if self.positional else self.flag, default=argparse.SUPPRESS, **facts)

    def read(self, value: Any) -> Any:
        """A word, or an entry of a file, as the type of the option."""
        if value is None or self.many:
            return value
        kind = _plain(self.kind)
        if kind in _WORDS:
            return self._one(kind, value)
        value = self._yaml(value) if isinstance(value, str) else value
        if get_origin(kind) is not tuple:
            return value
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(self._one(get_args(kind)[0], each) for each in values)

    def _one(self, kind: Any, value: Any) -> Any:
        if kind is str and isinstance(value, list):
            value = ",".join(map(str, value))  # as flags have lists
        wrong = isinstance(value, Mapping | list) or isinstance(value, bool) != (kind is bool)
        try:
            if wrong or (kind is int and isinstance(value, float) and value != int(value)):
                raise ValueError
            read = kind(value)
        except (ValueError, OverflowError):
            raise ValueError(f"{self.flag}: must be {_WORDS[kind]}, not {value!r}.") from None
        for bound in getattr(self.kind, "__metadata__", ()):
            if isinstance(bound, AtLeast) and read < bound.least:
                raise ValueError(f"{self.flag}: must be at least {bound.least:g}, not {value}.")
        return read

    def _yaml(self, text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"{self.flag}: {text!r} is not YAML.") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(f"{message}; see {self.prog} --help.")


def call(command: Callable[..., None], program: str, words: Sequence[str]) -> None:
    """Call the function of a verb with what the words and the file of ``--config`` say.

    Raises:
        ValueError: in a sentence, when a word or an entry is unknown, missing or wrong.
    """
    options, settings = _options(command)
    parser = _Parser(
        program,
        usage="%(prog)s [OPTIONS]" + "".join(f" {o.flag}" for o in options if o.positional),
        description=_text(command),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = {
        name: parser.add_argument_group(summary(kind.__doc__ or "").rstrip("."))
        for name, kind in settings.items()
    }
    for option in options:
        option.add_to(groups.get(option.owner, parser))
    if not words and any(option.default is MISSING for option in options):
        parser.print_help()
        raise SystemExit(2)
    given, others = parser.parse_known_intermixed_args(words)
    known = {option.name: option for option in options}
    if others:
        flags = [option.flag for option in options if not option.positional]
        guess = difflib.get_close_matches(others[0].partition("=")[0], flags, 1)
        hint = f"did you mean {guess[0]}?" if guess else f"see {program} --help."
        raise ValueError(f"{program}: does not take {others[0]!r}; {hint}")
    found = {name: value for name, value in vars(given).items() if value != []}  # no words for a list
    if found.get("config"):
        found = _file(Path(found["config"]), options) | found
    read = {name: known[name].read(value) for name, value in found.items()}
    read = {name: value for name, value in read.items() if value is not None}
    missing = [o.flag for o in options if o.default is MISSING and o.name not in read]
    if missing:
        raise ValueError(f"{', '.join(missing)}: must be given; see {program} --help.")
    arguments = {o.name: read[o.name] for o in options if not o.owner and o.name in read}
    for name, kind in settings.items():
        entries = {o.name: read[o.name] for o in options if o.owner == name and o.name in read}
        start = inspect.signature(command).parameters[name].default
        base = {} if start is inspect.Parameter.empty else {k: getattr(start, k) for k in _fields(kind)}
        make = getattr(kind, "parse", None)
        arguments[name] = make(base | entries) if make else kind(**(base | entries))
    if "config" not in inspect.signature(command).parameters:
        arguments.pop("config", None)
    command(**arguments)


def summary(text: str) -> str:
    """The first sentence of a docstring."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _options(command: Callable[..., None]) -> tuple[list[_Option], dict[str, type]]:
    """The options of a function, and its parameters that are dataclasses."""
    hints = get_type_hints(command, include_extras=True)
    helps = COMMON | vars(command).get("words", {}) | _documented(command)
    options: list[_Option] = []
    settings: dict[str, type] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        start = MISSING if parameter.default is parameter.empty else parameter.default
        if not dataclasses.is_dataclass(hints[name]):
            positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            options.append(_Option(name, hints[name], start, helps.get(name, ""), positional))
            continue
        settings[name] = kind = hints[name]
        kinds, texts = get_type_hints(kind, include_extras=True), helps | _documented(kind)
        for field in dataclasses.fields(kind):
            made = field.default if field.default_factory is MISSING else field.default_factory()
            default = made if start is MISSING else getattr(start, field.name)
            known = field.metadata.get("choices")
            text = texts.get(field.name, "") + (f" One of {', '.join(known)}." if known else "")
            options.append(_Option(field.name, kinds[field.name], default, text, owner=name))
    if "config" not in hints:
        options.append(_Option("config", Path, None, COMMON["config"]))
    return options, settings


def _file(path: Path, options: Sequence[_Option]) -> dict[str, Any]:
    """The entries of a YAML file, by the names of the options."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config: {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"--config: {path} must hold options as 'name: value', not {entries!r}.")
    known = {option.key: option.name for option in options}
    spelt = {str(key).replace("-", "_"): value for key, value in entries.items()}
    unknown = [key for key in spelt if key not in known]
    if unknown:
        guesses = [difflib.get_close_matches(key, known, 1) for key in unknown]
        hints = [
            key + (f" (did you mean {guess[0]}?)" if guess else "")
            for key, guess in zip(unknown, guesses, strict=True)
        ]
        raise ValueError(
            f"--config: {path} has unknown keys {', '.join(hints)}; known are {', '.join(sorted(known))}."
        )
    return {known[key]: value for key, value in spelt.items()}


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _plain(kind: Any) -> Any:
    """The type without what may be left out and what bounds it; words of a list are text."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        others = [part for part in get_args(kind) if part is not type(None)]
        return _plain(others[0]) if len(others) == 1 else Path if Path in others else kind
    return str if get_origin(kind) in (Literal, list) else kind


def _spelt(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _text(documented: Any) -> str:
    """A docstring up to its sections."""
    return _plainly(re.split(r"\n(?:Args|Raises|Returns):\n", inspect.getdoc(documented) or "")[0].strip())


def _documented(documented: Any) -> dict[str, str]:
    """What "Args:" says of each parameter, or field, those of base classes too."""
    found: dict[str, str] = {}
    for each in reversed(documented.__mro__) if isinstance(documented, type) else [documented]:
        _, args, rest = inspect.cleandoc(each.__doc__ or "").partition("\nArgs:\n")
        block = re.split(r"\n(?=\S)", rest)[0] if args else ""
        for entry in re.split(r"\n(?=    \w+: )", "\n" + block):
            name, _, text = entry.strip().partition(": ")
            text = " ".join(text.split())
            found[name] = _plainly(text[:1].upper() + text[1:])
    return found


def _plainly(text: str) -> str:
    """Text without the marks of reStructuredText."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return re.sub(r"``?\"?(.*?)\"?``?", r"\1", text)
