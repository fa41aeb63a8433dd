"""CSV tables that somebody wrote: by hand, or exported from a spreadsheet in whatever its country takes for commas."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dpem_env.support.files import read_text

ALIKE = 0.8  # of the letters: how near an unknown column comes to a known one before it is taken for a slip


class Row(NamedTuple):
    """A row of a table: its cells, as text, by column."""

    line: int
    cells: dict[str, str]


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The rows of a table that are not empty, cells by their place ("0", "1", …); to be called inside `reading`.

    Cells are parted by commas, semicolons or tabs, whichever the first line has most of, and may be quoted.
    """
    text = read_text(path)
    head = text.lstrip().partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), skipinitialspace=True)
    for row in reader:
        cells = {str(place): cell.strip() for place, cell in enumerate(row)}
        if any(cells.values()):
            yield Row(reader.line_num, cells)


def read_table(path: str | os.PathLike[str], needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """The rows below the titles of columns, cells by title; to be called inside `reading`.

    Columns come in any order, their titles in any case. Others are passed over, unless one is likely a misspelt title.
    ValueError says what is wrong, and where.
    """
    rows = read_rows(path)
    titles = [title.lower() for title in next(rows, Row(0, {})).cells.values()]
    require_titles(titles, needed, optional)
    for line, cells in rows:
        if any(cell for place, cell in cells.items() if int(place) >= len(titles)):
            raise ValueError(f"line {line}: it has more values than there are columns")
        yield Row(line, {title: cells[str(place)] for place, title in enumerate(titles) if str(place) in cells})


def require_titles(titles: Sequence[str], needed: Sequence[str], optional: Sequence[str] = ()) -> None:
    """ValueError unless all that are needed are there, none twice, and no other is nearly one of them."""
    known = (*needed, *optional)
    for title in needed:
        if title not in titles:
            options = "".join(f"[,{name}]" for name in optional)
            raise ValueError(f"no column {title!r}; expected {','.join(needed)}{options}")
    for title in titles:
        if title in known and titles.count(title) > 1:
            raise ValueError(f"two columns are called {title!r}")
        if meant := meant_by(title, known):
            raise ValueError(f"unknown column {title!r}; did you mean {meant!r}?")


def meant_by(title: str, known: Sequence[str]) -> str | None:
    """The known title that an unknown one likely is, misspelt; None if it is another, or known itself."""
    if title in known or len(title) > 50:
        return None
    return next(iter(difflib.get_close_matches(title, known, n=1, cutoff=ALIKE)), None)
