"""Scenarios: shipped worlds, TOML, hashes, overrides, seed lists and the one line a mistake is told in."""

from __future__ import annotations

import codecs
import hashlib
import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dpem_env import scenarios
from dpem_env.scenarios import SCENARIOS, Scenario, schema
from dpem_env.scenarios.schema import (
    ChainNetwork,
    CoronetNetwork,
    MeshNetwork,
    Outages,
    ReplayDemand,
    SeedRange,
    Silence,
    StarNetwork,
    TopohubNetwork,
    TraceDemand,
)
from dpem_env.support.errors import EXPECTED, ScenarioError

# Once released, a scenario never changes: a new hash here means a new version suffix and a line in the version history.
RELEASED = {
    "chain3-v0": "7684b0034756",
    "star8-v0": "e740b0f7afe7",
    "mesh20-v0": "7fdfdc814ca7",
    "mesh20-ions-v0": "b77340ee3b0a",
    "mesh20-nv-v0": "176dbc55c5e6",
    "mesh100-v0": "ef9add87b8e5",
    "mesh100-outages-v0": "79f5cceb3a98",
    "mesh100-10s-v0": "59cc45fe02ec",
    "surfnet-v0": "3cf3ba553938",
    "abilene-trace-v0": "4b42650cadc0",
    "abilene-mixed-v0": "9a8d10416b97",
    "coronet100-v0": "de2e769f45db",
    "swap-chain3-v0": "2a91d54eca1f",
    "swap-chain4-v0": "667a2cbf9ff1",
    "swap-chain5-v0": "b75bf9895e37",
    "switch8-v0": "7376c9638ef0",
}

# Another valid value for every field of mesh100-outages-v0 with silence, weak sources and asap, by section.
OTHER: dict[str, dict[str, Any]] = {
    "network": {"nodes": 99, "side": 90.0, "links_per_node": 2.0},
    "hardware": {
        "generation_rate": [0.0, 3.0],
        "emission": "bernoulli",
        "swap_rate": [0.0, 4.0],
        "memory": [8, 15],
        "coherence_time": 10.0,
        "attenuation": 0.25,
        "link_fidelity": 0.97,
        "link_model": "midpoint",
        "bright_state": 0.1,
        "parallel_modes": 7,
        "attempt_success": 0.5,
        "swap_success": 0.8,
        "purification_gates": "ideal",
        "gate_fidelity": 0.98,
        "readout_fidelity": 0.98,
        "token_cap": 3.0,
    },
    "routing": {"routes_per_peer": 2, "max_hops": 7, "min_link_rate": 0.2, "min_swap_rate": 0.2},
    "demand": {
        "peers": 7,
        "fidelity_classes": [0.70, 0.80, 0.91],
        "class_weights": [0.5, 0.3, 0.1],
        "deadline": [1.0, 1.0, 2.0],
        "pairs_per_request": 2,
        "request_rate": 16.0,
        "predictability": 0.5,
        "arrivals": "periodic",
        "jitter": 0.5,
        "session_duration": 10.0,
        "session_share": 0.1,
        "popularity_sigma": 0.0,
        "gravity_length": 40.0,
        "demand_matrix": "rates.csv",
    },
    "control": {
        "slot_duration": 0.125,
        "rows": 3,
        "qualities": 2,
        "time_to_live": 1.0,
        "swapping": "all",
        "discard": True,
        "regenerate": True,
        "switch": True,
        "cutoff": 3,
        "telemetry_period": 2.0,
        "telemetry_delay": 1,
        "news_period": 0.5,
        "news_delay": 0.5,
    },
    "outages": {"mean_up": 100.0, "mean_down": 4.0},
    "silence": {"share": 0.1, "start": 20.0, "duration": 10.0},
    "observation": {"forecast_horizon": 5},
    "reward": {"contention_penalty": 0.1, "class_values": [1.0, 1.0, 2.0]},
    "episode": {"slots": 200},
}
CHANGES = [(section, leaf) for section, leaves in OTHER.items() for leaf in leaves]


