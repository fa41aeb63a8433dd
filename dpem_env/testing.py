"""Checkers: `check_env` of changed environments, stricter than PettingZoo's, `check_policy` and `check_forecaster`.

Every point is one function that yields what is wrong, one line each; `SLOT_POINTS` are looked at after every slot of an
episode per seed, `EPISODE_POINTS` play episodes of their own. `check_env` raises at the first complaint. What is
promised of policies and forecasters is told by `dpem_env.policy_contract`.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.observations.features import ROUTE, FeatureTable, Observer
from dpem_env.policy_contract import check_forecaster, check_policy
from dpem_env.simulator import WHERE_PAIRS_GO, Tally, Verdict
from dpem_env.support.errors import ContractError, DpemError

__all__ = ["check_env", "check_forecaster", "check_policy"]

ACTING, ERRING = 0.5, 0.05  # shares of agents that choose a legal, an illegal action; the others wait
GLANCE = 8  # slots of waiting by which episodes are told apart

Actions = dict[str, int]
Prints = dict[str, Any]  # what was returned for whom -> its fingerprint
Complaints = Iterator[str]


def check_env(
    env: EntanglementEnv, seeds: Sequence[int] = (0, 1), slots: int | None = None, processes: bool = True
) -> None:
    """Raise ContractError at the first promise of `EntanglementEnv` that `env` breaks.

    For an `EntanglementEnv` or one changed by subclassing, not wrapped; features of its own come after the standard
    ones, infos of its own beside them. It is played in copies and stays as it is; its class is called, too, if it takes
    the arguments of `EntanglementEnv`. Global random generators are never seeded.

    seeds: two or more; each plays episodes of random legal actions, some illegal ones and waits.
    slots: per episode (default: `env.max_cycles`).
    processes: also play in a fresh process with other hashes; the class of `env` must be importable there.
    """
    if not isinstance(env, EntanglementEnv):
        raise ContractError(f"env is {type(env).__name__}; expected an EntanglementEnv without wrappers")
    if len(set(seeds)) < 2:
        raise DpemError(f"seeds is {seeds!r}; expected two different seeds or more")
    pristine = copy.deepcopy(env)
    pristine.max_cycles = env.max_cycles if slots is None else slots
    trial = Trial(pristine, tuple(seeds), processes)
    for seed in trial.seeds:
        for moment in trial.first_episode(seed):
            for point, look in SLOT_POINTS:
                for complaint in look(moment):
                    raise ContractError(f"{point}: seed {seed}, slot {moment.slot}: {complaint}")
    for point, check in EPISODE_POINTS:
        for complaint in check(trial):
            raise ContractError(f"{point}: {complaint}")


# ------------------------------------------------------------------------------------------------------- episodes


class Returned(NamedTuple):
    """What an environment returned in one slot, by agent, and its state() afterwards."""

    observations: dict[str, Any]
    rewards: dict[str, float]
    terminated: dict[str, bool]
    truncated: dict[str, bool]
    infos: dict[str, dict[str, Any]]
    state: NDArray[np.float32]

    @property
    def masks(self) -> dict[str, NDArray[np.int8]]:
        """By agent: in observations that are dicts, else in the infos."""
        return {
            agent: (observation if isinstance(observation, dict) else self.infos[agent])["action_mask"]
            for agent, observation in self.observations.items()
        }

    def prints(self) -> Prints:
        """Fingerprint of every part."""
        prints: Prints = {"state()": _fingerprint(self.state)}
        for part in self._fields[:-1]:
            for agent, value in getattr(self, part).items():
                prints[f"{part} of {agent}"] = _fingerprint(value)
        return prints

    def arrays(self) -> list[tuple[str, NDArray[Any]]]:
        """Every array with its name."""
        named = [("state()", self.state)]
        for part in ("observations", "infos"):
            for agent, value in getattr(self, part).items():
                leaves = value.items() if isinstance(value, dict) else [("", value)]
                named += [(f"{part} of {agent} {key}".rstrip(), x) for key, x in leaves if isinstance(x, np.ndarray)]
        return named


@dataclass(frozen=True)
class Moment:
    """An environment after `slot` slots of an episode, and what it returned last."""

    env: EntanglementEnv
    slot: int
    returned: Returned
    refused: NDArray[np.int64]  # (N,) illegal actions so far, by the simulator's verdicts

    @cached_property
    def simulated(self) -> dict[str, NDArray[Any]]:
        """Copies of the simulator's state arrays."""
        return self.env.session.simulator.state_of(0)

    @cached_property
    def masks(self) -> NDArray[np.int8]:
        """(N, actions) the masks."""
        return np.stack(list(self.returned.masks.values()))


