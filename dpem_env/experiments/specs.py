"""How contestants are written: NAME:ARGUMENT, NAME+FORECASTER, patterns of files, and lists of these with commas.

A file may have any of these signs in its name. Therefore a path that exists is taken as it is written, before any sign
is given a meaning.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from dpem_env.demand.forecast import available
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import matching

CENTRAL = "central:"


def listed(text: str) -> list[str]:
    """The members of a list with commas, each once; a comma in a path that exists separates nothing."""
    parts, members = text.split(","), []
    while parts:
        size = next((n for n in range(len(parts), 1, -1) if _is_one(",".join(parts[:n]))), 1)
        members.append(",".join(parts[:size]))
        del parts[:size]
    return list(dict.fromkeys(members))


def policy_and_forecaster(text: str) -> tuple[str, str | None]:
    """The parts of NAME+FORECASTER; None where no forecaster is named."""
    for is_there in (os.path.exists, matching):
        for policy, forecaster in _readings(text):
            if is_there(argument(policy)):
                return policy, forecaster
    *_, (policy, forecaster) = _readings(text)  # at the first +, unless what follows another one is a forecaster
    known = ("none", *available())
    others = [reading for reading in _readings(text) if reading[1] and reading[1].partition(":")[0] in known]
    return others[-1] if others else (policy, forecaster)


def argument(name: str) -> str:
    """What follows the colon in the name of a policy or forecaster."""
    return name.removeprefix(CENTRAL).partition(":")[2]


def members(policy: str) -> list[str]:
    """The policy, or one for every file that the pattern in its argument matches; PolicyError if there is none."""
    pattern = argument(policy)
    if glob.escape(pattern) == pattern:
        return [policy]
    paths = matching(pattern)
    if not paths:
        raise PolicyError(f"no file matches {pattern!r} of policy {policy!r}")
    return [policy.removesuffix(pattern) + path for path in paths]


def _readings(text: str) -> Iterator[tuple[str, str | None]]:
    """Every way to tell a policy from its forecaster, the longest policy first; the name of a policy has no plus."""
    places = [place for place, sign in enumerate(text) if sign == "+"]
    readings = [(text, None), *((text[:place], text[place + 1 :]) for place in reversed(places))]
    yield from (reading for reading in readings if "+" not in _kind(reading[0]))


def _is_one(text: str) -> bool:
    """Whether all commas are in paths that exist."""
    return any(all("," not in part or _names_files(part) for part in reading if part) for reading in _readings(text))


def _names_files(name: str) -> bool:
    return "," not in _kind(name) and bool(matching(argument(name)))


def _kind(name: str) -> str:
    return name.removeprefix(CENTRAL).partition(":")[0]