def one_line(error: pytest.ExceptionInfo[ScenarioError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def leaves(config: dict[str, Any], *, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, at=(*at, key))
        else:
            yield (*at, key)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_shipped_scenario_survives_toml_and_back(name: str) -> None:
    scenario = scenarios.get(name)
    again = scenarios.from_toml(scenario.to_toml())
    assert again == scenario
    assert again.hash == scenario.hash
    assert hash(again) == hash(scenario)


def test_the_shipped_scenarios_have_the_released_hashes() -> None:
    assert {name: scenario.hash for name, scenario in SCENARIOS.items()} == RELEASED


@pytest.mark.parametrize("name", SCENARIOS)
def test_shipped_scenarios_are_listed_under_their_versioned_name_with_a_summary(name: str) -> None:
    assert SCENARIOS[name].name == name
    assert name.endswith("-v0")
    assert SCENARIOS[name].summary


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        ("nodes", 100), ("side", 100.0), ("links_per_node", 2.5), ("generation_rate", (0.0, 10.0)),
        ("swap_rate", (0.0, 5.0)), ("memory", (8, 16)), ("coherence_time", 60.0), ("attenuation", 0.2),
        ("link_fidelity", 0.95), ("swap_success", 0.9), ("token_cap", 2.0), ("purification_gates", "noisy"),
        ("link_model", "midpoint"), ("parallel_modes", None),
        ("routes_per_peer", 3), ("max_hops", 8),
        ("min_link_rate", 0.1), ("min_swap_rate", 0.1), ("peers", 8), ("fidelity_classes", (0.75, 0.85, 0.91)),
        ("class_weights", (0.5, 0.3, 0.2)), ("deadline", (1.0, 2.0, 2.0)), ("request_rate", 17.3),
        ("predictability", 1.0),
        ("arrivals", "poisson"), ("jitter", 0.2),
        ("session_duration", 20.0), ("session_share", 0.05), ("popularity_sigma", 0.5), ("gravity_length", 50.0),
        ("slot_duration", 0.25), ("rows", 4), ("qualities", 3), ("time_to_live", 2.0), ("telemetry_period", 1.0),
        ("emission", "poisson"), ("swapping", "asap"), ("regenerate", False), ("cutoff", None),
        ("telemetry_delay", 2), ("news_period", 0.25), ("news_delay", None),
        ("forecast_horizon", 8), ("contention_penalty", 0.05), ("slots", 400),
    ],
)  # fmt: skip
def test_mesh100_has_the_numbers_of_the_model(leaf: str, value: object) -> None:
    scenario = scenarios.get("mesh100-v0")
    sections = [getattr(scenario, section) for section in OTHER]
    assert [getattr(section, leaf) for section in sections if hasattr(section, leaf)] == [value]


def test_every_leaf_field_has_a_unique_name() -> None:
    for scenario in SCENARIOS.values():
        config = scenario.model_dump(exclude={"seeds", "name", "summary"})
        names = [place[-1] for place in leaves(config)]
        assert len(names) == len(set(names))


def test_a_scenario_saved_to_a_file_is_loaded_unchanged(tmp_path: Path) -> None:
    scenario = scenarios.get("mesh100-outages-v0", request_rate=16.0)
    scenario.save(tmp_path / "mine.toml")
    assert scenarios.load(tmp_path / "mine.toml") == scenario
    assert scenarios.get(str(tmp_path / "mine.toml"), slots=10) == scenario.override(slots=10)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_toml_file_names_only_what_differs_from_the_defaults() -> None:
    text = 'name = "small"\n[network]\ngenerator = "mesh"\nnodes = 12\n[demand]\nkind = "sessions"\nrequest_rate = 1\n'
    scenario = scenarios.from_toml(text)
    assert scenario == Scenario(
        name="small", network=MeshNetwork(nodes=12), demand=schema.SessionDemand(request_rate=1.0)
    )


@given(
    st.builds(
        dict,
        request_rate=st.floats(0.0, 1e5),
        link_fidelity=st.floats(0.25, 1.0),
        nodes=st.integers(2, 500),
        memory=st.tuples(st.integers(1, 9), st.integers(9, 50)),
        outages=st.none() | st.fixed_dictionaries({"mean_up": st.floats(1.0, 1e6), "mean_down": st.floats(1.0, 1e6)}),
        name=st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable() and name.strip()),
        summary=st.text(max_size=20),
    )
)
@settings(max_examples=40, deadline=None)
def test_any_scenario_survives_toml_and_back(fields: dict[str, Any]) -> None:
    scenario = scenarios.get("mesh100-v0", **fields)
    assert scenarios.from_toml(scenario.to_toml()) == scenario


@pytest.mark.parametrize(("section", "leaf"), CHANGES)
def test_the_hash_changes_with_every_field(section: str, leaf: str) -> None:
    base = {"generation_rate": (0.0, 4.0), "link_model": "single-click", "parallel_modes": 9, "silence": {}}
    scenario = scenarios.get("mesh100-outages-v0", **base)
    if leaf == "discard":  # which relays do that decide
        scenario = scenarios.get("swap-chain3-v0", swapping="agents")
    if leaf == "switch":
        scenario = scenarios.get("star8-v0")
    if section in schema.OPTIONAL:
        changed = scenario.override(**{f"{section}.{leaf}": OTHER[section][leaf]})
    else:
        changed = scenario.override(**{leaf: OTHER[section][leaf]})
    assert changed.hash != scenario.hash
    assert changed.override(name=scenario.name) != scenario


def test_the_hash_is_tried_against_every_field() -> None:
    config = scenarios.get("mesh100-outages-v0", silence={}).model_dump(exclude={"name", "summary", "seeds"})
    kinds = {("network", "generator"), ("demand", "kind"), ("demand", "demand_content")}  # which follows from files
    assert set(leaves(config)) - kinds == set(CHANGES)