@dataclass(frozen=True)
class Trial:
    """The environment under test, never played itself, and the first episode of every seed to compare others with."""

    pristine: EntanglementEnv
    seeds: tuple[int, ...]
    processes: bool
    actions: dict[int, list[Actions]] = field(default_factory=dict)
    prints: dict[int, list[Prints]] = field(default_factory=dict)

    def fresh(self) -> EntanglementEnv:
        """A copy to play with."""
        return copy.deepcopy(self.pristine)

    def standard(self) -> EntanglementEnv:
        """An `EntanglementEnv` of the same arguments, with flat observations."""
        env, session = self.pristine, self.pristine.session
        return EntanglementEnv(
            env.scenario,
            split=env.split,
            routes=session.observer.routes,
            conditional=session.observer.code.condition > 0,
            forecaster=copy.deepcopy(session.forecaster),
            max_cycles=env.max_cycles,
        )

    def first_episode(self, seed: int) -> Iterator[Moment]:
        """The moments of a seed's first episode; remembers actions and fingerprints."""
        self.actions[seed], self.prints[seed] = [], []
        for moment in _explore(self.fresh(), seed, ACTING, ERRING, self.actions[seed]):
            self.prints[seed].append(moment.returned.prints())
            yield moment

    def differences(self, seed: int, slot: int, returned: Returned) -> Complaints:
        """What differs from the first episode."""
        yield from _differences(self.prints[seed][slot], returned.prints(), f"seed {seed}, slot {slot}")


def _explore(
    env: EntanglementEnv, seed: int, acting: float, erring: float = 0.0, played: list[Actions] | None = None
) -> Iterator[Moment]:
    """Play an episode of random actions; those chosen are appended to `played`."""
    rng = np.random.default_rng(seed)
    refused = np.zeros(len(env.possible_agents), dtype=np.int64)
    returned, slot = _begin(env, seed), 0
    yield Moment(env, slot, returned, refused)
    while env.agents and slot <= env.max_cycles:
        actions = {agent: _choose(mask, rng, acting, erring) for agent, mask in returned.masks.items()}
        if played is not None:
            played.append(actions)
        returned, slot = _step(env, actions), slot + 1
        refused = refused + (env.session.simulator.state.verdict[0] == Verdict.ILLEGAL)
        yield Moment(env, slot, returned, refused)


def _choose(mask: NDArray[np.int8], rng: np.random.Generator, acting: float, erring: float) -> int:
    luck = rng.random()
    if luck < erring:
        return int(rng.choice([*np.flatnonzero(mask == 0), -1, len(mask)]))
    return int(rng.choice(np.flatnonzero(mask))) if luck < erring + acting else 0


def _replay(env: EntanglementEnv, seed: int, actions: Sequence[Actions]) -> Iterator[Returned]:
    """Play an episode of given actions, as far as it goes."""
    yield _begin(env, seed)
    for chosen in actions:
        yield _step(env, chosen)


def _begin(env: EntanglementEnv, seed: int | None = None, options: dict[str, Any] | None = None) -> Returned:
    observations, infos = env.reset(seed=seed, options=options)
    return Returned(observations, {}, {}, {}, infos, env.state())


def _step(env: EntanglementEnv, actions: Actions) -> Returned:
    return Returned(*env.step(actions), env.state())


def _waits(env: EntanglementEnv) -> Actions:
    return dict.fromkeys(env.agents, 0)


def _fingerprint(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _fingerprint(item)) for key, item in value.items())
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.blake2b(value.tobytes(), digest_size=8).digest()
    return repr(value)


def _differences(first: Prints, second: Prints, where: str, another: str = "the first time") -> Complaints:
    """What has another fingerprint, is missing, or comes in another order."""
    if first == second and list(first) == list(second):
        return
    changed = [name for name in (*first, *second) if first.get(name) != second.get(name)]
    yield f"{where}: {changed[0]} differ from {another}" if changed else f"{where}: agents in another order"


# -------------------------------------------------------------------------------------------- points of every slot


def _agents(moment: Moment) -> Complaints:
    """Every dict has an entry for each agent, in order."""
    agents = moment.env.possible_agents
    for part in Returned._fields[:-1]:
        given = list(getattr(moment.returned, part))
        if given != agents and (moment.slot or part in ("observations", "infos")):
            missing = [agent for agent in agents if agent not in given]
            found = f"nothing for {missing[0]}" if missing else f"{given[0]} first of {len(given)}"
            yield f"{part}: {found}; expected {agents[0]} to {agents[-1]} in order"


def _end(moment: Moment) -> Complaints:
    """All agents are truncated together in the last slot and none is ever terminated."""
    env, last = moment.env, moment.env.max_cycles
    over = moment.slot >= last
    for agent, terminated in moment.returned.terminated.items():
        if terminated:
            yield f"{agent} is terminated; expected never"
    for agent, truncated in moment.returned.truncated.items():
        if bool(truncated) != over:
            yield f"{agent} is {'' if truncated else 'not '}truncated; expected all together after slot {last}"
    expected = [] if over else env.possible_agents
    if env.agents != expected:
        yield f"agents holds {len(env.agents)} agents; expected {len(expected)}"


