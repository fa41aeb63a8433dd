"""The comparison of `dpem run`, from Python and with policies that are objects: `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from dpem_env import scenarios
from dpem_env.experiments.benchmark import Episodes, Plan, summarise, try_out
from dpem_env.experiments.contestants import Contestant, PolicySpec, contestants, played_delays, require_delays
from dpem_env.experiments.results import Results
from dpem_env.experiments.workers import play, played
from dpem_env.report.tables import progress
from dpem_env.scenarios import SPLITS, Scenario, Split
from dpem_env.support.errors import PolicyError, nearest, require_one_of


def evaluate(
    policies: Mapping[str, Any] | Sequence[str],
    scenario: str | Scenario,
    *,
    seeds: int = 5,
    delay: float | Sequence[float] = (),
    forecaster: Sequence[str] = (),
    reference: str | None = None,
    split: Split = "evaluation",
    topology: int | None = None,
    trust: Sequence[str] = (),
    workers: int = 1,
    **overrides: Any,
) -> Results:
    """Play the same episodes with every policy and compare them, as ``dpem run`` does.

    policies: by label: a policy, the class of one, a function ``(observations, masks) -> actions``, or anything that
        ``dpem run --policy`` takes; or a list of such texts. Everyone's own is checked first (`check_policy`).
    scenario: name, TOML path or Scenario; `overrides` change its fields.
    seeds: episodes of the `split` that everyone plays.
    delay: control delays of central policies, s; each plays with every one of them (default: 0).
    forecaster: what fills the forecasts of every policy (default: its own).
    reference: label of the contestant that others are compared with (default: the first).
    topology: seed of the one network to play on (default: those of the split).
    trust: files that may be opened though that may run code, such as ``model.zip``.
    workers: processes; objects must then come from a module that these can import.

    Returns `Results`: ``table("delivery_rate")`` is one for a paper, with intervals and paired differences as texts;
    ``intervals()`` and ``differences()`` are the same as numbers, ``frame`` has every value.
    Raises PolicyError for what is no policy, ContractError for one that breaks a promise, ScenarioError for a bad
    scenario.
    """
    if isinstance(policies, str) or not isinstance(policies, Iterable) or not all(isinstance(p, str) for p in policies):
        raise PolicyError('policies is no list of names; expected labels and what plays, as in {"mine": policy}')
    require_one_of("split", split, SPLITS)
    if not isinstance(seeds, int) or seeds < 1:
        raise PolicyError(f"seeds is {seeds!r}; expected a number of episodes >= 1")
    chosen = scenarios.get(scenario, **overrides)
    if topology is not None:
        chosen = chosen.on_topology(topology, split)
    delays = [delay] if isinstance(delay, int | float) else list(delay)
    require_delays(delays, chosen)
    found = contestants(policies, played_delays([chosen], delays), forecaster, trust)
    if not found:
        raise PolicyError("policies is empty; expected labels and what plays")
    plan = Plan(chosen.name, (chosen,), tuple(found), _reference(found, reference), seeds, split)
    items = [item for index in range(seeds) for item in plan.played(chosen, index)]
    if workers > 1:
        _require_importable([item.policy for item in items])
    try_out(items)
    episodes = Episodes()
    with progress() as bar, closing(played(play, items, workers)) as finished:
        task = bar.add_task("playing", total=len(items))
        for item, episode in finished:
            episodes[item] = episode
            bar.update(task, advance=1, description=item.policy.label)
    return summarise(plan, episodes)


def _reference(found: Sequence[Contestant], name: str | None) -> Contestant:
    known = {each: of for of in reversed(found) for each in (of.policy, of.name, of.label)}
    if name is not None and name not in known:
        raise PolicyError(f"reference is {name!r}; {nearest(name, known)}")
    return found[0] if name is None else known[name]


def _require_importable(policies: Sequence[PolicySpec]) -> None:
    """PolicyError for an object that other processes cannot make again."""
    for policy in policies:
        kind = policy.player if hasattr(policy.player, "__qualname__") else type(policy.player)
        if policy.player is not None and (kind.__module__ == "__main__" or "<" in kind.__qualname__):
            raise PolicyError(
                f"policy {policy.label!r} is made in this script or notebook, which other processes cannot import: "
                "put it into a file and name it './mine.py:NAME', or leave out workers"
            )
