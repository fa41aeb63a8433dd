"""What privacy would cost, before anything is trained: the numbers that rounds then report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federated_rounds import averager, play

from dpem_agents.federated import DPConfig
from dpem_agents.studies.noise import noise_table
from dpem_env.support.errors import DpemError
from support.command_line import complaint, dpem


@pytest.mark.parametrize("mode", ["central", "local"])
def test_the_noise_told_is_that_of_a_round_with_all_nodes(mode: Any) -> None:
    [told] = noise_table([5], [10], 3, [4.0], [mode], delta=1e-3)["rows"]
    dp = DPConfig.calibrate(4.0, 3, mode=mode, population=10, clip_norm=0.7, delta=1e-3)
    _, report = play(averager(dp, 5), {node: np.zeros(5) for node in range(10)})
    assert told["noise_to_clip"] == pytest.approx(report.noise_to_clip)
    assert told["noise_multiplier"] == dp.noise_multiplier


def test_noise_falls_with_nodes_and_grows_with_weights_and_rounds() -> None:
    rows = noise_table([100, 400], [100, 1000], 40, [8.0], ["central", "local"])["rows"]
    ratio = {(row["mode"], row["nodes"], row["weights"]): row["noise_to_clip"] for row in rows}
    assert ratio["central", 100, 400] == pytest.approx(2.0 * ratio["central", 100, 100])
    assert ratio["central", 1000, 100] == pytest.approx(ratio["central", 100, 100] / 10.0)
    assert ratio["local", 100, 100] == pytest.approx(10.0 * ratio["central", 100, 100])
    assert ratio["local", 1000, 100] == pytest.approx(ratio["local", 100, 100] / math.sqrt(10.0))
    [fewer] = noise_table([100], [100], 10, [8.0], ["central"])["rows"]
    assert fewer["noise_to_clip"] < 0.6 * ratio["central", 100, 100]
    assert fewer["bytes_per_node"] == 100 * 8


def test_what_no_configuration_allows_is_refused() -> None:
    with pytest.raises(DpemError, match="weights is 0; expected at least 1"):
        noise_table([0], [100], 10, [8.0], ["central"])
    with pytest.raises(DpemError, match=r"delta is 0\.1; expected"):
        noise_table([5], [100], 10, [8.0], ["central"], delta=0.1)


def test_the_command_prints_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ("--weights", "5", "--nodes", "10", "--rounds", "2", "--epsilon", "4", "--delta", "0.001")
    assert dpem("federate", "noise", *plan, "--mode", "central", "--out", str(tmp_path / "noise.json")) == 0
    said = capsys.readouterr().out
    [row] = json.loads((tmp_path / "noise.json").read_text())["rows"]
    assert f"{row['noise_to_clip']:.3g}" in said
    assert "target_epsilon is -4" in complaint(capsys, "federate", "noise", *plan, "--epsilon", "-4")
