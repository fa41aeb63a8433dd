"""What ``dpem`` does: a function per command, whose bodies load what they need. Light to import."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from dpem_env.support.errors import DpemError
from dpem_env.support.options import (
    POSITIVE,
    REPEATED,
    Changes,
    Count,
    Data,
    Delays,
    File,
    Folder,
    Forecasters,
    Network,
    Networks,
    Out,
    Policies,
    Scenario,
    Split,
    Trusted,
    Tunings,
    Workers,
    overrides,
    told,
)

if TYPE_CHECKING:
    from dpem_env.scenarios import Scenario as Played

DEMO, DEMO_SEEDS, SHIPPED = Path("demo"), 5, Path("shipped")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class World:
    """Options of all commands that play a scenario."""

    scenario: Scenario
    changes: Changes = ()
    data: Data = None

    def get(self) -> Played:
        """The scenario as it is changed, with its data where --data says."""
        from dpem_env import scenarios

        return scenarios.get(self.scenario, **{"data_dir": self.data} | overrides(self.changes))


def demo(*, out: Annotated[Folder, told("folder for results; made if missing")] = DEMO) -> int:
    """Play a small network with policies that come with the package: a table and a picture in a minute.

    Nodes that decide by themselves, by a rule and by what they have learned, against a controller that is half a second
    late. The first time, the simulator is compiled. What is played is: dpem run --scenario mesh20-v0 --tuned shipped
    --policy local-reactive --policy maxweight --policy ppo:mesh20 --policy central-maxweight --delay 0.5 --seeds 5
    """
    played = ("local-reactive", "maxweight", "ppo:mesh20", "central-maxweight")
    return run(world=World(scenario="mesh20-v0"), policy=played, delay=(0.5,), seeds=DEMO_SEEDS, tuned=SHIPPED, out=out)


def list_(
    *,
    topologies: Annotated[bool, told("list what network.topology may be instead: networks of topohub")] = False,
    data: Data = None,
) -> int:
    """List scenarios, policies, forecasters and data sources."""
    if topologies:
        from dpem_env.network.topology import topohub_names

        print("\n".join(topohub_names()))
        return 0
    from dpem_env.experiments.suites import SUITES
    from dpem_env.report.tables import print_list

    print_list(data, {suite.name: suite.summary for suite in SUITES.values()})
    return 0


def show(
    scenario: Scenario,
    /,
    *,
    changes: Changes = (),
    registered: Annotated[
        str | None,
        told("let evaluation seeds follow from this, such as a commit's hash (default: its own)", metavar="HEX"),
    ] = None,
    networks: Annotated[Count, told("networks of registered seeds")] = 30,
) -> int:
    """Print a scenario as TOML, every field with its unit and meaning.

    For an evaluation that is registered before it is played: commit all that decides its results, then let networks and
    demands follow from the commit's hash, as git rev-parse HEAD prints it, which nobody could choose.
    """
    from dpem_env import scenarios
    from dpem_env.support.seeding import hexadecimal

    chosen = scenarios.get(scenario, **overrides(changes))
    if registered is not None:
        chosen = chosen.registered(hexadecimal("--registered", registered, "such as a commit's hash"), networks)
    print(_toml(chosen), end="")
    return 0


def _toml(scenario: Played) -> str:
    """The scenario as a text that stays the same TOML in the encoding of standard output."""
    from dpem_env.report.documented import documented_toml

    text = documented_toml(scenario)
    if (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf"):
        return text
    return re.sub(r"[^\x00-\x7f]", lambda character: f"\\U{ord(character[0]):08x}", text)


def run(
    *,
    world: World,
    policy: Policies,
    trust: Trusted = (),
    delay: Delays = (),
    forecaster: Forecasters = (),
    topology: Network = None,
    split: Split = "evaluation",
    seeds: Annotated[Count, told("episodes per policy")] = 5,
    tuned: Tunings = None,
    logs: Annotated[Literal["first", "all"], told("episodes to log", metavar="WHICH")] = "first",
    out: Out,
) -> int:
    r"""Compare policies on a scenario with paired seeds.

    Play the same episodes with every policy and compare them. Central policies run once per --delay; 'central:NAME'
    puts a local policy under central control, NAME+FORECASTER has that forecaster. One's own is FILE.py:NAME,
    package.module:NAME, the zip of a Stable-Baselines3 model or the path of a training; LABEL= before any of them names
    its row and its log. Writes results.parquet, summary.json, results.png and episode logs (Parquet) to --out.

      dpem run --scenario mesh100-v0 --policy local-reactive \
               --policy central-reactive --delay 0 --delay 0.5 --out results
      dpem run --scenario mesh20-v0 --policy mine=./mine.py:Rule \
               --policy local-reactive --out results
    """
    from dpem_env.experiments.benchmark import Plan
    from dpem_env.experiments.contestants import contestants, played_delays, require_delays
    from dpem_env.experiments.logged_run import run_and_log
    from dpem_env.experiments.tuning import Tuned

    chosen = world.get()
    if topology is not None:
        chosen = chosen.on_topology(topology, split)
    require_delays(delay, chosen)
    delays = played_delays([chosen], delay)
    played = contestants(policy, delays, forecaster, trust)
    if delay and all(each.delay is None for each in played):
        raise DpemError("--delay is given, but no --policy is central; central:NAME puts a local one under control")
    options = Tuned(tuned, [world.scenario]) if tuned else None
    plan = Plan(chosen.name, (chosen,), tuple(played), played[0], seeds, split, options)
    return run_and_log(plan, out, log_all=logs == "all")


def benchmark(
    suite: Annotated[str, told("name (see dpem list)")],
    /,
    *,
    scenario: Annotated[
        tuple[str, ...],
        told(f"play this one, varied as the suite does{REPEATED} (default: the suite's)", metavar="NAME"),
    ] = (),
    changes: Changes = (),
    policy: Policies,
    trust: Trusted = (),
    delay: Annotated[Delays, told(f"control delay of central policies in s{REPEATED} (default: the suite's)")] = (),
    forecaster: Forecasters = (),
    topology: Network = None,
    split: Split = "evaluation",
    seeds: Annotated[Count, told("episodes per scenario and policy")],
    tuned: Tunings = None,
    score: Annotated[
        bool, told("bound every episode and score policies: 0 acts at random, 1 reaches the bound")
    ] = False,
    reference: Annotated[
        str | None, told("policy or label to compare with (default: the first)", metavar="NAME")
    ] = None,
    workers: Workers = 1,
    ray: Annotated[
        str | None,
        told("play on this Ray cluster, 'local' starts one (default: none; needs the extra ray)", metavar="ADDRESS"),
    ] = None,
    data: Data = None,
    out: Out,
) -> int:
    r"""Compare policies on a suite of scenarios, on several processes, resumable.

    Play the same episodes of every scenario of a suite with every policy and compare them. Central policies run once
    per --delay; 'central:NAME' puts a local policy under central control, NAME+FORECASTER has that forecaster. Every
    episode is kept in --out when it is finished: the same command again plays only what is missing, or was made with
    other files, options, code or another scenario of that name, and says so. Writes results.parquet, summary.json and
    results.png.

      dpem benchmark delay-curve --policy local-reactive \
                     --policy central-reactive --seeds 20 --out results
    """
    from dpem_env.experiments.benchmark import make_plan, run_benchmark
    from dpem_env.experiments.suites import get_suite
    from dpem_env.experiments.tuning import Tuned

    plan = make_plan(
        get_suite(suite),
        policy,
        seeds,
        scenarios=scenario,
        changes=overrides(changes),
        delays=delay,
        forecasters=forecaster,
        reference=reference,
        tuned=Tuned(tuned, scenario) if tuned else None,
        score=score,
        topology=topology,
        split=split,
        data_dir=data,
        trust=trust,
    )
    return run_benchmark(plan, out, workers=workers, ray=ray)


def tune(
    *,
    world: World,
    policy: Policies,
    trust: Trusted = (),
    delay: Delays = (),
    topology: Annotated[Network, told("on this network alone (default: those of the split)")] = None,
    trials: Annotated[Count, told("per policy and delay")] = 16,
    episodes: Annotated[Count, told("per trial")] = 3,
    method: Annotated[
        Literal["random", "cma-es"], told("by lot, or by an evolution strategy over options that are ranges")
    ] = "random",
    workers: Workers = 1,
    out: Out,
) -> int:
    r"""Search the options of policies, with an equal budget, on validation seeds.

    Try options of every policy, each on the same validation episodes; the best mean reward wins. Central policies are
    searched once per --delay. What is finished is kept in DIR/SCENARIO.json; the same command again goes on from
    there, and searches again what was found with other files, code or another scenario of that name. dpem benchmark
    --tuned DIR plays what was found; on a --topology, what was found there.

      dpem tune --scenario mesh20-v0 --policy maxweight --policy central-lp \
                --delay 0.5 --out tuned
    """
    from dpem_env.experiments import tuning
    from dpem_env.experiments.benchmark import try_out
    from dpem_env.experiments.contestants import played_delays, policy_specs, require_delays
    from dpem_env.experiments.workers import WorkItem
    from dpem_env.report.tables import print_tuned, progress
    from dpem_env.support.files import make_writable

    chosen = world.get()
    chosen = chosen if topology is None else chosen.on_topology(topology, "validation")
    require_delays(delay, chosen)
    policies = policy_specs(policy, played_delays([chosen], delay), trust)
    try_out(WorkItem(chosen, "validation", 0, each) for each in policies)
    make_writable(out)
    path = tuning.result_file(out, chosen.name)
    with progress() as bar:
        task = bar.add_task("tuning", total=None)
        tuned = tuning.tune(
            policies,
            chosen,
            path,
            trials,
            episodes,
            method=method,
            workers=workers,
            on_start=lambda total: bar.update(task, total=total),
            on_episode=lambda policy: bar.update(task, advance=1, description=f"tuning {policy.label}"),
        )
    print_tuned(tuned, {each.name: each.called for each in policies if each.called})
    print(f"wrote {path}")
    return 0


def forecast(
    *,
    world: World,
    forecaster: Annotated[tuple[str, ...], told(f"what forecasts{REPEATED}", metavar="NAME[:ARGUMENT]")],
    topology: Networks = (),
    split: Split = "evaluation",
    seeds: Annotated[Count, told("episodes")] = 20,
    horizon: Annotated[Count, told("slots ahead")] = 10,
    workers: Workers = 1,
    out: Out,
) -> int:
    r"""Score forecasters by themselves on held-out demand.

    Forecast the demand of the same episodes with every forecaster, no policy involved. One's own is FILE.py:NAME,
    package.module:NAME, or the path of a checkpoint. Writes table, forecast.json and forecast.png: deviance skill over
    the true mean rates and scaled absolute error, for every slot ahead.

      dpem forecast --scenario mesh100-v0 --forecaster moving-average:40 \
                    --forecaster bayes-filter --out forecasts
    """
    from dpem_env.experiments.forecast_skill import measure_skill
    from dpem_env.report.forecast_figure import save_forecast_figure
    from dpem_env.report.tables import print_forecasts, progress
    from dpem_env.support.files import result_folder, write_json

    chosen = world.get()
    name = chosen.name  # the horizon is how far is looked, nothing about the scenario
    chosen = chosen.override(name=name, forecast_horizon=horizon)
    with result_folder(out):
        with progress() as bar:
            task = bar.add_task("forecasting", total=seeds * len({*forecaster, "mean-rates"}))
            summary = measure_skill(
                chosen,
                forecaster,
                seeds,
                split=split,
                topologies=topology,
                workers=workers,
                on_episode=lambda name: bar.update(task, advance=1, description=name),
            )
        write_json(out / "forecast.json", summary)
        save_forecast_figure(out / "forecast.png", summary)
    print_forecasts(summary)
    print(f"wrote {out / 'forecast.json'} and {out / 'forecast.png'}")
    return 0


def reproduce(
    experiment: Annotated[str, told("path of a .toml file, or name of one in baselines/ or agents/experiments")],
    /,
    *,
    dry_run: Annotated[bool, told("say what would be run, why, and how long it takes")] = False,
    only: Annotated[tuple[str, ...], told(f"this step{REPEATED} (default: all)", metavar="STEP")] = (),
    evaluate_only: Annotated[
        bool, told("leave what was trained and tuned as it is, and run all that plays and tells of it, due or not")
    ] = False,
    check: Annotated[bool, told("run nothing: play a sample of what is there again, and compare every value")] = False,
    adopt: Annotated[
        str | None, told("note why what is there is what steps would give (default: run them)", metavar="REASON")
    ] = None,
    workers: Annotated[Workers, told("steps at a time")] = 1,
    data: Data = None,
) -> int:
    """Run a declared experiment: what of it is no longer up to date.

    Run the steps of an experiment that were never run, or whose declaration, inputs, code or outputs have changed
    since, and say why. What a step was last run with is kept beside the declaration, in NAME.lock.json. Interrupted,
    the same command again runs the rest; steps that can go on do.

    With both --check and --adopt, steps of which a value came out otherwise are not adopted, and results that came out
    the same get the stamp of today's code.

      dpem reproduce results --dry-run
    """
    from dpem_env.experiments.command import reproduce

    return reproduce(experiment, only, evaluate_only, check, adopt, dry_run, workers, str(data) if data else None)


def table(
    results: Annotated[Path, told("a folder that dpem run or benchmark has written")],
    /,
    *,
    metric: Annotated[
        tuple[str, ...],
        told(f"what is told{REPEATED} (default: delivery, contention, fidelity, latency)", metavar="NAME"),
    ] = (),
    reference: Annotated[
        str | None, told("label to compare with (default: that of the results)", metavar="LABEL")
    ] = None,
    style: Annotated[
        Literal["markdown", "latex", "csv", "marl-eval"], told("how it is written", name="--as", metavar="STYLE")
    ] = "markdown",
) -> int:
    r"""Print results as a table for a paper, with paired differences in numbers and in words.

    A row for every contestant, metrics as columns, mean and half of the 95 % interval; below, every difference to the
    reference on the same episodes. As csv, a row for every metric, numbers only; as marl-eval, the JSON that MARL-eval
    and rliable take, a run for every episode.

      dpem table results --as latex --metric delivery_rate --metric latency
    """
    from dpem_env.experiments.paper_table import paper_table
    from dpem_env.experiments.results import read

    print(paper_table(read(results), metric, reference, style), end="")
    return 0


def figure(
    results: Annotated[Path, told("a folder that dpem run or benchmark has written")],
    /,
    *,
    metric: Annotated[
        tuple[str, ...], told(f"what is drawn against control delay{REPEATED} (default: delivery, contention)")
    ] = (),
    front: Annotated[bool, told("draw delivery against contention instead, a line through all scenarios")] = False,
    out: Annotated[Path, told("a .png, .pdf or .svg file; replaced if it exists")],
) -> int:
    r"""Draw results for a paper.

    Metrics of every contestant against control delay, and its paired difference of reward to the reference. Intervals
    are of 95 %; of fewer than five episodes every one is a dot instead. The best eight policies by reward are drawn.

      dpem figure results --out figure.pdf
      dpem figure baselines/results/fronts --front --out front.svg
    """
    from dpem_env.envs.metric_labels import METRICS
    from dpem_env.experiments.results import panelled, read
    from dpem_env.report.results_figure import require_format, save_front_figure, save_results_figure
    from dpem_env.support.errors import nearest
    from dpem_env.support.files import make_file_writable

    require_format(out)
    for name in metric:
        if name not in METRICS:
            raise DpemError(f"unknown metric {name!r}; {nearest(name, METRICS)}")
    found = panelled(read(results))
    make_file_writable(out)
    if front:
        save_front_figure(out, found, METRICS["contention"], METRICS["delivery_rate"])
    else:
        drawn = [METRICS[name] for name in metric or ("delivery_rate", "contention")]
        save_results_figure(out, found, drawn, METRICS["reward"])
    print(f"wrote {out}")
    return 0


def front(
    results: Annotated[
        tuple[Path, ...], told("folders that dpem benchmark fronts, or another suite of prices, has written")
    ],
    /,
    *,
    reference: Annotated[
        str | None, told("label to compare with (default: that of the first results)", metavar="LABEL")
    ] = None,
    limit: Annotated[
        float | None, POSITIVE, told("contention up to which fronts count (default: the reference's most)", metavar="X")
    ] = None,
    level: Annotated[
        tuple[float, ...],
        POSITIVE,
        told(f"contention at which they are compared{REPEATED} (default: four)", metavar="X"),
    ] = (),
    out: Annotated[Path | None, told("also draw them: a .png, .pdf or .svg file (default: do not)")] = None,
) -> int:
    r"""Compare policies as curves of delivery against contention.

    Every scenario of the results is a point of each policy, such as a price of contention that it was tuned or
    trained for; several results are of different policies on the same episodes. A front is the concave envelope of
    a policy's points and of doing nothing: what it can do at every contention. Its share is its mean height up to
    the limit. Intervals are of 95 %, differences paired on the same episodes.

      dpem benchmark fronts --policy maxweight --policy central-maxweight \
                     --seeds 20 --tuned shipped --out fronts
      dpem front fronts --out fronts.pdf
    """
    from dpem_env.experiments.fronts import CONTENTION, DELIVERY, front_table
    from dpem_env.experiments.results import panelled, read, together
    from dpem_env.report.results_figure import require_format, save_front_figure
    from dpem_env.report.tables import print_fronts, working
    from dpem_env.support.files import make_file_writable

    if out is not None:
        require_format(out)
    found = together([read(folder) for folder in results])
    with working("comparing …"):
        fronts = front_table(found, reference, limit, level)
    what = f"{fronts.points} point(s) each, {fronts.episodes} episode(s), contention up to {fronts.limit:.3g}"
    what += "; an observation is a network" * (fronts.observed == "network")
    print_fronts(what, fronts.records, fronts.fronts, fronts.differences)
    if out is not None:
        make_file_writable(out)
        save_front_figure(out, panelled(found), CONTENTION, DELIVERY)
        print(f"wrote {out}")
    return 0


def report(
    results: Annotated[tuple[Path, ...], told("folders that dpem run, benchmark or curve has written")],
    /,
    *,
    out: Annotated[Path, told("a .html file; replaced if it exists")],
) -> int:
    r"""Write results as one HTML page that needs no network.

    Of every folder: tables with intervals and paired differences, figures against control delay, fronts where
    scenarios differ in the price of contention, performance profiles, and what it was made with. Where scenarios differ
    in two fields also a map of regimes: how much more a local policy delivers than central ones by control delay and
    these fields, and the delay from which it does. Of a folder of dpem curve the learning curves.

      dpem report results baselines/results/fronts --out report.html
    """
    from dpem_env.experiments.html_report import named, read_found, write_report
    from dpem_env.report.tables import working
    from dpem_env.support.files import make_file_writable

    if out.suffix != ".html":
        raise DpemError(f"--out is {str(out)!r}; expected a file that ends in .html")
    found = dict(zip(named(results), map(read_found, results), strict=True))
    make_file_writable(out)
    with working("writing …"):
        write_report(out, found)
    print(f"wrote {out}")
    return 0


def cite() -> int:
    r"""Print how to cite the package: a reference in plain words, and an entry for BibTeX.

    Both name the version of the package and of the rules. Results of other rules or scenarios are not comparable, so
    name the hash of every scenario, too. BibTeX skips all but the entry, which is of the type @software: biblatex knows
    it, plain BibTeX styles print it as @misc.

      dpem cite
      dpem cite >> paper.bib
    """
    from dpem_env import __version__
    from dpem_env.simulator import RULES_VERSION
    from dpem_env.support.citation import citation

    print(citation(__version__, RULES_VERSION), end="")
    return 0


def replay(log: Annotated[File, told("an episode log written by dpem run")], /, *, data: Data = None) -> int:
    """Run an episode again from its log and verify it."""
    from dpem_env.logs.recorder import read_log
    from dpem_env.logs.replay import replay_log
    from dpem_env.report.tables import progress

    read = read_log(log)
    with progress() as bar:
        task = bar.add_task(f"replaying {read.header['policy']} on {read.scenario.name}", total=len(read.rows))
        report = replay_log(read, lambda session: bar.advance(task), data)
    for line in report.lines():
        print(line)
    return 0 if report.verified else 1


def watch(
    log: Annotated[File, told("an episode log written by dpem run")],
    other: Annotated[File | None, told("another of the same episode, to be seen beside it (default: none)")] = None,
    /,
    *,
    html: Annotated[
        Path | None, told("a page that needs no network, with everything to look into (default: none)")
    ] = None,
    gif: Annotated[Path | None, told("an animated picture of the map (default: none)")] = None,
    mp4: Annotated[Path | None, told("a video of it; needs imageio-ffmpeg (default: none)")] = None,
    fps: Annotated[Count, told("slots per second of picture and video")] = 8,
    slots: Annotated[
        tuple[int, int] | None, told("first and last slot of picture and video (default: all)", metavar="SLOT")
    ] = None,
    data: Data = None,
) -> int:
    """Show an episode, played again from its log, slot by slot.

    The page has map, clock, requests as arcs, links that fill in, swaps, stored pairs, contention, and what is told of
    a node that is clicked: queue, stock, its action among the legal ones, its forecast beside what came. The exit code
    is 1 if the log cannot be verified; the page says why.

      dpem watch results/local-reactive-0.parquet --html episode.html
      dpem watch local.parquet central.parquet --gif both.gif --slots 0 80
    """
    from dpem_env.film.command import watch

    return watch([log] if other is None else [log, other], html, gif, mp4, fps, slots, data)
