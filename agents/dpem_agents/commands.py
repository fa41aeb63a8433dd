"""What this package adds to the ``dpem`` command. Light to import: torch loads only when something is trained."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dpem_agents.federation import Federation, federation
from dpem_agents.ppo.hyperparameters import MAX_COUNT, PRESETS, STACKED, Hyperparameters, changed, kind_of
from dpem_env.commands import World
from dpem_env.support.errors import DpemError
from dpem_env.support.options import (
    A_SEED,
    POSITIVE,
    REPEATED,
    Delay,
    File,
    Folder,
    Out,
    Seed,
    Steps,
    Workers,
    told,
    typed,
    whole,
)
from dpem_env.support.plugins import NO_OPTIONS

if TYPE_CHECKING:
    from dpem_env.scenarios import Scenario

    Learn = Mapping[str, Any]
    Federate = Mapping[str, Any]
else:
    Learn = typed(Hyperparameters, PRESETS, "Hyperparameters of PPO")
    Federate = typed(Federation, {"all": Federation()}, "Federated averaging")

Network = Annotated[Seed, told("train on the network of this seed")]
Forecaster = Annotated[str | None, told("fills the observations (default: none)", metavar="NAME[:ARGUMENT]")]
TrainingSeed = Annotated[Seed, told("of weights and random draws")]


def train_forecaster(
    *,
    world: World,
    topology: Annotated[tuple[int, ...], A_SEED, told(f"train on the network of this seed{REPEATED}")],
    model: Annotated[Literal["gru", "lstm", "rnn", "ridge"], told("what is trained", metavar="MODEL")] = "gru",
    hours: Annotated[float, POSITIVE, told("simulated hours of history")] = 24.0,
    hidden: Annotated[int, whole(most=MAX_COUNT), told("units of a recurrent cell")] = 8,
    epochs: Annotated[float, POSITIVE, told("passes over the history")] = 3.0,
    seed: TrainingSeed = 0,
    federate: Federate = NO_OPTIONS,
    out: Annotated[File, told("checkpoint to write", metavar="FILE.npz")],
) -> int:
    r"""Train a forecaster at every node of a network, on its own request history.

    Draw each node's request history (train seeds) and train a forecaster of its own on it. The file written is used as
    --forecaster MODEL:FILE; it serves the networks it was trained on.

    With any option --federate.…, recurrent networks of nodes are averaged now and then. It is booked beside FILE, in
    FILE-privacy/. ε is of what rounds release there: FILE holds every node's own weights and mean counts, without
    noise.

      dpem train-forecaster --scenario mesh20-v0 --topology 2000 \
                            --out mesh20-gru.npz
    """
    from dpem_agents.federated.ledger import BudgetExhausted
    from dpem_agents.forecasters.ridge import train_ridge
    from dpem_agents.forecasters.training import Interrupted, train_forecasters
    from dpem_env.support.files import make_file_writable

    chosen = world.get()
    if model == "ridge" and federate:
        raise DpemError("--federate.… averages recurrent networks: choose --model gru, lstm or rnn")
    make_file_writable(out)
    if model == "ridge":
        train_ridge(chosen, topology, hours=hours).save(out)
    else:
        options: dict[str, Any] = {"cell": model, "hidden": hidden, "epochs": epochs, "seed": seed}
        if federate:
            options |= {"federation": federation(**federate), "ledgers": out.with_name(f"{out.stem}-privacy")}
        try:
            train_forecasters(chosen, topology, hours=hours, **options).save(out)
        except Interrupted as interrupt:
            interrupt.learned.save(out)
            raise KeyboardInterrupt(f"interrupted; {out} holds what was learned by then") from None
        except BudgetExhausted as exhausted:
            if not out.exists():
                exhausted.learned.save(out)
            raise
    print(f"wrote {out}; use it as {forecasting(model, out, topology)}")
    return 0


def train(
    *,
    world: World,
    mode: Annotated[
        Literal["shared", "independent", "central", "federated"] | None,
        told("who learns what (default: shared)", metavar="MODE"),
    ] = None,
    preset: Annotated[
        Literal["dpem"] | None,
        told(
            "the paper's system: a GRU at every node, then mode federated on its forecasts (default: none)",
            metavar="NAME",
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        told(
            "policy of mode shared that all nodes start from: ppo:DIR, or one that is shipped, as ppo:mesh100 "
            "(default: a rule and random weights)",
            metavar="POLICY",
        ),
    ] = None,
    start_penalty: Annotated[
        Literal["range", "scenario"] | None,
        told(
            "where that policy is told its contention penalty: it learns at all it knows, or at the scenario's "
            "(default: range)",
            metavar="WHICH",
        ),
    ] = None,
    imitate: Annotated[
        str | None,
        told(
            "central policy that nodes learn to decide like, in place of PPO: one can start from what comes of it "
            "(default: none)",
            metavar="POLICY",
        ),
    ] = None,
    tuned: Annotated[
        Folder | None,
        told("imitate it with the options that dpem tune found there, or shipped ones (default: its own)"),
    ] = None,
    timesteps: Annotated[
        Steps | None, told("slots × nodes, over all networks (default: 100,000 slots, or 10,000 of imitation)")
    ] = None,
    forecaster: Forecaster = None,
    hours: Annotated[
        float | None,
        POSITIVE,
        told("simulated hours of history that the preset's forecasters learn from (default: 24)"),
    ] = None,
    topology: Annotated[
        Network | None,
        told("train on the network of this seed (default: 0 in modes independent and federated; others train on many)"),
    ] = None,
    delay: Annotated[Delay | None, told("of central control (default: 0)")] = None,
    seed: TrainingSeed = 0,
    learn: Learn = NO_OPTIONS,
    federate: Federate = NO_OPTIONS,
    validation_episodes: Annotated[int, whole(0), told("of each of 20 validations")] = 4,
    device: Annotated[str | None, told("of PyTorch (default: cpu)", metavar="NAME")] = None,
    again: Annotated[bool, told("begin anew if DIR holds a checkpoint, but not if it has spent privacy")] = False,
    out: Annotated[Folder | None, told("for the results (default: runs/SCENARIO-MODE)")] = None,
) -> int:
    r"""Train a policy by PPO (Stable-Baselines3).

    Train on the training split: 'shared' one policy for all nodes, 'independent' one of each node's own, on the
    network --topology alone, 'federated' the same with a part of them averaged (--federate.…), 'central' one for a
    controller that sees the network --delay s late. DIR gets checkpoint.npz, learning_curve.json and TensorBoard
    files. Ctrl-C saves; the same command again goes on exactly where it was. The result is played as --policy ppo:DIR,
    or central-ppo:DIR; nodes' own policies on --topology alone.

    With --start-from nodes go on from a policy that was trained before, on public networks, say. Defaults are then its
    networks, actions and forecaster, --learn.learning-rate 1e-4 and --learn.penalty-ramp 0; the learning curve tells
    how far it has moved.

    With --imitate nodes of mode shared learn to decide, each from what it knows, what a central policy would command
    that sees the network without delay (DAgger). DIR gets policy.npz alone, at the end; the forecaster is by default
    that policy's, and nothing is validated. --start-from goes on from there by PPO.

    ε is of what rounds release, in DIR/ledger-releases: checkpoint.npz, policy.npz, learning_curve.json and
    TensorBoard files tell of every node without noise.

      dpem train --scenario mesh20-v0 --timesteps 2e6 --learn.discount 0.99 \
                 --out runs/mesh20
      dpem run --scenario mesh20-v0 --policy ppo:runs/mesh20 \
               --policy local-reactive --out results
      dpem train --scenario mesh20-v0 --topology 2000 --mode federated \
                 --start-from ppo:runs/mesh20 --out runs/mesh20-own
      dpem train --scenario mesh20-v0 --imitate central-maxweight \
                 --tuned shipped --out runs/mesh20-imitation
    """
    from dpem_agents.dpem import train_dpem
    from dpem_agents.ppo import training
    from dpem_agents.ppo.start import MODES, Start
    from dpem_env.support.files import file_name

    chosen = world.get()
    if imitate is not None:
        of_ppo: dict[str, Any] = {
            "preset": preset, "mode": mode if mode != "shared" else None, "start-from": start_from, "hours": hours,
            "start-penalty": start_penalty, "topology": topology, "delay": delay, "federate": federate or None,
        }  # fmt: skip
        for option, value in of_ppo.items():
            if value is not None:
                raise DpemError(f"--{option} is of PPO: leave it out with --imitate, which trains for all networks")
        return _imitate(
            world,
            imitate,
            tuned,
            timesteps,
            out,
            seed=seed,
            hyperparameters=changed(PRESETS["shared"], **learn),
            forecaster=forecaster,
            device=device or "cpu",
            again=again,
        )
    if tuned is not None:
        raise DpemError("--tuned is of the policy that --imitate names: name one")
    how = "federated" if preset else mode or "shared"
    if how not in STACKED and topology is not None:
        raise DpemError(f"--topology is for modes {' and '.join(STACKED)}; mode {how!r} trains on all networks")
    if how != "central" and delay is not None:
        raise DpemError(f"--delay is for mode central; nodes of mode {how!r} decide at once")
    for option, given in (("mode", mode), ("forecaster", forecaster), ("device", device)):
        if preset and given is not None:
            raise DpemError(f"--preset {preset} has a {option} of its own: leave out --{option}")
    if hours is not None and not preset:
        raise DpemError("--hours is of --preset dpem, which trains forecasters: see dpem train-forecaster, or name it")
    if start_from is not None and how not in MODES:
        raise DpemError(f"--start-from is for modes {', '.join(MODES)}; mode {how!r} starts from a rule")
    if start_from is None and start_penalty is not None:
        raise DpemError("--start-penalty is of the policy that --start-from names: name one")
    start = None if start_from is None else Start.of(start_from, start_penalty)
    if start is not None and forecaster is not None:
        start.require_forecaster(forecaster)
    steps = _slots_each(chosen, 100_000) if timesteps is None else timesteps
    folder = out or Path("runs", file_name(f"{chosen.name}-{preset or how}"))
    common: dict[str, Any] = {
        "seed": seed,
        "topology_seed": topology or 0,
        "hyperparameters": start.hyperparameters(how, **learn) if start else changed(PRESETS[how], **learn),
        "start": start,
        "federation": federation(**federate) if federate or how == "federated" else None,
        "validation_episodes": validation_episodes,
        "resume": not again,
    }
    try:
        if preset:
            path = train_dpem(chosen, steps, folder, hours=hours or 24.0, **common)
        else:
            own: dict[str, Any] = {"forecaster": forecaster, "delay": delay or 0.0, "device": device or "cpu"}
            path = training.train(chosen, how, steps, folder, **own, **common)
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:  # nothing is saved
            raise
        command = "without --again" if again else "again"
        raise KeyboardInterrupt(f"{interrupt}; the same command {command} goes on") from None
    print(f"wrote {path}; use it as {playing(how, path.parent, topology or 0, delay or 0.0)}")
    return 0


def _imitate(
    world: World, policy: str, tuned: Path | None, timesteps: int | None, out: Path | None, **common: Any
) -> int:
    """Imitate a central policy, and tell what came of it."""
    from dpem_agents.ppo.checkpoint import load
    from dpem_agents.ppo.imitation import imitate
    from dpem_env.experiments.contestants import contestants
    from dpem_env.experiments.tuning import Tuned
    from dpem_env.support.files import file_name

    chosen = world.get()
    [[expert, *more]] = [each.policies for each in contestants([policy], [0.0])]
    if more:
        raise DpemError(f"--imitate {policy!r} names {len(more) + 1} policies: name one")
    if tuned is not None:
        expert = Tuned(tuned, [world.scenario]).policy(chosen, expert)
    folder = out or Path("runs", file_name(f"{chosen.name}-imitation"))
    path = imitate(chosen, expert, timesteps or _slots_each(chosen, 10_000), folder, **common)
    rounds = load(path).about["imitation"]["rounds"]
    unworded, commands = (sum(each[name] for each in rounds) for name in ("unworded", "commands"))
    print(f"decides as commanded in {rounds[-1]['agreement']:.1%} of decisions", end="; ")
    print(f"{unworded:,} of {commands:,} commands could not be worded")
    print(f"wrote {path}; use it as --policy ppo:{folder}, or train on with --start-from ppo:{folder}")
    return 0


def tune_ppo(
    *,
    world: World,
    search: Annotated[
        Literal["all", "idle"], told("what: all hyperparameters, or who is idle", metavar="WHAT")
    ] = "all",
    timesteps: Annotated[Steps, told("of each training, slots × nodes")],
    forecaster: Forecaster = None,
    seed: TrainingSeed = 0,
    workers: Workers = 1,
    runs: Annotated[Folder, told("folder for the trainings")],
    out: Annotated[File, told("result to write", metavar="FILE.json")],
) -> int:
    r"""Search over the hyperparameters of PPO.

    Train a shared policy with each of 16 settings, one thing changed at a time, and score it on 3 validation episodes:
    the budget that 'dpem tune' gives baselines. With --search idle, with the presets and each of a few values of
    --learn.idle-forecast. FILE tells what each came to, best first.

      dpem tune-ppo --scenario mesh20-v0 --timesteps 2e6 --runs runs/search \
                    --out search.json
    """
    from dpem_agents.studies.search import SEARCHES
    from dpem_agents.studies.search import search as searched
    from dpem_env.report.tables import progress
    from dpem_env.support.files import make_file_writable, make_writable

    chosen = world.get()
    make_file_writable(out)
    make_writable(runs, "--runs")
    with progress() as bar:
        task = bar.add_task("trials", total=len(SEARCHES[search][1]))
        trials = searched(
            chosen,
            timesteps,
            out,
            runs,
            over=search,
            forecaster=forecaster,
            seed=seed,
            workers=workers,
            on_trial=lambda: bar.advance(task),
        )
    for trial in trials:
        print(f"{trial['reward']:8.3f}  {trial['name']}")
    return 0


def curve(
    *,
    run: Annotated[
        tuple[str, ...],
        told(f"folders of dpem train, one per training seed{REPEATED}", metavar="NAME=PATTERN"),
    ],
    beside: Annotated[
        File | None,
        told(
            "rules to draw as levels, by dpem benchmark --split validation on the same episodes (default: none)",
            metavar="SUMMARY.json",
        ),
    ] = None,
    out: Out,
) -> int:
    r"""Draw learning curves over training seeds, and tell when they converge.

    Put the learning curves of several training seeds together: mean and 95 % interval at every validation, and the
    first after which all stay within 5 % of the final mean. Of trainings with --start-from also how far they have moved
    the policy they began with. Writes curve.json and curve.png.

      dpem curve --run 'shared=runs/mesh20/seed*' --beside validation/summary.json \
                 --out curves
    """
    from dpem_agents.studies.curves import learning_curves, means_of
    from dpem_env.report.curve_figure import save_curve_figure
    from dpem_env.support.files import make_writable, write_json

    patterns = {}
    for given in run:
        name, equals, pattern = given.partition("=")
        if not (name and equals and pattern):
            raise DpemError(f"--run {given!r}: expected NAME=PATTERN, e.g. --run 'shared=runs/mesh20/seed*'")
        patterns[name] = pattern
    curves = learning_curves(patterns)
    rules = means_of(beside, curves) if beside else {}
    make_writable(out)
    write_json(out / "curve.json", curves | {"rules": rules})
    save_curve_figure(out / "curve.png", curves, rules)
    for training in curves["trainings"]:
        value, low, high = training["reward"][-1]
        when, end = training["mean_converged_at"], training["timesteps"][-1]
        told_of = f"converged after {when:,}" if when is not None else "not converged"
        interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"  # none of one training seed
        print(f"{training['name']}: reward {value:.2f}{interval} after {end:,} agent-steps; {told_of}{moved(training)}")
    print(f"wrote {out / 'curve.json'} and curve.png")
    return 0


def moved(training: Mapping[str, Any]) -> str:
    """How far a training has moved the policy that it started from, if it started from one."""
    if "starts" not in training:
        return ""
    kl, decisions, weights = (
        training[name][-1][0] for name in ("kl_from_start", "changed_decisions", "weight_distance")
    )
    starts = " and ".join(dict.fromkeys(training["starts"]))
    told_of = "no decision" if kl is None else f"KL {kl:.3g}, {decisions:.1%} of decisions changed"
    return f"; from {starts}: {told_of}, weights moved by {weights:.3g}"


def playing(mode: str, folder: Path, topology: int = 0, delay: float = 0.0) -> str:
    """Arguments of dpem run that play what was trained, as a shell takes them."""
    arguments = ["--policy", f"{kind_of(mode)}:{folder}"]
    if mode in STACKED:
        arguments += ["--topology", str(topology)]
    if delay:
        arguments += ["--delay", str(delay)]
    return shlex.join(arguments)


def forecasting(model: str, file: Path, topologies: Sequence[int]) -> str:
    """Arguments of dpem run or forecast that forecast by what was trained, on the first network it serves."""
    return shlex.join(["--forecaster", f"{model}:{file}", "--topology", str(topologies[0])])


def _slots_each(scenario: Scenario, slots: int) -> int:
    """Timesteps of so many slots of a network."""
    from dpem_env.envs.session import episode_seeds
    from dpem_env.network.network import build_network

    network = build_network(scenario, episode_seeds(scenario, "train", 0).topology)
    return slots * network.num_nodes
