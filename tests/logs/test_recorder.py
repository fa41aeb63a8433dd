"""Episode logs: what they hold, and the one line a damaged one is told in."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpem_env import scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.logs import recorder as records
from dpem_env.logs.recorder import EpisodeRecorder, read_log
from dpem_env.logs.replay import replay
from dpem_env.policies import CentralPolicy, Decision, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Condition
from dpem_env.support.errors import LogError
from support.episode_logs import Change, Header, Row, record_episode, rewrite

SLOTS = 24


def busy() -> Scenario:
    """Busy enough for every column to have something in it."""
    return scenarios.get("mesh20-v0", slots=SLOTS, request_rate=16.0, attenuation=0.05)


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "episode.parquet"
    record_episode(path, busy(), forecaster="mean-rates")
    return path


def complaint_about(path: Path) -> str:
    with pytest.raises(LogError) as error:
        read_log(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_log_has_the_columns_its_docstring_lists(log_path: Path) -> None:
    assert records.__doc__ is not None
    listed = re.findall(r"``(\w+)``", records.__doc__)
    assert sorted(pq.read_schema(log_path).names) == sorted(listed)


def test_a_log_holds_the_whole_episode(tmp_path: Path) -> None:
    metrics, session = record_episode(tmp_path / "a.parquet", busy())
    log = read_log(tmp_path / "a.parquet")
    requests, peers = session.demand.requests, session.network.peers
    logged = [(row["slot"], r["source"], r["destination"], r["last_slot"]) for row in log.rows for r in row["requests"]]
    assert logged == list(
        zip(
            requests.slot.tolist(),
            requests.source.tolist(),
            peers[requests.source, requests.peer].tolist(),
            requests.last_slot.tolist(),
            strict=True,
        )
    )
    assert len(logged) > 30
    verdicts = np.array([row["verdict"] for row in log.rows])
    assert (verdicts == 1).any()
    assert np.array_equal(verdicts == 0, np.array([row["action"] for row in log.rows]) == 0)
    assert sum(len(row["deliveries"]) for row in log.rows) == metrics.delivered
    assert sum(sum(row["delivered"]) for row in log.rows) == metrics.delivered
    assert metrics.delivered > 0
    from_stock = [delivery["from_stock"] for row in log.rows for delivery in row["deliveries"]]
    assert np.mean(from_stock) == pytest.approx(metrics.from_stock)
    assert log.rows[-1]["expired"] == log.header["totals"]["expired"]
    assert np.mean(np.sum([row["reward"] for row in log.rows], axis=0)) == pytest.approx(metrics.reward)
    fidelities = [delivery["fidelity"] for row in log.rows for delivery in row["deliveries"]]
    assert np.mean(fidelities) == pytest.approx(metrics.fidelity)
    # A request that a stored pair serves on arrival stands in the row of the slot before.
    latency = [max(row["slot"] - d["arrival"], 0) * 0.25 for row in log.rows for d in row["deliveries"]]
    assert np.mean(latency) == pytest.approx(metrics.latency)
    assert [row["state"] for row in log.rows][-1] == session.simulator.digest()
    assert log.header["totals"]["delivered"] == metrics.delivered
    assert all(row["forecast"] is None for row in log.rows)


def test_a_log_gives_back_scenario_seeds_network_and_requests_bit_for_bit(tmp_path: Path) -> None:
    _, session = record_episode(tmp_path / "a.parquet", busy())
    log = read_log(tmp_path / "a.parquet")
    assert log.scenario == session.scenario
    assert log.seeds == session.seeds
    network = log.network()
    assert network.topology.names == session.network.topology.names
    for name, array in vars(session.network.topology).items():
        if isinstance(array, np.ndarray):
            again = getattr(network.topology, name)
            assert again.dtype == array.dtype, name
            assert again.tobytes() == array.tobytes(), name
    assert network.peers.tobytes() == session.network.peers.tobytes()
    assert network.weights.tobytes() == session.network.weights.tobytes()
    assert network.routes.nodes.tobytes() == session.network.routes.nodes.tobytes()
    assert network.excluded == session.network.excluded
    for logged, drawn in zip(log.demand(network).requests, session.demand.requests, strict=True):
        assert np.array_equal(logged, drawn)


def test_forecasts_are_logged_as_they_were_decided_on(log_path: Path) -> None:
    log = read_log(log_path)
    peers = log.network().weights
    for row in log.rows:
        forecast = np.array(row["forecast"]).reshape(*peers.shape, 8)
        np.testing.assert_allclose(forecast, np.repeat(peers[:, :, None] * 16.0 * 0.25, 8, axis=2), rtol=1e-6)


def test_a_log_that_cannot_be_written_leaves_the_old_one(
    log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "episode.parquet"
    target.write_bytes(log_path.read_bytes())

    def disk_full(table: pa.Table, where: Path, **options: object) -> None:
        Path(where).write_bytes(b"PAR1 and then nothing")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", disk_full)
    with pytest.raises(OSError, match="No space left"):
        record_episode(target, busy())
    assert target.read_bytes() == log_path.read_bytes()
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_log_is_told(tmp_path: Path) -> None:
    assert "cannot be used: No such file or directory" in complaint_about(tmp_path / "none.parquet")


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    assert "cannot be used: it is no regular file" in complaint_about(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"slot,action\n0,1\n", b"PAR1" + bytes(500) + b"PAR1"])
def test_a_file_of_another_kind_is_no_log(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.parquet"
    path.write_bytes(content)
    assert "cannot be used" in complaint_about(path)


def test_a_truncated_file_is_no_log(log_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.parquet"
    path.write_bytes(log_path.read_bytes()[: log_path.stat().st_size // 2])
    assert "cannot be used: it is no Parquet file, or cut off" in complaint_about(path)


def test_another_parquet_file_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"slot": [0, 1]}), path)
    assert "it has no header, so it is no episode log of dpem run" in complaint_about(path)


def test_a_log_without_its_header_is_no_log(log_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(log_path).replace_schema_metadata(None), path)
    assert "it has no header, so it is no episode log of dpem run" in complaint_about(path)


@pytest.mark.parametrize("name", ["action", "requests", "check", "forecast", "fallback"])
def test_a_missing_column_is_named(log_path: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "short.parquet"
    pq.write_table(pq.read_table(log_path).drop_columns([name]), path)
    assert f"it has no column {name!r}" in complaint_about(path)


@pytest.mark.parametrize("rows", [slice(0, SLOTS - 1), slice(1, SLOTS), slice(0, 0)])
def test_a_log_of_fewer_slots_is_incomplete(log_path: Path, tmp_path: Path, rows: slice) -> None:
    table = pq.read_table(log_path)
    path = tmp_path / "incomplete.parquet"
    pq.write_table(table.slice(rows.start, rows.stop - rows.start), path)
    assert f"incomplete: {len(range(SLOTS)[rows])} of {SLOTS} slots" in complaint_about(path)


def test_slots_out_of_order_are_incomplete(log_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "shuffled.parquet"
    pq.write_table(pq.read_table(log_path).take([1, 0, *range(2, SLOTS)]), path)
    assert "incomplete" in complaint_about(path)


def _set(path: str, value: Any) -> Change:
    """A change that sets header[a][b]… for the path "a.b…"; `...` as value removes the key."""

    def change(header: Header, rows: list[Row]) -> None:
        *parents, last = path.split(".")
        for key in parents:
            header = header[key]
        if value is ...:
            del header[last]
        else:
            header[last] = value

    return change


def _set_value(name: str, value: Any) -> Change:
    """A change of the first number of one of the network's arrays."""

    def change(header: Header, rows: list[Row]) -> None:
        values = header["network"][name]["values"]
        if isinstance(values[0], list):
            values[0][0] = value
        else:
            values[0] = value

    return change


