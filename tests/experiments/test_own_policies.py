"""Policies that users bring: from files, modules, functions, models and objects, in every command and from Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpem_env
from dpem_env import scenarios
from dpem_env.envs.metric_labels import HEADLINE
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.origins import Origins, changed
from dpem_env.experiments.results import read
from dpem_env.logs.recorder import read_log
from dpem_env.policies import LocalPolicy, get_policy
from dpem_env.policy_names import PolicyName, labelled
from dpem_env.support.errors import DpemError, PolicyError
from support.command_line import complaint, dpem, given
from support.own_policies import HELPER, write_own_policies

TINY = scenarios.get("chain3-v0", slots=16, request_rate=8.0, name="tiny")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_own_policies(tmp_path)
    TINY.save("tiny.toml")


def run(*policies: str, more: tuple[str, ...] = ()) -> int:
    return dpem("run", "--scenario", "tiny.toml", *given(*policies), "--seeds", "2", "--out", "out", *more)


def labels(folder: str = "out") -> list[str]:
    [scenario] = json.loads(Path(folder, "summary.json").read_text())["scenarios"]
    return [each["label"] for each in scenario["contestants"]]


def test_labels_name_rows_results_and_logs() -> None:
    own = ("me=./mine.py:Stock", "mine.py:stock", "a (b)=./mine.py:wait+oracle", "c=./mine.py:Controller", "idle")
    assert run(*own, more=("--delay", "0", "--delay", "0.5")) == 0
    told = ["me", "mine.py:stock", "a (b) +oracle", "c (delay 0 s)", "c (delay 0.5 s)", "idle"]
    assert labels() == told
    logs = {path.name: read_log(path).header["policy"] for path in Path("out").glob("*-*.parquet")}
    assert sorted(logs.values()) == sorted(told)
    assert logs["me-0.parquet"] == "me"
    frame = read(Path("out")).frame
    assert set(frame["policy"]) == {"me", "mine.py:stock", "a (b)", "c", "idle"}


@pytest.mark.parametrize(
    ("text", "label", "what"),
    [
        ("me=./mine.py:X", "me", "./mine.py:X"),
        ("me=ppo:runs/a=b", "me", "ppo:runs/a=b"),
        ("ppo:runs/a=b", None, "ppo:runs/a=b"),
        ("acp+gru:a=b", None, "acp+gru:a=b"),
        ("./a=b/mine.py:X", None, "./a=b/mine.py:X"),
        ("a=b.zip", None, "a=b.zip"),  # it is there
        ("a=c.zip", "a", "c.zip"),
    ],
)
def test_a_label_is_told_from_a_path(text: str, label: str | None, what: str) -> None:
    Path("a=b.zip").touch()
    assert labelled(text) == (label, what)
    name = PolicyName.parse(what)
    assert str(name) == what


def test_a_file_may_lie_at_any_path() -> None:
    folder = Path("a+b, [c]:d=e.f")
    folder.mkdir()
    write_own_policies(folder)
    name = f"./{folder}/mine.py:Stock"
    assert run(name, f"{name}+oracle", f"central:{name}") == 0
    assert labels() == [name, f"{name} +oracle", f"central:{name} (delay 0 s)"]


@pytest.mark.parametrize(
    ("policies", "told"),
    [
        (
            ["me=./mine.py:FIVE"],
            "policy './mine.py:FIVE' is a int; expected a LocalPolicy, CentralPolicy or HybridPolicy",
        ),
        (["./mine.py:Plain"], "is a class of something else; expected"),
        (["./mine.py:Abstract"], "policy './mine.py:Abstract' has no act()"),
        (["./mine.py:Needs"], "cannot be made without path: give defaults, or name an object"),
        (["./mine.py:Breaks"], "cannot be made: OSError: no weights (mine.py, line "),
        (["./mine.py:Stok"], "'./mine.py' has no 'Stok'; did you mean 'Stock'?"),
        (["./mine.py"], "is named, but nothing in it: ./mine.py:NAME; known: "),
        (["me=./gone.py:Stock"], "there is no file 'gone.py'"),
        (["./syntax.py:Stock"], "'syntax.py' cannot be imported: SyntaxError: invalid syntax (syntax.py, line 1)"),
        (
            ["./raises.py:Stock"],
            "'raises.py' cannot be imported: ZeroDivisionError: division by zero (raises.py, line 2)",
        ),
        (["./ends.py:Stock"], "'ends.py' cannot be imported: SystemExit: 3 (ends.py, line 1)"),
        (["no.such:Stock"], "there is no module 'no.such' to import; a file is written ./mine.py:NAME"),
        (["json.decoder:Stock"], "'json.decoder' has no 'Stock'; "),
        (["me=./mine.py:floats"], "actions of policy me has shape (3,) and type float64; expected (3,) integers"),
        (["me=./mine.py:Late"], "policy me: IndexError: too late (mine.py, line "),
        (
            ["model.zip"],
            "there is no such file or folder; one's own is written FILE.py:NAME, package.module:NAME, MODEL",
        ),
        (["idel"], "did you mean 'idle'?; one's own is written FILE.py:NAME"),
        (["me=idle", "me=acp"], "two policies are called 'me', 'idle' and 'acp'"),
        (["idle=./mine.py:Stock"], "label 'idle' is the name of another policy"),
        (["m$=idle"], "label 'm$' of a policy: expected up to 60 letters"),
    ],
)
def test_what_cannot_play_is_told_in_one_line(
    policies: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("syntax.py").write_text("a b\n")
    Path("raises.py").write_text("\n1 / 0\n")
    Path("ends.py").write_text("raise SystemExit(3)\n")
    said = complaint(
        capsys, "run", "--scenario", "tiny.toml", *given(*policies, "idle"), "--seeds", "2", "--out", "out"
    )
    assert told in said
    assert not Path("out", "summary.json").exists()


def test_a_file_is_run_anew_when_it_changes() -> None:
    assert get_policy("./mine.py:Stock").least == 1  # type: ignore[union-attr]
    assert type(get_policy("./mine.py:Stock")) is type(get_policy("./mine.py:Stock"))
    Path("stock_rule.py").write_text("LEAST = 1 + 2\n")
    assert get_policy("./mine.py:Stock").least == 3  # type: ignore[union-attr]


def test_a_benchmark_plays_again_what_came_from_other_code(capsys: pytest.CaptureFixture[str]) -> None:
    def benchmark(*policies: str) -> str:
        arguments = ("--scenario", "tiny.toml", "--seeds", "2", "--out", "out")
        assert dpem("benchmark", "quick", *arguments, *given("me=./mine.py:Stock", *policies)) == 0
        return capsys.readouterr().err

    assert benchmark() == benchmark() == ""
    Path("stock_rule.py").write_text(f"# a comment\n{HELPER}")
    assert benchmark() == ""
    Path("stock_rule.py").write_text("LEAST = 1 + 1\n")
    assert benchmark() == "playing 2 episodes again: the code in stock_rule.py changed\n"
    Path("mine.py").write_text(Path("mine.py").read_text().replace("< self.least", "<= self.least"))
    assert benchmark("idle") == "playing 2 episodes again: the code in mine.py changed\n"
    arguments = ("--scenario", "tiny.toml", "--seeds", "2", "--out", "out", "--policy", "me=mine.py:wait")
    assert dpem("benchmark", "quick", *arguments) == 0
    assert capsys.readouterr().err == "playing 2 episodes again: what plays under its label changed\n"


def test_workers_import_the_file_themselves() -> None:
    arguments = ("--scenario", "tiny.toml", "--seeds", "2", "--workers", "2")
    policies = given("me=./mine.py:Stock", "f=mine.py:wait")
    for out, more in (("two", arguments), ("one", arguments[:-2])):
        assert dpem("benchmark", "quick", *policies, *more, "--out", out) == 0
    assert read(Path("two")).frame.equals(read(Path("one")).frame)


def test_what_a_class_leaves_to_tuning_is_searched_and_played(capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--scenario", "tiny.toml", "--policy", "me=./mine.py:Stock")
    assert dpem("tune", *common, "--trials", "3", "--episodes", "1", "--out", "tuned") == 0
    assert "│ me " in capsys.readouterr().out
    [found] = json.loads(Path("tuned/tiny.json").read_text())["tuned"]
    assert [each["options"] for each in found["trials"]] == [{}, {"least": 1}, {"least": 2}]
    assert dpem("benchmark", "quick", *common, "--seeds", "1", "--tuned", "tuned", "--out", "out") == 0
    [scenario] = json.loads(Path("out/summary.json").read_text())["scenarios"]
    assert scenario["contestants"][0]["options"] == found["best"]["options"]


def test_a_training_plays_by_its_path() -> None:
    pytest.importorskip("sb3_contrib", reason="needs the extra agents")
    common = ("--scenario", "tiny.toml", "--timesteps", "60", "--validation-episodes", "0", "--out")
    assert dpem("train", *common, "runs/a") == 0
    assert dpem("train", "--mode", "central", "--delay", "0.5", *common, "runs/b") == 0
    assert run("a=./runs/a", "b=runs/b/policy.npz", more=("--delay", "0.5")) == 0
    assert labels() == ["a", "b (delay 0.5 s)"]
    sources = Origins().of_policy(PolicySpec("./runs/a"))
    assert "the code of dpem_agents" in sources
    assert any(name.startswith("the file ") and name.endswith(".npz") for name in sources)


def test_two_folders_may_have_modules_of_one_name() -> None:
    for folder, least in (("one", "1"), ("two", "2 + 0")):
        Path(folder).mkdir()
        write_own_policies(Path(folder))
        Path(folder, "stock_rule.py").write_text(f"LEAST = {least}\n")
    for _ in range(2):
        found = [get_policy(f"./{folder}/mine.py:Stock").least for folder in ("one", "two")]  # type: ignore[union-attr]
        assert found == [1, 2]


# --- from Python ------------------------------------------------------------------------------------------------------


class Waits(LocalPolicy):
    """Does nothing."""

    def act(self, observations: Any, masks: Any) -> Any:
        return dpem_env.policies.Decision(np.zeros(len(masks), dtype=int))


def test_objects_are_compared_as_a_run_compares_them() -> None:
    players = {
        "class": Waits,
        "object": Waits(),
        "f": lambda _, masks: np.zeros(len(masks), int),
        "r": "local-reactive",
    }
    found = dpem_env.evaluate(players, "chain3-v0", seeds=3, slots=16, request_rate=8.0)
    intervals = found.intervals().set_index(["label", "metric"])
    for label in ("class", "object", "f"):
        assert intervals.loc[(label, "delivery_rate"), "mean"] == 0.0
    differences = found.differences().set_index(["label", "metric"])
    assert set(differences.index.get_level_values("label")) == {"object", "f", "r"}
    row, alone = differences.loc[("r", "delivery_rate")], intervals.loc[("r", "delivery_rate")]
    assert row["difference"] == alone["mean"] > 0
    assert row["low"] <= row["difference"] <= row["high"]
    assert (
        repr(found) == "<Results of chain3-v0+slots=16+request_rate=8.0, 3 episodes: class, object, f, r; see table()>"
    )
    told = found.table("delivery_rate", reference="object").xs("r", level="label").iloc[0]
    low, high = alone["low"], alone["high"]
    assert told["delivery_rate"] == f"{alone['mean']:.3f} [{low:.3f}, {high:.3f}]"
    low, high = row["low"], row["high"]
    assert told["delivery_rate minus object"] == f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
    usual = found.table()
    columns = [f"{metric}{minus}" for metric in HEADLINE for minus in ("", " minus class")]
    assert list(usual.columns) == columns
    assert (usual.xs("class", level="label").iloc[0, 1::2] == "").all()
    with pytest.raises(DpemError, match=r"metric is 'delivery'; did you mean 'delivery_rate'\?"):
        found.table("delivery")
    with pytest.raises(DpemError, match=r"reference is 'objec'; did you mean 'object'\?"):
        found.table("delivery_rate", reference="objec")
    assert run("local-reactive") == 0
    assert dpem_env.evaluate(["local-reactive"], "tiny.toml", seeds=2).frame.equals(read(Path("out")).frame)


@pytest.mark.slow
def test_they_may_play_in_other_processes_by_their_file() -> None:
    players = {"me": "./mine.py:Stock", "idle": "idle"}
    one, two = (dpem_env.evaluate(players, TINY, seeds=2, workers=workers).frame for workers in (1, 2))
    assert one.equals(two)


@pytest.mark.parametrize(
    ("policies", "more", "told"),
    [
        ({}, {}, "policies is empty"),
        ("idle", {}, "policies is no list of names; expected labels and what plays"),
        ([Waits()], {}, "policies is no list of names; expected labels and what plays"),
        ({"a": 5}, {}, "policy is 5; expected a name"),
        ({"a/b": "idle"}, {}, "label 'a/b' of a policy"),
        ({"a": lambda _, masks: masks[:, 0]}, {"workers": 2}, "which other processes cannot import"),
        ({"a": "idle"}, {"reference": "b"}, "reference is 'b'; known: a"),
        ({"a": "idle"}, {"seeds": 0}, "seeds is 0; expected a number of episodes >= 1"),
        ({"a": "idle"}, {"trust": ["b.zip"]}, "--trust is 'b.zip', which no policy that plays is read from"),
        (["idle"], {"split": "test"}, "split is 'test'; expected one of"),
    ],
)
def test_a_mistake_in_python_is_told_in_one_line(policies: Any, more: dict[str, Any], told: str) -> None:
    with pytest.raises(DpemError, match=told):
        dpem_env.evaluate(policies, TINY, **more)


# --- models of Stable-Baselines3 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A briefly trained model of every kind."""
    pytest.importorskip("sb3_contrib", reason="needs the extra agents")
    from sb3_contrib import MaskablePPO, RecurrentPPO
    from stable_baselines3 import DQN, PPO

    from dpem_agents.ppo.vec_env import NodeVecEnv

    folder, envs = tmp_path_factory.mktemp("models"), NodeVecEnv("chain3-v0", num_networks=2)
    short: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "seed": 0}
    for name, model in {
        "masked": MaskablePPO("MlpPolicy", envs, **short),
        "plain": PPO("MlpPolicy", envs, **short),
        "recurrent": RecurrentPPO("MlpLstmPolicy", envs, **short),
        "values": DQN("MlpPolicy", envs, learning_starts=8, buffer_size=100, seed=0),
    }.items():
        model.learn(48).save(folder / f"{name}.zip")
    return folder


