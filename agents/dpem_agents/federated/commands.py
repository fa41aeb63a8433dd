"""``dpem federate``: a federation of separate processes. Light to import: Flower loads only when one is started."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpem_env import scenarios
from dpem_env.cli import add_common, overrides
from dpem_env.errors import DpemError
from dpem_env.session import require_seed

if TYPE_CHECKING:
    from dpem_agents.federated.plan import Plan

PORT = 9092


def add_federate(commands: Any) -> None:
    """Add ``dpem federate``."""
    parser = commands.add_parser(
        "federate",
        help="federated training of separate processes, by Flower",
        description="An aggregator and a process for every node of one network, connected by TLS. All are started with "
        "the same scenario, topology, seed, rounds and options --federate and --learn; see docs/federation.md.",
    )
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_certificates(kinds)
    _add_server(kinds)
    _add_node(kinds)


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


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """What server and nodes must have in common, and where their files are."""
    add_common(parser, "--scenario", "--set", "--data", "--out")
    parser.add_argument("--topology", type=int, default=0, metavar="SEED", help="network of the nodes (default: 0)")
    parser.add_argument("--rounds", type=int, required=True, metavar="N", help="of averaging")
    parser.add_argument("--seed", type=int, default=0, help="of weights and luck (default: 0)")
    parser.add_argument("--forecaster", metavar="NAME[:ARGUMENT]", help="fills the observations (default: none)")
    parser.add_argument(
        "--federate", action="append", default=[], metavar="NAME=VALUE",
        help="such as epsilon=2, share=policy, rollouts=8 or privacy=off (all: dpem_agents.federated.embedded)",
    )  # fmt: skip
    parser.add_argument(
        "--learn", action="append", default=[], metavar="NAME=VALUE",
        help="a hyperparameter of PPO, such as discount=0.99 (all: dpem_agents.ppo.hyperparameters)",
    )  # fmt: skip
    parser.add_argument("--keys", type=Path, required=True, metavar="DIR", help="folder of certificates and keys")


def _plan(arguments: argparse.Namespace) -> Plan:
    from dpem_agents.federated.embedded import federation
    from dpem_agents.federated.plan import Plan
    from dpem_agents.ppo.hyperparameters import PRESETS, changed

    require_seed("--seed", arguments.seed)
    require_seed("--topology", arguments.topology)
    if not arguments.patience > 0.0:
        raise DpemError(f"--patience is {arguments.patience}; expected a number of seconds above 0")
    return Plan(
        scenarios.get(arguments.scenario, **overrides(arguments.set)),
        federation(**overrides(arguments.federate, "--federate epsilon=2")),
        changed(PRESETS["federated"], **overrides(arguments.learn, "--learn discount=0.99")),
        arguments.rounds,
        arguments.seed,
        arguments.topology,
        arguments.forecaster,
    )


def _certificates(arguments: argparse.Namespace) -> int:
    from dpem_agents.federated.certificates import make_certificates

    make_certificates(arguments.out, arguments.nodes, arguments.host)
    print(f"wrote {arguments.out}; ca.key is for nobody but you, node-I.key for node I alone")
    return 0


def _server(arguments: argparse.Namespace) -> int:
    from dpem_agents.federated.deployment import serve

    if not 1 <= arguments.port <= 65535:
        raise DpemError(f"--port is {arguments.port}; expected 1 to 65535")
    path = serve(
        _plan(arguments),
        arguments.keys,
        arguments.out,
        host=arguments.host,
        port=arguments.port,
        patience=arguments.patience,
        data_dir=arguments.data,
        tell=_tell,
    )
    _tell(f"wrote {path}")
    return 0


def _node(arguments: argparse.Namespace) -> int:
    from dpem_agents.federated.deployment import join

    path = join(
        _plan(arguments),
        arguments.node,
        arguments.server,
        arguments.keys,
        arguments.out,
        patience=arguments.patience,
        data_dir=arguments.data,
        tell=_tell,
    )
    _tell(f"wrote {path}; use it as --policy ppo:{path.parent}")
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)
