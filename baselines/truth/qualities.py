"""Which quality serves a request best, by route and class: whether quality is a decision at all.

For every candidate route of validation networks, with nothing else going on: links fill as Poisson processes of rate
g·η, are pumped as the rules say and decay while they wait for the last one; then all swaps are tried. *Best* is the
quality with the least expected time until a pair is there that is good enough for the class,

    E[min(T, time-to-live)] / P(T <= time-to-live, all swaps succeed, w is at least the class's),

T being when the last link is complete. What decays too far on the way, or takes too long, is tried again. No policy is
run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dpem_env import physics, scenarios
from dpem_env.network.network import Network, build_network
from dpem_env.scenarios import Scenario
from dpem_env.simulator.simulator import rules_of
from dpem_env.support.files import write_json

Floats = NDArray[np.float64]
DIGITS = 4
SETTLED: dict[str, Any] = {
    "purification_gates": "noisy",
    "link_fidelity": 0.95,
    "gate_fidelity": 0.995,
    "readout_fidelity": 0.998,
    "fidelity_classes": (0.75, 0.85, 0.91),
    "deadline": (1.0, 2.0, 2.0),
    "coherence_time": 60.0,
}
BEFORE: dict[str, Any] = {
    "link_fidelity": 0.98,
    "gate_fidelity": 0.99,
    "readout_fidelity": 0.99,
    "fidelity_classes": (0.70, 0.80, 0.90),
    "deadline": 1.0,
}
SETTINGS = {
    "settled": SETTLED,
    "coherence 10 s": SETTLED | {"coherence_time": 10.0},
    "coherence 1 s": SETTLED | {"coherence_time": 1.0},
    "gates and readouts 0.99": SETTLED | {"gate_fidelity": 0.99, "readout_fidelity": 0.99},
    "before": SETTLED | BEFORE,
    "before, ideal purification": SETTLED | BEFORE | {"purification_gates": "ideal"},
}

_success, _purified = njit(physics.purification_success), njit(physics.purified_werner)


@njit
def fill(rng, rate, decay, fresh, quality, gate, readout, patience, times, werners):  # type: ignore[no-untyped-def]
    """Times (L, S) in s at which links are complete, and w then; `patience` in s is how long that is of interest."""
    for link in range(times.shape[0]):
        for sample in range(times.shape[1]):
            time, rounds, held = 0.0, -1, 0.0
            while rounds < quality - 1 and time <= patience:
                waited = rng.exponential() / max(rate[link], 1e-9)
                time += waited
                held *= np.exp(-decay[link] * waited)
                if rounds < 0:
                    rounds, held = 0, fresh[link]
                elif rng.random() < _success(held, fresh[link], gate, readout):
                    rounds, held = rounds + 1, _purified(held, fresh[link], gate, readout)
                else:
                    rounds = -1
            times[link, sample] = time
            werners[link, sample] = held


def expected_times(scenario: Scenario, network: Network, rng: np.random.Generator, samples: int) -> Floats:
    """(N, D, k, Q, C) s until a pair is good enough; infinite where no sample is, or there is no route."""
    topology, routes, rules = network.topology, network.routes, rules_of(scenario)
    rate = topology.generation_rate[topology.emitter] * topology.transmission
    fresh = physics.werner_from_fidelity(topology.link_fidelity)
    decay = (1.0 / topology.coherence_time[topology.links]).sum(axis=1)
    at = np.argwhere(routes.hops > 0)
    hops, links = routes.hops[tuple(at.T)], routes.links[tuple(at.T)]  # (M,), (M, H)
    used = np.arange(links.shape[1]) < hops[:, None]
    shape = (len(rate), samples)
    found = np.full((*routes.hops.shape, rules.qualities, len(rules.class_werner)), np.inf)
    for quality in range(1, rules.qualities + 1):
        times, werners = np.empty(shape), np.empty(shape)
        noise = rules.purification_gate, rules.purification_readout
        fill(rng, rate, decay, fresh, quality, *noise, rules.lifetime, times, werners)
        complete = np.where(used[..., None], times[links], 0.0)  # (M, H, S)
        last = complete.max(axis=1)
        left = werners[links] * np.exp(-decay[links][..., None] * (last[:, None] - complete))
        werner = np.where(used[..., None], left, 1.0).prod(axis=1) * rules.swap_factor ** (hops[:, None] - 1)
        good = (last <= rules.lifetime)[..., None] & (werner[..., None] >= rules.class_werner)  # (M, S, C)
        tried = np.minimum(last, rules.lifetime).mean(axis=1)[:, None]
        made = good.mean(axis=1) * rules.swap_success ** (hops[:, None] - 1)
        with np.errstate(divide="ignore"):
            found[(*at.T, quality - 1)] = tried / made
    return found


def judged(scenario: Scenario, topologies: int, samples: int) -> list[dict[str, Any]]:
    """Shares of (route, class) combinations by the quality that serves them best, of those that some quality meets.

    A row for all classes together, and one for each.
    """
    deadlines = np.array(scenario.demand.deadlines)
    rng = np.random.default_rng(0)
    best, in_time, meets = [], [], []
    for seed in list(scenario.seeds.validation.topology)[:topologies]:
        network = build_network(scenario, seed)
        exists = network.routes.hops > 0
        expected = expected_times(scenario, network, rng, samples)[exists]  # (M, Q, C)
        least = expected.min(axis=1)
        meets.append(network.routes.quality[exists] > 0)
        best.append(np.where(np.isfinite(least), expected.argmin(axis=1) + 1, 0))
        in_time.append(least <= deadlines)
    met, quality, fast = (np.concatenate(each) for each in (meets, best, in_time))

    def row(wanted: str, classes: NDArray[np.bool_]) -> dict[str, Any]:
        chosen = met & classes
        by_quality = np.bincount(quality[chosen], minlength=1 + scenario.control.qualities) / max(chosen.sum(), 1)
        shares = {"met": met[:, classes].mean(), "none": by_quality[0], "purified": by_quality[2:].sum()}
        shares |= {"in_deadline": fast[chosen].mean()}
        told = {name: round(float(share), DIGITS) for name, share in shares.items()}
        return {"wanted": wanted, "best": [round(float(share), DIGITS) for share in by_quality[1:]]} | told

    each = zip(scenario.demand.fidelity_classes, scenario.demand.deadlines, strict=True)
    of_class = [f"{fidelity} in {deadline:g} s" for fidelity, deadline in each]
    own = np.eye(len(of_class), dtype=bool)
    return [row("all", own.any(axis=0)), *(row(wanted, own[c]) for c, wanted in enumerate(of_class))]


def main() -> None:
    """Judge, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--topologies", type=int, required=True, help="validation networks")
    parser.add_argument("--samples", type=int, required=True, help="of every link and quality")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    rows = []
    for name, fields in SETTINGS.items():
        found = judged(scenarios.get(given.scenario, **fields), given.topologies, given.samples)
        rows += [{"setting": name} | row for row in found]
        print(f"{name}: {found[0]}", flush=True)
    about = {"scenario": given.scenario, "topologies": given.topologies, "samples": given.samples}
    write_json(given.out, about | {"settings": SETTINGS, "rows": rows})


if __name__ == "__main__":
    main()
