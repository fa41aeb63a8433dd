"""What code says, whatever it looks like: statements without comments, docstrings, imports and the texts of errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Of the fields of a syntax tree, those that differ between versions of Python or say nothing.
SILENT = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}


def statements(source: str | bytes) -> Iterator[str]:
    """Every top-level statement of a module, as a text that is the same for all ways to write it."""
    for statement in _telling(ast.parse(source).body):
        if not isinstance(statement, ast.Import | ast.ImportFrom) and not _is_for_types(statement):
            yield _text(statement)


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
