"""``dpem federate``: a federation of separate processes. Light to import: Flower loads only when one is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dpem_agents.commands import Forecaster, TrainingSeed, playing
from dpem_agents.federation import Federation, federation
from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters, changed
from dpem_env.commands import World
from dpem_env.support.options import (
    REPEATED,
    STEPS,
    Count,
    File,
    Folder,
    Out,
    Patience,
    Seed,
    Steps,
    Workers,
    commands,
    real,
    told,
    typed,
    whole,
)

if TYPE_CHECKING:
    from dpem_agents.deployment.plan import Plan

    Learn = Mapping[str, Any]
    Federate = Mapping[str, Any]
else:
    Learn = typed(Hyperparameters, {"federated": PRESETS["federated"]}, "Hyperparameters of PPO")
    Federate = typed(Federation, {"federated": Federation()}, "Federated averaging")

PORT = 9092


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What server and nodes must have in common, and where their files are."""

    topology: Annotated[Seed, told("train on the network of this seed")] = 0
    rounds: Annotated[Count, told("of averaging")]
    forecaster: Forecaster = None
    seed: TrainingSeed = 0
    learn: Learn = field(default_factory=dict)
    federate: Federate = field(default_factory=dict)
    keys: Annotated[Folder, told("folder of certificates and keys")]
    out: Out

    def plan(self, world: World) -> Plan:
        """The federation on a scenario."""
        from dpem_agents.deployment.plan import Plan

        return Plan(
            world.get(),
            federation(**self.federate),
            changed(PRESETS["federated"], **self.learn),
            self.rounds,
            self.seed,
            self.topology,
            self.forecaster,
        )


def certificates(
    *,
    nodes: Annotated[Count, told("of the network")],
    host: Annotated[
        tuple[str, ...],
        told(
            f"name or address by which nodes reach the server{REPEATED} (default: localhost, which always is one)",
            metavar="NAME",
        ),
    ] = (),
    out: Out,
) -> int:
    """Make certificates and keys of server and nodes.

    dpem federate certificates --nodes 3 --host aggregator.example --out keys
    """
    from dpem_agents.deployment.certificates import make_certificates

    make_certificates(out, nodes, host)
    print(f"wrote {out}; ca.key is for nobody but you, node-I.key for node I alone")
    return 0


