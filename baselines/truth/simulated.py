"""Mean delivery times of the simulator's repeater chains beside the exact ones, as dpem reproduce truth has them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dpem_baselines.swap_chain import SwapChain, asap, mean_delivery_time, nested
from dpem_baselines.swapping import SwapOptimal, solved
from dpem_env.experiments.delivery_time import DeliveryTime, delivery_time
from dpem_env.report.tables import progress
from dpem_env.scenarios import Scenario, get
from dpem_env.support.files import write_json

# Those with a published time, and chains of other lengths, probabilities and cut-offs.
CHAINS = (
    ("swap-asap", SwapChain(3, 0.3, 1.0, 2)),
    ("swap-asap", SwapChain(3, 0.9, 1.0, 2)),
    ("swap-asap", SwapChain(4, 0.6, 0.7, 0)),
    ("swap-asap", SwapChain(4, 0.6, 0.7, 3)),
    ("swap-asap", SwapChain(5, 0.9, 1.0, 2)),
    ("swap-asap", SwapChain(5, 0.9, 0.5, 2)),
    ("nested", SwapChain(5, 0.9, 1.0, 2)),
    ("nested", SwapChain(5, 0.9, 0.5, 2)),
    ("optimal", SwapChain(4, 0.3, 0.5, 2)),
    ("optimal", SwapChain(5, 0.3, 1.0, 2)),
    ("optimal", SwapChain(5, 0.9, 1.0, 2)),
    ("optimal", SwapChain(5, 0.9, 0.5, 2)),
)
LONGEST = 3  # times the mean that an episode lasts for each delivery, more than any needs


def exact_time(policy: str, chain: SwapChain) -> float:
    """Slots by the solver."""
    if policy == "optimal":
        return solved(chain).slots
    return mean_delivery_time(chain, asap if policy == "swap-asap" else nested)


def played_time(policy: str, scenario: Scenario, deliveries: int) -> DeliveryTime:
    """Slots in the simulator: of relays that follow a rule, or that decide, knowing the whole chain."""
    if policy != "optimal":
        return delivery_time(scenario.override(swapping={"swap-asap": "asap"}.get(policy, policy)), deliveries)
    asked = scenario.override(swapping="agents", news_period=scenario.control.slot_duration)
    return delivery_time(asked, deliveries, decide=SwapOptimal().side_by_side(asked))


def simulated(policy: str, chain: SwapChain, deliveries: int) -> dict[str, Any]:
    """The exact time and the simulator's, in slots, with the standard error and how many errors they differ by."""
    exact = exact_time(policy, chain)
    scenario = get(
        f"swap-chain{chain.nodes}-v0",
        generation_rate=(chain.generation, chain.generation),
        swap_success=chain.swap_success,
        cutoff=chain.cutoff,
        slots=int(LONGEST * exact * deliveries / 100) + 100,
    )
    found = played_time(policy, scenario, deliveries)
    row = {"policy": policy, "nodes": chain.nodes, "generation": chain.generation, "swap_success": chain.swap_success}
    row |= {"cutoff": chain.cutoff, "exact": round(exact, 7), "mean": round(found.mean, 6)}
    return row | {"error": round(found.error, 6), "off": round((found.mean - exact) / found.error, 2)}


def main() -> None:
    """Simulate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, required=True, help="independent deliveries of each chain")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    with progress() as bar:
        rows = [simulated(*each, options.deliveries) for each in bar.track(CHAINS, description="chains")]
    write_json(options.out, {"deliveries": options.deliveries, "rows": rows})


if __name__ == "__main__":
    main()
