"""Forecasters that users bring: from files, modules and checkpoints, in every command and from Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpem_env
from dpem_agents.forecasters.checkpoint import Checkpoint
from dpem_env import scenarios
from dpem_env.demand.forecast import MovingAverage, get_forecaster
from dpem_env.demand.requests import mean_rates
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.origins import Origins, changed
from dpem_env.network.network import build_network
from dpem_env.policy_names import PolicyName
from dpem_env.support.errors import ContractError, PolicyError
from dpem_env.testing import check_forecaster
from support.command_line import complaint, dpem, given
from support.own_forecasters import write_own_forecasters

TINY = scenarios.get("chain3-v0", slots=60, request_rate=8.0, name="tiny")
RULE = "local-predictive"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_own_forecasters(tmp_path)
    TINY.save("tiny.toml")


def skill(*forecasters: str) -> dict[str, Any]:
    named = [word for each in forecasters for word in ("--forecaster", each)]
    assert dpem("forecast", "--scenario", "tiny.toml", *named, "--seeds", "2", "--out", "skill") == 0
    found = json.loads(Path("skill", "forecast.json").read_text())["forecasters"]
    return {each["name"]: each["skill"] for each in found}


def test_one_from_a_file_is_scored_like_the_same_one_that_comes_with_the_package() -> None:
    found = skill("./ours.py:Recent", "./ours.py:recent", "moving-average:40", "moving-average:8")
    assert found["./ours.py:Recent"] == pytest.approx(found["moving-average:40"])
    assert found["./ours.py:recent"] == pytest.approx(found["moving-average:8"])


def test_it_is_named_wherever_a_forecaster_is() -> None:
    played = ["--scenario", "tiny.toml"]
    for rule, own, same in ((RULE, "Recent", 40), ("central-predictive", "recent", 8)):
        played += given(f"{rule}+./ours.py:{own}", f"{rule}+moving-average:{same}")
    assert dpem("run", *played, "--delay", "0.5", "--seeds", "2", "--out", "run") == 0
    assert dpem("benchmark", "quick", *played, "--seeds", "2", "--out", "bench") == 0
    for folder in ("run", "bench"):
        contestants = json.loads(Path(folder, "summary.json").read_text())["scenarios"][0]["contestants"]
        rewards = {each["label"]: each["metrics"]["reward"]["mean"]["value"] for each in contestants}
        assert rewards[f"{RULE} +./ours.py:Recent"] == rewards[f"{RULE} +moving-average:40"]
        own, same = (f"central-predictive +{name} (delay 0.5 s)" for name in ("./ours.py:recent", "moving-average:8"))
        assert rewards[own] == rewards[same]
    world = ["--scenario", "tiny.toml", "--policy", RULE]
    assert dpem("run", *world, "--forecaster", "./ours.py:Recent", "--seeds", "1", "--out", "given") == 0
    assert dpem("tune", *played[:4], "--trials", "2", "--episodes", "1", "--out", "tuned") == 0
    assert dpem("run", *played[:4], "--tuned", "tuned", "--seeds", "1", "--out", "again") == 0


def test_from_python_it_may_be_a_name_an_object_or_a_class() -> None:
    sys.path.insert(0, ".")
    from ours import Recent  # type: ignore[import-not-found]

    rows = []
    for forecaster in ("./ours.py:Recent", Recent, Recent(), "moving-average:40"):
        envs = dpem_env.make_vec(TINY, 2, forecaster=forecaster)
        envs.reset(seed=0)
        rows.append([envs.step(np.zeros(envs.num_envs, dtype=np.int64))[0] for _ in range(30)])
    for other in rows[1:]:
        np.testing.assert_allclose(rows[0], other, rtol=1e-6)
    found = dpem_env.evaluate([RULE], TINY, seeds=1, forecaster=["./ours.py:Recent", "moving-average:40"])
    rewards = found.frame.query("metric == 'reward'")["value"]
    assert rewards.nunique() == 1


def test_an_object_in_a_file_serves_one_network_at_a_time() -> None:
    assert get_forecaster("./ours.py:recent") is not get_forecaster("./ours.py:recent")


def test_a_checkpoint_is_named_by_its_path_alone() -> None:
    network = build_network(TINY, 0)
    rates = mean_rates(TINY, network)
    weights = np.zeros((len(rates), 9, 4))
    arrays = {"peers": network.peers, "scale": np.maximum(rates, 1e-3), "weights": weights}
    Checkpoint("ridge", TINY.name, TINY.hash, 4, 0, (arrays,)).save("ours.npz")
    assert type(get_forecaster("./ours.npz")) is type(get_forecaster("ridge:ours.npz"))
    played = f"{RULE}+./ours.npz"
    assert PolicyName.parse(played).forecaster == "./ours.npz"
    by_kind = Origins().of_forecaster("ridge:ours.npz").items()
    by_path = {name.replace("ours.npz", "./ours.npz"): found for name, found in by_kind}
    assert Origins().of_forecaster("./ours.npz") == by_path
    world = ["--scenario", "tiny.toml", "--topology", "0", "--policy", played]
    assert dpem("run", *world, "--seeds", "1", "--out", "out") == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("./none.py:F", "there is no file 'none.py'"),
        ("./none.npz", "unknown forecaster './none.npz': there is no such file; one's own is written FILE.py:NAME"),
        ("./ours.py", "'./ours.py' is named, but nothing in it: ./ours.py:NAME"),
        ("./ours.py:Recnt", "did you mean 'Recent'?"),
        ("./ours.py:Nothing", "is no object with clairvoyant, reset, observe and predict"),
        ("./ours.py:Needs", "cannot be made without path: give defaults, or name an object"),
        ("./ours.py:built_in", "cannot be made: "),
        ("no.module:F", "there is no module 'no.module' to import"),
        ("./tiny.toml", "'./tiny.toml'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "forecast"])
def test_what_is_no_forecaster_is_told_in_one_line(
    command: str, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = ["--policy", RULE] if command == "run" else []
    assert told in complaint(capsys, command, "--scenario", "tiny.toml", *policy, "--forecaster", name, "--out", "out")


BROKEN = [
    ("Flat", "returned an array of shape (3,); expected (N, D, H) = "),
    ("Remembers", "forecasts otherwise when it is told the same again; forget everything in reset()"),
    ("Nosy", "when others make no requests; a node's forecast may depend on its own requests alone"),
]


@pytest.mark.parametrize(("kind", "told"), BROKEN)
def test_a_broken_promise_is_told_before_anything_is_played(
    kind: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"./ours.py:{kind}"
    for command in (["run", "--policy", f"{RULE}+{name}"], ["forecast", "--forecaster", name]):
        said = complaint(capsys, *command, "--scenario", "tiny.toml", "--out", "out")
        assert told in said
        assert name in said
    with pytest.raises((ContractError, PolicyError)) as error:
        check_forecaster(name, TINY)
    assert told in str(error.value)


def test_those_that_keep_their_promises_pass() -> None:
    for good in ("./ours.py:Recent", "./ours.py:recent", "./ours.py:Seer", "oracle", "bayes-filter", MovingAverage):
        check_forecaster(good, TINY)
    with pytest.raises(ContractError, match="makes no forecasts"):
        check_forecaster("none", TINY)


def test_what_fails_later_is_told_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    name = "./ours.py:Late"
    for command in (["run", "--policy", f"{RULE}+{name}"], ["forecast", "--forecaster", name, "--horizon", "4"]):
        said = complaint(capsys, *command, "--scenario", "tiny.toml", "--seeds", "1", "--out", "out")
        assert f"{name}: IndexError: too late (ours.py, line " in said


def test_results_tell_that_a_forecaster_has_changed() -> None:
    policy = PolicySpec(RULE, forecaster="./ours.py:Recent")
    before = Origins().of_policy(policy)
    Path("window.py").write_text("SLOTS = 20\n")
    assert changed(before, Origins().of_policy(policy)) == ["the code in window.py"]


@pytest.mark.parametrize(
    ("text", "policy", "forecaster"),
    [
        ("acp+./ours.py:Recent", "acp", "./ours.py:Recent"),
        ("./mine.py:Rule+./ours.py:Recent", "./mine.py:Rule", "./ours.py:Recent"),
        ("ppo:a+b+./ours.py:Recent", "ppo:a+b", "./ours.py:Recent"),
        ("ppo:a+b+package.module:Recent", "ppo:a+b", "package.module:Recent"),
    ],
)
def test_a_policy_is_told_from_a_forecaster_of_ones_own(text: str, policy: str, forecaster: str) -> None:
    name = PolicyName.parse(text)
    assert (str(name.policy), name.forecaster) == (policy, forecaster)
