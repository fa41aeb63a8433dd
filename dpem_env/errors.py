"""Errors a user can mend: each message names what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LONGEST = 600  # characters of a message


class DpemError(ValueError):
    """Base of every error this package raises on purpose; its message is one line, whatever it quotes."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 200]} … {line[-197:]}")


class DpemWarning(UserWarning):
    """Something is done in another way than it was asked for; the command says it in one line on standard error."""


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


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped `name`: the closest of `known`, or the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def require_one_of(field: str, given: object, allowed: Sequence[object]) -> None:
    """Raise ScenarioError unless `given` is one of the allowed names (or None, where that is one)."""
    if not isinstance(given, str | None) or given not in allowed:
        raise ScenarioError(f"{field} is {given!r}; expected one of {', '.join(map(repr, allowed))}")
