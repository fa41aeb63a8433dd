"""What an episode follows from, by content: what is kept is played again when any of it changes, and nothing mixes."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_agents.forecasters import checkpoint as forecasters
from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_env import policies, scenarios
from dpem_env.experiments import origins
from dpem_env.experiments import workers as work
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.forecast_skill import measure_skill
from dpem_env.experiments.origins import Origins, changed, unchanged
from dpem_env.experiments.tuning import tune
from dpem_env.network import topology
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.support import plugins
from dpem_env.support.errors import DpemError
from support.command_line import complaint, dpem, given

CHAIN = scenarios.get("chain3-v0", slots=8, request_rate=4.0, name="tiny")


class FromFile(LocalPolicy):
    """Asks, or does not, as its file says."""

    def __init__(self, path: str) -> None:
        self.action = int(Path(path).read_text())

    def act(self, observations: Any, masks: Any) -> Decision:
        return Decision(np.full(len(masks), self.action))


class FromSeveral(FromFile):
    """Its argument is no file; it says itself what it reads."""

    def __init__(self, name: str) -> None:
        self.sources = [f"{name}.one", f"{name}.two"]
        super().__init__(self.sources[0])


@pytest.fixture(autouse=True)
def players(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = policies.available()
    own = {name: EntryPoint(name, f"{__name__}:{kind}", plugins.POLICIES) for name, kind in
           (("from-file", "FromFile"), ("from-several", "FromSeveral"))}  # fmt: skip
    monkeypatch.setattr(policies, "available", lambda: known | own)
    monkeypatch.chdir(tmp_path)
    CHAIN.save("tiny.toml")
    Path("w").write_text("0")


def benchmark(*arguments: str, out: str = "out", policies: tuple[str, ...] = ("idle", "from-file:w")) -> int:
    common = ("--scenario", "tiny.toml", *given(*policies), "--out", out)
    return dpem("benchmark", "loads", *common, *arguments)


def kept(policy: str, out: str = "out") -> dict[int, dict[str, Any]]:
    episodes = [json.loads(path.read_text()) for path in Path(out).glob("episodes/*/*.json")]
    return {(each["scenario"], each["index"]): each for each in episodes if each["policy"] == policy}  # type: ignore


SETS = 3  # the suite varies the scenario three times


def test_a_resumed_benchmark_plays_again_what_was_played_from_another_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("--seeds", "1") == 0
    before, idle = kept("from-file:w"), kept("idle")
    Path("w").write_text("1")
    capsys.readouterr()
    assert benchmark("--seeds", "2") == 0
    assert capsys.readouterr().err == f"playing {SETS} episodes again: the file w changed\n"
    after = kept("from-file:w")
    assert len(after) == 2 * SETS
    assert len({each["sources"]["the file w"] for each in after.values()}) == 1
    for place, episode in before.items():
        assert episode["metrics"]["submitted"] == 0 < after[place]["metrics"]["submitted"]
    assert idle.items() <= kept("idle").items()
    assert benchmark("--seeds", "2", out="anew") == 0
    assert kept("from-file:w", "anew") == after
    capsys.readouterr()
    assert benchmark("--seeds", "2") == 0
    assert capsys.readouterr().err == ""


def test_a_file_that_changes_while_a_benchmark_runs_ends_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[Any] = []

    def here(function: Any, items: Any) -> Any:
        for item in items:
            if len(played) == 3:
                Path("w").write_text("1")
            played.append(item)
            yield item, function(item)

    with monkeypatch.context() as patch:
        patch.setattr(work, "here", here)
        assert "the file w changed meanwhile" in complaint(
            capsys, "benchmark", "loads", "--scenario", "tiny.toml", "--policy", "from-file:w", "--seeds", "2",
            "--out", "out",
        )  # fmt: skip
    assert len(kept("from-file:w")) == 3
    assert benchmark("--seeds", "2", policies=("from-file:w",)) == 0
    assert capsys.readouterr().err == "playing 3 episodes again: the file w changed\n"


def test_a_policy_says_itself_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    for end in ("one", "two"):
        Path(f"v.{end}").write_text("0")
    assert benchmark("--seeds", "1", policies=("from-several:v",)) == 0
    Path("v.two").write_text("1")
    capsys.readouterr()
    assert benchmark("--seeds", "1", policies=("from-several:v",)) == 0
    assert capsys.readouterr().err == f"playing {SETS} episodes again: the file v.two changed\n"


def test_of_a_training_only_the_file_that_is_played_counts(repository: Path) -> None:
    trained = Path(shutil.copytree(repository / "agents" / "checkpoints" / "shipped" / "mesh20", "trained"))
    file = trained / "policy.npz"
    policy = PolicySpec(f"ppo:{trained}")
    before = Origins().of_policy(policy)
    assert f"the file {file}" in before
    assert "the code of dpem_agents" in before
    (trained / "events.out.tfevents").write_text("a curve")
    (trained / "learning_curve.json").write_text("other")
    assert Origins().of_policy(policy) == before
    played = load(file)
    Checkpoint(played.about | {"timesteps": 1}, played.arrays).save(file)
    assert changed(before, Origins().of_policy(policy)) == [f"the file {file}"]


@pytest.fixture
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


def save_gru(path: str, weight: float) -> None:
    """A forecaster of two nodes, all of whose weights are the same."""
    own = {"peers": np.array([[1], [0]], np.int32), "scale": np.ones((2, 1), np.float32)}
    own["size"] = own["scale"]
    own |= {name: np.full((2, *shape), weight, np.float32) for name, shape in forecasters.shapes("gru", 4, 5).items()}
    forecasters.Checkpoint("gru", "chain3-v0", "0" * 12, 5, 4, (own,)).save(path)


def test_the_file_and_code_of_a_forecaster_count() -> None:
    save_gru("g.npz", 0.1)
    policies = [
        PolicySpec("local-predictive", None, "gru:g.npz"),
        PolicySpec("central:local-predictive", 0.0, "gru:g.npz"),
    ]
    before = [Origins().of_policy(policy) for policy in policies]
    save_gru("g.npz", 0.2)
    for policy, old in zip(policies, before, strict=True):
        assert {"the code of dpem_agents", "the code of dpem_baselines"} <= old.keys()
        assert changed(old, Origins().of_policy(policy)) == ["the file g.npz"]
    assert not any("npz" in name for name in Origins().of_policy(PolicySpec("local-predictive", None, "none")))


def test_the_data_of_a_scenario_count(data_dir: Path) -> None:
    requests = Path("requests.csv")
    requests.write_text("time,source,destination,fidelity\n0.3,0,2,0.7\n")
    replay = scenarios.get("chain3-v0", kind="replay", requests_file=str(requests))
    before = Origins().of_scenario(replay)
    requests.write_text("time,source,destination,fidelity\n0.3,0,1,0.7\n")
    assert changed(before, Origins().of_scenario(replay)) == ["the file requests.csv"]
    for scenario, file in (("abilene-trace-v0", "abilene_20040301_5min_14d.npz"), ("coronet100-v0", "flat_CORONET")):
        copy = Path(shutil.copytree(data_dir, f"data-{scenario}", copy_function=shutil.copyfile))
        for folder in (copy, *copy.iterdir()):
            folder.chmod(0o755)
        before = Origins().of_scenario(scenarios.get(scenario, data_dir=copy))
        assert before == Origins().of_scenario(scenarios.get(scenario, data_dir=data_dir))  # wherever it lies
        for path in copy.rglob(f"{file}*"):
            path.write_bytes(b"else")
        assert changed(before, Origins().of_scenario(scenarios.get(scenario, data_dir=copy))) == [
            f"the {scenario.partition('-')[0].removesuffix('100')} data"
        ]


def test_a_topology_of_another_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    surfnet = scenarios.get("surfnet-v0")
    before = Origins().of_scenario(surfnet)
    file = Path("data/topozoo/Surfnet.json")
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    monkeypatch.setattr(topology, "files", lambda package: Path.cwd())
    assert changed(before, Origins().of_scenario(surfnet)) == ["the topology topozoo/Surfnet"]
    assert not any("topology" in name for name in Origins().of_scenario(CHAIN))


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("package_stamp", lambda name: "other", f"the code of {__name__.partition('.')[0]}"),
        ("version", lambda name: "0", "the version of llvmlite, the version of networkx, "),
    ],
)
def test_other_code_plays_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: Any, what: str
) -> None:
    assert benchmark("--seeds", "1", policies=("from-file:w",)) == 0
    capsys.readouterr()
    monkeypatch.setattr(origins, name, value)
    assert benchmark("--seeds", "1", policies=("from-file:w",)) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"playing {SETS} episodes again: ")
    assert what in said


def test_a_module_that_is_run_as_a_script_is_known_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path("script.py")
    script.write_text("A = 1")
    main = type(sys)("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(FromFile, "__module__", "__main__")
    before = Origins().of_policy(PolicySpec("from-file:w"))
    origins.package_stamp.cache_clear()
    script.write_text("A = 2")
    assert changed(before, Origins().of_policy(PolicySpec("from-file:w"))) == ["the code of __main__"]
    origins.package_stamp.cache_clear()


def test_options_that_were_tuned_anew_play_again(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--seeds", "1", "--tuned", "tuned")
    assert dpem("tune", "--scenario", "tiny.toml", "--policy", "acp", "--trials", "2", "--episodes", "1", "--out", "tuned") == 0  # fmt: skip # noqa: E501
    assert benchmark(*arguments, policies=("acp",)) == 0
    file = Path("tuned/tiny.json")
    found = json.loads(file.read_text())
    for trial in found["tuned"][0]["trials"]:
        trial["options"] = {"eagerness": 3.5}
    file.write_text(json.dumps(found))
    capsys.readouterr()
    assert benchmark(*arguments, policies=("acp",)) == 0
    assert capsys.readouterr().err == f"playing {SETS} episodes again: the options changed\n"
    assert {json.dumps(each["options"]) for each in kept("acp").values()} == {'{"eagerness": 3.5}'}


def test_a_search_that_goes_on_searches_again_what_was_found_with_another_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    contestants, path = [PolicySpec("idle"), PolicySpec("from-file:w")], Path("tuned.json")
    first = tune(contestants, CHAIN, path, 2, 1)
    assert tune(contestants, CHAIN, path, 2, 1) == first
    Path("w").write_text("1")
    again = tune(contestants, CHAIN, path, 2, 1)
    assert capsys.readouterr().err == "tuning 1 contestant again: the file w changed\n"
    assert [each["policy"] for each in again] == ["idle", "from-file:w"]
    assert again[0] == first[0]
    assert again[1]["best"]["reward"] != first[1]["best"]["reward"]
    assert json.loads(path.read_text())["tuned"] == again


def test_what_was_tuned_before_sources_were_kept_counts_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("tuned.json")
    tune([PolicySpec("from-file:w")], CHAIN, path, 2, 1)
    found = json.loads(path.read_text())
    del found["tuned"][0]["sources"]
    path.write_text(json.dumps(found))
    Path("w").write_text("1")
    totals: list[int] = []
    tune([PolicySpec("from-file:w")], CHAIN, path, 2, 1, on_start=totals.append)
    assert totals == [0]
    assert capsys.readouterr().err == ""


def test_a_search_on_another_scenario_of_the_name_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("tuned.json")
    tune([PolicySpec("idle")], CHAIN, path, 2, 1)
    other = CHAIN.override(name="tiny", request_rate=8.0)
    tune([PolicySpec("acp")], other, path, 2, 1)
    assert capsys.readouterr().err == "tuning all contestants again: the scenario changed\n"
    kept = json.loads(path.read_text())
    assert (kept["scenario_hash"], [each["policy"] for each in kept["tuned"]]) == (other.hash, ["acp"])


def test_a_file_that_changes_during_a_run_or_a_search_or_a_scoring_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    def change(*_: Any) -> None:
        Path("w").write_text("1")

    with pytest.raises(DpemError, match="the file w changed meanwhile"):
        tune([PolicySpec("idle"), PolicySpec("from-file:w")], CHAIN, Path("tuned.json"), 2, 1, on_episode=change)
    Path("w").write_text("0")
    with monkeypatch.context() as patch:
        patch.setattr(FromFile, "reset", change)
        run = ("run", "--scenario", "tiny.toml", "--policy", "from-file:w", "--seeds", "1", "--out", "run")
        assert "the file w changed while it was used: run it again" in complaint(capsys, *run)
    assert not Path("run/summary.json").exists()
    save_gru("g.npz", 0.1)
    with (
        pytest.raises(DpemError, match=r"the file g\.npz changed"),
        unchanged(lambda found: [found.of_forecaster("gru:g.npz")]),
    ):
        save_gru("g.npz", 0.2)
    measure_skill(CHAIN.override(slots=12), ["persistence"], 1)
