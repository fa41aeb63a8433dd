from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from support.command_line import BLOCK, commands

ROOT = Path(__file__).resolve().parents[1]
RUN = ["run", "--scenario", "chain3-v0", "--policy", "local-reactive", "--policy", "central-reactive", "--seeds", "2"]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The built sdist and, from that sdist, the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def _outside(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, with nothing of the clone on the path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True, check=True)


def test_wheel_holds_three_typed_packages_and_no_results_or_tests(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        names = archive.namelist()
    packages = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packages == {"dpem_env", "dpem_agents", "dpem_baselines"}
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tuned = {path.name for path in (ROOT / "baselines" / "tuned").glob("*.json")}
    assert {f"dpem_env/shipped/tuned/{name}" for name in tuned} <= set(names)
    assert {f"dpem_env/shipped/policies/{name}/policy.npz" for name in ("mesh20", "mesh100")} <= set(names)
    assert {f"dpem_env/film/player/{name}" for name in ("page.html", "film.js", "d3.min.js", "d3.LICENSE")} <= set(
        names
    )


def test_sdist_holds_tests_docs_and_licence(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"LICENSE", "README.md", "pyproject.toml", "docs/reproduce-paper.md", "tests/conftest.py"} <= names
    assert {"CITATION.cff", "CHANGELOG.md", "constraints.txt", "requirements.txt", "requirements-agents.txt"} <= names


def test_an_index_would_take_both(distributions: tuple[Path, Path]) -> None:
    twine = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions)]
    checked = subprocess.run(twine, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_installed_wheel_runs_outside_the_clone(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*install, str(distributions[1])], check=True, capture_output=True)
    where = _outside(tmp_path, sys.executable, "-c", "import dpem_env; print(dpem_env.__file__)", PYTHONPATH=str(site))
    assert Path(where.stdout.strip()).is_relative_to(site)
    _outside(tmp_path, sys.executable, "-m", "dpem_env.cli", *RUN, "--out", "results", PYTHONPATH=str(site))
    assert (tmp_path / "results" / "summary.json").is_file()


@pytest.mark.slow
def test_the_readmes_commands_run_as_they_stand_from_a_wheel(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    home, readme = tmp_path / "home", (ROOT / "README.md").read_text("utf-8")
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    wheel = f"{distributions[1]}[agents,federated]"
    _outside(tmp_path, *pip, "--constraint", str(ROOT / "constraints.txt"), wheel)
    (policy,) = (block for _, _, block in BLOCK.findall(readme) if "class StockOnePairEach" in block)
    (tmp_path / "mine.py").write_text(policy, encoding="utf-8")
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    for line in commands(readme):
        if not line.startswith("dpem reproduce"):  # which is for a clone
            _outside(tmp_path, "bash", "-c", line, PATH=path, DPEM_CACHE=str(tmp_path / "cache"))
    assert (tmp_path / "mine" / "me-0.parquet").is_file()


@pytest.mark.slow
def test_wheel_installs_into_an_empty_environment(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    home = tmp_path / "empty"
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _outside(tmp_path, *pip, "--require-hashes", "--requirement", str(ROOT / "requirements.txt"))
    _outside(tmp_path, *pip, "--no-deps", str(distributions[1]))
    assert "mesh100-v0" in _outside(tmp_path, str(home / "bin" / "dpem"), "list").stdout
    _outside(tmp_path, str(home / "bin" / "dpem"), *RUN, "--out", "results", DPEM_CACHE=str(tmp_path / "cache"))
    assert (tmp_path / "results" / "results.png").is_file()
    demo = _outside(tmp_path, str(home / "bin" / "dpem"), "demo", DPEM_CACHE=str(tmp_path / "cache"))
    assert all(name in demo.stdout for name in ("ppo:mesh20", "maxweight", "central-maxweight (delay 0.5 s)"))
    replayed = _outside(tmp_path, str(home / "bin" / "dpem"), "replay", "results/local-reactive-0.parquet")
    assert "verified" in replayed.stdout
