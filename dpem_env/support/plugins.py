"""Plug-ins: what installed packages announce by name, made from what a user has written after the name.

This package imports none of them: they are found through entry points (packaging.python.org).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Any

from dpem_env.support.errors import PolicyError, nearest

# Groups of entry points.
SCENARIOS = "dpem_env.scenarios"  # of functions without arguments that return a scenario, or of scenarios
POLICIES = "dpem_env.policies"
FORECASTERS = "dpem_env.forecasters"
BOUNDS = "dpem_env.bounds"
COMMANDS = "dpem_env.commands"  # of `dpem`: functions as `support.options` describes them, light to import

NUMBERS = re.compile(r"(int|float|bool|None)( \| (int|float|bool|None))*")
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class PluginName:
    """KIND:ARGUMENT, as a user writes what to make and from what; `str` writes it again."""

    kind: str  # as a package announces it
    argument: str | None = None  # such as a file

    @classmethod
    def parse(cls, text: str) -> PluginName:
        """From what a user has written: whatever follows the first colon is the argument."""
        kind, colon, argument = text.partition(":")
        return PluginName(kind, argument if colon else None)

    def __str__(self) -> str:
        return self.kind if self.argument is None else f"{self.kind}:{self.argument}"


def announced(group: str) -> dict[str, EntryPoint]:
    """What installed packages announce in a group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def unknown(kind: str, name: str, known: Iterable[str]) -> PolicyError:
    """What to say about a name that leads nowhere."""
    if "," in name:
        return PolicyError(f"unknown {kind} {name!r}; a list with commas is not taken here: name each by itself")
    return PolicyError(f"unknown {kind} {name!r}; {nearest(name, known)}")


def loaded(kind: str, name: str, load: Callable[[], Any]) -> Any:
    """What `load()` gives; PolicyError, in a user's terms, if that fails."""
    try:
        return load()
    except (ImportError, AttributeError) as error:
        raise PolicyError(f"{kind} {name!r} needs a package that is not installed: {error}") from None


def made(
    kind: str, name: PluginName, load: Callable[[], Callable[..., Any]], options: Mapping[str, Any] = NO_OPTIONS
) -> Any:
    """What `load()` gives, called with the argument if there is one; PolicyError, in a user's terms, if that fails."""
    what = f"{kind} {name.kind!r}"
    given = [] if name.argument is None else [name.argument]
    factory = loaded(kind, name.kind, load)
    require_fit(what, factory, given, options, f"needs an argument: {name.kind}:ARGUMENT, such as a file")
    try:
        return factory(*given, **options)
    except ImportError as error:
        raise PolicyError(f"{what} needs a package that is not installed: {error}") from None
    except TypeError as error:
        raise PolicyError(f"{what} does not take these options: {error}") from None


def require_fit(
    what: str, factory: Callable[..., Any], given: list[str], options: Mapping[str, Any], needs: str
) -> None:
    """PolicyError if the factory takes no argument, needs one (which `needs` says), or knows no such option."""
    try:
        parameters = signature(factory).parameters.values()
    except (TypeError, ValueError):  # Python cannot tell, as for some built-in types
        return
    named = [each for each in parameters if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    ordered = [each for each in parameters if each.kind not in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)]
    if given and not (ordered and _takes_text(ordered[0])):
        raise PolicyError(f"{what} takes no argument, given {given[0]!r}")
    needed = [each for each in ordered if each.default is Parameter.empty and each.kind != Parameter.VAR_POSITIONAL]
    if not given and any(each.name not in options for each in needed):
        raise PolicyError(f"{what} {needs}")
    names = [each.name for each in named]
    if any(each.kind == Parameter.VAR_KEYWORD for each in parameters):
        return
    for option in options:
        if option not in names:
            hint = nearest(option, names) if names else "it has none"
            raise PolicyError(f"{what} does not take these options: there is no {option!r}; {hint}")


def _takes_text(parameter: Parameter) -> bool:
    return not NUMBERS.fullmatch(str(parameter.annotation))