def _observations(moment: Moment) -> Complaints:
    """Every observation lies in its space and has its dtype."""
    for agent, observation in moment.returned.observations.items():
        for misfit in _misfits(moment.env.observation_space(agent), observation):
            yield f"{agent}: {misfit}"


def _misfits(space: gymnasium.Space[Any], value: Any) -> Complaints:
    if isinstance(space, spaces.Dict):
        if not isinstance(value, dict) or value.keys() != space.spaces.keys():
            yield f"found {type(value).__name__}; expected a dict of {', '.join(space.spaces)}"
        else:
            for key, part in space.spaces.items():
                for misfit in _misfits(part, value[key]):
                    yield f"{key}: {misfit}"
    elif not isinstance(value, np.ndarray) or value.dtype != space.dtype or value.shape != space.shape:
        kind = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        yield f"found {kind}; expected an array, {space.dtype} {space.shape}"
    elif not space.contains(value):
        outside = ""
        if isinstance(space, spaces.Box):
            column = np.flatnonzero(~((value >= space.low) & (value <= space.high)))[0]
            low, high = (float(bound.flat[column]) for bound in (space.low, space.high))
            outside = f"column {column}: found {value.flat[column]!r}; expected a number in [{low}, {high}]"
        yield outside or f"found {value!r}; expected a member of {space}"


def _infos(moment: Moment) -> Complaints:
    """Every info counts illegal actions, and has the mask if the observation does not."""
    for agent, info in moment.returned.infos.items():
        with_mask = not isinstance(moment.returned.observations[agent], dict)
        for key, expected in (("action_mask", with_mask), ("illegal_actions", True)):
            if (key in info) != expected:
                where = "in the info" if expected else "in the observation alone"
                yield f"{agent}: found {', '.join(info) or 'nothing'}; expected {key!r} {where}"


def _mask_form(moment: Moment) -> Complaints:
    """Masks are int8 zeros and ones, and allow waiting."""
    for agent, mask in moment.returned.masks.items():
        actions = moment.env.action_space(agent)
        if not isinstance(actions, spaces.Discrete):
            yield f"{agent}: action space is {actions}; expected Discrete"
        elif mask.dtype != np.int8 or mask.shape != (actions.n,):
            yield f"{agent}: action_mask is {mask.dtype} {mask.shape}; expected int8 ({actions.n},)"
        elif mask[0] != 1 or mask.min() < 0 or mask.max() > 1:
            yield f"{agent}: action_mask begins with {mask[0]}, range {mask.min()} to {mask.max()}; expected 1, 0 to 1"


def _legal(moment: Moment) -> Complaints:
    """Masks allow what the simulator's rule of legality does."""
    session = moment.env.session
    legal = Observer(session.simulator, session.observer.routes, session.observer.code.condition).masks()[0]
    if moment.masks.shape != legal.shape:
        yield f"found {moment.masks.shape[1]} actions; expected {legal.shape[1]}"
        return
    for i, action in np.argwhere(moment.masks != legal)[:1]:
        yield _wrong_mask(i, action, moment.masks, legal[i, action])


def _wrong_mask(i: int, action: int, masks: NDArray[np.int8], accepted: Any) -> str:
    verdict = "accepts" if accepted else "refuses"
    return f"agent_{i}: mask of action {action} is {masks[i, action]}; the simulator {verdict} it"


def _rewards(moment: Moment) -> Complaints:
    """Finite, and earned - β·contended by the simulator's counts."""
    if not moment.returned.rewards:
        return
    worth, contended = moment.env.session.outcome().earned[0], moment.simulated["contended"]
    penalty = moment.env.scenario.reward.contention_penalty
    expected = worth - penalty * contended
    for i, (agent, reward) in enumerate(moment.returned.rewards.items()):
        if not np.isfinite(reward):
            yield f"{agent}: found {reward}; expected a finite number"
        elif abs(reward - expected[i]) > 1e-9:
            sum_ = f"{worth[i]:g} earned - {penalty} * {contended[i]} contended"
            yield f"{agent}: found {reward}; expected {expected[i]} ({sum_})"


