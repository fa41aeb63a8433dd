"""The PettingZoo façade: one agent per node."""

from __future__ import annotations

from operator import itemgetter
from textwrap import indent
from typing import Any, Literal, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import parallel_to_aec, parallel_to_aec_wrapper

from dpem_env import scenarios
from dpem_env.envs.graph import GraphView, graph_of
from dpem_env.envs.rendering import FPS, MODES, Rendering
from dpem_env.envs.session import Played, Session, as_actions, shows_arguments
from dpem_env.envs.sums import EpisodeSums
from dpem_env.observations.features import FeatureTable
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Tally
from dpem_env.support.errors import ActionError, ScenarioError, require_one_of

AgentID = str

PROBE = {"options": 1}  # what PettingZoo's tests pass to see that `reset` takes options


Kind = TypeVar("Kind", bound=type)


def _tells_features(kind: Kind) -> Kind:
    """Put the declared features into the documentation."""
    for mark, scenario in {
        "RELAYS": scenarios.get("swap-chain5-v0", swapping="agents"),
        "FEATURES": scenarios.get("mesh100-v0"),
    }.items():
        described = indent(FeatureTable(scenario).describe(), "    ").strip()
        kind.__doc__ = (kind.__doc__ or "").replace(mark, described)
    return kind


@_tells_features
class EntanglementEnv(ParallelEnv):  # type: ignore[misc]
    """Entanglement allocation in a quantum network: every node is an agent that connects itself to its peers.

    In a quantum network the scarce thing is entanglement: pairs made link by link, stitched together by swapping at
    repeaters, decaying while stored. Users at each node request pairs with peers, with a fidelity class and a deadline.
    Every slot each agent may start one *allocation*: one pair to a peer at a quality. It holds memory along its route,
    competes for pairs of the sources and swaps of the repeaters on the way, and when finished serves a pending
    request or is stored for a later one: a pair made before the request serves it at once.

    **Agents.** ``agent_0`` … ``agent_{N-1}``, one per node. All act in every slot and are truncated together after
    ``episode.slots`` slots; none is ever terminated.

    **Action.** ``Discrete(1 + D·Q)``: 0 waits, ``1 + d·Q + (q - 1)`` allocates one pair to the peer at place ``d`` at
    quality ``q`` (``q - 1`` purification rounds per link) over a route the network chooses (``auto``). With
    ``routes=True`` the agent names the route, too: ``Discrete(1 + D·Q·k)``, ``1 + (d·Q + q - 1)·k + r``. With
    ``conditional=True`` as many actions follow that ask for the same only if it is free: where no other agent had a
    claim on the route's sources and swap engines as the slot began (docs/rules.md). The int8 mask in
    ``info["action_mask"]``, read-only, allows waiting always, and allocations while the node has a free row. An
    accepted allocation may still be denied, for lack of memory or for claims. An illegal action is a wait, counted in
    ``info["illegal_actions"]``.

    **Observation.** ``Box(0, 1, (F,), float32)``: features of the node, then one block of features for each of its D
    peers (padded peers are 0), each clip(x / scale, 0, 1), unknown = 0. *Last slot* is as of its end;
    *route* is what the nodes on one's candidate routes answer when asked: in every slot, as of the end of the last one.
    With ``news_period=None`` nobody is asked. Features of the current route are then from a snapshot taken every second
    and readable two slots later, those of candidate routes tell of an idle network. So they do before the first answer.

    FEATURES

    With ``observation="dict"`` the observation is ``{"observation": …, "action_mask": …}``, and the mask is in no info:
    libraries look for it in one of the two places.

    **Swaps.** In a chain with ``swapping="agents"`` (docs/rules.md) nodes decide on swaps instead. The action is
    ``Discrete(2)``, 0 waits, 1 swaps the segments on both sides, or with ``discard=True`` ``Discrete(3)``, where 2
    discards them. The ends may only wait. The reward is shared: every node has an N-th of what the chain delivers. The
    observation is a relay's own segments, and with a ``news_period`` (``news_delay`` late) those of the chain; in the
    table for the five nodes of swap-chain5-v0.

    RELAYS

    **Reward.** Requested pairs delivered to the node in the slot (weighted by ``class_values``, if any) minus
    β = 0.05 times the contended resources it claimed; ``info["delivered"]`` and ``info["contended"]`` count both. All
    infos are numbers or arrays of them, the same in every slot, as libraries that store them want; what the episode
    came to is told by `metrics`.

    **Episode.** 400 slots of 0.25 s. ``reset(seed=s)`` plays episode ``s`` of the ``split``'s frozen seed lists, which
    fixes topology, demand and every random outcome; ``reset()`` draws one. ``options={"topology_seed": …,
    "demand_seed": …}`` names them; other options are errors.

    **Arguments.** ``scenario``: name, TOML path or Scenario. ``split``: ``"train"``, ``"validation"`` or
    ``"evaluation"``. ``observation``: ``"flat"`` or ``"dict"``. ``routes``: name routes in actions. ``conditional``:
    have actions that ask only if it is free. ``forecaster``: fills the forecast features: a name of
    `dpem_env.demand.forecast.FORECASTERS`, an object, or None. ``news``: names of those of the features of candidate
    routes, the last ten, that are wanted: others take neither room nor time. None is all of them, ``()`` none.
    ``max_cycles``: slots per episode (default: the scenario's). ``render_mode``: None, ``"human"`` (a window of
    matplotlib), ``"rgb_array"`` or ``"ansi"`` (a text). Further keyword arguments override fields of the scenario,
    ``data_dir``, the folder of data that is not shipped, among them.

    **Version history.** v0: first rules; v1: noisy purification, swapping as soon as possible, deadlines by
    class (docs/reproduce-paper.md, 2026-11-29). Provisional until release 0.1.
    """

    metadata = {"name": "dpem_env", "render_modes": list(MODES), "is_parallelizable": True, "render_fps": FPS}  # noqa: RUF012

    @shows_arguments
    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        *,
        observation: Literal["flat", "dict"] = "flat",
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        require_one_of("observation", observation, ("flat", "dict"))
        if "delay" in arguments:
            raise ScenarioError('delay is of central control: CentralEnv, or make_vec(..., control="central")')
        self.session = Session(scenario, 1, None, 1, **arguments)
        self.scenario, self.split, self.max_cycles = self.session.scenario, self.session.split, self.session.max_cycles
        self.metadata = {**self.metadata, "name": self.scenario.name}
        self.render_mode, self._rendering = render_mode, Rendering(self.session, render_mode)
        self.possible_agents = [f"agent_{i}" for i in range(self.session.num_nodes)]
        self._in_order = itemgetter(*self.possible_agents)
        self.agents: list[AgentID] = []
        self._dict_observation = observation == "dict"
        width, actions = self.session.observer.table.width, self.session.observer.code.num_actions

        def observation_space() -> spaces.Space[Any]:
            flat = spaces.Box(0.0, 1.0, (width,), np.float32)
            mask = spaces.Box(0, 1, (actions,), np.int8)
            return spaces.Dict({"observation": flat, "action_mask": mask}) if self._dict_observation else flat

        # Every agent has spaces of its own, so that each is seeded and sampled apart.
        self.observation_spaces = {agent: observation_space() for agent in self.possible_agents}
        self.action_spaces = {agent: spaces.Discrete(actions) for agent in self.possible_agents}
        self.state_space = spaces.Box(0.0, 1.0, (len(self.possible_agents) * width,), np.float32)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[AgentID, Any], dict[AgentID, dict[str, Any]]]:
        """Begin an episode; returns observations and infos by agent."""
        self.session.reset(seed, None if options == PROBE else options, self.max_cycles)
        self.agents = self.possible_agents[:]
        self._not_over, self._no_reward = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, 0.0)
        self._illegal = 0
        self._prepare([0] * len(self.agents))
        self._sums = EpisodeSums(self.session)
        shown = self._shown(self.session.played())
        self._rendering.played()
        return shown

    def step(
        self, actions: dict[AgentID, int]
    ) -> tuple[
        dict[AgentID, Any],
        dict[AgentID, float],
        dict[AgentID, bool],
        dict[AgentID, bool],
        dict[AgentID, dict[str, Any]],
    ]:
        """Play one slot with one action per agent.

        Raises ActionError for an unknown or missing agent, or an action that is no integer.
        """
        agents, session = self.agents, self.session
        if session.done:
            if isinstance(actions, dict) and not actions:
                return {}, {}, {}, {}, {}
            session.require_running()
        played = session.advance(*session.observer.code.commands(self._as_array(actions)))
        self._sums.add(played.outcome)
        self._count_illegal()
        observations, infos = self._shown(played)
        rewards = self._by_agent(played.outcome.reward[0])
        over = session.done
        if over:
            self.agents = []
        self._rendering.played()
        return (
            observations,
            rewards,
            self._not_over.copy(),
            dict.fromkeys(agents, True) if over else self._not_over.copy(),
            infos,
        )

    def metrics(self) -> dict[str, Any]:
        """What the finished episode came to: all that tables tell, by name. ActionError before its end."""
        if not self.session.done:
            raise ActionError("the episode is not over: metrics() tells what it came to")
        return self._sums.metrics().as_dict()

    def state(self) -> NDArray[np.float32]:
        """(N·F,) all agents' features with remote ones as of now: for centralized training."""
        return self.session.global_state().ravel()

    def graph(self) -> GraphView:
        """The network of this episode for message passing between the rows of `state`: for centralized training."""
        return graph_of(self.session)

    def observation_space(self, agent: AgentID) -> gymnasium.Space[Any]:
        """The same space object at every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: AgentID) -> gymnasium.Space[Any]:
        """The same space object at every call."""
        return self.action_spaces[agent]

    def render(self) -> NDArray[np.uint8] | str | None:
        """The network in this slot: (640, 900, 3) uint8 or a text, by ``render_mode``; a window shows itself."""
        return self._rendering.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self._rendering.close()

    def _by_agent(self, reward: NDArray[np.float64]) -> dict[AgentID, float]:
        if 8 * np.count_nonzero(reward) > len(reward):
            return dict(zip(self.possible_agents, reward.tolist(), strict=True))
        rewards = self._no_reward.copy()  # faster where few have one
        for i in reward.nonzero()[0].tolist():
            rewards[self.possible_agents[i]] = reward.item(i)
        return rewards

    def _prepare(self, illegal: list[int]) -> None:
        """The infos of agents with nothing to note, of which every slot takes copies, but not of their masks."""
        allowed, self._waiting = self.session.observer.both_masks()
        self._usual = {
            agent: {"illegal_actions": count, "delivered": 0, "contended": 0, "action_mask": mask}
            for agent, count, mask in zip(self.possible_agents, illegal, allowed, strict=True)
        }

    def _count_illegal(self) -> None:
        """Count the last slot's illegal actions in the infos of their agents."""
        so_far = self.session.simulator.tally(Tally.ILLEGAL).item(0)
        if so_far > self._illegal:
            self._illegal = so_far
            for i in self.session.simulator.refused[0].nonzero()[0].tolist():
                self._usual[self.possible_agents[i]]["illegal_actions"] += 1

    def _shown(self, played: Played) -> tuple[dict[AgentID, Any], dict[AgentID, dict[str, Any]]]:
        infos = {agent: usual.copy() for agent, usual in self._usual.items()}
        in_order, (delivered, contended, full) = [*infos.values()], played.outcome.noted()
        for i, requests in delivered:
            in_order[i]["delivered"] = requests
        for i, resources in contended:
            in_order[i]["contended"] = resources
        for i in full:
            in_order[i]["action_mask"] = self._waiting
        if self.scenario.control.relays_decide:
            for info, mask in zip(infos.values(), self.session.observer.both_masks()[0], strict=True):
                info["action_mask"] = mask
        observations: dict[AgentID, Any] = dict(zip(self.possible_agents, played.observations[0], strict=True))
        if self._dict_observation:
            for agent, info in infos.items():
                observations[agent] = {"observation": observations[agent], "action_mask": info.pop("action_mask")}
        return observations, infos

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__ |= attributes
        if self.agents:  # copied masks can be written to
            self._prepare([info["illegal_actions"] for info in self._usual.values()])

    def _as_array(self, actions: dict[AgentID, int]) -> NDArray[np.int64]:
        try:
            if len(actions) == len(self.agents):
                return as_actions("actions", self._in_order(actions), (len(self.agents),))[None]
        except (LookupError, TypeError, ActionError):
            pass  # told apart below
        raise ActionError(self._what_is_wrong(actions))

    def _what_is_wrong(self, actions: Any) -> str:
        if not isinstance(actions, dict):
            return f"actions is {type(actions).__name__}; expected a dict with an int for each agent, 0 waits"
        for agent, action in actions.items():
            if agent not in self.action_spaces:
                return f"unknown agent {agent!r} (action {action!r}); agents are agent_0 to {self.agents[-1]}"
            if not _is_integer(action):
                return f"action {action!r} of {agent!r} is {type(action).__name__}; expected an int, 0 waits"
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            return f"no action for {missing[0]!r} ({len(missing)} missing); every agent acts in every slot, 0 waits"
        return "an action does not fit into 64 bits; expected an int, 0 waits"


def _is_integer(action: Any) -> bool:
    if type(action) is int:
        return True  # of any size
    try:
        as_actions("action", action, ())
    except ActionError:
        return False
    return True


def parallel_env(scenario: str | Scenario = "mesh100-v0", **arguments: Any) -> EntanglementEnv:
    """A PettingZoo parallel environment; arguments and scenario overrides as documented on `EntanglementEnv`."""
    return EntanglementEnv(scenario, **arguments)


def env(scenario: str | Scenario = "mesh100-v0", **arguments: Any) -> AECEnv:
    """The same as a PettingZoo AEC environment: agents act in turn, and the slot is played after the last of them.

    It checks the order of calls, but not actions: one out of range is a wait and counted, as in `EntanglementEnv`.
    """
    return parallel_to_aec(parallel_env(scenario, **arguments))


def raw_env(scenario: str | Scenario = "mesh100-v0", **arguments: Any) -> AECEnv:
    """`env` without checks of the order of calls."""
    return parallel_to_aec_wrapper(parallel_env(scenario, **arguments))
