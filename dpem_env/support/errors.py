"""Errors a user can mend: each message names what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST = 600  # characters of a message


def one_line(message: str) -> str:
    """The message in one line of a length that can be read; spaces within a line stay, as in a path."""
    line = " ".join(part for part in map(str.strip, message.splitlines()) if part)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 200]} … {line[-197:]}"


class DpemError(ValueError):
    """Base of every error this package raises on purpose; its message is one line, whatever it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ScenarioError(DpemError):
    """A scenario is unknown, malformed or describes an impossible network."""


class DataError(DpemError):
    """A trace, request file or topology file is missing or malformed."""


class ActionError(DpemError):
    """Actions have the wrong type or shape, name an agent that does not exist, or come while no episode runs."""


class PolicyError(DpemError):
    """A policy is unknown or cannot be used the way it was asked for."""


class LogError(DpemError):
    """An episode log is missing, malformed or was altered."""


class ContractError(DpemError):
    """An environment breaks a promise of `EntanglementEnv`; the message begins with the point."""


class DpemWarning(UserWarning):
    """Less is played than was asked for, or something else; the message is one line."""

    def __init__(self, about: str, message: str) -> None:
        super().__init__(about, message)
        self.about = about  # a scenario

    def __str__(self) -> str:
        return " ".join(": ".join(self.args).split())


@contextmanager
def warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell every DpemWarning in its own line, one about each scenario: its first network speaks for all."""
    told: set[str] = set()
    usual = warnings.showwarning

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        if not isinstance(message, DpemWarning):
            usual(message, *place, **more)
        elif message.about not in told:
            told.add(message.about)
            tell(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", DpemWarning)
        warnings.showwarning = show
        yield


def nearest(name: str, known: Iterable[str], limit: int = 50) -> str:
    """A hint for a mistyped `name`: the closest of `known`, or the whole list, unless it is longer than `limit`."""
    names = sorted(known)
    close = difflib.get_close_matches(name[:LONGEST], names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if len(names) <= limit else f"known: {names[0]!r} and {len(names) - 1} others"


def shown(value: object) -> str:
    """`value` as a message quotes it."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, a list nested too deeply
        return f"a {type(value).__name__} too long to show"


# What is expected, by the kinds of pydantic's errors; its own words are for programmers.
EXPECTED = {
    "missing": "is missing",
    "extra_forbidden": "unknown key; remove it or check its spelling",
    "string_type": "expected text in quotes",
    "string_unicode": "expected text that can be written as UTF-8",
    "string_too_short": "expected at least {min_length} character",
    "string_too_long": "expected at most {max_length} characters",
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt:g}",
    "greater_than_equal": "expected at least {ge:g}",
    "less_than": "expected less than {lt:g}",
    "less_than_equal": "expected at most {le:g}",
    "literal_error": "expected {expected}",
    "list_type": "expected a list",
    "tuple_type": "expected a list, such as [0.7, 0.8]",
    "too_short": "expected at least {min_length} entries",
    "too_long": "expected at most {max_length} entries",
    "path_type": "expected a folder",
    "dict_type": "expected a section with fields",
    "model_type": "expected a section with fields",
    "model_attributes_type": "expected a section with fields",
    "union_tag_not_found": "says no {discriminator}; expected one of {known}",
    "union_tag_invalid": "unknown {discriminator} {tag!r}; expected one of {known}",
    "value_error": "{error}",
}


NO_TAGS: Mapping[str, Iterable[str]] = MappingProxyType({})


def first_mistake(error: ValidationError, tags: Mapping[str, Iterable[str]] = NO_TAGS, name: str = "") -> str:
    """The first place in data called `name` that is not as declared, what is expected there and what was given.

    `tags` are the kinds that a section of a name may be of.
    """
    from pydantic import BaseModel  # here, as ``dpem --help`` loads no validation

    first, *others = error.errors(include_url=False)
    place = [*([name] if name else []), *map(str, first["loc"])]
    section = place[0] if place else ""
    if section in tags:
        del place[1:2]  # the kind, which pydantic adds and the file has not
        place = [part for part in place if part not in ("number", "list")]  # the same of what may be either
    field = ".".join(place)
    known = ", ".join(map(repr, tags.get(section, ())))
    words, given = EXPECTED.get(first["type"]), first["input"]
    expected = first["msg"] if words is None else words.format(**first.get("ctx", {}), known=known)
    told = first["type"] not in ("missing", "extra_forbidden") and not isinstance(given, dict | BaseModel)
    more = f"; and {len(others)} more" if others else ""
    return f"{field + ': ' if field else ''}{expected}{f' (given {shown(given)})' if told else ''}{more}"


def require_one_of(field: str, given: object, allowed: Sequence[object]) -> None:
    """Raise ScenarioError unless `given` is one of the allowed names (or None, where that is one)."""
    if not isinstance(given, str | None) or given not in allowed:
        raise ScenarioError(f"{field} is {given!r}; expected one of {', '.join(map(repr, allowed))}")