def test_the_hash_changes_with_the_kind_of_network_or_demand_what_fails_and_the_seeds() -> None:
    seeds = scenarios.get("mesh100-v0").seeds.model_dump()
    seeds["train"]["topology"]["stop"] = 65
    variants = [
        Scenario(name="x"),
        Scenario(name="x", network=ChainNetwork()),
        Scenario(name="x", network=StarNetwork(nodes=3)),
        Scenario(name="x", network=CoronetNetwork()),
        Scenario(name="x", network=TopohubNetwork()),
        Scenario(name="x", demand=TraceDemand()),
        Scenario(name="x", demand=ReplayDemand(requests_file="a.csv")),
        Scenario(name="x", demand=ReplayDemand(requests_file="b.csv")),
        Scenario(name="x", outages=Outages()),
        Scenario(name="x", silence=Silence()),
        Scenario(name="x", outages=Outages(), silence=Silence()),
        Scenario(name="x").override(seeds=seeds),
    ]
    assert len({variant.hash for variant in variants}) == len(variants)


def test_the_hash_is_that_of_the_scenario_before_fields_came_that_change_nothing() -> None:
    text = scenarios.get("mesh20-v0").to_toml()
    lines = [
        line for line in text.splitlines() if not line.startswith(("purification_gates", "pairs_per", "class_val"))
    ]
    assert len(lines) == len(text.splitlines()) - 3
    assert scenarios.from_toml("\n".join(lines)).hash == RELEASED["mesh20-v0"]


def test_deadlines_are_one_for_all_classes_or_one_for_each() -> None:
    assert scenarios.get("mesh20-v0", deadline=2.0).demand.deadlines == (2.0, 2.0, 2.0)
    each = scenarios.get("mesh20-v0", deadline=[1, 2.0, 0.5])
    assert each.demand.deadlines == (1.0, 2.0, 0.5)
    assert scenarios.from_toml(each.to_toml()).demand == each.demand


def test_the_hash_ignores_name_and_summary_only() -> None:
    scenario = scenarios.get("mesh20-v0")
    renamed = scenario.override(name="other", summary="something else")
    assert renamed.hash == scenario.hash
    assert renamed != scenario


def test_a_whole_number_may_stand_for_a_real_one() -> None:
    assert scenarios.get("mesh20-v0", request_rate=16).hash == scenarios.get("mesh20-v0", request_rate=16.0).hash


def test_a_scenario_cannot_be_changed_in_place() -> None:
    scenario = scenarios.get("mesh20-v0")
    with pytest.raises(ValidationError, match="frozen"):
        scenario.demand.deadline = 2.0


def test_an_override_finds_a_leaf_by_its_name_and_is_recorded_in_the_scenario_name() -> None:
    shipped = scenarios.get("mesh100-v0")
    scenario = scenarios.get("mesh100-v0", request_rate=16.0, swap_success=1.0)
    assert scenario.demand == shipped.demand.model_copy(update={"request_rate": 16.0})
    assert scenario.hardware.swap_success == 1.0
    assert scenario.name == "mesh100-v0+request_rate=16.0+swap_success=1.0"
    assert shipped.demand.request_rate != 16.0


def test_outages_are_overridden_as_a_whole_and_switched_off_by_none() -> None:
    scenario = scenarios.get("mesh100-v0", outages={"mean_up": 50.0})
    assert scenario.outages == Outages(mean_up=50.0, mean_down=5.0)
    assert scenario.override(outages=None).hash == scenarios.get("mesh100-v0").hash


def test_silence_is_switched_on_with_its_defaults_and_off_by_none() -> None:
    silent = scenarios.get("mesh100-v0", silence={})
    assert silent.silence == Silence(share=0.05, start=30.0, duration=20.0)
    assert silent.name == "mesh100-v0+silence"
    assert silent.override(silence=None).hash == scenarios.get("mesh100-v0").hash
    assert "silence" not in scenarios.get("mesh100-v0").to_toml()
    assert scenarios.from_toml(silent.to_toml()) == silent


