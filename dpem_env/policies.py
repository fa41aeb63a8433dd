"""Policies: how rules and learners plug in, and how they are found.

A local policy decides for every node from what that node knows; a central one from a `NetworkView`; a hybrid one for
every node from what that node knows and a controller advises. All return a `Decision` over the same verbs. Installed
packages announce policies through the entry point group ``dpem_env.policies``; one's own are named by where they stand
(see `dpem_env.policy_names`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policy_names import CENTRAL, OWN, SYNTAX, PolicyName
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Condition
from dpem_env.support.errors import PolicyError
from dpem_env.support.own_code import instance
from dpem_env.support.plugins import NO_OPTIONS, POLICIES, announced, made, unknown

ALLOCATIONS, SWAPS = "allocations", "swaps"  # what policies decide on: swaps where a scenario leaves them to relays


class Decision(NamedTuple):
    """What all nodes do in one slot."""

    # (N,) 0 waits, 1 + d·Q + (q - 1) allocates one pair to peer place d at quality q; of relays that decide on swaps a
    # `dpem_env.simulator.actions.Choice`
    action: NDArray[np.int64]
    route: NDArray[np.int64] | None = None  # (N,) route number, -1 auto; None: all auto
    priority: NDArray[np.int64] | None = None  # (N,) admission order, lowest first; None: the slot's random order
    condition: NDArray[np.int64] | None = None  # (N,) sums of `dpem_env.simulator.Condition`; None: no conditions
    fallback: NDArray[np.int64] | None = None  # (N, m) routes to try after the named one, in order, -1 no more

    def completed(self, num_nodes: int) -> Decision:
        """The same decision with every array present, and no more places to fall back to than some node uses."""

        def given(array: NDArray[np.int64] | None, default: int) -> NDArray[np.int64]:
            if array is None:
                return np.full(num_nodes, default, dtype=np.int64)
            return np.ascontiguousarray(array, dtype=np.int64)

        return Decision(
            np.ascontiguousarray(self.action, dtype=np.int64),
            given(self.route, -1),
            given(self.priority, 0),
            given(self.condition, 0),
            _used(np.zeros((num_nodes, 0)) if self.fallback is None else self.fallback),
        )

    def of_nodes(self) -> Decision:
        """What comes of it where nodes decide: they order no admissions, and have read before they decide."""
        kept = None if self.condition is None else self.condition & Condition.FREE
        return self._replace(priority=None, condition=kept)


def _used(fallback: NDArray[Any]) -> NDArray[np.int64]:
    places = np.flatnonzero((fallback >= 0).any(axis=0))
    return np.ascontiguousarray(fallback[:, : places.max(initial=-1) + 1], dtype=np.int64)


@dataclass(frozen=True)
class NetworkView:
    """What a central controller knows when it decides for slot `slot`. N nodes, D peer places, L links."""

    scenario: Scenario
    network: Network
    slot: int
    delay: int  # slots
    observations: Observations  # (N, F) every node's features, remote ones as of the view, own commands open
    local_observations: Observations  # (N, F) as the nodes themselves had them then, own commands open
    masks: NDArray[np.int8]  # (N, actions)
    overdue: NDArray[np.int32]  # (N, D, C) those of the pending requests whose deadline has passed since
    free_memory: NDArray[np.int32]  # (N,) qubits
    swap_tokens: NDArray[np.float64]  # (N,)
    link_up: NDArray[np.int8]  # (L,)
    source_claims: NDArray[np.int32]  # (N,) incomplete links waiting for each source
    swap_claims: NDArray[np.int32]  # (N,) open allocations relayed through each node


class LocalPolicy(ABC):
    """A rule every node follows by itself, on its own observation row."""

    decides: Collection[str] = (ALLOCATIONS,)  # what it knows to decide on: these, `SWAPS`, or whichever is asked for
    forecaster: Any = None  # name or Forecaster this policy wants its observations filled by
    news: Collection[str] | None = None  # features of block "news" that it reads; None: all of them
    sources: Any = None  # paths it reads, of which its decisions follow; None: the argument in its name, if it is one

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:  # noqa: B027
        """A new episode begins; `seed` feeds a policy's own randomness."""

    @abstractmethod
    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Decide for all nodes; row i of the decision may depend on row i of the observations only."""


class CentralPolicy(ABC):
    """One controller that decides for all nodes from a delayed view of the whole network."""

    decides: Collection[str] = (ALLOCATIONS,)
    forecaster: Any = None
    news: Collection[str] | None = None
    sources: Any = None

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:  # noqa: B027
        """A new episode begins."""

    @abstractmethod
    def act(self, view: NetworkView) -> Decision:
        """Decide for all nodes."""


class HybridPolicy(ABC):
    """Every node decides by itself, now, on the advice of a controller that sees the network late and orders nothing.

    The advice is worked out anew in every slot, from a view of δ ago, as a controller would have sent it out then.
    """

    decides: Collection[str] = (ALLOCATIONS,)
    forecaster: Any = None  # of nodes, and of the controller's view
    news: Collection[str] | None = None
    sources: Any = None

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:  # noqa: B027
        """A new episode begins."""

    @abstractmethod
    def advise(self, view: NetworkView) -> Any:
        """What the controller lets all nodes know; its view has no commands since, as there are none."""

    @abstractmethod
    def act(self, observations: Observations, masks: NDArray[np.int8], advice: Any) -> Decision:
        """Decide for all nodes; row i may depend on row i of the observations and on the advice.

        There is none, None, before the first, and while the controller is silent.
        """


class Centralized(CentralPolicy):
    """A local rule run by a central controller: the same decisions, from observations that are δ old."""

    def __init__(self, rule: LocalPolicy) -> None:
        self.rule = rule
        self.decides, self.forecaster, self.news = rule.decides, rule.forecaster, rule.news

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Pass the episode on to the rule."""
        self.rule.reset(scenario, network, seed)

    def act(self, view: NetworkView) -> Decision:
        """What the rule decides on the nodes' observations of the view's time."""
        return self.rule.act(view.local_observations, view.masks).of_nodes()


