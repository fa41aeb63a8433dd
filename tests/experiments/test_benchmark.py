"""The benchmark: what it plays, what it keeps when it is stopped, what it refuses, and what its summary says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from dpem_baselines.clairvoyant import delivery_bound
from dpem_baselines.local import LocalReactive
from dpem_env import scenarios
from dpem_env.envs.metrics import EpisodeMetrics
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments import benchmark
from dpem_env.experiments import workers as work
from dpem_env.experiments.benchmark import Plan, make_plan, summarise
from dpem_env.experiments.comparison import compare, on_network_size
from dpem_env.experiments.contestants import Contestant, PolicySpec, contestants
from dpem_env.experiments.results import Key, arrays, flat, read
from dpem_env.experiments.suites import SUITES, Suite, get_suite
from dpem_env.experiments.workers import WorkItem, play
from dpem_env.scenarios.schema import Silence
from dpem_env.support.errors import DpemError
from support.command_line import Interrupt, but, complaint, dpem, given

POLICIES = ("local-reactive", "central-reactive")
QUICK = ["benchmark", "quick", *given(*POLICIES)]
LABELS = ["local-reactive", "central-reactive (delay 0 s)", "central-reactive (delay 0.5 s)"]
SEEDS = 3


def episode_files(folder: Path) -> dict[str, int]:
    """Every result and when it was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("episodes/*/*.json")}


def summary_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark") / "below" / "results"
    assert dpem(*QUICK, "--seeds", str(SEEDS), "--out", str(out)) == 0
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_every_episode_of_every_policy_is_kept(finished: Path) -> None:
    results = [json.loads((finished / name).read_text()) for name in episode_files(finished)]
    assert len(results) == SEEDS * 3
    played = {(episode["policy"], episode["delay"], episode["index"]) for episode in results}
    policies = [("local-reactive", None), ("central-reactive", 0.0), ("central-reactive", 0.5)]
    assert played == {(*policy, index) for policy in policies for index in range(SEEDS)}
    for episode in results:
        assert episode["seeds"] == {"topology": 2000 + episode["index"], "demand": 2_000_000 + episode["index"]}
        assert episode["metrics"].keys() == EpisodeMetrics.__dataclass_fields__.keys()
    requests = [{e["metrics"]["requests"] for e in results if e["index"] == index} for index in range(SEEDS)]
    assert all(len(asked) == 1 for asked in requests)  # the same episode for all
    assert len(set.union(*requests)) > 1


@pytest.mark.usefixtures("drawn")
def test_scores_say_where_a_policy_lies_between_acting_at_random_and_the_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scored"
    assert dpem("benchmark", "quick", "--policy", "local-reactive", "--seeds", "2", "--score", "--out", str(out)) == 0
    [scenario] = summary_in(out)["scenarios"]
    reactive, floor = scenario["contestants"]
    assert floor["label"] == "random-legal"  # added by itself
    values = arrays(read(out).frame, scenario["name"])
    bounds = values[Key("bound:clairvoyant", None, None)]["delivery_rate"][0].tolist()
    [quick] = SUITES["quick"].settings()
    assert bounds == [delivery_bound(quick, episode_seeds(quick, "evaluation", index)) for index in range(2)]
    rates = [values[Key.of(each)]["delivery_rate"][0] for each in (reactive, floor)]
    scores = (rates[0] - rates[1]) / (np.array(bounds) - rates[1])
    assert reactive["metrics"]["score"]["mean"]["value"] == pytest.approx(scores.mean())
    assert floor["metrics"]["score"]["mean"]["value"] == 0.0
    assert "score: 0 is random-legal, 1 the clairvoyant bound" in capsys.readouterr().out
    before = episode_files(out)
    assert len(before) == 6
    assert dpem("benchmark", "quick", "--policy", "local-reactive", "--seeds", "2", "--score", "--out", str(out)) == 0
    assert episode_files(out) == before


