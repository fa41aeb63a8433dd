"""A scenario as TOML that says of every field what it is: what ``dpem show`` prints. It reads back unchanged.

What its files say is left to them: who edits these need not edit the scenario.
"""

from __future__ import annotations

from typing import Any, get_args

import tomli_w
from pydantic import BaseModel

from dpem_env.scenarios.schema import OPTIONAL, Scenario, Section

KINDS = ("generator", "kind")  # what come first, as others depend on them


def documented_toml(scenario: Scenario) -> str:
    """Every field in a line, with unit and meaning as a comment; what is not set stands there as a comment."""
    return "\n".join(_lines(scenario, ())) + "\n"


def _lines(section: Section, path: tuple[str, ...], prefix: str = "") -> list[str]:
    """The section's own fields, and then the sections in it."""
    values = section.model_dump(mode="json")
    values = {name: values[name] for name in sorted(values, key=lambda name: name not in KINDS)}
    lines = [_line(section, name, values[name], prefix) for name in values if not _is_section(section, name)]
    for name in values:
        if _is_section(section, name):
            inside = getattr(section, name)
            off = "" if inside is not None else "# "
            inside = OPTIONAL[name] if inside is None else inside
            lines += [*_head(inside, (*path, name), off), *_lines(inside, (*path, name), off)]
    return lines


def _is_section(section: Section, name: str) -> bool:
    return isinstance(getattr(section, name), BaseModel) or name in OPTIONAL


def _head(section: Section, path: tuple[str, ...], prefix: str) -> list[str]:
    """What a section is, unless it lies in another, and its title, unless it is nothing but sections."""
    about = ["", f"# {(type(section).__doc__ or '').partition(chr(10))[0]}"] if len(path) == 1 else []
    fields = any(not _is_section(section, name) for name in type(section).model_fields)
    return [*about, *([f"{prefix}[{'.'.join(path)}]"] * fields)]


def _line(section: Section, name: str, value: Any, prefix: str) -> str:
    written = f"# {name} =" if value is None or name.endswith("_content") else prefix + _written(name, value)
    options = get_args(type(section).model_fields[name].annotation)
    choice = f"; {' or '.join(options)}" if len(options) > 1 and all(isinstance(each, str) for each in options) else ""
    return f"{written}  # {type(section).meaning(name)}{choice}"


def _written(name: str, value: Any) -> str:
    """A field in one line; lists, which are short, too."""
    parts = [part.strip() for part in tomli_w.dumps({name: value}).splitlines()]
    return " ".join(parts).replace("[ ", "[").replace(", ]", "]") if len(parts) > 1 else parts[0]