def server(
    *,
    world: World,
    common: Common,
    host: Annotated[str, told("to serve on", metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[int, whole(1, 65535), told("to serve on")] = PORT,
    patience: Annotated[Patience, told("to wait for nodes missing before a round, and for their updates")] = 600.0,
) -> int:
    r"""Start the aggregator.

    Wait for the nodes, average what they share in every round, and let them go. DIR gets global.npz, ledger.json (the
    privacy budget), rounds.json and operator-only.json; the same command again goes on.

      dpem federate server --scenario chain3-v0 --rounds 10 --keys keys \
                    --out runs/server
    """
    from dpem_agents.deployment.processes import serve

    path = serve(
        common.plan(world),
        common.keys,
        common.out,
        host=host,
        port=port,
        patience=patience,
        tell=_tell,
    )
    _tell(f"wrote {path}")
    return 0


def node(
    *,
    world: World,
    common: Common,
    node: Annotated[int, whole(0), told("which node of the network, from 0", metavar="I")],
    server: Annotated[str, told("where the server is", metavar="HOST:PORT")] = f"127.0.0.1:{PORT}",
    patience: Annotated[Patience, told("to keep trying while the server does not answer or let the node in")] = 120.0,
) -> int:
    r"""Start a node.

    Learn as one node until the federation ends. DIR keeps what the node has learned, so that it goes on after an
    interruption; at the end it can be played as --policy ppo:DIR.

      dpem federate node --node 0 --server 127.0.0.1:9092 --scenario chain3-v0 \
                    --rounds 10 --keys keys --out runs/node0
    """
    from dpem_agents.deployment.processes import join

    path = join(
        common.plan(world),
        node,
        server,
        common.keys,
        common.out,
        patience=patience,
        tell=_tell,
    )
    _tell(f"wrote {path}; use it as {playing('federated', path.parent, common.topology)}")
    return 0


def noise(
    *,
    weights: Annotated[tuple[int, ...], STEPS, told(f"shared by a node{REPEATED}")],
    nodes: Annotated[tuple[int, ...], STEPS, told(f"of the network{REPEATED}")],
    rounds: Annotated[Steps, told("of averaging")],
    epsilon: Annotated[tuple[float, ...], real(metavar="E"), told(f"after all rounds{REPEATED}")],
    mode: Annotated[
        tuple[Literal["central", "local"], ...], told(f"who adds noise{REPEATED} (default: both)", metavar="MODE")
    ] = (),
    delta: Annotated[float, real(metavar="D"), told("δ of ε")] = 1e-5,
    sample_rate: Annotated[float, real(metavar="Q"), told("share of nodes in a round")] = 1.0,
    out: Annotated[File | None, told("result to write, too (default: none)", metavar="FILE.json")] = None,
) -> int:
    r"""Tell what privacy would cost: noise beside the clip, and bytes.

    For every ε, mode, number of nodes and of shared weights: the least noise multiplier, how long the noise of a
    round's average is compared to the longest update that is let through, and what a node sends. Above 1, a round
    moves the weights further by noise than any node could.

      dpem federate noise --weights 196 --nodes 100 --nodes 1000 --rounds 40 \
                    --epsilon 8
    """
    from dpem_agents.studies.noise import noise_table, print_noise
    from dpem_env.support.files import make_file_writable, write_json

    if out is not None:
        make_file_writable(out)
    table = noise_table(
        weights, nodes, rounds, epsilon, mode or ("central", "local"), delta=delta, sample_rate=sample_rate
    )
    print_noise(table)
    if out is not None:
        write_json(out, table)
        print(f"wrote {out}")
    return 0


def attacks(
    *,
    world: World,
    training: Annotated[Folder, told("with checkpoint.npz of dpem train")],
    rounds: Annotated[Count, told("under attack")] = 20,
    period: Annotated[Count, told("rollouts in a round")] = 8,
    adversaries: Annotated[float, real(metavar="SHARE"), told("of nodes")] = 0.2,
    clip_norm: Annotated[float, real(metavar="C"), told("of mean + clip")] = 0.5,
    seeds: Annotated[Count, told("trials of each kind")] = 3,
    episodes: Annotated[Count, told("that score a trial")] = 10,
    workers: Workers = 1,
    out: Annotated[File, told("result to write", metavar="FILE.json")],
) -> int:
    r"""Tell what a trained federation withstands.

    Go on from a training in mode federated while some nodes send updates made to spoil it: their own with the sign
    flipped, 100 times their own, or random numbers; against mean, mean + clip, trimmed mean and median. FILE tells how
    the policy then plays evaluation episodes; the same command again tries only what is missing.

      dpem federate attacks --scenario mesh20-v0 --training runs/mesh20-federated \
                    --out attacks.json
    """
    from dpem_agents.studies.attacks import ATTACKS, DEFENCES, Setting, withstand
    from dpem_env.report.tables import progress
    from dpem_env.support.files import make_file_writable

    setting = Setting(
        training,
        world.get(),
        rounds=rounds,
        period=period,
        adversaries=adversaries,
        clip_norm=clip_norm,
        episodes=episodes,
    )
    make_file_writable(out)
    with progress() as bar:
        task = bar.add_task("trials", total=len(ATTACKS) * len(DEFENCES) * seeds)
        withstand(
            setting,
            out,
            seeds=range(seeds),
            workers=workers,
            on_trial=lambda: bar.advance(task),
        )
    print(f"wrote {out}")
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


federate = commands(
    "federate",
    """Federated training of separate processes, by Flower; what privacy costs, what attacks do.

    An aggregator and a process for every node of one network, connected by TLS. Server and nodes are started with the
    same scenario, topology, seed, rounds and options --federate.… and --learn.…; see docs/federation.md. Training in
    one process is dpem train --mode federated.""",
    {"certificates": certificates, "server": server, "node": node, "noise": noise, "attacks": attacks},
    help_epilogue="",
)
