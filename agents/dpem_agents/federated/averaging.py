"""Federated averaging: rounds of sampling nodes and averaging what they send."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from dpem_agents.federated.ledger import Ledger
from dpem_agents.federated.mechanism import NoisedUpdate, clipped, length, node_update, noised_share, randomness
from dpem_agents.federated.privacy import NEIGHBOURS, DPConfig
from dpem_agents.federated.reports import OperatorDiagnostics, RoundReport
from dpem_agents.federated.spec import SharedSpec, Vector
from dpem_env.errors import DpemError, require_one_of

Aggregator = Literal["mean", "trimmed_mean", "median"]
TRIMMED = 0.2  # share of the values of a coordinate that a trimmed mean leaves out at each end


class FederatedAverager:
    """The global weights, and the rounds that move them: `sample`, then `aggregate`, by turns.

    ::

        averager = FederatedAverager(spec, dp, start=spec.get_all(model).mean(axis=0))
        cohort = averager.sample(range(nodes))
        ...  # the cohort learns from averager.weights
        local = spec.get_all(model)
        weights, report = averager.aggregate({node: averager.update_of(node, local[node]) for node in cohort})

    Under differential privacy every node weighs the same and the sum is divided by the expected cohort, whoever
    replies: so one node moves the average by no more than the clip over that number. An update of the wrong shape or
    with entries that are no finite numbers then counts as zeros. Median and trimmed mean bound no such thing: they need
    mode "off", where the usable updates alone are averaged.

    `weights` (d,) are the global ones, from `start` on, which must not come from nodes' data to be private. To go on
    after a restart give it the last weights as `start`, the ledger's file and, where the clip adapts, the last
    `clip_norm` in the configuration.
    """

    def __init__(
        self,
        spec: SharedSpec,
        dp: DPConfig,
        *,
        start: ArrayLike,
        aggregator: Aggregator = "mean",
        server_lr: float = 1.0,
        ledger: Ledger | None = None,
    ) -> None:
        require_one_of("aggregator", aggregator, get_args(Aggregator))
        if aggregator != "mean" and dp.mode != "off":
            raise DpemError(
                f"aggregator {aggregator!r} goes with mode 'off' only: noise is measured for the mean, which one node "
                "moves by no more than the clip over the expected cohort"
            )
        if not 0.0 < server_lr < math.inf:
            raise DpemError(f"server_lr is {server_lr!r}; expected a finite number above 0")
        weights = np.array(start, dtype=np.float64)
        if weights.shape != (spec.size,) or not np.isfinite(weights).all():
            raise DpemError(f"start has shape {weights.shape}; expected ({spec.size},), all finite")
        self.spec, self.dp, self.aggregator, self.server_lr = spec, dp, aggregator, server_lr
        self.weights = _frozen(weights)
        self.clip_norm = float(dp.clip_norm)
        self.ledger = Ledger() if ledger is None else ledger
        self._cohort: frozenset[Hashable] | None = None

    def sample(self, nodes: Iterable[Hashable]) -> list[Hashable]:
        """The nodes that join the next round, each with probability `sample_rate` and independently.

        Keep it to the aggregator and to them. BudgetExhausted if the round could not be released.
        """
        if self._cohort is not None:
            raise DpemError("the round is open already: aggregate what its cohort sent, if only {}")
        known = list(nodes)
        if len(set(known)) != len(known) or len(known) > self.dp.population:
            raise DpemError(f"there are {len(known)} nodes; expected different ones, {self.dp.population} at most")
        self.ledger.require_room(self.dp)
        draws = randomness(self.dp, "federated cohort", self.ledger.rounds).random(len(known))
        cohort = [node for node, draw in zip(known, draws, strict=True) if draw < self.dp.sample_rate]
        self._cohort = frozenset(cohort)
        return cohort

    def update_of(self, node: Hashable, local: ArrayLike) -> Vector | NoisedUpdate:
        """What a node sends, given its shared weights after local learning."""
        return node_update(self.dp, local, self.weights, self.ledger.rounds, node)

    def aggregate(self, updates: Mapping[Hashable, ArrayLike | NoisedUpdate]) -> tuple[Vector, RoundReport]:
        """New global weights from the updates (d,) of nodes in the cohort, once per round.

        The round is charged before anything is released; if that fails, everything is as before.
        """
        if self._cohort is None:
            raise DpemError("no round is open: sample its nodes first, and aggregate once")
        self._require_noised(updates)
        usable, rejected = self._usable(updates)
        finished = self.ledger.rounds
        self.ledger.charge(self.dp)
        longer = sum(length(update) > self.clip_norm for update in usable)
        known_to_the_aggregator = self.dp.mode != "local" and len(usable) > 0
        report = self._report(
            len(usable),
            OperatorDiagnostics(
                sampled=len(self._cohort),
                received=len(updates),
                rejected=rejected,
                clipped_share=longer / len(usable) if known_to_the_aggregator else None,
            ),
        )
        random = randomness(self.dp, "federated noise", finished)
        self.weights = _frozen(self.weights + self.server_lr * self._average(usable, random))
        if self.dp.adaptive is not None:
            share = noised_share(self.dp, len(usable) - longer, longer, random)
            self.clip_norm = self.dp.adaptive.next_clip(self.clip_norm, share)
        self._cohort = None
        return self.weights, report

    def _average(self, usable: list[Vector], random: np.random.Generator) -> Vector:
        """(d,) of the usable updates; under differential privacy with their noise."""
        if self.dp.mode == "local":  # clipped and noised by the nodes
            return _rows(usable, self.spec.size).sum(axis=0) / self.dp.expected_cohort
        rows = _rows([clipped(update, self.clip_norm) for update in usable], self.spec.size)
        if self.dp.mode == "central":
            noise = random.normal(0.0, self.dp.update_multiplier * self.clip_norm, self.spec.size)
            return (rows.sum(axis=0) + noise) / self.dp.expected_cohort
        if not usable:
            return np.zeros(self.spec.size)
        if self.aggregator == "median":
            return np.median(rows, axis=0)
        return trimmed_mean(rows) if self.aggregator == "trimmed_mean" else rows.mean(axis=0)

    def _usable(self, updates: Mapping[Hashable, ArrayLike | NoisedUpdate]) -> tuple[list[Vector], dict[Hashable, str]]:
        """Updates that can be summed, and why the others cannot."""
        usable, rejected = [], {}
        for node, update in updates.items():
            try:
                vector = np.asarray(update.vector if isinstance(update, NoisedUpdate) else update, dtype=np.float64)
            except (TypeError, ValueError):
                rejected[node] = "its update is no vector of numbers"
                continue
            if self._cohort is None or node not in self._cohort:
                rejected[node] = "it did not join this round"
            elif vector.shape != (self.spec.size,):
                rejected[node] = f"its update has shape {vector.shape} instead of ({self.spec.size},)"
            elif not math.isfinite(length(vector)):
                rejected[node] = "its update has entries or a length that are no finite numbers"
            else:
                usable.append(vector)
        return usable, rejected

    def _require_noised(self, updates: Mapping[Hashable, ArrayLike | NoisedUpdate]) -> None:
        local = self.dp.mode == "local"
        for node, update in updates.items():
            if isinstance(update, NoisedUpdate) != local:
                expected = "one noised at its node" if local else "the plain difference of weights"
                raise DpemError(f"mode {self.dp.mode!r} expects of node {node!r} {expected}: what update_of returns")

    def _report(self, usable: int, diagnostics: OperatorDiagnostics) -> RoundReport:
        dp = self.dp
        multiplier = dp.average_multiplier(usable)
        return RoundReport(
            round=self.ledger.rounds,
            mode=dp.mode,
            private=self.ledger.private,
            neighbours=NEIGHBOURS[dp.mode],
            delta=dp.delta,
            accountant=dp.accountant,
            charges=self.ledger.charges,
            expected_cohort=dp.expected_cohort,
            clip_norm=self.clip_norm,
            noise_std=multiplier * self.clip_norm if dp.mode != "off" else 0.0,
            noise_to_clip=multiplier * math.sqrt(self.spec.size),
            operator=diagnostics,
        )


def trimmed_mean(rows: Vector) -> Vector:
    """(d,) from (n, d): per coordinate the mean without the k least and k greatest values (Yin et al., ICML 2018).

    k is `TRIMMED` of n, rounded up, as long as one value remains: one outlier among three is left out.
    """
    k = min(math.ceil(TRIMMED * len(rows)), (len(rows) - 1) // 2)
    return np.sort(rows, axis=0)[k : len(rows) - k].mean(axis=0)


def _rows(vectors: list[Vector], size: int) -> Vector:
    return np.reshape(vectors, (len(vectors), size))


def _frozen(weights: Vector) -> Vector:
    weights.setflags(write=False)
    return weights