def test_a_policy_may_bring_its_own_forecaster(tmp_path: Path) -> None:
    names = ("local-predictive", "local-predictive+mean-rates", "local-predictive+none")
    out = tmp_path / "forecasters"
    assert dpem("benchmark", "quick", *given(*names), "--seeds", "2", "--out", str(out)) == 0
    [scenario] = summary_in(out)["scenarios"]
    assert [each["forecaster"] for each in scenario["contestants"]] == [None, "mean-rates", "none"]
    values = arrays(read(out).frame, scenario["name"])
    assert len({tuple(values[Key.of(each)]["reward"][0]) for each in scenario["contestants"]}) == 3
    assert scenario["analysis"]["reward"] is None or not scenario["analysis"]["reward"]["architecture_by_prediction"]


def test_a_kept_episode_is_the_one_that_is_played(finished: Path) -> None:
    [scenario] = SUITES["quick"].settings()
    item = WorkItem(scenario, "evaluation", 2, PolicySpec("central-reactive", 0.5))
    assert json.loads((finished / item.file).read_text()) == play(item)


def test_a_complete_folder_is_summed_up_without_playing(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, summary = episode_files(copied), summary_in(copied)
    frame = (copied / "results.parquet").read_bytes()
    (copied / "summary.json").unlink()
    (copied / "results.parquet").unlink()
    monkeypatch.setattr(work, "here", None)
    assert dpem(*QUICK, "--seeds", str(SEEDS), "--out", str(copied)) == 0
    assert episode_files(copied) == before
    assert summary_in(copied) == summary
    assert (copied / "results.parquet").read_bytes() == frame
    said = capsys.readouterr().out
    for label in LABELS:
        assert label in " ".join(said.replace("│", " ").split())
    assert "clear of 0" in said
    assert f"{copied / 'results.parquet'}" in said.replace("\n", "")


def test_more_seeds_and_other_contestants_play_only_what_is_missing(copied: Path) -> None:
    before = episode_files(copied)
    arguments = ["benchmark", "quick", *given(*POLICIES, "idle"), "--seeds", str(SEEDS + 1)]
    assert dpem(*arguments, "--delay", "0", "--delay", "0.25", "--out", str(copied)) == 0
    after = episode_files(copied)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3 + SEEDS + 1 + SEEDS + 1 - 1
    [scenario] = summary_in(copied)["scenarios"]
    assert [each["label"] for each in scenario["contestants"]] == [
        *LABELS[:2],
        "central-reactive (delay 0.25 s)",
        "idle",
    ]
    assert scenario["episodes"] == [0, 1, 2, 3]


def test_a_damaged_or_lost_result_is_told_or_played_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim, *others = sorted(copied.glob("episodes/*/*.json"))
    text = victim.read_text()
    victim.write_text(text[:100])
    arguments = [*QUICK, "--seeds", str(SEEDS), "--out", str(copied)]
    said = complaint(capsys, *arguments)
    assert f"result of an episode {str(victim)!r} cannot be used" in said
    assert said.endswith("; remove it\n")
    victim.unlink()
    assert dpem(*arguments) == 0
    assert victim.read_text() == text
    assert len(others) == SEEDS * 3 - 1


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": []},
        {"metrics": {"delivery_rate": 0.5}},
        {"nodes": "twenty"},
        {"nodes": 0},
        {"sources": ["a"]},
        *({"metrics": dict.fromkeys(benchmark.METRICS, wrong)} for wrong in ("0.5", [0.5], {})),
    ],
    ids=str,
)
def test_a_crafted_result_is_told_in_one_line(
    copied: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    victim = sorted(copied.glob("episodes/*/*.json"))[0]
    victim.write_text(json.dumps(json.loads(victim.read_text()) | change))
    said = complaint(capsys, *QUICK, "--seeds", str(SEEDS), "--out", str(copied))
    assert f"result of an episode {str(victim)!r} cannot be used" in said
    assert said.endswith("; remove it\n")


@pytest.mark.parametrize("text", ["[]", "1", '{"metrics": NaN}', "[" * 100_000, '{"nodes": ' + "9" * 5_000 + "}"])
def test_so_is_what_is_no_result_at_all(copied: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    victim = sorted(copied.glob("episodes/*/*.json"))[0]
    victim.write_text(text)
    said = complaint(capsys, *QUICK, "--seeds", str(SEEDS), "--out", str(copied))
    assert f"result of an episode {str(victim)!r} cannot be used" in said
    assert said.endswith("; remove it\n")


def test_an_interrupted_benchmark_sums_up_what_it_finished_and_goes_on_where_it_was(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*QUICK, "--seeds", str(SEEDS), "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(LocalReactive, "act", Interrupt(24 + 10))  # 24 slots: in its second episode
        assert dpem(*arguments) == 130
    said = capsys.readouterr()
    assert said.err == "interrupted after 3 of 9 episodes; the same command again plays the rest\n"
    assert "wrote" in said.out
    summary = summary_in(tmp_path)
    assert summary["complete"] is False
    assert summary["scenarios"][0]["episodes"] == [0]
    assert summary["scenarios"][0]["contestants"][0]["metrics"]["delivery_rate"]["mean"]["low"] is None
    before = episode_files(tmp_path)
    assert len(before) == 3
    assert dpem(*arguments) == 0
    after = episode_files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert summary_in(tmp_path) == summary_in(finished)


def test_a_benchmark_interrupted_before_any_seed_is_finished_has_no_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalReactive, "act", Interrupt(3))
    assert dpem(*QUICK, "--seeds", "1", "--out", str(tmp_path)) == 130
    assert capsys.readouterr().err.startswith("interrupted after 0 of 3 episodes; ")
    assert {path.name for path in tmp_path.rglob("*.*")} == {".lock"}


@pytest.mark.slow
def test_two_workers_find_what_one_found(finished: Path, tmp_path: Path) -> None:
    assert dpem(*QUICK, "--seeds", str(SEEDS), "--workers", "2", "--out", str(tmp_path)) == 0
    assert summary_in(tmp_path) == summary_in(finished)
    for name in episode_files(finished):
        assert (tmp_path / name).read_text() == (finished / name).read_text()


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("scenario_hash", "0" * 12, "the scenario"),
        ("stamp", "0" * 12, "the code of dpem_env"),
        ("options", {"speed": 2}, "the options"),
        ("format", "dpem-episode-1", "the format of results"),
        ("sources", {}, "the code of dpem_baselines, the version of Python, "),
        ("sources", {"the file weights.npz": "0" * 16}, "the file weights.npz"),
    ],
)
def test_an_episode_of_something_else_is_played_again_with_a_line(
    copied: Path, capsys: pytest.CaptureFixture[str], field: str, value: Any, what: str
) -> None:
    path = sorted(copied.glob("episodes/*/*.json"))[-1]
    text = path.read_text()
    episode = json.loads(text)
    if value and field == "sources":
        value = episode["sources"] | value
    before = episode_files(copied)
    path.write_text(json.dumps(episode | {field: value}))
    assert dpem(*QUICK, "--seeds", str(SEEDS), "--out", str(copied)) == 0
    said = capsys.readouterr().err
    assert said.startswith("playing 1 episode again: ")
    assert what in said
    assert said.endswith(" changed\n")
    assert path.read_text() == text
    changed = str(path.relative_to(copied))
    after = episode_files(copied)
    assert {name for name in before if after[name] == before[name]} == before.keys() - {changed}


