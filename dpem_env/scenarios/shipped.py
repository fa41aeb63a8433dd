"""The shipped scenarios, and how a scenario is named: one of these, a TOML file, or an object."""

from __future__ import annotations

import os
import tomllib
from importlib.metadata import EntryPoint
from typing import Any

from dpem_env.scenarios import hardware
from dpem_env.scenarios.own_files import beside, pinned
from dpem_env.scenarios.schema import (
    LONGEST_FILE,
    ChainNetwork,
    Control,
    CoronetNetwork,
    Episode,
    Hardware,
    MeshNetwork,
    Outages,
    Routing,
    SaturatedDemand,
    Scenario,
    SessionDemand,
    StarNetwork,
    TopohubNetwork,
    TraceDemand,
    validated,
)
from dpem_env.support import plugins
from dpem_env.support.errors import ScenarioError, nearest, shown
from dpem_env.support.files import read_text, reading


def from_toml(text: str, origin: str = "TOML text", folder: str | os.PathLike[str] = "") -> Scenario:
    """Parse and validate a scenario; raises ScenarioError naming the field, what was given and what was expected.

    Relative paths of files that it names lead from `folder`.
    """
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # a TOMLDecodeError, or a number of too many digits
        raise ScenarioError(f"{origin}: not valid TOML: {error}") from None
    except RecursionError:
        raise ScenarioError(f"{origin}: not valid TOML: nested too deeply") from None
    if "data_dir" in data:
        raise ScenarioError(f"{origin}: data_dir: no file says where data lies; pass --data DIR or set DPEM_DATA")
    beside(data, folder)
    return validated(data, origin)


