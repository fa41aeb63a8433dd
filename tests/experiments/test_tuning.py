"""Tuning: an equal budget, validation seeds, a search that can be continued, and what a benchmark makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dpem_env import scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments import tuning
from dpem_env.experiments.checking import named
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.tuning import Tuned, tune
from dpem_env.simulator import RULES_VERSION
from dpem_env.support.errors import DpemError, DpemWarning, PolicyError
from dpem_env.support.provenance import stamp
from support.command_line import complaint, dpem

SMALL = scenarios.get("star8-v0", slots=40, name="small")


def save(folder: Path, *tuned: dict[str, Any], scenario: scenarios.Scenario = SMALL) -> Tuned:
    path = folder / f"{scenario.name}.json"
    path.write_text(json.dumps(tuning.header(scenario, 16, 3) | {"tuned": list(tuned)}))
    return Tuned(folder)


def found(
    policy: str, limit: float, delay: float | None = None, forecaster: str | None = None, option: str = "link_cost"
) -> dict[str, Any]:
    best = {"options": {option: limit}, "reward": 1.0, "contention": 0.01, "charges": 2.0}
    key = {"policy": policy, "delay": delay, "forecaster": forecaster}
    return key | {"best": best, "default_reward": 0.5, "trials": [best]}


def test_an_evolution_strategy_is_told_what_its_trials_came_to(tmp_path: Path) -> None:
    path, episodes = tmp_path / "small.json", []
    specs = [PolicySpec("priced"), PolicySpec("local-reactive")]
    found = tune(specs, SMALL, path, 30, 2, method="cma-es", on_episode=lambda _: episodes.append(1))
    kept = {each["policy"]: each["trials"] for each in tuning.finished(path, tuning.header(SMALL, 30, 2, "cma-es"))}
    assert {each["policy"]: each["trials"] for each in found} == kept
    assert kept["priced"][0]["options"] == {}
    assert 20 < len(kept["priced"]) <= 30
    assert len(episodes) == 2 * sum(map(len, kept.values()))
    best = {each["policy"]: each["best"] for each in found}
    assert max(kept["priced"], key=lambda trial: trial["reward"]) == best["priced"] != kept["priced"][0]
    with pytest.raises(DpemError, match="was made with method 'cma-es', not 'random'"):
        tune(specs, SMALL, path, 30, 2)


def test_every_trial_is_scored_by_its_mean_reward_on_validation_episodes(tmp_path: Path) -> None:
    [result] = tune([PolicySpec("maxweight")], SMALL, tmp_path / "small.json", budget=4, episodes=2)
    assert len(result["trials"]) == 4
    assert result["trials"][0]["options"] == {}
    assert len({json.dumps(trial["options"]) for trial in result["trials"]}) == 4
    for trial in result["trials"]:
        policy = PolicySpec("maxweight", options=tuple(trial["options"].items()))
        played = [run_episode(SMALL, policy.make(), episode_seeds(SMALL, "validation", k))[0] for k in range(2)]
        for outcome in tuning.OUTCOMES:
            assert trial[outcome] == pytest.approx(sum(getattr(each, outcome) for each in played) / 2)
    assert result["best"]["reward"] == max(trial["reward"] for trial in result["trials"])
    assert result["default_reward"] == result["trials"][0]["reward"]


@pytest.mark.parametrize(
    ("price", "limit"), [(0.05, 3.0), (0.0, 3.0), (0.14, 3.0), (0.16, 1.0), (0.5, 1.0), (9.0, 7.0)]
)
def test_at_another_price_of_contention_another_trial_is_the_best(tmp_path: Path, price: float, limit: float) -> None:
    tuned = found("acp", 3.0, option="eagerness")
    trials = [(3.0, 1.0, 2.0), (1.0, 0.9, 1.0), (7.0, 0.2, 0.0), (2.0, 0.8, 1.0)]  # option, reward at 0.05, charges
    tuned["trials"] = [
        {"options": {"eagerness": option}, "reward": reward, "contention": 0.0, "charges": charges}
        for option, reward, charges in trials
    ]
    dearer = SMALL.override(contention_penalty=price)
    assert save(tmp_path, tuned).policy(dearer, PolicySpec("acp")).options == (("eagerness", limit),)


def test_a_trial_is_worth_at_another_price_what_it_earns_there(tmp_path: Path) -> None:
    [cheap] = tune([PolicySpec("local-reactive")], SMALL, tmp_path / "small.json", budget=3, episodes=2)
    dear = SMALL.override(contention_penalty=0.55)
    [again] = tune([PolicySpec("local-reactive")], dear, tmp_path / "dear.json", budget=3, episodes=2)
    assert sum(trial["charges"] for trial in cheap["trials"]) > 0
    for one, other in zip(cheap["trials"], again["trials"], strict=True):
        assert other["charges"] == one["charges"]
        assert other["reward"] == pytest.approx(one["reward"] - 0.5 * one["charges"])


def test_a_policy_without_a_search_space_is_scored_once(tmp_path: Path) -> None:
    [result] = tune([PolicySpec("idle")], SMALL, tmp_path / "small.json", budget=4, episodes=1)
    assert [trial["options"] for trial in result["trials"]] == [{}]


def test_every_delay_and_forecaster_is_searched_on_its_own(tmp_path: Path) -> None:
    contestants = [PolicySpec("central-reactive", delay) for delay in (0.0, 0.5)] + [
        PolicySpec("acp"),
        PolicySpec("acp", None, "mean-rates"),
    ]
    results = tune(contestants, SMALL, tmp_path / "small.json", budget=2, episodes=1)
    assert [(each["policy"], each["delay"], each["forecaster"]) for each in results] == [
        (policy.name, policy.delay, policy.forecaster) for policy in contestants
    ]
    for one, other in ((0, 1), (2, 3)):
        assert results[one]["trials"][0]["reward"] != results[other]["trials"][0]["reward"]


def test_options_of_an_arm_reach_the_policy_and_its_label() -> None:
    policy = PolicySpec("central-reactive", 0.5, options=(("utilisation_limit", 0.25),))
    assert policy.make().utilisation_limit == 0.25
    assert policy.label == "central-reactive [utilisation_limit=0.25] (delay 0.5 s)"
    with pytest.raises(PolicyError, match="does not take these options"):
        PolicySpec("idle", options=(("speed", 1),)).make()


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    first = tune([PolicySpec("idle")], SMALL, path, 2, 1)
    contestants = [PolicySpec("idle"), PolicySpec("central-reactive", 0.5), PolicySpec("acp")]
    played: list[PolicySpec] = []

    def stop_at_the_third(policy: PolicySpec) -> None:
        played.append(policy)
        if len(played) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(contestants, SMALL, path, 2, 1, on_episode=stop_at_the_third)
    assert played == [PolicySpec("central-reactive", 0.5)] * 2 + [PolicySpec("acp")]
    kept = json.loads(path.read_text())["tuned"]
    assert kept[:1] == first
    totals: list[int] = []
    whole = tune(contestants, SMALL, path, 2, 1, on_start=totals.append)
    assert totals == [2]  # both trials of acp
    assert whole[:2] == kept
    assert [each["policy"] for each in whole] == ["idle", "central-reactive", "acp"]


def test_a_file_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(tuning.header(SMALL, 16, 3) | {"tuned": []}))
    assert tuning.finished(path, tuning.header(SMALL, 16, 3)) == []
    with pytest.raises(DpemError, match="made with trials 16, not 8"):
        tuning.finished(path, tuning.header(SMALL, 8, 3))


def test_an_arm_takes_what_was_tuned_at_the_nearest_delay(tmp_path: Path) -> None:
    limits = {0.0: 0.1, 0.5: 0.25}
    kept = [found("central-reactive", limit, delay, None, "utilisation_limit") for delay, limit in limits.items()]
    tuned = save(tmp_path, *kept)
    for delay, limit in ((0.0, 0.1), (0.25, 0.1), (0.375, 0.25), (0.5, 0.25), (2.0, 0.25)):
        policy = tuned.policy(SMALL, PolicySpec("central-reactive", delay))
        assert (policy.name, policy.delay, policy.options) == (
            "central-reactive",
            delay,
            (("utilisation_limit", limit),),
        )


def test_an_arm_takes_what_was_tuned_with_its_forecaster_else_with_the_policys_own(tmp_path: Path) -> None:
    tuned = save(tmp_path, found("acp", 1.0, option="eagerness"), found("acp", 2.0, None, "oracle", "eagerness"))
    for forecaster, eagerness in ((None, 1.0), ("oracle", 2.0), ("mean-rates", 1.0)):
        assert tuned.policy(SMALL, PolicySpec("acp", None, forecaster)).options == (("eagerness", eagerness),)


def test_a_varied_scenario_takes_the_values_of_the_one_it_varies(tmp_path: Path) -> None:
    star = scenarios.get("star8-v0")
    tuned = save(tmp_path, found("local-predictive", 0.4), scenario=star)
    for scenario in (star, star.override(request_rate=1.0, peers=2)):
        assert tuned.policy(scenario, PolicySpec("local-predictive")).options == (("link_cost", 0.4),)


@pytest.mark.parametrize("found", ["0123456789ab", None])
def test_options_that_other_code_found_are_played_with_a_warning_and_searched_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], found: str | None
) -> None:
    path = tmp_path / "small.json"
    tune([PolicySpec("acp")], SMALL, path, 2, 1)
    Tuned(tmp_path).policy(SMALL, PolicySpec("acp"))
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "stamp"}
    path.write_text(json.dumps(older | ({"stamp": found} if found else {})))
    told = rf"small.json: is of other code \(stamp {found or 'unknown'}; now {stamp()}\): what was best there may"
    with pytest.warns(DpemWarning, match=told):
        Tuned(tmp_path).policy(SMALL, PolicySpec("acp"))
    capsys.readouterr()
    tune([PolicySpec("idle")], SMALL, path, 2, 1)
    assert capsys.readouterr().err == "tuning all contestants again: the code of dpem_env changed\n"
    kept = json.loads(path.read_text())
    assert kept["stamp"] == stamp()
    assert [each["policy"] for each in kept["tuned"]] == ["idle"]


def test_a_varied_scenario_has_files_of_its_own_for_some_policies(tmp_path: Path) -> None:
    dear = SMALL.override(contention_penalty=1.0)
    save(tmp_path, found("local-predictive", 0.1), found("maxweight", 0.15, option="link_price"))
    tuned = save(tmp_path, found("local-predictive", 0.3), scenario=dear)

    def options(scenario: scenarios.Scenario, policy: str) -> dict[str, Any]:
        return dict(tuned.policy(scenario, PolicySpec(policy)).options)

    assert options(dear, "local-predictive") == {"link_cost": 0.3}
    assert options(dear, "maxweight") == {"link_price": 0.15}
    assert options(SMALL, "local-predictive") == {"link_cost": 0.1}
    elsewhere = SMALL.registered("0123456789abcdef", 3)  # other networks of the same world
    assert options(elsewhere.override(contention_penalty=1.0), "local-predictive") == {"link_cost": 0.3}
    assert options(elsewhere, "local-predictive") == {"link_cost": 0.1}


def test_a_policy_without_a_search_space_needs_no_tuning(tmp_path: Path) -> None:
    assert Tuned(tmp_path).policy(SMALL, PolicySpec("idle")) == PolicySpec("idle")


def test_what_was_not_tuned_or_tuned_otherwise_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"dpem tune --scenario FILE.toml --policy acp .*writes it"):
        Tuned(tmp_path).policy(SMALL, PolicySpec("acp"))
    tuned = save(tmp_path, found("local-predictive", 0.4))
    with pytest.raises(PolicyError, match=r"holds no acp; dpem tune --scenario FILE.toml --policy acp"):
        tuned.policy(SMALL, PolicySpec("acp"))
    with pytest.raises(PolicyError, match="another version of small"):
        tuned.policy(SMALL.override(name="small", request_rate=1.0), PolicySpec("local-predictive"))
    with pytest.raises(DpemError, match="is no folder"):
        Tuned(tmp_path / "none")


def whole() -> dict[str, Any]:
    return tuning.header(SMALL, 16, 3) | {"tuned": [found("acp", 2.0, option="eagerness")]}


def with_changed(place: str, value: Any) -> str:
    """A good file with one entry, named like tuned.0.delay, replaced."""
    file = json.loads(json.dumps(whole()))
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    entry = file
    for part in path:
        entry = entry[part]
    entry[last] = value
    return json.dumps(file)


WRONG = {
    "empty": "",
    "a list": "[]",
    "no entries": "{}",
    "half": json.dumps(whole())[:100],
    "nested deeply": '{"tuned": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "no number": with_changed("tuned.0.best.reward", 1.5).replace("1.5", "NaN"),
    "digits without end": with_changed("tuned.0.delay", 77).replace("77", "7" * 5_000),
    "a key too many": with_changed("tuned.0.more", 1),
} | {
    f"{place} {value!r}": with_changed(place, value)
    for place, value in (
        ("format", "dpem-tuning-0"),
        ("trials", "16"),
        ("trials", None),
        ("scenario", ["small"]),
        ("tuned", {}),
        ("tuned", ["acp"]),
        ("tuned.0.policy", None),
        ("tuned.0.forecaster", 1),
        ("tuned.0.delay", "0.5"),
        ("tuned.0.delay", -1.0),
        ("tuned.0.delay", True),
        ("tuned.0.best", []),
        ("tuned.0.best.options", ["eagerness"]),
        ("tuned.0.best.options", "eagerness"),
        ("tuned.0.best.options", {"eagerness": {"a": 1}}),
        ("tuned.0.best.options", {"eagerness": [[1]]}),
        ("tuned.0.best.reward", "much"),
        ("tuned.0.default_reward", None),
        ("tuned.0.trials", [1]),
        ("tuned.0.sources", {"the file w": 1}),
    )
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("command", ["benchmark", "tune"])
def test_a_wrong_file_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, command: str
) -> None:
    scenario, folder = tmp_path / "small.toml", tmp_path / "tuned"
    SMALL.save(scenario)
    folder.mkdir()
    (folder / "small.json").write_text(text)
    common = ("--scenario", str(scenario), "--policy", "acp")
    if command == "benchmark":
        arguments = ("benchmark", "coherence", *common, "--seeds", "1", "--tuned", str(folder), "--out", str(tmp_path))
    else:
        arguments = ("tune", *common, "--trials", "16", "--episodes", "3", "--out", str(folder))
    assert f"tuning file {str(folder / 'small.json')!r} cannot be used: " in complaint(capsys, *arguments)
    assert (folder / "small.json").read_text() == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eagernes": 2.0}, "acp has no option 'eagernes' to tune; did you mean 'eagerness'?"),
        ({"__class__": 1}, "acp has no option '__class__' to tune"),
        ({"eagerness": "2"}, "eagerness of acp is '2'; expected one of"),
        ({"eagerness": "log"}, "eagerness of acp is 'log'"),
        ({"eagerness": 1e300}, "eagerness of acp is 1e+300"),
        ({"eagerness": None}, "eagerness of acp is None"),
        ({"eagerness": [1.0]}, "eagerness of acp is (1.0,)"),
        ({"quota": 1.5}, "quota of acp is 1.5"),
        ({"quota": -1}, "quota of acp is -1"),
    ],
)
def test_options_that_are_not_the_policys_to_tune_are_told(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    changed = found("acp", 2.0)
    changed["trials"] = [changed["best"] | {"options": options}]
    with pytest.raises(PolicyError) as error:
        save(tmp_path, changed).policy(SMALL, PolicySpec("acp"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_another_scenario_in_its_place_is_told(tmp_path: Path) -> None:
    save(tmp_path, found("acp", 2.0, option="eagerness"), scenario=SMALL.override(name="other"))
    (tmp_path / "other.json").rename(tmp_path / "small.json")
    with pytest.raises(PolicyError, match="is of 'other', not of 'small'; remove it and tune again"):
        Tuned(tmp_path).policy(SMALL, PolicySpec("acp"))


SHIPPED = sorted((Path(__file__).resolve().parents[2] / "baselines" / "tuned").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_committed_file_can_be_played_or_is_refused_by_its_rules(path: Path) -> None:
    tuned, scenario = Tuned(path.parent), named(path.stem, "validation")
    file = json.loads(path.read_text())
    assert file["tuned"]
    if (rules := file["version"]["rules"]) != RULES_VERSION:
        told = rf"{path.name}' cannot be used: it was made under rules {rules}, and rules are {RULES_VERSION} now; "
        with pytest.raises(PolicyError, match=rf"{told}dpem tune --scenario {path.stem} .* tunes again"):
            tuned.policy(scenario, PolicySpec("maxweight"))
        return
    for entry in file["tuned"]:
        policy = tuned.policy(scenario, PolicySpec(entry["policy"], entry["delay"], entry["forecaster"]))
        assert dict(policy.options) == entry["best"]["options"]
        policy.make()


def test_the_command_writes_what_a_benchmark_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, folder, out = (str(tmp_path / name) for name in ("small.toml", "tuned", "out"))
    SMALL.save(small)
    common = ("--scenario", small, "--policy", "acp+mean-rates", "--policy", "central-reactive", "--delay", "0.5")
    assert dpem("tune", *common, "--trials", "3", "--episodes", "1", "--out", folder) == 0
    assert "central-reactive" in capsys.readouterr().out
    tuned = json.loads((tmp_path / "tuned" / "small.json").read_text())["tuned"]
    assert dpem("benchmark", "coherence", *common, "--seeds", "2", "--tuned", folder, "--out", out) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["tuned"] is True
    best = {each["policy"]: each["best"]["options"] for each in tuned}
    for scenario in summary["scenarios"]:
        assert {each["policy"]: each["options"] for each in scenario["contestants"]} == best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "acp", "--trials", "0"), "--trials is '0'; expected a whole number from 1 to 1,000,000"),
        (("--policy", "acp", "--delay", "-1"), "--delay is '-1'"),
        (("--policy", "cap"), "unknown policy 'cap'"),
        (("--policy", "acp+orcale"), "unknown forecaster 'orcale'"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert message in complaint(capsys, "tune", "--scenario", "star8-v0", *options, "--out", str(tmp_path / "tuned"))
    assert not (tmp_path / "tuned").exists()


def test_what_was_tuned_on_a_network_is_played_there_and_nowhere_else(tmp_path: Path) -> None:
    chain = scenarios.get("chain3-v0", slots=20)
    tune = ("--scenario", "chain3-v0", "--set", "slots=20", "--policy", "maxweight", "--trials", "2", "--episodes", "1")
    assert dpem("tune", *tune, "--topology", "2001", "--out", str(tmp_path)) == 0
    [path] = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["scenario"] == f"{chain.name}+topology=2001"
    [there] = json.loads(path.read_text())["tuned"]
    tuned, maxweight = Tuned(tmp_path), PolicySpec("maxweight")
    assert {name for name, _ in tuned.policy(chain, maxweight, 2001).options} == there["best"]["options"].keys()
    with pytest.raises(PolicyError, match=r"no .*chain3"):
        tuned.policy(chain, maxweight, 2000)
