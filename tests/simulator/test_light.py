"""Links whose light is chosen with the quality: darker ones are better, and come later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_env import physics, scenarios
from dpem_env.network.network import build_network
from dpem_env.network.routes import pairs_per_link, pumped_werner
from dpem_env.simulator.randomness import TRANSMISSION

from .hand_drawn import HandDrawn, Phase, draw

BRIGHT = (0.2, 0.1, 0.05)
CHOSEN: dict[str, Any] = {"link_model": "single-click", "bright_state": BRIGHT, "link_fidelity": 0.9, "qualities": 3}
LINK = ((0, 1),)


def link(**fields: Any) -> HandDrawn:
    return draw(LINK, {0: (1,), 1: (0,)}, **CHOSEN | fields)


def test_success_goes_with_the_bright_state_and_fidelity_with_what_is_dark() -> None:
    world = link(attenuation=0.3).world
    assert world.link_transmission[:, 0] == pytest.approx(2 * np.array(BRIGHT) * 10**-0.15)  # 10 km, half way
    assert physics.fidelity_from_werner(world.fresh_werner[:, 0]) == pytest.approx(0.9 * (1 - np.array(BRIGHT)))


@pytest.mark.parametrize("quality", [1, 2, 3])
def test_the_first_pair_to_arrive_is_all_that_a_quality_asks_for(quality: int) -> None:
    drawn = link()
    drawn.world.link_transmission[:] = 1.0
    drawn.open(0, 0, quality=quality)
    drawn.emit(n0=2, n1=2)
    changed = drawn.play(Phase.GENERATE)
    assert changed["alloc_complete"] == {(0, 0): 1}
    assert changed["link_werner"] == {(0, 0, 0): drawn.world.fresh_werner[quality - 1, 0]}
    assert changed["tally"]["UNCLAIMED"] == 3
    assert "PURIFIED_AWAY" not in changed["tally"]


def test_what_arrives_for_a_bright_link_may_be_lost_for_a_dark_one() -> None:
    for quality, arrives in ((1, True), (2, False)):
        drawn = link()
        drawn.open(0, 0, quality=quality)
        bright, dark = drawn.world.link_transmission[:2, 0]
        drawn.seek_outcomes(lambda: dark <= drawn.draw("outcome", TRANSMISSION, 0) < bright)  # noqa: B023
        drawn.emit(n0=1) if drawn.world.link_emitter[0] == 0 else drawn.emit(n1=1)
        assert ("LOST_IN_FIBRE" not in drawn.play(Phase.GENERATE)["tally"]) == arrives


def test_routes_and_planners_count_one_arrival_for_every_quality_which_takes_longer() -> None:
    scenario = scenarios.get("chain3-v0", **CHOSEN)
    topology = build_network(scenario, 0).topology
    one, better = pairs_per_link(topology, scenario), pumped_werner(topology, scenario)
    assert one[:, 0] == pytest.approx(BRIGHT[0] / np.array(BRIGHT))
    assert physics.fidelity_from_werner(better[:, 0]) == pytest.approx(0.9 * (1 - np.array(BRIGHT)))


def test_a_number_is_purified_as_before() -> None:
    scenario = scenarios.get("chain3-v0", **CHOSEN | {"bright_state": 0.2})
    topology = build_network(scenario, 0).topology
    fresh, noise = physics.werner_from_fidelity(0.9 * 0.8), (0.995, 0.998)
    for quality in (1, 2, 3):
        assert pumped_werner(topology, scenario)[quality - 1, 0] == physics.pumped_werner(fresh, quality, *noise)
        assert pairs_per_link(topology, scenario)[quality - 1, 0] == physics.pairs_per_link(fresh, quality, *noise)
