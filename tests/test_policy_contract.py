"""What `check_policy` sees, of every kind of policy, and that all installed policies keep the contract."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.policies import available
from dpem_env.support.errors import DpemError
from dpem_env.testing import check_policy
from support.own_policies import write_own_policies

NEED_A_FILE = {"ppo", "central-ppo", "sb3", "trained"}
ON_SWAPS = {"swap-asap", "swap-nested", "swap-optimal"}
RELAYS = scenarios.get("swap-chain5-v0", swapping="agents", news_period=1.0)
BUSY = scenarios.get("chain3-v0", request_rate=8.0, rows=1)  # where nodes may not allocate while they do


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_policies(tmp_path)


@pytest.mark.parametrize("name", sorted(available().keys() - NEED_A_FILE - ON_SWAPS))
def test_installed_policies_keep_the_contract(name: str) -> None:
    check_policy(name, BUSY)


@pytest.mark.parametrize("name", sorted(ON_SWAPS | {"idle", "random-legal", "central:swap-asap"}))
def test_so_do_those_that_decide_on_swaps(name: str) -> None:
    check_policy(name, RELAYS)


@pytest.mark.parametrize(("name", "scenario"), [("local-reactive", RELAYS), ("central:swap-asap", BUSY)])
def test_what_decides_on_something_else_is_refused(name: str, scenario: scenarios.Scenario) -> None:
    with pytest.raises(
        DpemError,
        match=r"leaves (swaps|allocations) to decide .*; \w+ decides on (allocations|swaps); a class",
    ):
        check_policy(name, scenario)


@pytest.mark.parametrize("name", ["Stock", "Controller", "stock", "wait", "Net", "Late"])
def test_so_do_those_of_a_user(name: str) -> None:
    for control in ("", "central:" * (name != "Controller")):
        check_policy(f"{control}./mine.py:{name}", BUSY)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("floats", r"actions of the policy has shape \(3,\) and type float64; expected \(3,\) integers"),
        ("short", r"actions of the policy has shape \(1,\) and type int64; expected \(3,\) integers"),
        ("far", r"slot 0 of chain3-v0.*: decides action 7 for node 0; expected 0 to 6"),
        ("forbidden", r"decides action \d for node \d, whose mask allows 0.* only"),
        ("drawn", r"then \d, with the same seed and the same shown; draw from numpy.random.default_rng\(seed\)"),
        ("together", r"decides action \d for node \d, but \d when only rows of other nodes differ"),
        ("writes", "slot 0 .*: writes into the observations it is shown; copy them first"),
        ("one", r"TypeError: one\(\) takes 1 positional argument but 2 were given"),
        ("Bare", r"act\(\) of the policy returned ndarray; expected Decision\(actions\)"),
        ("Remembers", "with the same seed and the same shown"),
        ("gone", r"'./mine.py' has no 'gone'; "),
    ],
)
def test_what_is_broken_is_told_with_what_was_seen(name: str, told: str) -> None:
    np.random.seed(0)  # noqa: NPY002 - what a policy must not draw from
    with pytest.raises(DpemError, match=told) as error:
        check_policy(f"./mine.py:{name}", BUSY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scenario", ["chain3-v0", "mesh20-v0"])
def test_it_takes_a_moment(scenario: str) -> None:
    check_policy("idle", scenario)
    begin = time.perf_counter()
    check_policy("./mine.py:Stock", scenario)
    assert time.perf_counter() - begin < 20.0  # a twentieth of a second, but machines may be busy
