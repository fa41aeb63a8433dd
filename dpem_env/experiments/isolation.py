"""Decisions made again by agents in processes of their own, each of which is told only what its agent may know.

An episode is played again as its log has it, and before every slot some of the agents are asked what they decide. An
agent is a node of a local or hybrid policy, or a controller. It lives in a fresh process with a policy object of its
own, which is told what `reset` tells every policy, and then slot by slot: a node its own row of observations and masks,
a controller its view. A policy that wants a row for every node is shown the agent's own row in all of them. A node's
forecaster lives there too, and is told that node's requests alone.

So no agent can know what another one sees, whatever it computes or keeps in memory, and what it decides as logged it
has decided without. What is not shown: that a policy uses nothing else it could find out, such as the demand that
follows from the seed it is reset with (`Found.seeded` says whether that changes anything), or files, such as the log
itself. That takes reading its code.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand.forecast import Forecaster, ForecastSetting, NewRequests, get_forecaster
from dpem_env.envs.decisions import require_decision
from dpem_env.envs.session import Session
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.workers import WorkItem, one_thread
from dpem_env.logs.recorder import EpisodeLog, decision_of
from dpem_env.network.network import Network
from dpem_env.observations.features import FeatureTable, Observations, chosen_news
from dpem_env.policies import CentralPolicy, Decision, HybridPolicy, LocalPolicy, NetworkView, Policy
from dpem_env.scenarios import Scenario
from dpem_env.support.console import uninterrupted
from dpem_env.support.errors import DpemError, DpemWarning, PolicyError
from dpem_env.support.own_code import describe
from dpem_env.support.seeding import SEEDS

DECIDED = ("action", "route", "condition", "fallback")  # by nodes
ORDERED = (*DECIDED, "priority")  # by controllers


@dataclass
class Found:
    """What came of it."""

    difference: str | None = None  # the first decision or forecast that came out otherwise, in words
    seeded: bool = False  # whether another seed to reset with changed a decision
    asked: int = 0  # decisions that were compared


@dataclass
class Asking:
    """Agents in their processes, the log that says what they have decided, and until which slot they are asked."""

    agents: Sequence[Process]
    log: EpisodeLog
    slots: int
    found: Found = field(default_factory=Found)
    slot: int = 0

    @property
    def on(self) -> bool:
        """Whether agents are still to be asked."""
        return self.slot < self.slots and self.found.difference is None

    def begin(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Tell every agent of the episode; one that is `shifted` of another seed."""
        for agent in self.agents:
            agent.ask("reset", scenario, network, (seed + agent.shifted) % SEEDS)

    def compare(self, ask: Callable[[Process], Any]) -> Decision:
        """Ask every agent, and return what the log has."""
        logged = decision_of(self.log.rows[self.slot])
        for agent in self.agents if self.on else ():
            for name, given in ask(agent).items():
                kept = _part(logged, name, agent.node)
                if np.array_equal(given, kept):
                    continue
                if agent.shifted:
                    self.found.seeded = True
                elif self.found.difference is None:
                    told = f"{name} {given.tolist()} by itself, {kept.tolist()} in the log"
                    self.found.difference = f"slot {self.slot}: {agent.called} decides {told}"
            self.found.asked += not agent.shifted
        self.slot += 1
        return logged


