"""How contestants are written, and that a path that exists is never taken for anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpem_env.policy_names import PolicyName
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import matching

ODD = [
    "a+b",
    "chain3-v0+slots=20-shared",
    "a,b",
    "a, b",
    "q[1]",
    "*",
    "?",
    "a:b",
    "a+oracle",
    "a+none,b[!c]",
    "ä µ",
    "n\nl",
]


def policy_and_forecaster(text: str) -> tuple[str, str | None]:
    name = PolicyName.parse(text)
    assert str(name) == text
    return str(name.policy), name.forecaster


def members(text: str) -> list[str]:
    return [str(member) for member in PolicyName.alone(text).members()]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("prefix", ["", "central:"])
@pytest.mark.parametrize("name", ODD)
def test_a_path_that_exists_is_one_policy_whatever_its_name(here: Path, name: str, prefix: str) -> None:
    policy = f"{prefix}ppo:runs/{name}"
    (here / "runs" / name).mkdir(parents=True)
    assert policy_and_forecaster(policy) == (policy, None)
    assert policy_and_forecaster(f"{policy}+oracle") == (policy, "oracle")
    assert members(policy) == [policy]


@pytest.mark.parametrize("name", ODD)
def test_so_is_the_file_of_a_forecaster(here: Path, name: str) -> None:
    (here / name).touch()
    assert policy_and_forecaster(f"local-predictive+gru:{name}") == ("local-predictive", f"gru:{name}")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("idle", ("idle", None)),
        ("acp+oracle", ("acp", "oracle")),
        ("acp+orcale", ("acp", "orcale")),
        ("acp+", ("acp", "")),
        ("acp+gru:no+such+file", ("acp", "gru:no+such+file")),
        ("ppo:no/file+oracle", ("ppo:no/file", "oracle")),
        ("ppo:no+file+none", ("ppo:no+file", "none")),
        ("ppo:no/file+orcale", ("ppo:no/file", "orcale")),
    ],
)
def test_without_such_a_path_a_plus_names_a_forecaster(text: str, parts: tuple[str, str | None]) -> None:
    assert policy_and_forecaster(text) == parts


def test_every_part_of_a_name_is_told() -> None:
    assert PolicyName.parse("central:ppo:no/file+gru:w") == PolicyName("ppo", "no/file", True, "gru:w")
    assert PolicyName.parse("idle") == PolicyName.alone("idle") == PolicyName("idle")
    assert PolicyName.alone("ppo:a+b:c") == PolicyName("ppo", "a+b:c")


def test_a_pattern_names_every_file_it_matches(here: Path) -> None:
    for name in ("q1/seed0", "q[1]/seed1", "q[1]/seed2"):
        (here / name).mkdir(parents=True)
    assert members("ppo:q[1]") == ["ppo:q[1]"]
    assert members("ppo:q[1]/seed*") == ["ppo:q[1]/seed1", "ppo:q[1]/seed2"]  # its folder is there as written
    assert members("ppo:q[0-9]/seed*") == ["ppo:q1/seed0"]
    assert members("central:ppo:q*/seed[02]") == ["central:ppo:q1/seed0", "central:ppo:q[1]/seed2"]
    assert policy_and_forecaster("ppo:q*/seed[02]+oracle") == ("ppo:q*/seed[02]", "oracle")
    with pytest.raises(PolicyError, match=r"no file matches 'q\[2\]' of policy 'ppo:q\[2\]'"):
        members("ppo:q[2]")


def test_nothing_matches_nothing(here: Path) -> None:
    assert matching("") == []
    assert matching("none") == []
    assert matching(str(here)) == [str(here)]
    assert matching("/") == ["/"]
