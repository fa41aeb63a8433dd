"""Figures of results: what is drawn, where axes end, how lines are called, and that files are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from dpem_env.envs.metric_labels import METRICS
from dpem_env.report import results_figure
from dpem_env.report.results_figure import (
    APART,
    FORMATS,
    MOST,
    Panelled,
    Point,
    save_front_figure,
    save_results_figure,
)
from support.command_line import complaint

DELIVERY, CONTENTION, REWARD = METRICS["delivery_rate"], METRICS["contention"], METRICS["reward"]


def point(name: str, values: dict[str, list[float]], delay: float | None = None, width: float = 0.1) -> Point:
    """A contestant with these episodes."""
    metrics = {
        metric: {"mean": {"value": float(np.mean(of)), "low": np.mean(of) - width, "high": np.mean(of) + width}}
        for metric, of in values.items()
    }
    label = name if delay is None else f"{name} (delay {delay:g} s)"
    summary = {"label": label, "policy": name, "forecaster": None, "delay": delay, "metrics": metrics}
    return Point(summary, {metric: np.array(of) for metric, of in values.items()})


def scenario(points: list[Point], bound: Any = None) -> Panelled:
    """All of them, compared with the first."""
    reference = points[0]
    differences = [
        {
            "label": each.summary["label"],
            "metrics": {
                metric: {"difference": {"value": float(np.mean(of - reference.episodes[metric])), "low": -1, "high": 1}}
                for metric, of in each.episodes.items()
            },
        }
        for each in points[1:]
    ]
    named = {"name": "a world", "bound": bound, "differences": differences, "reference": reference.summary["label"]}
    return Panelled(named, points)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that would have been written."""
    found: list[Figure] = []
    monkeypatch.setattr(results_figure, "save", lambda figure, path: found.append(figure))
    return found


def values(level: float, count: int = 6) -> dict[str, list[float]]:
    """Episodes around a level of delivery."""
    spread = np.linspace(-0.05, 0.05, count)
    return {"delivery_rate": list(level + spread), "contention": [0.01] * count, "reward": list(10 * level + spread)}


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("suffix", FORMATS)
def test_it_is_written_in_the_format_of_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"figure{suffix}"
    save_results_figure(path, [scenario([point("a", values(0.4)), point("b", values(0.5), 0.5)])], [DELIVERY], REWARD)
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(("level", "width"), [(0.97, 0.6), (0.03, 0.6), (0.5, 0.9)])
def test_no_axis_of_shares_leaves_what_is_possible(drawn: list[Figure], level: float, width: float) -> None:
    points = [point("a", values(level), delay, width) for delay in (0.0, 0.5)]
    save_results_figure(Path("x.png"), [scenario(points)], [DELIVERY, CONTENTION], REWARD)
    for axes in drawn[0].axes[:2]:
        low, high = axes.get_ylim()
        assert 0.0 <= low < high <= 1.02


@pytest.mark.parametrize(("count", "dots", "bands"), [(1, 1, 0), (4, 4, 0), (5, 0, 1), (30, 0, 1)])
def test_of_few_episodes_each_is_a_dot_and_there_is_no_interval(
    drawn: list[Figure], count: int, dots: int, bands: int
) -> None:
    save_results_figure(Path("x.png"), [scenario([point("a", values(0.5, count), 0.5)])], [DELIVERY], REWARD)
    axes = drawn[0].axes[0]
    alone = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in alone) == dots  # type: ignore[arg-type]
    drawn_bands = [band for band in axes.collections if np.isfinite(band.get_datalim(axes.transData).y1)]
    assert len(drawn_bands) == bands


def test_at_most_eight_policies_are_drawn_the_best_and_the_reference(drawn: list[Figure]) -> None:
    points = [point("reference", values(0.01))] + [point(f"p{n}", values(0.1 + 0.05 * n), 0.5) for n in range(12)]
    save_results_figure(Path("x.png"), [scenario(points)], [DELIVERY], REWARD)
    assert set(texts(drawn[0].axes[0])) == {"reference", *(f"p{n}" for n in range(5, 12))}
    assert len(texts(drawn[0].axes[0])) == MOST
    [legend] = drawn[0].legends
    assert legend.get_title().get_text() == "the best by reward; others are in the table"
    assert {text.get_text() for text in legend.get_texts()} == set(texts(drawn[0].axes[0]))