class Asked:
    """What all policies have in common whose agents are asked."""

    def __init__(self, asking: Asking, policy: Policy) -> None:
        self.asking = asking
        self.decides, self.news = policy.decides, policy.news

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Tell the agents."""
        self.asking.begin(scenario, network, seed)


class ByNodes(Asked, LocalPolicy):
    """A local policy whose nodes are asked."""

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """What the log has."""
        return self.asking.compare(
            lambda agent: agent.ask("decide", observations.matrix[agent.node], masks[agent.node])
        )


class ByController(Asked, CentralPolicy):
    """A central policy whose controller is asked."""

    def act(self, view: NetworkView) -> Decision:
        """What the log has."""
        self.asking.slot = view.slot  # there is none to decide on before anything is old enough to be seen
        return self.asking.compare(lambda agent: agent.ask("order", view))


class ByAdvisedNodes(Asked, HybridPolicy):
    """A hybrid policy: one process has the controller, whose advice is passed on to the nodes that are asked."""

    def __init__(self, asking: Asking, policy: HybridPolicy, controller: Process) -> None:
        super().__init__(asking, policy)
        self.controller = controller

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Tell all of them."""
        self.controller.ask("reset", scenario, network, seed)
        super().reset(scenario, network, seed)

    def advise(self, view: NetworkView) -> Any:
        """What the controller's process says."""
        return self.controller.ask("advise", view) if self.asking.on else None

    def act(self, observations: Observations, masks: NDArray[np.int8], advice: Any) -> Decision:
        """What the log has."""
        return self.asking.compare(
            lambda agent: agent.ask("decide", observations.matrix[agent.node], masks[agent.node], advice)
        )


class ForNodes:
    """A forecaster of the whole network, beside those of the nodes that are asked: they must expect the same."""

    clairvoyant = False

    def __init__(self, forecaster: Forecaster, asking: Asking) -> None:
        self.forecaster, self.asking = forecaster, asking
        self.agents = [agent for agent in asking.agents if agent.node is not None and not agent.shifted]

    def reset(self, setting: ForecastSetting) -> None:
        """Tell all of them."""
        self.forecaster.reset(setting)
        for agent in self.agents:
            agent.ask("expect", setting)

    def observe(self, requests: NewRequests) -> None:
        """Tell every node of its own requests."""
        self.forecaster.observe(requests)
        self.slot = requests.slot
        for agent in self.agents if self.slot < self.asking.slots else ():
            own = requests.source == agent.node
            parts = (requests.time, requests.source, requests.destination, requests.fidelity)
            agent.ask("observe", NewRequests(self.slot, *(part[own] for part in parts)))

    def predict(self, lead: int = 0) -> NDArray[np.float64]:
        """What the forecaster of the whole network expects."""
        expected = self.forecaster.predict(lead)
        shown = np.asarray(expected, dtype=np.float32)
        for agent in self.agents if self.slot < self.asking.slots and self.asking.found.difference is None else ():
            if not np.array_equal(agent.ask("predict", lead), shown[agent.node]):
                self.asking.found.difference = f"slot {self.slot}: {agent.called} expects other requests by itself"
                break
        return expected


def decided_alone(
    item: WorkItem, log: EpisodeLog, nodes: Sequence[int], slots: int, on_slot: Callable[[], object] = lambda: None
) -> Found:
    """Play an episode as its log has it, and ask agents in the first `slots` slots what they decide.

    Of policies whose nodes decide, these `nodes`; of central ones the controller. `on_slot` is called after every slot.
    PolicyError for an agent that cannot be asked.
    """
    spec = item.policy
    policy = spec.make()
    with ExitStack() as processes:

        def started(node: int | None, shifted: int = 0) -> Process:
            return processes.enter_context(Process(spec, node, shifted))

        asked = [None] if isinstance(policy, CentralPolicy) else list(nodes)
        agents = [*map(started, asked), started(asked[0], shifted=1)]
        asking = Asking(agents, log, slots)
        player: Policy
        if isinstance(policy, CentralPolicy):
            player = ByController(asking, policy)
        elif isinstance(policy, HybridPolicy):
            player = ByAdvisedNodes(asking, policy, started(None))
        else:
            player = ByNodes(asking, policy)
        forecaster = policy.forecaster if spec.forecaster is None else spec.forecaster
        if isinstance(policy, LocalPolicy) and (of_all := get_forecaster(forecaster)) is not None:
            forecaster = ForNodes(of_all, asking)
        run_episode(
            item.scenario,
            player,
            item.seeds,
            delay=spec.delay or 0.0,
            forecaster=forecaster,
            recorder=_Counting(on_slot),
        )
    return asking.found


