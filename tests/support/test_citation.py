"""Whoever cites is told the same by the command and by the file that platforms read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import dpem_env
from dpem_env.simulator import RULES_VERSION
from dpem_env.support.citation import AUTHORS, TITLE
from support.command_line import dpem

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_is_of_the_package() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (said["cff-version"], said["type"]) == ("1.2.0", "software")
    assert said["title"] == TITLE
    assert said["authors"] == [{"name": AUTHORS}] == project["authors"]
    assert said["version"] == dpem_env.__version__
    assert said["license"] == project["license"]
    assert {"message", "abstract", "keywords"} <= said.keys()


def test_the_command_cites_in_words_and_for_bibtex(capsys: pytest.CaptureFixture[str]) -> None:
    assert dpem("cite") == 0
    words, entry, advice = capsys.readouterr().out.split("\n\n")
    assert words == (
        f"{AUTHORS} (2026). {TITLE} (version {dpem_env.__version__}, rules {RULES_VERSION}) [Computer software]."
    )
    assert entry.startswith("@software{dpem_env,")
    assert dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, re.MULTILINE)) == {
        "author": f"{{{AUTHORS}}}",
        "title": f"{{{TITLE}}}",
        "year": "2026",
        "version": dpem_env.__version__,
        "note": f"rules {RULES_VERSION}",
    }
    assert f"name rules {RULES_VERSION} and the hash of every scenario" in advice


def test_what_is_not_the_entry_is_a_comment_to_bibtex(capsys: pytest.CaptureFixture[str]) -> None:
    dpem("cite")
    assert capsys.readouterr().out.count("@") == 1
