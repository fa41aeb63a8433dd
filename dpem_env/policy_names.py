"""How policies are written: central:KIND:ARGUMENT+FORECASTER, and patterns of files.

A file may have any of these signs in its name. Therefore a path that exists is taken as it is written, before any sign
is given a meaning.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, replace

from dpem_env.demand.forecast import available
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import matching
from dpem_env.support.plugins import PluginName

CENTRAL = "central:"


@dataclass(frozen=True)
class PolicyName(PluginName):
    """A policy as it is written, of which only the kind is needed; the argument may be a pattern for several files."""

    central: bool = False  # whether a local rule is put under central control
    forecaster: str | None = None  # with an argument, perhaps; None: the policy's own

    @classmethod
    def parse(cls, text: str) -> PolicyName:
        """From what a user has written; a plus that is in no path begins the forecaster."""
        readings = _readings(text)
        for is_there in (os.path.exists, matching):
            for reading in readings:
                if is_there(reading.argument or ""):
                    return reading
        known = ("none", *available())  # at the first +, unless what follows another one is a forecaster
        others = [each for each in readings if each.forecaster and PluginName.parse(each.forecaster).kind in known]
        return (others or readings)[-1]

    @classmethod
    def alone(cls, text: str) -> PolicyName:
        """From what names no forecaster: whatever follows the colon is the argument."""
        name = PluginName.parse(text.removeprefix(CENTRAL))
        return cls(name.kind, name.argument, text.startswith(CENTRAL))

    def __str__(self) -> str:
        forecaster = "" if self.forecaster is None else f"+{self.forecaster}"
        return f"{CENTRAL if self.central else ''}{super().__str__()}{forecaster}"

    @property
    def policy(self) -> PolicyName:
        """The same without the forecaster."""
        return replace(self, forecaster=None)

    def members(self) -> list[PolicyName]:
        """This, or one for every file that the pattern in the argument matches; PolicyError if there is none."""
        pattern = self.argument or ""
        if glob.escape(pattern) == pattern:
            return [self]
        paths = matching(pattern)
        if not paths:
            raise PolicyError(f"no file matches {pattern!r} of policy {str(self.policy)!r}")
        return [replace(self, argument=path) for path in paths]


def _readings(text: str) -> list[PolicyName]:
    """Every way to tell a policy from its forecaster, the longest policy first; the kind of a policy has no plus."""
    places = [place for place, sign in enumerate(text) if sign == "+"]
    split = (replace(PolicyName.alone(text[:at]), forecaster=text[at + 1 :]) for at in reversed(places))
    return [reading for reading in (PolicyName.alone(text), *split) if "+" not in reading.kind]