def test_a_field_of_a_section_that_may_be_missing_is_overridden_by_its_full_name() -> None:
    scenario = scenarios.get("mesh100-v0", **{"silence.share": 0.1})
    assert scenario.silence == Silence(share=0.1)
    assert scenario.name == "mesh100-v0+silence.share=0.1"
    both = {"silence.start": 5.0, "outages.mean_down": 2.0}
    changed = scenario.override(**both)
    assert (changed.silence, changed.outages) == (Silence(share=0.1, start=5.0), Outages(mean_down=2.0))
    off_and_on = scenario.override(silence=None, **{"silence.start": 5.0})
    assert off_and_on.silence == Silence(start=5.0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"silence.share": 0.0}, "silence.share: expected more than 0 (given 0.0)"),
        ({"silence.share": 1.5}, "silence.share: expected at most 1 (given 1.5)"),
        ({"silence.share": "much"}, "silence.share: expected a number (given 'much')"),
        ({"silence.shar": 0.1}, "silence.shar: unknown key; remove it or check its spelling"),
        ({"silence.": 0.1}, "silence.: unknown key; remove it or check its spelling"),
        ({"silence.share.of": 0.1}, "silence.share.of: unknown key; remove it or check its spelling"),
        ({"silence": True, "silence.share": 0.1}, "silence: expected a section with fields (given True)"),
        ({"silence.start": -1.0}, "silence.start: expected at least 0 (given -1.0)"),
        ({"silence.start": 0.1}, "silence.start = 0.1 s must be a whole number"),
        ({"silence.start": 100.0}, "silence.start = 100.0 s: expected less than the episode's 100 s"),
        ({"silence.duration": 0.0}, "silence.duration: expected at least 1e-09 (given 0.0)"),
        ({"silence.duration": 0.3}, "silence.duration = 0.3 s must be a whole number"),
        ({"silence": {}, "slots": 100}, "silence.start = 30.0 s: expected less than the episode's 25 s"),
        ({"silense": {}}, "override 'silense' is no field of a scenario; did you mean 'silence'?"),
        ({"silense.share": 0.1}, "override 'silense.share' is no field of a scenario; did you mean"),
        ({"hardware.swap_success": 0.1}, "override 'hardware.swap_success' is no field of a scenario; did you mean"),
    ],
    ids=str,
)
def test_a_bad_silence_is_told_in_one_line(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.get("mesh100-v0", **fields)
    assert told in one_line(error)


def test_silence_may_last_from_the_first_slot_to_beyond_the_last() -> None:
    silence = {"start": 0.0, "duration": 1000.0, "share": 1.0}
    assert scenarios.get("mesh100-v0", silence=silence).silence == Silence(**silence)


def test_getting_a_scenario_object_returns_it_as_it_is() -> None:
    scenario = scenarios.get("star8-v0")
    assert scenarios.get(scenario) is scenario


def test_an_unknown_scenario_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.get("mesh10-v0")
    assert "unknown scenario 'mesh10-v0'" in one_line(error)
    assert "did you mean 'mesh100-v0'?" in one_line(error)


def test_a_scenario_like_no_other_is_told_with_all_names() -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.get("quux")
    assert all(name in one_line(error) for name in SCENARIOS)


def test_an_unknown_override_is_told_with_the_nearest_field() -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.get("mesh100-v0", request_rat=16.0)
    assert "'request_rat'" in one_line(error)
    assert "did you mean 'request_rate'?" in one_line(error)


@pytest.mark.parametrize(
    ("text", "field", "given"),
    [
        ('[demand]\nkind = "sessions"\nrequest_rate = "8"', "demand.request_rate", "'8'"),
        ('[demand]\nkind = "sessions"\nrequest_rate = true', "demand.request_rate", "True"),
        ('[demand]\nkind = "sessions"\nrequest_rate = -1.0', "demand.request_rate", "-1.0"),
        ('[demand]\nkind = "sessions"\nrequest_rate = inf', "demand.request_rate", "inf"),
        ('[demand]\nkind = "sessions"\npredictability = 1.5', "demand.predictability", "1.5"),
        ('[demand]\nkind = "sessions"\nsession_share = 1.0', "demand.session_share", "1.0"),
        ('[demand]\nkind = "sessions"\nfidelity_classes = [0.7, 1.2]', "demand.fidelity_classes", "1.2"),
        ('[demand]\nkind = "sessions"\nfidelity_classes = [0.9, 0.8, 0.7]', "fidelity_classes", "increasing"),
        ('[demand]\nkind = "sessions"\nclass_weights = [1.0]', "class_weights", "one weight per fidelity class"),
        ('[demand]\nkind = "sessions"\nclass_weights = [0.0, 0.0, 0.0]', "class_weights", "not all zero"),
        ('[demand]\nkind = "sessions"\ndeadline = [1.0]', "demand: deadline needs one", "one per fidelity class"),
        ('[demand]\nkind = "sessions"\ndeadline = [1, 2, "x"]', "demand.deadline.2: expected a number", "'x'"),
        ('[demand]\nkind = "sessions"\ndeadline = "soon"', "demand.deadline: expected a number", "'soon'"),
        ('[demand]\nkind = "sessions"\ndeadline = [1.0, 1.1, 2.0]', "demand.deadline = 1.1 s", "whole number"),
        ('[demand]\nkind = "sessions"\npairs_per_request = 0', "demand.pairs_per_request", "at least 1"),
        ("[reward]\nclass_values = [1.0]", "reward.class_values", "one value per fidelity class"),
        ("[reward]\nclass_values = [1.0, -1.0, 1.0]", "reward.class_values.1", "at least 0"),
        ('[hardware]\npurification_gates = "perfect"', "hardware.purification_gates", "'perfect'"),
        ('[demand]\nkind = "session"', "demand", "'session'"),
        ('[demand]\nkind = "replay"', "demand.requests_file", "is missing"),
        ('[demand]\nkind = "trace"\ntrace = "geant"', "demand.trace", "'geant'"),
        ('[network]\ngenerator = "mesh"\nnodes = 100.0', "network.nodes", "100.0"),
        ('[network]\ngenerator = "mesh"\nnodes = 1', "network.nodes", "1"),
        ('[network]\ngenerator = "grid"', "network", "'grid'"),
        ('[network]\ngenerator = "mesh"\nspacing = 3.0', "network.spacing", "unknown key"),
        ("network = 5", "network", "5"),
        ("[hardware]\nswap_succes = 0.9", "hardware.swap_succes", "unknown key"),
        ("[hardware]\nswap_success = 1.1", "hardware.swap_success", "1.1"),
        ("[hardware]\nswap_success = nan", "hardware.swap_success", "nan"),
        ("[hardware]\nlink_fidelity = 0.2", "hardware.link_fidelity", "0.2"),
        ("[hardware]\ngeneration_rate = [5.0, 1.0]", "hardware.generation_rate", "[5.0, 1.0]"),
        ("[hardware]\ngeneration_rate = [-5.0, 1.0]", "hardware.generation_rate", "-5.0"),
        ("[hardware]\ngeneration_rate = [1.0]", "hardware.generation_rate", "expected [low, high]"),
        ("[hardware]\ngeneration_rate = [0.0, 2001.0]", "hardware.generation_rate", "500 pairs"),
        ('[network]\ngenerator = "star"\nrelay_generation_rate = 1e9', "network.relay_generation_rate", "500 pairs"),
        ("[hardware]\nmemory = [8.5, 9]", "hardware.memory", "8.5"),
        ("[hardware]\ncoherence_time = 0.0", "hardware.coherence_time", "0.0"),
        ("[control]\ntime_to_live = 0.3", "control.time_to_live", "0.3 s must be a whole number"),
        ("[control]\nslot_duration = 0.3", "demand.deadline", "1.0 s must be a whole number"),
        ("[control]\ntelemetry_period = 1e308", "control.telemetry_period", "1e+308"),
        ("[control]\ntelemetry_delay = 5", "control.telemetry_period", "telemetry_delay"),
        ("[control]\nnews_period = 0.3", "control.news_period", "0.3"),
        ("[control]\nnews_period = 0.25\nnews_delay = 0.1", "control.news_delay", "0.1"),
        ("[control]\nnews_delay = 0.25", "control", "news_period"),
        ('[demand]\nkind = "sessions"\ndeadline = 1.1', "demand.deadline", "1.1 s must be a whole number"),
        ('[demand]\nkind = "trace"\nmatrix_duration = 0.1', "demand.matrix_duration", "0.1 s must be a whole number"),
        ('[demand]\nkind = "sessions"\nsession_duration = 0.1', "demand.session_duration", "0.1 s"),
        ('[demand]\nkind = "sessions"\nsession_share = 0.999', "session_share", "time off"),
        ("[outages]\nmean_down = 0.1", "outages.mean_down", "0.1 s"),
        ("[episode]\nslots = 0", "episode.slots", "0"),
        (
            "[seeds.train]\ntopology = {start = 0, stop = 1001}\ndemand = {start = 0, stop = 10}",
            "seeds", "topology seeds of train, validation and evaluation overlap",
        ),
        (
            "[seeds.evaluation]\ntopology = {start = 3000, stop = 3001}\ndemand = {start = 999999, stop = 1000001}",
            "seeds", "demand seeds of train, validation and evaluation overlap",
        ),
        (
            "[seeds.train]\ntopology = {start = 5, stop = 5}\ndemand = {start = 0, stop = 10}",
            "seeds.train.topology", "stop > start",
        ),
        ("colour = 3", "colour", "unknown key"),
    ],
)  # fmt: skip
def test_a_malformed_scenario_is_told_in_one_line_naming_the_field(text: str, field: str, given: str) -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.from_toml(f'name = "x"\n{text}', "mine.toml")
    message = one_line(error)
    assert message.startswith("mine.toml: ")
    assert field in message
    assert given in message


def test_several_mistakes_are_counted_behind_the_first() -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.from_toml('name = "x"\n[hardware]\nswap_success = 2.0\nattenuation = -1.0\nmemory = [0, 1]')
    assert one_line(error).endswith("; and 2 more")


def test_a_scenario_without_a_name_is_refused() -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.from_toml('summary = "nameless"')
    assert "name: is missing" in one_line(error)


@pytest.mark.parametrize("text", ["name = ", "[network", 'name = "x"\nname = "y"'])
def test_invalid_toml_is_told_in_one_line(text: str) -> None:
    with pytest.raises(ScenarioError, match="not valid TOML") as error:
        scenarios.from_toml(text)
    one_line(error)


def test_a_missing_scenario_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = str(tmp_path / "absent.toml")
    with pytest.raises(ScenarioError, match="cannot be used") as error:
        scenarios.get(path)
    assert path in one_line(error)


def test_a_scenario_file_that_is_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="cannot be used") as error:
        scenarios.load(tmp_path / "binary.toml")
    one_line(error)


