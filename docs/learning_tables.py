"""Tables of what learners come to: the search, learning curves, and trained policies beside tuned rules."""

from __future__ import annotations

import json
from typing import Any

from benchmark_tables import METRICS, RESULTS, Arm, gain_of, head, row, summary_of, value_of, with_note

LEARNING = RESULTS / "learning"
CURVES = ("mesh20", "mesh100")


def search_table() -> str:
    """All trials of the search over hyperparameters, best first."""
    found = json.loads((LEARNING / "search.json").read_text("utf-8"))
    lines = head(["what was changed", "reward", "delivery rate", "contention", "minutes"])
    for trial in found["trials"]:
        values = (f"{trial[metric]:.{digits}f}" for metric, digits in (("reward", 2), ("delivery_rate", 3)))
        lines.append(row([trial["name"], *values, f"{trial['contention']:.4f}", f"{trial['seconds'] / 60:.1f}"]))
    note = (
        f"{found['scenario']}, {found['timesteps'] / 1e6:g} million agent-steps each, training seed "
        f"{found['training_seed']}, {found['forecaster']} forecasts; means of {found['validation_episodes']} "
        "validation episodes after the last step."
    )
    return with_note(lines, note)


def curves_table() -> str:
    """Where every training began, ended and converged."""
    lines = head(["scenario", "learner", "reward before", "after", "converged after", "which took", "whole training"])
    for name in CURVES:
        found = json.loads((LEARNING / name / "curve.json").read_text("utf-8"))
        for training in found["trainings"]:
            first, last = (f"{value:.2f} ± {(high - low) / 2:.2f}" for value, low, high in _ends(training))
            at, seconds = training["mean_converged_at"], training["mean_converged_after_seconds"]
            when = ["not", ""]
            if at is not None:
                slots = training["environment_steps"][training["timesteps"].index(at)]
                when = [f"{slots:,} slots ({at / 1e6:.2f} M agent-steps)", f"{seconds / 60:.1f} min"]
            total = f"{training['timesteps'][-1] / 1e6:.1f} M, {training['seconds'][-1] / 60:.0f} min"
            lines.append(row([found["scenario"], training["name"], first, last, *when, total]))
    note = (
        "Reward per agent on validation episodes, mean and half the 95 % interval over training seeds. Converged: the "
        "first validation after which the mean over seeds stays within 5 % of its final mean, that of the last quarter "
        "of validations. Minutes on one of two busy cores."
    )
    return with_note(lines, note)


def learned_table(mesh: str) -> str:
    """Trained policies beside tuned rules on evaluation episodes, with paired differences of rewards."""
    parts = ["evaluation", *sorted(path.name for path in (LEARNING / mesh).glob("central-*"))]
    played = [summary_of(f"learning/{mesh}/{part}")["scenarios"] for part in parts]
    methods = {_label(arm): arm for [scenario] in played for arm in scenario["methods"]}
    arms = dict(sorted(methods.items(), key=lambda item: -_reward(item[1])))
    [scenario] = played[0]
    titles = [name for name, _ in METRICS.values()]
    lines = head(["policy", *titles, "reward − base stock's", "reward − local maxweight's"])
    for label, arm in arms.items():
        cells = [value_of(arm, metric, digits) for metric, (_, digits) in METRICS.items()]
        gains = ["" if arms[rule] is arm else gain_of(arm, arms[rule]) for rule in ("local-predictive", "maxweight")]
        lines.append(row([label, *cells, *gains]))
    version = ", ".join(f"{n} {number}" for n, number in summary_of(f"learning/{mesh}/evaluation")["version"].items())
    note = (
        f"{scenario['name']}, {len(scenario['episodes'])} paired evaluation episodes, mean ± 95 % CI; intervals of "
        f"learners are over training seeds and episodes, crossed ({version})."
    )
    return with_note(lines, note)


def sizes_table() -> str:
    """The policies trained on 100 nodes, unchanged, on smaller and larger meshes."""
    scenarios = summary_of("learning/sizes")["scenarios"]
    lines = head(["nodes", "policy", *(name for name, _ in METRICS.values()), "reward − local-reactive's"])
    for scenario in scenarios:
        arms = {_label(arm): arm for arm in scenario["methods"]}
        for label, arm in arms.items():
            cells = [value_of(arm, metric, digits) for metric, (_, digits) in METRICS.items()]
            gain = "" if label == "local-reactive" else gain_of(arm, arms["local-reactive"])
            lines.append(row([str(scenario["nodes"]), label, *cells, gain]))
    return with_note(lines, f"{len(scenarios[0]['episodes'])} paired evaluation episodes each, mean ± 95 % CI.")


def _label(arm: Arm) -> str:
    kind, colon, _ = arm["policy"].partition(":")
    name = {"ppo": "PPO, shared", "central-ppo": "PPO, central"}.get(kind, kind)
    seeds = f", {arm['training_seeds']} seeds" if colon else ""
    delay = "" if arm["delay"] is None else f" (δ = {arm['delay']:g} s)"
    return name + delay + seeds


def _reward(arm: Arm) -> float:
    return float(arm["metrics"]["reward"]["mean"]["value"])


def _ends(training: dict[str, Any]) -> tuple[list[float], list[float]]:
    return training["reward"][0], training["reward"][-1]


TABLES = {
    "search": search_table,
    "learning-curves": curves_table,
    "learned-mesh20": lambda: learned_table("mesh20"),
    "learned-mesh100": lambda: learned_table("mesh100"),
    "learned-sizes": sizes_table,
}
