"""Write the figures of committed result files into the pages, between their markers; `--check` only compares.

python docs/update.py            # as dpem reproduce pages does
python docs/update.py --check    # exit code 1 if a page and the results disagree
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import learned_tables
import rules_tables
import speed_tables
import truth_tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TABLES = rules_tables.TABLES | learned_tables.TABLES | speed_tables.TABLES | truth_tables.TABLES


def updated(text: str) -> str:
    """`text` with every marked block made anew."""
    for name, table in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = block.sub(lambda found, table=table: found[1] + table() + "\n" + found[2], text)
    return text


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = updated(before)
        if before != after:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(after, encoding="utf-8")
    if check and stale:
        print(f"{', '.join(stale)}: not what baselines/results say; run python docs/update.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