def _pairs(moment: Moment) -> Complaints:
    """Every emitted pair is held or went somewhere; every finished pair is delivered, dropped or stored."""
    state, tally = moment.simulated, moment.simulated["tally"]
    stored = state["stock_hops"][_in_stock(state)].sum()
    held = stored + state["link_hops"].sum()
    gone = tally[list(WHERE_PAIRS_GO)].sum()
    if tally[Tally.EMITTED] != gone + held:
        yield f"{tally[Tally.EMITTED]} pairs emitted; expected {gone + held}: {gone} gone + {held} held"
    finished = tally[Tally.DELIVERED] + tally[Tally.DROPPED_PAIRS] + state["stock_count"].sum()
    if tally[Tally.FINISHED] != finished:
        yield f"{tally[Tally.FINISHED]} pairs finished; expected {finished} delivered, dropped or stored"


def _requests(moment: Moment) -> Complaints:
    """Every request that arrived is delivered, expired or pending."""
    tally, pending = moment.simulated["tally"], moment.simulated["pending"].sum()
    arrived, delivered, expired = (tally[which] for which in (Tally.ARRIVED, Tally.DELIVERED, Tally.EXPIRED))
    if arrived != delivered + expired + pending:
        yield f"{arrived} requests arrived; expected {delivered} delivered + {expired} expired + {pending} pending"


def _memory(moment: Moment) -> Complaints:
    """Every qubit is free or owned by one allocation or stored pair."""
    state, memory = moment.simulated, moment.env.session.network.topology.memory
    free, held = state["free_memory"], _held_qubits(moment)
    for i in np.flatnonzero((free < 0) | (free > memory) | (free + held != memory))[:1]:
        yield f"agent_{i}: found {free[i]} qubits free; expected {memory[i]} - {held[i]} held"


def _held_qubits(moment: Moment) -> NDArray[np.int64]:
    """(N,) one at each end of an allocation and two at each relay, one at each end of a stored pair."""
    state, network = moment.simulated, moment.env.session.network
    held = np.zeros(network.num_nodes, dtype=np.int64)
    owner, row = np.nonzero(state["alloc_peer"] >= 0)
    named = owner, state["alloc_peer"][owner, row], state["alloc_route"][owner, row]
    nodes, hops = network.routes.nodes[named], network.routes.hops[named][:, None]
    place = np.arange(nodes.shape[1])
    qubits = np.where((place == 0) | (place == hops), 1, 2)
    on_route = place <= hops
    np.add.at(held, nodes[on_route], qubits[on_route])
    stored = _in_stock(state)
    owner = np.nonzero(stored)[0]
    np.add.at(held, owner, 1)
    np.add.at(held, network.peers[owner, state["stock_peer"][stored]], 1)
    return held