@pytest.mark.parametrize("value", [math.nan, -1.0, "8", None, [8.0]])
def test_a_bad_override_names_the_scenario_and_the_field(value: object) -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.get("mesh100-v0", request_rate=value)
    assert one_line(error).startswith("scenario mesh100-v0: demand.request_rate: ")


@pytest.mark.parametrize("name", SCENARIOS)
def test_training_validation_and_evaluation_seeds_are_disjoint(name: str) -> None:
    seeds = SCENARIOS[name].seeds
    for one, other in combinations((seeds.train, seeds.validation, seeds.evaluation), 2):
        assert not set(one.topology) & set(other.topology)
        assert set(one.demand).isdisjoint(other.demand)


@pytest.mark.parametrize("integer", [int, np.int64, np.uint32])
def test_a_demand_seed_belongs_to_the_split_whose_list_holds_it(integer: type) -> None:
    scenario = scenarios.get("mesh100-v0")
    assert scenario.split_of(integer(0)) == "train"
    assert scenario.split_of(integer(999_999)) == "train"
    assert scenario.split_of(integer(1_000_000)) == "validation"
    assert scenario.split_of(integer(2_099_999)) == "evaluation"
    assert scenario.split_of(integer(2_100_000)) is None


def test_a_seed_range_is_a_cyclic_sequence_of_its_seeds() -> None:
    seeds = SeedRange(start=3, stop=6)
    assert list(seeds) == [3, 4, 5]
    assert len(seeds) == 3
    assert [seeds[index] for index in (0, 2, 3, 7)] == [3, 5, 3, 4]
    assert 5 in seeds
    assert 6 not in seeds
    assert "5" not in seeds


