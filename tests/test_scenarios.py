"""Scenarios: shipped worlds, TOML, hashes, overrides, seed lists and the one line a mistake is told in."""

from __future__ import annotations

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
from dpem_env.errors import ScenarioError
from dpem_env.scenarios import (
    SCENARIOS,
    ChainNetwork,
    CoronetNetwork,
    MeshNetwork,
    Outages,
    ReplayDemand,
    Scenario,
    SeedRange,
    StarNetwork,
    TopohubNetwork,
    TraceDemand,
)

# Once released, a scenario never changes: a new hash here means a new version suffix and a line in the version history.
RELEASED = {
    "chain3-v0": "d3e433388ac1",
    "star8-v0": "fd02a684a146",
    "mesh20-v0": "ccfeb05347e3",
    "mesh100-v0": "a84ddbaafb40",
    "mesh100-outages-v0": "c5fb308a874e",
    "surfnet-v0": "189c78822434",
    "abilene-trace-v0": "f1ccd1499fbd",
    "abilene-mixed-v0": "7e434c628b8f",
    "coronet100-v0": "0c6d8dddd0a9",
}

# Another valid value for every field of mesh100-outages-v0, by section.
OTHER: dict[str, dict[str, Any]] = {
    "network": {"nodes": 99, "side": 90.0, "links_per_node": 2.0},
    "hardware": {
        "generation_rate": [0.0, 9.0],
        "swap_rate": [0.0, 4.0],
        "memory": [8, 15],
        "coherence_time": 10.0,
        "attenuation": 0.25,
        "link_fidelity": 0.97,
        "swap_success": 0.8,
        "gate_fidelity": 0.98,
        "readout_fidelity": 0.98,
        "token_cap": 3.0,
    },
    "routing": {"routes_per_peer": 2, "max_hops": 7, "min_link_rate": 0.2, "min_swap_rate": 0.2},
    "demand": {
        "peers": 7,
        "fidelity_classes": [0.70, 0.80, 0.91],
        "class_weights": [0.5, 0.3, 0.1],
        "deadline": 2.0,
        "request_rate": 16.0,
        "predictability": 0.5,
        "arrivals": "periodic",
        "jitter": 0.5,
        "session_duration": 10.0,
        "session_share": 0.1,
        "popularity_sigma": 0.0,
        "gravity_length": 40.0,
    },
    "control": {
        "slot_duration": 0.125,
        "rows": 3,
        "qualities": 2,
        "time_to_live": 1.0,
        "telemetry_period": 2.0,
        "telemetry_delay": 1,
    },
    "outages": {"mean_up": 100.0, "mean_down": 4.0},
    "observation": {"forecast_horizon": 5},
    "reward": {"contention_penalty": 0.1},
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
        ("link_fidelity", 0.98), ("swap_success", 0.9), ("token_cap", 2.0), ("routes_per_peer", 3), ("max_hops", 8),
        ("min_link_rate", 0.1), ("min_swap_rate", 0.1), ("peers", 8), ("fidelity_classes", (0.7, 0.8, 0.9)),
        ("class_weights", (0.5, 0.3, 0.2)), ("deadline", 1.0), ("request_rate", 12.5), ("predictability", 1.0),
        ("arrivals", "poisson"), ("jitter", 0.2),
        ("session_duration", 20.0), ("session_share", 0.05), ("popularity_sigma", 0.5), ("gravity_length", 50.0),
        ("slot_duration", 0.25), ("rows", 4), ("qualities", 3), ("time_to_live", 2.0), ("telemetry_period", 1.0),
        ("telemetry_delay", 2), ("forecast_horizon", 8), ("contention_penalty", 0.05), ("slots", 400),
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
        name="small", network=MeshNetwork(nodes=12), demand=scenarios.SessionDemand(request_rate=1.0)
    )


@given(
    st.builds(
        dict,
        request_rate=st.floats(0.0, 1e6),
        link_fidelity=st.floats(0.25, 1.0),
        nodes=st.integers(2, 500),
        memory=st.tuples(st.integers(1, 9), st.integers(9, 50)),
        outages=st.none() | st.fixed_dictionaries({"mean_up": st.floats(1.0, 1e6), "mean_down": st.floats(1.0, 1e6)}),
        name=st.text(min_size=1, max_size=20),
        summary=st.text(max_size=20),
    )
)
@settings(max_examples=40, deadline=None)
def test_any_scenario_survives_toml_and_back(fields: dict[str, Any]) -> None:
    scenario = scenarios.get("mesh100-v0", **fields)
    assert scenarios.from_toml(scenario.to_toml()) == scenario


