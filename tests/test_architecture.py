"""Data flows one way: the order of imports, what stays out of the core, and what loads only when used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module imports only modules named before it. A new module takes the first place where that holds.
LAYERS = (
    (
        "errors",
        "console",
        "files",
        "plugins",
        "physics",
        "seeding",
        "search",
        "provenance",
        "disk_cache",
        "compiled",
        "statistics",
        "anova",
    ),
    ("scenarios", "topology", "traces", "route_search", "routes", "network_cache", "network", "demand", "suites"),
    ("simulator.addresses", "simulator.randomness", "simulator.state", "simulator.telemetry"),
    ("simulator.kernel", "simulator.foresight", "simulator.threads", "simulator.simulator", "simulator"),
    ("feature_writer", "features", "rewards", "forecast", "specs"),
    ("policies", "session", "bounds", "control", "metrics"),
    ("parallel_env", "testing", "central_env", "vector_env", "evaluation"),
    ("log_pages", "log_format", "records", "replay"),
    ("origins", "work", "tuning", "forecast_skill", "comparison"),
    ("render", "render.network_map", "render.results_figure", "render.benchmark_figure", "render.forecast_figure"),
    ("reports", "runs", "benchmark"),
    ("syntax", "experiments.declared", "experiments.reproduce", "experiments.command", "experiments", "cli"),
)
ORDER = [module for layer in LAYERS for module in layer]


def modules() -> dict[str, Path]:
    """Modules of dpem_env by name; the package itself is ''."""
    folder = ROOT / "dpem_env"
    names = {
        path: path.relative_to(folder).with_suffix("").as_posix().replace("/", ".") for path in folder.rglob("*.py")
    }
    return {name.removesuffix("__init__").removesuffix("."): path for path, name in names.items()}


def imported(tree: ast.AST, everywhere: bool = False) -> Iterator[str]:
    """Full names a module imports when it is loaded; with `everywhere` also those inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imported(ast.Module(node.orelse, []), everywhere)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported(node, everywhere)


def own_module(name: str, known: dict[str, Path]) -> str | None:
    """The module of dpem_env that holds an imported name, '' for the package itself, None if it is another's."""
    package, _, rest = name.partition(".")
    if package != "dpem_env":
        return None
    while rest and rest not in known:
        rest = rest.rpartition(".")[0]
    return rest


def imports_of(path: Path, everywhere: bool = False) -> set[str]:
    return set(imported(ast.parse(path.read_text(encoding="utf-8")), everywhere))


def test_every_module_has_its_place_in_the_order() -> None:
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) == modules().keys() - {"", "__main__"}


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_comes_before_it(module: str) -> None:
    known = modules()
    needed = {own_module(name, known) for name in imports_of(known[module])} - {None}
    # The command line reads the version off the package.
    allowed = {*ORDER[: ORDER.index(module)]} | ({""} if module == "cli" else set())
    assert needed <= allowed


def test_the_order_has_something_to_enforce() -> None:
    known = modules()
    assert own_module("dpem_env.simulator.kernel.can_name", known) == "simulator.kernel"
    assert own_module("dpem_env.__version__", known) == ""
    assert own_module("numpy.typing", known) is None
    assert {own_module(n, known) for n in imports_of(known["features"])} >= {"feature_writer", "simulator.simulator"}
    assert any("render" in name for name in imports_of(known["parallel_env"], everywhere=True))  # in a function
    assert not any("render" in name for name in imports_of(known["parallel_env"]))


FACADES = ("pettingzoo", "gymnasium")


@pytest.mark.parametrize(
    "module", [*ORDER[: ORDER.index("parallel_env")], "evaluation", "log_pages", "log_format", "records", "replay"]
)
def test_only_the_facades_know_pettingzoo_and_gymnasium(module: str) -> None:
    assert not {name for name in imports_of(modules()[module], everywhere=True) if name.split(".")[0] in FACADES}


@pytest.mark.parametrize("module", sorted(modules()))
def test_the_environment_imports_neither_agents_nor_baselines(module: str) -> None:
    packages = {name.split(".")[0] for name in imports_of(modules()[module], everywhere=True)}
    assert not packages & {"dpem_agents", "dpem_baselines", "agents", "baselines", "tests"}


def test_baselines_do_not_import_agents() -> None:
    paths = list((ROOT / "baselines" / "dpem_baselines").glob("*.py"))
    assert paths
    for path in paths:
        assert not any(name.startswith("dpem_agents") for name in imports_of(path, everywhere=True))


def test_the_facades_know_no_physics() -> None:
    for module in ("parallel_env", "central_env"):
        assert not {name for name in imports_of(modules()[module], everywhere=True) if "physics" in name}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["torch", "matplotlib", "ray", "flwr", "plotly", "pyarrow", "rich", "stable_baselines3"]
    code = f"import sys, dpem_env; print(*[name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_the_simulator_loads_neither_pettingzoo_nor_gymnasium_by_itself() -> None:
    # The package's __init__ loads the façades, so the simulator is loaded under a bare parent.
    code = (
        "import sys, types; package = types.ModuleType('dpem_env'); "
        f"package.__path__ = [{str(ROOT / 'dpem_env')!r}]; sys.modules['dpem_env'] = package; "
        f"import dpem_env.simulator; print(*[name for name in {FACADES} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("package", ["dpem_env", "agents/dpem_agents", "baselines/dpem_baselines"])
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert (ROOT / package / "__init__.py").is_file()