@pytest.mark.parametrize(
    "key",
    ["version", "policy", "scenario", "scenario_hash", "seeds", "slots", "network", "excluded_requests", "start"],
)
@pytest.mark.parametrize("value", [..., None, 1.5, ["a"]], ids=repr)
def test_a_header_field_of_the_wrong_kind_is_named(log_path: Path, tmp_path: Path, key: str, value: Any) -> None:
    message = complaint_about(rewrite(log_path, tmp_path / "a.parquet", _set(key, value)))
    assert f"header.{key}: " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (_set("format", "dpem-episode-1"), "the header has format 'dpem-episode-1'; expected 'dpem-log-4'"),
        (_set("format", ...), "the header has format None"),
        (_set("slots", 0), "header.slots: "),
        (_set("slots", True), "header.slots: "),
        (_set("seeds.topology", -1), "header.seeds.topology: "),
        (_set("seeds.demand", ...), "header.seeds.demand: "),
        (_set("version.rules", 3), "header.version.rules: "),
        (_set("version.rules", "v0"), "made under rules v0, and rules are v1 now; record the episode again"),
        (_set("totals", {"delivered": "many"}), "header.totals.delivered: "),
        (_set("scenario", "name = "), "scenario in the header: not valid TOML"),
        (_set("scenario", 'name = "x"\n[hardware]\nswap_success = 2.0\n'), "hardware.swap_success"),
        (_set("scenario", 'name = "x"\n[hardware]\nmemory = [1, 1]\n'), "header.network.memory"),
        (_set("network.names", ["only one"]), "header.network.names: "),
        (_set("network.names", ["a", "b"]), "header.network.position: expected finite <f8 of shape (2, 2)"),
        (_set("network.excluded", {"weak link": "some"}), "header.network.excluded"),
        (_set("network.position", ...), "header.network.position: expected finite <f8 of shape (20, 2)"),
        (_set("network.memory.dtype", "<f8"), "header.network.memory: expected finite <i4 of shape (20,)"),
        (_set("network.memory.dtype", "O"), "header.network.memory"),
        (_set("network.memory.values", [8] * 19), "header.network.memory"),
        (_set("network.memory.values", [[8]] * 20), "header.network.memory"),
        (_set("network.memory.values", [8.5] * 20), "header.network.memory"),
        (_set("network.memory.values", "8"), "header.network.memory"),
        (_set("network.links", "none"), "header.network.links"),
        (_set("network.links.values", []), "header.network.links"),
        (_set("network.links.values", [[0, 1], [2]]), "header.network.links"),
        (_set("network.peers.values", [[0]] * 20), "header.network.peers"),
        (_set_value("length", float("nan")), "it holds NaN, which is no finite number"),
        (_set_value("swap_rate", float("inf")), "it holds Infinity, which is no finite number"),
        (_set_value("popularity", "much"), "header.network.popularity"),
        (_set_value("popularity", None), "header.network.popularity"),
        (_set_value("link_key", 2**70), "header.network.link_key"),
        (_set_value("memory", 2**40), "header.network.memory"),
        (_set_value("memory", 2_000_000_000), "header.network.memory: 2000000000 is out of range"),
        (_set_value("memory", 0), "header.network.memory: 0 is out of range"),
        (_set_value("links", 20), "header.network.links"),
        (_set_value("links", -1), "header.network.links"),
        (_set_value("emitter", 20), "header.network.emitter: 20 is out of range"),
        (_set_value("peers", 20), "header.network.peers"),
        (_set_value("peers", -2), "header.network.peers"),
        (_set_value("peers", 0), "header.network.peers"),  # node 0 itself
        (_set_value("generation_rate", 1e9), "header.network.generation_rate"),
        (_set_value("generation_rate", -1.0), "header.network.generation_rate: -1.0 is out of range"),
        (_set_value("transmission", 1.5), "header.network.transmission"),
        (_set_value("coherence_time", 0.0), "header.network.coherence_time"),
    ],
)  # fmt: skip
def test_a_malformed_header_is_told_by_field(log_path: Path, tmp_path: Path, change: Change, fragment: str) -> None:
    message = complaint_about(rewrite(log_path, tmp_path / "a.parquet", change))
    assert fragment in message
    assert "\n" not in message


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b'"dpem-log-4"'])
def test_a_header_that_is_no_json_object_is_told(log_path: Path, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.parquet"
    metadata = pq.read_schema(log_path).metadata
    pq.write_table(pq.read_table(log_path).replace_schema_metadata(metadata | {b"dpem": text}), path)
    assert re.search("Expecting|can't decode|nested too deeply|expected a JSON object", complaint_about(path))


@pytest.mark.parametrize("name", ["action", "route", "priority", "verdict", "delivered", "contended", "reward"])
def test_a_row_without_one_value_per_node_is_told(log_path: Path, tmp_path: Path, name: str) -> None:
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[3][name].pop())
    assert f"column {name!r}: 479 values; expected 480" in complaint_about(path)