def _in_stock(state: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """(N, S) whether the place holds a stored pair."""
    occupied: NDArray[np.bool_] = np.arange(state["stock_hops"].shape[1]) < state["stock_count"][:, None]
    return occupied


def _tokens(moment: Moment) -> Complaints:
    """Swap tokens lie between 0 and the cap."""
    tokens, cap = moment.simulated["tokens"], moment.env.session.simulator.rules.token_cap
    for i in np.flatnonzero(~((tokens >= 0) & (tokens <= cap)))[:1]:
        yield f"agent_{i}: found {tokens[i]} swap tokens; expected 0 to {cap}"


def _state(moment: Moment) -> Complaints:
    """state() lies in its space and agrees with the observations in all that is not telemetry."""
    env, state = moment.env, moment.returned.state
    yield from _misfits(env.state_space, state)
    rows = np.stack([_flat(observation) for observation in moment.returned.observations.values()])
    if state.size != rows.size:
        yield f"found {state.size} numbers; expected N * F = {rows.size}"
        return
    columns = _local_columns(env.session.observer.table)
    differing = np.argwhere(state.reshape(rows.shape)[:, columns] != rows[:, columns])
    for i, column in differing[:1]:
        there, here = state.reshape(rows.shape)[i, columns[column]], rows[i, columns[column]]
        yield f"agent_{i}, column {columns[column]}: found {there}; expected {here} as observed"


def _flat(observation: Any) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = observation["observation"] if isinstance(observation, dict) else observation
    return flat


def _local_columns(table: FeatureTable) -> NDArray[np.int64]:
    """Columns that hold what a node knows of itself: all but telemetry, whose age state() does not have."""
    sizes = table.sizes
    node = [f.age != ROUTE and f.name != "telemetry_age" for f in table.node_features for _ in range(sizes[f.size])]
    peer = [f.age != ROUTE for f in table.peer_features for _ in range(sizes[f.size])]
    return np.flatnonzero(node + peer * table.scenario.demand.peers)


def _illegal_count(moment: Moment) -> Complaints:
    """Illegal actions so far are counted in the infos."""
    for i, (agent, info) in enumerate(moment.returned.infos.items()):
        if info["illegal_actions"] != moment.refused[i]:
            yield f"{agent}: found {info['illegal_actions']} in the info; expected {moment.refused[i]}, as simulated"


# ------------------------------------------------------------------------------------------- points of whole episodes


def _spaces(trial: Trial) -> Complaints:
    """The same Space object at every call, and equal spaces in a copy from a pickle."""
    env, other = trial.fresh(), _pickled(trial.pristine)
    if other.state_space != env.state_space:
        yield f"state_space is {other.state_space} in a pickled copy; expected {env.state_space}"
    for agent in env.possible_agents:
        for kind in ("observation_space", "action_space"):
            space = getattr(env, kind)(agent)
            if space is not getattr(env, kind)(agent):
                yield f"{agent}: {kind}() returns a new object; expected the same at every call"
            if space != getattr(other, kind)(agent):
                yield f"{agent}: {kind} is {getattr(other, kind)(agent)} in a pickled copy; expected {space}"


def _samples(trial: Trial) -> Complaints:
    """Every agent's spaces are sampled apart from all others, and a copy's from the original's."""
    env = trial.fresh()
    owned = [
        (agent, kind, getattr(each, kind)(agent))
        for each in (env, copy.deepcopy(env), _pickled(env))
        for agent in env.possible_agents
        for kind in ("observation_space", "action_space")
    ]
    alone = []
    for *_, space in owned:
        space.seed(0)
        alone.append(_fingerprint(space.sample()))
    for *_, space in owned:
        space.seed(0)
    for (agent, kind, space), sample in zip(owned, alone, strict=True):
        if _fingerprint(space.sample()) != sample:
            yield f"{agent}: {kind} shares its generator with another agent's or a copy's; expected one of its own"


def _determinism(trial: Trial) -> Complaints:
    """Equal seeds and actions give equal episodes, whatever was played before; global generators are left alone."""
    env, before = trial.fresh(), _global_generators()
    for seed in (*trial.seeds, *trial.seeds):
        for slot, returned in enumerate(_replay(env, seed, trial.actions[seed])):
            yield from trial.differences(seed, slot, returned)
        env.reset()
        for _ in range(min(3, env.max_cycles)):  # left in the middle
            env.step({agent: 1 + i % 2 for i, agent in enumerate(env.agents)})
    for name, state in _global_generators().items():
        if state != before[name]:
            yield f"the global generator of {name} was drawn from or seeded; expected generators of the environment"


def _global_generators() -> dict[str, Any]:
    return {"random": random.getstate(), "numpy.random": _fingerprint(np.random.get_state(legacy=False))}  # noqa: NPY002


def _seeds(trial: Trial) -> Complaints:
    """Another seed gives another episode."""
    first, *others = trial.seeds
    for seed in others:
        one, another = trial.fresh(), trial.fresh()
        one.max_cycles = another.max_cycles = max(one.max_cycles, one.scenario.episode.slots)
        actions = [dict.fromkeys(one.possible_agents, 1)] * one.max_cycles
        both = zip(_replay(one, first, actions), _replay(another, seed, actions), strict=True)
        if all(a.prints() == b.prints() for a, b in both):
            yield f"seed {seed} plays the episode of seed {first}; expected another one"


def _copies(trial: Trial) -> Complaints:
    """Deep and pickled copies made in mid-episode continue identically and leave the original as it was."""
    seed, actions = trial.seeds[0], trial.actions[trial.seeds[0]]
    for kind, copied in COPIES:
        env = trial.fresh()
        half = len(actions) // 2
        for _ in _replay(env, seed, actions[:half]):
            pass
        other = copied(env)
        before = env.session.simulator.digest()
        if other.session.simulator.digest() != before:
            yield f"{kind}, seed {seed}, slot {half}: the simulator's state differs from the original's"
        other.step(_waits(other))
        if env.session.simulator.digest() != before:
            yield f"{kind}, seed {seed}, slot {half}: a step of the copy changes the original"
        other = copied(env)
        for slot, chosen in enumerate(actions[half:], half + 1):
            for whose, player in (("the copy", other), ("the original", env)):
                for complaint in trial.differences(seed, slot, _step(player, chosen)):
                    yield f"{kind} made in slot {half}, {whose}: {complaint}"
        yield from _differences(_begin(env).prints(), _begin(other).prints(), f"{kind}, reset()", "the original's")


def _pickled(env: EntanglementEnv) -> EntanglementEnv:
    try:
        loaded: EntanglementEnv = pickle.loads(pickle.dumps(env))
    except Exception as error:
        raise ContractError(f"copies: env cannot be pickled ({error}); expected parts that pickle can hold") from error
    return loaded


COPIES: tuple[tuple[str, Callable[[EntanglementEnv], EntanglementEnv]], ...] = (
    ("deep copy", copy.deepcopy),
    ("pickled copy", _pickled),
)


def _masks(trial: Trial) -> Complaints:
    """The mask allows exactly what the simulator accepts: every action tried by all nodes in a copy."""
    for moment in _tried(trial):
        masks, before = moment.masks, f"seed {trial.seeds[0]}, slot {moment.slot}"
        code, simulator = moment.env.session.observer.code, copy.deepcopy(moment.env.session.simulator)
        for action in range(masks.shape[1]):
            for name, now in moment.env.session.simulator.state._asdict().items():
                getattr(simulator.state, name)[:] = now
            simulator.step(*code.commands(np.full((1, len(masks)), action)))
            accepted = simulator.state.verdict[0] != Verdict.ILLEGAL
            for i in np.flatnonzero(accepted != (masks[:, action] == 1))[:1]:
                yield f"{before}, {_wrong_mask(i, action, masks, accepted[i])}"


def _illegal(trial: Trial) -> Complaints:
    """An illegal action is counted, unless the agent is silent, and otherwise a wait."""
    rng = np.random.default_rng(0)
    for moment in _tried(trial):
        erring, waiting = copy.deepcopy(moment.env), copy.deepcopy(moment.env)
        wrong = {agent: _choose(mask, rng, 0.0, 1.0) for agent, mask in zip(erring.agents, moment.masks, strict=True)}
        counts = {agent: info["illegal_actions"] for agent, info in moment.returned.infos.items()}
        heard = erring.session.carried_out(np.ones(len(wrong), dtype=np.int64)).tolist()
        found, expected = _step(erring, wrong), _step(waiting, _waits(waiting))
        where = f"seed {trial.seeds[0]}, slot {moment.slot + 1}"
        for (agent, action), times in zip(wrong.items(), heard, strict=True):
            counted = found.infos[agent]["illegal_actions"] - counts[agent]
            if counted != times:
                often = "once" if times else "never, as it is silent"
                yield f"{where}, {agent}: illegal action {action} counted {counted} times; expected {often}"
        for returned in (found, expected):
            for info in returned.infos.values():
                info.pop("illegal_actions")
        yield from _differences(expected.prints(), found.prints(), where, "those after a wait")
        states = [env.session.simulator.state_of(0) for env in (erring, waiting)]
        for name in states[0].keys() - {"verdict", "tally"}:
            if not np.array_equal(states[0][name], states[1][name]):
                yield f"{where}: {name} of the simulator differs after illegal actions from that after waits"


def _tried(trial: Trial) -> Iterator[Moment]:
    """A few moments before slots of a busy episode, and of one with silent sources: there rows fill up."""
    for silent in (False, True):
        env, full = trial.fresh(), False
        chosen = {env.max_cycles * quarter // 4 for quarter in range(4)} | {env.max_cycles - 1}
        for moment in _explore(env, trial.seeds[0], 1.0):
            if silent and moment.slot == 0:
                env.session.simulator.world.emit(0.0)
            first_full = not full and bool((env.session.simulator.state.alloc_peer[0] >= 0).all(axis=1).any())
            if moment.slot < env.max_cycles and (moment.slot in chosen or first_full):
                yield moment
            full |= first_full


def _aliasing(trial: Trial) -> Complaints:
    """What was returned never changes later; what can be written to shares no memory, and writing changes nothing."""
    env, (seed, other, *_) = trial.fresh(), trial.seeds
    kept = list(_replay(env, seed, trial.actions[seed]))
    for _ in _replay(env, other, trial.actions[other][:3]):
        pass
    for slot, returned in enumerate(kept):
        for complaint in _differences(trial.prints[seed][slot], returned.prints(), f"seed {seed}, slot {slot}"):
            yield complaint.replace("differ from the first time", "changed after they were returned")
    arrays = [(f"{name} in slot {slot}", x) for slot, returned in enumerate(kept) for name, x in returned.arrays()]
    arrays = [named for named in arrays if named[1].flags.writeable]
    arrays.sort(key=lambda named: int(named[1].__array_interface__["data"][0]))
    for (one, a), (another, b) in pairwise(arrays):
        if np.shares_memory(a, b):
            yield f"seed {seed}: {one} and {another} share memory"
    for slot, returned in enumerate(_replay(env, seed, trial.actions[seed])):
        for complaint in trial.differences(seed, slot, returned):
            yield f"earlier arrays written to: {complaint}"
        for _, array in returned.arrays():
            if array.flags.writeable:
                array[...] = 0


def _refusals(trial: Trial) -> Complaints:
    """Wrong actions and resets raise a DpemError, and nothing is played."""
    env = trial.fresh()
    _begin(env, trial.seeds[0])
    agents, waits = env.possible_agents, _waits(env)
    wrong: dict[str, Callable[[], Any]] = {
        "step() without an agent": partial(env.step, dict.fromkeys(agents[1:], 0)),
        "step() with an unknown agent": partial(env.step, waits | {"nobody": 0}),
        "step() with a bool among ints": partial(env.step, waits | {agents[0]: True}),
        "step() with bools": partial(env.step, dict.fromkeys(agents, True)),
        "step() with a float": partial(env.step, waits | {agents[0]: cast(int, 1.0)}),
        "reset() with a negative seed": partial(env.reset, seed=-1),
        "reset() with a misspelt option": partial(env.reset, options={"topology_sed": 1}),
        "reset() with an option that is no seed": partial(env.reset, options={"demand_seed": None}),
    }
    before = env.session.simulator.digest()
    for what, call in wrong.items():
        found = _refused(call)
        if found:
            yield f"{what} {found}; expected a DpemError"
        if env.session.simulator.digest() != before:
            yield f"{what} changes the simulator's state; expected that nothing is played"


def _refused(call: Callable[[], Any]) -> str:
    """What a call does instead of raising a DpemError, "" if it does."""
    try:
        call()
    except DpemError:
        return ""
    except Exception as error:
        return f"raises {type(error).__name__} ({error})"
    return "is answered"


_RENDERED = {"rgb_array": ("uint8, 3 axes", "an array uint8 (height, width, 3)"), "ansi": ("str", "a text")}


def _looking(trial: Trial) -> Complaints:
    """state() and render() change nothing, and render() returns what render_mode says."""
    env = trial.fresh()
    _begin(env, trial.seeds[0])
    modes: Any = env.metadata["render_modes"]
    mode = getattr(env, "render_mode", "missing")
    if mode is not None and mode not in modes:
        yield f"render_mode is {mode}; expected None or one of {', '.join(modes)}"
        return
    before, state = env.session.simulator.digest(), _fingerprint(env.state())
    picture = env.render()
    kind = f"{picture.dtype}, {picture.ndim} axes" if isinstance(picture, np.ndarray) else type(picture).__name__
    wanted, told = _RENDERED.get(mode, ("NoneType", "None"))
    if kind != wanted:
        yield f"render() returns {kind}; expected {told}"
    if env.session.simulator.digest() != before or _fingerprint(env.state()) != state:
        yield "the environment differs after state() and render(); expected that they change nothing"


def _resets(trial: Trial) -> Complaints:
    """Seeds, options and neither choose the episodes that they choose in an `EntanglementEnv`."""
    one, another = trial.seeds[:2]
    env, standard = trial.fresh(), trial.standard()
    for seed, options in (
        (one, None),
        (None, None),
        (None, {"topology_seed": 7, "demand_seed": 11}),
        (another, {"topology_seed": 5}),
        (another, {"demand_seed": 3}),
        (None, None),
    ):
        for complaint in _glance(env, standard, seed, options):
            yield f"reset(seed={seed}, options={options}): {complaint}"


def _arguments(trial: Trial) -> Complaints:
    """The constructor heeds what it is given, and what was never reset is not played or seen."""
    pristine = trial.pristine
    unbegun: tuple[tuple[str, tuple[Any, ...]], ...] = (("state", ()), ("render", ()), ("step", ({},)))
    relays_decide = pristine.scenario.control.relays_decide
    for arguments in ARGUMENTS:
        given = {name: value for name, value in arguments.items() if not (relays_decide and name in OF_ALLOCATIONS)}
        where = ", ".join(f"{name}={value!r}" for name, value in given.items())
        try:
            env = type(pristine)(pristine.scenario, **given)
        except TypeError:
            return  # a constructor of its own
        standard = EntanglementEnv(pristine.scenario, **given)
        for name, passed in unbegun:
            found = _refused(partial(getattr(env, name), *passed))
            if found:
                yield f"{name}() before the first reset() {found}; expected a DpemError"
        for complaint in _glance(env, standard, trial.seeds[0], None):
            yield f"{where}: {complaint}"


ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"split": "train", "max_cycles": 2},
    {"split": "validation", "forecaster": "persistence", "routes": True},
    {"split": "evaluation", "forecaster": None, "routes": False, "conditional": True},
)
OF_ALLOCATIONS = ("routes", "conditional")  # arguments that say nothing where relays decide on swaps


