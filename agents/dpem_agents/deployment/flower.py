"""Federated averaging over Flower: the averager as a strategy, a node's learning as a client app.

Flower carries messages, simulates nodes and deploys them. Who joins a round, clipping, noise and accounting stay the
`FederatedAverager`'s. To nodes go global weights and a fingerprint of the settings, from nodes come updates, and that
is all: no report, and no number of examples, since every node weighs the same.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from dpem_agents.federated.averaging import FederatedAverager
from dpem_agents.federated.mechanism import NoisedUpdate
from dpem_agents.federated.reports import RoundReport
from dpem_agents.federated.spec import Vector
from dpem_env.support.errors import DpemError

# Read while Flower and Ray are imported: they report to nobody unless told to.
for _switch, _off in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_switch, _off)

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import Strategy
except ImportError as error:
    raise DpemError(
        f"a deployed federation needs more than is installed ({error}): pip install 'dpem-env[flower]'"
    ) from None

Learn = Callable[[Vector, str, Context], Vector | NoisedUpdate]
Finish = Callable[[Vector, Context], None]
LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LOOKS = 1.0  # at who is connected


class AveragerStrategy(Strategy):
    """Rounds of a `FederatedAverager`; `nodes` are the names of all that may join, by Flower's numbers of them.

    A round begins once all nodes are connected, or after `patience` s with those that are, if any. It ends when the
    cohort has replied, or after `patience` s: nodes that are gone or failed then contribute zeros. Updates are summed
    in the order of `nodes`, so that the same updates make the same weights, whichever comes first.

    `settings` is sent along, for nodes to refuse if theirs are others; `at_round` is told of every round.
    """

    def __init__(
        self,
        averager: FederatedAverager,
        nodes: Mapping[int, Hashable],
        *,
        settings: str = "",
        patience: float = 600.0,
        at_round: Callable[[RoundReport], None] = lambda report: None,
    ) -> None:
        self.averager, self.nodes, self.settings, self.patience = averager, dict(nodes), settings, patience
        self.at_round = at_round

    def play(self, grid: Grid, rounds: int) -> None:
        """Play that many rounds; BudgetExhausted where privacy allows no further one."""
        if rounds > 0:
            self.start(grid, _weights(self.averager.weights), rounds, timeout=self.patience)

    def finish(self, grid: Grid) -> None:
        """Send the final weights to all that are connected, and wait until they have left, or for `patience` s."""
        grid.push_messages(self._messages(grid, MessageType.QUERY, _weights(self.averager.weights), "end", self.nodes))
        until = time.monotonic() + self.patience
        while self._connected(grid) and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample a cohort of all nodes, and send the global weights to those of it that are connected."""
        self._await(grid)
        cohort = set(self.averager.sample(self.nodes.values()))
        joining = {number: node for number, node in self.nodes.items() if node in cohort}
        return self._messages(grid, MessageType.TRAIN, arrays, str(server_round), joining)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average what came. Whatever a node sent instead of an update is rejected, and loses nobody else's."""
        received = {}
        for reply in replies:
            number = reply.metadata.src_node_id
            if reply.has_error():
                LOG.warning("round %s: node %s sent no update: %s", server_round, self.nodes.get(number), reply.error)
            else:
                received[number] = reply
        updates = {node: self._update(received[number]) for number, node in self.nodes.items() if number in received}
        weights, report = self.averager.aggregate(updates)
        self.at_round(report)
        return _weights(weights), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody: nodes tell nothing but updates."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing: nobody was asked."""
        return None

    def summary(self) -> None:
        """Log nothing: the averager's reports tell what there is."""

    def _messages(self, grid: Grid, kind: str, arrays: ArrayRecord, group: str, nodes: Iterable[int]) -> list[Message]:
        """What goes to those of the nodes that are connected; outdated once the round is over."""
        content = RecordDict({"weights": arrays, "about": ConfigRecord({"settings": self.settings})})
        connected = self._connected(grid)
        return [Message(content, n, kind, ttl=self.patience, group_id=group) for n in nodes if n in connected]

    def _connected(self, grid: Grid) -> set[int]:
        return self.nodes.keys() & set(grid.get_node_ids())

    def _await(self, grid: Grid) -> None:
        until = time.monotonic() + self.patience
        while len(connected := self._connected(grid)) < len(self.nodes):
            if connected and time.monotonic() > until:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _update(self, reply: Message) -> Any:
        """What the node sent, as the averager takes it; nothing it could use if it is no update of this mode."""
        local = self.averager.dp.mode == "local"
        vector: Any = None
        try:
            if bool(reply.content.config_records["about"]["noised"]) == local:
                vector = np.array(reply.content.array_records["update"]["update"].numpy(), dtype=np.float64)
        except Exception as problem:  # whatever a stranger's bytes make Flower and numpy raise
            LOG.warning("node %s sent no update: %s", self.nodes[reply.metadata.src_node_id], problem)
        return NoisedUpdate(vector) if local else vector


def make_server_app(serve: Callable[[Grid, Context], None]) -> ServerApp:
    """An aggregator that does this."""
    app = ServerApp()
    app.main()(serve)
    return app


def make_client_app(learn: Learn, finish: Finish = lambda weights, context: None) -> ClientApp:
    """A node: `learn` makes an update of global weights and the server's settings; `finish` gets the final weights."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        update = learn(_vector(message), str(message.content["about"]["settings"]), context)
        noised = isinstance(update, NoisedUpdate)
        vector = update.vector if isinstance(update, NoisedUpdate) else update
        sent = {"update": ArrayRecord({"update": Array(vector)}), "about": ConfigRecord({"noised": noised})}
        return Message(RecordDict(sent), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        finish(_vector(message), context)
        return Message(RecordDict(), reply_to=message)

    return app


def _weights(vector: Vector) -> ArrayRecord:
    return ArrayRecord({"weights": Array(np.asarray(vector))})


def _vector(message: Message) -> Vector:
    return np.asarray(message.content["weights"]["weights"].numpy(), dtype=np.float64)
