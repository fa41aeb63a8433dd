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
from dpem_env.demand.forecast import MovingAverage
from dpem_env.envs.forecasts import Forecasts
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.envs.session import EpisodeChoice, EpisodeSeeds, Played
from dpem_env.observations.features import NODE_FEATURES, PEER_FEATURES, ROUTE, FeatureTable, Observer
from dpem_env.simulator import Tally
from dpem_env.support.errors import ContractError, DpemError
from dpem_env.testing import EPISODE_POINTS, SLOT_POINTS, check_env
from support.observers import changed
from support.suites import few

SLOTS = 40


@pytest.mark.parametrize(
    ("scenario", "slots", "arguments"),
    few(
        [
            ("mesh20-v0", 60, {"routes": True}),
            ("swap-chain5-v0", 40, {"swapping": "agents", "discard": True, "news_period": 1.0}),
            ("chain3-v0", 120, {}),
            ("star8-v0", 120, {}),
            ("mesh20-v0", 60, {}),
            ("mesh20-v0", 60, {"observation": "dict"}),
            ("mesh20-v0", 60, {"forecaster": "moving-average"}),
            ("mesh100-outages-v0", 12, {}),
            ("mesh20-v0", 16, {"silence": {"share": 0.3, "start": 1.0, "duration": 2.0}}),
        ],
        2,
    ),
)
def test_the_environment_keeps_its_contract(scenario: str, slots: int, arguments: dict[str, Any]) -> None:
    check_env(parallel_env(scenario, **arguments), slots=slots)


@pytest.mark.parametrize("scenario", few(["mesh20-v0", "mesh100-outages-v0", "chain3-v0", "star8-v0", "mesh100-v0"], 2))
@pytest.mark.parametrize("forecaster", few(["permuted-oracle", "seasonal"]))
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

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        for told in (*infos.values(), *observations.values()):
            if isinstance(told, dict) and "action_mask" in told:
                told["action_mask"] = told["action_mask"].copy()
        return observations, infos


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

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        rows = np.stack(list(observations.values()))
        self.buffer = rows if self.buffer is None else self.buffer
        self.buffer[:] = rows
        return dict(zip(observations, self.buffer, strict=True)), infos


class OneMaskBuffer(Unchanged):
    buffer: Any = None

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
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

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        masks = [info["action_mask"] for info in infos.values()]
        if np.array_equal(masks[0], masks[1]):
            infos["agent_1"]["action_mask"] = masks[0]
        return observations, infos


class ReadsWhatItReturned(Unchanged):
    last: Any = None

    def _shown(self, played: Played) -> Any:
        if self.slot > 0 and not self.last["agent_0"].any():
            self._usual["agent_0"]["illegal_actions"] += 1
        self.last, infos = super()._shown(played)
        return self.last, infos


