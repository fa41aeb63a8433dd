"""Tables made of forecast scores (`dpem forecast`) and of policies on other forecasts, for `update.py`."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from benchmark_tables import RESULTS, change, head, row, summary_of, with_note

from dpem_env.experiments.forecast_skill import SUMS
from dpem_env.experiments.statistics import RESAMPLES, Array, Interval, paired_difference
from dpem_env.support.seeding import generator

DEMANDS = {
    "sessions": "sessions (φ = 1)",
    "half": "half sessions (φ = 0.5)",
    "steady": "no sessions (φ = 0)",
    "periodic": "periodic sessions",
    "trace": "Abilene trace",
}
AHEAD = (1, 4, 8, 10)  # slots
REFERENCE = "mean-rates"


def skill_table() -> str:
    """Deviance skill of every forecaster on every demand."""
    lines = head(["demand", "forecaster", *(f"{ahead} ahead" for ahead in AHEAD), "MASE 1", "MASE 10"])
    for demand, title in DEMANDS.items():
        for forecaster in _scores(demand)["forecasters"]:
            skills = (f"{forecaster['skill'][ahead - 1]:.3f}" for ahead in AHEAD)
            errors = (f"{forecaster['mase'][ahead - 1]:.2f}" for ahead in (1, 10))
            lines.append(row([title, _short(forecaster["name"]), *skills, *errors]))
    found = _scores("sessions")
    note = f"Deviance skill over the true mean rates; {len(found['seeds'])} evaluation episodes of one network each."
    return with_note(lines, note)


def verdict_table() -> str:
    """The node's own network against the best moving average and the Bayes filter, at every horizon."""
    lines = head(["demand", "worst of all horizons", "best of all horizons", "share of the gap to the Bayes filter"])
    for demand, title in DEMANDS.items():
        sums = {_short(found["name"]): _deviances(found) for found in _scores(demand)["forecasters"]}
        averages = [name for name in sums if name.startswith("moving-average")]
        horizons = range(sums["gru"].shape[1])
        best = [min(averages, key=lambda name: float(sums[name][:, h].sum())) for h in horizons]
        gains = [_gain(sums["gru"][:, h], sums[best[h]][:, h], sums[REFERENCE][:, h]) for h in horizons]
        shares = ""
        if "bayes-filter" in sums:
            total = {name: table.sum(axis=0) for name, table in sums.items()}
            average = np.array([total[best[h]][h] for h in horizons])
            closed = (average - total["gru"]) / (average - total["bayes-filter"])
            shares = f"{closed.min():.2f} to {closed.max():.2f}" if demand != "steady" else ""
        order = sorted(gains, key=lambda gain: gain.value)
        lines.append(row([title, change(order[0], 3), change(order[-1], 3), shares]))
    note = (
        "Deviance skill of the GRU minus that of the moving average that is best at that horizon on these very "
        "episodes (windows 20 to 320 slots), with 95 % intervals over paired episodes."
    )
    return with_note(lines, note)


def worth_table() -> str:
    """The base-stock rule on every forecast, on two scenarios and three coherence times."""
    lines = head(
        ["scenario", "T (s)", "forecasts", "delivery rate", "minus mean rates", "contention", "waste", "reward"]
    )
    for suite in ("worth-mesh100", "worth-trace"):
        for scenario in summary_of(suite)["scenarios"]:
            methods = {_short(method["forecaster"]): method for method in scenario["methods"]}
            coherence = scenario["name"].partition("coherence_time=")[2].partition("+")[0]
            for name, method in methods.items():
                gain = _paired(method, methods[REFERENCE], "delivery_rate")
                shown = (("delivery_rate", 3), ("contention", 4), ("waste", 2), ("reward", 2))
                delivery, *others = (_mean(method, metric, digits) for metric, digits in shown)
                cells = [scenario["name"].partition("+")[0], coherence, name, delivery, change(gain, 3), *others]
                lines.append(row(cells))
    episodes = len(summary_of("worth-mesh100")["scenarios"][0]["episodes"])
    note = f"local-predictive with its default options; {episodes} paired evaluation episodes on one network each."
    return with_note(lines, note)


def cost_table() -> str:
    """What a forecast costs in time, beside what it brings in reward."""
    times = {_short(found["name"]): found["us_per_slot"] for found in _scores("sessions")["forecasters"]}
    scenario = summary_of("worth-mesh100")["scenarios"][-1]
    methods = {_short(method["forecaster"]): method for method in scenario["methods"]}
    own = "moving-average:80"  # what the policy brings along
    lines = head(["forecasts", "ms per slot, 100 nodes", "reward per agent and episode, minus mean rates"])
    for name in (REFERENCE, own, "gru", "bayes-filter", "oracle"):
        gain = _paired(methods[name], methods[REFERENCE], "reward")
        lines.append(row([name, f"{times[name] / 1000:.3f}", change(gain, 2)]))
    return with_note(
        lines, f"{scenario['name']}, one core; a slot lasts {1000 * _scores('sessions')['slot_duration']:g} ms."
    )


@cache
def _scores(demand: str) -> Any:
    return json.loads((RESULTS / "forecasts" / demand / "forecast.json").read_text(encoding="utf-8"))


def _short(forecaster: str | None) -> str:
    """Without the path of a checkpoint; the policy's own is a moving average."""
    if forecaster is None:
        return "moving-average:80"
    return forecaster if forecaster.startswith("moving-average") else forecaster.partition(":")[0]


def _deviances(forecaster: dict[str, Any]) -> Array:
    """(episodes, H)."""
    return np.array([episode[SUMS[0]] for episode in forecaster["episodes"]])


def _gain(ours: Array, theirs: Array, reference: Array) -> Interval:
    """Skill minus skill of (episodes,) deviances, with a bootstrap over episodes."""
    draws = generator("forecast tables").multinomial(len(ours), np.full(len(ours), 1 / len(ours)), size=RESAMPLES)
    low, high = np.quantile(draws @ (theirs - ours) / (draws @ reference), [0.025, 0.975])
    return Interval(float((theirs - ours).sum() / reference.sum()), float(low), float(high))


def _paired(ours: dict[str, Any], theirs: dict[str, Any], metric: str) -> Interval:
    return paired_difference(ours["episodes"][metric], theirs["episodes"][metric], np.random.default_rng(0))


def _mean(method: dict[str, Any], metric: str, digits: int) -> str:
    found = method["metrics"][metric]
    return "-" if found is None else f"{found['mean']['value']:.{digits}f}"


TABLES = {"skill": skill_table, "verdict": verdict_table, "worth": worth_table, "cost": cost_table}
