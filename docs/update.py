"""Write the tables of `tables.toml` into README and docs, each between its markers; `--check` only compares.

python docs/update.py            # as dpem reproduce pages does
python docs/update.py --check    # exit code 1 if a page and the results disagree
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from analyses import records
from pandas import DataFrame, isna

from dpem_env.report.tables import by_metric, cells
from dpem_env.support.errors import DpemError, nearest

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TABLES = tomllib.loads((ROOT / "docs" / "tables.toml").read_text(encoding="utf-8"))
NAMES = TABLES.pop("names")
BLOCK = re.compile(r"(<!-- ([\w-]+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


@cache
def table(name: str) -> str:
    """The Markdown of a declared table, with its note."""
    if name not in TABLES:
        raise DpemError(f"a page has a table {name!r}; {nearest(name, TABLES)}")
    return made(name, TABLES[name])


def made(name: str, declared: dict[str, Any]) -> str:
    """The Markdown of a table as it is declared; errors call it by its name."""
    frame = DataFrame(records(*declared["results"]), dtype=object)
    if "rows" in declared:
        frame = DataFrame(declared["rows"], dtype=object).merge(frame)
    for formula in declared.get("compute", ()):
        frame = frame.eval(formula)
    if "where" in declared:
        frame = frame.query(declared["where"])
    found = [
        {field: value for field, value in each.items() if isna(value) is not True} for each in frame.to_dict("records")
    ]
    if not found:
        raise DpemError(f"table {name}: no record is left of {', '.join(declared['results'])}")
    scenarios = list(dict.fromkeys(each.get("scenario") for each in found))
    order = declared.get("order", ())
    found.sort(key=lambda each: (scenarios.index(each.get("scenario")), *(place(each, field) for field in order)))
    if "metrics" in declared:
        found = by_metric(found, declared["metrics"])
    left = declared.get("left", 1)
    titles, rows = cells(found, declared["columns"], left)
    if len(titles) < len(declared["columns"]):
        raise DpemError(f"table {name}: no record fills all of its columns; shown are {', '.join(titles)}")
    sides = ["left"] * left + ["right"] * (len(titles) - left)
    text = DataFrame(rows, columns=titles).fillna("").replace(NAMES, regex=True)
    text = text.to_markdown(index=False, colalign=sides, disable_numparse=True)
    notes = [declared["note"].format_map(found[0])] if "note" in declared else []
    if len(stamps := {each["stamp"] for each in found if "stamp" in each}) > 1:
        notes.append(f"Results of different code stand here side by side, of stamps {', '.join(sorted(stamps))}.")
    return "\n\n".join([text, *notes])


def place(record: dict[str, Any], field: str) -> float:
    """Where a record stands in the order of a field: after those without it, or before, if the largest come first."""
    sign = -1 if field.startswith("-") else 1
    return sign * float(record.get(field.removeprefix("-"), "-inf"))


def updated(text: str) -> str:
    """`text` with every marked block made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", text)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    stale = []
    try:
        for page in PAGES:
            before = page.read_text(encoding="utf-8")
            after = updated(before)
            if before != after:
                stale.append(page.relative_to(ROOT).as_posix())
                if not check:
                    page.write_text(after, encoding="utf-8")
    except DpemError as error:
        print(error, file=sys.stderr)
        return 2
    if check and stale:
        print(f"{', '.join(stale)}: not what baselines/results say; run python docs/update.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
