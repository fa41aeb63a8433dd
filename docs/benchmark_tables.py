"""Tables made of benchmark summaries (`dpem benchmark`), for `update.py` to write into the pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dpem_env.experiments.statistics import Interval, paired_difference, relative_difference

RESULTS = Path(__file__).resolve().parents[1] / "baselines" / "results"

Arm = dict[str, Any]
BEST_LOCAL = "maxweight"
POINT = 0.5  # s, control delay at which policies are compared where there is room for one
METRICS = {"delivery_rate": ("delivery rate", 3), "contention": ("contention", 4), "reward": ("reward", 2)}


def delay_curve_table() -> str:
    """Delivery rate of all policies against control delay, with contention, reward and score at one delay."""
    [scenario] = summary_of("delay-curve")["scenarios"]
    delays = sorted({arm["delay"] for arm in scenario["methods"]} - {None})
    lines = head(["policy", *(f"δ = {delay:g} s" for delay in delays), "contention", "reward", "score"])
    for policy, arms in _by_policy(scenario).items():
        rates = [value_of(arm, "delivery_rate", 3) for arm in sorted(arms, key=lambda arm: arm["delay"] or 0.0)]
        rates += [""] * (len(delays) - len(rates))
        at_point = _arm(scenario, policy, POINT)
        others = (value_of(at_point, *shown) for shown in (("contention", 4), ("reward", 2), ("score", 2)))
        lines.append(row([policy, *rates, *others]))
    bound = np.mean(scenario["bound"]["delivery_rate"])
    note = (
        "Delivery rate by control delay; local policies have none, so one value. Contention, reward per agent and "
        f"score of central policies are at δ = {POINT:g} s. Clairvoyant bound on the delivery rate: {bound:.3f}. "
    )
    return with_note(lines, note + _measured("delay-curve", scenario))


def claim_table() -> str:
    """The best local rule against central ones: how much more it delivers, and contends, at every delay."""
    [scenario] = summary_of("delay-curve")["scenarios"]
    local = _arm(scenario, BEST_LOCAL, POINT)
    delays = sorted({arm["delay"] for arm in scenario["methods"]} - {None})
    lines = head([f"{BEST_LOCAL} against", "metric", *(f"δ = {delay:g} s" for delay in delays)])
    for policy, arms in _by_policy(scenario).items():
        if arms[0]["delay"] is not None and "+" not in policy:
            for metric in ("delivery_rate", "contention"):
                ratios = (relative_of(local, _arm(scenario, policy, delay), metric) for delay in delays)
                lines.append(row([policy, METRICS[metric][0], *ratios]))
    note = "Relative differences of means in per cent, with 95 % intervals of the paired bootstrap. "
    return with_note(lines, note + _measured("delay-curve", scenario))


def gain_split_table() -> str:
    """What a local policy on forecasts gains over a central one without, in three steps."""
    [scenario] = summary_of("delay-curve")["scenarios"]
    steps = {
        "base stock": ("central-reactive", "local-reactive", "local-predictive+mean-rates", "local-predictive"),
        "maxweight": ("central-maxweight+none", "maxweight+none", "maxweight+mean-rates", "maxweight"),
    }
    gains = ("decentralization", "stocking", "prediction")
    lines = head(["rule", "step", "from", "to", *(name for name, _ in METRICS.values())])
    for rule, names in steps.items():
        arms = [_arm(scenario, name, POINT) for name in names]
        for gain, before, after in zip(gains, range(3), range(1, 4), strict=True):
            changes = (change(_difference(arms[after], arms[before], metric), METRICS[metric][1]) for metric in METRICS)
            lines.append(row([rule, gain, names[before], names[after], *changes]))
    note = f"Paired differences with 95 % intervals, central policies at δ = {POINT:g} s; +none has no forecasts. "
    return with_note(lines, note + _measured("delay-curve", scenario))


def loads_table() -> str:
    """Delivery rate and contention of all policies at three loads."""
    summary = summary_of("loads")
    return _side_by_side(
        summary["scenarios"],
        [f"{scenario['name'].partition('request_rate=')[2]} requests/s" for scenario in summary["scenarios"]],
        ("delivery_rate", "contention"),
        f"δ = {POINT:g} s; ρ = 0.3, 0.6 and 0.9. " + _measured("loads", summary["scenarios"][0]),
    )


def networks_table() -> str:
    """Delivery rate of all policies on real and failing networks."""
    summary = summary_of("networks")
    return _side_by_side(
        summary["scenarios"],
        [scenario["name"] for scenario in summary["scenarios"]],
        ("delivery_rate", "score"),
        f"Delivery rate and score, central policies at δ = {POINT:g} s. "
        + _measured("networks", summary["scenarios"][0]),
    )


def small_table() -> str:
    """The same on the small networks, where the bound is nearly reached."""
    summary = summary_of("small")
    return _side_by_side(
        summary["scenarios"],
        [scenario["name"] for scenario in summary["scenarios"]],
        ("delivery_rate", "score"),
        "Central policies at δ = 0. " + _measured("small", summary["scenarios"][0]),
        delay=0.0,
    )


def tuned_table() -> str:
    """Mean reward on validation episodes by default and tuned, on the paper's network."""
    found = json.loads((RESULTS.parent / "tuned" / "mesh100-v0.json").read_text(encoding="utf-8"))
    lines = head(["policy", "δ (s)", "reward by default", "tuned", "options"])
    for arm in found["tuned"]:
        if arm["delay"] in (None, 0.0, POINT):
            options = ", ".join(f"{name} {value}" for name, value in arm["best"]["options"].items()) or "its defaults"
            delay = "" if arm["delay"] is None else f"{arm['delay']:g}"
            rewards = (f"{reward:.2f}" for reward in (arm["default_reward"], arm["best"]["reward"]))
            lines.append(row([_name(arm), delay, *rewards, options]))
    budget = f"{found['trials']} trials of {found['episodes']} validation episodes each"
    note = f"Mean reward; {budget}, mesh100-v0 ({found['scenario_hash']})."
    return with_note(lines, note)


