"""Agents in processes of their own: honest policies decide as logged, whoever knows more than a node does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpem_env import scenarios
from dpem_env.experiments.contestants import contestants
from dpem_env.experiments.isolation import Found, decided_alone
from dpem_env.experiments.workers import WorkItem
from dpem_env.logs.recorder import EpisodeRecorder, read_log
from dpem_env.policy_contract import check_policy
from dpem_env.support.errors import PolicyError
from support.cheats import write_cheats
from support.episode_logs import rewrite

BUSY = scenarios.get("mesh20-v0", slots=30, request_rate=16.0)
NODES = [7]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cheats(tmp_path)


def logged(policy: str, path: Path, delay: float = 0.5) -> WorkItem:
    """An episode that a policy has played, with its log."""
    [contestant] = contestants([policy], [delay])
    item = WorkItem(BUSY, "evaluation", 0, contestant.policies[0])
    recorder = EpisodeRecorder()
    item.play(recorder)
    recorder.save(path)
    return item


def asked(policy: str, folder: Path, slots: int = 30) -> Found:
    path = folder / "episode.parquet"
    return decided_alone(logged(policy, path), read_log(path), NODES, slots)


@pytest.mark.parametrize(
    "policy", ["local-reactive", "maxweight", "ppo:mesh100", "random-legal", "local-predictive+bayes-filter"]
)
def test_nodes_of_honest_policies_decide_alone_as_they_have(policy: str, tmp_path: Path) -> None:
    found = asked(policy, tmp_path)
    assert found.difference is None
    assert found.asked == 30 * len(NODES)
    assert found.seeded == (policy == "random-legal")


@pytest.mark.parametrize(
    ("policy", "decisions"),
    [("central-maxweight", 28), ("central:maxweight", 28), ("hybrid-maxweight", 30)],  # it is blind for two slots
)
def test_controllers_decide_as_they_have_on_their_late_view_alone(policy: str, decisions: int, tmp_path: Path) -> None:
    found = asked(policy, tmp_path)
    assert (found.difference, found.asked) == (None, decisions)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["Peeks", "Shares"])
def test_a_policy_that_knows_of_other_nodes_is_caught_though_a_trial_does_not_see_it(name: str, tmp_path: Path) -> None:
    check_policy(f"./cheats.py:{name}", BUSY)
    found = asked(f"./cheats.py:{name}", tmp_path)
    assert found.difference is not None
    slot, _, told = found.difference.partition(": ")
    assert int(slot.removeprefix("slot ")) >= 15
    assert told in [f"node 7 decides action {[a]} by itself, {[1 - a]} in the log" for a in (0, 1)]


@pytest.mark.usefixtures("own")
def test_the_honest_kind_of_them_is_not_caught_and_one_that_draws_lots_is_told_of(tmp_path: Path) -> None:
    assert asked("./cheats.py:Late", tmp_path) == Found(None, False, 30)
    assert asked("./cheats.py:Seeded", tmp_path) == Found(None, True, 30)


@pytest.mark.usefixtures("own")
def test_a_forecaster_that_tells_nodes_of_others_is_caught(tmp_path: Path) -> None:
    found = asked("maxweight+./cheats.py:Forecasts", tmp_path)
    assert found.difference == "slot 15: node 7 expects other requests by itself"


@pytest.mark.usefixtures("own")
def test_what_a_policy_raises_in_its_process_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(
        PolicyError, match=r"node 7, in a process of its own: ValueError: all rows are one \(cheats.py, line"
    ):
        asked("./cheats.py:Breaks", tmp_path)


def test_a_decision_that_was_changed_in_the_log_is_found(tmp_path: Path) -> None:
    path, changed = tmp_path / "episode.parquet", tmp_path / "changed.parquet"
    item = logged("local-reactive", path)

    def change(header: dict[str, object], rows: list[dict[str, list[int]]]) -> None:
        rows[5]["action"][7] += 1

    rewrite(path, changed, change)
    found = decided_alone(item, read_log(changed), NODES, 10)
    assert found.difference is not None
    assert found.difference.startswith("slot 5: node 7 decides action")
    assert decided_alone(item, read_log(changed), NODES, 5).difference is None
