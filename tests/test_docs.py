from __future__ import annotations

import importlib
import re
import shlex
import sys
from contextlib import ExitStack, redirect_stdout
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dpem_env
from dpem_env.commands import tune
from dpem_env.scenarios import get
from dpem_env.simulator import RULES_VERSION
from dpem_env.support.errors import DpemError
from support.command_line import BLOCK, commands, dpem

ROOT = Path(__file__).resolve().parents[1]
# What takes minutes, or builds on what does, is run by the slow suite (test_packaging.py); reproduce is for a clone.
MINUTES = r"^dpem (tune|benchmark|forecast|train|train-forecaster|curve|reproduce|submit) |runs/|\bmine\b"
DOCS = ROOT / "docs"


@pytest.fixture
def update(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("update")


def test_numbers_in_the_readme_are_those_of_the_result_files(
    update: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["update.py", "--check"])
    assert update.main() == 0, capsys.readouterr().err


def test_every_declared_table_stands_in_a_page(update: ModuleType) -> None:
    shown = {name for page in update.PAGES for _, name, _ in update.BLOCK.findall(page.read_text("utf-8"))}
    assert shown == set(update.TABLES)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({}, r"a page has a table 'colums'; did you mean 'columns'\?"),
        ({"columns": ["path", "speed"]}, "table columns: no record fills all of its columns; shown are path"),
        ({"results": ["results/sped.json"], "columns": ["path"]}, "baselines has no results/sped.json"),
    ],
)
def test_a_mistake_in_a_declaration_is_told_in_a_line(
    update: ModuleType, declared: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "TABLES", {"columns": {"results": ["results/speed.json:rows"]} | declared})
    with pytest.raises(DpemError, match=told):
        update.table.__wrapped__("columns" if declared else "colums")


def test_relative_links_in_the_documentation_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


# Other pages' Python needs files or other libraries, and has tests of its own.
SELF_CONTAINED = [ROOT / "README.md", DOCS / "swap-chain.md", DOCS / "hardware.md"]


@pytest.mark.parametrize("page", SELF_CONTAINED, ids=lambda page: page.stem)
def test_python_in_a_page_runs(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page.name, "exec"), {})


def play(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in a folder what a page says, block by block: save a file that is named, run Python and commands."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for language, file, block in BLOCK.findall(page):
        if file:
            (folder / file).write_text(block)
        if language == "python":
            exec(compile(block, file or "page", "exec"), {"__name__": "page"})
        elif language in ("", "console"):
            for line in commands(f"```\n{block}```"):
                run(line)


def run(line: str) -> None:
    """A command of a page, and where its output goes."""
    words = shlex.split(line)
    assert words[0] == "dpem", line
    with ExitStack() as into:
        if ">" in words:
            into.enter_context(redirect_stdout(into.enter_context(open(words.pop(), "w"))))
            words.remove(">")
        assert dpem(*words[1:]) == 0, line


def test_the_readmes_commands_of_seconds_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra federated")
    monkeypatch.chdir(tmp_path)
    for line in commands((ROOT / "README.md").read_text("utf-8")):
        if not re.search(MINUTES, line):
            run(line)
    made = {"my.toml", "check/map.png", "results/local-reactive-0.parquet", "episode.html"}
    assert all((tmp_path / name).is_file() for name in made)


def test_a_newcomer_walks_from_the_readme_alone_to_a_film_a_row_and_a_checked_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "README.md").read_text("utf-8")
    part = page[page.index("**Your own policy**") : page.index("\n## Scenarios")]
    assert "in a file `mine.py`" in part
    [policy] = [block for language, _, block in BLOCK.findall(part) if language == "python"]
    (tmp_path / "mine.py").write_text(policy)
    said: dict[str, list[str]] = {}
    for line in commands(part):
        trial = ["--trial"] if line.startswith("dpem submit --policy") else []  # seconds in place of minutes
        wanted = 1 if line.startswith("dpem submit check") else 0  # which a trial does not pass
        assert dpem(*shlex.split(line)[1:], *trial) == wanted, line
        said[line] = capsys.readouterr().out.splitlines()
    played, row, film, _, check, board = said.values()
    assert "wrote mine" in played[-1]
    assert any(line.startswith("| me ") for line in row)
    assert film[-1] == "wrote me.html"
    assert [line.partition(":")[0] for line in check if line.startswith(("card", "logs"))] == ["card.json"]
    assert "incomplete, as a trial is" in check[0]
    assert check[1] == "2 logs came out again bit for bit, with the scores of the card"
    assert board[-1].startswith("| decentralized | me ")