def load(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario from a TOML file, where relative paths lead from; raises ScenarioError with one clear line."""
    with reading("scenario file", path, ScenarioError):
        text = read_text(path, LONGEST_FILE)
    return from_toml(text, os.fspath(path), os.path.dirname(os.fsdecode(path)))


def get(scenario: str | Scenario, /, **overrides: Any) -> Scenario:
    """A scenario by name, a TOML file by path (ending in .toml) or a Scenario as it is; with overrides, and pinned.

    Names are those of shipped scenarios and of what installed packages announce (see `available`).
    """
    return pinned(_found(scenario).override(**overrides))


def _found(scenario: str | Scenario) -> Scenario:
    if isinstance(scenario, Scenario):
        return scenario
    if not isinstance(scenario, str):
        raise ScenarioError(f"scenario is {shown(scenario)}; expected a name, a path ending in .toml or a Scenario")
    if scenario in SCENARIOS:
        return SCENARIOS[scenario]
    if scenario.endswith(".toml"):
        return load(scenario)
    others = available()
    if scenario in others:
        return _announced(scenario, others[scenario])
    hint = nearest(scenario, [*SCENARIOS, *others])
    raise ScenarioError(f"unknown scenario {scenario!r}; {hint} (dpem list shows all; a path must end in .toml)")


def available() -> dict[str, EntryPoint]:
    """What installed packages announce in the group ``dpem_env.scenarios``, by name; shipped scenarios keep theirs."""
    return {name: point for name, point in plugins.announced(plugins.SCENARIOS).items() if name not in SCENARIOS}


def _announced(name: str, point: EntryPoint) -> Scenario:
    """The scenario that an installed package announces: an object, or what a function without arguments returns."""
    try:
        found = plugins.loaded("scenario", name, point.load)
        found = found() if callable(found) else found
    except ScenarioError:
        raise
    except Exception as error:  # whatever a stranger's code raises
        raise ScenarioError(f"scenario {name!r} of {point.value} cannot be made: {error}") from None
    if not isinstance(found, Scenario):
        told = f"it is a {type(found).__name__}; expected a Scenario, or a function that returns one"
        raise ScenarioError(f"scenario {name!r} of {point.value} cannot be used: {told}")
    if found.name != name:
        raise ScenarioError(f"scenario {name!r} of {point.value} calls itself {found.name!r}; expected the same name")
    return found


def _shipped() -> dict[str, Scenario]:
    asking = Control(news_period=0.25)
    exact = Hardware(generation_rate=(4.0, 4.0), swap_rate=(2.0, 2.0), memory=(4, 4))
    mesh100 = Scenario(
        name="mesh100-v0",
        summary="the paper's network: random mesh of 100 nodes, 0-10 pairs/s, 0-5 swaps/s per node",
        control=asking,
    )
    abilene = Scenario(
        name="abilene-trace-v0",
        summary="Abilene (12 PoPs), request rates from its measured traffic matrices; requests and fidelities drawn",
        network=TopohubNetwork(topology="sndlib/abilene", length_scale=0.02),
        hardware=Hardware(generation_rate=(2.0, 10.0), swap_rate=(1.0, 5.0)),
        demand=TraceDemand(peers=11, request_rate=5.7),
        control=asking,
    )
    scenarios = (
        Scenario(
            name="chain3-v0",
            summary="three nodes in a line, equal ends, a faster relay, Poisson requests: checkable by hand",
            network=ChainNetwork(nodes=3, relay_generation_rate=8.0),
            hardware=exact,
            demand=SessionDemand(peers=2, request_rate=3.4, predictability=0.0),
            control=asking,
        ),
        Scenario(
            name="star8-v0",
            summary="seven leaves around one hub that makes all pairs and swaps, Poisson requests: checkable by hand",
            network=StarNetwork(nodes=8, relay_generation_rate=16.0, relay_swap_rate=4.0),
            hardware=exact,
            demand=SessionDemand(peers=4, request_rate=3.8, predictability=0.0),
            control=asking,
        ),
        Scenario(
            name="mesh20-v0",
            summary="random mesh of 20 nodes at the density of mesh100: quick training",
            network=MeshNetwork(nodes=20, side=44.7),
            demand=SessionDemand(request_rate=8.2),
            control=asking,
        ),
        mesh100,
        mesh100.override(
            name="mesh100-outages-v0",
            summary="mesh100 whose links fail (mean 200 s up, 5 s down)",
            outages=Outages(),
        ),
        mesh100.override(
            name="mesh100-10s-v0",
            summary="mesh100 whose memories keep pairs for 10 s instead of 60 s",
            coherence_time=10.0,
        ),
        Scenario(
            name="surfnet-v0",
            summary="Surfnet (50 nodes, real fibre lengths, topohub), random hardware",
            network=TopohubNetwork(topology="topozoo/Surfnet"),
            demand=SessionDemand(request_rate=8.9),
            control=asking,
        ),
        abilene,
        abilene.override(
            name="abilene-mixed-v0",
            summary="abilene-trace with half of the mean load coming as synthetic sessions, as in the paper",
            trace_share=0.5,
        ),
        Scenario(
            name="coronet100-v0",
            summary="CORONET Global (100 cities), fibre lengths scaled to 1/25, random hardware",
            network=CoronetNetwork(length_scale=0.04),
            demand=SessionDemand(request_rate=16.9),
            control=asking,
        ),
        _shown(
            "mesh20-ions-v0",
            "20 nodes in a building, trapped ions as published: 182 pairs/s of 0.94, kept for 34 s",
            "trapped-ions",
            slot=0.01,
            request_rate=394.0,
            fidelity_classes=(0.70, 0.80, 0.87),
        ),
        _shown(
            "mesh20-nv-v0",
            "20 nodes in a building, NV centres as published: up to 39 pairs/s, kept for 0.4 s, brightness chosen",
            "nv-centres",
            slot=0.02,
            request_rate=33.4,
            fidelity_classes=(0.50, 0.60, 0.70),
        ),
        *(_swap_chain(nodes) for nodes in (3, 4, 5)),
        _switch(8),
    )
    return {scenario.name: scenario for scenario in scenarios}


def _shown(
    name: str, summary: str, preset: str, *, slot: float, request_rate: float, fidelity_classes: tuple[float, ...]
) -> Scenario:
    """A mesh of 20 nodes within 20 m with the hardware of a preset; as many slots to everything as in mesh20-v0.

    Qualities are the bright states there are: purification by gates as these gains nothing.
    """
    shown = Hardware(**hardware.fields(preset))
    return Scenario(
        name=name,
        summary=summary,
        network=MeshNetwork(nodes=20, side=0.02),
        hardware=shown,
        demand=SessionDemand(
            request_rate=request_rate,
            fidelity_classes=fidelity_classes,
            deadline=(4 * slot, 8 * slot, 8 * slot),
            session_duration=80 * slot,
        ),
        control=Control(
            slot_duration=slot,
            qualities=len(shown.bright_states),
            time_to_live=8 * slot,
            telemetry_period=4 * slot,
            news_period=slot,
        ),
    )


def _swap_chain(nodes: int) -> Scenario:
    """The homogeneous chain of Iñesta et al., npj Quantum Inf. 9, 46 (2023): p is `generation_rate` in slots of 1 s.

    Whatever else limits this simulator does not: tokens and time last, pairs are perfect.
    """
    return Scenario(
        name=f"swap-chain{nodes}-v0",
        summary=f"{nodes} nodes in a line, a try per link and slot, a pair of the ends always wanted: published values",
        network=ChainNetwork(nodes=nodes),
        hardware=Hardware(
            generation_rate=(0.9, 0.9),
            emission="bernoulli",
            swap_rate=(1.0, 1.0),
            memory=(2, 2),
            coherence_time=1e9,
            attenuation=0.0,
            link_fidelity=1.0,
            swap_success=0.5,
            gate_fidelity=1.0,
            readout_fidelity=1.0,
            token_cap=1.0,
        ),
        routing=Routing(routes_per_peer=1, max_hops=nodes - 1, min_link_rate=0.0, min_swap_rate=0.0),
        demand=SaturatedDemand(peers=1, fidelity_classes=(0.25,), class_weights=(1.0,), deadline=1.0),
        control=Control(
            slot_duration=1.0,
            rows=1,
            qualities=1,
            time_to_live=1e6,
            swapping="asap",
            regenerate=True,
            cutoff=2,
            telemetry_delay=1,
        ),
        episode=Episode(slots=1000),
    )


def _switch(users: int) -> Scenario:
    """The entanglement switch of Vardoyan, Guha, Nain & Towsley (arXiv:1903.04420) in slots of 1 s.

    μ is `generation_rate`, q `swap_success`. As in chains, nothing else limits it.
    """
    return _swap_chain(3).override(
        name=f"switch{users}-v0",
        summary=f"{users} users around a hub that swaps any two links, pairs of all always wanted: published values",
        generator="star",
        nodes=users + 1,
        generation_rate=(0.05, 0.05),
        swap_rate=(float(users), float(users)),
        memory=(8 * (users + 1), 8 * (users + 1)),
        swap_success=0.9,
        token_cap=float(users),
        peers=users,
        regenerate=False,
        switch=True,
        cutoff=None,
        max_hops=2,
    )


SCENARIOS = _shipped()

# Offered load ρ, request rate over what can be served, the median over validation topologies; defined and computed by
# dpem_baselines.bound, which a test asks again.
OFFERED_LOADS = {name: 0.6 for name, scenario in SCENARIOS.items() if isinstance(scenario.demand, SessionDemand)}
OFFERED_LOADS |= {"star8-v0": 0.59}