@pytest.mark.parametrize(("seconds", "slots"), [(0.25, 1), (1.0, 4), (20.0, 80)])
def test_durations_are_whole_numbers_of_slots(seconds: float, slots: int) -> None:
    assert scenarios.get("mesh100-v0").in_slots(seconds) == slots


def test_durations_may_be_whole_numbers_of_slots_up_to_rounding() -> None:
    third = {"time_to_live": 0.3, "news_period": 0.3}  # 0.3 / 0.1 is not 3 in binary
    scenario = scenarios.get("mesh100-v0", slot_duration=0.1, **third)
    assert scenario.in_slots(scenario.control.time_to_live) == 3


def test_an_episode_has_a_longest_length() -> None:
    with pytest.raises(ScenarioError, match=r"episode\.slots"):
        scenarios.get("chain3-v0", slots=schema.MAX_SLOTS + 1)


def test_deeply_nested_toml_is_refused() -> None:
    with pytest.raises(ScenarioError, match="nested too deeply"):
        scenarios.from_toml("x = " + "[" * 100_000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[hardware]\ngeneration_rate = 5", "hardware.generation_rate: expected [low, high], two numbers (given 5)"),
        ("[hardware]\nmemory = [1, 2, 3]", "hardware.memory: expected [low, high], two numbers (given [1, 2, 3])"),
        ("[hardware]\nswap_rate = [1.0, 'x']", "hardware.swap_rate.1: expected a number (given 'x')"),
        ("[hardware]\nswap_rate = [0.0, 1e-12]", "hardware.swap_rate.1: expected 0 or at least 1e-09 (given 1e-12)"),
        ("[network]\nnodes = 9", "network: says no 'generator'; expected one of 'mesh', 'chain', 'star', 'topohub',"),
        ("[demand]\nrequest_rate = 9", "demand: says no 'kind'; expected one of 'sessions', 'trace', 'replay'"),
        ('[network]\ngenerator = "grid"', "network: unknown 'generator' 'grid'; expected one of 'mesh', 'chain',"),
        ("network = 5", "network: expected a section with fields (given 5)"),
        ("hardware = [1]", "hardware: expected a section with fields (given [1])"),
        ("outages = true", "outages: expected a section with fields (given True)"),
        ("summary = 5", "summary: expected text in quotes (given 5)"),
        ('[network]\ngenerator = "mesh"\nnodes = 1.0', "network.nodes: expected a whole number (given 1.0)"),
        ('[network]\ngenerator = "mesh"\nnodes = 1', "network.nodes: expected at least 2 (given 1)"),
        ("[hardware]\ncoherence_time = nan", "hardware.coherence_time: expected a finite number (given nan)"),
        ("[hardware]\nreadout_fidelity = 0.5", "hardware.readout_fidelity: expected more than 0.5 (given 0.5)"),
        ('[demand]\nkind = "sessions"\nsession_share = 1', "demand.session_share: expected less than 1 (given 1"),
        ('[demand]\nkind = "sessions"\narrivals = 1', "demand.arrivals: expected 'poisson' or 'periodic' (given 1)"),
        ('[demand]\nkind = "sessions"\nfidelity_classes = 0.7', "expected a list, such as [0.7, 0.8] (given 0.7)"),
        ("[seeds.train]\ndemand = {start = 0, stop = 9}", "seeds.train.topology: is missing"),
        ("[control]\nrow = 4", "control.row: unknown key; remove it or check its spelling"),
    ],
)
def test_a_mistake_is_told_in_plain_words(text: str, told: str) -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.from_toml(f'name = "x"\n{text}')
    assert told in one_line(error)


