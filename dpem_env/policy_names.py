"""How policies are written: LABEL=central:KIND:ARGUMENT+FORECASTER, and patterns of files.

In place of KIND:ARGUMENT there may be one's own: PATH.py:NAME, package.module:NAME, MODEL.zip, or the path of a
training. What has a dot or a slash before its first colon is one's own.

A file may have any of these signs in its name. Therefore a path that exists is taken as it is written, before any sign
is given a meaning.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, replace

from dpem_env.demand.forecast import available
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import matching
from dpem_env.support.own_code import Place, is_own
from dpem_env.support.plugins import PluginName

CENTRAL = "central:"
OWN = "/"  # the kind of one's own, which is none that is announced
MODELS = {".zip": "sb3"}  # what plays a file, by how its name ends
TRAINED = "trained"  # what plays all other files and folders
LABEL = re.compile(r"\w[\w .,@()-]{0,59}")
SYNTAX = "one's own is written FILE.py:NAME, package.module:NAME, MODEL.zip, or as the path of a training, ./DIR"


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
                if is_there(reading.path):
                    return reading
        # At the first +, unless what follows another one is a forecaster.
        others = [each for each in readings if each.forecaster and _may_forecast(each.forecaster)]
        return (others or readings)[-1]

    @classmethod
    def alone(cls, text: str) -> PolicyName:
        """From what names no forecaster: whatever follows the colon is the argument."""
        rest, central = text.removeprefix(CENTRAL), text.startswith(CENTRAL)
        name = PluginName.parse(rest)
        if is_own(rest):
            return cls(OWN, rest, central)
        return cls(name.kind, name.argument, central)

    def __str__(self) -> str:
        forecaster = "" if self.forecaster is None else f"+{self.forecaster}"
        written = self.argument if self.kind == OWN else super().__str__()
        return f"{CENTRAL if self.central else ''}{written}{forecaster}"

    @property
    def place(self) -> Place | None:
        """Where one's own code stands; None for what is no code of one's own."""
        return Place.parse(self.argument or "") if self.kind == OWN else None

    @property
    def path(self) -> str:
        """The argument as a path; of one's own code the file."""
        return self.place.module if self.place else self.argument or ""

    @property
    def plugin(self) -> PluginName:
        """What a package announces that plays this, and its argument."""
        if self.kind != OWN:
            return PluginName(self.kind, self.argument)
        return PluginName(MODELS.get(os.path.splitext(self.path)[1], TRAINED), self.argument)

    @property
    def policy(self) -> PolicyName:
        """The same without the forecaster."""
        return replace(self, forecaster=None)

    def members(self) -> list[PolicyName]:
        """This, or one for every file that the pattern in the argument matches; PolicyError if there is none."""
        pattern = self.argument or ""
        if self.place or glob.escape(pattern) == pattern:
            return [self]
        paths = matching(pattern)
        if not paths:
            raise PolicyError(f"no file matches {pattern!r} of policy {str(self.policy)!r}")
        return [replace(self, argument=path) for path in paths]


def labelled(text: str) -> tuple[str | None, str]:
    """The label of a policy, None if it has none, and what plays; PolicyError for a label that cannot be one.

    A label comes before the first equals sign, unless that is a part of a path or of a forecaster.
    """
    label, equals, what = text.partition("=")
    whole = PolicyName.parse(text)
    is_path = any(sign in label for sign in "/\\:+") or (whole.kind == OWN and os.path.exists(whole.path))
    if not equals or is_path:
        return None, text
    return require_label(label), what


def require_label(label: object) -> str:
    """PolicyError unless it may name rows, results and files."""
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        raise PolicyError(f"label {label!r} of a policy: expected up to 60 letters, digits, spaces and any of .,@()-_")
    return label


def _may_forecast(text: str) -> bool:
    if not is_own(text):
        return PluginName.parse(text).kind in ("none", *available())
    place = Place.parse(text)
    return os.path.exists(place.module if place else text) or (place is not None and not place.is_file)


def _readings(text: str) -> list[PolicyName]:
    """Every way to tell a policy from its forecaster, the longest policy first; the kind of a policy has no plus."""
    places = [place for place, sign in enumerate(text) if sign == "+"]
    split = (replace(PolicyName.alone(text[:at]), forecaster=text[at + 1 :]) for at in reversed(places))
    return [reading for reading in (PolicyName.alone(text), *split) if "+" not in reading.kind]
