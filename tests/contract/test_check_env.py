"""The contract checker: it accepts the environments as they are and finds planted defects."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dpem_env import parallel_env
from dpem_env.errors import ContractError, DpemError
from dpem_env.forecast import MovingAverage
from dpem_env.parallel_env import EntanglementEnv
from dpem_env.session import EpisodeChoice
from dpem_env.simulator import Tally
from dpem_env.testing import EPISODE_POINTS, SLOT_POINTS, check_env

SLOTS = 40


@pytest.mark.parametrize(
    ("scenario", "slots", "arguments"),
    [
        ("chain3-v0", 120, {}),
        ("star8-v0", 120, {}),
        ("mesh20-v0", 60, {}),
        ("mesh20-v0", 60, {"observation": "dict"}),
        ("mesh20-v0", 60, {"routes": True}),
        ("mesh20-v0", 60, {"forecaster": "moving-average"}),
        ("mesh100-outages-v0", 12, {}),
    ],
)
def test_the_environment_keeps_its_contract(scenario: str, slots: int, arguments: dict[str, Any]) -> None:
    check_env(parallel_env(scenario, **arguments), slots=slots)


@pytest.mark.parametrize("scenario", ["chain3-v0", "star8-v0", "mesh20-v0", "mesh100-v0", "mesh100-outages-v0"])
@pytest.mark.parametrize("forecaster", ["permuted-oracle", "seasonal"])
def test_all_options_together_keep_it(scenario: str, forecaster: str) -> None:
    everything = parallel_env(scenario, observation="dict", routes=True, forecaster=forecaster, split="validation")
    check_env(everything, seeds=(3, 2, 5), slots=10, processes=False)


def test_nothing_is_written_and_the_environment_stays_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    env = parallel_env("chain3-v0", forecaster="moving-average", max_cycles=20)
    env.reset(seed=5)
    env.step(dict.fromkeys(env.agents, 1))
    before, drawn = pickle.dumps(env), np.random.get_state()[1]  # noqa: NPY002
    check_env(env)
    assert pickle.dumps(env) == before
    assert np.array_equal(np.random.get_state()[1], drawn)  # noqa: NPY002
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_shortest_episodes_are_checked_too(slots: int) -> None:
    check_env(parallel_env("mesh20-v0"), slots=slots, processes=False)


# ------------------------------------------------------------------------------------------------ planted defects


class Unchanged(EntanglementEnv):
    """A subclass without a defect: what the planted ones are built on. `slot` slots have been played."""

    slot = 0

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.slot = 0
        return super().reset(seed, options)

    def step(self, actions: dict[str, int]) -> Any:
        self.slot += 1
        return super().step(actions)


class GlobalRandomness(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        if self.slot >= 4 and np.random.random() < 0.5:  # noqa: NPY002
            actions = dict.fromkeys(actions, 0)
        return super().step(actions)


class GlobalSeed(Unchanged):
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        np.random.seed(seed)  # noqa: NPY002
        return super().reset(seed, options)


class LeftFromBefore(Unchanged):
    episodes = 0

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.episodes += 1
        return super().reset(seed, options)

    def step(self, actions: dict[str, int]) -> Any:
        if self.episodes > 2 and self.slot == 7:
            actions = dict.fromkeys(actions, 0)
        return super().step(actions)


class OneEpisodeOnly(Unchanged):
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(0, options)


class OneBuffer(Unchanged):
    buffer: Any = None

    def _observe(self) -> Any:
        observations, infos = super()._observe()
        rows = np.stack(list(observations.values()))
        self.buffer = rows if self.buffer is None else self.buffer
        self.buffer[:] = rows
        return dict(zip(observations, self.buffer, strict=True)), infos


class OneMaskBuffer(Unchanged):
    buffer: Any = None

    def _observe(self) -> Any:
        observations, infos = super()._observe()
        mask = infos["agent_1"]["action_mask"]
        self.buffer = mask if self.buffer is None else self.buffer
        self.buffer[:] = mask
        infos["agent_1"]["action_mask"] = self.buffer
        return observations, infos


class OneRewardDict(Unchanged):
    given: Any = None

    def step(self, actions: dict[str, int]) -> Any:
        observations, rewards, *rest = super().step(actions)
        self.given = rewards if self.given is None else self.given
        self.given.update(rewards)
        return observations, self.given, *rest


class TwoAgentsOneMask(Unchanged):
    """Equal in content, but what one agent writes the other reads."""

    def _observe(self) -> Any:
        observations, infos = super()._observe()
        masks = [info["action_mask"] for info in infos.values()]
        if np.array_equal(masks[0], masks[1]):
            infos["agent_1"]["action_mask"] = masks[0]
        return observations, infos


class ReadsWhatItReturned(Unchanged):
    last: Any = None

    def _observe(self) -> Any:
        if self.slot > 0 and not self.last["agent_0"].any():
            self._illegal[0] += 1
        self.last, infos = super()._observe()
        return self.last, infos


class ForbidsALegalAction(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        infos["agent_2"]["action_mask"][2] = 0
        return observations, infos


class AllowsAnIllegalAction(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        infos["agent_1"]["action_mask"][1:] = 1
        return observations, infos


class ForbidsWaiting(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        infos["agent_1"]["action_mask"][0] = 0
        return observations, infos


class WideMask(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        infos["agent_1"]["action_mask"] = infos["agent_1"]["action_mask"].astype(np.int64)
        return observations, infos


class ContinuousActions(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.action_spaces["agent_1"] = spaces.Box(0.0, 1.0)


class NoMask(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        del infos["agent_1"]["action_mask"]
        return observations, infos


class TruncatedEarly(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        returned[3]["agent_1"] |= self.slot == 7
        return returned


class Terminated(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        returned[2]["agent_1"] = self.slot == SLOTS
        return returned


class NeverOver(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        self.agents = self.possible_agents[:]
        return returned


class NoFinalObservation(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        if self.slot == SLOTS:
            del returned[0]["agent_1"]
        return returned


class OutsideByAHair(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        if self.slot == SLOTS - 1:
            observations["agent_1"][3] = np.nextafter(np.float32(1), np.float32(2))
        return observations, infos


class NarrowerFloats(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        return observations | {"agent_1": observations["agent_1"].astype(np.float16)}, infos


class LostPairs(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        self.session.simulator.state.tally[0, Tally.EMITTED] += self.slot == 11
        return returned


class LostFinishedPair(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        self.session.simulator.state.tally[0, Tally.FINISHED] += self.slot == 11
        return returned


class LostRequest(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        self.session.simulator.state.tally[0, Tally.EXPIRED] += self.slot == 12
        return returned


class QubitLeak(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        self.session.simulator.state.free_memory[0, 1] -= self.slot == 12
        return super().step(actions)


class TokensBeyondTheCap(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        self.session.simulator.state.tokens[0, 1] += 10.0 * (self.slot == 13)
        return returned


class SharedSimulator(Unchanged):
    def __deepcopy__(self, memo: dict[int, Any]) -> SharedSimulator:
        other = copy.copy(self)
        other.agents = self.agents[:]
        return other


class CopyWithoutTokens(Unchanged):
    def __deepcopy__(self, memo: dict[int, Any]) -> CopyWithoutTokens:
        other = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        if self.slot > 0:
            other.session.simulator.state.tokens[:] = 0.0
        return other


class SharedForecaster(Unchanged):
    def __deepcopy__(self, memo: dict[int, Any]) -> SharedForecaster:
        memo[id(self.session.forecaster)] = self.session.forecaster
        other = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class Forgetful(MovingAverage):
    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if "_sum" in state:
            state["_sum"] = np.zeros_like(state["_sum"])
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Forgetful:
        other = Forgetful(self.window)
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class ForgottenGenerator(Unchanged):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._choice = EpisodeChoice(self.scenario, self.split)


class Unpicklable(Unchanged):
    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("no way")

    def __deepcopy__(self, memo: dict[int, Any]) -> Unpicklable:
        other = Unpicklable("chain3-v0", max_cycles=self.max_cycles)
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class NewSpaces(Unchanged):
    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(self.action_spaces[agent].n)


class OtherSpacesInAPickle(Unchanged):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.action_spaces["agent_2"] = spaces.Discrete(5)

    def __deepcopy__(self, memo: dict[int, Any]) -> OtherSpacesInAPickle:
        other = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class OtherStateSpaceInAPickle(OtherSpacesInAPickle):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state_space = spaces.Box(0.0, 2.0, self.state_space.shape, np.float32)


class StaleState(Unchanged):
    shown: Any = None
    next: Any = None

    def _observe(self) -> Any:
        self.shown = self.next if self.slot else None
        self.next = super().state()
        return super()._observe()

    def state(self) -> Any:
        return super().state() if self.shown is None else self.shown.copy()


class StateOutsideItsSpace(Unchanged):
    def state(self) -> Any:
        return super().state() * (1.5 if self.slot == 9 else 1.0)


class StateOfOneAgent(Unchanged):
    """In a space of its own, but not what all agents know."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.state_space = self.observation_space("agent_0")

    def state(self) -> Any:
        return super().state()[: self.state_space.shape[0]]