@pytest.mark.parametrize("value", [5, -1, 1e99, math.nan, True, "x", "", "y" * 5000, None, [], [1, 2, 3], {}, {"a": 1}])
def test_every_kind_of_mistake_has_words(value: object) -> None:
    whole = SCENARIOS["mesh100-outages-v0"].model_dump(mode="json")
    sections = [*leaves(whole), *((name,) for name in whole), ("seeds", "train"), ("seeds", "train", "demand")]
    for *path, last in sections:
        data = SCENARIOS["mesh100-outages-v0"].model_dump(mode="json")
        section = data
        for name in path:
            section = section[name]
        section[last] = value
        try:
            Scenario.model_validate(data)
        except ValidationError as error:
            kinds = {mistake["type"] for mistake in error.errors()}
            assert kinds <= EXPECTED.keys()


@pytest.mark.parametrize(
    "name", ["", " ", "a\nb", "a\tb", "\0", "\x1b[2J", "\u2028", "\u200b", "\ud800", "n" * 201, "n" * 2**20, 5, None]
)
def test_a_name_is_a_short_line_that_can_be_printed(name: Any) -> None:
    with pytest.raises(ScenarioError, match=r": name: "):
        scenarios.get("chain3-v0", name=name)


@pytest.mark.parametrize("name", ["n" * 200, "lab/mesh", "../escaped", "mesh+dense", "a b", "é🌀", "[/b]", "slots=5"])
def test_a_name_may_be_any_short_line(name: str) -> None:
    assert scenarios.get("chain3-v0", name=name).name == name


def test_a_name_that_records_long_values_is_cut_and_stays_unique() -> None:
    files = ["/" + "d" * 200 + "/" + name for name in ("a\n.csv", "b.csv")]
    names = [scenarios.get("chain3-v0", kind="replay", requests_file=file).name for file in files]
    assert names[0] != names[1]
    assert all(name.startswith("chain3-v0+kind=replay") and len(name) == 200 for name in names)
    world = scenarios.get("chain3-v0", summary="two\nlines")
    assert scenarios.from_toml(world.to_toml()) == world
    assert scenarios.get("chain3-v0", name="n" * 200).on_topology(7).name != "n" * 200


@pytest.mark.parametrize("leaf", ["summary", "topology", "requests_file", "name"])
def test_no_text_is_as_long_as_a_megabyte(leaf: str) -> None:
    kinds = {"topology": {"generator": "topohub"}, "requests_file": {"kind": "replay"}}
    with pytest.raises(ScenarioError, match=f"{leaf}: expected at most (200|1000) characters"):
        scenarios.get("chain3-v0", **kinds.get(leaf, {}), **{leaf: "x" * 2**20})