class Process:
    """An agent in a process of its own: a node, or a controller; a `shifted` one is reset with other seeds."""

    def __init__(self, spec: PolicySpec, node: int | None, shifted: int = 0) -> None:
        self.spec, self.node, self.shifted = spec, node, shifted
        self.called = "the controller" if node is None else f"node {node}"

    def __enter__(self) -> Process:
        context = get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.spec, self.node), daemon=True)
        with one_thread(), uninterrupted():
            self._process.start()
        theirs.close()
        return self

    def ask(self, what: str, *given: Any) -> Any:
        """What a method of `Agent` returns there; PolicyError for what it raises."""
        try:
            self._ours.send((what, given))
            fine, answer = self._ours.recv()
        except (EOFError, OSError):
            raise PolicyError(f"{self.called}: its process has ended") from None
        if not fine:
            raise PolicyError(f"{self.called}, in a process of its own: {answer}")
        return answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self._ours.close()
        self._process.terminate()
        self._process.join()


class Agent:
    """What lives in the process."""

    def __init__(self, spec: PolicySpec, node: int | None) -> None:
        self.policy, self.node = spec.make(), node
        name = self.policy.forecaster if spec.forecaster is None else spec.forecaster
        self.forecaster = None if node is None else get_forecaster(name)

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """What every policy is told of an episode."""
        self.nodes = network.num_nodes
        self.table = FeatureTable(scenario, chosen_news(self.policy.news))
        self.policy.reset(scenario, network, seed)

    def decide(self, row: NDArray[np.float32], mask: NDArray[np.int8], *advice: Any) -> dict[str, NDArray[np.int64]]:
        """What the node decides, shown its own row in place of all."""
        shown = self.table.read(np.tile(row, (self.nodes, 1))), np.tile(mask, (self.nodes, 1))
        assert not isinstance(self.policy, CentralPolicy)
        decision = self.policy.act(*shown, *advice)
        whole = require_decision(decision, self.nodes).of_nodes().completed(self.nodes)
        return {name: _part(whole, name, self.node) for name in DECIDED}

    def order(self, view: NetworkView) -> dict[str, NDArray[np.int64]]:
        """What the controller decides for all."""
        assert isinstance(self.policy, CentralPolicy)
        whole = require_decision(self.policy.act(view), self.nodes).completed(self.nodes)
        return {name: _part(whole, name, None) for name in ORDERED}

    def advise(self, view: NetworkView) -> Any:
        """What the controller lets all nodes know."""
        assert isinstance(self.policy, HybridPolicy)
        return self.policy.advise(view)

    def expect(self, setting: ForecastSetting) -> None:
        """An episode begins for the forecaster."""
        if self.forecaster is not None:
            self.forecaster.reset(setting)

    def observe(self, requests: NewRequests) -> None:
        """The node's requests of a slot."""
        if self.forecaster is not None:
            self.forecaster.observe(requests)

    def predict(self, lead: int) -> NDArray[np.float32]:
        """(D, H) what the node expects."""
        assert self.forecaster is not None
        return np.asarray(self.forecaster.predict(lead), dtype=np.float32)[self.node]


def _serve(connection: Connection, spec: PolicySpec, node: int | None) -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", DpemWarning)
    agent: Agent | None = None
    while True:
        try:
            what, given = connection.recv()
        except EOFError:
            return
        try:
            agent = agent or Agent(spec, node)
            answer = True, getattr(agent, what)(*given)
        except Exception as error:
            answer = False, str(error) if isinstance(error, DpemError) else describe(error)
        connection.send(answer)


def _part(decision: Decision, name: str, node: int | None) -> NDArray[np.int64]:
    """Of a complete decision, of one node or of all."""
    whole: NDArray[np.int64] = getattr(decision, name)
    if node is None:
        return whole
    own = np.atleast_1d(whole[node])
    return own[own >= 0] if name == "fallback" else own  # of which others may have more


class _Counting:
    """Counts slots for whoever looks on."""

    def __init__(self, on_slot: Callable[[], object]) -> None:
        self.on_slot = on_slot

    def begin(self, session: Session, label: str) -> None:
        pass

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        self.on_slot()
