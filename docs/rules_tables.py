"""Tables of rules against rules: `dpem run`, `dpem benchmark` and `dpem tune` on committed results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from compared import POINT, load, markdown, played

from dpem_env.envs.metric_labels import HEADLINE, METRICS
from dpem_env.experiments.anova import one_way_anova, two_way_anova

BEST_LOCAL = "maxweight"
REACTIVE = ("delivery_rate", "contention", "collisions", "denied", "fidelity", "latency", "fairness", "waste")
STEPS = {
    "base stock": ("central-reactive", "local-reactive", "local-predictive+mean-rates", "local-predictive"),
    "maxweight": ("central-maxweight+none", "maxweight+none", "maxweight+mean-rates", "maxweight"),
}


def reactive() -> str:
    """Local against central reactive control on mesh100-v0."""
    [mesh] = played("mesh100-reactive")
    rows = [{" ": METRICS[m].title} | {row.told["label"]: row.cell(m) for row in mesh.rows} for m in REACTIVE]
    return markdown(rows, f"mesh100-v0, {mesh.note}".replace("episodes", "seeds"))


def delay_curve() -> str:
    """Delivery rate of all policies against control delay, with contention, reward and score at one delay."""
    [mesh] = played("delay-curve")
    rows = []
    for name in mesh.names:
        delays = [mesh.row(name, delay) for delay in mesh.delays]
        shown = delays if delays[0].delay is not None else delays[:1]
        rates = {f"δ = {d:g} s": row.cell("delivery_rate") for d, row in zip(mesh.delays, shown, strict=False)}
        rates = {f"δ = {delay:g} s": "" for delay in mesh.delays} | rates
        rows.append({"policy": name} | rates | mesh.row(name).cells(("contention", "reward", "score")))
    note = (
        "Delivery rate by control delay; local policies have none, so one value. Contention, reward per agent and "
        f"score of central policies are at δ = {POINT:g} s. Clairvoyant bound on the delivery rate: {mesh.bound}. "
    )
    return markdown(rows, note + mesh.note)


def claim() -> str:
    """The best local rule against central ones: how much more it delivers, and contends, at every delay."""
    [mesh] = played("delay-curve")
    local = mesh.row(BEST_LOCAL)
    rows = [
        {f"{BEST_LOCAL} against": name, "metric": METRICS[metric].title}
        | {f"δ = {delay:g} s": local.relative(mesh.row(name, delay), metric) for delay in mesh.delays}
        for name in mesh.names
        if mesh.row(name).delay is not None and "+" not in name
        for metric in ("delivery_rate", "contention")
    ]
    note = "Relative differences of means in per cent, with 95 % intervals of the paired bootstrap. "
    return markdown(rows, note + mesh.note, left=2)


def gain_split() -> str:
    """What a local policy on forecasts gains over a central one without, in three steps."""
    [mesh] = played("delay-curve")
    rows = [
        {"rule": rule, "step": step, "from": before, "to": after}
        | {METRICS[metric].title: mesh.row(after).gain(mesh.row(before), metric) for metric in HEADLINE}
        for rule, names in STEPS.items()
        for step, before, after in zip(("decentralization", "stocking", "prediction"), names, names[1:], strict=False)
    ]
    note = f"Paired differences with 95 % intervals, central policies at δ = {POINT:g} s; +none has no forecasts. "
    return markdown(rows, note + mesh.note, left=4)


def variance() -> str:
    """Analyses of variance: between all policies at one delay, and of architecture by prediction of one rule."""
    [mesh] = played("delay-curve")
    cells = [
        [mesh.row(rule + forecasts) for forecasts in ("+none", "", "+oracle")]
        for rule in ("maxweight", "central-maxweight")
    ]
    rows: list[dict[str, Any]] = []
    for metric in HEADLINE:
        values = [mesh.row(name).values[metric].mean(axis=0) for name in mesh.names]
        one = one_way_anova(values)
        first = {"metric": METRICS[metric].title, "effect": f"policy ({len(values)})"}
        rows.append(first | _test(one.f, one.df[0], one.df[1], one.p, one.eta_squared, one))
        two = two_way_anova(np.array([[cell.values[metric].mean(axis=0) for cell in line] for line in cells]))
        for effect, found in (("architecture", two.first), ("prediction", two.second), ("both", two.interaction)):
            told = _test(found.f, found.df, two.residual_df, found.p, found.eta_squared, two)
            rows.append({"metric": "", "effect": effect} | told)
    return markdown(rows, f"δ = {POINT:g} s; {mesh.note}".replace(", mean ± 95 % CI", ""), left=2)


def _test(f: float, df: int, rest: int, p: float, eta: float, checks: Any) -> dict[str, str]:
    beside = {"Shapiro p": checks.shapiro_p, "Levene p": checks.levene_p, "Kruskal-Wallis p": checks.kruskal_p}
    tested = {"F": f"{f:.1f}", "df": f"{df}, {rest}", "p": _p(p), "η²": f"{eta:.2f}"}
    return tested | {name: _p(value) for name, value in beside.items()}


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def side_by_side(suite: str, metrics: Sequence[str], note: str, delay: float = POINT) -> str:
    """A row per policy, a column per scenario and metric."""
    short = {"delivery_rate": "delivery", "contention": "contention", "score": "score"}
    of = {re.sub(r".*request_rate=(.*)", r"\1 requests/s", each.told["name"]): each for each in played(suite)}
    first = next(iter(of.values()))
    rows: list[dict[str, str]] = [
        {"policy": name}
        | {f"{title}, {short[m]}": each.row(name, delay).cell(m) for title, each in of.items() for m in metrics}
        for name in first.names
    ]
    rows.append({"policy": "*clairvoyant bound*"} | {f"{title}, delivery": each.bound for title, each in of.items()})
    return markdown(rows, note + first.note)


def tuned() -> str:
    """Mean reward on validation episodes by default and tuned, on the paper's network."""
    found, rows = load("../tuned/mesh100-v0.json"), []
    for each in found["tuned"]:
        if each["delay"] in (None, 0.0, POINT):
            row = {"policy": each["policy"] + (f"+{each['forecaster']}" if each["forecaster"] else "")}
            row["δ (s)"] = "" if each["delay"] is None else f"{each['delay']:g}"
            row |= {"reward by default": f"{each['default_reward']:.2f}", "tuned": f"{each['best']['reward']:.2f}"}
            row["options"] = ", ".join(f"{n} {v}" for n, v in each["best"]["options"].items()) or "its defaults"
            rows.append(row)
    note = "Mean reward; {trials} trials of {episodes} validation episodes each, mesh100-v0 ({scenario_hash})."
    return markdown(rows, note.format(**found))


TABLES = {
    "reactive": reactive,
    "delay-curve": delay_curve,
    "claim": claim,
    "gain-split": gain_split,
    "variance": variance,
    "loads": lambda: side_by_side("loads", ("delivery_rate", "contention"), f"δ = {POINT:g} s; ρ = 0.3, 0.6 and 0.9. "),
    "networks": lambda: side_by_side(
        "networks", ("delivery_rate", "score"), f"Delivery rate and score, central policies at δ = {POINT:g} s. "
    ),
    "small": lambda: side_by_side("small", ("delivery_rate", "score"), "Central policies at δ = 0. ", delay=0.0),
    "tuned": tuned,
}