def test_a_result_of_another_policy_in_a_policys_place_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [scenario] = SUITES["quick"].settings()
    own, other = (
        copied / WorkItem(scenario, "evaluation", 0, PolicySpec(name, delay)).file
        for name, delay in (("local-reactive", None), ("central-reactive", 0.5))
    )
    own.write_text(other.read_text())
    assert "has a result with policy central-reactive" in complaint(
        capsys, *QUICK, "--seeds", "3", "--out", str(copied)
    )


def test_scenarios_whose_data_is_absent_are_left_out_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DPEM_DATA", raising=False)
    plan = make_plan(get_suite("networks"), ["local-reactive"], 1)
    assert [scenario.name for scenario in plan.scenarios] == ["surfnet-v0", "mesh100-outages-v0"]
    assert capsys.readouterr().out.splitlines() == [
        "coronet100-v0 left out: no coronet data (dpem list says where to get it)",
        "abilene-trace-v0 left out: no abilene data (dpem list says where to get it)",
    ]
    only = ["--scenario", "coronet100-v0", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert dpem("benchmark", "networks", "--policy", "local-reactive", *only) == 2
    said = capsys.readouterr().err
    assert said.startswith("dpem")
    assert said.count("\n") == 1
    assert "no scenario is left to play; pass --data DIR" in said
    assert not (tmp_path / "out").exists()


def test_no_scenario_is_left_out_with_the_data(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(get_suite("networks"), ["local-reactive"], 1, data_dir=data_dir)
    assert [scenario.name for scenario in plan.scenarios] == list(SUITES["networks"].scenarios)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite_is_made_of_different_valid_scenarios(suite: Suite) -> None:
    settings = suite.settings()
    assert len({scenario.hash for scenario in settings}) == len(settings) >= 1
    assert len({scenario.name for scenario in settings}) == len(settings)
    assert min(suite.delays) == 0.0


def test_suites_vary_what_they_say() -> None:
    assert SUITES["delay-curve"].delays == (0.0, 0.25, 0.5, 1.0, 2.0)
    assert [s.hardware.coherence_time for s in SUITES["coherence"].settings()] == [1.0, 10.0, 60.0]
    assert [s.demand.deadline for s in SUITES["deadlines"].settings()] == [0.5, 1.0, 2.0, 4.0]
    sizes = SUITES["sizes"].settings()
    densities = [s.network.nodes / s.network.side**2 for s in sizes]  # type: ignore[union-attr]
    assert densities == pytest.approx([0.01] * 5, rel=0.01)
    assert sizes[2].hash == scenarios.get("mesh100-v0").hash


def test_failures_are_those_of_agents_of_links_and_of_both() -> None:
    suite, shipped = get_suite("failures"), scenarios.get("mesh100-v0")
    assert suite.delays == (0.0, 0.5)
    none, silence, outages, both = suite.settings()
    assert none == shipped
    assert [each.name for each in (silence, outages, both)] == [
        f"mesh100-v0+{what}" for what in ("silence", "outages", "silence+outages")
    ]
    assert silence.silence == both.silence == Silence()
    assert outages.hash == scenarios.get("mesh100-outages-v0").hash
    assert both.override(silence=None).hash == outages.hash
    assert silence.override(silence=None).hash == shipped.hash


def test_a_field_of_a_section_that_a_suite_varies_is_changed_where_it_has_that_section() -> None:
    settings = get_suite("failures").settings(["mesh20-v0"], changes={"silence.share": 0.1, "request_rate": 8.0})
    assert [each.silence for each in settings] == [None, Silence(share=0.1), None, Silence(share=0.1)]
    assert settings[1].name == "mesh20-v0+request_rate=8.0+silence+silence.share=0.1"
    assert {each.demand.request_rate for each in settings} == {8.0}  # type: ignore[union-attr]
    [elsewhere] = get_suite("quick").settings(changes={"silence.start": 5.0})
    assert elsewhere.silence == Silence(start=5.0)


def test_failures_of_a_scenario_from_a_file_are_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "mine.toml", tmp_path / "out"
    scenarios.get("star8-v0", slots=16, name="mine").save(path)
    early = ("--set", "silence.start=1.0", "--set", "silence.share=0.3")
    policies = (*given(*POLICIES), "--delay", "0.5")
    command = ("benchmark", "failures", "--scenario", str(path), *early, *policies, "--seeds", "1")
    assert dpem(*command, "--out", str(out)) == 0
    told = capsys.readouterr().out
    fields = "silence.start=1.0+silence.share=0.3"
    names = ["mine", f"mine+silence+{fields}", "mine+outages", f"mine+silence+outages+{fields}"]
    assert [each["name"] for each in summary_in(out)["scenarios"]] == names
    assert all(name in told for name in names)
    assert len([each for each in (out / "episodes").iterdir() if each.name.startswith("mine")]) == 8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("silence.share=0", "silence.share: expected more than 0 (given 0)"),
        ("silence.share=none", "silence.share: expected a number (given None)"),
        ("silence.lasts=9", "silence.lasts: unknown key"),
        ("slots=24", "silence.start = 30.0 s: expected less than the episode's 6 s"),
    ],
)
def test_a_bad_silence_is_told_in_one_line(capsys: pytest.CaptureFixture[str], change: str, told: str) -> None:
    command = ("benchmark", "failures", *given("idle"), "--set", change, "--seeds", "1", "--out", "nowhere")
    said = complaint(capsys, *command)
    assert told in said


