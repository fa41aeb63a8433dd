"""The grammar of the command line: options that several commands have, and how what is typed becomes a value.

A command is a function: its keyword arguments are options, its docstring is the help, its result the exit code. An
option that may be given several times is a tuple and has a singular name. Light to import, as ``dpem --help`` does.
"""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_origin, get_type_hints

from cyclopts import App, CoercionError, Parameter, Token

from dpem_env.support.errors import DpemError

REPEATED = "; may be given several times"


def commands(name: str, about: str, functions: Mapping[str, Callable[..., int | None] | App], **options: Any) -> App:
    """A command that has these functions as its commands, by name."""
    usual = Parameter(negative=(), show_default=lambda value: None if value == () else value)
    app = App(name=name, help=_flowing(about), help_format="plaintext", default_parameter=usual, **options)
    for each, function in functions.items():
        if isinstance(function, App):
            app.command(function, name=each)
        else:
            app.command(function, name=each, help=_flowing(inspect.getdoc(function) or ""), help_epilogue="")
    return app


def _flowing(text: str) -> str:
    """Its paragraphs as one line each, for a terminal to wrap; examples, which are indented, as they are."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else each.replace("\n", " ") for each in paragraphs)


def _read(expected: str, read: Callable[[str], Any], metavar: str) -> Parameter:
    """How texts become values, one or a tuple; where that raises a ValueError, `expected` is what is told."""

    def convert(hint: Any, tokens: Sequence[Token]) -> Any:
        values = []
        for token in tokens:
            try:
                values.append(read(token.value))
            except (ValueError, ArithmeticError):
                raise CoercionError(msg=f"expected {expected}", token=token) from None
        return tuple(values) if get_origin(hint) is tuple else values[-1]

    return Parameter(converter=convert, metavar=metavar)


def whole(least: int = 1, most: int = 1_000_000, metavar: str = "N") -> Parameter:
    """An int, which may be written as 1e6 or 2_000_000."""

    def read(text: str) -> int:
        number = Decimal(text)  # exact, where a float is not
        if not least <= number <= most or number != number.to_integral_value():
            raise ValueError
        return int(number)

    return _read(f"a whole number from {least:,} to {most:,}", read, metavar)


def real(
    expected: str = "a number", fits: Callable[[float], bool] = lambda number: True, metavar: str = "X"
) -> Parameter:
    """A float that is finite and fits."""

    def read(text: str) -> float:
        number = float(text)
        if not (math.isfinite(number) and fits(number)):
            raise ValueError
        return number

    return _read(expected, read, metavar)


def _path(text: str) -> Path:
    if not text:  # of a variable that a shell does not know
        raise ValueError
    return Path(text)


def told(text: str, **more: Any) -> Parameter:
    """What an option is for."""
    return Parameter(help=text, **more)


POSITIVE = real("a number above 0", lambda number: number > 0)
SECONDS = real("seconds >= 0", lambda number: number >= 0, "S")
LARGEST_SEED = 2**63 - 1  # as `dpem_env.support.seeding` has it, without loading numpy
A_PATH = _read("a path", _path, "PATH")

A_SEED = whole(0, LARGEST_SEED, "SEED")
STEPS = whole(most=10**15)

Count = Annotated[int, whole()]
Steps = Annotated[int, STEPS]
Seed = Annotated[int, A_SEED]
Delay = Annotated[float, SECONDS]
Patience = Annotated[float, real("seconds above 0", lambda number: number > 0, "S")]

Scenario = Annotated[str, told("name (see dpem list), or path of a .toml file", metavar="NAME")]
Changes = Annotated[
    tuple[str, ...],
    told(f"override a scenario field; none: no value{REPEATED} (default: none)", name="--set", metavar="FIELD=VALUE"),
]
Policies = Annotated[
    tuple[str, ...],
    told(
        f"what plays: a name, FILE.py:NAME, MODEL.zip, a training; LABEL= before it{REPEATED}", metavar="[LABEL=]WHAT"
    ),
]
Trusted = Annotated[
    tuple[str, ...], told(f"open this file though that may run code{REPEATED} (default: none)", metavar="MODEL.zip")
]
Delays = Annotated[
    tuple[float, ...],
    SECONDS,
    told(f"control delay of central policies in s, played as the nearest whole slots{REPEATED} (default: 0)"),
]
Split = Annotated[
    Literal["train", "validation", "evaluation"], told("frozen seed lists to take the episodes from", metavar="SPLIT")
]
Forecasters = Annotated[
    tuple[str, ...],
    told(f"fills the forecasts of every policy: a name, or FILE.py:NAME{REPEATED} (default: its own)", metavar="NAME"),
]
ON_ONE = "play on the network of this seed (default: on those of --split)"
Network = Annotated[Seed | None, told(ON_ONE)]
Networks = Annotated[tuple[int, ...], A_SEED, told(ON_ONE + REPEATED)]
Workers = Annotated[Count, told("processes")]
Folder = Annotated[Path, A_PATH, Parameter(metavar="DIR")]
File = Annotated[Path, A_PATH, Parameter(metavar="FILE")]
Data = Annotated[Folder | None, told("folder of data that is not shipped (default: $DPEM_DATA)")]
Tunings = Annotated[
    Folder | None,
    told(
        "play policies with the options that dpem tune found there; shipped: those that come with the package"
        " (default: their own)"
    ),
]
Out = Annotated[Folder, told("folder for results; made if missing")]


def typed(kind: type, presets: Mapping[str, Any], title: str) -> Any:
    """The fields of a dataclass as options, of which a command gets by name those that were typed.

    What a field is for is told in its annotation: ``discount: Annotated[float, "of a slot"] = 0.95``. `presets` are
    the defaults, by what they are the defaults of; the `title` is that of these options in the help.
    """
    read = {int: whole(0, 10**15), int | None: whole(0, 10**15), float: real(), float | None: real()}
    options, hints = {}, get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        text = f"{hint.__metadata__[0]} (default: {_defaults(field.name, presets)})"
        how = [read[hint.__origin__]] if hint.__origin__ in read else []
        options[field.name] = Annotated[(hint.__origin__, *how, told(text, show_default=False, group=title))]
    return TypedDict(kind.__name__, options, total=False)  # type: ignore[operator]


def _defaults(field: str, presets: Mapping[str, Any]) -> str:
    known: dict[str, list[str]] = {}
    for name, preset in presets.items():
        value = getattr(preset, field)
        known.setdefault("none" if value in (None, ()) else str(value), []).append(name)
    return (
        next(iter(known)) if len(known) == 1 else ", ".join(f"{' and '.join(of)} {each}" for each, of in known.items())
    )


def overrides(changes: Sequence[str]) -> dict[str, Any]:
    """Fields by name, from NAME=VALUE texts; values are read as TOML, `none` as no value, others as text."""
    found: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise DpemError(f"--set {change!r}: expected NAME=VALUE, e.g. --set request_rate=16.0")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):  # no TOML value: a text
            found[name.strip()] = None if value.strip() == "none" else value
    return found