@pytest.mark.parametrize(("section", "leaf"), CHANGES)
def test_the_hash_changes_with_every_field(section: str, leaf: str) -> None:
    scenario = scenarios.get("mesh100-outages-v0")
    if section == "outages":
        changed = scenario.override(outages={**scenario.model_dump()["outages"], leaf: OTHER[section][leaf]})
    else:
        changed = scenario.override(**{leaf: OTHER[section][leaf]})
    assert changed.hash != scenario.hash
    assert changed.override(name=scenario.name) != scenario


def test_the_hash_is_tried_against_every_field() -> None:
    config = scenarios.get("mesh100-outages-v0").model_dump(exclude={"name", "summary", "seeds"})
    kinds = {("network", "generator"), ("demand", "kind")}
    assert set(leaves(config)) - kinds == set(CHANGES)


def test_the_hash_changes_with_the_kind_of_network_or_demand_the_outages_and_the_seeds() -> None:
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
        Scenario(name="x").override(seeds=seeds),
    ]
    assert len({variant.hash for variant in variants}) == len(variants)


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
    scenario = scenarios.get("mesh100-v0", request_rate=16.0, swap_success=1.0)
    assert scenario.demand == scenarios.SessionDemand(request_rate=16.0)
    assert scenario.hardware.swap_success == 1.0
    assert scenario.name == "mesh100-v0+request_rate=16.0+swap_success=1.0"
    assert scenarios.get("mesh100-v0").demand == scenarios.SessionDemand(request_rate=12.5)


def test_outages_are_overridden_as_a_whole_and_switched_off_by_none() -> None:
    scenario = scenarios.get("mesh100-v0", outages={"mean_up": 50.0})
    assert scenario.outages == Outages(mean_up=50.0, mean_down=5.0)
    assert scenario.override(outages=None).hash == scenarios.get("mesh100-v0").hash


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
        ('[demand]\nkind = "session"', "demand", "'session'"),
        ('[demand]\nkind = "replay"', "demand.requests_file", "required"),
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
        ("[hardware]\ngeneration_rate = [1.0]", "hardware.generation_rate", "required"),
        ("[hardware]\ngeneration_rate = [0.0, 2001.0]", "hardware.generation_rate", "500 pairs"),
        ('[network]\ngenerator = "star"\nrelay_generation_rate = 1e9', "network.relay_generation_rate", "500 pairs"),
        ("[hardware]\nmemory = [8.5, 9]", "hardware.memory", "8.5"),
        ("[hardware]\ncoherence_time = 0.0", "hardware.coherence_time", "0.0"),
        ("[control]\ntime_to_live = 0.3", "control.time_to_live", "0.3 s must be a whole number"),
        ("[control]\nslot_duration = 0.3", "demand.deadline", "1.0 s must be a whole number"),
        ("[control]\ntelemetry_period = 1e308", "control.telemetry_period", "1e+308"),
        ("[control]\ntelemetry_delay = 5", "control.telemetry_period", "telemetry_delay"),
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
    assert "name: Field required" in one_line(error)


@pytest.mark.parametrize("text", ["name = ", "[network", 'name = "x"\nname = "y"'])
def test_invalid_toml_is_told_in_one_line(text: str) -> None:
    with pytest.raises(ScenarioError, match="not valid TOML") as error:
        scenarios.from_toml(text)
    one_line(error)


def test_a_missing_scenario_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = str(tmp_path / "absent.toml")
    with pytest.raises(ScenarioError, match="cannot be read") as error:
        scenarios.get(path)
    assert path in one_line(error)


def test_a_scenario_file_that_is_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="cannot be read") as error:
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
    scenario = scenarios.get("mesh100-v0", slot_duration=0.1, time_to_live=0.3)  # 0.3 / 0.1 is not 3 in binary
    assert scenario.in_slots(scenario.control.time_to_live) == 3


def test_an_episode_has_a_longest_length() -> None:
    with pytest.raises(ScenarioError, match=r"episode\.slots"):
        scenarios.get("chain3-v0", slots=scenarios.MAX_SLOTS + 1)


def test_deeply_nested_toml_is_refused() -> None:
    with pytest.raises(ScenarioError, match="nested too deeply"):
        scenarios.from_toml("x = " + "[" * 100_000)
