"""What ``dpem check`` says of a scenario before anything is run on it, and the examples of its page."""

from __future__ import annotations

import csv
import re
import shlex
import tomllib
from pathlib import Path

import networkx as nx
import pytest
import tomli_w
from matplotlib.image import imread

from dpem_baselines.bound import offered_load
from dpem_baselines.commands import check
from dpem_env import scenarios
from dpem_env.network.network import build_network
from dpem_env.support.errors import DataError
from support.command_line import BLOCK, commands, dpem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-network.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the page, in the present folder."""
    monkeypatch.chdir(tmp_path)
    tables = re.findall(r"```\n((?:name|source|,|time).*?)```", PAGE, re.DOTALL)
    for name, table in zip(("nodes", "links", "demand", "requests"), tables, strict=True):
        Path(f"{name}.csv").write_text(table, encoding="utf-8")
    toml = next(block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "nodes_file" in block)
    Path("my.toml").write_text(toml, encoding="utf-8")


def test_the_command_is_announced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["dpem_env.commands"]["check"] == f"{check.__module__}:{check.__name__}"


def said(capsys: pytest.CaptureFixture[str], *changes: str) -> str:
    assert check("my.toml", changes=changes, topology=3, episodes=2) == 0
    return capsys.readouterr().out


def test_it_says_who_can_be_partners_and_how_much_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys)
    scenario = scenarios.get("my.toml")
    network = build_network(scenario, 3)
    partners = int((network.peers >= 0).sum())
    assert f"{partners} of 12 pairs of nodes are partners" in out
    assert f"load ρ = {offered_load(scenario, [3]):.2f}" in out
    assert re.search(r"no policy delivers more than [\d.]+% of them", out)
    assert re.search(r"local-reactive delivers about [\d.]+% of the requests", out)
    for reason, number in network.excluded.items():
        assert f"{number} pairs cannot be partners: {reason}; raise" in out
    with open("check/pairs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["source"], row["destination"]) for row in rows}) == len(rows) == 12
    assert sum(row["verdict"] == "partners" for row in rows) == partners
    assert sum(float(row["share_of_demand"]) for row in rows) == pytest.approx(1.0, abs=1e-4)
    assert all((row["build_time_s"] != "") == (row["verdict"] == "partners") for row in rows)
    assert imread("check/map.png").shape[0] > 300


def test_the_matrix_and_the_requests_of_the_page_are_played(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Berlin -> Hamburg: " in said(capsys, "demand_matrix=demand.csv", "min_swap_rate=0.0")
    out = said(capsys, "kind=replay", "requests_file=requests.csv", "min_swap_rate=0.0")
    assert "3 requests in the first episode" in out
    assert "load: a file of requests has no mean rate" in out


def test_the_commands_of_the_page_run_on_every_scenario_file_of_the_page() -> None:
    nx.write_graphml(nx.relabel_nodes(nx.path_graph(3), str), "network.graphml")
    graph = nx.read_graphml("network.graphml")
    nx.set_edge_attributes(graph, 10.0, "length")
    nx.write_graphml(graph, "network.graphml")
    blocks = [block for language, _, block in BLOCK.findall(PAGE) if language == "toml" and "[project]" not in block]
    assert len(blocks) == 5
    whole, (first, *others) = tomllib.loads(blocks[0]), commands(PAGE)
    assert first.startswith("dpem check ")  # which plays an episode, too
    for block in blocks:
        Path("my.toml").write_text(tomli_w.dumps(whole | tomllib.loads(block)), encoding="utf-8")
        for line in [first] if block != blocks[-1] else [first, *others]:
            assert dpem(*shlex.split(line)[1:]) == 0, line


def test_chains_whose_relays_decide_are_played_by_relays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    chain = ("swap-chain4-v0", "--set", "swapping=agents", "--set", "slots=60", "--episodes", "1")
    assert dpem("check", *chain) == 0
    assert "swap-asap delivers about" in capsys.readouterr().out


def test_where_nothing_can_be_played_it_is_said_why_after_the_map(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"0 of 3 requests count; left out: 3 unreachable \(weak link\); shorten"):
        said(capsys, "kind=replay", "requests_file=requests.csv", "length_scale=20.0", "min_swap_rate=0.0")
    assert "0 of 12 pairs of nodes are partners" in capsys.readouterr().out
    assert Path("check/map.png").exists()
