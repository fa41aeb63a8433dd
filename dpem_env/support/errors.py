"""Errors a user can mend: each message names what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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


def require_one_of(field: str, given: object, allowed: Sequence[object]) -> None:
    """Raise ScenarioError unless `given` is one of the allowed names (or None, where that is one)."""
    if not isinstance(given, str | None) or given not in allowed:
        raise ScenarioError(f"{field} is {given!r}; expected one of {', '.join(map(repr, allowed))}")