class ArrayPolicy(LocalPolicy):
    """A function of the array API, which every node follows: row i of its actions is what node i does.

    `function` is given the observations (N, F) float32 and the masks (N, actions) int8, and returns N whole numbers.
    Its attributes `forecaster`, `sources`, `search_space` and `reset`, where it has them, are those of a policy.
    """

    decides = (ALLOCATIONS, SWAPS)

    def __init__(self, function: Callable[[NDArray[np.float32], NDArray[np.int8]], Any]) -> None:
        self.function = function
        self.forecaster, self.sources = getattr(function, "forecaster", None), getattr(function, "sources", None)
        self.search_space: Mapping[str, tuple[Any, ...]] = getattr(function, "search_space", {})

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Pass the episode on, if the function takes it."""
        if callable(reset := getattr(self.function, "reset", None)):
            reset(scenario, network, seed)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """What the function says."""
        return Decision(self.function(observations.matrix, masks))


Policy = LocalPolicy | CentralPolicy | HybridPolicy


def require_deciding(policy: Policy, scenario: Scenario) -> None:
    """PolicyError unless a policy decides on what the scenario leaves to decide: allocations, or swaps."""
    wanted = SWAPS if scenario.control.relays_decide else ALLOCATIONS
    if wanted not in policy.decides:
        rule = policy.rule if isinstance(policy, Centralized) else policy
        named = f"{type(rule).__name__} decides on {' and '.join(rule.decides)}"
        raise PolicyError(
            f"{scenario.name} leaves {wanted} to decide (swapping = {scenario.control.swapping!r}); {named}; a class of"
            f" your own that decides on them says so: decides = ({wanted!r},)"
        )


KINDS = (
    "a LocalPolicy, CentralPolicy or HybridPolicy (dpem_env.policies), or a callable (observations, masks) -> actions"
)


def available() -> dict[str, EntryPoint]:
    """Installed policies by name."""
    return announced(POLICIES)


def get_policy(what: str | Policy | type | Callable[..., Any], **options: Any) -> Policy:
    """An installed policy by name, or one's own; ``central:NAME`` puts a local rule under central control.

    ``NAME:ARGUMENT`` hands the policy an argument, such as the path of a checkpoint. One's own is an object (a policy,
    the class of one, or a function of the array API) or named by its place, as in ``./mine.py:Rule``. Raises
    PolicyError for an unknown name (with the nearest), for what is no policy, and for options that it does not take.
    """
    if not isinstance(what, str):
        if not callable(what) and not isinstance(what, Policy):
            raise PolicyError(f"policy is {what!r}; expected a name, {KINDS}")
        return _of_object(f"policy {getattr(what, '__qualname__', what)!r}", what, options)
    asked = PolicyName.alone(what)
    policy = _of_name(asked, options)
    if not asked.central:
        return policy
    if not isinstance(policy, LocalPolicy):
        raise PolicyError(f"policy {what.removeprefix(CENTRAL)!r} has a controller already; drop {CENTRAL!r}")
    return Centralized(policy)


def _of_name(asked: PolicyName, options: Mapping[str, Any]) -> Policy:
    """What plays, before it is put under central control."""
    if asked.place:
        return _of_object(f"policy {str(asked.place)!r}", asked.place.load(), options)
    plugin, known = asked.plugin, available()
    if asked.kind == OWN and not os.path.exists(asked.path):
        raise PolicyError(f"unknown policy {asked.argument!r}: there is no such file or folder; {SYNTAX}")
    if plugin.kind not in known:
        raise PolicyError(f"{unknown('policy', plugin.kind, known)}; {SYNTAX}")
    policy = made("policy", plugin, known[plugin.kind].load, options)
    if not isinstance(policy, Policy):
        raise PolicyError(f"policy {plugin.kind!r} is a {type(policy).__name__}; expected {KINDS}")
    return policy


def _of_object(what: str, given: Any, options: Mapping[str, Any] = NO_OPTIONS) -> Policy:
    """One's own: a policy as it is, a class by making one, a function of the array API."""
    if isinstance(given, type):
        if not (issubclass(given, Policy) or "__call__" in dir(given)):
            raise PolicyError(f"{what} is a class of something else; expected {KINDS}")
        given, options = instance(what, given, options), NO_OPTIONS
    if options:
        raise PolicyError(f"{what} is made already and takes no options; name its class")
    if isinstance(given, Policy):
        return given
    if not callable(given):
        raise PolicyError(f"{what} is a {type(given).__name__}; expected {KINDS}")
    return ArrayPolicy(given)
