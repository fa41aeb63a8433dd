"""Submissions: what is declared, what is played, and that the check names whatever is not so."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments import cards
from dpem_env.experiments.cards import CARD, read_card
from dpem_env.experiments.leaderboard import V1, beacon_value
from dpem_env.experiments.submission import log_of, make_submission
from dpem_env.experiments.submission_check import Claim, Sample, Verdict, check, seal
from dpem_env.logs.recorder import recorded_digest
from dpem_env.policies import get_policy
from dpem_env.support.errors import DpemError, PolicyError
from dpem_env.support.files import write_json
from support.cheats import write_cheats
from support.command_line import Interrupt, complaint, dpem
from support.episode_logs import rewrite

PAGE = (Path(__file__).parents[2] / "docs" / "leaderboard.md").read_text("utf-8")
BEACON = "0123456789ABCDEF" * 4
INCOMPLETE = (
    "card.json: incomplete, as a trial is: 13 of 15 episodes of mesh20-v0, 15 of 15 episodes of surfnet-v0, 15 of 15 "
    "episodes of mesh100-v0 are missing; submit again without --trial"
)
DECIDED = "decisions made again by agents in processes of their own: 48 slots of mesh20-v0-0"


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("submission") / "trial"
    assert dpem("submit", "--policy", "me=local-reactive", "--trial", "--out", str(folder)) == 0
    return folder


@pytest.fixture
def copy(trial: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trial, tmp_path / "copy"))


def complaints(folder: Path) -> list[str]:
    return check(Claim.read(folder), Sample(0)).complaints


# --- what is declared -------------------------------------------------------------------------------------------------


def test_the_declared_scenarios_are_those_of_this_version() -> None:
    assert {name: V1.scenario(name).hash for name in V1.scenarios} == dict(V1.scenarios)
    assert V1.digest == hashlib.sha256(V1.text.encode()).hexdigest()
    assert V1.digest in PAGE
    assert V1.text in PAGE.replace("\n> ", " ")


def test_held_out_seeds_are_those_of_the_evaluation_split() -> None:
    scenario = scenarios.get("surfnet-v0")
    assert V1.seeds(scenario, 3, None) == episode_seeds(scenario, "evaluation", 3) == (2003, 2_000_003)


def test_seeds_of_a_beacon_follow_from_the_formula_on_the_page() -> None:
    value = beacon_value(f" 0x{BEACON}\n")
    assert value == BEACON.lower()
    for what, seed in V1.seeds(scenarios.get("mesh20-v0"), 3, value)._asdict().items():
        text = f"{V1.digest}:{value}:mesh20-v0:3:{what}"
        assert seed == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2
    [block] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "page", "exec"), names)
    assert V1.seeds(scenarios.get("mesh20-v0"), 0, names["beacon"]).demand == names["seed"]
    drawn = {V1.seeds(scenarios.get(name), index, value) for name in V1.scenarios for index in range(V1.episodes)}
    assert len(drawn) == len(V1.scenarios) * V1.episodes


@pytest.mark.parametrize(
    ("policy", "track", "delay", "told"),
    [
        ("central-lp", "decentralized", None, "CentralLP has a controller; expected a local policy"),
        ("maxweight", "central", 0.5, "MaxWeight is local; central:NAME puts it under central control"),
        ("central-lp", "central", None, "there is no --delay; expected one of 0, 0.5, 1 s"),
        ("central-lp", "central", 0.25, "--delay is 0.25; expected one of 0, 0.5, 1 s"),
        ("maxweight", "decentralized", 0.5, "--delay is 0.5; only track 'central' has one"),
    ],
)
def test_a_track_says_who_may_play_on_it(policy: str, track: Any, delay: float | None, told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        V1.require(track, delay, get_policy(policy), None)


def test_only_the_unrestricted_track_knows_the_future() -> None:
    with pytest.raises(PolicyError, match="Oracle knows the future; expected on track 'unrestricted' alone"):
        V1.require("decentralized", None, get_policy("maxweight"), "oracle")
    V1.require("unrestricted", None, get_policy("maxweight"), "oracle")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--policy", "maxweight", "--beacon", "today"], "beacon is 'today'; expected 32 to 256 hexadecimal digits"),
        (["--policy", "central-reactive"], "there is no --delay; expected one of 0, 0.5, 1 s"),
        (["--policy", "ppo:mesh*"], "no file matches"),
    ],
)
def test_what_cannot_be_submitted_is_told_before_anything_is_written(
    argv: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in complaint(capsys, "submit", *argv, "--trial", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# --- what is played ---------------------------------------------------------------------------------------------------


def test_a_submission_has_a_card_and_a_log_of_every_episode(trial: Path) -> None:
    card = read_card(trial / CARD)
    assert (card.name, card.track, card.policy.plays, card.checked) == ("me", "decentralized", "local-reactive", None)
    [played] = card.scenarios
    assert [each.log for each in played.episodes] == [log_of("mesh20-v0", 0), log_of("mesh20-v0", 1)]
    assert all((trial / each.log).is_file() for each in played.episodes)
    values = [each.scores.delivery_rate for each in played.episodes]
    mean = played.means.delivery_rate
    assert mean is not None
    assert mean.value == pytest.approx(np.mean(np.array(values, dtype=float)))
    summary = json.loads((trial / "summary.json").read_text())
    [contestant] = summary["scenarios"][0]["contestants"]
    assert contestant["metrics"]["delivery_rate"]["mean"]["value"] == pytest.approx(mean.value, rel=1e-6)


def test_interrupted_the_same_command_plays_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["submit", "--policy", "local-reactive", "--trial", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as during:
        during.setattr("dpem_baselines.local.LocalReactive.act", Interrupt(450))
        assert dpem(*command) == 130
    first = tmp_path / "out" / log_of("mesh20-v0", 0)
    before = first.stat().st_mtime_ns
    assert not (tmp_path / "out" / CARD).exists()
    assert dpem(*command) == 0
    assert first.stat().st_mtime_ns == before
    first.unlink()
    assert dpem(*command) == 0
    assert first.is_file()


def test_another_beacon_is_another_submission(tmp_path: Path) -> None:
    plans = [make_submission("maxweight", tmp_path, beacon=value) for value in (None, BEACON, BEACON[::-1])]
    items = [plan.items() for plan in plans]
    assert len({item.seeds for of_one in items for item in of_one}) == sum(map(len, items)) - V1.episodes * 2
    assert len(items[0]) == len(V1.scenarios) * V1.episodes  # held-out seeds are the same in all scenarios


# --- the check --------------------------------------------------------------------------------------------------------


def test_a_trial_is_right_but_incomplete(trial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trial / CARD).read_text()
    assert dpem("submit", "check", str(trial), "--seed", "1") == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [INCOMPLETE, "2 logs came out again bit for bit, with the scores of the card"]
    assert said[2].startswith(DECIDED)
    assert len(said) == 3
    assert (trial / CARD).read_text() == before


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / CARD).read_text())
    change(card)
    write_json(folder / CARD, card)


def first(card: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = card["scenarios"][0]["episodes"][0]
    return found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda card: first(card)["scores"].update(contention=0.0),
            "logs/mesh20-v0-00.parquet: the card says that its contention is 0.0; it is ",
        ),
        (
            lambda card: card["scenarios"][0]["means"]["reward"].update(value=9.0),
            "card.json: the means of mesh20-v0 are not those of its episodes",
        ),
        (
            lambda card: first(card)["seeds"].update(demand=7),
            "logs/mesh20-v0-00.parquet: the card gives it the seeds {'topology': 2000, 'demand': 7}; expected {",
        ),
        (
            lambda card: first(card).update(log="logs/best.parquet"),
            "logs/best.parquet: expected the name logs/mesh20-v0-00.parquet",
        ),
        (lambda card: first(card).update(digest="0"), "logs/mesh20-v0-00.parquet: its digest is "),
        (
            lambda card: card["scenarios"][0]["episodes"].pop(0),
            "card.json: episodes of mesh20-v0 are [1]; expected 0 to 14, in order",
        ),
        (
            lambda card: card["scenarios"][0].update(hash="0"),
            "card.json: mesh20-v0 has the hash 0; expected 7fdfdc814ca7",
        ),
        (
            lambda card: card["scenarios"].append(card["scenarios"][0] | {"name": "easy"}),
            "card.json: scenario 'easy' is there 1 times",
        ),
        (lambda card: card["leaderboard"].update(version="v0"), "card.json: it is for leaderboard v0 "),
        (lambda card: card.update(stamp="0"), "card.json: it was made by dpem_env of other code (stamp 0; now "),
        (lambda card: card.update(beacon=BEACON), "card.json: beacon is "),
        (lambda card: card.update(track="central"), "card.json: track 'central': LocalReactive is local"),
        (lambda card: card["policy"].update(called="you"), "logs/mesh20-v0-00.parquet: its policy is me; expected you"),
        (
            lambda card: card["sources"].update({"the code of dpem_baselines": "0"}),
            "card.json: the code of dpem_baselines is another one than was played",
        ),
    ],
)
def test_a_card_that_is_not_right_is_told_of(change: Callable[[dict[str, Any]], object], told: str, copy: Path) -> None:
    edited(copy, change)
    found = complaints(copy)
    assert any(line.startswith(told) for line in found), found


def test_a_card_that_is_none_is_told_of(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(copy, lambda card: card.update(track="fastest"))
    assert "card.json' cannot be used: card.track: expected 'decentralized', " in complaint(
        capsys, "submit", "check", str(copy)
    )
    edited(copy, lambda card: card.update(track="decentralized") or first(card)["scores"].pop("reward"))
    assert "card.scenarios.0.episodes.0.scores.reward" in complaint(capsys, "submit", "check", str(copy))
    assert "is no folder" in complaint(capsys, "submit", "check", str(copy / CARD))


def test_a_log_that_is_missing_or_was_changed_is_told_of(copy: Path) -> None:
    one, other = (copy / log_of("mesh20-v0", index) for index in (0, 1))
    one.unlink()

    def change(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows[9]["delivered"][3] += 1

    rewrite(other, other, change)
    edited(copy, lambda card: card["scenarios"][0]["episodes"][1].update(digest=recorded_digest(other)))
    missing, changed = complaints(copy)
    assert missing.startswith("logs/mesh20-v0-00.parquet: log ")
    assert missing.endswith("cannot be used: No such file or directory")
    assert changed.startswith("logs/mesh20-v0-01.parquet: not verified: ")
    assert "differs from the log: slot 9, delivered[3]: " in changed


def test_a_cheat_is_played_and_caught_by_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cheats(tmp_path)
    assert dpem("submit", "--policy", "best=./cheats.py:Shares", "--trial", "--out", "out") == 0
    found = complaints(Path("out"))
    assert found[0].startswith("logs/mesh20-v0-0")
    assert "by itself" in found[0]
    Path("theirs").mkdir()
    Path("theirs/cheats.py").write_text(Path("cheats.py").read_text().replace("HONEST = 15", "HONEST = 999"))
    assert check(Claim.read(Path("out"), "./theirs/cheats.py:Shares"), Sample(0)).complaints == [
        "card.json: the code in cheats.py is another one than was played; expected what was submitted"
    ]


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_card_and_says_what_is_a_trial(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dpem("submit", "table", str(trial)) == 0
    titles, _, row = (
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in capsys.readouterr().out.splitlines()
    )
    assert titles == ["track", "policy", "seeds", "checked", "mesh20-v0"]
    assert row[:4] == ["decentralized", "me", "held-out", "a trial"]
    assert "has no card" in complaint(capsys, "submit", "table", str(tmp_path))


def test_a_card_says_what_was_checked(trial: Path) -> None:
    sealed = cards.Card.model_validate(seal(Claim.read(trial), Verdict([], 2, "all")))
    assert sealed.checked is not None
    assert (sealed.checked.by, sealed.checked.logs, sealed.checked.decisions) == ("dpem submit check", 2, "all")
    with pytest.raises(DpemError, match=r"card.json' cannot be used"):
        read_card(trial / "logs" / CARD)