def test_other_scenarios_are_varied_the_same_way() -> None:
    plan = make_plan(get_suite("coherence"), ["central-reactive"], 1, scenarios=["mesh20-v0"], delays=[0.25])
    assert [s.name for s in plan.scenarios] == [f"mesh20-v0+coherence_time={t}" for t in (1.0, 10.0, 60.0)]
    assert plan.contestants == tuple(contestants(["central-reactive"], [0.25]))


def test_the_reference_is_the_first_or_the_one_named() -> None:
    def reference(name: str | None) -> PolicySpec:
        [policy] = make_plan(get_suite("quick"), POLICIES, 1, reference=name).reference.policies
        return policy

    assert reference(None) == PolicySpec("local-reactive")
    assert reference("central-reactive") == PolicySpec("central-reactive", 0.0)
    assert reference(LABELS[2]) == PolicySpec("central-reactive", 0.5)
    policies = ["local-predictive", "local-predictive+oracle"]
    named = make_plan(get_suite("quick"), policies, 1, reference=policies[1]).reference
    assert named.policies == (PolicySpec("local-predictive", None, "oracle"),)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--policy", "local-reactiv"], "unknown policy 'local-reactiv'; did you mean 'local-reactive'?"),
        (["--policy", ""], "unknown policy ''"),
        (["--seeds", "0"], "--seeds is '0'; expected a whole number from 1 to 1,000,000"),
        (["--workers", "0"], "--workers is '0'; expected a whole number from 1 to 1,000,000"),
        (["--scenario", "mesh10-v0"], "unknown scenario 'mesh10-v0'"),
        (["--delay", "-1"], "--delay is '-1'; expected seconds >= 0"),
        (["--delay", "6"], "less than an episode (6 s)"),
        (["--forecaster", "oracl"], "unknown forecaster 'oracl'; did you mean 'oracle'?"),
        (["--reference", "idle"], "--reference is 'idle'; "),
        (["--split", "test"], 'Invalid value "test" for --split. Choose from: '),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], fragment: str
) -> None:
    out = tmp_path / "out"
    assert fragment in complaint(capsys, *QUICK, *but(("--seeds", "1"), *arguments, "--out", str(out)))
    assert not out.exists()


