"""Seeds: what can be one, wherever it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import parallel_env
from dpem_env.cli import main
from dpem_env.support.errors import ScenarioError
from dpem_env.support.seeding import require_seed

NO_SEEDS = (-1, 2**63, 2**64, 10**30, 16**5000, 1.0, True, "1", None, [1], np.uint64(2**63), np.float64(1.0))


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1, np.int64(5), np.uint8(5), np.uint64(2**63 - 1)], ids=repr)
def test_whole_numbers_of_63_bits_are_seeds(seed: Any) -> None:
    require_seed("seed", seed)


@pytest.mark.parametrize("seed", NO_SEEDS, ids=lambda seed: type(seed).__name__)
def test_nothing_else_is_a_seed(seed: Any) -> None:
    with pytest.raises(ScenarioError, match=r"^seed is .*; expected an int >= 0 and < 2\*\*63$"):
        require_seed("seed", seed)


@pytest.mark.parametrize("option", ["topology_seed", "demand_seed"])
def test_an_environment_takes_any_seed_and_nothing_else(option: str) -> None:
    env = parallel_env("chain3-v0", max_cycles=2)
    for seed in (2**32, 2**63 - 1):
        env.reset(seed=seed)
        env.reset(options={option: seed})
    for seed in (2**63, -1):
        with pytest.raises(ScenarioError, match=rf"{option} is"):
            env.reset(options={option: seed})
        with pytest.raises(ScenarioError, match=r"seed=\.\.\.\) is"):
            env.reset(seed=seed)


COMMANDS = {
    "run": ["run", "--scenario", "chain3-v0", "--policy", "idle", "--seeds", "1", "--set", "slots=8"],
    "benchmark": ["benchmark", "small", "--policy", "idle", "--seeds", "1", "--scenario", "short.toml"],
    "forecast": ["forecast", "--scenario", "chain3-v0", "--forecaster", "oracle", "--seeds", "1", "--set", "slots=16"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_any_seed_of_a_topology_and_nothing_else(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.toml").write_text('name = "short"\n[network]\ngenerator = "chain"\n[episode]\nslots = 8\n')
    assert main([*COMMANDS[command], "--topology", "9223372036854775807", "--out", "last"]) == 0
    expected = "expected a whole number from 0 to 9,223,372,036,854,775,807"
    for seed in ("9223372036854775808", "99999999999999999999999999", "-1"):
        assert main([*COMMANDS[command], f"--topology={seed}", "--out", "none"]) == 2
        said = capsys.readouterr().err
        assert said == f"dpem {command}: error: --topology is {seed!r}; {expected} (see dpem {command} --help)\n"
    assert not (tmp_path / "none").exists()
