"""What is idealised, measured in episodes: reserved memory, pairs of others, and worlds that differ in one thing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.statistics import mean_interval, paired_difference
from dpem_env.policies import Decision, get_policy
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Status
from dpem_env.support.files import write_json

AMPLE = 240  # qubits more for every node, more than can be claimed
DIGITS = 5


class Watch:
    """Sums over the slots of episodes."""

    def __init__(self) -> None:
        self.memory = self.stored = 0  # qubits · slots there are, and those of stored pairs
        self.paired = self.empty = 0  # qubits · slots of open allocations, with and without a pair
        self.purifying = 0  # ends of links · slots that hold a pair and wait for another to purify it with
        self.most_purifying = 0  # at any node in any slot
        self.requests = self.expired = self.elsewhere = 0  # all; of these expired; of these with a pair elsewhere

    def begin(self, session: Session, label: str) -> None:
        """An episode begins."""
        self.servable = np.zeros(len(session.demand.requests.slot), dtype=bool)

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        """A slot has been played."""
        world, state = session.simulator.world, session.simulator.state_of(0)
        node, row = np.nonzero(state["alloc_peer"] >= 0)
        place, route = state["alloc_peer"][node, row], state["alloc_route"][node, row]
        rounds = state["link_rounds"][node, row]  # -1 where no pair starts
        paired = 2 * int((rounds >= 0).sum())
        self.memory += int(world.memory[0].sum())
        self.stored += 2 * int(state["stock_count"].sum())
        self.paired += paired
        self.empty += 2 * int(world.route_hops[0, node, place, route].sum()) - paired
        which, hop = np.nonzero((rounds >= 0) & (rounds < state["alloc_quality"][node, row, None] - 1))
        ends = [world.route_nodes[0, node[which], place[which], route[which], hop + end] for end in (0, 1)]
        at = np.bincount(np.concatenate(ends), minlength=session.network.num_nodes)
        self.purifying += int(at.sum())
        self.most_purifying = max(self.most_purifying, int(at.max()))
        self.servable |= pending(session, state) & elsewhere(session, state)
        if session.done:
            status = state["request_status"][: len(self.servable)]
            self.requests += len(status)
            self.expired += int((status == Status.EXPIRED).sum())
            self.elsewhere += int(((status == Status.EXPIRED) & self.servable).sum())

    def told(self) -> dict[str, Any]:
        """Shares of what there was."""
        shares = {
            "stored": self.stored / self.memory,
            "paired": self.paired / self.memory,
            "empty": self.empty / self.memory,
            "purifying": self.purifying / self.memory,
            "expired": self.expired / self.requests,
            "elsewhere": self.elsewhere / self.requests,
        }
        return {name: round(share, DIGITS) for name, share in shares.items()} | {"most_purifying": self.most_purifying}


def pending(session: Session, state: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """(R,) which requests wait."""
    waits: NDArray[np.bool_] = state["request_status"][: len(session.demand.requests.slot)] == Status.PENDING
    return waits


def elsewhere(session: Session, state: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """(R,) for which requests their destination has a stored pair with their source that is good enough."""
    peers, requests = session.network.peers, session.demand.requests
    best = np.full((session.network.num_nodes,) * 2, -1.0)  # Werner parameter, by owner and partner
    owner, place = np.nonzero(np.arange(state["stock_peer"].shape[1]) < state["stock_count"][:, None])
    held = peers[owner, state["stock_peer"][owner, place]]
    np.maximum.at(best, (owner, held), state["stock_werner"][owner, place])
    needed = session.simulator.rules.class_werner[requests.wanted]
    good: NDArray[np.bool_] = best[peers[requests.source, requests.peer], requests.source] >= needed
    return good


def with_ample_memory(scenario: Scenario) -> Scenario:
    """The same networks with more memory: a range as wide takes as many random numbers."""
    low, high = scenario.hardware.memory
    return scenario.override(memory=(low + AMPLE, high + AMPLE))


def with_slots_halved(scenario: Scenario) -> Scenario:
    """The same times in seconds, in slots of half the length."""
    control, slots = scenario.control, scenario.episode.slots
    return scenario.override(
        slot_duration=control.slot_duration / 2,
        slots=2 * slots,
        telemetry_delay=2 * control.telemetry_delay,
        news_delay=control.news_delay or (control.slot_duration if control.news_period else None),
        forecast_horizon=2 * scenario.observation.forecast_horizon,
    )


def delivered(scenario: Scenario, policy: str, seeds: int, watch: Watch | None = None) -> list[float]:
    """Delivery rate of every episode."""
    return [
        run_episode(scenario, get_policy(policy), episode_seeds(scenario, "evaluation", k), recorder=watch)[
            0
        ].delivery_rate
        for k in range(seeds)
    ]


def measured(scenario: Scenario, policy: str, seeds: int) -> dict[str, Any]:
    """What a policy's episodes say, and how much more it delivers in other worlds."""
    rng, watch = np.random.default_rng(0), Watch()
    as_is = delivered(scenario, policy, seeds, watch)
    ample = delivered(with_ample_memory(scenario), policy, seeds)
    halved = delivered(with_slots_halved(scenario), policy, seeds)
    intervals = {
        "delivered": mean_interval([as_is], rng),
        "with_ample_memory": paired_difference([ample], [as_is], rng),
        "with_slots_halved": paired_difference([halved], [as_is], rng),
    }
    return watch.told() | {name: [round(part, DIGITS) for part in found] for name, found in intervals.items()}


def main() -> None:
    """Play, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--policy", action="append", required=True)
    parser.add_argument("--seeds", type=int, required=True, help="evaluation episodes")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    scenario = scenarios.get(given.scenario)
    rows = [{"policy": policy} | measured(scenario, policy, given.seeds) for policy in given.policy]
    about = {"scenario": scenario.name, "hash": scenario.hash, "seeds": given.seeds}
    write_json(given.out, about | {"rows": rows})


if __name__ == "__main__":
    main()
