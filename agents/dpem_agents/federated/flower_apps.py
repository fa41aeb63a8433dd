"""What Flower runs in a deployment: `server_app` at the aggregator, `client_app` at a node.

Both read the folder they work in from the environment.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dpem_agents.federated.embedded import Averaging
from dpem_agents.federated.flower import AveragerStrategy, Context, Grid, make_client_app, make_server_app
from dpem_agents.federated.mechanism import NoisedUpdate
from dpem_agents.federated.plan import Plan
from dpem_agents.federated.reports import RoundReport
from dpem_agents.federated.spec import Vector
from dpem_agents.libraries import one_thread
from dpem_agents.ppo.checkpoint import FILE, POLICY_FILE, load
from dpem_env.errors import DpemError
from dpem_env.files import whole_file, write_json

FOLDER = "DPEM_FEDERATION"  # the environment variable that names it
GLOBAL = "global.npz"  # the aggregator's weights, and how many rounds made them
ROUNDS, OPERATOR = "rounds.json", "operator-only.json"  # reports of all rounds: to publish, and never to


def _serve(grid: Grid, context: Context) -> None:
    """Play the rounds that are left; whatever ends them, the nodes are told the final weights and leave."""
    with one_thread():
        aggregator = Aggregator(Path(os.environ[FOLDER]))
    try:
        aggregator.strategy.play(grid, aggregator.plan.rounds - aggregator.rounds)
    finally:
        aggregator.strategy.finish(grid)


class Aggregator:
    """The averager of a plan, its state kept in the folder: weights, reports and, by the averager, the ledger."""

    def __init__(self, folder: Path) -> None:
        self.plan, here = Plan.load(folder)
        averaging = self.plan.learner(folder, here["data"]).averaging
        assert averaging is not None
        self.folder, self.rounds = folder, 0
        if (folder / GLOBAL).exists():
            with np.load(folder / GLOBAL) as stored:
                self.rounds = int(stored["rounds"])
                averaging.restore(self.rounds, stored["weights"])
        self.averager = averaging.averager
        self.strategy = AveragerStrategy(
            self.averager,
            {int(number): node for number, node in here["nodes"].items()},
            settings=self.plan.fingerprint,
            patience=here["patience"],
            at_round=self._keep,
        )

    def _keep(self, report: RoundReport) -> None:
        self.rounds += 1
        with whole_file(self.folder / GLOBAL) as partial, open(partial, "wb") as stream:
            np.savez(stream, weights=self.averager.weights, rounds=self.rounds)
        operator = asdict(report.operator)
        operator["rejected"] = {str(node): reason for node, reason in report.operator.rejected.items()}
        _append(self.folder / ROUNDS, report.public())
        _append(self.folder / OPERATOR, {"round": report.round} | operator)


class LocalLearning:
    """A node's learning between two rounds.

    It plays the whole network, all of whose nodes learn from the same global weights, and sends its own node's update:
    in a simulated network, what other nodes do must come from somewhere. As long as every node joins every round, all
    play the very same network, and the federation learns what the same training in one process does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan, here = Plan.load(folder)
        self.node = int(here["node"])
        self.learner = self.plan.learner(folder, here["data"])
        if (folder / FILE).exists():
            self.learner.restore(load(folder / FILE, training=True))

    def learn(self, weights: Vector) -> Vector | NoisedUpdate:
        """The update of this node, after a round's rollouts. In mode "local" the node books it itself, before."""
        learner, averaging = self.learner, self.averaging
        dp, ledger = averaging.averager.dp, averaging.averager.ledger
        ledger.require_room(dp)
        self._take_over(weights, averaging.rounds + 1)
        goal = learner.timesteps + self.plan.federation.period * self._rollout

        def stop_at_goal() -> None:
            if learner.timesteps >= goal:
                raise _RoundOver

        with suppress(_RoundOver):
            learner.learn(stop_at_goal, lambda: None)
        self._save()
        update = averaging.averager.update_of(self.node, averaging.spec.get_all(learner.model)[self.node])
        if dp.mode == "local":
            ledger.charge(dp)
        return update

    def finish(self, weights: Vector) -> None:
        """Take over the final weights, and write the policy for playing: the sign that all is over."""
        self._take_over(weights, self.averaging.rounds)
        self._save()
        load(self.folder / FILE).for_playing().save(self.folder / POLICY_FILE)

    @property
    def averaging(self) -> Averaging:
        """What is shared, and how; global weights are the latest that came."""
        assert self.learner.averaging is not None
        return self.learner.averaging

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


def _append(path: Path, entry: dict[str, Any]) -> None:
    before = json.loads(path.read_text(encoding="utf-8"))["rounds"] if path.exists() else []
    write_json(path, {"rounds": [*before, entry]})
