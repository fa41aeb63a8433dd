"""What README and docs say in words about results, each quoted and held against the committed results it is about."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POINT = "(delay 0.5 s)"
PLANNERS = ("central-lp", "q-cast", "reps", "central-maxweight", "central-predictive")


@cache
def records(*sources: str) -> list[dict[str, Any]]:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("analyses").records(*sources)  # type: ignore[no-any-return]
    finally:
        sys.path.remove(str(ROOT / "docs"))


def field(source: str, name: str, where: dict[str, Any]) -> Any:
    """Of the one record that agrees."""
    [found] = [each[name] for each in records(source) if all(each.get(key) == value for key, value in where.items())]
    return found


def mean(label: str, metric: str = "delivery_rate", of: str = "results/delay-curve", **where: Any) -> float:
    return float(field(of, metric, {"label": label} | where))


def more(label: str, other: str, metric: str = "delivery_rate", of: str = "results/delay-curve", **where: Any) -> float:
    """How much more a contestant has than another, as a share."""
    return mean(label, metric, of, **where) / mean(other, metric, of, **where) - 1


def at(delay: str) -> str:
    """The best central policy at a control delay, of those that know no future."""
    return max((f"{planner} (delay {delay} s)" for planner in PLANNERS), key=mean)


def over_mean_rates(label: str, coherence: str = "60.0") -> float:
    of, where = "results/worth-mesh100", {"coherence_time": coherence}
    return mean(label, of=of, **where) - mean("local-predictive +mean-rates", of=of, **where)


def lost_by_sharing(training: str) -> float:
    label = f"ppo:runs/privacy/{training}/seed*, 5 training seeds"
    return -more(label, "ppo:runs/privacy/alone/seed*, 5 training seeds", "reward", "results/federated/privacy")


def skill(forecaster: str) -> float:
    return float(field("results/forecasts/sessions/forecast.json:forecasters", "skill", {"name": forecaster})[-1])


def dpem(other: str, metric: str = "delivery_rate") -> float:
    return more("ppo:agents/checkpoints/dpem-mesh100/seed0", other, metric, "results/federated/dpem")


def noise(**where: Any) -> float:
    where |= {"mode": "central", "nodes": 100}
    return float(field("results/federated/noise.json:rows", "noise_to_clip", where))


def undefended(attack: str) -> float:
    return float(field("attacks", "delivery_rate", {"attack": attack, "defence": "mean"}))


GRU = "gru:agents/checkpoints/mesh100-gru.npz"


def claims() -> Iterator[tuple[str, str, float, float, float]]:
    """Page, quote, the value it speaks of, and the least and the most that it can mean."""
    late, page = more("maxweight", at("0.5")), "README.md"
    yield page, "the best central schedulers beat the best local rule", more(at("0"), "maxweight"), 0.01, 0.2
    yield page, "lose by a tenth of the deliveries at half a second", late, 0.07, 0.13
    steps = field("curves", "steps", {"scenario": "mesh100-v0", "name": "shared"})
    yield page, "trained on 4 million agent-steps of mesh100", steps / 1e6, 3.9, 4.2
    yield page, "delivers a third more than a reactive central scheduler", dpem(f"central-reactive {POINT}"), 0.28, 0.38
    yield page, "a tuned local rule, `maxweight`, is ahead of it in both", dpem("maxweight"), -0.2, 0.0
    yield page, "a tuned local rule, `maxweight`, is ahead of it in both", dpem("maxweight", "contention"), 0.0, 0.3

    page = "docs/results.md"
    reactive = more("maxweight", f"central-reactive {POINT}")
    yield page, "at a quarter of a second they are level", more("maxweight", at("0.25")), -0.02, 0.03
    yield page, "delivers about a tenth more than the best central one", late, 0.07, 0.13
    yield page, "A quarter more delivery is easily had: against a merely reactive scheduler", reactive, 0.25, 1.0
    yield page, "or against any at one second", more("maxweight", at("1")), 0.25, 2.0
    undelivered = -more(at("0"), "clairvoyant bound")
    yield page, "A third of what a clairvoyant could deliver is delivered by no rule", undelivered, 0.29, 0.38
    for rule in ("maxweight", "local-predictive"):
        gain = mean(rule) - mean(f"{rule} +mean-rates")
        yield page, "forecasts by moving average add one to two points of delivery", gain, 0.005, 0.025
    for effect in ("architecture", "prediction"):
        share = field("variance", "eta_squared", {"metric": "delivery rate", "effect": effect})
        yield page, "each explain about a sixth of the variance of delivery", share, 0.13, 0.2
    half, whole = (mean("maxweight", of="results/loads", request_rate=rate) for rate in ("6.25", "12.5"))
    yield page, "Halving the load saves the best local rule five points of delivery", half - whole, 0.04, 0.06

    page, rule = "docs/forecasting.md", "local-predictive"
    yield (
        page,
        "within two per cent of the best that anyone could do",
        1 - skill(GRU) / skill("bayes-filter"),
        0.0,
        0.02,
    )
    yield (
        page,
        "worth three points of delivery over the true mean rates",
        over_mean_rates(f"{rule} +{GRU}"),
        0.025,
        0.035,
    )
    yield page, "a moving average two", over_mean_rates(rule), 0.015, 0.025
    yield page, "the true rates of the moment five", over_mean_rates(f"{rule} +oracle"), 0.045, 0.055
    yield page, "with memories of 10 s half a point is left", over_mean_rates(f"{rule} +{GRU}", "10.0"), 0.003, 0.008

    page = "docs/federated-learning.md"
    for training in ("head-off", "head-epsilon8", "head-epsilon2"):
        loss = lost_by_sharing(training)
        yield page, "averaging heads costs about a fifth of the reward, private or not", loss, 0.15, 0.25
    yield page, "with noise three times as long as the longest update", noise(weights=1220, epsilon=2.0), 2.7, 3.3
    yield page, "at ε = 8 the noise on a head is a fifth of the clip", noise(weights=68, epsilon=8.0), 0.17, 0.24
    taken = 1 - undefended("random") / undefended("none")
    yield page, "random ones take four fifths of all deliveries away", taken, 0.75, 0.85

    longest = max(each["lines"] for each in records("results/adapters/*.json"))
    yield "docs/adapters.md", "at most 80 lines", longest, 1, 80
    floor = field("results/speed.json:rows", "ratio_to_empty", {"path": "parallel API", "actions": "local-reactive"})
    yield "docs/speed.md", "That is about half of our step", floor, 0.4, 0.6


def test_pages_say_what_results_say() -> None:
    for page, quote, value, low, high in claims():
        assert quote in re.sub(r"\s+", " ", (ROOT / page).read_text("utf-8")), page
        assert low <= value <= high, f"{page} says {quote!r}, results {value:.3f}"
