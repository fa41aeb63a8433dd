"""Tables for papers: what they say is what results hold, in every style."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dpem_env.experiments.paper_table import paper_table
from dpem_env.experiments.results import Results, read
from support.command_line import complaint, dpem, given


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    common = ("--scenario", "chain3-v0", "--set", "slots=60", "--set", "request_rate=8.0", "--seeds", "3")
    policies = given("idle", "rule_1=local-reactive", "maxweight")
    assert dpem("run", *common, *policies, "--out", str(out)) == 0
    return out


@pytest.fixture
def results(folder: Path) -> Results:
    return read(folder)


def test_markdown_has_a_row_for_each_and_a_sentence_for_each_difference(results: Results) -> None:
    said = paper_table(results, ["delivery_rate", "latency"]).splitlines()
    assert said[0].split("|")[1:-1] == [" policy    ", " delivery rate ", "   latency (s) "]
    assert [line.split("|")[1].strip() for line in said[2:5]] == ["idle", "rule_1", "maxweight"]
    assert said[2].split("|")[2:4] == [" 0.000 ± 0.000 ", "             - "]  # idle delivers nothing
    assert said[6].startswith("chain3-v0+slots=60+request_rate=8.0, 3 evaluation episodes, the same for all; mean ± ")
    told = results.differences().set_index(["label", "metric"]).loc[("rule_1", "delivery_rate")]
    clear = "a clear" if told["clear_of_zero"] else "no clear"
    assert said[8] == (
        f"- rule_1: delivery rate {told['difference']:.3f} higher than idle, "
        f"95 % CI [{told['low']:+.3f}, {told['high']:+.3f}]: {clear} difference."
    )
    assert not any("latency" in line for line in said[8:])  # nobody to compare with
    of_rule = paper_table(results, ["delivery_rate"], "rule_1")
    assert "- idle: delivery rate " in of_rule
    assert "lower than rule_1" in of_rule


def test_latex_is_escaped(results: Results) -> None:
    said = paper_table(results, ["delivery_rate"], style="latex")
    assert r"rule\_1 & 0." in said
    assert r" $\pm$ " in said
    assert said.count(r"\\") == 4
    assert r"\begin{tabular}{lr}" in said


def test_csv_has_the_numbers(results: Results, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dpem("table", str(folder), "--as", "csv", "--metric", "delivery_rate") == 0
    rows = {row["label"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
    intervals = results.intervals().set_index(["label", "metric"])
    differences = results.differences().set_index(["label", "metric"])
    for label, row in rows.items():
        told = intervals.loc[(label, "delivery_rate")]
        assert [float(row[name]) for name in ("mean", "low", "high")] == told[["mean", "low", "high"]].tolist()
        if label == "idle":
            assert row["difference"] == ""
        else:
            assert float(row["difference"]) == differences.loc[(label, "delivery_rate"), "difference"]


def test_marl_eval_gets_every_episode_as_a_run(
    results: Results, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dpem("table", str(folder), "--as", "marl-eval") == 0
    (tasks,) = json.loads(capsys.readouterr().out).values()
    (task,) = tasks.values()
    assert list(task) == ["idle", "rule_1", "maxweight"]
    mean = results.intervals().set_index(["label", "metric"])["mean"]
    for label, runs in task.items():
        assert list(runs) == ["run_1", "run_2", "run_3"]
        for run in runs.values():
            assert {"step_count": 0} | run["absolute_metrics"] == run["step_1"]
            assert set(run["absolute_metrics"]) == {"delivery_rate", "contention"}  # idle has no fidelity
        scores = [run["absolute_metrics"]["delivery_rate"][0] for run in runs.values()]
        assert sum(scores) / 3 == pytest.approx(mean[label, "delivery_rate"])
    said = complaint(capsys, "table", str(folder), "--as", "marl-eval", "--metric", "fidelity")
    assert "idle on chain3-v0+slots=60+request_rate=8.0 has no fidelity in some episode: name other metrics" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--metric", "delivry"], "--metric is 'delivry'; did you mean 'delivery_rate'?"),
        (["--reference", "rule"], "--reference is 'rule'; did you mean 'rule_1'?"),
        (["--as", "html"], "Choose from: "),
    ],
)
def test_a_mistake_is_told_in_one_line(
    folder: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in complaint(capsys, "table", str(folder), *arguments)


def test_a_folder_without_results_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "summary of results" in complaint(capsys, "table", str(folder / "nowhere"))