def test_the_page_on_own_policies_is_done_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sb3_contrib", reason="needs the extra agents")
    play((DOCS / "own-policies.md").read_text("utf-8"), tmp_path, monkeypatch)
    assert (
        dpem("run", "--scenario", "mesh20-v0", "--policy", "net=./net.py:decide", "--seeds", "2", "--out", "net") == 0
    )


def test_the_forecaster_in_the_page_on_forecasting_is_one_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "forecasting.md").read_text("utf-8")
    play(page[page.index("\n## Your own") : page.index("\n## Forecast skill")], tmp_path, monkeypatch)


def test_the_policy_in_the_readme_stocks_one_pair() -> None:
    from dpem_env.envs.session import episode_seeds
    from dpem_env.experiments.evaluation import run_episode

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, type] = {}
    exec(compile(next(block for block in blocks if "StockOnePairEach" in block), "README.md", "exec"), names)
    scenario = get("mesh20-v0", slots=100, request_rate=20.0, predictability=0.0)
    metrics, session = run_episode(scenario, names["StockOnePairEach"](), episode_seeds(scenario, "train", 0))
    assert metrics.from_stock > 0
    stored = session.simulator.state.stock_peer[0, :, 0][session.simulator.state.stock_count[0] > 0]
    assert set(stored.tolist()) == {0}


def test_the_loop_in_the_page_on_vector_environments_plays_two_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    loop = re.findall(r"```python\n(.*?)```", (DOCS / "vector.md").read_text("utf-8"), re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(compile(loop, "vector.md", "exec"), names)
    assert capsys.readouterr().out.count("episodes end") == 2
    assert names["infos"]["illegal_actions"].sum() == 0  # type: ignore[index]


def test_the_controller_in_the_page_on_vector_environments_hears_all_neighbours_and_nobody_else() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    block = re.findall(r"```python\n(.*?)```", (DOCS / "vector.md").read_text("utf-8"), re.DOTALL)[1]
    names: dict[str, Any] = {}
    exec(compile(block, "vector.md", "exec"), names)
    envs, layer = names["envs"], names["layers"][0]
    assert names["infos"]["illegal_actions"].max() <= 2  # of commands that were legal when they were sent out
    rows = torch.rand(envs.num_envs, names["width"])
    heard = layer(rows, names["edge_index"], names["edge_attr"])
    other = rows.clone()
    other[7] += 1.0
    changed = (layer(other, names["edge_index"], names["edge_attr"]) != heard).any(dim=1).nonzero().flatten().tolist()
    links = envs.session.network.topology.links
    assert changed == sorted({7, *links[(links == 7).any(axis=1)].ravel().tolist()})
    padded = [torch.from_numpy(each) for each in envs.graph(padded=True)[:2]]
    with_zeros = torch.nn.functional.pad(rows, (0, 0, 0, 1))
    assert torch.allclose(layer(with_zeros, *padded)[:-1], heard)


def test_the_paragraph_on_methods_tells_what_is_so_by_default() -> None:
    page = " ".join((DOCS / "methods.md").read_text("utf-8").replace("\n> ", " ").split())
    scenario, tuning = get("mesh100-v0"), signature(tune).parameters
    topology, demand = scenario.seeds.evaluation.topology, scenario.seeds.evaluation.demand
    assert f"dpem_env [{dpem_env.__version__}] (rules [{RULES_VERSION}])" in page
    assert f"(hash [{scenario.hash}]; changed: [none])" in page
    assert f"topologies {topology.start}–{topology.stop - 1}, demand from {demand.start}" in page
    assert f"[{tuning['trials'].default}] trials of [{tuning['episodes'].default}] episodes" in page
    assert f"{scenario.episode.slots} slots" in page
