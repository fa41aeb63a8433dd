"""Fingerprints of what code says, whatever it looks like and wherever it lies.

Comments, docstrings, imports and the texts of errors do not count, nor in which file of a set a definition stands. So
moving a room leaves results what they were, and changing a rule does not.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dpem_env.support.errors import DpemError

PACKAGE = Path(__file__).parents[1]
# What decides the results of an episode, given the actions.
DECIDING = (
    "demand",
    "envs/control",
    "envs/forecasts",
    "envs/metrics",
    "envs/rewards",
    "envs/session",
    "experiments/evaluation",
    "network",
    "observations",
    "physics",
    "policies",
    "scenarios",
    "simulator",
    "support/seeding",
)
# Of the fields of a syntax tree, those that differ between versions of Python or say nothing.
SILENT = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}


@cache
def results_fingerprint() -> str:
    """Changes with the rules: with what the code that decides an episode says."""
    return _digest(PACKAGE / name for name in DECIDING)


@cache
def syntax_fingerprint(name: str) -> str:
    """Changes with what the code of an importable package or module says; DpemError if there is none."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise DpemError(f"no package {name!r} to take a fingerprint of; expected an importable one")
    return _digest(Path(place) for place in spec.submodule_search_locations or [spec.origin])


def statements(source: str) -> Iterator[str]:
    """Every top-level statement of a module, as a text that is the same for all ways to write it."""
    for statement in _telling(ast.parse(source).body):
        if not isinstance(statement, ast.Import | ast.ImportFrom) and not _is_for_types(statement):
            yield _text(statement)


def _digest(places: Iterable[Path]) -> str:
    files = {file for place in places for file in _files(place)}
    said = sorted(text for file in files for text in statements(file.read_text(encoding="utf-8")))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def _telling(body: list[ast.stmt]) -> list[ast.stmt]:
    """Without texts that are statements: docstrings."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]


def _is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def _text(node: object) -> str:
    if isinstance(node, ast.Raise):
        return "Raise"
    if isinstance(node, ast.AST):
        fields = (
            (name, value) for name, value in ast.iter_fields(node) if name not in SILENT and value not in ([], None)
        )
        return f"{type(node).__name__}({','.join(f'{name}={_text(value)}' for name, value in fields)})"
    if isinstance(node, list):
        body = [each for each in node if not isinstance(each, ast.Import | ast.ImportFrom)]
        return f"[{','.join(_text(each) for each in _telling(body))}]"
    return repr(node)