def _rules(trial: Trial) -> Complaints:
    """With the same seed and actions, everything standard is what it is in an `EntanglementEnv`."""
    env, standard = trial.fresh(), trial.standard()
    for seed in trial.seeds:
        both = zip(_replay(env, seed, trial.actions[seed]), _replay(standard, seed, trial.actions[seed]), strict=True)
        for slot, (found, expected) in enumerate(both):
            for complaint in _deviations(standard.session.observer.table, found, expected):
                yield f"seed {seed}, slot {slot}: {complaint}"


def _glance(
    env: EntanglementEnv, standard: EntanglementEnv, seed: int | None, options: dict[str, Any] | None
) -> Complaints:
    """How the episode that a reset begins differs from that of an `EntanglementEnv`, within a few slots of waiting."""
    table = standard.session.observer.table
    found, expected = _begin(env, seed, options), _begin(standard, seed, options)
    if env.session.seeds != standard.session.seeds:
        yield f"plays {env.session.seeds}; expected {standard.session.seeds}"
    for slot in range(GLANCE):
        for complaint in _deviations(table, found, expected):
            yield f"slot {slot}: {complaint}"
        if env.agents != standard.agents:
            yield f"slot {slot}: agents holds {len(env.agents)} agents; expected {len(standard.agents)}"
        if not standard.agents:
            return
        found, expected = _step(env, _waits(env)), _step(standard, _waits(standard))


