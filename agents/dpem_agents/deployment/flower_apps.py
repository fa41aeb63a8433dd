"""What Flower runs in a deployment: `server_app` at the aggregator, `client_app` at a node.

Both read the folder they work in from the environment.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpem_agents.deployment.flower import AveragerStrategy, make_client_app, make_server_app
from dpem_agents.deployment.plan import Plan
from dpem_agents.federated.embedded import Averaging
from dpem_agents.federated.ledger import Release
from dpem_agents.federated.mechanism import NoisedUpdate
from dpem_agents.federated.reports import RoundReport
from dpem_agents.federated.spec import Vector
from dpem_agents.libraries import one_thread
from dpem_agents.ppo.checkpoint import FILE, POLICY_FILE, load
from dpem_env.support.errors import DpemError
from dpem_env.support.files import ArrayFile, Part, checked, read_json, reading, whole_file, write_json

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid

FOLDER = "DPEM_FEDERATION"  # the environment variable that names it
GLOBAL = "global.npz"  # the aggregator's weights, and how many rounds made them
ROUNDS, OPERATOR = "rounds.json", "operator-only.json"  # reports of all rounds: to publish, and never to


def _serve(grid: Grid, context: Context) -> None:
    """Play the rounds that are left; whatever ends them, the nodes are told the final weights and leave."""
    with one_thread():
        aggregator = Aggregator(Path(os.environ[FOLDER]))
    try:
        aggregator.strategy.play(grid, aggregator.plan.rounds - aggregator.averager.rounds)
    finally:
        aggregator.strategy.finish(grid)


class Aggregator:
    """The averager of a plan, its state kept in the folder: weights, reports and, by the averager, the ledger.

    A round that was released when the server stopped is in the ledger: it is taken over, and no node asked again.
    """

    def __init__(self, folder: Path) -> None:
        self.plan, here = Plan.load(folder)
        averaging = self.plan.learner(folder).averaging
        assert averaging is not None
        self.folder = folder
        if (folder / GLOBAL).exists():
            averaging.restore(*_global(folder / GLOBAL, averaging.spec.size))
            averaging.require_booked()
        self.averager = averaging.averager
        while (report := self.averager.repeat()) is not None:
            self._keep(report)
        self.strategy = AveragerStrategy(
            self.averager,
            {int(number): node for number, node in here["nodes"].items()},
            settings=self.plan.fingerprint,
            patience=here["patience"],
            at_round=self._keep,
        )

    def _keep(self, report: RoundReport) -> None:
        """Write what came of the round; the weights last, since by them one sees what else is written."""
        _append(self.folder / ROUNDS, report.public())
        if report.operator is not None:
            operator = asdict(report.operator)
            operator["rejected"] = {str(node): reason for node, reason in report.operator.rejected.items()}
            _append(self.folder / OPERATOR, {"round": report.round} | operator)
        with whole_file(self.folder / GLOBAL) as partial, open(partial, "wb") as stream:
            np.savez(stream, weights=self.averager.weights, rounds=self.averager.rounds)


class LocalLearning:
    """A node's learning between two rounds.

    It plays the whole network, all of whose nodes learn from the same global weights, and sends its own node's update:
    in a simulated network, what other nodes do must come from somewhere. As long as every node joins every round, all
    play the very same network, and the federation learns what the same training in one process does.

    In mode "local" what it sends is released: it is booked in the node's own ledger, and kept. Asked again from the
    same weights, by a server that was stopped in between, the node sends the same again and books nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan, here = Plan.load(folder)
        self.node = int(here["node"])
        self.learner = self.plan.learner(folder)
        if (folder / FILE).exists():
            self.learner.restore(load(folder / FILE, training=True))
            self._require_booked()

    def learn(self, weights: Vector) -> Vector | NoisedUpdate:
        """The update of this node, after a round's rollouts."""
        learner, averaging = self.learner, self.averaging
        dp, ledger = averaging.averager.dp, averaging.averager.ledger
        question = f"{self.plan.fingerprint}-{hashlib.sha256(weights.tobytes()).hexdigest()[:32]}"
        if (answered := ledger.release(question)) is not None:
            return NoisedUpdate(answered.vector)
        ledger.require_room(dp)
        self._take_over(weights, averaging.rounds + 1)
        goal = learner.timesteps + self.plan.federation.period * self._rollout

        def stop_at_goal() -> None:
            if learner.timesteps >= goal:
                raise _RoundOver

        with suppress(_RoundOver):
            learner.learn(stop_at_goal, lambda: None)
        update = averaging.averager.update_of(self.node, averaging.spec.get_all(learner.model)[self.node])
        if isinstance(update, NoisedUpdate):
            ledger.charge(dp, Release(question, update.vector, dp.clip_norm, dp.noise_multiplier))
        self._save()
        return update

    def finish(self, weights: Vector) -> None:
        """Take over the final weights, and write the policy for playing: the sign that all is over."""
        self._take_over(weights, self.averaging.rounds)
        self._save()
        load(self.folder / FILE).for_playing().save(self.folder / POLICY_FILE, compressed=True)

    @property
    def averaging(self) -> Averaging:
        """What is shared, and how; global weights are the latest that came."""
        assert self.learner.averaging is not None
        return self.learner.averaging

    def _require_booked(self) -> None:
        """DpemError if the node has sent more than its ledger knows of."""
        averager = self.averaging.averager
        if averager.dp.mode == "local" and averager.rounds > averager.ledger.rounds:
            raise DpemError(
                f"this node has sent {averager.rounds} updates, and {str(averager.ledger.path)!r} books "
                f"{averager.ledger.rounds}: put the ledger back as it was, or begin anew in another folder"
            )

    def _take_over(self, weights: Vector, rounds: int) -> None:
        self.averaging.restore(rounds, weights)
        self.averaging.spec.set_all(self.learner.model, weights)

    @property
    def _rollout(self) -> int:
        return self.learner.total // (self.plan.rounds * self.plan.federation.period)

    def _save(self) -> None:
        self.learner.checkpoint({"curve": [], "seconds": 0.0}).save(self.folder / FILE)


class _RoundOver(Exception):
    """The node has learned as much as a round takes."""


def _learn(weights: Vector, settings: str, context: Context) -> Vector | NoisedUpdate:
    with one_thread():
        local = LocalLearning(Path(os.environ[FOLDER]))
        if settings != local.plan.fingerprint:
            raise DpemError("the server averages with other settings than this node was started with")
        return local.learn(weights)


def _finish(weights: Vector, context: Context) -> None:
    with one_thread():
        LocalLearning(Path(os.environ[FOLDER])).finish(weights)


server_app = make_server_app(_serve)
client_app = make_client_app(_learn, _finish)


def _global(path: Path, size: int) -> tuple[int, Vector]:
    """Rounds and weights that `Aggregator` wrote."""
    with reading("global weights", path), ArrayFile(path) as stored:
        return int(stored.read("rounds", (), "i")), stored.read("weights", (size,), np.float64)


class _Report(Part):
    round: int


class _Reports(Part):
    rounds: list[_Report]


def _append(path: Path, entry: dict[str, Any]) -> None:
    """Add what a round came to, unless the file has that round."""
    before = reports(path)
    if all(known["round"] != entry["round"] for known in before):
        write_json(path, {"rounds": [*before, entry]})


def reports(path: Path) -> list[dict[str, Any]]:
    """Of the rounds so far, in a file of them."""
    if not path.exists():
        return []
    with reading("reports", path):
        found = read_json(path)
        checked(_Reports, found, "it")
    known: list[dict[str, Any]] = found["rounds"]
    return known