@pytest.mark.parametrize("name", ["action", "reward", "forecast"])
def test_two_rows_that_do_not_share_evenly_are_told(log_path: Path, tmp_path: Path, name: str) -> None:
    expected = 20 * 8 * 8 if name == "forecast" else 20
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[3][name].append(rows[5][name].pop()))
    assert f"column {name!r}, slot 3: {expected + 1} values; expected {expected}" in complaint_about(path)


def test_a_forecast_of_another_size_is_told(log_path: Path, tmp_path: Path) -> None:
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[3]["forecast"].pop())
    assert f"column 'forecast', slot 3: {20 * 8 * 8 - 1} values; expected {20 * 8 * 8}" in complaint_about(path)


@pytest.mark.parametrize("name", ["requests", "action", "verdict", "deliveries", "expired", "reward", "state", "check"])
def test_a_missing_value_is_told(log_path: Path, tmp_path: Path, name: str) -> None:
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[3].update({name: None}))
    of_nodes = name in ("action", "verdict", "reward")
    assert f"column {name!r}: {'461 values' if of_nodes else 'a value is missing'}" in complaint_about(path)


def test_a_missing_value_inside_a_list_is_told(log_path: Path, tmp_path: Path) -> None:
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[3]["action"].__setitem__(2, None))
    assert "column 'action': a value is missing" in complaint_about(path)


