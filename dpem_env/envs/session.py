"""Episodes, put together and stepped in one place: networks, demand, simulator, forecasts, observations and control.

The PettingZoo and Gymnasium façades, the evaluation and the replay all drive a `Session`; they differ in whom they
show what.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from inspect import Parameter, signature
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpem_env import scenarios
from dpem_env.demand.forecast import Arrivals, Forecaster, NewRequests
from dpem_env.demand.requests import Demand, draw_demand
from dpem_env.envs.control import CentralControl
from dpem_env.envs.forecasts import Forecasts
from dpem_env.envs.rewards import Outcome, Rewarder
from dpem_env.envs.silence import SilentAgents
from dpem_env.network.network import Network, build_network
from dpem_env.observations.features import Observer
from dpem_env.policies import HybridPolicy, LocalPolicy, NetworkView, Policy, require_deciding
from dpem_env.scenarios import SPLITS, Scenario, Split
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.simulator import Call, Condition, Episode, Simulator
from dpem_env.support.errors import ActionError, ScenarioError, nearest, require_one_of
from dpem_env.support.seeding import SEEDS, require_seed

LARGEST = np.iinfo(np.int64).max
INTEGERS = {int, *(np.dtype(code).type for code in np.typecodes["AllInteger"])}


class EpisodeSeeds(NamedTuple):
    """What fixes an episode, given scenario and actions."""

    topology: int
    demand: int  # also of emissions, outages, silent agents, admission order and outcomes


def episode_seeds(scenario: Scenario, split: Split, index: int) -> EpisodeSeeds:
    """Seeds of the `index`-th episode of a split; lists are cyclic."""
    seeds = getattr(scenario.seeds, split)
    return EpisodeSeeds(seeds.topology[index], seeds.demand[index])


class EpisodeChoice:
    """Which episode of a split comes next: the one a seed names, or one drawn after it."""

    def __init__(self, scenario: Scenario, split: Split) -> None:
        require_one_of("split", split, SPLITS)
        self.scenario = scenario
        self.split: Split = split
        self._rng: np.random.Generator | None = None

    def choose(self, seed: int | None, options: Mapping[str, Any] | None = None) -> EpisodeSeeds:
        """Seeds of the `seed`-th episode; of one drawn if it is None; options may name topology_seed and demand_seed.

        A seed also fixes what is drawn later without one. Raises ScenarioError, before anything is drawn, unless every
        seed is an int >= 0, and for an option of another name.
        """
        named = _named_seeds(options)
        if seed is not None:
            require_seed("reset(seed=...)", seed)
            self._rng = np.random.default_rng(int(seed))
            index = int(seed)
        else:
            self._rng = self._rng or np.random.default_rng()
            index = int(self._rng.integers(2**31))
        return episode_seeds(self.scenario, self.split, index)._replace(**named)


def _named_seeds(options: Mapping[str, Any] | None) -> dict[str, int]:
    """Those of the `EpisodeSeeds` that reset options name."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ScenarioError(f"reset options is {type(options).__name__}; expected a dict or None")
    seeds = {f"{field}_seed": field for field in EpisodeSeeds._fields}
    for option, value in options.items():
        if option not in seeds:
            raise ScenarioError(f"unknown reset option {option!r}; {nearest(str(option), seeds)}")
        require_seed(f"reset option {option}", value)
    return {seeds[option]: int(value) for option, value in options.items()}


def require_slots(max_cycles: Any) -> None:
    """Raise ScenarioError unless it is a number of slots to play."""
    whole = isinstance(max_cycles, int | np.integer) and not isinstance(max_cycles, bool)
    if not whole or not 1 <= max_cycles <= MAX_SLOTS:
        raise ScenarioError(f"max_cycles is {max_cycles!r}; expected a number of slots >= 1, at most {MAX_SLOTS}")


