"""Records for the tables of the pages: what committed results hold, and what has to be worked out of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpem_env.envs.metric_labels import HEADLINE, METRICS, QUANTITIES
from dpem_env.experiments import cards, results
from dpem_env.experiments.anova import OneWay, one_way_anova, regression, two_way_anova
from dpem_env.experiments.forecast_skill import SUMS
from dpem_env.experiments.fronts import FrontTable, by_network, claims, front_table, points_of
from dpem_env.experiments.regimes import crossover_table, regime_map
from dpem_env.experiments.statistics import RESAMPLES, mean_interval, paired_difference
from dpem_env.experiments.verdict import Rivals
from dpem_env.experiments.verdict import verdict as verdict_of
from dpem_env.report.labels import Estimate, Quantity
from dpem_env.report.tables import of_tuned
from dpem_env.scenarios.hardware import PRESETS
from dpem_env.support.errors import DpemError
from dpem_env.support.files import read_json
from dpem_env.support.seeding import generator

BASELINES = Path(__file__).resolve().parents[1] / "baselines"
FRONTS = BASELINES / "results" / "learning" / "fronts"
FINE_TUNED = BASELINES / "results" / "federated" / "finetune"
PUBLIC, CONTROL = "public", "public, trained on"  # labels there
FRONT_FOLDERS = {"mesh100-v0": "evaluation", "surfnet-v0": "surfnet", "mesh100-outages-v0": "mesh100-outages"}
POINT = (None, 0.5)  # s, control delays at which policies are compared
DEMANDS = ("sessions", "half", "steady", "periodic", "trace")
SIZE_FOLDERS = {25: "mesh25", 50: "mesh50", 100: "evaluation", 200: "mesh200", 400: "mesh400"}
FRONT_LEVELS = (0.0005, 0.001, 0.0015, 0.002, 0.003)  # of contention, written down before scoring
PAPER = BASELINES / "results" / "paper"
DPEM = "DPEM"
DECLARED = 2  # place of the price that DPEM is told in the part of single points: 0.5
PEERS = ("mpe2", "rware", "sequence", "jaxmarl", "jumanji", "vmas", "torchrl", "dpem-env")
SKILL = Quantity("skill", "deviance skill", 3)

Record = dict[str, Any]


class Claim(NamedTuple):
    """Where the paper's claim is tested, and against whom: written down before its networks existed."""

    folders: tuple[str, ...]  # of results
    rivals: Rivals
    levels: tuple[float, ...] = FRONT_LEVELS  # of contention


CLAIMS = {  # docs/reproduce-paper.md
    "mesh100-v0": Claim(
        ("local", "central", "central-there", "hybrid"),
        Rivals(
            reactive=["central-reactive (delay 0.5 s)", "reactive, tuned there (delay 0.5 s)"],
            predictive=[
                "central-maxweight (delay 0.5 s)",
                "central-lp (delay 0.5 s)",
                "maxweight, tuned there (delay 0.5 s)",
            ],
            instantaneous=["central-reactive (delay 0 s)", "central-maxweight (delay 0 s)", "central-lp (delay 0 s)"],
            local=["local-reactive", "maxweight", "priced"],
        ),
    ),
    "abilene-mixed-v0": Claim(
        ("abilene/local", "abilene/central"),
        Rivals(
            reactive=["central-reactive (delay 0.5 s)"],
            predictive=["central-maxweight (delay 0.5 s)", "central-lp (delay 0.5 s)"],
            instantaneous=["central-reactive (delay 0 s)", "central-maxweight (delay 0 s)", "central-lp (delay 0 s)"],
            local=["local-reactive", "maxweight", "priced"],
        ),
    ),
}
read = cache(results.read)  # many tables tell of the same results


def records(*sources: str) -> list[Record]:
    """Those of analyses by name, of folders of results, of files FILE, and of lists or tables in them, FILE:NAME.

    A record of a file has what stands beside the list, too, all of it as "file", and of the metrics their estimates.
    """
    folders: list[results.Results] = []
    found: list[Record] = []
    for source in sources:
        if source in ANALYSES:
            found += ANALYSES[source]()
            continue
        pattern, _, name = source.partition(":")
        paths = sorted(BASELINES.glob(pattern))
        if not paths:
            raise DpemError(f"baselines has no {pattern}")
        for path in paths:
            if path.is_dir():
                folders.append(read(path))
            else:
                found += _of_file(path, name)
    played = results.records(*folders)
    for record in played:
        record["measured"] = "{episodes} paired {split} episodes, mean ± 95 % CI ({version}).".format_map(record)
    return played + found


