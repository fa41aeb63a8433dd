"""Where data that is not shipped lies: a scenario carries it wherever it goes, and is the same scenario without it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpem_env import parallel_env, scenarios
from dpem_env.experiments import benchmark
from dpem_env.experiments.benchmark import make_plan, run_benchmark
from dpem_env.experiments.suites import get_suite
from dpem_env.experiments.workers import EpisodeItem, on_processes
from dpem_env.network.network import build_network
from dpem_env.network.topology import build_topology
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.data import CORONET, data_missing
from dpem_env.support.errors import DataError, ScenarioError

PLAIN = scenarios.get("coronet100-v0")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """CORONET of two cities, from a folder that nothing else names."""
    monkeypatch.delenv("DPEM_DATA", raising=False)
    cities = [{"name": f"city {i}", "lat": 0.1 * i, "lon": 0.0} for i in range(2)]
    file = tmp_path / CORONET
    file.parent.mkdir()
    file.write_text(json.dumps({"nodes": cities, "edges": [{"u": 0, "v": 1, "km": 100.0}]}))
    return scenarios.get("coronet100-v0", data_dir=tmp_path)


def nodes_of(scenario: Scenario) -> int:
    return build_topology(scenario, 0).num_nodes


def test_it_is_the_same_scenario(there: Scenario) -> None:
    assert there == PLAIN
    assert (there.hash, hash(there), there.name) == (PLAIN.hash, hash(PLAIN), PLAIN.name)
    assert (there.to_toml(), there.model_dump_json(), repr(there)) == (
        PLAIN.to_toml(),
        PLAIN.model_dump_json(),
        repr(PLAIN),
    )
    assert there != there.override(slots=7)
    assert there.override(data_dir=None).data_dir is None


def test_every_copy_knows_it(there: Scenario, tmp_path: Path) -> None:
    copies = [there, copy.deepcopy(there), pickle.loads(pickle.dumps(there)), there.model_copy()]
    copies += [there.override(slots=7), there.on_topology(3), scenarios.get(there, request_rate=1.0)]
    assert {each.data_dir for each in copies} == {tmp_path}
    assert there.override(slots=7).name == "coronet100-v0+slots=7"
    assert {nodes_of(each) for each in copies} == {2}
    assert list(on_processes(nodes_of, [there], 1)) == [(there, 2)]


def test_a_relative_folder_is_the_one_it_was_when_given(
    there: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    near = PLAIN.override(data_dir=tmp_path.name)
    monkeypatch.chdir("/")
    assert near.data_dir == tmp_path
    assert nodes_of(near) == 2


def test_a_network_of_another_folder_is_another_one(there: Scenario, tmp_path: Path) -> None:
    built = build_network(there, 0)
    assert build_network(there.override(data_dir=tmp_path), 0) is built
    with pytest.raises(DataError, match="needs coronet"):
        build_network(PLAIN, 0)


def test_a_facade_takes_it_by_name(there: Scenario, tmp_path: Path) -> None:
    assert parallel_env("coronet100-v0", data_dir=tmp_path).possible_agents == ["agent_0", "agent_1"]
    with pytest.raises(DataError) as error:
        parallel_env("abilene-trace-v0", data_dir=tmp_path).reset(seed=0)
    told = "abilene-trace-v0 needs abilene/abilene_20040301_5min_14d.npz, which is not in "
    assert str(error.value) == f"{told}{str(tmp_path)!r} (dpem list says where to get it)"
    assert data_missing(there) == []
    assert data_missing(PLAIN) == ["coronet"]


@pytest.mark.parametrize("given", [5, "", [], True])
def test_what_is_no_folder_is_told_in_one_line(given: object) -> None:
    with pytest.raises(ScenarioError) as error:
        PLAIN.override(data_dir=given)
    assert str(error.value) == f"scenario coronet100-v0: data_dir: expected a folder (given {given!r})"


def test_no_file_says_where_it_lies() -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.from_toml('name = "x"\ndata_dir = "data"', "mine.toml")
    assert str(error.value) == "mine.toml: data_dir: no file says where data lies; pass --data DIR or set DPEM_DATA"


def test_a_benchmark_tells_its_workers_what_the_variable_says(
    there: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPEM_DATA", str(tmp_path))
    monkeypatch.setattr(benchmark, "try_out", lambda *_: None)
    folders = []

    def played(function: object, items: list[EpisodeItem], *_: object) -> Iterator[None]:
        folders.extend(item.scenario.data_dir for item in items)
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "played", played)
    plan = make_plan(get_suite("networks"), ["idle"], 1, scenarios=["coronet100-v0"])
    assert run_benchmark(plan, tmp_path / "out") == 130
    assert folders == [tmp_path] * len(plan.items())