def as_actions(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """`given` as an array of actions; raises ActionError unless it is integers of that shape, none of them a bool."""
    chosen = given if isinstance(given, np.ndarray) else _as_array(name, given, shape)
    if chosen.dtype == np.int64 and chosen.shape == shape:
        return chosen
    if chosen.dtype.kind == "u" and chosen.size and int(chosen.max()) > LARGEST:
        raise ActionError(f"{name} has an action that does not fit into 64 bits; expected {shape} integers")
    if chosen.shape != shape or chosen.dtype.kind not in "iu":
        raise ActionError(f"{name} has shape {chosen.shape} and type {chosen.dtype}; expected {shape} integers")
    return chosen.astype(np.int64, copy=False)


def _as_array(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """What is no array yet as one: of integers, if its elements are integers of whatever kind."""
    try:
        if type(given) in (list, tuple) and {*map(type, given)} <= INTEGERS:
            return np.fromiter(given, np.int64, len(given))
        chosen = np.asarray(given)
    except OverflowError:
        raise ActionError(f"{name} has an action that does not fit into 64 bits; expected {shape} integers") from None
    except ValueError:
        raise ActionError(f"{name} is a ragged list; expected {shape} integers") from None
    if hasattr(given, "dtype") or not shape or chosen.shape != shape:
        return chosen
    # NumPy makes ints of bools that stand among ints, and numbers of another kind of signed and unsigned ones together.
    if any(np.asarray(element).dtype == np.bool_ for element in given):
        raise ActionError(f"{name} has a bool among its integers; expected {shape} integers")
    try:
        return np.array([operator.index(element) for element in given], dtype=np.int64)
    except (TypeError, OverflowError):
        return chosen


class Look(NamedTuple):
    """What those who decide get to see, in fresh arrays."""

    observations: NDArray[np.float32]  # (B, N, F)
    masks: NDArray[np.int8]  # (B, N, actions) 1 where an action is legal


class Turn(NamedTuple):
    """A `Look` at what a slot has left, and what the slot brought, in fresh arrays."""

    observations: NDArray[np.float32]  # (B, N, F)
    masks: NDArray[np.int8]  # (B, N, actions)
    outcome: Outcome


class Played(NamedTuple):
    """How a slot ended for nodes that decide, in fresh arrays."""

    observations: NDArray[np.float32]  # (B, N, F)
    outcome: Outcome


class Session:
    """B networks of a scenario, each with an episode at a time, all equally long and in the same slot.

    Without a `delay` every node decides for itself; with one, a controller per network decides for its nodes, that many
    seconds late, or, where they are `advised`, sees them as late and leaves them to decide. `look` and `play` serve all
    networks, whoever decides. What is asked of one network is the first unless another is named.

    **Arguments.** ``num_networks``: B. ``delay``: None, or that of central control in s, taken to the nearest slot,
    halves down. ``advised``: whether nodes decide although there is a controller. ``threads``: networks are shared out
    among that many threads; results do not depend on it. Those after them, and overrides, are what façades pass on: see
    `EntanglementEnv`.
    """

    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        num_networks: int = 1,
        delay: float | None = None,
        threads: int = 1,
        *,
        advised: bool = False,
        split: Split = "train",
        routes: bool = False,
        conditional: bool = False,
        forecaster: str | Forecaster | None = None,
        news: Collection[str] | None = None,
        max_cycles: int | None = None,
        **overrides: Any,
    ) -> None:
        for name, given in (("num_envs", num_networks), ("threads", threads)):
            if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 1:
                raise ScenarioError(f"{name} is {given!r}; expected a whole number >= 1")
        self.scenario = scenarios.get(scenario, **overrides)
        self.split: Split = split
        self.choices = [EpisodeChoice(self.scenario, split) for _ in range(num_networks)]
        self.max_cycles = self.scenario.episode.slots if max_cycles is None else max_cycles
        require_slots(self.max_cycles)
        self.simulator = Simulator(self.scenario, int(num_networks), int(threads))
        self.nodes_decide = delay is None or advised
        when = Condition.FREE if self.nodes_decide else Condition.READ_FREE
        self.observer = Observer(self.simulator, routes, when if conditional else 0, news)
        self.rewarder = Rewarder(self.simulator)
        silence = self.scenario.silence
        self.silent_agents = None if silence is None else SilentAgents(self.scenario, silence, self.nodes_decide)
        self.control = None
        if delay is not None:
            self.control = CentralControl(self.simulator, delay, forecaster, routes, self.observer.code.condition, news)
        of_nodes = forecaster if self.nodes_decide else None  # controllers have forecasts of their own time
        self.forecasts = Forecasts(self.scenario, of_nodes, self.num_networks)
        self.forecast: NDArray[np.float32] | None = None  # (B, N, D, H) that nodes have now
        self.all_seeds: list[EpisodeSeeds] = []
        self.slots: int

    @classmethod
    def of(cls, policy: Policy, scenario: Scenario, *, delay: float, forecaster: Any, **more: Any) -> Session:
        """One in which a policy can play: with a controller, and with nodes that decide, where it has them.

        PolicyError for one that decides on something else than the scenario leaves to decide.
        """
        require_deciding(policy, scenario)
        return cls(
            scenario,
            delay=None if isinstance(policy, LocalPolicy) else delay,
            advised=isinstance(policy, HybridPolicy),
            forecaster=forecaster,
            news=policy.news,
            **more,
        )

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None, slots: int | None = None
    ) -> None:
        """Begin episodes of the split: in network e the one of `EpisodeChoice` for ``seed + e`` and the options."""
        if seed is not None:
            require_seed("reset(seed=...)", seed)
        slots = self.max_cycles if slots is None else slots
        require_slots(slots)
        seeds = [None if seed is None else (int(seed) + e) % SEEDS for e in range(self.num_networks)]
        self.begin([choice.choose(own, options) for choice, own in zip(self.choices, seeds, strict=True)], slots)

    def begin(self, seeds: EpisodeSeeds | Sequence[EpisodeSeeds], slots: int | None = None) -> None:
        """Draw networks and demand from the seeds, one network's or all networks', and start episodes of `slots`."""
        all_seeds = [seeds] if isinstance(seeds, EpisodeSeeds) else seeds
        slots = slots or self.max_cycles
        episodes = []
        for own in all_seeds:
            network = build_network(self.scenario, own.topology)
            demand = draw_demand(self.scenario, network, own.demand, slots)
            episodes.append(Episode(network, demand, own.demand, slots))
        self._start(episodes, all_seeds)

    def begin_with(self, network: Network, demand: Demand, seeds: EpisodeSeeds, slots: int) -> None:
        """Start an episode of the only network: a given one, with a given demand."""
        self._start([Episode(network, demand, seeds.demand, slots)], [seeds])

    def step(self, action: ArrayLike, *more: ArrayLike | None) -> None:
        """Play one slot in every network; arguments as for `Simulator.step`."""
        playing = self._playing(action, *more)
        self.simulator.run(playing)
        self._remember(playing)

    def play(self, action: ArrayLike, *more: ArrayLike | None) -> Turn:
        """`step`, `look` and `outcome`, in one go of the threads; what controllers see takes another."""
        playing = self._playing(action, *more)
        settling, outcome = self.rewarder.settling()
        if self.control is not None:
            self.simulator.run(playing, settling)
            self._remember(playing)
            return Turn(*self.look(), outcome)
        looking, look = self._looking()
        self.simulator.run(playing, *looking, settling)
        return Turn(*look, outcome)

    def advance(self, action: ArrayLike, *more: ArrayLike | None) -> Played:
        """`step` where nodes decide, then `played`, in one go of the threads."""
        playing = self._playing(action, *more)
        return self.played(playing)

    def played(self, *before: Call) -> Played:
        """How the last slot ended, after these calls."""
        self.require_begun()
        observing, observations = self.observer.observing(self.forecast)
        settling, outcome = self.rewarder.settling()
        self.simulator.run(*before, observing, settling)
        return Played(observations, outcome)

    def look(self) -> Look:
        """What nodes observe and may do; under central control, what controllers see of them and may order."""
        self.require_begun()
        if self.control is not None and not self.nodes_decide:
            return Look(*self.control.look())
        looking, look = self._looking()
        self.simulator.run(*looking)
        return look

    def require_begun(self) -> None:
        """Raise ActionError unless there is an episode to look at or to play."""
        if not self.all_seeds:
            raise ActionError("no episode has begun: call reset() first")

    def require_running(self) -> None:
        """Raise ActionError unless there is a slot to play."""
        if self.done:
            raise ActionError("the episode is over: call reset() first")

    @property
    def num_networks(self) -> int:
        """Number of networks, B."""
        return self.simulator.num_envs

    @cached_property
    def num_nodes(self) -> int:
        """Nodes of every network the split may draw, N."""
        return build_network(self.scenario, episode_seeds(self.scenario, self.split, 0).topology).num_nodes

    @property
    def slot(self) -> int:
        """The slot about to be decided."""
        self.require_begun()
        return self.simulator.state.slot.item(0)

    @property
    def done(self) -> bool:
        """Whether the last slot has been played."""
        return self.slot >= self.slots

    @property
    def seeds(self) -> EpisodeSeeds:
        """Those of the first network."""
        self.require_begun()
        return self.all_seeds[0]

    @property
    def network(self) -> Network:
        """The first network."""
        return self._episode(0).network

    @property
    def demand(self) -> Demand:
        """The first network's."""
        return self._episode(0).demand

    @property
    def forecaster(self) -> Forecaster | None:
        """That of the nodes of the first network."""
        return self.forecasts.forecasters[0] if self.forecasts.forecasters else None

    def observations(self, network: int = 0) -> NDArray[np.float32]:
        """(N, F) what each node of a network knows, a fresh array."""
        self.require_begun()
        rows: NDArray[np.float32] = self.observer.observe(self.forecast)[network]
        return rows

    def global_state(self, network: int = 0) -> NDArray[np.float32]:
        """(N, F) the same features with remote ones as of now: for centralized training only."""
        self.require_begun()
        rows: NDArray[np.float32] = self.observer.observe(self.forecast, fresh=True)[network]
        return rows

    def masks(self, network: int = 0) -> NDArray[np.int8]:
        """(N, actions) 1 where an action is legal, a fresh array."""
        self.require_begun()
        masks: NDArray[np.int8] = self.observer.masks()[network]
        return masks

    def view(self, network: int = 0) -> NetworkView | None:
        """What the controller of a network knows; None while nothing is old enough to be seen."""
        self.require_begun()
        assert self.control is not None
        return self.control.view(network)

    def advice(self, policy: HybridPolicy, network: int = 0) -> Any:
        """What the controller of a network advises; None while nothing is old enough to be seen, or it is silent."""
        view = self.view(network) if self._silence is None else None
        return None if view is None else policy.advise(view)

    def rewards(self, network: int = 0) -> NDArray[np.float64]:
        """(N,) reward of the last step."""
        reward: NDArray[np.float64] = self.outcome().reward[network]
        return reward

    def outcome(self) -> Outcome:
        """What the last step brought the agents of all networks."""
        self.require_begun()
        return self.rewarder.outcome()

    def new_requests(self, slot: int, network: int = 0) -> NewRequests:
        """The requests of a network that arrived in `slot`."""
        episode = self._episode(network)
        if network not in self._arrivals:
            self._arrivals[network] = Arrivals(self.scenario, episode.network, episode.demand)
        return self._arrivals[network].of_slot(slot)

    def carried_out(self, action: ArrayLike) -> NDArray[Any]:
        """What is carried out of these actions of all nodes in the current slot: those of silent agents are waits."""
        silence = self._silence
        return np.asarray(action) if silence is None else silence.made_to_wait(action)

    @property
    def _silence(self) -> SilentAgents | None:
        """Those who are silent in the slot about to be decided, if any are."""
        silent = self.silent_agents
        return silent if silent is not None and self.slot in silent.slots else None

    def _start(self, episodes: list[Episode], seeds: Sequence[EpisodeSeeds]) -> None:
        self.simulator.begin(episodes)
        self._arrivals: dict[int, Arrivals] = {}  # of networks whose requests were asked for
        self.all_seeds, self.slots = list(seeds), episodes[0].slots
        if self.silent_agents is not None:
            self.silent_agents.begin(episodes[0].network.num_nodes, [own.demand for own in seeds])
        self.forecasts.begin(episodes)
        if self.forecasts.forecasters:
            self._expect(0)
        if self.control is not None:
            self.control.begin()

    def _expect(self, slot: int) -> None:
        """Let nodes' forecasters know of a slot's requests, unless the episode has no such slot."""
        if slot < self.slots:
            self.forecasts.observe(slot)
            self.forecast = self.forecasts.predict()

    def _playing(self, action: ArrayLike, *more: ArrayLike | None) -> Call:
        """The call that plays a slot, in which silent agents wait."""
        self.require_begun()
        playing = self.simulator.playing(self.carried_out(action), *more)
        if self.forecasts.forecasters:
            self._expect(self.slot + 1)  # of requests, which no action changes
        return playing

    def _remember(self, playing: Call) -> None:
        """Let controllers, if there are any, know what they have ordered."""
        if self.control is not None:
            _, ordered, route, _, _, fallback = playing
            self.control.remember(np.zeros_like(ordered) if self.nodes_decide else ordered, route, fallback)

    def _looking(self) -> tuple[tuple[Call, Call], Look]:
        """The calls that look at all nodes, to be run together with others, and what they fill."""
        observing, observations = self.observer.observing(self.forecast)
        masking, masks = self.observer.masking()
        return (observing, masking), Look(observations, masks)

    def _episode(self, network: int) -> Episode:
        self.require_begun()
        episode = self.simulator.episodes[network]
        assert episode is not None
        return episode


Constructor = TypeVar("Constructor", bound=Callable[..., None])


def shows_arguments(constructor: Constructor) -> Constructor:
    """Let `help` and editors show the arguments of `Session` that a façade's constructor passes on."""
    own = signature(constructor)
    named = [argument for argument in own.parameters.values() if argument.kind is not Parameter.VAR_KEYWORD]
    passed_on = (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)
    named += [argument for argument in signature(Session).parameters.values() if argument.kind in passed_on]
    constructor.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
    return constructor
