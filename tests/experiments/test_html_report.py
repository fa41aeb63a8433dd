"""The report: one page with every table and figure, nothing from elsewhere, and profiles that count runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env.experiments import results
from dpem_env.experiments.profiles import profiles
from support.command_line import complaint, dpem

ROOT = Path(__file__).resolve().parents[2]
FRONTS = ROOT / "baselines" / "results" / "fronts"
REGIMES = ROOT / "baselines" / "results" / "regimes"
LEARNING = ROOT / "baselines" / "results" / "learning" / "mesh20"
FEDERATED = ROOT / "baselines" / "results" / "federated" / "privacy"


class Page(HTMLParser):
    """Texts of a page by the tag that they stand in, and the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "link", "!doctype"):
            self._open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_a_page_has_all_there_is_to_tell_and_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, scenario in enumerate(("mesh20-v0", "star8-v0")):
        played = tmp_path / f"<played {place}>"
        policies = ("--policy", "local-reactive", "--policy", "idle", "--policy", "me=random-legal", "--seeds", "2")
        assert dpem("run", "--scenario", scenario, "--set", "slots=40", *policies, "--out", str(played)) == 0
    path = tmp_path / "report.html"
    assert dpem("report", str(tmp_path / "<played 0>"), str(tmp_path / "<played 1>"), "--out", str(path)) == 0
    assert f"wrote {path}" in capsys.readouterr().out
    page = read_page(path)
    told = page.texts
    assert told["h2"] == [str(tmp_path / f"<played {place}>") for place in (0, 1)]
    assert [name for name in told["h3"] if name != "Performance profiles"] == [
        "mesh20-v0+slots=40",
        "star8-v0+slots=40",
    ]
    assert {"policy", "delivery rate", "contention", "reward"} <= set(told["th"])
    assert {"local-reactive", "idle", "me"} <= set(told["td"])
    assert len([link for link in page.links if link.startswith("data:image/svg+xml;base64,")]) == len(page.links) == 4


def test_prices_of_contention_make_fronts(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert dpem("report", str(FRONTS), "--out", str(path)) == 0
    page = read_page(path)
    assert "Fronts" in page.texts["h3"]
    assert "share" in page.texts["th"]


def test_two_fields_make_a_map_of_regimes(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert dpem("report", str(REGIMES), "--out", str(path)) == 0
    told = read_page(path).texts
    assert "Regimes" in told["h3"]
    assert {"predictability", "deadline", "central-lp", "the best of them"} <= set(told["th"])


def test_without_central_policies_there_is_no_map(tmp_path: Path) -> None:
    found = results.read(REGIMES)
    for scenario in found.summary["scenarios"]:
        scenario["contestants"] = [each for each in scenario["contestants"] if each["delay"] is None]
        scenario["differences"] = []
    results.write(tmp_path, found)
    path = tmp_path / "report.html"
    assert dpem("report", str(tmp_path), "--out", str(path)) == 0
    assert "Regimes" not in read_page(path).texts["h3"]


@pytest.mark.parametrize(("folder", "headings"), [(LEARNING, 1), (FEDERATED, 3)])
def test_folders_of_learning_curves_are_told_with_the_results_in_them(
    tmp_path: Path, folder: Path, headings: int
) -> None:
    path = tmp_path / "report.html"
    assert dpem("report", str(folder), "--out", str(path)) == 0
    told = read_page(path).texts
    curves = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    assert told["h3"][-1] == f"Learning curves: {curves['scenario']}"
    assert len(told["h3"]) == headings
    for training in curves["trainings"]:
        assert training["name"] in told["td"]
        assert f"{training['timesteps'][-1]:,}" in told["td"]
        assert any(text.startswith(f"{training['delivery_rate'][-1][0]:.3f}") for text in told["td"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "mine"}, "format"),
        ({"trainings": []}, "trainings"),
        ({"rules": {"maxweight": {"reward": 1.0}}}, "delivery_rate"),
    ],
)
def test_learning_curves_that_are_none_are_told(
    change: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = json.loads((LEARNING / "curve.json").read_text(encoding="utf-8"))
    (tmp_path / "curve.json").write_text(json.dumps(curves | change), encoding="utf-8")
    said = complaint(capsys, "report", str(tmp_path), "--out", str(tmp_path / "report.html"))
    assert f"learning curves '{tmp_path / 'curve.json'}' cannot be used: " in said
    assert why in said


def test_a_profile_is_the_share_of_runs_above_each_score() -> None:
    found = results.read(FRONTS)
    several = profiles(found)
    assert [each.iqm.value for each in several] == sorted((each.iqm.value for each in several), reverse=True)
    frame: Any = found.frame.query("metric == 'delivery_rate' and policy == 'maxweight'")
    runs = np.sort(frame["value"].to_numpy())
    [ours] = [each for each in several if each.label == "maxweight"]
    assert len(runs) == 4 * 20
    for threshold, share, low, high in zip(ours.thresholds, *ours.share, strict=True):
        assert share == pytest.approx((runs > threshold).mean())
        assert low <= share <= high
    assert ours.iqm.value == pytest.approx(runs[20:-20].mean())
    assert ours.share[0][0] == 1.0
    assert ours.share[0][-1] == 0.0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--out", "x.html"), "RESULTS"),
        ((str(FRONTS), "--out", "x.pdf"), "--out is 'x.pdf'; expected a file that ends in .html"),
        ((str(FRONTS), str(FRONTS), "--out", "x.html"), f"results '{FRONTS}' are given twice"),
        (("missing", "--out", "x.html"), "summary of results 'missing/summary.json' cannot be used"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(
    arguments: tuple[str, ...],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(re.escape(line), complaint(capsys, "report", *arguments))
    assert not list(tmp_path.iterdir())