def _side_by_side(
    scenarios: Sequence[Arm], titles: Iterable[str], metrics: Sequence[str], note: str, delay: float = POINT
) -> str:
    """A row per policy, a column per scenario and metric."""
    digits = {"delivery_rate": 3, "contention": 4, "score": 2}
    names = {"delivery_rate": "delivery", "contention": "contention", "score": "score"}
    lines = head(["policy", *(f"{title}, {names[metric]}" for title in titles for metric in metrics)])
    for policy in _by_policy(scenarios[0]):
        arms = [_arm(scenario, policy, delay) for scenario in scenarios]
        lines.append(row([policy, *(value_of(arm, metric, digits[metric]) for arm in arms for metric in metrics)]))
    bounds = [f"{np.mean(scenario['bound']['delivery_rate']):.3f}" for scenario in scenarios]
    empty = [""] * (len(metrics) - 1)
    lines.append(row(["*clairvoyant bound*", *(cell for bound in bounds for cell in (bound, *empty))]))
    return with_note(lines, note)


@cache
def summary_of(suite: str) -> Any:
    """The committed summary of a benchmark."""
    return json.loads((RESULTS / suite / "summary.json").read_text(encoding="utf-8"))


def _name(arm: Arm) -> str:
    return str(arm["policy"]) + (f"+{arm['forecaster']}" if arm["forecaster"] else "")


def _by_policy(scenario: Arm) -> dict[str, list[Arm]]:
    """Arms by name of policy and forecaster: local ones first, the best first among each."""
    arms: dict[str, list[Arm]] = {}
    for arm in scenario["methods"]:
        arms.setdefault(_name(arm), []).append(arm)
    best = {name: max(arm["metrics"]["reward"]["mean"]["value"] for arm in of_it) for name, of_it in arms.items()}
    return dict(sorted(arms.items(), key=lambda item: (item[1][0]["delay"] is not None, -best[item[0]])))


def _arm(scenario: Arm, name: str, delay: float) -> Arm:
    [found] = [arm for arm in scenario["methods"] if _name(arm) == name and arm["delay"] in (None, delay)]
    return found  # type: ignore[no-any-return]


def _difference(ours: Arm, theirs: Arm, metric: str) -> Interval:
    values = [arm["episodes"][metric] for arm in (ours, theirs)]
    return paired_difference(*values, np.random.default_rng(0))


def relative_of(ours: Arm, theirs: Arm, metric: str) -> str:
    """How much more ours is, in per cent, with its interval."""
    values = [arm["episodes"][metric] for arm in (ours, theirs)]
    ratio = [100 * part for part in relative_difference(*values, np.random.default_rng(0))]
    return f"{ratio[0]:+.0f} [{ratio[1]:+.0f}, {ratio[2]:+.0f}]"


def gain_of(ours: Arm, theirs: Arm) -> str:
    """The paired difference of rewards, with its interval."""
    return change(_difference(ours, theirs, "reward"), 2)


def change(interval: Interval, digits: int) -> str:
    """A difference with its interval."""
    return f"{interval.value:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def value_of(arm: Arm, metric: str, digits: int) -> str:
    """The mean and half the width of its interval."""
    mean = arm["metrics"][metric]["mean"]
    return f"{mean['value']:.{digits}f} ± {(mean['high'] - mean['low']) / 2:.{digits}f}"


def _measured(suite: str, scenario: Arm) -> str:
    version = ", ".join(f"{name} {number}" for name, number in summary_of(suite)["version"].items())
    return f"{len(scenario['episodes'])} paired evaluation episodes, mean ± 95 % CI ({version})."


def head(cells: Sequence[str]) -> list[str]:
    """The first lines of a table: titles, and all columns but the first to the right."""
    return [row(cells), "|---|" + "---:|" * (len(cells) - 1)]


def row(cells: Iterable[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"


def with_note(lines: list[str], note: str) -> str:
    """A table with a paragraph below it."""
    return "\n".join([*lines, "", note])


TABLES = {
    "delay-curve": delay_curve_table,
    "claim": claim_table,
    "gain-split": gain_split_table,
    "loads": loads_table,
    "networks": networks_table,
    "small": small_table,
    "tuned": tuned_table,
}
