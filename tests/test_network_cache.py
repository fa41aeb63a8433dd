"""Networks on disk: the same as drawn, never stale, never in the way."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import network as networks
from dpem_env import network_cache, scenarios
from dpem_env.network import Network, build_network
from dpem_env.scenarios import Scenario

BIG = scenarios.get("mesh100-v0", nodes=60, side=77.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for every test."""
    monkeypatch.setenv("DPEM_CACHE", str(tmp_path))
    forget()
    return tmp_path / "networks"


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
    monkeypatch.setattr(network_cache, "_code", lambda: "other code")
    build_network(BIG, 0)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", b"\x00" * 400])
def test_a_damaged_file_is_drawn_again_and_replaced(folder: Path, damage: bytes) -> None:
    drawn = build_network(BIG, 0)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage or whole[: len(whole) // 2])
    forget()
    assert same(build_network(BIG, 0), build_network(BIG, 0))
    assert path.read_bytes() == whole
    forget()
    assert same(drawn, build_network(BIG, 0))


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DPEM_CACHE", str(tmp_path / "file"))
    assert build_network(BIG, 0).num_nodes == 60


@pytest.mark.parametrize("name", ["mesh20-v0", "chain3-v0", "surfnet-v0"])
def test_small_networks_and_those_made_from_files_are_not_kept(folder: Path, name: str) -> None:
    build_network(scenarios.get(name), 0)
    assert not folder.exists()