class ForbidsALegalActionNowAndThen(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        infos["agent_2"]["action_mask"][1] &= self.slot % 7 != 6
        return observations, infos


class AllowsTooMuchNowAndThen(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        for info in infos.values():
            info["action_mask"] |= np.int8(self.slot % 7 == 6)
        return observations, infos


class YesterdaysMasks(Unchanged):
    last: Any = None

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        today = {agent: info["action_mask"].copy() for agent, info in infos.items()}
        for agent, info in infos.items():
            info["action_mask"] = (today if self.last is None else self.last)[agent].copy()
        self.last = today
        return observations, infos


class ForbidsALegalAction(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        infos["agent_2"]["action_mask"][2] = 0
        return observations, infos


class AllowsAnIllegalAction(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        infos["agent_1"]["action_mask"][1:] = 1
        return observations, infos


class ForbidsWaiting(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        infos["agent_1"]["action_mask"][0] = 0
        return observations, infos


class WideMask(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        infos["agent_1"]["action_mask"] = infos["agent_1"]["action_mask"].astype(np.int64)
        return observations, infos


class ContinuousActions(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.action_spaces["agent_1"] = spaces.Box(0.0, 1.0)


class NoMask(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
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
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        if self.slot == SLOTS - 1:
            observations["agent_1"][3] = np.nextafter(np.float32(1), np.float32(2))
        return observations, infos


class NarrowerFloats(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
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
        self.session.choices = [EpisodeChoice(self.scenario, self.split)]


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

    def _shown(self, played: Played) -> Any:
        self.shown = self.next if self.slot else None
        self.next = super().state()
        return super()._shown(played)

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
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
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
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
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


class TakesBools(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        return super().step({agent: int(a) if a is True else a for agent, a in actions.items()})


class FillsInWaits(Unchanged):
    """For agents it was told nothing of."""

    def step(self, actions: dict[str, int]) -> Any:
        return super().step(dict.fromkeys(self.agents, 0) | actions)


class Rounds(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        return super().step({agent: int(a) if type(a) is float else a for agent, a in actions.items()})


class DropsUnknownOptions(Unchanged):
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        known = {name: seed for name, seed in (options or {}).items() if name in ("topology_seed", "demand_seed")}
        return super().reset(seed, known)


class Stumbles(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        return super().step({agent: actions[agent] for agent in self.agents} | actions)


class PlaysBeforeItRefuses(Unchanged):
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.session.begin(EpisodeSeeds(9, 9), self.max_cycles)
        return super().reset(seed, options)


class NoRenderMode(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        del self.render_mode


class PaintsNumbers(Unchanged):
    def render(self) -> Any:
        return np.zeros(3)


class RenderTakesTokens(Unchanged):
    def render(self) -> Any:
        picture = super().render()
        self.session.simulator.state.tokens[0, 1] += 0.25
        return picture


class ChecksOptions(Unchanged):
    """And plays those of `heeded`."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        EpisodeChoice(self.scenario, self.split).choose(0, options)
        return super().reset(seed, self.heeded(seed, options or {}))

    def heeded(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        return options


class IgnoresOptions(ChecksOptions):
    def heeded(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        return {}


class IgnoresTheDemandSeed(ChecksOptions):
    def heeded(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name != "demand_seed"}


class IgnoresOptionsOfASeed(ChecksOptions):
    def heeded(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        return options if seed is None else {}


class UnseededIsTheFirst(Unchanged):
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(0 if seed is None and options is None else seed, options)


class SeededOnce(Unchanged):
    seeded = False

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        first, self.seeded = not self.seeded, True
        return super().reset(seed if first else None, options)


class TrainsAlways(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"split": "train"})


class SaysAnotherSplit(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"split": "train"})
        self.split = "evaluation"


class AlwaysAsLong(Unchanged):
    """As the scenario says, whatever the caller does."""

    def __init__(self, *arguments: Any, max_cycles: int | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)


class LongerThanItSays(Unchanged):
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        returned = super().reset(seed, options)
        self.session.slots += 1
        return returned


class Clairvoyant(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"forecaster": "oracle"})


class AnotherForecaster(Unchanged):
    """A clairvoyant one, whichever was asked for."""

    def __init__(self, *arguments: Any, forecaster: Any = None, **options: Any) -> None:
        super().__init__(*arguments, forecaster=forecaster and "oracle", **options)


class AlwaysAuto(Unchanged):
    def __init__(self, *arguments: Any, routes: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)


class AnswersBeforeTheFirstReset(Unchanged):
    def state(self) -> Any:
        return super().state() if self.agents or self.slot else np.zeros(self.state_space.shape, np.float32)


class OneSpaceForAll(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.observation_spaces["agent_0"])


class CopiesShareSpaces(Unchanged):
    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesShareSpaces:
        memo[id(self.action_spaces)] = self.action_spaces
        other = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class CopiesShareTheirDraws(Unchanged):
    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesShareTheirDraws:
        memo[id(self.session.choices)] = self.session.choices
        other = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class ColumnsChanged(Unchanged):
    """What nodes see is changed by `see(table, rows)`, (N, F) in place; state() is as it was."""

    def see(self, table: FeatureTable, rows: Any) -> None:
        raise NotImplementedError

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        rows = np.stack(list(observations.values()))
        self.see(self.session.observer.table, rows)
        return dict(zip(observations, rows, strict=True)), infos


def columns(table: FeatureTable, feature: str) -> list[int]:
    """Of a feature of the first peer."""
    start = len(NODE_FEATURES) + table.offset[feature]
    size = next(table.sizes[f.size] for f in PEER_FEATURES if f.name == feature)
    return list(range(start, start + size))


class FreshTelemetry(ColumnsChanged):
    def see(self, table: FeatureTable, rows: Any) -> None:
        for feature in (f.name for f in PEER_FEATURES if f.age == ROUTE):
            now = self.session.global_state()
            rows[:, columns(table, feature)] = now[:, columns(table, feature)]


class TelemetryASlotEarly(Unchanged):
    """In the simulator itself."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        rules = self.session.simulator.rules
        self.session.simulator.rules = rules._replace(route_delay=rules.route_delay - 1)


class YesterdaysTelemetry(ColumnsChanged):
    last: Any = None

    def see(self, table: FeatureTable, rows: Any) -> None:
        load, last = columns(table, "route_load"), self.last
        self.last = rows[:, load].copy()
        if self.slot and last is not None:
            rows[:, load] = last


class MemoryOfTheMean(Unchanged):
    """In the observations and in state()."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.session.observer = MeanMemory(self.session.simulator, self.session.observer.routes)


class MeanMemory(Observer):
    def observing(self, forecast: Any = None, fresh: bool = False) -> Any:
        return changed(super().observing(forecast, fresh), self.remember)

    def remember(self, rows: Any) -> None:
        rows[:, :, 0] = rows[:, :, 0].mean()


class TheFuture(Observer):
    """True requests of the next slots where no forecaster was asked for."""

    session: Any = None

    def observing(self, forecast: Any = None, fresh: bool = False) -> Any:
        return changed(super().observing(forecast, fresh), self.foresee)

    def foresee(self, rows: Any) -> None:
        requests, (first, *_, last) = self.session.demand.requests, columns(self.table, "forecast")
        for slot, source in zip(requests.slot, requests.source, strict=True):
            ahead = slot - self.session.slot - 1
            if 0 <= ahead <= last - first:
                rows[0, source, first + ahead] = 1.0


class SeesTheFuture(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.session.observer = TheFuture(self.session.simulator)
        self.session.observer.session = self.session


class AnOracleFromTheFirstReset(Unchanged):
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.session.forecasts = Forecasts(self.scenario, "oracle", 1)
        return super().reset(seed, options)


class ForecastASlotLate(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.session.forecasts = LateForecasts(self.scenario, self.session.forecaster, 1)


class LateForecasts(Forecasts):
    last: Any = None

    def begin(self, episodes: Any) -> None:
        super().begin(episodes)
        self.last = None

    def predict(self, lead: int = 0) -> Any:
        now = super().predict(lead)
        shown, self.last = now if self.last is None else self.last, now
        return shown


class RowsOfOthers(Unchanged):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.session.observer = Turned(self.session.simulator)


class Turned(Observer):
    def observing(self, forecast: Any = None, fresh: bool = False) -> Any:
        return changed(super().observing(forecast, fresh), self.turn)

    def turn(self, rows: Any) -> None:
        rows[:] = np.roll(rows, 1, axis=1)


class StaleGlobalState(Unchanged):
    """Remote features of state() are those that nodes see."""

    def state(self) -> Any:
        return self.session.observations().ravel()


class SwapsTwoAgents(Unchanged):
    """Whose actions are then each other's, as are their illegal ones."""

    def step(self, actions: dict[str, int]) -> Any:
        if self.slot == 27 and len(actions) == len(self.agents):
            actions = actions | {"agent_0": actions["agent_2"], "agent_2": actions["agent_0"]}
        return super().step(actions)


class AnotherRule(Unchanged):
    """Swaps succeed more often than the scenario says."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.session.simulator.rules = self.session.simulator.rules._replace(swap_success=1.0)


class RewardsOfNeighbours(Unchanged):
    def step(self, actions: dict[str, int]) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, dict(zip(rewards, np.roll(list(rewards.values()), 1).tolist(), strict=True)), *rest


class RewardsASlotLate(Unchanged):
    last: Any = None

    def step(self, actions: dict[str, int]) -> Any:
        observations, rewards, *rest = super().step(actions)
        shown, self.last = self.last or dict.fromkeys(rewards, 0.0), rewards
        return observations, shown, *rest


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
    (ForbidsALegalActionNowAndThen, "masks", "slot 6: agent_2: mask of action 1 is 0; the simulator accepts it"),
    (AllowsTooMuchNowAndThen, "masks", "is 1; the simulator refuses it"),
    (YesterdaysMasks, "masks", "the simulator"),
    (ForbidsALegalAction, "masks", "agent_2: mask of action 2 is 0; the simulator accepts it"),
    (AllowsAnIllegalAction, "masks", "agent_1: mask of action 1 is 1; the simulator refuses it"),
    (ForbidsWaiting, "mask form", "agent_1: action_mask begins with 0"),
    (WideMask, "mask form", "agent_1: action_mask is int64 (7,); expected int8 (7,)"),
    (ContinuousActions, "mask form", "agent_1: action space is Box(0.0, 1.0, (1,), float32); expected Discrete"),
    (NoMask, "infos", "agent_1: found illegal_actions, delivered, contended; expected 'action_mask'"),
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
    (RewardsOfNeighbours, "rewards", "contended"),
    (RewardsASlotLate, "rewards", "contended"),
    (LongerThanItSays, "end of the episode", f"slot {SLOTS}: agent_0 is not truncated"),
    (SeededOnce, "determinism", "differ from the first time"),
    (CopiesShareTheirDraws, "copies", "reset(): "),
    (OneSpaceForAll, "samples", "observation_space shares its generator"),
    (CopiesShareSpaces, "samples", "action_space shares its generator"),
    (TakesBools, "refusals", "step() with a bool among ints is answered"),
    (FillsInWaits, "refusals", "step() without an agent is answered"),
    (Rounds, "refusals", "step() with a float is answered"),
    (Stumbles, "refusals", "step() without an agent raises KeyError"),
    (DropsUnknownOptions, "refusals", "reset() with a misspelt option is answered"),
    (PlaysBeforeItRefuses, "refusals", "changes the simulator's state"),
    (NoRenderMode, "looking", "render_mode is missing"),
    (PaintsNumbers, "looking", "render() returns float64, 1 axes; expected None"),
    (RenderTakesTokens, "looking", "differs after state() and render()"),
    (IgnoresOptions, "resets", "reset(seed=None, options={'topology_seed': 7, 'demand_seed': 11}): plays"),
    (IgnoresTheDemandSeed, "resets", "'demand_seed': 11}): plays"),
    (IgnoresOptionsOfASeed, "resets", "reset(seed=1, options={'topology_seed': 5}): plays"),
    (UnseededIsTheFirst, "resets", "reset(seed=None, options=None): plays"),
    (SaysAnotherSplit, "rules", "seed 0, slot 0: agent_0: found"),
    (
        TrainsAlways,
        "arguments",
        "split='validation', forecaster='persistence', routes=True: plays EpisodeSeeds(topology=0",
    ),
    (AlwaysAsLong, "arguments", "split='train', max_cycles=2: slot 0: "),
    (Clairvoyant, "arguments", "forecast; expected 0.0"),
    (AnotherForecaster, "arguments", "forecaster='persistence', routes=True: slot 0: agent_0: found"),
    (AlwaysAuto, "arguments", "routes=True: slot 0: agent_0: another action_mask than expected"),
    (AnswersBeforeTheFirstReset, "arguments", "state() before the first reset() is answered"),
    (FreshTelemetry, "rules", "expected 0.0"),
    (TelemetryASlotEarly, "rules", "slot 0: agent_0: found 1.0 in column 18, route_up; expected 0.0"),
    (YesterdaysTelemetry, "rules", "route_load"),
    (MemoryOfTheMean, "rules", "in column 0, free_memory"),
    (ForecastASlotLate, "rules", "forecast"),
    (RowsOfOthers, "rules", "agent_0: found"),
    (StaleGlobalState, "rules", "of state(), "),
    (SwapsTwoAgents, "rules", "seed 0, slot "),
    (AnotherRule, "rules", "useful_in_time"),
    (IllegalActionsLeaveATrace, "illegal actions", "request_from_stock of the simulator differs"),
]


class VectorsAlone(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        return observations | {"agent_1": observations["agent_1"]["observation"]}, infos


class OutsideInADict(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        observations["agent_1"]["observation"][3] = 1.5
        return observations, infos


class TwoMasks(Unchanged):
    """TorchRL's wrapper takes out one and stops at the other."""

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        infos["agent_1"]["action_mask"] = observations["agent_1"]["action_mask"].copy()
        return observations, infos


class ForbidsInADictNowAndThen(Unchanged):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        observations["agent_2"]["action_mask"][1] &= self.slot % 7 != 6
        return observations, infos


DEFECTS_OF_DICTS = [
    (VectorsAlone, "observations", "agent_1: found ndarray; expected a dict of"),
    (OutsideInADict, "observations", "agent_1: observation: column 3: found"),
    (TwoMasks, "infos", "contended, action_mask; expected 'action_mask' in the observation alone"),
    (ForbidsInADictNowAndThen, "masks", "slot 6: agent_2: mask of action 1 is 0; the simulator accepts it"),
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
    told = complaint(defect("chain3-v0", rows=2, forecaster="moving-average", max_cycles=3 * SLOTS, news_delay=0.5))
    assert told.startswith(f"{point}: ")
    assert words in told


@pytest.mark.parametrize(("defect", "point", "words"), DEFECTS_OF_DICTS)
def test_a_defect_of_dict_observations_is_found_and_named(defect: type[Unchanged], point: str, words: str) -> None:
    told = complaint(defect("chain3-v0", observation="dict"))
    assert told.startswith(f"{point}: ")
    assert words in told


@pytest.mark.parametrize("defect", [SeesTheFuture, AnOracleFromTheFirstReset])
def test_a_forecast_of_an_environment_without_forecaster_is_found(defect: type[Unchanged]) -> None:
    told = complaint(defect("chain3-v0"))
    assert told.startswith(("resets: ", "rules: "))
    assert "forecast; expected 0.0" in told


class RoutesMixedUp(Unchanged):
    """Every named route is the next one of its peer."""

    def step(self, actions: dict[str, int]) -> Any:
        k = self.scenario.routing.routes_per_peer
        turned = {
            agent: (a - 1) // k * k + a % k + 1 if type(a) is int and 0 < a < self.action_space(agent).n else a
            for agent, a in actions.items()
        }
        return super().step(turned)


def test_a_defect_of_named_routes_is_found() -> None:
    told = complaint(RoutesMixedUp("mesh20-v0", routes=True))
    assert told.startswith("illegal actions: ")


class WithOwnFeatures(Unchanged):
    """Own features behind the standard ones, an own info, and an own constructor: no defects."""

    def __init__(self, scenario: str, more: int) -> None:
        super().__init__(scenario)
        self.more = more
        width = self.session.observer.table.width + more
        self.observation_spaces = {a: spaces.Box(0.0, 1.0, (width,), np.float32) for a in self.possible_agents}
        self.state_space = spaces.Box(0.0, 1.0, (len(self.possible_agents) * width,), np.float32)

    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        own = np.full(self.more, 0.5, np.float32)
        return {agent: np.append(row, own) for agent, row in observations.items()}, {
            agent: info | {"load": 1} for agent, info in infos.items()
        }

    def state(self) -> Any:
        rows = super().state().reshape(len(self.possible_agents), -1)
        return np.append(rows, np.full((len(rows), self.more), 0.5, np.float32), axis=1).ravel()


def test_features_infos_and_a_constructor_of_ones_own_are_no_defects() -> None:
    check_env(WithOwnFeatures("chain3-v0", 2), slots=SLOTS)


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