@pytest.mark.parametrize(
    "change",
    [
        {"source": 20},
        {"source": -1},
        {"destination": -1},
        {"destination": 20},
        {"fidelity": 0.8},
        {"fidelity": float("nan")},
        {"last_slot": -1},
    ],
    ids=str,
)
def test_an_impossible_request_is_told(log_path: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    slot = next(row["slot"] for row in read_log(log_path).rows if row["requests"])
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[slot]["requests"][0].update(change))
    message = complaint_about(path)
    assert f"column 'requests', slot {slot}: " in message
    assert "is impossible in this network" in message


def test_a_missing_number_in_a_request_is_told(log_path: Path, tmp_path: Path) -> None:
    def change(header: Header, rows: list[Row]) -> None:
        next(row for row in rows if row["requests"])["requests"][0]["source"] = None

    assert "column 'requests': a value is missing" in complaint_about(rewrite(log_path, tmp_path / "a.parquet", change))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("action", ["wait"] * SLOTS),
        ("requests", [[1, 2]] * SLOTS),
        ("reward", [["much"] * 20] * SLOTS),
        ("expired", ["few"] * SLOTS),
        ("slot", ["first"] * SLOTS),
    ],
)
def test_a_column_of_another_type_is_no_log(log_path: Path, tmp_path: Path, name: str, values: list[Any]) -> None:
    table = pq.read_table(log_path)
    path = tmp_path / "a.parquet"
    pq.write_table(table.set_column(table.schema.names.index(name), name, pa.array(values)), path)
    assert str(path) in complaint_about(path)


def test_flipped_bytes_are_told_or_harmless_but_never_another_error(log_path: Path, tmp_path: Path) -> None:
    whole = log_path.read_bytes()
    dice = random.Random(0)
    refused = 0
    for trial in range(60):
        damaged = bytearray(whole)
        for _ in range(1 + trial % 4):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        path = tmp_path / "damaged.parquet"
        path.write_bytes(damaged)
        try:
            assert len(read_log(path).rows) == SLOTS
        except LogError:
            refused += 1
    assert 10 < refused < 60


class Ranking(CentralPolicy):
    """Conditions in one slot, routes to fall back to in another, both in a third."""

    def act(self, view: NetworkView) -> Decision:
        """An allocation of node 0, over route 1 or else 0."""
        nodes, routes = len(view.masks), view.scenario.routing.routes_per_peer
        action, route = np.zeros((2, nodes), dtype=np.int64)
        action[0] = 1
        decision = Decision(action, route)
        if view.slot in (1, 3):
            decision = decision._replace(condition=np.full(nodes, Condition.FREE))
        if view.slot in (2, 3):
            decision = decision._replace(fallback=np.full((nodes, routes - 1), [1] + [-1] * (routes - 2)))
        return decision


def test_conditions_and_ranks_are_recorded_where_there_are_any_and_replay(tmp_path: Path) -> None:
    recorder, path = EpisodeRecorder(), tmp_path / "ranking.parquet"
    scenario = scenarios.get("mesh20-v0", slots=5)
    run_episode(scenario, Ranking(), episode_seeds(scenario, "evaluation", 0), recorder=recorder)
    recorder.save(path)
    rows = read_log(path).rows
    assert [row["condition"] is None for row in rows] == [True, False, True, False, True]
    assert [row["fallback"] is None for row in rows] == [True, True, False, False, True]
    assert rows[3]["condition"] == [1] * 20
    assert rows[3]["fallback"] == [1, -1] * 20
    assert replay(path).verified

    def no_condition(header: Header, rows: list[Row]) -> None:
        rows[1]["condition"] = None

    def another_rank(header: Header, rows: list[Row]) -> None:
        rows[2]["fallback"][0] = 2

    for change, slot in ((no_condition, 1), (another_rank, 2)):
        report = replay(rewrite(path, tmp_path / "changed.parquet", change))
        assert report.changed_decisions == (slot,)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("condition", [1] * 19, "column 'condition'"),
        ("condition", [1] * 19 + [None], "column 'condition'"),
        ("fallback", [1] * 20, "column 'fallback'"),
        ("fallback", [-1] * 41, "column 'fallback'"),
    ],
)
def test_conditions_and_ranks_of_another_length_are_named(tmp_path: Path, name: str, value: Any, told: str) -> None:
    path = tmp_path / "log.parquet"
    record_episode(path, scenarios.get("mesh20-v0", slots=3))

    def change(header: Header, rows: list[Row]) -> None:
        rows[1][name] = value

    message = complaint_about(rewrite(path, tmp_path / "changed.parquet", change))
    assert told in message
    assert "\n" not in message