def test_a_megabyte_in_place_of_a_name_is_answered_at_once() -> None:
    for ask in (lambda: scenarios.get("x" * 2**20), lambda: scenarios.get("chain3-v0", **{"x" * 2**20: 1})):
        with pytest.raises(ScenarioError):
            ask()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"nodes": 3000, "links_per_node": 1e9}, "too big: 1.06e+13 steps to find the routes"),
        ({"nodes": 1000, "links_per_node": 1e9, "max_hops": 16}, "steps to find the routes"),
        ({"nodes": 10_000, "peers": 10_000}, "steps to find the routes"),
        ({"nodes": 1000, "peers": 999, "routes_per_peer": 16, "links_per_node": 1.0}, "steps to find the routes"),
        ({"nodes": 1000, "max_hops": 16, "peers": 1}, "steps to judge the routes"),
        ({"generator": "star", "nodes": 4000}, "steps to judge the routes"),
        ({"nodes": 200, "peers": 199, "forecast_horizon": 10_000}, "features and actions"),
        ({"generator": "chain", "nodes": 9000, "peers": 1, "memory": (1, 10_000)}, "9e+07 stored pairs"),
        ({"generator": "chain", "memory": (10_000, 10_001)}, "hardware.memory.1: expected at most 10000"),
        ({"generator": "chain", "nodes": 10_000, "rows": 255, "peers": 1}, "for allocations"),
        ({"slots": 1_000_000, "request_rate": 100.0}, "2.5e+07 requests per episode; expected at most 1e+07"),
        ({"slots": 1_000_000, "session_duration": 0.25}, "sessions per episode"),
        ({"kind": "trace", "slots": 1_000_000, "matrix_duration": 0.25}, "rates per episode"),
        ({"fidelity_classes": [0.5 + k / 1000 for k in range(17)]}, "expected at most 16 entries"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_world_that_takes_more_than_minutes_or_memory_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.get("mesh100-v0", **fields)
    assert told in str(error.value)


def test_ten_thousand_nodes_of_the_usual_density_are_not_too_many() -> None:
    assert scenarios.get("mesh100-v0", nodes=10_000, side=1000.0, request_rate=1250.0)


MARKS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}  # Python writes them for the others


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", *MARKS])
def test_a_scenario_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    text = SCENARIOS["chain3-v0"].override(name="Zürich", summary="ÅΩ").to_toml().replace("\n", "\r\n")
    path = tmp_path / "mine.toml"
    path.write_bytes(MARKS.get(encoding, b"") + text.encode(encoding))
    assert scenarios.get(str(path)) == SCENARIOS["chain3-v0"].override(name="Zürich", summary="ÅΩ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('name = "ü"'.encode("latin-1"), "no text in UTF-8, nor in UTF-16 with a byte order mark; save it as UTF-8"),
        ('name = "x"'.encode("utf-16-le"), "it holds null characters"),
        (codecs.BOM_UTF16_LE + b"odd", "no text in UTF-8"),
        (b"#" * (2**20 + 1), "it is longer than 1,048,576 bytes"),
    ],
    ids=["latin-1", "no mark", "cut", "long"],
)
def test_a_scenario_file_in_no_encoding_is_told_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(ScenarioError) as error:
        scenarios.load(tmp_path / "mine.toml")
    assert told in one_line(error)


def test_a_folder_or_a_device_is_no_scenario_file(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(ScenarioError, match="no regular file"):
            scenarios.load(path)


@pytest.mark.parametrize("seed", [0, 2**63 - 3, 2**63 - 2, 2**63 - 1, np.int64(5), np.uint64(2**63 - 1)])
@pytest.mark.parametrize("split", scenarios.SPLITS)
def test_any_seed_may_be_the_topology_of_a_split(seed: int, split: scenarios.Split) -> None:
    world = scenarios.get("chain3-v0").on_topology(seed, split)
    lists = {each: getattr(world.seeds, each).topology for each in scenarios.SPLITS}
    assert lists[split][0] == lists[split][99] == seed
    assert len({seeds[0] for seeds in lists.values()}) == 3
    assert scenarios.from_toml(world.to_toml()) == world


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**400, 1.0, True, "1", None])
def test_what_is_no_seed_is_no_topology(seed: Any) -> None:
    with pytest.raises(ScenarioError, match=r"topology seed is .*; expected an int >= 0 and < 2\*\*63"):
        scenarios.get("chain3-v0").on_topology(seed)


def test_a_number_of_too_many_digits_is_no_topology() -> None:
    with pytest.raises(ScenarioError, match="topology seed is a int too long to show"):
        scenarios.get("chain3-v0").on_topology(16**5000)


@pytest.mark.parametrize(("start", "stop"), [(0, 2**63), (2**63 - 1, 2**63 + 1), (2**63, 2**63 + 1), (-1, 5), (5, 5)])
def test_a_seed_range_holds_seeds_and_can_be_counted(start: int, stop: int) -> None:
    with pytest.raises(ValidationError):
        SeedRange(start=start, stop=stop)


def test_the_last_seed_of_all_is_in_a_range() -> None:
    seeds = SeedRange(start=2**63 - 2, stop=2**63)
    assert [*seeds] == [seeds[0], seeds[1]] == [2**63 - 2, 2**63 - 1]
    assert 2**63 - 1 in seeds
    assert len(SeedRange(start=1, stop=2**63)) == 2**63 - 1


def test_registered_seeds_follow_from_a_value_for_everybody() -> None:
    value = "0123456789abcdef" * 3
    drawn = scenarios.get("mesh20-v0").registered(value, 30)
    first = int(hashlib.sha256(f"{value}:mesh20-v0:topology".encode()).hexdigest()[:16], 16) >> 1
    assert list(drawn.seeds.evaluation.topology) == [first + place for place in range(30)]
    assert len(drawn.seeds.evaluation.demand) == len(scenarios.get("mesh20-v0").seeds.evaluation.demand)
    assert drawn.seeds.evaluation.demand[0] != first
    assert drawn.seeds.train == scenarios.get("mesh20-v0").seeds.train
    assert drawn.name == "mesh20-v0+registered=0123456789ab"
    assert drawn.registered("f" * 40, 30).seeds.evaluation != drawn.seeds.evaluation
