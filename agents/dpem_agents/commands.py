"""What this package adds to the ``dpem`` command. Light to import: torch loads only when something is trained."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpem_agents.ppo.hyperparameters import MAX_COUNT, STACKED
from dpem_env.cli import add_common, overrides, require_at_least_1, scenario_of, typed_path
from dpem_env.envs.session import episode_seeds
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError
from dpem_env.support.files import file_name
from dpem_env.support.seeding import require_seed

MODELS = ("gru", "lstm", "rnn", "ridge")


def add_train_forecaster(commands: Any) -> None:
    """Add ``dpem train-forecaster``."""
    parser = commands.add_parser(
        "train-forecaster",
        help="train a forecaster at every node of a network, on its own request history",
        description="Draw each node's request history (train seeds) and train a forecaster of its own on it. The file "
        "written is used as --forecaster MODEL:FILE; it serves the networks it was trained on.",
        epilog="example: dpem train-forecaster --scenario mesh20-v0 --topology 2000 --out mesh20-gru.npz",
    )
    add_common(parser, "--scenario", "--set", "--data")
    parser.add_argument("--model", choices=MODELS, default="gru", help="(default: gru)")
    parser.add_argument(
        "--topology", action="append", type=int, required=True, metavar="SEED",
        help="network to train on; may be given several times",
    )  # fmt: skip
    parser.add_argument("--hours", type=float, default=24.0, help="simulated hours of history (default: 24)")
    parser.add_argument("--hidden", type=int, default=8, help="units of a recurrent cell (default: 8)")
    parser.add_argument("--epochs", type=float, default=3.0, help="passes over the history (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches (default: 0)")
    parser.add_argument(
        "--federate", action="append", default=[], metavar="NAME=VALUE",
        help="average recurrent networks of nodes now and then, and how: epsilon=8, share=whole, period=8 (batches) or "
        "privacy=off (all: dpem_agents.federated.embedded); booked beside FILE, in FILE-privacy/. ε is of what rounds "
        "release there: FILE holds every node's own weights and mean counts, without noise",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=typed_path, metavar="FILE.npz", help="checkpoint to write")
    parser.set_defaults(run=_train_forecaster)


def add_train(commands: Any) -> None:
    """Add ``dpem train``."""
    parser = commands.add_parser(
        "train",
        help="train a policy by PPO (Stable-Baselines3)",
        description="Train on the training split: 'shared' one policy for all nodes, 'independent' one of each node's "
        "own, on the network --topology alone, 'federated' the same with a part of them averaged, 'central' one for a "
        "controller that sees the network --delay s late. DIR gets checkpoint.npz, learning_curve.json and TensorBoard "
        "files. Ctrl-C saves; the same command again goes on exactly where it was. The result is played as --policy "
        "ppo:DIR, or central-ppo:DIR; nodes' own policies on --topology alone.",
        epilog="example: dpem train --scenario mesh20-v0 --timesteps 2000000 --out runs/mesh20, then "
        "dpem run --scenario mesh20-v0 --policy ppo:runs/mesh20 --policy local-reactive --out results",
    )
    add_common(parser, "--scenario", "--set", "--data")
    parser.add_argument("--mode", choices=("shared", "independent", "central", "federated"), help="(default: shared)")
    parser.add_argument(
        "--preset",
        choices=("dpem",),
        help="the paper's system: a GRU at every node, then mode federated on its forecasts",
    )
    parser.add_argument(
        "--timesteps", type=int, metavar="N", help="slots × nodes, over all networks (default: 100,000 slots)"
    )
    parser.add_argument("--out", type=typed_path, metavar="DIR", help="for the results (default: runs/SCENARIO-MODE)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and luck (default: 0)")
    parser.add_argument("--forecaster", metavar="NAME[:ARGUMENT]", help="fills the observations (default: none)")
    parser.add_argument(
        "--topology", type=int, metavar="SEED", help="network of independent or federated policies (default: 0)"
    )
    parser.add_argument(
        "--federate", action="append", default=[], metavar="NAME=VALUE",
        help="with mode federated: how, such as epsilon=2, share=whole, period=8 or privacy=off (all: "
        "dpem_agents.federated.embedded). ε is of what rounds release, in DIR/ledger-releases: checkpoint.npz, "
        "policy.npz, learning_curve.json and TensorBoard files tell of every node without noise",
    )  # fmt: skip
    parser.add_argument("--delay", type=float, metavar="S", help="of central control, in s (default: 0)")
    parser.add_argument(
        "--learn", action="append", default=[], metavar="NAME=VALUE",
        help="a hyperparameter of PPO, such as discount=0.99 (all: dpem_agents.ppo.hyperparameters)",
    )  # fmt: skip
    parser.add_argument(
        "--validation-episodes", type=int, default=4, metavar="N", help="of each of 20 validations (default: 4)"
    )
    parser.add_argument("--device", help="of PyTorch (default: cpu)")
    parser.add_argument(
        "--again", action="store_true", help="begin anew if DIR holds a checkpoint, but not if it has spent privacy"
    )
    parser.set_defaults(run=_train)


def add_tune_ppo(commands: Any) -> None:
    """Add ``dpem tune-ppo``."""
    parser = commands.add_parser(
        "tune-ppo",
        help="search over the hyperparameters of PPO",
        description="Train a shared policy with each of 16 settings, one thing changed at a time, and score it on 3 "
        "validation episodes: the budget that 'dpem tune' gives baselines. FILE tells what each came to, best first.",
        epilog="example: dpem tune-ppo --scenario mesh20-v0 --timesteps 2000000 --runs runs/search --out search.json",
    )
    add_common(parser, "--scenario", "--set", "--data")
    parser.add_argument("--timesteps", type=int, required=True, metavar="N", help="of each training, slots × nodes")
    parser.add_argument("--forecaster", metavar="NAME[:ARGUMENT]", help="fills the observations (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and luck (default: 0)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--runs", required=True, type=typed_path, metavar="DIR", help="folder for the trainings")
    parser.add_argument("--out", required=True, type=typed_path, metavar="FILE.json", help="result to write")
    parser.set_defaults(run=_tune_ppo)


def add_curve(commands: Any) -> None:
    """Add ``dpem curve``."""
    parser = commands.add_parser(
        "curve",
        help="learning curves over training seeds, and when they converge",
        description="Put the learning curves of several training seeds together: mean and 95 % interval at every "
        "validation, and the first after which all stay within 5 % of the final mean. Writes curve.json and curve.png.",
        epilog="example: dpem curve --runs 'shared=runs/mesh20/seed*' --beside validation/summary.json --out curves",
    )
    parser.add_argument(
        "--runs", action="append", required=True, metavar="NAME=PATTERN",
        help="folders of dpem train, one per training seed; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--beside", type=typed_path, metavar="SUMMARY.json",
        help="rules to draw as levels: what dpem benchmark --split validation found on the same episodes",
    )  # fmt: skip
    add_common(parser, "--out")
    parser.set_defaults(run=_curve)


def _curve(arguments: argparse.Namespace) -> int:
    from dpem_agents.studies.curve_figure import save_curve_figure
    from dpem_agents.studies.curves import learning_curves, means_of
    from dpem_env.support.files import make_writable, write_json

    runs = {}
    for given in arguments.runs:
        name, equals, pattern = given.partition("=")
        if not (name and equals and pattern):
            raise DpemError(f"--runs {given!r}: expected NAME=PATTERN, e.g. --runs 'shared=runs/mesh20/seed*'")
        runs[name] = pattern
    curves = learning_curves(runs)
    rules = means_of(arguments.beside, curves["scenario"]) if arguments.beside else {}
    make_writable(arguments.out)
    write_json(arguments.out / "curve.json", curves | {"rules": rules})
    save_curve_figure(arguments.out / "curve.png", curves, rules)
    for training in curves["trainings"]:
        value, low, high = training["reward"][-1]
        when, end = training["mean_converged_at"], training["timesteps"][-1]
        told = f"converged after {when:,}" if when is not None else "not converged"
        interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"  # none of one training seed
        print(f"{training['name']}: reward {value:.2f}{interval} after {end:,} agent-steps; {told}")
    print(f"wrote {arguments.out / 'curve.json'} and curve.png")
    return 0


def _tune_ppo(arguments: argparse.Namespace) -> int:
    from dpem_agents.studies.search import CHANGES, search
    from dpem_env.report.tables import progress
    from dpem_env.support.files import make_file_writable, make_writable

    require_seed("--seed", arguments.seed)
    require_at_least_1(arguments, "workers", "timesteps", most=10**15)
    scenario = scenario_of(arguments)
    make_file_writable(arguments.out)
    make_writable(arguments.runs, "--runs")
    with progress() as bar:
        task = bar.add_task("trials", total=len(CHANGES))
        trials = search(
            scenario,
            arguments.timesteps,
            arguments.out,
            arguments.runs,
            forecaster=arguments.forecaster,
            seed=arguments.seed,
            workers=arguments.workers,
            on_trial=lambda: bar.advance(task),
        )
    for trial in trials:
        print(f"{trial['reward']:8.3f}  {trial['name']}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from dpem_agents.dpem import train_dpem
    from dpem_agents.federated.embedded import federation
    from dpem_agents.ppo.hyperparameters import PRESETS, changed
    from dpem_agents.ppo.training import train

    scenario = scenario_of(arguments)
    mode = "federated" if arguments.preset else arguments.mode or "shared"
    _require_a_use(arguments, mode)
    topology, delay = arguments.topology or 0, arguments.delay or 0.0
    federate = overrides(arguments.federate, "--federate epsilon=2")
    timesteps = _slots_each(scenario) if arguments.timesteps is None else arguments.timesteps
    out = arguments.out or Path("runs", file_name(f"{scenario.name}-{arguments.preset or mode}"))
    common: dict[str, Any] = {
        "seed": arguments.seed,
        "hyperparameters": changed(PRESETS[mode], **overrides(arguments.learn, "--learn discount=0.99")),
        "federation": federation(**federate) if federate or mode == "federated" else None,
        "topology_seed": topology,
        "validation_episodes": arguments.validation_episodes,
        "resume": not arguments.again,
    }
    try:
        if arguments.preset == "dpem":
            path = train_dpem(scenario, timesteps, out, **common)
        else:
            own = {"forecaster": arguments.forecaster, "delay": delay, "device": arguments.device or "cpu"}
            path = train(scenario, mode, timesteps, out, **own, **common)
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:  # nothing is saved
            raise
        again = "without --again" if arguments.again else "again"
        raise KeyboardInterrupt(f"{interrupt}; the same command {again} goes on") from None
    print(f"wrote {path}; use it as {playing(mode, path.parent, topology, delay)}")
    return 0


def _require_a_use(arguments: argparse.Namespace, mode: str) -> None:
    """DpemError for options that this training would not look at."""
    if mode not in STACKED and arguments.topology is not None:
        raise DpemError(f"--topology is for modes {' and '.join(STACKED)}; mode {mode!r} trains on all networks")
    if mode != "central" and arguments.delay is not None:
        raise DpemError(f"--delay is for mode central; nodes of mode {mode!r} decide at once")
    for option in ("mode", "forecaster", "device"):
        if arguments.preset and getattr(arguments, option) is not None:
            raise DpemError(f"--preset {arguments.preset} has a {option} of its own: leave out --{option}")


def playing(mode: str, folder: Path, topology: int = 0, delay: float = 0.0) -> str:
    """Arguments of dpem run that play what was trained, as a shell takes them."""
    arguments = ["--policy", f"{'central-ppo' if mode == 'central' else 'ppo'}:{folder}"]
    if mode in STACKED:
        arguments += ["--topology", str(topology)]
    if delay:
        arguments += ["--delay", str(delay)]
    return shlex.join(arguments)


def forecasting(model: str, file: Path, topologies: Sequence[int]) -> str:
    """Arguments of dpem run or forecast that forecast by what was trained, on the first network it serves."""
    return shlex.join(["--forecaster", f"{model}:{file}", "--topology", str(topologies[0])])


def _slots_each(scenario: Scenario) -> int:
    """Timesteps of 100,000 slots of a network."""
    network = build_network(scenario, episode_seeds(scenario, "train", 0).topology)
    return 100_000 * network.num_nodes


def _train_forecaster(arguments: argparse.Namespace) -> int:
    from dpem_agents.federated.embedded import federation
    from dpem_agents.federated.ledger import BudgetExhausted
    from dpem_agents.forecasters.ridge import train_ridge
    from dpem_agents.forecasters.training import Interrupted, train_forecasters
    from dpem_env.support.files import make_file_writable

    require_seed("--seed", arguments.seed)
    for seed in arguments.topology:
        require_seed("--topology", seed)
    require_at_least_1(arguments, "hidden", most=MAX_COUNT)
    for option in ("hours", "epochs"):
        given = getattr(arguments, option)
        if not (0.0 < given < math.inf):
            raise DpemError(f"--{option} is {given}; expected a number above 0")
    scenario = scenario_of(arguments)
    common: dict[str, Any] = {"hours": arguments.hours}
    federate = overrides(arguments.federate, "--federate epsilon=2")
    if arguments.model == "ridge" and federate:
        raise DpemError("--federate averages recurrent networks: choose --model gru, lstm or rnn")
    make_file_writable(arguments.out)
    if arguments.model == "ridge":
        checkpoint = train_ridge(scenario, arguments.topology, **common)
    else:
        options = {name: getattr(arguments, name) for name in ("hidden", "epochs", "seed")}
        if federate:
            ledgers = arguments.out.with_name(f"{arguments.out.stem}-privacy")
            options |= {"federation": federation(**federate), "ledgers": ledgers}
        try:
            checkpoint = train_forecasters(scenario, arguments.topology, cell=arguments.model, **options, **common)
        except Interrupted as interrupt:
            interrupt.learned.save(arguments.out)
            raise KeyboardInterrupt(f"interrupted; {arguments.out} holds what was learned by then") from None
        except BudgetExhausted as exhausted:
            if not arguments.out.exists():
                exhausted.learned.save(arguments.out)
            raise
    checkpoint.save(arguments.out)
    print(f"wrote {arguments.out}; use it as {forecasting(arguments.model, arguments.out, arguments.topology)}")
    return 0