def _deviations(table: FeatureTable, found: Returned, expected: Returned) -> Complaints:
    """What an `EntanglementEnv` would have returned otherwise; features and infos of the environment's own are left."""
    names = _column_names(table)
    for agent, row in expected.observations.items():
        own = _flat(found.observations[agent])
        if len(own) < len(row):
            yield f"{agent}: found {len(own)} features; expected the {len(row)} standard ones first"
            continue
        for column in np.flatnonzero(own[: len(row)] != row)[:1]:
            yield f"{agent}: found {own[column]} in column {column}, {names[column]}; expected {row[column]}"
        if not np.array_equal(found.masks[agent], expected.masks[agent]):
            yield f"{agent}: another action_mask than expected"
        for name in ("illegal_actions", "delivered", "contended"):
            told, right = (returned.infos[agent].get(name) for returned in (found, expected))
            if told != right and name in found.infos[agent]:
                yield f"{agent}: found {told} as {name} in the info; expected {right}"
        for part in ("rewards", "terminated", "truncated"):
            own_part, standard_part = (getattr(returned, part).get(agent) for returned in (found, expected))
            if own_part != standard_part:
                yield f"{agent}: found {own_part} in {part}; expected {standard_part}"
    nodes = len(expected.observations)
    rows = expected.state.reshape(nodes, -1)
    own_rows = found.state.reshape(nodes, -1)[:, : rows.shape[1]]
    for i, column in np.argwhere(own_rows != rows)[:1]:
        there, here = own_rows[i, column], rows[i, column]
        yield f"agent_{i}: found {there} in column {column} of state(), {names[column]}; expected {here}"