def test_one_network_may_be_played_with_the_demand_of_the_split() -> None:
    plan = make_plan(get_suite("coherence"), ["idle"], 3, topology=7, split="validation")
    assert [scenario.name for scenario in plan.scenarios] == [
        f"mesh100-v0+coherence_time={seconds}+topology=7" for seconds in (1.0, 10.0, 60.0)
    ]
    seeds = {tuple(item.identity()["seeds"].values()) for item in plan.items()}
    assert seeds == {(7, 1_000_000 + k) for k in range(3)}


def test_an_unknown_suite_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "benchmark", "quik", *given(*POLICIES), "--seeds", "1", "--out", "nowhere")
    assert "unknown suite 'quik'; did you mean 'quick'?" in said


def test_suites_are_listed_and_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert dpem("benchmark", "--help") == 0
    assert capsys.readouterr().out.startswith("Usage: dpem benchmark")
    assert dpem("list") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in SUITES)


def test_the_summary_holds_means_intervals_and_paired_differences(finished: Path) -> None:
    [scenario] = summary_in(finished)["scenarios"]
    plan = make_plan(get_suite("quick"), POLICIES, SEEDS)
    values = np.array(
        [
            [
                json.loads((finished / WorkItem(plan.scenarios[0], "evaluation", index, policy).file).read_text())[
                    "metrics"
                ]["delivery_rate"]
                for index in range(SEEDS)
            ]
            for each in plan.contestants
            for policy in each.policies
        ]
    )
    assert scenario["nodes"] == 20
    for each, row in zip(scenario["contestants"], values, strict=True):
        shown = each["metrics"]["delivery_rate"]
        half = stats.sem(row) * stats.t.ppf(0.975, SEEDS - 1)
        assert list(shown["mean"].values()) == pytest.approx([row.mean(), row.mean() - half, row.mean() + half])
        assert shown["iqm"]["value"] == pytest.approx(row.mean())  # ⌊3/4⌋ = 0: nothing is cut
        assert shown["episodes"] == SEEDS
    assert [difference["label"] for difference in scenario["differences"]] == LABELS[1:]
    for difference, row in zip(scenario["differences"], values[1:], strict=True):
        shown = difference["metrics"]["delivery_rate"]
        gaps = row - values[0]
        half = stats.sem(gaps) * stats.t.ppf(0.975, SEEDS - 1)
        assert shown["difference"]["value"] == pytest.approx(gaps.mean())
        assert shown["difference"]["low"] == pytest.approx(gaps.mean() - half)
        assert shown["clear_of_zero"] == (abs(gaps.mean()) > half)
        assert shown["relative"]["value"] == pytest.approx(row.mean() / values[0].mean() - 1)
    analysis = scenario["analysis"]["delivery_rate"]
    assert analysis["one_way"]["f"] == pytest.approx(stats.f_oneway(*values).statistic)
    assert analysis["friedman_p"] == pytest.approx(stats.friedmanchisquare(*values).pvalue)
    assert analysis["architecture_by_prediction"] is None


