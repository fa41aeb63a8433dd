"""Scenarios that installed packages announce: the recipe of the page, and what is told of a bad package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dpem_env import scenarios
from dpem_env.cli import main
from dpem_env.support.errors import ScenarioError

PAGE = (Path(__file__).parents[2] / "docs" / "own-network.md").read_text(encoding="utf-8")
MODULE, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LAB = scenarios.get("chain3-v0", name="lab4-v0", slots=20, nodes=4)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages with that of the recipe, announced as an installer does."""
    package, about = tmp_path / "my_networks", tmp_path / "my_networks-0.1.dist-info"
    for folder in (package, about):
        folder.mkdir()
    (package / "__init__.py").write_text(MODULE, encoding="utf-8")
    LAB.save(package / "lab4.toml")
    [announcement] = re.findall(r'^"lab4-v0" = "(.*)"$', PAGE, re.MULTILINE)
    others = {
        "odd-v0": "my_networks:Path",
        "none-v0": "my_networks:none",
        "lab5-v0": announcement,
        "no-v0": "nowhere:a",
    }
    points = "".join(f"{name} = {place}\n" for name, place in ({"lab4-v0": announcement} | others).items())
    (about / "entry_points.txt").write_text(f"[dpem_env.scenarios]\n{points}", encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-networks\nVersion: 0.1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return tmp_path


@pytest.mark.usefixtures("installed")
def test_a_package_announces_scenarios() -> None:
    assert "lab4-v0" in scenarios.available()
    assert scenarios.get("lab4-v0") == LAB
    assert scenarios.get("lab4-v0", slots=5).episode.slots == 5
    assert not set(scenarios.available()) & set(scenarios.SCENARIOS)
    with pytest.raises(ScenarioError, match="did you mean 'lab4-v0'"):
        scenarios.get("lab4v0")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("odd-v0", "scenario 'odd-v0' of my_networks:Path cannot be used: it is a PosixPath; expected a Scenario"),
        ("none-v0", "needs a package that is not installed: module 'my_networks' has no attribute 'none'"),
        ("no-v0", "needs a package that is not installed: No module named 'nowhere'"),
        ("lab5-v0", "scenario 'lab5-v0' of my_networks:lab4 calls itself 'lab4-v0'; expected the same name"),
    ],
)
def test_a_bad_package_is_told_in_one_line(name: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(told)):
        scenarios.get(name)


@pytest.mark.usefixtures("installed")
def test_a_list_has_the_good_ones_and_tells_of_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr()
    assert "lab4-v0" in said.out
    assert "odd-v0" not in said.out
    assert said.err.count("dpem: warning: ") == 4


def test_the_recipe_ends_with_a_checked_environment(installed: Path) -> None:
    registered = 'import gymnasium, dpem_env; gymnasium.make("dpem/lab4-central-v0").reset(seed=0)\n'
    code = f"import sys; sys.path.insert(0, {str(installed)!r})\n{registered}{TEST}"
    quick = code.replace('("lab4-v0"))', '("lab4-v0"), slots=5, processes=False)')
    assert quick != code
    done = subprocess.run([sys.executable, "-c", quick], capture_output=True, text=True, check=False, cwd=installed)
    assert done.returncode == 0, done.stderr