def _of_file(path: Path, name: str) -> Iterator[Record]:
    file = read_json(path)
    rows = file[name] if name else [{}]
    if isinstance(rows, dict):
        rows = [{"name": key, "value": value} for key, value in rows.items()]
    for row in rows:
        metrics = [name for name in QUANTITIES if isinstance(row.get(name), float)]
        estimates = {name: Estimate(QUANTITIES[name], row[name]) for name in metrics}
        yield file | row | estimates | {"file": file, "folder": path.parent.name, "stem": path.stem}


def learned_fronts() -> Iterator[Record]:
    """Fronts of learned policies and rules at the levels that were written down, and beside maxweight's."""
    yield from _fronts_of(FRONT_FOLDERS, "network")


def learned_sizes() -> Iterator[Record]:
    """Fronts of mesh100's policies beside maxweight's on meshes of other sizes: nothing was trained or tuned there."""
    yield from _fronts_of(SIZE_FOLDERS, "nodes")


def _fronts_of(folders: Mapping[Any, str], field: str) -> Iterator[Record]:
    for value, folder in folders.items():
        table = _front_table(folder)
        for record in table.records:
            yield record | {"episodes": table.episodes, field: value}


@cache  # two tables tell of each
def _front_table(folder: str) -> FrontTable:
    return front_table(read(FRONTS / folder), "maxweight", FRONT_LEVELS[-1], FRONT_LEVELS)


def learned_claims() -> Iterator[Record]:
    """Learned policies at every price that they are told, beside every rival point of each central rule."""
    found = results.together([read(FRONTS / "evaluation"), read(FRONTS / "central")])
    ours = next(each["label"] for each in results.records(found) if each["label"].startswith("PPO"))
    yield from _claims_of(found, ours)


def _claims_of(found: results.Results, ours: str) -> Iterator[Record]:
    points, prices = points_of(found), [each["name"].rpartition("=")[2] for each in found.summary["scenarios"]]
    for theirs in (label for label in points if label.endswith(" s)")):
        for price, claim in zip(prices, claims(points, ours, theirs, generator("claims")), strict=True):
            yield claim._asdict() | {"price": price, "theirs": theirs}


def public_fronts() -> Iterator[Record]:
    """Fronts of policies whose training charges thrice the penalty that is told, beside those that charge it once."""
    [once] = {each["label"] for each in records("results/paper/choice") if each["label"].startswith("charged once")}
    table = front_table(read(PAPER / "choice"), once, FRONT_LEVELS[-1], FRONT_LEVELS)
    return (record | {"episodes": table.episodes} for record in table.records)


def paper_verdict(world: str = "mesh100-v0") -> Iterator[Record]:
    """The four parts of the paper's claim."""
    claim, points = CLAIMS[world], points_of(played_on(world))
    parts = verdict_of(points, DPEM, DECLARED, claim.rivals, claim.levels, generator("paper verdict"))
    for letter, part in zip("abcd", parts, strict=True):
        told = {"part": letter, "holds": "yes" if part.holds else "no"}
        yield part._asdict() | told | _of_p(p=part.p, adjusted=part.adjusted)


def paper_fronts(world: str = "mesh100-v0") -> Iterator[Record]:
    """Fronts of everybody on the networks of the paper's claim, by themselves and beside DPEM's."""
    levels = CLAIMS[world].levels
    table = front_table(played_on(world), DPEM, levels[-1], levels)
    return (record | {"episodes": table.episodes} for record in table.records)


def paper_claims(world: str = "mesh100-v0") -> Iterator[Record]:
    """DPEM at every price that it is told, beside every rival point of each central rule."""
    yield from _claims_of(played_on(world), DPEM)


def paper_worlds() -> Iterator[Record]:
    """What DPEM and its rivals earn with shorter memories and without news, a network being an observation."""
    for folder in ("coherence", "reads-off"):
        for record in _of_networks(read(PAPER / folder), "paper worlds"):
            memory = record["scenario"].rpartition("coherence_time=")[2].removesuffix(".0")
            yield record | {"setting": "reads off" if folder == "reads-off" else f"T = {memory} s"}


def paper_variance() -> Iterator[Record]:
    """Between all who are played on the networks of the paper's claim, at the scenario's own price of contention."""
    for metric, found, named in _paper_anova():
        chances = {"p": found.p, "shapiro": found.shapiro_p, "levene": found.levene_p, "kruskal": found.kruskal_p}
        yield vars(found) | _of_p(**chances) | {"metric": METRICS[metric].title, "policies": len(named)}


