"""A film as one page that needs no network: map, clock, curves and the node that is clicked, drawn by D3."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from dpem_env.support.files import whole_file

PLAYER = files("dpem_env.film") / "player"


def write_page(path: Path, films: list[dict[str, Any]]) -> None:
    """Write one film, or two of the same episode side by side."""
    title = f"{films[0]['scenario']}: {' beside '.join(film['policy'] for film in films)}"
    parts = {
        "TITLE": escape(title),
        "STYLE": _part("film.css"),
        "D3": _part("d3.min.js"),
        "FILMS": json.dumps(films, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c"),
        "PLAYER": _part("film.js"),
    }
    page = _part("page.html")
    for name, text in parts.items():
        page = page.replace(f"<!--{name}-->", text, 1)
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _part(name: str) -> str:
    return (PLAYER / name).read_text(encoding="utf-8")
