"""Federated averaging: rounds of sampling nodes and averaging what they send."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from dpem_agents.federated.accounting import Charge
from dpem_agents.federated.ledger import Ledger, Release
from dpem_agents.federated.mechanism import (
    FALSE_ALARM,
    NoisedUpdate,
    Randomness,
    clipped,
    length,
    longest_noised,
    node_update,
    noised_share,
    numbers,
    randomness,
)
from dpem_agents.federated.privacy import COVERS, NEIGHBOURS, DPConfig
from dpem_agents.federated.reports import OperatorDiagnostics, RoundReport
from dpem_agents.federated.spec import SharedSpec, Vector
from dpem_agents.federation import Aggregator
from dpem_env.support.errors import DpemError, require_one_of

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
    with entries that are no finite numbers then counts as zeros. So does, where nodes noise their own, one that is
    longer than clip and noise make an honest one but once in 10⁹: a node then moves the average by no more than that
    length. Median and trimmed mean bound no such thing: they need mode "off", where the usable updates alone are
    averaged.

    `weights` (d,) are the global ones, from `start` on, which must not come from nodes' data to be private.

    A program that may be stopped gives its `training` a name, and the ledger a file. The file then holds what rounds
    released, and after a restart rounds are taken over from it, at no cost, before others follow::

        averager = FederatedAverager(spec, dp, start=start, ledger=Ledger("ledger.json"), training="first")
        while averager.repeat():
            pass

    `start` may as well be the weights after so many `rounds` of it that the program has kept itself. Without a name
    rounds are charged, but their releases not kept.
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
        training: str | None = None,
        rounds: int = 0,
    ) -> None:
        require_one_of("aggregator", aggregator, get_args(Aggregator))
        if aggregator != "mean" and dp.mode != "off":
            raise DpemError(
                f"aggregator {aggregator!r} goes with mode 'off' only: noise is measured for the mean, which one node "
                "moves by no more than the clip over the expected cohort"
            )
        if not 0.0 < server_lr < math.inf:
            raise DpemError(f"server_lr is {server_lr!r}; expected a finite number above 0")
        weights = numbers(start, "start is").copy()
        if weights.shape != (spec.size,) or not np.isfinite(weights).all():
            raise DpemError(f"start has shape {weights.shape}; expected ({spec.size},), all finite")
        self.spec, self.dp, self.aggregator, self.server_lr = spec, dp, aggregator, server_lr
        self.weights = _frozen(weights)
        self.clip_norm = float(dp.clip_norm)
        self.ledger = Ledger() if ledger is None else ledger
        self.training, self.rounds = training, rounds
        self._cohort: frozenset[Hashable] | None = None

    @property
    def released(self) -> bool:
        """Whether the next round was released before a restart."""
        return self._released() is not None

    def sample(self, nodes: Iterable[Hashable]) -> list[Hashable]:
        """The nodes that join the next round, each with probability `sample_rate` and independently.

        Keep it to the aggregator and to them. BudgetExhausted if the round could not be released.
        """
        if self._cohort is not None:
            raise DpemError("the round is open already: aggregate what its cohort sent, if only {}")
        known = list(nodes)
        if len(set(known)) != len(known) or len(known) > self.dp.population:
            raise DpemError(f"there are {len(known)} nodes; expected different ones, {self.dp.population} at most")
        if self.released:
            raise DpemError(f"round {self.rounds + 1} was released before a restart: take it over by repeat()")
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

        The round is charged, and its release kept, before anything is handed out; if that fails, everything is as
        before, and what was drawn is forgotten.
        """
        if self._cohort is None:
            raise DpemError("no round is open: sample its nodes first, and aggregate once")
        self._require_noised(updates)
        usable, rejected = self._usable(updates)
        longer = sum(length(update) > self.clip_norm for update in usable)
        release = self._release(usable, longer)
        self.ledger.charge(self.dp, None if self.training is None else release)
        known_to_the_aggregator = self.dp.mode != "local" and len(usable) > 0
        diagnostics = OperatorDiagnostics(
            sampled=len(self._cohort),
            received=len(updates),
            rejected=rejected,
            clipped_share=longer / len(usable) if known_to_the_aggregator else None,
        )
        report = self._take_over(release, self.ledger.charges, diagnostics)
        return self.weights, report

    def repeat(self) -> RoundReport | None:
        """Take over the next round as it was released before a restart; None if it was not."""
        release = self._released()
        if release is None:
            return None
        if release.vector.shape != (self.spec.size,):
            raise DpemError(
                f"release {release.name!r} has shape {release.vector.shape}; expected ({self.spec.size},): it is of "
                "another training"
            )
        return self._take_over(release, self.ledger.charges_up_to(release.name), None)

    def require_booked(self) -> None:
        """DpemError unless the ledger agrees that there were so many rounds of this training, with this outcome.

        Rounds of a ledger without releases, of an earlier version, are taken for this training's.
        """
        if self.rounds == 0:
            return
        release = self.ledger.release(self._name(self.rounds))
        if release is None and self.rounds > self.ledger.unnamed:
            raise DpemError(
                f"{self.rounds} rounds of this training were released, which its privacy ledger does not book: put "
                f"back {str(self.ledger.path)!r} as it was, or begin anew in another folder"
            )
        if release is not None and not np.array_equal(release.vector, self.weights):
            raise DpemError(
                f"the weights after round {self.rounds} are not those that {str(self.ledger.path)!r} has booked: they "
                "are of another run; put together what belongs together, or begin anew in another folder"
            )

    def _name(self, number: int) -> str:
        """Of the release of that round of this training."""
        return f"{self.training}-{number}"

    def _released(self) -> Release | None:
        """The next round's, from before a restart."""
        return None if self.training is None else self.ledger.release(self._name(self.rounds + 1))

    def _release(self, usable: list[Vector], longer: int) -> Release:
        """What the round comes to: new global weights, and the clip of the next."""
        random = randomness(self.dp, "federated noise", self.ledger.rounds)
        weights, clip_norm = self.weights + self.server_lr * self._average(usable, random), self.clip_norm
        if self.dp.adaptive is not None:
            share = noised_share(self.dp, len(usable) - longer, longer, random)
            clip_norm = self.dp.adaptive.next_clip(clip_norm, share)
        noise = self.dp.average_multiplier(len(usable)) if self.dp.mode != "off" else 0.0
        return Release(self._name(self.rounds + 1), weights, clip_norm, noise)

    def _take_over(
        self, release: Release, charges: tuple[Charge, ...], diagnostics: OperatorDiagnostics | None
    ) -> RoundReport:
        """Go on from what a round released; returns its report."""
        report = self._report(release.noise, charges, diagnostics)
        self.weights, self.clip_norm = _frozen(release.vector), release.clip_norm
        self.rounds, self._cohort = self.rounds + 1, None
        return report

    def _average(self, usable: list[Vector], random: Randomness) -> Vector:
        """(d,) of the usable updates; under differential privacy with their noise."""
        if self.dp.mode == "local":  # clipped and noised by the nodes
            total: Vector = _rows(usable, self.spec.size).sum(axis=0)
            return total / self.dp.expected_cohort
        rows = _rows([clipped(update, self.clip_norm) for update in usable], self.spec.size)
        if self.dp.mode == "central":
            noise = random.normal(0.0, self.dp.update_multiplier * self.clip_norm, self.spec.size)
            total = rows.sum(axis=0) + noise
            return total / self.dp.expected_cohort
        if not usable:
            return np.zeros(self.spec.size)
        if self.aggregator == "median":
            return np.median(rows, axis=0)
        return trimmed_mean(rows) if self.aggregator == "trimmed_mean" else rows.mean(axis=0)

    def _usable(self, updates: Mapping[Hashable, ArrayLike | NoisedUpdate]) -> tuple[list[Vector], dict[Hashable, str]]:
        """Updates that can be summed, and why the others cannot."""
        usable, rejected = [], {}
        longest = longest_noised(self.dp, self.spec.size) if self.dp.mode == "local" else math.inf
        for node, update in updates.items():
            try:
                vector = numbers(update.vector if isinstance(update, NoisedUpdate) else update, "its update is")
            except DpemError as error:
                rejected[node] = f"{error}"
                continue
            if self._cohort is None or node not in self._cohort:
                rejected[node] = "it did not join this round"
            elif vector.shape != (self.spec.size,):
                rejected[node] = f"its update has shape {vector.shape} instead of ({self.spec.size},)"
            elif not math.isfinite(length(vector)):
                rejected[node] = "its update has entries or a length that are no finite numbers"
            elif length(vector) > longest:
                rejected[node] = (
                    f"its update has length {length(vector):.4g}; clip and noise make one longer than {longest:.4g} "
                    f"with a probability of {FALSE_ALARM:g}"
                )
            else:
                usable.append(vector)
        return usable, rejected

    def _require_noised(self, updates: Mapping[Hashable, ArrayLike | NoisedUpdate]) -> None:
        local = self.dp.mode == "local"
        for node, update in updates.items():
            if isinstance(update, NoisedUpdate) != local:
                expected = "one noised at its node" if local else "the plain difference of weights"
                raise DpemError(f"mode {self.dp.mode!r} expects of node {node!r} {expected}: what update_of returns")

    def _report(
        self, noise: float, charges: tuple[Charge, ...], diagnostics: OperatorDiagnostics | None
    ) -> RoundReport:
        dp = self.dp
        return RoundReport(
            round=sum(charge.rounds for charge in charges),
            mode=dp.mode,
            private=all(charge.private for charge in charges),
            neighbours=NEIGHBOURS[dp.mode],
            delta=dp.delta,
            accountant=dp.accountant,
            charges=charges,
            expected_cohort=dp.expected_cohort,
            clip_norm=self.clip_norm,
            noise_std=noise * self.clip_norm if noise else 0.0,
            noise_to_clip=noise * math.sqrt(self.spec.size),
            covers=COVERS if dp.mode != "off" else "nothing: no noise was added",
            operator=diagnostics,
        )


def trimmed_mean(rows: Vector) -> Vector:
    """(d,) from (n, d): per coordinate the mean without the k least and k greatest values (Yin et al., ICML 2018).

    k is `TRIMMED` of n, rounded up, as long as one value remains: one outlier among three is left out.
    """
    k = min(math.ceil(TRIMMED * len(rows)), (len(rows) - 1) // 2)
    mean: Vector = np.sort(rows, axis=0)[k : len(rows) - k].mean(axis=0)
    return mean


def _rows(vectors: list[Vector], size: int) -> Vector:
    return np.reshape(vectors, (len(vectors), size))


def _frozen(weights: Vector) -> Vector:
    weights.setflags(write=False)
    return weights
