"""``dpem federate``: a federation of separate processes. Light to import: Flower loads only when one is started."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dpem_agents.commands import playing
from dpem_env.cli import add_common, overrides, require_at_least_1, scenario_of, typed_path
from dpem_env.support.errors import DpemError
from dpem_env.support.seeding import require_seed

if TYPE_CHECKING:
    from dpem_agents.deployment.plan import Plan

PORT = 9092


def add_federate(commands: Any) -> None:
    """Add ``dpem federate``."""
    parser = commands.add_parser(
        "federate",
        help="federated training of separate processes, by Flower; what privacy costs, what attacks do",
        description="An aggregator and a process for every node of one network, connected by TLS. Server and nodes are "
        "started with the same scenario, topology, seed, rounds and options --federate and --learn; see "
        "docs/federation.md. Training in one process is dpem train --mode federated.",
    )
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_certificates(kinds)
    _add_server(kinds)
    _add_node(kinds)
    _add_noise(kinds)
    _add_attacks(kinds)


def _add_certificates(kinds: Any) -> None:
    parser = kinds.add_parser(
        "certificates",
        help="make certificates and keys of server and nodes",
        epilog="example: dpem federate certificates --nodes 3 --host aggregator.example --out keys",
    )
    parser.add_argument("--nodes", type=int, required=True, metavar="N", help="of the network")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME",
        help="name or address by which nodes reach the server; may be given several times (localhost always is one)",
    )  # fmt: skip
    add_common(parser, "--out")
    parser.set_defaults(run=_certificates)


def _add_server(kinds: Any) -> None:
    parser = kinds.add_parser(
        "server",
        help="start the aggregator",
        description="Wait for the nodes, average what they share in every round, and let them go. DIR gets global.npz, "
        "ledger.json (the privacy budget), rounds.json and operator-only.json; the same command again goes on.",
        epilog="example: dpem federate server --scenario chain3-v0 --rounds 10 --keys keys --out runs/server",
    )
    _add_plan(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to serve on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=PORT, help=f"to serve on (default: {PORT})")
    parser.add_argument(
        "--patience", type=float, default=600.0, metavar="S",
        help="s to wait for nodes that are missing before a round, and for their updates (default: 600)",
    )  # fmt: skip
    parser.set_defaults(run=_server)


def _add_node(kinds: Any) -> None:
    parser = kinds.add_parser(
        "node",
        help="start a node",
        description="Learn as one node until the federation ends. DIR keeps what the node has learned, so that it goes "
        "on after an interruption; at the end it can be played as --policy ppo:DIR.",
        epilog="example: dpem federate node --node 0 --server 127.0.0.1:9092 --scenario chain3-v0 --rounds 10 "
        "--keys keys --out runs/node0",
    )
    _add_plan(parser)
    parser.add_argument("--node", type=int, required=True, metavar="I", help="which node of the network, from 0")
    parser.add_argument("--server", default=f"127.0.0.1:{PORT}", metavar="HOST:PORT", help="(default: %(default)s)")
    parser.add_argument(
        "--patience", type=float, default=120.0, metavar="S",
        help="s to keep trying while the server does not answer or let the node in (default: 120)",
    )  # fmt: skip
    parser.set_defaults(run=_node)


def _add_noise(kinds: Any) -> None:
    parser = kinds.add_parser(
        "noise",
        help="what privacy would cost: noise beside the clip, and bytes",
        description="For every ε, mode, number of nodes and of shared weights: the least noise multiplier, how long "
        "the noise of a round's average is compared to the longest update that is let through, and what a node sends. "
        "Above 1, a round moves the weights further by noise than any node could.",
        epilog="example: dpem federate noise --weights 196 --nodes 100 --nodes 1000 --rounds 40 --epsilon 8",
    )
    several = {"action": "append", "required": True}
    parser.add_argument(
        "--weights", type=int, metavar="D", help="shared by a node; may be given several times", **several
    )
    parser.add_argument("--nodes", type=int, metavar="N", help="may be given several times", **several)
    parser.add_argument("--rounds", type=int, required=True, metavar="N", help="of averaging")
    parser.add_argument(
        "--epsilon", type=float, metavar="E", help="after all rounds; may be given several times", **several
    )
    parser.add_argument("--mode", action="append", choices=("central", "local"), help="(default: both)")
    parser.add_argument("--delta", type=float, default=1e-5, metavar="D", help="(default: 1e-5)")
    parser.add_argument("--sample-rate", type=float, default=1.0, metavar="Q", help="of nodes in a round (default: 1)")
    parser.add_argument("--out", type=typed_path, metavar="FILE.json", help="result to write, too")
    parser.set_defaults(run=_noise)


def _add_attacks(kinds: Any) -> None:
    parser = kinds.add_parser(
        "attacks",
        help="what a trained federation withstands",
        description="Go on from a training in mode federated while some nodes send updates made to spoil it: their "
        "own with the sign flipped, 100 times their own, or random numbers; against mean, mean + clip, trimmed mean "
        "and median. FILE tells how the policy then plays evaluation episodes; the same command again tries only what "
        "is missing.",
        epilog="example: dpem federate attacks --scenario mesh20-v0 --training runs/mesh20-federated --out "
        "attacks.json",
    )
    add_common(parser, "--scenario", "--set", "--data")
    parser.add_argument(
        "--training", type=typed_path, required=True, metavar="DIR", help="with checkpoint.npz of dpem train"
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="under attack (default: 20)")
    parser.add_argument("--period", type=int, default=8, metavar="N", help="rollouts in a round (default: 8)")
    parser.add_argument("--adversaries", type=float, default=0.2, metavar="SHARE", help="of nodes (default: 0.2)")
    parser.add_argument("--clip-norm", type=float, default=0.5, metavar="C", help="of mean + clip (default: 0.5)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trials of each kind (default: 3)")
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="that score a trial (default: 10)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--out", type=typed_path, required=True, metavar="FILE.json", help="result to write")
    parser.set_defaults(run=_attacks)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """What server and nodes must have in common, and where their files are."""
    add_common(parser, "--scenario", "--set", "--data", "--out")
    parser.add_argument("--topology", type=int, default=0, metavar="SEED", help="network of the nodes (default: 0)")
    parser.add_argument("--rounds", type=int, required=True, metavar="N", help="of averaging")
    parser.add_argument("--seed", type=int, default=0, help="of weights and luck (default: 0)")
    parser.add_argument("--forecaster", metavar="NAME[:ARGUMENT]", help="fills the observations (default: none)")
    parser.add_argument(
        "--federate", action="append", default=[], metavar="NAME=VALUE",
        help="such as epsilon=2, share=whole, period=8 or privacy=off (all: dpem_agents.federated.embedded)",
    )  # fmt: skip
    parser.add_argument(
        "--learn", action="append", default=[], metavar="NAME=VALUE",
        help="a hyperparameter of PPO, such as discount=0.99 (all: dpem_agents.ppo.hyperparameters)",
    )  # fmt: skip
    parser.add_argument("--keys", type=typed_path, required=True, metavar="DIR", help="folder of certificates and keys")


def _plan(arguments: argparse.Namespace) -> Plan:
    from dpem_agents.deployment.plan import Plan
    from dpem_agents.federated.embedded import federation
    from dpem_agents.ppo.hyperparameters import PRESETS, changed

    require_seed("--seed", arguments.seed)
    require_seed("--topology", arguments.topology)
    if not arguments.patience > 0.0:
        raise DpemError(f"--patience is {arguments.patience}; expected a number of seconds above 0")
    return Plan(
        scenario_of(arguments),
        federation(**overrides(arguments.federate, "--federate epsilon=2")),
        changed(PRESETS["federated"], **overrides(arguments.learn, "--learn discount=0.99")),
        arguments.rounds,
        arguments.seed,
        arguments.topology,
        arguments.forecaster,
    )


def _certificates(arguments: argparse.Namespace) -> int:
    from dpem_agents.deployment.certificates import make_certificates

    require_at_least_1(arguments, "nodes")
    make_certificates(arguments.out, arguments.nodes, arguments.host)
    print(f"wrote {arguments.out}; ca.key is for nobody but you, node-I.key for node I alone")
    return 0


def _server(arguments: argparse.Namespace) -> int:
    from dpem_agents.deployment.processes import serve

    if not 1 <= arguments.port <= 65535:
        raise DpemError(f"--port is {arguments.port}; expected 1 to 65535")
    path = serve(
        _plan(arguments),
        arguments.keys,
        arguments.out,
        host=arguments.host,
        port=arguments.port,
        patience=arguments.patience,
        tell=_tell,
    )
    _tell(f"wrote {path}")
    return 0


def _node(arguments: argparse.Namespace) -> int:
    from dpem_agents.deployment.processes import join

    path = join(
        _plan(arguments),
        arguments.node,
        arguments.server,
        arguments.keys,
        arguments.out,
        patience=arguments.patience,
        tell=_tell,
    )
    _tell(f"wrote {path}; use it as {playing('federated', path.parent, arguments.topology)}")
    return 0


def _noise(arguments: argparse.Namespace) -> int:
    from dpem_agents.studies.noise import noise_table, print_noise
    from dpem_env.support.files import make_file_writable, write_json

    if arguments.out is not None:
        make_file_writable(arguments.out)
    require_at_least_1(arguments, "weights", "nodes", "rounds", most=10**15)
    table = noise_table(
        arguments.weights,
        arguments.nodes,
        arguments.rounds,
        arguments.epsilon,
        arguments.mode or ("central", "local"),
        delta=arguments.delta,
        sample_rate=arguments.sample_rate,
    )
    print_noise(table)
    if arguments.out is not None:
        write_json(arguments.out, table)
        print(f"wrote {arguments.out}")
    return 0


def _attacks(arguments: argparse.Namespace) -> int:
    from dpem_agents.studies.attacks import ATTACKS, DEFENCES, Setting, withstand
    from dpem_env.report.tables import progress
    from dpem_env.support.files import make_file_writable

    require_at_least_1(arguments, "workers", "seeds", "rounds", "period", "episodes")
    setting = Setting(
        arguments.training,
        scenario_of(arguments),
        rounds=arguments.rounds,
        period=arguments.period,
        adversaries=arguments.adversaries,
        clip_norm=arguments.clip_norm,
        episodes=arguments.episodes,
    )
    make_file_writable(arguments.out)
    with progress() as bar:
        task = bar.add_task("trials", total=len(ATTACKS) * len(DEFENCES) * arguments.seeds)
        withstand(
            setting,
            arguments.out,
            seeds=range(arguments.seeds),
            workers=arguments.workers,
            on_trial=lambda: bar.advance(task),
        )
    print(f"wrote {arguments.out}")
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)
