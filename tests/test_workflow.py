"""The public workflow does what .ci/run does, for every Python that is promised, and uploads nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / ".github" / "workflows" / "test.yml"
if not FILE.is_file():
    pytest.skip("the source distribution has no workflow", allow_module_level=True)
WORKFLOW = yaml.safe_load(FILE.read_text(encoding="utf-8"))
JOBS: dict[str, Any] = WORKFLOW["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKE = re.compile(r"\bmake (?:\S*\$\S+ )?([\w-]+)")


def told(job: str) -> str:
    """All commands of a job."""
    return "\n".join(step.get("run", "") for step in JOBS[job]["steps"])


@pytest.mark.parametrize("job", JOBS)
def test_every_python_that_is_promised_is_tested(job: str) -> None:
    pythons = JOBS[job]["strategy"]["matrix"]["python"]
    promised = [each for line in PROJECT["classifiers"] for each in re.findall(r"Python :: (3\.\d+)$", line)]
    assert all(isinstance(each, str) for each in pythons)  # 3.10 would be 3.1
    assert set(promised) <= set(pythons)
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def test_every_platform_is_tested() -> None:
    systems = JOBS["test"]["strategy"]["matrix"]["os"]
    assert [each.partition("-")[0] for each in systems] == ["ubuntu", "macos", "windows"]


def test_targets_are_those_of_the_makefile_and_of_ci() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    targets = MAKE.findall(told("test"))
    assert targets == ["setup", "lint", "test"]
    assert set(targets) <= set(phony.split())
    assert set(MAKE.findall((ROOT / ".ci" / "run").read_text(encoding="utf-8"))) <= set(targets)


def test_distributions_are_built_checked_installed_and_run() -> None:
    commands = told("distributions")
    steps = ["-m build", "twine check --strict", "--require-hashes --requirement requirements.txt", "dist/*.whl"]
    places = [commands.index(each) for each in [*steps, "dpem list", "dpem demo"]]
    assert places == sorted(places)


def test_actions_are_pinned_and_nothing_is_uploaded() -> None:
    actions = [step["uses"] for job in JOBS.values() for step in job["steps"] if "uses" in step]
    assert set(actions) == {"actions/checkout@v5.0.0", "actions/setup-python@v6.0.0"}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not re.search(r"upload-|twine upload|secrets", FILE.read_text(encoding="utf-8"))