@pytest.mark.parametrize("kind", ["masked", "plain", "recurrent", "values"])
def test_a_model_of_stable_baselines3_plays(models: Path, kind: str) -> None:
    name = f"{models}/{kind}.zip"
    assert run(f"sb3={name}", "idle", more=("--trust", name)) == 0
    assert labels() == ["sb3", "idle"]
    [sources] = [Origins().of_policy(PolicySpec(name, trusted=True))]
    assert {f"the file {name}", "the code of dpem_agents"} <= sources.keys()


def test_a_model_decides_as_it_predicts(models: Path) -> None:
    from sb3_contrib import MaskablePPO

    model, policy = MaskablePPO.load(models / "masked.zip"), get_policy(f"{models}/masked.zip", trusted=True)
    envs = dpem_env.make_vec(TINY)
    observations, infos = envs.reset(seed=0)
    masks = infos["action_mask"]
    policy.reset(TINY, envs.session.network, 0)
    seen = envs.observer.table.read(observations)
    expected, _ = model.predict(observations, action_masks=masks, deterministic=True)
    assert policy.act(seen, masks).action.tolist() == expected.tolist()  # type: ignore[call-arg, arg-type]


def test_a_pickle_is_opened_for_those_only_who_trust_it(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("seed0.zip").write_bytes((models / "masked.zip").read_bytes())
    Path("seed1.zip").write_bytes((models / "plain.zip").read_bytes())
    common = ("run", "--scenario", "tiny.toml", "--seeds", "2", "--out", "out")
    said = complaint(capsys, *common, "--policy", "me=seed0.zip")
    assert "'seed0.zip' holds pickled objects, which run code when they are opened" in said
    assert "add --trust seed0.zip" in said
    said = complaint(capsys, *common, "--policy", "me=seed0.zip", "--trust", "seed1.zip")
    assert "holds pickled objects" in said
    assert run("me=seed*.zip", more=("--trust", "seed*.zip")) == 0
    assert labels() == ["me, 2 training seeds"]
    before = Origins().of_policy(PolicySpec("seed0.zip", trusted=True))
    Path("seed0.zip").write_bytes((models / "plain.zip").read_bytes())
    assert changed(before, Origins().of_policy(PolicySpec("seed0.zip", trusted=True))) == ["the file seed0.zip"]


def test_a_model_of_another_scenario_or_another_zip_is_told(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.zip").write_text("no zip")
    trusting = ("--seeds", "2", "--out", "out", "--trust")
    own = ("run", "--scenario", "tiny.toml", "--policy", "me=other.zip", *trusting, "other.zip")
    assert "model 'other.zip' cannot be used: " in complaint(capsys, *own)
    name = f"{models}/plain.zip"
    said = complaint(capsys, "run", "--scenario", "mesh20-v0", "--policy", name, *trusting, name)
    assert "the model takes observations of shape " in said
    with pytest.raises(PolicyError, match="there is no 'trusted'"):
        get_policy("idle", trusted=True)
