"""Training of recurrent forecasters, each node's on that node's own history: nothing passes between nodes.

Each node has its own loss, gradient clipping and stopping: it keeps the weights that did best on the last tenth of its
history. Adam works entry by entry, so nodes share nothing there either. In a federation they do: now and then weights,
never counts or scales, are averaged under differential privacy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_agents.checkpoints import Arrays
from dpem_agents.federated.embedded import Averaging, training_name
from dpem_agents.federated.ledger import BudgetExhausted, Ledger
from dpem_agents.federation import Federation
from dpem_agents.forecasters.cells import Batch, clip, initial, loss
from dpem_agents.forecasters.checkpoint import GATES, Checkpoint
from dpem_agents.forecasters.history import History, draw_history, steps_ahead
from dpem_agents.libraries import one_thread, pytorch
from dpem_env.report.tables import progress
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import require_one_of
from dpem_env.support.files import make_writable, sole_writer
from dpem_env.support.seeding import generator

VALIDATION = 0.1  # of the history, its end
CHUNK = 100  # slots that gradients flow back through
BATCH = 8  # segments of the history learned from at once
CHECKS = 4  # validations per epoch


def train_forecasters(
    scenario: Scenario,
    topology_seeds: Sequence[int],
    *,
    hours: float = 24.0,
    cell: str = "gru",
    hidden: int = 8,
    epochs: float = 3.0,
    learning_rate: float = 0.03,
    seed: int = 0,
    federation: Federation | None = None,
    ledgers: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """Networks for the nodes of these topologies, each from `hours` simulated hours of its own requests.

    With a `federation`, the nodes of a topology average what they share; the privacy of each topology is booked in a
    file ledger-SEED.json of its own in the folder `ledgers`, with what rounds released. The same call again, whatever
    has stopped it, learns the same from these releases and is not charged for them. Another is charged on top, and
    BudgetExhausted raised, with what has been learned by then, where that is too much. The ε there is of these releases
    alone: a checkpoint holds each node's own weights, counts and scales without noise.
    Ctrl-C ends training: `Interrupted` has what was learned by then.
    """
    require_one_of("cell", cell, tuple(GATES))
    pytorch()  # complain before any work is done
    horizon = steps_ahead(scenario)
    topologies: list[Arrays] = []

    def learned() -> Checkpoint:
        return Checkpoint(cell, scenario.name, scenario.hash, horizon, hidden, tuple(topologies))

    given: dict[str, Any] = {"scenario": scenario.hash, "hours": hours, "cell": cell, "hidden": hidden}
    given |= {"epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    if ledgers is not None:
        make_writable(Path(ledgers))
    with nullcontext() if ledgers is None else sole_writer(ledgers), progress() as bar:
        booked = {seed: None if ledgers is None else Path(ledgers) / f"ledger-{seed}.json" for seed in topology_seeds}
        for ledger in booked.values() if federation is not None else ():
            Ledger(ledger)  # complain of any before the first topology is learned
        try:
            for topology_seed in topology_seeds:
                name = f"{cell} of {scenario.name}, topology {topology_seed}"
                task = bar.add_task(name, total=None)
                history = draw_history(scenario, topology_seed, hours)
                training = Training(history, cell, hidden, horizon, scenario.episode.slots, learning_rate, seed)
                if federation is not None:
                    settings = given | {"topology": topology_seed, "federation": asdict(federation)}
                    training.federate(federation, epochs, booked[topology_seed], training_name(settings))
                try:
                    for done, total in training.run(epochs):
                        told = name if training.averaging is None else f"{name}, {training.averaging.told()}"
                        bar.update(task, completed=done, total=total, description=told)
                finally:
                    topologies.append(training.best())
        except KeyboardInterrupt:
            if not topologies:
                raise
            raise Interrupted(learned()) from None
        except BudgetExhausted as exhausted:
            exhausted.learned = learned()
            raise
    return learned()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was learned until then."""

    def __init__(self, learned: Checkpoint) -> None:
        super().__init__()
        self.learned = learned