def test_labels_at_the_ends_of_lines_do_not_lie_on_one_another(drawn: list[Figure]) -> None:
    points = [point(f"p{n}", values(0.5 + 1e-4 * n), 0.5) for n in range(8)]
    save_results_figure(Path("x.png"), [scenario(points)], [DELIVERY], REWARD)
    places = sorted(text.xy[1] for text in drawn[0].axes[0].texts)  # type: ignore[attr-defined]
    assert np.diff(places).min() >= APART - 1e-9
    assert texts(drawn[0].axes[0])[0] == "p0"


def test_a_line_far_beyond_all_others_is_left_out_and_told(drawn: list[Figure]) -> None:
    quiet = [point(f"p{n}", {"contention": [0.01 + 0.001 * n] * 6, "reward": [0.0] * 6}, 0.5) for n in range(3)]
    loud = point("random", {"contention": [0.2] * 6, "reward": [-9.0] * 6})
    save_results_figure(Path("x.png"), [scenario([*quiet, loud])], [CONTENTION], REWARD)
    assert drawn[0].axes[0].get_ylim()[1] < 0.02
    assert "random: 0.2 (off the scale)" in texts(drawn[0].axes[0])


def test_differences_are_to_the_reference_of_equally_late_ones(drawn: list[Figure]) -> None:
    points = [
        point("c", values(0.5), 0.5),
        point("c", values(0.6), 0.0),
        point("l", values(0.4)),
        point("d", values(0.7), 0.5),
    ]
    save_results_figure(Path("x.png"), [scenario(points)], [DELIVERY], REWARD)
    axes = drawn[0].axes[-1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["l", "d (delay 0.5 s)"]
    assert axes.get_xlabel() == "reward − c (delay 0.5 s)'s"
    assert [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"] == pytest.approx([-1.0, 2.0])  # type: ignore[index]


def test_the_bound_and_a_single_contestant_are_drawn(drawn: list[Figure]) -> None:
    bound = {"name": "clairvoyant", "delivery_rate": {"value": 0.9, "low": 0.8, "high": 1.0}}
    save_results_figure(Path("x.png"), [scenario([point("a", values(0.5))], bound)], [DELIVERY, CONTENTION], REWARD)
    assert len(drawn[0].axes) == 2
    assert "clairvoyant bound" in {text.get_text() for text in drawn[0].legends[0].get_texts()}


def test_a_front_is_a_line_through_all_prices_for_every_delay(drawn: list[Figure]) -> None:
    prices = [
        scenario(
            [
                point("c", {"delivery_rate": [level] * 6, "contention": [level / 100] * 6, "reward": [1.0] * 6}, delay)
                for delay in (0.0, 0.5)
            ]
            + [point("l", values(level - 0.1))]
        )
        for level in (0.5, 0.4, 0.3)
    ]
    save_front_figure(Path("x.png"), prices, CONTENTION, DELIVERY)
    [axes] = drawn[0].axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    assert sorted(texts(axes)) == ["c, δ = 0 s", "c, δ = 0.5 s", "l"]
    drawn_levels = [list(map(float, line.get_ydata())) for line in lines]  # type: ignore[arg-type]
    assert drawn_levels[0] == pytest.approx([0.4, 0.3, 0.2])  # the local one has the larger rewards
    assert drawn_levels[1] == pytest.approx([0.5, 0.4, 0.3])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("contention", "delivery rate")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--out", "x.gif"), "--out is 'x.gif'; expected a name that ends with .png, .pdf, .svg"),
        (("--metric", "delivery", "--out", "x.png"), "unknown metric 'delivery'; did you mean 'delivery_rate'?"),
        (("--out", "x.png"), "summary of results"),
    ],
)
def test_the_command_answers_bad_input_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert told in complaint(capsys, "figure", str(tmp_path), *arguments)
