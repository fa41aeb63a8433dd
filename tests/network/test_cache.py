"""Networks on disk: the same as drawn, never stale, never in the way."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.network import cache as network_cache
from dpem_env.network import network as networks
from dpem_env.network.network import Network, build_network
from dpem_env.scenarios import Scenario
from dpem_env.support import disk_cache

BIG = scenarios.get("mesh100-v0", nodes=60, side=77.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for every test, which finds everything compiled."""
    build_network(scenarios.get("chain3-v0"), 0)
    monkeypatch.setenv("DPEM_CACHE", str(tmp_path))
    forget()
    return disk_cache._state() / "networks"


def forget() -> None:
    """Empty the cache in memory, as in a new process."""
    networks._build.cache_clear()


def same(a: Network, b: Network) -> bool:
    parts: list[tuple[Any, Any]] = [(a, b)]
    while parts:
        x, y = parts.pop()
        for field in fields(x):
            mine, other = getattr(x, field.name), getattr(y, field.name)
            if field.name in ("topology", "routes"):
                parts.append((mine, other))
            elif isinstance(mine, np.ndarray):
                if mine.dtype != other.dtype or not np.array_equal(mine, other) or other.flags.writeable:
                    return False
            elif mine != other:
                return False
    return True


def test_a_network_read_is_the_network_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = build_network(BIG, 3)
    assert len(list(folder.iterdir())) == 1
    forget()
    monkeypatch.setattr(networks, "_draw", lambda *arguments: pytest.fail("drawn again"))
    assert same(drawn, build_network(BIG, 3))


@pytest.mark.parametrize(
    "other",
    [BIG.override(routes_per_peer=2), BIG.override(coherence_time=1.0), BIG.override(time_to_live=1.0), None],
)
def test_another_scenario_or_seed_is_another_network(folder: Path, other: Scenario | None) -> None:
    first = build_network(BIG, 0)
    second = build_network(other or BIG, 0 if other else 1)
    assert len(list(folder.iterdir())) == 2
    assert not same(first, second)


def test_what_a_network_does_not_depend_on_shares_it(folder: Path) -> None:
    build_network(BIG, 0)
    build_network(BIG.override(slots=7, contention_penalty=0.5, name="other"), 0)
    assert len(list(folder.iterdir())) == 1


def test_changed_code_draws_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_network(BIG, 0)
    forget()
    monkeypatch.setattr(disk_cache, "world_fingerprint", lambda: "0123456789abcdef")
    build_network(BIG, 0)
    assert len(list(folder.parents[1].glob("*/networks/*"))) == 2


def test_a_damaged_file_is_drawn_again_and_replaced(folder: Path) -> None:
    drawn = build_network(BIG, 0)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for damage in (b"", b"PK\x03\x04 no zip", b"\x00" * 400, whole[: len(whole) // 2], whole + b"more"):
        path.write_bytes(damage)
        forget()
        assert same(drawn, build_network(BIG, 0))
        assert path.read_bytes() == whole


def test_no_flipped_bit_and_no_missing_end_makes_another_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = build_network(BIG, 0)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    monkeypatch.setattr(networks, "_draw", lambda *arguments: drawn)
    for bit in rng.choice(8 * len(whole), 100, replace=False):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        forget()
        assert build_network(BIG, 0) is drawn
        assert path.read_bytes() == whole
    for length in rng.choice(len(whole), 20, replace=False):
        path.write_bytes(whole[:length])
        forget()
        assert build_network(BIG, 0) is drawn


def strange(network: Network, **changes: Any) -> bytes:
    return network_cache._packed(replace(network, **changes))


def test_a_file_of_other_shapes_or_types_is_drawn_again(folder: Path) -> None:
    """As another version might have left it: what is read goes to compiled code, which checks no bounds."""
    drawn = build_network(BIG, 0)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for content in (
        strange(drawn, peers=drawn.peers[:, :-1]),
        strange(drawn, weights=drawn.weights.astype(np.float32)),
        strange(drawn, routes=replace(drawn.routes, hops=drawn.routes.hops[:-1])),
        strange(drawn, topology=replace(drawn.topology, names=drawn.topology.names[:-1])),
        strange(drawn, topology=replace(drawn.topology, links=drawn.topology.links[:-1])),
        b"no archive at all",
    ):
        disk_cache.write(f"networks/{path.name}", content)
        assert path.read_bytes() != whole
        forget()
        assert same(drawn, build_network(BIG, 0))
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DPEM_CACHE", str(tmp_path / "file"))
    assert build_network(BIG, 0).num_nodes == 60


def test_who_has_no_home_gets_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DPEM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for an unknown user
    assert build_network(BIG, 0).num_nodes == 60


@pytest.mark.parametrize("name", ["mesh20-v0", "chain3-v0", "surfnet-v0"])
def test_small_networks_and_those_made_from_files_are_not_kept(folder: Path, name: str) -> None:
    build_network(scenarios.get(name), 0)
    assert not folder.exists()
