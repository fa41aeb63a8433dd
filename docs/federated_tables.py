"""Tables of federated learning: what averaging brings, what privacy costs, what attacks do; for `update.py`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from benchmark_tables import METRICS, RESULTS, Arm, gain_of, head, relative_of, row, summary_of, value_of, with_note

FEDERATED = RESULTS / "federated"
NODES = 100
# Folders of trainings: what is shared, how it is protected, ε.
ARMS: dict[str, tuple[str, str, float | None]] = {
    "alone": ("nothing", "", None),
    "head-off": ("head", "off", None),
    "head-epsilon8": ("head", "central", 8.0),
    "head-epsilon2": ("head", "central", 2.0),
    "head-local8": ("head", "local", 8.0),
    "whole-off": ("whole", "off", None),
    "whole-clip": ("whole", "clip alone", None),
    "whole-epsilon8": ("whole", "central", 8.0),
    "whole-epsilon2": ("whole", "central", 2.0),
}


def privacy_table() -> str:
    """Trained policies by what their nodes shared, and at which ε."""
    scenario, arms = privacy_arms()
    noise, minutes = _noise(), _minutes()
    titles = [name for name, _ in METRICS.values()]
    lines = head(["shared", "privacy", "ε", "noise / clip", "seeds", *titles, "reward − alone", "min"])
    for folder, arm in arms.items():
        share, mode, epsilon = ARMS[folder]
        ratio = "" if epsilon is None else f"{noise[mode, share, epsilon]:.2f}"
        shown = f"{epsilon:g}" if epsilon is not None else "∞" if mode else ""
        values = (value_of(arm, metric, digits) for metric, (_, digits) in METRICS.items())
        gain = "" if folder == "alone" else gain_of(arm, arms["alone"])
        lines.append(
            row([share, mode, shown, ratio, str(arm["training_seeds"]), *values, gain, f"{minutes[folder]:.1f}"])
        )
    for arm in rules(scenario):
        values = (value_of(arm, metric, digits) for metric, (_, digits) in METRICS.items())
        lines.append(row([f"*{rule_name(arm)}*", "", "", "", "", *values, gain_of(arm, arms["alone"]), ""]))
    table = _read("noise")
    note = (
        f"{scenario['name']}, {len(scenario['episodes'])} paired evaluation episodes, mean ± 95 % CI over training "
        f"seeds and episodes, crossed. {table['rounds']} rounds, δ = {table['delta']:g}, all {NODES} nodes in each. "
        "Minutes of a training on one of two cores, with its validations; rules are tuned."
    )
    return with_note(lines, note)


def cost_line() -> str:
    """What rounds cost in training time."""
    cost = _read("cost")
    seconds = cost["cpu_seconds"]
    ratios = ", ".join(f"{share}: {seconds[share] / seconds['alone']:.2f}" for share in ("head", "whole"))
    return (
        f"CPU time of a rollout with its update, and a round after it, over that of the same nodes alone: {ratios} "
        f"({cost['scenario']}, medians of {cost['rollouts']}, {seconds['alone']:.2f} s alone; {cost['machine']}, "
        f"{cost['date']})."
    )


def noise_table() -> str:
    """Noise beside the clip for every ε, and what a node sends."""
    table = _read("noise")
    epsilons = sorted({each["epsilon"] for each in table["rows"]})
    lines = head(["privacy", "nodes", "shared weights", *(f"ε = {epsilon:g}" for epsilon in epsilons), "kB a round"])
    cells: dict[tuple[str, int, int], dict[float, float]] = {}
    for each in table["rows"]:
        key = (each["mode"], each["nodes"], each["weights"])
        cells.setdefault(key, {})[each["epsilon"]] = each["noise_to_clip"]
    sent = {each["weights"]: each["bytes_per_node"] / 1000 for each in table["rows"]}
    for (mode, nodes, weights), ratios in sorted(cells.items()):
        ratios_shown = (f"{ratios[epsilon]:.2f}" for epsilon in epsilons)
        lines.append(row([mode, f"{nodes:,}", f"{weights:,}", *ratios_shown, f"{sent[weights]:.1f}"]))
    note = (
        f"Expected length of the noise on a round's average, in clips: {table['rounds']} rounds, δ = "
        f"{table['delta']:g}, all nodes in every round. kB that a node sends in a round; as much comes back."
    )
    return with_note(lines, note)


def attacks_table() -> str:
    """How the policy plays after rounds under attack, by attack and defence."""
    found = _read("attacks")
    scores: dict[tuple[str, str], list[dict[str, float]]] = {}
    for trial in found["trials"]:
        scores.setdefault((trial["attack"], trial["defence"]), []).append(trial)
    defences = list(dict.fromkeys(defence for _, defence in scores))
    lines = head(["attack", "metric", *defences])
    for attack in dict.fromkeys(attack for attack, _ in scores):
        for metric, (name, digits) in METRICS.items():
            values = ([trial[metric] for trial in scores[attack, defence]] for defence in defences)
            lines.append(row([attack, name, *(f"{np.mean(v):.{digits}f} ± {np.std(v):.{digits}f}" for v in values)]))
    before = ", ".join(f"{name} {found['before'][metric]:.{digits}f}" for metric, (name, digits) in METRICS.items())
    seeds = len(next(iter(scores.values())))
    note = (
        f"{found['scenario']}, {found['rounds']} rounds of {found['period']} rollouts in which "
        f"{found['adversaries']:.0%} of {found['nodes']} nodes attack; mean and standard deviation over {seeds} seeds, "
        f"each the mean of {found['episodes']} evaluation episodes. Clip: {found['clip_norm']:g}. Before: {before}."
    )
    return with_note(lines, note)


def dpem_table() -> str:
    """The paper's system beside tuned rules on its network."""
    [scenario] = summary_of("federated/dpem")["scenarios"]
    arms = sorted(scenario["methods"], key=lambda arm: -float(arm["metrics"]["reward"]["mean"]["value"]))
    [ours] = [arm for arm in arms if arm["policy"].startswith("ppo:")]
    against = ["DPEM delivers more by (%)", "and contends more by (%)", "reward − DPEM's"]
    lines = head(["policy", *(name for name, _ in METRICS.values()), *against])
    for arm in arms:
        values = (value_of(arm, metric, digits) for metric, (_, digits) in METRICS.items())
        name = "**DPEM**" if arm is ours else rule_name(arm)
        ratios = [relative_of(ours, arm, metric) for metric in ("delivery_rate", "contention")]
        lines.append(row([name, *values, *([""] * 3 if arm is ours else [*ratios, gain_of(arm, ours)])]))
    version = ", ".join(f"{name} {number}" for name, number in summary_of("federated/dpem")["version"].items())
    note = f"{scenario['name']}, {len(scenario['episodes'])} paired evaluation episodes, mean ± 95 % CI ({version})."
    return with_note(lines, note)


