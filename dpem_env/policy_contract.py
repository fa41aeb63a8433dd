"""What is promised of every policy and forecaster, and checks that take a moment: `check_policy`, `check_forecaster`.

A decision has an integer for every node; none that the masks forbid. A policy decides the same whenever it is given
the same seed and shown the same. A local one decides for each node from what that node sees, and from nothing else but,
if it is hybrid, a controller's advice. A forecaster forecasts the same whenever it is told the same; unless it is
clairvoyant, for each node from that node's requests alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.demand.forecast import Forecaster, NewRequests, get_forecaster
from dpem_env.envs.decisions import require_decision
from dpem_env.envs.forecasts import Forecasts
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.policies import Centralized, CentralPolicy, Decision, HybridPolicy, Policy, get_policy
from dpem_env.scenarios import Scenario, Split
from dpem_env.support.errors import ContractError, PolicyError
from dpem_env.support.own_code import blamed

SLOTS = 12  # that are played
FORECAST_SLOTS = 40  # that are forecast: requests are few
STRAYING = 0.3  # share of nodes that do something else than was decided, so that something happens


def check_policy(
    policy: str | Policy | type | Callable[..., Any],
    scenario: str | Scenario = "mesh20-v0",
    *,
    split: Split = "train",
    forecaster: Any = None,
    called: str = "the policy",
) -> None:
    """Raise ContractError at the first promise that a policy breaks, and say what was seen.

    policy: as `dpem_env.policies.get_policy` takes it; it is played, so what it remembers is of the check afterwards.
    scenario: where it is played, the beginning of the first episode of the `split`.
    forecaster: of the observations (default: the policy's own).
    """
    with blamed(called, ContractError):
        made = get_policy(policy)
        rule = made.rule if isinstance(made, Centralized) else made
        trial = _Trial(called, rule, scenarios.get(scenario), split, forecaster or rule.forecaster)
        if isinstance(rule, CentralPolicy):
            trial.compare(trial.play(), trial.play())
        else:
            _check_of_nodes(trial)


class _Shown(NamedTuple):
    """What was decided on in a slot; of a central policy only how it was decided."""

    observations: NDArray[np.float32]  # (N, F)
    masks: NDArray[np.int8]  # (N, actions)
    decision: Decision
    advice: Any  # of a hybrid policy


class _Trial(NamedTuple):
    """A policy and the episode that it is tried on."""

    called: str
    policy: Policy
    scenario: Scenario
    split: Split
    forecaster: Any

    def play(self) -> list[_Shown]:
        """The first slots of the episode, some nodes straying, by the same draws every time."""
        session = self.session()
        rng = np.random.default_rng(0)
        played: list[_Shown] = []
        self.begin(session)
        while not session.done and len(played) < SLOTS:
            shown: Any
            advice = session.advice(self.policy) if isinstance(self.policy, HybridPolicy) else None
            if session.nodes_decide:
                observations, masks = (part[0] for part in session.look())
                shown = session.observer.table.read(observations)
            else:
                shown = session.view()
                observations, masks = shown.observations.matrix, shown.masks
            before = observations.copy(), masks.copy()
            decision = self.decide(shown, masks, advice)
            for name, array, kept in zip(("observations", "masks"), (observations, masks), before, strict=True):
                if not np.array_equal(array, kept):
                    raise self.broken(len(played), f"writes into the {name} it is shown; copy them first")
            self.require_legal(len(played), decision, masks)
            played.append(_Shown(observations, masks, decision, advice))
            straying = rng.random(len(masks)) < STRAYING
            other = (rng.random(masks.shape) * masks).argmax(axis=1)
            session.step(np.where(straying, other, decision.action), decision.route)
        return played

    def session(self) -> Session:
        """One in which the policy can play."""
        return Session.of(self.policy, self.scenario, delay=0.0, forecaster=self.forecaster, split=self.split)

    def begin(self, session: Session) -> None:
        """Begin the episode."""
        seeds = episode_seeds(self.scenario, self.split, 0)
        session.begin(seeds)
        self.policy.reset(self.scenario, session.network, seeds.demand)

    def decide(self, shown: Any, masks: NDArray[np.int8], advice: Any) -> Decision:
        """What the policy decides, of the right form."""
        if isinstance(self.policy, CentralPolicy):
            decision = self.policy.act(shown)
        elif isinstance(self.policy, HybridPolicy):
            decision = self.policy.act(shown, masks, advice)
        else:
            decision = self.policy.act(shown, masks)
        return require_decision(decision, len(masks), self.called)

    def require_legal(self, slot: int, decision: Decision, masks: NDArray[np.int8]) -> None:
        """ContractError for an action that a mask forbids."""
        actions = masks.shape[1]
        for node, action in enumerate(decision.action.tolist()):
            if not 0 <= action < actions:
                raise self.broken(slot, f"decides action {action} for node {node}; expected 0 to {actions - 1}")
            if masks[node, action] != 1:
                legal = np.flatnonzero(masks[node])
                some = ", ".join(map(str, legal[:4])) + (", …" if len(legal) > 4 else "")
                raise self.broken(slot, f"decides action {action} for node {node}, whose mask allows {some} only")

    def compare(self, first: Sequence[_Shown], second: Sequence[_Shown]) -> None:
        """ContractError where the same was decided otherwise the second time."""
        for slot, (one, other) in enumerate(zip(first, second, strict=True)):
            for node in np.flatnonzero(one.decision.action != other.decision.action)[:1]:
                found = f"action {one.decision.action[node]} for node {node}, then {other.decision.action[node]}"
                more = "draw from numpy.random.default_rng(seed), made in reset()"
                raise self.broken(slot, f"decides {found}, with the same seed and the same shown; {more}")

    def broken(self, slot: int, what: str) -> ContractError:
        """The error."""
        return ContractError(f"{self.called}, slot {slot} of {self.scenario.name}: {what}")


def _check_of_nodes(trial: _Trial) -> None:
    """What was seen is shown again: as it was, then with other rows in place of those of about half of the nodes."""
    shown = trial.play()
    session = trial.session()
    table, rng = session.observer.table, np.random.default_rng(1)

    def again(own: NDArray[np.bool_]) -> list[_Shown]:
        trial.begin(session)
        found = []
        for each in shown:
            other = shown[rng.integers(len(shown))]
            rows = np.where(own, np.arange(len(own)), rng.permutation(len(own)))
            observations = np.where(own[:, None], each.observations, other.observations[rows])
            masks = np.where(own[:, None], each.masks, other.masks[rows])
            decision = trial.decide(table.read(observations), masks, each.advice)
            found.append(_Shown(observations, masks, decision, each.advice))
        return found

    nodes = len(shown[0].masks)
    trial.compare(shown, again(np.ones(nodes, dtype=np.bool_)))
    half = rng.permutation(nodes) < nodes // 2
    for own in (half, ~half):
        for slot, (was, now) in enumerate(zip(shown, again(own), strict=True)):
            changed = own & (was.decision.action != now.decision.action)
            for node in np.flatnonzero(changed)[:1]:
                found = f"action {was.decision.action[node]} for node {node}, but {now.decision.action[node]} when only"
                raise trial.broken(slot, f"decides {found} rows of other nodes differ; row i may depend on row i alone")


def check_forecaster(
    forecaster: str | Forecaster | type,
    scenario: str | Scenario = "mesh20-v0",
    *,
    split: Split = "train",
    called: str = "the forecaster",
) -> None:
    """Raise ContractError at the first promise that a forecaster breaks, and say what was seen.

    forecaster: as `dpem_env.demand.forecast.get_forecaster` takes it, but None; it is told of requests, so what it
    remembers is of the check afterwards.
    scenario: whose requests they are, those of the first episode of the `split`.
    """
    chosen = scenarios.get(scenario)
    with blamed(called, ContractError):
        made = get_forecaster(forecaster)
        if made is None:
            raise ContractError(f"{called} makes no forecasts")
        session = Session(chosen, split=split)
        session.begin(episode_seeds(chosen, split, 0))
        everyone = np.ones(session.num_nodes, dtype=np.bool_)
        try:
            first = _forecasts(made, session, everyone)
        except PolicyError as error:
            raise ContractError(f"{called}: {error}") from None
        where = f"{called}, {chosen.name}"
        if not np.array_equal(first, _forecasts(made, session, everyone)):
            raise ContractError(
                f"{where}: forecasts otherwise when it is told the same again; forget everything in reset()"
            )
        half = np.random.default_rng(0).permutation(session.num_nodes) < session.num_nodes // 2
        for own in (half, ~half) if not made.clairvoyant else ():
            changed = (first != _forecasts(made, session, own)).any(axis=(0, 2, 3)) & own
            for node in np.flatnonzero(changed)[:1]:
                raise ContractError(
                    f"{where}: forecasts otherwise for node {node} when others make no requests; a node's forecast may "
                    "depend on its own requests alone"
                )


def _forecasts(forecaster: Forecaster, session: Session, asking: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(slots, N, D, H) what is forecast at the beginning of an episode in which only some nodes make requests."""
    forecasts = Forecasts(session.scenario, forecaster, 1)
    forecasts.begin([each for each in session.simulator.episodes if each is not None])
    found: list[Any] = []
    for slot in range(min(FORECAST_SLOTS, session.slots)):
        told = session.new_requests(slot)
        kept = asking[told.source]
        forecaster.observe(NewRequests(slot, *(part[kept] for part in list(vars(told).values())[1:])))
        found.append(forecasts.predict())
    return np.concatenate(found)
