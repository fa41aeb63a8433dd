"""What loads when, and what is typed; the order of the rooms is a contract of import-linter, in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FACADES = ("pettingzoo", "gymnasium")


def printed(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["torch", "matplotlib", "ray", "flwr", "plotly", "pyarrow", "pandas", "rich", "stable_baselines3"]
    assert printed(f"import sys, dpem_env; print(*[name for name in {heavy} if name in sys.modules])") == []


def test_the_simulator_loads_neither_pettingzoo_nor_gymnasium_by_itself() -> None:
    # The package's __init__ loads the façades, so the simulator is loaded under a bare parent.
    code = (
        "import sys, types; package = types.ModuleType('dpem_env'); "
        f"package.__path__ = [{str(ROOT / 'dpem_env')!r}]; sys.modules['dpem_env'] = package; "
        f"import dpem_env.simulator; print(*[name for name in {FACADES} if name in sys.modules])"
    )
    assert printed(code) == []


@pytest.mark.parametrize("package", ["dpem_env", "agents/dpem_agents", "baselines/dpem_baselines"])
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert (ROOT / package / "__init__.py").is_file()