def test_the_table_holds_every_value_of_every_episode(finished: Path) -> None:
    frame = read(finished).frame
    scenario, of_rows = SUITES["quick"].settings()[0], 0
    for name in episode_files(finished):
        episode = json.loads((finished / name).read_text())
        rows = frame[
            (frame["policy"] == episode["policy"])
            & (frame["delay"].isna() if episode["delay"] is None else frame["delay"] == episode["delay"])
            & (frame["seed"] == episode["index"])
        ]
        assert set(rows["scenario_hash"]) == {scenario.hash}
        assert set(rows["training_seed"]) == {0}
        assert rows["forecaster"].isna().all()
        kept = dict(zip(rows["metric"], rows["value"], strict=True))
        np.testing.assert_equal(kept, dict(flat(episode["metrics"])))
        of_rows += len(rows)
    assert of_rows == len(frame)


def test_the_picture_is_a_picture(finished: Path) -> None:
    picture = imread(finished / "results.png")
    assert picture.shape[1] > 1000
    assert len(np.unique((255 * picture).astype(np.uint8).view(np.uint32))) > 50  # colours


def rule(name: str, forecaster: str | None = None) -> Contestant:
    return Contestant(name, (PolicySpec(name, None, forecaster),))


def in_every_metric(table: list[Any]) -> dict[str, Any]:
    return dict.fromkeys(("delivery_rate", "contention", "reward"), table)


def test_episodes_of_a_checkpoint_are_no_independent_draws_of_its_learner(rng: np.random.Generator) -> None:
    learner = Contestant("ppo:seed*.zip", tuple(PolicySpec(f"ppo:seed{k}.zip") for k in range(5)))
    of_seed, of_episode = rng.normal(size=(5, 1)), rng.normal(size=(1, 200))
    values = [of_seed + of_episode, 0.1 * rng.normal(size=(1, 200)) + of_episode]
    compared = compare([learner, rule("a")], rule("a"), in_every_metric(values))
    shown = compared["contestants"][0]
    assert (shown["label"], shown["training_seeds"]) == ("ppo:seed*.zip, 5 training seeds", 5)
    # A thousand independent draws would make the interval of the difference 0.12 wide; there are five seeds.
    difference = compared["differences"][0]["metrics"]["reward"]["difference"]
    assert difference["value"] == pytest.approx(values[0].mean() - values[1].mean(), abs=1e-6)
    assert difference["high"] - difference["low"] > 0.8 * 2 * 1.96 * of_seed.std() / np.sqrt(5)
    assert compared["analysis"]["reward"]["one_way"]["df"] == [1, 398]  # means over training seeds