def _column_names(table: FeatureTable) -> list[str]:
    """Of the standard features, in order."""
    node = [feature.name for feature in table.node_features for _ in range(table.sizes[feature.size])]
    peer = [feature.name for feature in table.peer_features for _ in range(table.sizes[feature.size])]
    return node + peer * table.scenario.demand.peers


def _fresh_process(trial: Trial) -> Complaints:
    """Equal seeds and actions give equal episodes in a fresh process with other hashes."""
    if not trial.processes:
        return
    environment = os.environ | {
        "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1",
        "PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", "import dpem_env.testing; dpem_env.testing._play_for_parent()"],
        input=pickle.dumps((trial.pristine, trial.actions)),
        env=environment,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        yield f"not played ({reason}); expected an importable class, or pass processes=False"
        return
    for seed, prints in pickle.loads(done.stdout).items():
        for slot, (here, there) in enumerate(zip(trial.prints[seed], prints, strict=True)):
            yield from _differences(here, there, f"seed {seed}, slot {slot}", "those in this process")


def _play_for_parent() -> None:
    """In the fresh process: read environment and actions, write the fingerprints; prints go to stderr."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    env, actions = pickle.load(sys.stdin.buffer)
    out.write(pickle.dumps({s: [r.prints() for r in _replay(env, s, chosen)] for s, chosen in actions.items()}))


SLOT_POINTS: tuple[tuple[str, Callable[[Moment], Complaints]], ...] = (
    ("agents", _agents),
    ("end of the episode", _end),
    ("observations", _observations),
    ("infos", _infos),
    ("mask form", _mask_form),
    ("masks", _legal),
    ("rewards", _rewards),
    ("conservation of pairs", _pairs),
    ("conservation of requests", _requests),
    ("conservation of memory", _memory),
    ("swap tokens", _tokens),
    ("state", _state),
    ("illegal actions", _illegal_count),
)
EPISODE_POINTS: tuple[tuple[str, Callable[[Trial], Complaints]], ...] = (
    ("spaces", _spaces),
    ("determinism", _determinism),
    ("seeds", _seeds),
    ("copies", _copies),
    ("masks", _masks),
    ("illegal actions", _illegal),
    ("aliasing", _aliasing),
    ("samples", _samples),
    ("refusals", _refusals),
    ("looking", _looking),
    ("rules", _rules),
    ("resets", _resets),
    ("arguments", _arguments),
    ("fresh process", _fresh_process),
)