def paper_tukey() -> Iterator[Record]:
    """DPEM minus everybody else there, honestly significant differences."""
    told: dict[str, Record] = defaultdict(dict)
    for metric, found, named in _paper_anova():
        for pair in found.tukey:
            if named[pair.second] == DPEM:
                estimate = Estimate(METRICS[metric], *pair.difference)
                told[named[pair.first]] |= {metric: estimate} | {f"{metric}_p": _of_p(p=pair.p)["p"]}
    yield from ({"label": label} | record for label, record in told.items())


@cache
def _paper_anova() -> list[tuple[str, OneWay, list[str]]]:
    """By metric: the analysis of variance, and whose means over networks its groups are, DPEM's the last."""
    played = _of_networks(played_on("mesh100-v0"), "paper variance")
    own = [each for each in played if each["scenario"].endswith("contention_penalty=0.05")]
    own.sort(key=lambda each: each["label"] == DPEM)
    named = [each["label"] for each in own]
    return [(metric, one_way_anova([each["by_network"][metric][0] for each in own]), named) for metric in HEADLINE]


def failures() -> Iterator[Record]:
    """What contestants deliver where nothing fails, and how much less where something does, over networks."""
    told: dict[str, Record] = defaultdict(dict)
    whole: dict[str, Any] = {}
    for each in _of_networks(read(BASELINES / "results" / "failures"), "failures"):
        label, delivered = each["label"], each["by_network"]["delivery_rate"]
        world = [name for name in ("silence", "outages") if f"+{name}" in each["scenario"]]
        if not world:
            whole[label] = delivered
            told[label] |= each
        else:
            less = paired_difference(delivered, whole[label], generator("failures"))
            told[label]["_and_".join(world)] = Estimate(METRICS["delivery_rate"], *less)
    yield from told.values()


def sizes() -> Iterator[Record]:
    """Lines of metrics on the size of the mesh, of policies that were trained or tuned on 100 nodes."""
    values: dict[tuple[str, str], dict[int, Any]] = defaultdict(dict)
    for nodes, folder in SIZE_FOLDERS.items():
        for each in results.records(read(FRONTS / folder)):
            label = "PPO" if each["label"].startswith("PPO") else each["label"]
            if each["scenario"].endswith("contention_penalty=0.05"):
                for metric in ("delivery_rate", "contention"):
                    values[label, metric][nodes] = each[metric].values.mean(axis=0)
    for (label, metric), by_size in values.items():
        if len(by_size) == len(SIZE_FOLDERS):  # others were not played on all
            x = [nodes for nodes, episodes in by_size.items() for _ in episodes]
            line = regression(x, np.concatenate(list(by_size.values())))
            slope = Estimate(METRICS[metric], *(100 * end for end in line.slope))
            told = {"slope": slope, "r_squared": line.r_squared, "spearman": line.spearman, "episodes": len(x)}
            yield {"label": label, "metric": METRICS[metric].title} | told | _of_p(p=line.p)


@cache
def played_on(world: str) -> results.Results:
    """All that is played to test the paper's claim in a world."""
    return results.together([read(PAPER / each) for each in CLAIMS[world].folders])


def fine_tuned() -> Iterator[Record]:
    """Policies fine-tuned on held-out networks, beside the public one that they start from, and how far they moved."""
    moved = {each["name"]: each for each in read_json(FINE_TUNED / "curves" / "curve.json")["trainings"]}
    played = {each["label"]: each for each in _of_networks(read(FINE_TUNED / "evaluation"), "fine-tuned")}
    for label, told in played.items():
        for name in HEADLINE:
            for other in {PUBLIC, CONTROL} - {label}:
                values, theirs = told["by_network"][name], played[other]["by_network"][name]
                more = paired_difference(values, theirs, generator("fine-tuned"))
                told[f"{name}_beside_{'public' if other == PUBLIC else 'control'}"] = Estimate(METRICS[name], *more)
        for name in ("kl_from_start", "changed_decisions"):
            told[name] = moved[label][name][-1][0] if label in moved else None
        yield told


def _of_networks(played: results.Results, purpose: str) -> Iterator[Record]:
    """Records of results on several networks, each of which is one observation; their values "by_network", too."""
    worlds = {each["name"]: [seeds["topology"] for seeds in each["seeds"]] for each in played.summary["scenarios"]}
    for each in results.records(played):
        if "reward" in each:
            topologies = worlds[each["scenario"]]
            values = {name: by_network(each[name].values, topologies) for name in HEADLINE}
            means = {
                name: Estimate(METRICS[name], *mean_interval(values[name], generator(purpose))) for name in HEADLINE
            }
            numbers = {"networks": len(set(topologies)), "episodes": len(topologies)}
            yield {"label": each["label"], "scenario": each["scenario"], "by_network": values} | numbers | means


