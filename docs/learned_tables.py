"""Tables of what is learned: policies, alone and together, and forecasters; and of the libraries that train here."""

from __future__ import annotations

from typing import Any

import numpy as np
from compared import QUANTITIES, RESULTS, Played, Row, best_first, load, markdown, played, told

from dpem_env.envs.metric_labels import HEADLINE, METRICS
from dpem_env.experiments.forecast_skill import SUMS
from dpem_env.experiments.statistics import RESAMPLES, Array, Interval
from dpem_env.report.labels import Quantity
from dpem_env.support.seeding import generator

NODES = 100
ENDS = ("value", "low", "high")
# Folders of federated trainings: what is shared, how it is protected, ε.
TRAININGS: dict[str, tuple[str, str, float | None]] = {
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
DEMANDS = {
    "sessions": "sessions (φ = 1)",
    "half": "half sessions (φ = 0.5)",
    "steady": "no sessions (φ = 0)",
    "periodic": "periodic sessions",
    "trace": "Abilene trace",
}
MEAN_RATES, AVERAGE = "mean-rates", "moving-average:80"  # what forecasts are held against; what a policy brings along
TRIALS = {
    "what was changed": "{name}",
    "reward": "{reward:.2f}",
    "delivery rate": "{delivery_rate:.3f}",
    "contention": "{contention:.4f}",
    "minutes": "{minutes:.1f}",
}
LIBRARIES = {
    "library": "[{name}](../agents/dpem_agents/adapters/{name}.py): {library} {release}",
    "lines": "{lines}",
    "illegal actions kept out by": "{masks}",
    "trained for": "{timesteps:,}",
    "agent-steps/s": "{agent_steps_per_second:,.0f}",
    "return": "{return:.2f}",
    "minus random-legal": "{difference:+.2f} ± {half:.2f}",
    "date": "{date}",
}
SKILLS = {f"{ahead} ahead": f"{{skill[{ahead - 1}]:.3f}}" for ahead in (1, 4, 8, 10)}
SKILLS |= {f"MASE {ahead}": f"{{mase[{ahead - 1}]:.2f}}" for ahead in (1, 10)}
SKILL = Quantity("skill", "deviance skill", 3)


def search() -> str:
    """All trials of the search over hyperparameters, best first."""
    found = load("learning/search.json")
    trials = [trial | {"minutes": trial["seconds"] / 60} for trial in found["trials"]]
    note = (
        "{scenario}, {millions:g} million agent-steps each, training seed {training_seed}, {forecaster} forecasts; "
        "means of {validation_episodes} validation episodes after the last step."
    )
    return markdown(told(trials, TRIALS), note.format(millions=found["timesteps"] / 1e6, **found))


def curves() -> str:
    """Where every training began, ended and converged."""
    rows = []
    for found in (load(f"learning/{mesh}/curve.json") for mesh in ("mesh20", "mesh100")):
        for training in found["trainings"]:
            reward = [METRICS["reward"].estimate(dict(zip(ENDS, training["reward"][k], strict=True))) for k in (0, -1)]
            row = {"scenario": found["scenario"], "learner": training["name"]}
            row |= {"reward before": reward[0], "after": reward[1], "converged after": "not", "which took": ""}
            at = training["mean_converged_at"]
            if at is not None:
                slots = training["environment_steps"][training["timesteps"].index(at)]
                row["converged after"] = f"{slots:,} slots ({at / 1e6:.2f} M agent-steps)"
                row["which took"] = f"{training['mean_converged_after_seconds'] / 60:.1f} min"
            row["whole training"] = f"{training['timesteps'][-1] / 1e6:.1f} M, {training['seconds'][-1] / 60:.0f} min"
            rows.append(row)
    return markdown(rows, left=2)


def learned(mesh: str) -> str:
    """Trained policies beside tuned rules on evaluation episodes, with paired differences of rewards."""
    parts = ["evaluation", *sorted(path.name for path in (RESULTS / "learning" / mesh).glob("central-*"))]
    found = [each for part in parts for each in played(f"learning/{mesh}/{part}")]
    known = {_label(row): row for each in found for row in each.rows}
    rivals = {"reward − base stock's": "local-predictive", "reward − local maxweight's": "maxweight"}
    rows = [
        {"policy": _label(row)}
        | row.cells()
        | {title: "" if known[rule] is row else row.gain(known[rule]) for title, rule in rivals.items()}
        for row in best_first(known.values())
    ]
    seeds = "mean ± 95 % CI; intervals of learners are over training seeds and episodes, crossed"
    return markdown(rows, f"{found[0].told['name']}, {found[0].note.replace('mean ± 95 % CI', seeds)}")


def sizes() -> str:
    """The policies trained on 100 nodes, unchanged, on smaller and larger meshes."""
    rows = [
        {"nodes": str(each.told["nodes"]), "policy": _label(row)}
        | row.cells()
        | {"reward − local-reactive's": "" if row.name == "local-reactive" else row.gain(each.row("local-reactive"))}
        for each in played("learning/sizes")
        for row in each.rows
    ]
    episodes = len(played("learning/sizes")[0].told["episodes"])
    return markdown(rows, f"{episodes} paired evaluation episodes each, mean ± 95 % CI.", left=2)


def _label(row: Row) -> str:
    kind, colon, _ = row.told["policy"].partition(":")
    name = {"ppo": "PPO, shared", "central-ppo": "PPO, central"}.get(kind, kind)
    return name + _delay(row) + (f", {row.told['training_seeds']} seeds" if colon else "")


def _delay(row: Row) -> str:
    return "" if row.delay is None else f" (δ = {row.delay:g} s)"


def trainings() -> tuple[Played, dict[str, Row], dict[str, Row]]:
    """The federated trainings' scenario; what became of each, by folder; and of rules, by name, the best first."""
    [mesh] = played("federated/privacy")
    found = {row.name.split("/")[-2]: row for row in mesh.rows if row.name.startswith("ppo:")}
    rules = {row.name + _delay(row): row for row in best_first(mesh.rows) if not row.name.startswith("ppo:")}
    return mesh, {folder: found[folder] for folder in TRAININGS if folder in found}, rules


def privacy() -> str:
    """Trained policies by what their nodes shared, and at which ε."""
    mesh, found, rules = trainings()
    table, ran = load("federated/noise.json"), load("federated/privacy/curve.json")["trainings"]
    minutes = {training["name"]: training["seconds"][-1] / 60 for training in ran}
    weights = sorted({each["weights"] for each in table["rows"]})
    noise = {
        (each["mode"], {weights[0]: "head", weights[-1]: "whole"}.get(each["weights"]), each["epsilon"]): each
        for each in table["rows"]
        if each["nodes"] == NODES
    }
    rows = []
    for folder, row in found.items():
        share, mode, epsilon = TRAININGS[folder]
        ratio = "" if epsilon is None else f"{noise[mode, share, epsilon]['noise_to_clip']:.2f}"
        line = {"shared": share, "privacy": mode, "ε": f"{epsilon:g}" if epsilon else "∞" if mode else ""}
        line |= {"noise / clip": ratio, "seeds": str(row.told["training_seeds"])} | row.cells()
        gain = "" if folder == "alone" else row.gain(found["alone"])
        rows.append(line | {"reward − alone": gain, "min": f"{minutes[folder]:.1f}"})
    for name, row in rules.items():
        rows.append({"shared": f"*{name}*"} | row.cells() | {"reward − alone": row.gain(found["alone"])})
    note = (
        f"{mesh.told['name']}, {len(mesh.told['episodes'])} paired evaluation episodes, mean ± 95 % CI over training "
        f"seeds and episodes, crossed. {table['rounds']} rounds, δ = {table['delta']:g}, all {NODES} nodes in each. "
        "Minutes of a training on one of two cores, with its validations; rules are tuned."
    )
    return markdown(rows, note, left=2)


def federated_cost() -> str:
    """What rounds cost in training time."""
    cost = load("federated/cost.json")
    alone = cost["cpu_seconds"]["alone"]
    ratios = ", ".join(f"{share}: {cost['cpu_seconds'][share] / alone:.2f}" for share in ("head", "whole"))
    return (
        f"CPU time of a rollout with its update, and a round after it, over that of the same nodes alone: {ratios} "
        f"({cost['scenario']}, medians of {cost['rollouts']}, {alone:.2f} s alone; {cost['machine']}, {cost['date']})."
    )


def noise() -> str:
    """Noise beside the clip for every ε, and what a node sends."""
    table = load("federated/noise.json")
    lines: dict[tuple[str, int, int], dict[str, str]] = {}
    for each in sorted(table["rows"], key=lambda each: (each["mode"], each["nodes"], each["weights"], each["epsilon"])):
        line = {"privacy": each["mode"], "nodes": f"{each['nodes']:,}", "shared weights": f"{each['weights']:,}"}
        line = lines.setdefault((each["mode"], each["nodes"], each["weights"]), line)
        line[f"ε = {each['epsilon']:g}"] = f"{each['noise_to_clip']:.2f}"
    for (*_, weights), line in lines.items():
        sent = next(each["bytes_per_node"] for each in table["rows"] if each["weights"] == weights)
        line["kB a round"] = f"{sent / 1000:.1f}"
    note = (
        f"Expected length of the noise on a round's average, in clips: {table['rounds']} rounds, δ = "
        f"{table['delta']:g}, all nodes in every round. kB that a node sends in a round; as much comes back."
    )
    return markdown(lines.values(), note)


def attacks() -> str:
    """How the policy plays after rounds under attack, by attack and defence."""
    found = load("federated/attacks.json")
    scores: dict[str, dict[str, list[dict[str, float]]]] = {}
    for trial in found["trials"]:
        scores.setdefault(trial["attack"], {}).setdefault(trial["defence"], []).append(trial)
    rows = [
        {"attack": attack, "metric": METRICS[metric].title}
        | {defence: _spread([trial[metric] for trial in trials], metric) for defence, trials in of_defence.items()}
        for attack, of_defence in scores.items()
        for metric in HEADLINE
    ]
    of = (METRICS[metric] for metric in HEADLINE)
    before = ", ".join(f"{each.title} {found['before'][each.name]:.{each.decimals}f}" for each in of)
    seeds = len(next(iter(next(iter(scores.values())).values())))
    note = (
        f"{found['scenario']}, {found['rounds']} rounds of {found['period']} rollouts in which "
        f"{found['adversaries']:.0%} of {found['nodes']} nodes attack; mean and standard deviation over {seeds} seeds, "
        f"each the mean of {found['episodes']} evaluation episodes. Clip: {found['clip_norm']:g}. Before: {before}."
    )
    return markdown(rows, note, left=2)


def _spread(values: list[float], metric: str) -> str:
    digits = QUANTITIES[metric].decimals
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def dpem() -> str:
    """The paper's system beside tuned rules on its network."""
    [mesh] = played("federated/dpem")
    [ours] = [row for row in mesh.rows if row.name.startswith("ppo:")]
    rows = []
    for row in best_first(mesh.rows):
        line = {"policy": "**DPEM**" if row is ours else row.name + _delay(row)} | row.cells()
        if row is not ours:
            line["DPEM delivers more by (%)"] = ours.relative(row, "delivery_rate")
            line["and contends more by (%)"] = ours.relative(row, "contention")
            line["reward − DPEM's"] = row.gain(ours)
        rows.append(line)
    return markdown(rows, f"{mesh.told['name']}, {mesh.note}")


def skill() -> str:
    """Deviance skill of every forecaster on every demand."""
    rows = [
        {"demand": title, "forecaster": _short(found["name"])} | told([found], SKILLS)[0]
        for demand, title in DEMANDS.items()
        for found in _scores(demand)["forecasters"]
    ]
    seeds = len(_scores("sessions")["seeds"])
    note = f"Deviance skill over the true mean rates; {seeds} evaluation episodes of one network each."
    return markdown(rows, note, left=2)


def verdict() -> str:
    """The node's own network against the best moving average and the Bayes filter, at every horizon."""
    rows = []
    for demand, title in DEMANDS.items():
        sums = {  # (episodes, H)
            _short(found["name"]): np.array([episode[SUMS[0]] for episode in found["episodes"]])
            for found in _scores(demand)["forecasters"]
        }
        averages = [name for name in sums if name.startswith("moving-average")]
        horizons = range(sums["gru"].shape[1])
        best = [min(averages, key=lambda name, h=h: float(sums[name][:, h].sum())) for h in horizons]  # type: ignore[misc]
        gains = [_gain(sums["gru"][:, h], sums[best[h]][:, h], sums[MEAN_RATES][:, h]) for h in horizons]
        shares = ""
        if "bayes-filter" in sums and demand != "steady":
            total = {name: table.sum(axis=0) for name, table in sums.items()}
            average = np.array([total[best[h]][h] for h in horizons])
            closed = (average - total["gru"]) / (average - total["bayes-filter"])
            shares = f"{closed.min():.2f} to {closed.max():.2f}"
        order = [SKILL.change(gain) for gain in sorted(gains, key=lambda gain: gain.value)]
        ends = {"worst of all horizons": order[0], "best of all horizons": order[-1]}
        rows.append({"demand": title} | ends | {"share of the gap to the Bayes filter": shares})
    return markdown(rows)


def worth() -> str:
    """The base-stock rule on every forecast, on two scenarios and three coherence times."""
    rows = []
    for each in (*played("worth-mesh100"), *played("worth-trace")):
        known = {_short(row.told["forecaster"]): row for row in each.rows}
        scenario, coherence = each.told["name"].partition("+")[0], each.told["name"].partition("coherence_time=")[2]
        for name, row in known.items():
            line = {"scenario": scenario, "T (s)": coherence.partition("+")[0], "forecasts": name}
            line |= {"delivery rate": _mean(row, "delivery_rate")}
            line |= {"minus mean rates": row.gain(known[MEAN_RATES], "delivery_rate")}
            rows.append(line | {METRICS[m].title: _mean(row, m) for m in ("contention", "waste", "reward")})
    episodes = len(played("worth-mesh100")[0].told["episodes"])
    note = f"local-predictive with its default options; {episodes} paired evaluation episodes on one network each."
    return markdown(rows, note, left=3)


def cost() -> str:
    """What a forecast costs in time, beside what it brings in reward."""
    times = {_short(found["name"]): found["us_per_slot"] for found in _scores("sessions")["forecasters"]}
    mesh = played("worth-mesh100")[-1]
    known = {_short(row.told["forecaster"]): row for row in mesh.rows}
    rows = [
        {"forecasts": name, "ms per slot, 100 nodes": f"{times[name] / 1000:.3f}"}
        | {"reward per agent and episode, minus mean rates": known[name].gain(known[MEAN_RATES])}
        for name in (MEAN_RATES, AVERAGE, "gru", "bayes-filter", "oracle")
    ]
    slot = 1000 * _scores("sessions")["slot_duration"]
    return markdown(rows, f"{mesh.told['name']}, one core; a slot lasts {slot:g} ms.")


def _scores(demand: str) -> Any:
    return load(f"forecasts/{demand}/forecast.json")


def _short(forecaster: str | None) -> str:
    """Without the path of a checkpoint."""
    name = forecaster or AVERAGE
    return name if name.startswith("moving-average") else name.partition(":")[0]


def _mean(row: Row, metric: str) -> str:
    return row.cell(metric).partition(" ±")[0]


def _gain(ours: Array, theirs: Array, reference: Array) -> Interval:
    """Skill minus skill of (episodes,) deviances, with a bootstrap over episodes."""
    draws = generator("forecast tables").multinomial(len(ours), np.full(len(ours), 1 / len(ours)), size=RESAMPLES)
    low, high = np.quantile(draws @ (theirs - ours) / (draws @ reference), [0.025, 0.975])
    return Interval(float((theirs - ours).sum() / reference.sum()), float(low), float(high))


def adapters() -> str:
    """One line per library that trains here: what it takes, how fast it trains, and whether it has learned anything."""
    trials = [
        load(f"adapters/{path.name}") | {"name": path.stem} for path in sorted((RESULTS / "adapters").glob("*.json"))
    ]
    for trial in trials:
        trial |= {"release": trial["version"].partition("+")[0], "half": 1.96 * trial["standard_error"]}
    note = (
        "{scenario}. Training is counted in agent-steps (agents × slots); its speed is per CPU-second of one thread, "
        "learning and starting included. Return of an agent, mean of {episodes} validation episodes, and paired "
        "difference with 95 % interval. One training each with much the same settings: no ranking of libraries. Python "
        "{python}."
    )
    return markdown(told(trials, LIBRARIES), note.format(**trials[0]))


TABLES = {
    "search": search,
    "learning-curves": curves,
    "learned-mesh20": lambda: learned("mesh20"),
    "learned-mesh100": lambda: learned("mesh100"),
    "learned-sizes": sizes,
    "privacy": privacy,
    "federated-cost": federated_cost,
    "noise": noise,
    "attacks": attacks,
    "dpem": dpem,
    "skill": skill,
    "verdict": verdict,
    "worth": worth,
    "cost": cost,
    "adapters": adapters,
}