class Training:
    """Training of the nodes of one topology on segments of their history, each as long as an episode.

    A segment begins as an episode does, with a hidden state that has seen nothing.
    """

    def __init__(
        self,
        history: History,
        cell: str,
        hidden: int,
        horizon: int,
        episode: int,
        learning_rate: float = 0.03,
        seed: int = 0,
    ) -> None:
        self.history, self.cell, self.horizon = history, cell, horizon
        self.segment = min(max(episode, CHUNK), 10 * CHUNK)
        history.require(2 * self.segment + horizon)
        starts = np.arange(0, len(history.counts) - self.segment - horizon + 1, self.segment)
        kept_back = max(round(VALIDATION * len(starts)), 1)
        self.validation, self.training = starts[-kept_back:], starts[:-kept_back]
        # What a node freezes with its weights is of the part of its history that it learns from, too.
        learned_from = History(history.counts[: self.validation[0]], history.peers)
        self.scale = learned_from.scale()
        self.size = _size(self.scale, history.peers)
        self.learning_rate = learning_rate
        self._draws = generator("forecaster training", seed)
        torch = pytorch()
        weights = initial(cell, hidden, horizon, len(self.scale), self._draws)
        self.weights = {name: torch.from_numpy(array).requires_grad_() for name, array in weights.items()}
        self._optimizer = torch.optim.Adam(self.weights.values(), lr=learning_rate)
        self.lowest = np.full(len(self.scale), np.inf)  # each node's lowest loss on the end of its history
        self._best = {name: array.copy() for name, array in weights.items()}
        self.averaging: Averaging | None = None

    def federate(
        self, federation: Federation, epochs: float, ledger: Path | None = None, name: str | None = None
    ) -> None:
        """Have nodes average in the run of so many epochs, by that name in the privacy ledger."""
        rounds = federation.rounds(self._batches(epochs), "batches", "learn from more hours, or for more epochs")
        self.averaging = Averaging(federation, self.weights, rounds, ledger, name)

    def run(self, epochs: float) -> Iterator[tuple[int, int]]:
        """Learn, averaging now and then in a federation; yields batches done and batches in all."""
        per_epoch, total = self._per_epoch, self._batches(epochs)
        check = max(per_epoch // CHECKS, 1)
        order: list[NDArray[np.int64]] = []
        with one_thread():
            self._keep_the_better()
            for done in range(1, total + 1):
                for group in self._optimizer.param_groups:  # falls to zero (cosine; Loshchilov & Hutter 2017, eq. 5)
                    group["lr"] = 0.5 * self.learning_rate * (1.0 + math.cos(math.pi * (done - 1) / total))
                order = order or np.array_split(self._draws.permutation(self.training), per_epoch)
                for node_losses in self._losses(order.pop()):
                    self._optimizer.zero_grad()
                    node_losses.sum().backward()
                    clip(self.weights)
                    self._optimizer.step()
                if self.averaging is not None and done % self.averaging.federation.period == 0:
                    self.averaging.average()
                if done % check == 0 or done == total:
                    self._keep_the_better()
                yield done, total

    def best(self) -> Arrays:
        """Arrays of a checkpoint, with every node's best weights so far, in half precision: there are many nodes."""
        own = {"peers": self.history.peers, "scale": self.scale, "size": self.size}
        halved = {name: array.astype(np.float16) for name, array in self._best.items()}
        return {name: array.copy() for name, array in own.items()} | halved

    @property
    def _per_epoch(self) -> int:
        return math.ceil(len(self.training) / BATCH)

    def _batches(self, epochs: float) -> int:
        return max(round(epochs * self._per_epoch), 1)

    def _losses(self, starts: NDArray[np.int64]) -> Iterator[Any]:
        """(N,) each node's loss, chunk by chunk of the segments; the hidden state goes on, gradients do not."""
        state = None
        for low in range(0, self.segment, CHUNK):
            stop = min(low + CHUNK, self.segment) + self.horizon
            window = np.stack([self.history.counts[start + low : start + stop] for start in starts])
            batch = Batch(window, self.scale, self.size, self.horizon)
            node_losses, state = loss(self.cell, self.weights, batch, state)
            yield node_losses

    def _keep_the_better(self) -> None:
        losses = np.zeros(len(self.lowest))
        with pytorch().no_grad():
            for starts in np.array_split(self.validation, math.ceil(len(self.validation) / BATCH)):
                losses += len(starts) * sum(node_losses.double().numpy() for node_losses in self._losses(starts))
        better = losses < self.lowest
        self.lowest[better] = losses[better]
        for name, weight in self.weights.items():
            self._best[name][better] = weight.detach().numpy()[better]


def _size(scale: NDArray[np.float32], peers: NDArray[np.int32]) -> NDArray[np.float32]:
    """(N, D) how many standard deviations the logarithm of a pair's scale lies above the mean over its node's pairs."""
    real = peers >= 0
    number = real.sum(axis=1, keepdims=True).clip(1)
    logarithm = np.log(np.where(real, scale, 1.0))
    above = np.where(real, logarithm - logarithm.sum(axis=1, keepdims=True) / number, 0.0)
    deviation = np.sqrt((above**2).sum(axis=1, keepdims=True) / number)
    size: NDArray[np.float32] = (above / deviation.clip(0.1)).astype(np.float32)
    return size