def test_two_forecasters_make_two_factors(rng: np.random.Generator) -> None:
    pytest.importorskip("statsmodels", reason="needs the extra statistics")
    contestants = [rule(name, forecaster) for forecaster in ("none", "oracle") for name in ("a", "b", "c")]
    effect_of_prediction, effect_of_architecture = [0, 0, 0, 5, 5, 5], [0, 1, 2, 0, 1, 2]
    noise = rng.normal(size=(6, 40))
    values = noise + np.array(effect_of_prediction)[:, None] + 20.0 * np.array(effect_of_architecture)[:, None]
    compared = compare(contestants, contestants[0], in_every_metric(list(values[:, None])))
    factors = compared["analysis"]["reward"]["architecture_by_prediction"]
    assert (factors["first"]["df"], factors["second"]["df"]) == (2, 1)
    assert factors["first"]["eta_squared"] > 0.9
    assert factors["second"]["p"] < 1e-10
    assert factors["interaction"]["p"] > 0.01


def test_what_does_not_exist_is_left_out_pairwise() -> None:
    contestants = [rule("a"), rule("b"), rule("c")]
    rows = np.array([[1.0, 2.0, np.nan, 4.0], [2.0, np.nan, 5.0, 5.0], [np.nan] * 4])
    compared = compare(contestants, contestants[0], in_every_metric(list(rows[:, None])))
    metrics = [each["metrics"]["reward"] for each in compared["contestants"]]
    assert (metrics[0]["episodes"], metrics[1]["episodes"], metrics[2]) == (3, 3, None)
    assert compared["differences"][0]["metrics"]["reward"]["difference"]["value"] == 1.0
    assert compared["differences"][0]["metrics"]["reward"]["episodes"] == 2
    assert compared["differences"][1]["metrics"]["reward"] is None
    assert compared["analysis"]["reward"] is None
    json.dumps(compared, allow_nan=False)


def test_metrics_are_regressed_on_network_size() -> None:
    rows = np.array([[0.0, 0.1, 0.2]])
    tables = [(nodes, in_every_metric([rows - nodes])) for nodes in (20, 50, 100)]
    [line] = on_network_size([rule("a")], tables) or []
    assert line["reward"]["slope"]["value"] == pytest.approx(-1.0)
    assert line["reward"]["r_squared"] == pytest.approx(1.0, abs=1e-4)
    assert on_network_size([rule("a")], tables[:1]) is None


def _one_episode_each(*names: str) -> Any:
    plan = Plan("mixed", tuple(scenarios.get(name) for name in names), (rule("idle"),), rule("idle"), 3)
    metrics = dict.fromkeys(benchmark.METRICS, 0.5)
    nodes = {"mesh20-v0": 20, "mesh100-v0": 100, "surfnet-v0": 50}
    return summarise(
        plan,
        {
            item: item.identity() | {"nodes": nodes[item.scenario.name], "metrics": metrics | {"reward": item.index}}
            for item in plan.items()
        },
    ).summary


def test_networks_of_different_kinds_make_no_regression() -> None:
    assert _one_episode_each("mesh20-v0", "mesh100-v0")["network_size"][0]["reward"]["slope"]["value"] == 0.0
    assert _one_episode_each("mesh20-v0", "surfnet-v0")["network_size"] is None


def test_a_result_of_another_version_from_a_worker_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster may run another version of the package."""

    def elsewhere(function: Any, items: Any) -> Any:
        return ((item, function(item) | {"version": "other"}) for item in items)

    monkeypatch.setattr(work, "here", elsewhere)
    assert "a worker has a result with version other" in complaint(
        capsys, *QUICK, "--seeds", "1", "--out", str(tmp_path)
    )
    assert episode_files(tmp_path) == {}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_an_error_of_a_worker_leaves_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(function: Any, items: Any) -> Any:
        yield items[0], function(items[0])
        raise DpemError("workers died")

    monkeypatch.setattr(work, "here", half)
    assert "workers died" in complaint(capsys, *QUICK, "--seeds", "1", "--out", str(tmp_path))
    assert len(episode_files(tmp_path)) == 1
