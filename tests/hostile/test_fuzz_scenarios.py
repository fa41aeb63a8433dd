"""Scenario files, overrides and ``--set``: valid, or refused in one line; what is valid can be played."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hostile_input import (
    TEXTS,
    THINGS,
    inputs,
    mutated_bytes,
    mutated_number,
    one_of,
    play,
    refused,
    report,
    small,
    tried,
)

from dpem_env import scenarios
from dpem_env.cli import main
from dpem_env.scenarios import SCENARIOS
from dpem_env.scenarios.schema import DEMANDS, NETWORKS

TOKENS = (
    b"nan", b"inf", b"-inf", b"0x" + b"f" * 1000, b"1" * 5000, b"1e999", b"true", b"1979-05-27", b"''", b"'''",
    b'"\\u0000"', b"[", b"[" * 2000, b"{", b"]", b"}", b"=", b"\n", b"#", b"\n[hardware]\n", b"\n[[network]]\n",
    b"a." * 1000 + b"a = 1\n", b"\xff\xfe", b"\xe2\x80\xa8",
    b"\nname = 1\n", b"\n[seeds.train]\n", b'"a\\nb" = 1\n', b'kind = "replay"\n',
)  # fmt: skip
WHOLE = {name: scenario.model_dump(mode="json", exclude_none=True) for name, scenario in SCENARIOS.items()}
TAGS = {"generator": tuple(NETWORKS), "kind": tuple(DEMANDS)}


def mutated(rng: np.random.Generator, section: dict[str, Any]) -> None:
    """One change somewhere in a section or below: another value, a key less, a key more."""
    key = one_of(rng, list(section))
    value = section[key]
    if isinstance(value, dict) and value and rng.random() < 0.95:
        mutated(rng, value)
    elif key in TAGS and rng.random() < 0.5:
        section[key] = one_of(rng, TAGS[key])
    elif rng.random() < 0.05:
        del section[key]
    elif rng.random() < 0.05:
        section[one_of(rng, [*TEXTS[1:], "nodes", "trace", "requests_file", "outages"])] = one_of(rng, THINGS)
    elif isinstance(value, list) and value and rng.random() < 0.8:
        place = int(rng.integers(len(value)))
        value[place] = mutated_number(rng, value[place]) if isinstance(value[place], int | float) else value[place]
    elif isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.8:
        section[key] = mutated_number(rng, value)
    else:
        section[key] = one_of(rng, THINGS)


def mutated_scenario(rng: np.random.Generator) -> str:
    """A shipped scenario with one to three changes."""
    data = one_of(rng, list(WHOLE.values()))
    for _ in range(int(rng.integers(1, 4))):
        mutated(rng, data)
    return tomli_w.dumps(data)


def test_a_mutated_scenario_is_refused_in_one_line_or_can_be_played() -> None:
    accepted, played = [], []
    for rng in inputs(200):
        scenario = tried(scenarios.from_toml, mutated_scenario(rng))
        accepted.append(not refused(scenario))
        if accepted[-1]:
            assert not refused(tried(scenarios.from_toml, scenario.to_toml()))
            if small(scenario):
                played.append(not refused(tried(play, scenario)))  # refused: a file is missing
    report("mutated scenarios", accepted)
    assert sum(played) > 0.5 * sum(accepted)


def test_mutated_text_is_refused_in_one_line_or_read(tmp_path: Path) -> None:
    texts = [scenario.to_toml().encode() for scenario in SCENARIOS.values()]
    path, accepted = tmp_path / "mutated.toml", []
    for rng in inputs(250):
        path.write_bytes(mutated_bytes(rng, one_of(rng, texts), TOKENS))
        accepted.append(not refused(tried(scenarios.load, path)))
    report("mutated TOML texts", accepted)


def mutated_overrides(rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """A shipped scenario and one to three fields of any scenario with any values."""
    fields = {}
    for _ in range(int(rng.integers(1, 4))):
        name, value = one_of(rng, FIELDS)
        fields[name] = one_of(rng, ANYTHING) if rng.random() < 0.5 else value
        if isinstance(value, int | float) and rng.random() < 0.6:
            fields[name] = mutated_number(rng, value)
    return one_of(rng, list(SCENARIOS)), fields


FIELDS = [
    *((leaf, value) for whole in WHOLE.values() for section in whole.values() if isinstance(section, dict)
      for leaf, value in section.items()),
    *((leaf, value) for whole in WHOLE.values() for leaf, value in whole.items()),
    ("outages", {"mean_up": 1.0, "mean_down": 1.0}), ("requests_file", "none.csv"), ("scenario", 1), ("self", 1),
    ("", 1),
    *(("kind", kind) for kind in DEMANDS), *(("generator", generator) for generator in NETWORKS),
]  # fmt: skip
ANYTHING = (
    *THINGS,
    None,
    16**1000,
    np.float64(0.5),
    np.int64(3),
    np.array([1.0, 2.0]),
    (0.0, 1.0),
    b"x",
    1j,
    object(),
    datetime.date(2024, 2, 29),
)


def test_overrides_are_refused_in_one_line_or_can_be_played() -> None:
    accepted = []
    for rng in inputs(200):
        name, fields = mutated_overrides(rng)
        scenario = tried(scenarios.get, name, **fields)
        accepted.append(not refused(scenario))
        if accepted[-1] and small(scenario):
            tried(play, scenario)
    report("overrides", accepted)


def test_a_setting_on_the_command_line_is_refused_in_one_line_or_shown(capsys: pytest.CaptureFixture[str]) -> None:
    accepted = []
    for rng in inputs(200):
        name, fields = mutated_overrides(rng)
        settings = [f"{field}={_as_toml(value)}" for field, value in fields.items()]
        if rng.random() < 0.5:
            spoilt = [mutated_bytes(rng, setting.encode(), TOKENS) for setting in settings]
            settings = [setting.decode("utf-8", "surrogateescape").replace("\0", "?") for setting in spoilt]
        argv = ["show", name, *(f"--set={setting}" for setting in settings)]
        code = tried(main, argv)
        said = capsys.readouterr()
        assert code in (0, 2), argv
        assert (code == 2) == (len(said.err.splitlines()) == 1), argv
        assert (code == 2) != bool(said.out), argv
        accepted.append(code == 0)
    with capsys.disabled():
        report("settings", accepted)


def _as_toml(value: Any) -> str:
    """As one writes it behind ``--set field=``."""
    try:
        return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
    except (TypeError, ValueError):
        return repr(type(value))


@pytest.mark.usefixtures("drawn")
def test_a_refused_run_leaves_no_folder_and_another_one_whole_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = []
    for number, rng in enumerate(inputs(8)):
        fields = {"request_rate": 8.0} | (mutated_overrides(rng)[1] if number % 4 else {}) | {"slots": 2}
        scenario = tried(scenarios.get, "chain3-v0", **fields)
        if not refused(scenario) and not small(scenario):
            continue
        out = tmp_path / str(number)
        settings = [f"--set={field}={_as_toml(value)}" for field, value in fields.items()]
        policy = one_of(rng, ["local-reactive", "central-reactive", "central:local-reactive"])
        argv = ["run", "--scenario=chain3-v0", f"--policy={policy}", "--seeds=1", f"--out={out}", *settings]
        code = tried(main, argv)
        said = capsys.readouterr()
        assert (code != 0) == (len(said.err.splitlines()) == 1), argv
        assert out.exists() == (code == 0), argv
        if code == 0:
            assert {path.suffix for path in out.glob("[!.]*")} == {".json", ".png", ".parquet"}
        finished.append(code == 0)
    with capsys.disabled():
        report("runs", finished)
