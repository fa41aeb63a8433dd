"""Whoever cites is told the same by the command and by the file that platforms read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dpem_env
from dpem_env.simulator import RULES_VERSION
from dpem_env.support.citation import AUTHORS, TITLE
from support.command_line import dpem

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_the_citation_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    said = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r'^title: "(.*)"$', said, re.MULTILINE) == [TITLE]
    assert re.findall(r"^  - name: (.*)$", said, re.MULTILINE) == [AUTHORS]
    assert dpem("cite") == 0
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", capsys.readouterr().out, re.MULTILINE))
    assert fields["title"] == f"{{{TITLE}}}"
    assert fields["author"] == f"{{{AUTHORS}}}"
    assert fields["version"] == dpem_env.__version__
    assert fields["note"] == f"rules {RULES_VERSION}"
