"""Tuning: an equal budget, validation seeds, and a search that can be continued."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dpem_env import scenarios
from dpem_env.errors import DpemError, PolicyError
from dpem_env.evaluation import Arm, run_episode
from dpem_env.session import episode_seeds

SCRIPT = Path(__file__).resolve().parents[2] / "baselines" / "tune.py"
SMALL = scenarios.get("star8-v0", slots=40)


@pytest.fixture(scope="module")
def tuning() -> Any:
    spec = importlib.util.spec_from_file_location("tune", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_trial_is_scored_by_its_mean_reward_on_validation_episodes(tuning: Any) -> None:
    found = tuning.tune(Arm("maxweight"), SMALL, budget=4, episodes=2)
    assert len(found["trials"]) == 4
    assert found["trials"][0]["options"] == {}
    assert len({json.dumps(trial["options"]) for trial in found["trials"]}) == 4
    for trial in found["trials"]:
        arm = Arm("maxweight", options=tuple(trial["options"].items()))
        rewards = [run_episode(SMALL, arm.make(), episode_seeds(SMALL, "validation", k))[0].reward for k in range(2)]
        assert trial["reward"] == pytest.approx(sum(rewards) / 2)
    assert found["best"]["reward"] == max(trial["reward"] for trial in found["trials"])
    assert found["default_reward"] == found["trials"][0]["reward"]


def test_a_policy_without_a_search_space_is_scored_once(tuning: Any) -> None:
    assert [trial["options"] for trial in tuning.tune(Arm("idle"), SMALL, budget=4, episodes=1)["trials"]] == [{}]


def test_options_of_an_arm_reach_the_policy_and_its_label() -> None:
    arm = Arm("central-reactive", 0.5, options=(("utilisation_limit", 0.25),))
    assert arm.make().utilisation_limit == 0.25
    assert arm.label == "central-reactive [utilisation_limit=0.25] (delay 0.5 s)"
    with pytest.raises(PolicyError, match="does not take these options"):
        Arm("idle", options=(("speed", 1),)).make()


def test_a_search_goes_on_where_it_was_stopped(
    tuning: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned.json"
    command = ["tune.py", "--scenario", "star8-v0", "--trials", "2", "--episodes", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--policies", "idle"])
    assert tuning.main() == 0
    first = json.loads(out.read_text())["tuned"]
    monkeypatch.setattr(sys, "argv", [*command, "--policies", "idle,central-reactive", "--delay", "0.5"])
    played: list[Arm] = []
    whole = tuning.tune
    monkeypatch.setattr(tuning, "tune", lambda arm, *rest: played.append(arm) or whole(arm, *rest))
    assert tuning.main() == 0
    both = json.loads(out.read_text())["tuned"]
    assert played == [Arm("central-reactive", 0.5)]
    assert both[:1] == first
    assert "central-reactive (delay 0.5 s): reward" in capsys.readouterr().out


def test_a_file_of_another_search_is_refused(tuning: Any, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps(tuning.header(SMALL, 16, 3) | {"tuned": []}))
    assert tuning.finished(path, tuning.header(SMALL, 16, 3)) == []
    with pytest.raises(DpemError, match="made with trials 16, not 8"):
        tuning.finished(path, tuning.header(SMALL, 8, 3))