def regimes() -> Iterator[Record]:
    """From which control delay on maxweight delivers more than each central rule, by predictability and deadlines."""
    played = read(BASELINES / "results" / "regimes")
    found = regime_map(played)
    told, _ = crossover_table(found)
    worlds = [each["scenario"]["demand"] for each in played.summary["scenarios"]]
    for record, regime, world in zip(told, found.regimes, worlds, strict=True):
        best = regime.lines[-1]
        deadlines = ", ".join(f"{deadline:g}" for deadline in world["deadline"])
        ends = {"first": best.differences[0].value, "last": best.differences[-1].value}
        crossing = {"crossover": best.crossover.value, "shortest": best.crossover.value / min(world["deadline"])}
        at_once = format(Estimate(METRICS["delivery_rate"], *best.differences[0]), "change")
        more = {"deadlines": deadlines, "at_once": at_once, "episodes": found.episodes}
        yield record | ends | crossing | more


def variance() -> Iterator[Record]:
    """Analyses of variance: between all policies at one delay, and of architecture by prediction of one rule."""
    played = [each for each in records("results/delay-curve") if each["delay"] in POINT and "reward" in each]
    named = {each["name"]: each for each in played}
    crossed = [[named[rule + on] for on in ("+none", "", "+oracle")] for rule in ("maxweight", "central-maxweight")]
    for metric in HEADLINE:
        one = one_way_anova([each[metric].values.mean(axis=0) for each in played], pairs=False)
        two = two_way_anova(np.array([[each[metric].values.mean(axis=0) for each in line] for line in crossed]))
        factors = {"architecture": two.first, "prediction": two.second, "both": two.interaction}
        tests = [(f"policy ({len(played)})", vars(one), one)]
        tests += [(name, each._asdict() | {"df": (each.df, two.residual_df)}, two) for name, each in factors.items()]
        for effect, test, of in tests:
            chances = {"p": test["p"], "shapiro": of.shapiro_p, "levene": of.levene_p, "kruskal": of.kruskal_p}
            yield played[0] | test | _of_p(**chances) | {"metric": METRICS[metric].title, "effect": effect}


def _of_p(**chances: float) -> Record:
    return {name: "< 0.001" if p < 0.001 else f"{p:.3f}" for name, p in chances.items()}


def curves() -> Iterator[Record]:
    """Where every training began, ended and converged."""
    for each in records("results/learning/mesh*/curve.json:trainings"):
        ends = {name: Estimate(METRICS["reward"], *each["reward"][at]) for name, at in (("before", 0), ("after", -1))}
        converging = each["mean_converged_after_seconds"]
        times = {"minutes": each["seconds"][-1] / 60, "converging": converging and converging / 60}
        yield each | ends | times | {"steps": each["timesteps"][-1]}


def attacks() -> Iterator[Record]:
    """Means over the seeds of every attack and defence, ± their standard deviations."""
    trials = defaultdict(list)
    for trial in records("results/federated/attacks.json:trials"):
        trials[trial["attack"], trial["defence"]].append(trial)
    for of_one in trials.values():
        record = of_one[0] | {"seeds": len(of_one)}
        for metric in HEADLINE:
            values = [float(trial[metric]) for trial in of_one]
            middle, spread = float(np.mean(values)), float(np.std(values))
            record[metric] = Estimate(METRICS[metric], middle, middle - spread, middle + spread)
        yield record


def forecasts() -> Iterator[Record]:
    """Every forecaster on every demand."""
    for each in records(*(f"results/forecasts/{demand}/forecast.json:forecasters" for demand in DEMANDS)):
        yield each | {"played": len(each["seeds"])}


def verdict() -> Iterator[Record]:
    """The node's own network against the best moving average, and the Bayes filter, over all horizons."""
    for demand in DEMANDS:
        sums = {  # of deviances, (episodes, H)
            each["name"].partition(":agents")[0]: np.array([episode[SUMS[0]] for episode in each["episodes"]])
            for each in records(f"results/forecasts/{demand}/forecast.json:forecasters")
        }
        ours, reference = sums["gru"], sums["mean-rates"]
        averages = np.array([each for name, each in sums.items() if name.startswith("moving-average")])
        best = averages.sum(axis=1).argmin(axis=0)  # (H,)
        theirs = averages[best, :, np.arange(len(best))].T
        draws = generator("forecast tables").multinomial(len(ours), np.full(len(ours), 1 / len(ours)), size=RESAMPLES)
        gains = (theirs - ours).sum(axis=0) / reference.sum(axis=0)
        low, high = np.quantile((draws @ (theirs - ours)) / (draws @ reference), [0.025, 0.975], axis=0)
        ends = {
            name: Estimate(SKILL, gains[at], low[at], high[at])
            for name, at in (("worst", gains.argmin()), ("best", gains.argmax()))
        }
        told: Record = {"folder": demand} | ends
        if "bayes-filter" in sums and demand != "steady":
            closed = (theirs - ours).sum(axis=0) / (theirs - sums["bayes-filter"]).sum(axis=0)
            told |= {"least": closed.min(), "most": closed.max()}
        yield told


