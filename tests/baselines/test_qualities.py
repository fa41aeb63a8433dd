"""Which quality serves a route best: expected times against closed forms, and what the chosen world comes to."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.network.network import build_network

ROOT = Path(__file__).resolve().parents[2]
QUALITIES = runpy.run_path(str(ROOT / "baselines/truth/qualities.py"))
RATE = 4.0 * 10 ** (-0.2)  # pairs/s over a link of 10 km


def expected(samples: int = 40_000, **fields: Any) -> NDArray[np.float64]:
    """(Q, C) s over the first route between the ends of a line."""
    scenario = scenarios.get(
        "chain3-v0", generation_rate=(4.0, 4.0), relay_generation_rate=4.0, **QUALITIES["SETTLED"] | fields
    )
    network = build_network(scenario, 0)
    [place] = np.flatnonzero(network.peers[0] == network.num_nodes - 1)
    found: NDArray[np.float64] = QUALITIES["expected_times"](scenario, network, np.random.default_rng(0), samples)[
        0, place, 0
    ]
    return found


def test_a_single_link_takes_the_mean_time_of_its_pairs() -> None:
    # Tried again after every time-to-live, an exponential time is none the longer.
    found = expected(nodes=2, peers=1)
    assert found[0, :].tolist() == [found[0, 0]] * 3  # 0.95 is good enough for all classes
    assert found[0, 0] == pytest.approx(1 / RATE, rel=0.03)
    assert found[1, 0] > 2 / RATE  # two pairs at least


def test_a_class_that_takes_purification_is_never_met_without() -> None:
    found = expected(time_to_live=100.0, coherence_time=1e6)
    assert np.isinf(found[0, 2])
    assert np.isfinite(found[1:, 2]).all()
    # The later of two links, and a swap that succeeds in nine of ten tries.
    assert found[0, :2] == pytest.approx([1.5 / RATE / 0.9] * 2, rel=0.03)


def test_what_decays_while_it_waits_is_made_again() -> None:
    found = expected(coherence_time=1.0, fidelity_classes=(0.75, 0.85, 0.89), time_to_live=100.0)
    # The first pair has lost exp(-2t) when the other one comes t s later; that has to be soon enough.
    fresh, needed = (4 * 0.8966 - 1) / 3, (4 * 0.85 - 1) / 3
    patience = math.log(fresh / needed) / 2
    both = 1 - math.exp(-RATE * patience)
    assert found[0, 1] == pytest.approx(1.5 / RATE / 0.9 / both, rel=0.05)


def test_quality_is_a_decision_in_the_world_that_was_chosen() -> None:
    found = json.loads((ROOT / "baselines/results/truth/qualities.json").read_text(encoding="utf-8"))
    chosen = {row["setting"]: row["best"] for row in found["rows"] if row["wanted"] == "all"}
    first, *others = chosen["settled"]
    assert first >= 0.25
    assert sum(others) >= 0.25
    for setting in ("gates and readouts 0.99", "before"):
        assert sum(chosen[setting][1:]) < 0.01
