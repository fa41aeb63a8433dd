"""Hostile input: seeded mutations of good input, and the only two things that may become of it.

An input is accepted, or refused with a documented error in one short line. ``DPEM_FUZZ=20`` tries twenty times as many
as the default.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import tomllib
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tomli_w

from dpem_env.envs.session import Session, episode_seeds
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError

PATIENCE = 300.0  # s for one input; they take milliseconds, the first one compiles the simulator
LONGEST_MESSAGE = 600  # characters
SMALL = 2_000_000  # numbers in the largest array of a world that is played

NUMBERS: tuple[int | float, ...] = (
    0, 1, -1, 2, 3, 7, 16, 17, 255, 256, 1000, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30,
    0.0, -0.0, 0.25, 0.5, 1.0, 1.5, -0.5, 5e-324, 1e-320, 1e-100, 1e-9, 1e-3, 500.0, 1e4, 1e9, 1e18, 1e100, 1e300,
    1.7976931348623157e308, math.nan, math.inf, -math.inf,
)  # fmt: skip
TEXTS = (
    "",
    "x",
    "8",
    "a\nb",
    "\0",
    "é🌀",
    "\u2028",
    "[/b]",
    "../..",
    "y" * 5000,
    "sessions",
    "replay",
    "mesh",
    "chain",
)
THINGS: tuple[Any, ...] = (
    *NUMBERS,
    *TEXTS,
    True,
    False,
    [],
    [[]],
    [1.0],
    [0.0, 1.0],
    [1.0, 0.0],
    [1, 2],
    [0.7, "0.8"],
    [0] * 300,
    {},
    {"a": 1},
    {"start": 0, "stop": 2**64},
)


def inputs(count: int) -> Iterator[np.random.Generator]:
    """A generator for each of `count` inputs, times DPEM_FUZZ: half of them in the fast suite."""
    for number in range(round(count * float(os.environ.get("DPEM_FUZZ", "0.5")))):
        yield np.random.default_rng(number)


def one_of(rng: np.random.Generator, things: Any) -> Any:
    """A copy of one of a sequence."""
    return copy.deepcopy(things[int(rng.integers(len(things)))])


def tried(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """What `function` returns, or the documented error it raises; another error or a long silence is a failure."""
    try:
        with patience():
            return function(*arguments, **named)
    except DpemError as error:
        message = str(error)
        assert len(message.splitlines()) == 1, f"not one line: {message!r}"
        assert len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]!r}"
        return error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:300]} on {_shown(arguments, named)}") from error


def peak(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> tuple[Any, int]:
    """What is `tried`, and the most bytes that Python and numpy held meanwhile."""
    tracemalloc.start()
    try:
        outcome = tried(function, *arguments, **named)
        return outcome, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(outcome: object) -> bool:
    """Whether what was `tried` was refused."""
    return isinstance(outcome, DpemError)


def report(what: str, accepted: Sequence[bool]) -> None:
    """Say how many were tried (``pytest -s`` shows it); some are good, some are not, or nothing was tested."""
    print(f"{len(accepted)} {what}: {sum(accepted)} accepted")
    assert 0 < sum(accepted) < len(accepted)


def _shown(*things: object) -> str:
    try:
        return repr(things)[:3000]
    except (ValueError, RecursionError):  # a number of too many digits
        return "what cannot be shown"


@contextmanager
def patience(seconds: float = PATIENCE) -> Iterator[None]:
    """Fails what takes longer."""

    def tired(*_: object) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, tired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def mutated_number(rng: np.random.Generator, value: int | float) -> Any:
    """A number near by, at another scale, or of another kind altogether."""
    whole = int(value) if math.isfinite(value) else 0
    near = (value + 1, value - 1, -value, value * 2, value * 3, float(value), whole, [value, value])
    far = tuple(value * 10.0**power for power in (-12, -9, -6, -3, -1, 1, 3, 6, 9, 12))
    return one_of(rng, near if rng.random() < 0.5 else (*far, *THINGS))


def spoil(rng: np.random.Generator, part: Any) -> None:
    """Another value, an entry less or an entry doubled, at any depth."""
    key = one_of(rng, list(part)) if isinstance(part, dict) else int(rng.integers(len(part)))
    inside = part[key]
    luck = rng.random()
    if isinstance(inside, dict | list) and inside and luck < 0.9:
        spoil(rng, inside)
    elif key == "scenario" and "\n" in str(inside) and luck < 0.9:  # TOML, not a name
        data = tomllib.loads(inside)
        spoil(rng, data)
        part[key] = tomli_w.dumps(data)
    elif luck < 0.1:
        del part[key]
    elif luck < 0.15 and isinstance(part, list):
        part.append(inside)
    elif isinstance(inside, int | float) and luck < 0.8:
        part[key] = mutated_number(rng, inside)
    else:
        part[key] = one_of(rng, THINGS)


def mutated_bytes(rng: np.random.Generator, content: bytes, tokens: tuple[bytes, ...] = ()) -> bytes:
    """A few places flipped, cut out, doubled, overwritten or filled with one of `tokens`; now and then cut short."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(damaged) + 1))
        upto = min(at + int(rng.geometric(0.1)), len(damaged))
        match int(rng.integers(6 if tokens else 5)):
            case 0 if at < len(damaged):
                damaged[at] ^= 1 << int(rng.integers(8))
            case 1:
                del damaged[at:upto]
            case 2:
                damaged[at:at] = damaged[at:upto]
            case 3:
                damaged[at:upto] = rng.bytes(upto - at)
            case 4 if rng.random() < 0.1:
                del damaged[at:]
            case 5:
                damaged[at:upto] = one_of(rng, tokens)
    return bytes(damaged)


def small(scenario: Scenario) -> bool:
    """Whether a world is small enough to be played thousands of times."""
    network, demand, control, routing = scenario.network, scenario.demand, scenario.control, scenario.routing
    nodes = getattr(network, "nodes", 100)
    per_pair = routing.routes_per_peer * (routing.max_hops + 1) + scenario.observation.forecast_horizon
    cells = (nodes, demand.peers * (per_pair + control.qualities), control.rows, scenario.hardware.memory[1])
    busy = getattr(demand, "request_rate", 0.0) * control.slot_duration * 3 > 1e5
    many_subsets = routing.max_hops > 10 and nodes > 30  # of links, in the expected build time
    return not busy and not many_subsets and nodes <= 150 and nodes * max(cells[1:]) <= SMALL


def play(scenario: Scenario, slots: int = 3) -> None:
    """Begin the first training episode and play a few slots of any actions, legal or not."""
    session = Session(scenario)
    session.begin(episode_seeds(scenario, "train", 0), slots)
    rng = np.random.default_rng(0)
    while not session.done:
        observations, masks = session.observations(), session.masks()
        assert ((observations >= 0) & (observations <= 1)).all(), "an observation outside its space"
        session.step(rng.integers(-1, masks.shape[1] + 1, size=len(masks)))
        assert np.isfinite(session.rewards()).all()