class HashOrder(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        for info in infos.values():
            info["peers"] = list({f"peer_{i}" for i in range(20)})
        return observations, infos


class FreeContention(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        observations, rewards, *rest = super().step(actions)
        state = self.session.simulator.state
        charged = {agent: float(n) for agent, n in zip(rewards, state.delivered[0], strict=True)}
        return observations, charged, *rest


class NoNumber(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, rewards | ({"agent_1": float("nan")} if self.slot == 20 else {}), *rest


class Uncounted(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        infos["agent_1"]["illegal_actions"] = min(infos["agent_1"]["illegal_actions"], 1)
        return observations, infos


class IllegalActionsCostTokens(Unchanged):
    """Counted, but no waits."""

    def step(self, actions: dict[str, int]) -> Any:
        illegal = [i for i, a in enumerate(actions.values()) if not 0 <= a < self.action_space("agent_0").n]
        if illegal:
            self.session.simulator.state.tokens[0, illegal] = 0.0
        return super().step(actions)


class IllegalActionsLeaveATrace(Unchanged):
    """Where no agent sees it."""

    def step(self, actions: dict[str, int]) -> Any:
        returned = super().step(actions)
        self.session.simulator.state.request_from_stock[0, 0] = self.action_space("agent_0").n in actions.values()
        return returned


class OtherAgentOrder(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, dict(sorted(rewards.items(), reverse=True)), *rest


DEFECTS = [
    (GlobalRandomness, "determinism", "differ from the first time"),
    (GlobalSeed, "determinism", "the global generator of numpy.random was drawn from or seeded"),
    (LeftFromBefore, "determinism", "slot 8"),
    (OneEpisodeOnly, "seeds", "seed 1 plays the episode of seed 0"),
    (OneBuffer, "aliasing", "observations of agent_0 changed"),
    (OneMaskBuffer, "aliasing", "infos of agent_1"),
    (OneRewardDict, "aliasing", "rewards of agent_"),
    (TwoAgentsOneMask, "aliasing", "share memory"),
    (ReadsWhatItReturned, "aliasing", "written to"),
    (ForbidsALegalAction, "masks", "agent_2: mask of action 2 is 0; the simulator accepts it"),
    (AllowsAnIllegalAction, "masks", "agent_1: mask of action 1 is 1; the simulator refuses it"),
    (ForbidsWaiting, "mask form", "agent_1: action_mask begins with 0"),
    (WideMask, "mask form", "agent_1: action_mask is int64 (7,); expected int8 (7,)"),
    (ContinuousActions, "mask form", "agent_1: action space is Box(0.0, 1.0, (1,), float32); expected Discrete"),
    (NoMask, "infos", "agent_1: found illegal_actions; expected 'action_mask'"),
    (TruncatedEarly, "end of the episode", "slot 7: agent_1 is truncated"),
    (Terminated, "end of the episode", f"slot {SLOTS}: agent_1 is terminated"),
    (NeverOver, "end of the episode", f"slot {SLOTS}: agents holds 3 agents; expected 0"),
    (NoFinalObservation, "agents", f"slot {SLOTS}: observations: nothing for agent_1"),
    (OtherAgentOrder, "agents", "rewards: agent_2 first"),
    (OutsideByAHair, "observations", f"slot {SLOTS - 1}: agent_1: column 3: found"),
    (NarrowerFloats, "observations", "agent_1: found float16"),
    (LostPairs, "conservation of pairs", "slot 11: "),
    (LostFinishedPair, "conservation of pairs", "pairs finished; expected"),
    (LostRequest, "conservation of requests", "slot 12: "),
    (QubitLeak, "conservation of memory", "slot 13: agent_1: "),
    (TokensBeyondTheCap, "swap tokens", "slot 13: agent_1: "),
    (SharedSimulator, "copies", "deep copy, seed 0, slot 20: a step of the copy changes the original"),
    (CopyWithoutTokens, "copies", "deep copy, seed 0, slot 20: the simulator's state differs from the original's"),
    (SharedForecaster, "copies", "deep copy made in slot 20"),
    (ForgottenGenerator, "copies", "reset(): state() differ from the original's"),
    (Unpicklable, "copies", "cannot be pickled (no way)"),
    (NewSpaces, "spaces", "agent_0: action_space() returns a new object"),
    (OtherSpacesInAPickle, "spaces", "agent_2: action_space is Discrete(5) in a pickled copy"),
    (OtherStateSpaceInAPickle, "spaces", "state_space is Box(0.0, 2.0"),
    (StaleState, "state", "as observed"),
    (StateOutsideItsSpace, "state", "slot 9: column "),
    (StateOfOneAgent, "state", "expected N * F"),
    (FreeContention, "rewards", "contended"),
    (NoNumber, "rewards", "slot 20: agent_1: found nan; expected a finite number"),
    (Uncounted, "illegal actions", "agent_1: found 1 in the info; expected 2"),
    (IllegalActionsCostTokens, "illegal actions", "after a wait"),
    (IllegalActionsLeaveATrace, "illegal actions", "request_from_stock of the simulator differs"),
]


class VectorsAlone(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        return observations | {"agent_1": observations["agent_1"]["observation"]}, infos


class OutsideInADict(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        observations["agent_1"]["observation"][3] = 1.5
        return observations, infos


class TwoOpinions(Unchanged):
    def _observe(self) -> Any:
        observations, infos = super()._observe()
        observations["agent_1"]["action_mask"][2] ^= 1
        return observations, infos


DEFECTS_OF_DICTS = [
    (VectorsAlone, "observations", "agent_1: found ndarray; expected a dict of"),
    (OutsideInADict, "observations", "agent_1: observation: column 3: found"),
    (TwoOpinions, "mask form", "agent_1: action_mask of the observation differs from that of the info"),
]


def complaint(env: EntanglementEnv, processes: bool = False) -> str:
    """What the checker says."""
    with pytest.raises(ContractError) as error:
        check_env(env, slots=SLOTS, processes=processes)
    told = str(error.value)
    assert "\n" not in told
    return told


@pytest.mark.parametrize(("defect", "point", "words"), DEFECTS)
def test_a_planted_defect_is_found_and_named(defect: type[Unchanged], point: str, words: str) -> None:
    told = complaint(defect("chain3-v0", rows=2, forecaster="moving-average", max_cycles=3 * SLOTS))
    assert told.startswith(f"{point}: ")
    assert words in told


@pytest.mark.parametrize(("defect", "point", "words"), DEFECTS_OF_DICTS)
def test_a_defect_of_dict_observations_is_found_and_named(defect: type[Unchanged], point: str, words: str) -> None:
    told = complaint(defect("chain3-v0", observation="dict"))
    assert told.startswith(f"{point}: ")
    assert words in told


def test_a_subclass_without_defects_passes() -> None:
    check_env(Unchanged("chain3-v0", forecaster="moving-average"), slots=SLOTS, processes=False)


def test_a_forecaster_that_loses_its_memory_in_a_pickle_is_found() -> None:
    told = complaint(parallel_env("chain3-v0", forecaster=Forgetful()))
    assert told.startswith("copies: pickled copy made in slot 20, the copy: seed 0, slot 21: ")


def test_what_depends_on_hashes_is_found_in_a_fresh_process() -> None:
    told = complaint(HashOrder("chain3-v0"), processes=True)
    assert told == "fresh process: seed 0, slot 0: infos of agent_0 differ from those in this process"


def test_what_the_fresh_process_cannot_rebuild_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [folder for folder in sys.path if not folder.endswith("contract")])
    told = complaint(Unchanged("chain3-v0"), processes=True)
    assert told.startswith("fresh process: not played (ModuleNotFoundError")
    assert told.endswith("or pass processes=False")


def test_every_point_has_a_planted_defect() -> None:
    points = {name for name, _ in (*SLOT_POINTS, *EPISODE_POINTS)}
    assert points == {point for _, point, _ in DEFECTS} | {"fresh process"}


def test_what_cannot_be_checked_is_told() -> None:
    with pytest.raises(ContractError, match=r"^env is str; expected an EntanglementEnv without wrappers$"):
        check_env("chain3-v0")  # type: ignore[arg-type]
    with pytest.raises(DpemError, match="two different seeds"):
        check_env(parallel_env("chain3-v0"), seeds=(4, 4))