def privacy_arms() -> tuple[Any, dict[str, Arm]]:
    """The scenario of the trainings, and what became of them, by folder."""
    [scenario] = summary_of("federated/privacy")["scenarios"]
    found = {_folder(arm): arm for arm in scenario["methods"] if arm["policy"].startswith("ppo:")}
    return scenario, {folder: found[folder] for folder in ARMS if folder in found}


def rules(scenario: Any) -> list[Arm]:
    """What learners are compared to, best first."""
    arms = [arm for arm in scenario["methods"] if not arm["policy"].startswith("ppo:")]
    return sorted(arms, key=lambda arm: -float(arm["metrics"]["reward"]["mean"]["value"]))


def rule_name(arm: Arm) -> str:
    """With its delay, if central."""
    return str(arm["policy"]) + ("" if arm["delay"] is None else f" (δ = {arm['delay']:g} s)")


def _folder(arm: Arm) -> str:
    """Of the trainings, "…/FOLDER/seed*"."""
    return str(arm["policy"]).split("/")[-2]


def _noise() -> dict[tuple[str, str, float], float]:
    """Noise over clip by mode, what is shared and ε, at the number of nodes trained."""
    table = _read("noise")
    sizes = sorted({each["weights"] for each in table["rows"]})
    shares = {sizes[0]: "head", sizes[-1]: "whole"}
    return {
        (each["mode"], shares[each["weights"]], each["epsilon"]): each["noise_to_clip"]
        for each in table["rows"]
        if each["nodes"] == NODES and each["weights"] in shares
    }


def _minutes() -> dict[str, float]:
    """Mean minutes of a training, by folder."""
    curves = json.loads((FEDERATED / "privacy" / "curve.json").read_text("utf-8"))
    return {training["name"]: training["seconds"][-1] / 60 for training in curves["trainings"]}


def _read(name: str) -> Any:
    return json.loads((FEDERATED / f"{name}.json").read_text("utf-8"))


TABLES = {
    "privacy": privacy_table,
    "federated-cost": cost_line,
    "noise": noise_table,
    "attacks": attacks_table,
    "dpem": dpem_table,
}