def tuned() -> Iterable[Record]:
    """What the search found for every rule on the paper's network."""
    return map(of_tuned, records("tuned/mesh100-v0.json:tuned"))


def peers() -> Iterator[Record]:
    """Other environments and simulators, with the release of each."""
    for each in records("results/peers.json:rows"):
        if "failed" in each:
            continue  # a peer that was not to be had there: the file says why
        yield each | {"release": next(each["versions"][name] for name in PEERS if name in each["versions"])}


def presets() -> Iterator[Record]:
    """Every number of every preset of hardware, and where it is from."""
    for preset, numbers in PRESETS.items():
        for field, number in numbers.items():
            shown = number.value if not isinstance(number.value, tuple) else list(number.value)
            yield {"preset": preset, "field": f"`{field}`", "shown": str(shown)} | {
                "meaning": number.meaning,
                "source": number.source,
                "read": number.read,
            }


def reproduced() -> Iterator[Record]:
    """One number of every result of others that is reproduced: theirs, ours, the difference, and what it takes."""
    chain = {"nodes": 5, "generation": 0.9, "swap_success": 0.5, "cutoff": 2}
    solved = _row("exact.json:chains", chain | {"quantity": "swap-asap"})
    played = _row("simulated.json:rows", chain | {"policy": "swap-asap"})
    switch = _row("switch.json:rows", {"users": 8, "generation": 0.05, "buffer": 4, "quantity": "capacity"})
    other = _row("sequence.json:rows", {"nodes": 5})
    either = [float(np.hypot(other[f"{each}_sequence_error"], other[f"{each}_error"])) for each in ("time", "fidelity")]
    slots, pairs = (
        "swap-asap on five nodes, p = 0.9, p_s = 0.5: slots",
        "switch, k = 8, μ = 0.05, B = 4: pairs per slot",
    )
    for step, what, by, theirs, ours, digits, error in (
        ("exact", slots, "solver", float(solved["published"]), solved["found"], 6, None),
        ("simulated", slots, "simulator", float(solved["published"]), played["mean"], 3, played["error"]),
        ("switch", pairs, "solver, in slots", switch["published"], switch["slotted"], 5, None),
        ("switch", pairs, "simulator", switch["published"], switch["simulated"], 5, switch["error"]),
        ("sequence", "SeQUeNCe, five nodes: ms", "simulator", other["time_sequence"], other["time"], 3, either[0]),
        ("sequence", "and fidelity", "simulator", other["fidelity_sequence"], other["fidelity"], 4, either[1]),
    ):
        off = f"{float(ours) - theirs:+.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")
        shown = {
            "what": what,
            "by": by,
            "theirs": f"{theirs:.{digits}f}",
            "ours": f"{float(ours):.{digits}f}",
            "off": off,
        }
        minutes = read_json(BASELINES / "experiments" / "truth.lock.json")["steps"][step]["core_minutes"]
        yield shown | {"step": step, "minutes": minutes}


def _row(source: str, which: Record) -> Record:
    """The record of a result of `truth` that has these values."""
    return next(each for each in records(f"results/truth/{source}") if which.items() <= each.items())


def leaderboard() -> Iterable[Record]:
    """A row of every committed card."""
    return cards.records([cards.read_card(path) for path in cards.cards_in([BASELINES / "results" / "leaderboard"])])


ANALYSES: dict[str, Callable[[], Iterable[Record]]] = {
    each.__name__: each
    for each in (
        variance,
        curves,
        attacks,
        forecasts,
        verdict,
        tuned,
        peers,
        presets,
        reproduced,
        learned_fronts,
        learned_sizes,
        learned_claims,
        public_fronts,
        paper_verdict,
        paper_fronts,
        paper_claims,
        paper_worlds,
        paper_variance,
        paper_tukey,
        failures,
        sizes,
        fine_tuned,
        regimes,
        leaderboard,
    )
}
ABILENE = {"abilene_verdict": paper_verdict, "abilene_fronts": paper_fronts, "abilene_claims": paper_claims}
ANALYSES |= {name: partial(each, "abilene-mixed-v0") for name, each in ABILENE.items()}
