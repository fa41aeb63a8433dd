from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _check() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "docs" / "update.py"), "--check"], capture_output=True, text=True, check=False
    )


def test_numbers_in_the_readme_are_those_of_the_result_files() -> None:
    done = _check()
    assert done.returncode == 0, done.stderr


def test_relative_links_in_the_documentation_lead_somewhere() -> None:
    import re

    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
