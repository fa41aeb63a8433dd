"""How PPO learns: the hyperparameters, checked, and the presets of each way to organise learning."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args

from dpem_env.support.errors import DpemError, nearest, require_one_of

Encoder = Literal["per-peer", "plain"]
WarmStart = Literal["reactive", "maxweight", "waiting", "none"]
MODES = ("shared", "independent", "central", "federated")
STACKED = ("independent", "federated")  # modes with one policy per node
COUNTS = ("networks", "slots", "minibatches", "epochs", "hidden")
SHARES = ("discount", "trace", "first_penalty", "penalty_ramp", "contention_budget")
REALS = dict.fromkeys(SHARES, 1.0) | dict.fromkeys(
    ("learning_rate", "clip", "entropy_weight", "value_weight", "gradient_norm", "idle_forecast", "penalty_factor"), 1e6
)  # with the largest value
FLAGS = ("annealed", "routes", "conditional", "scaled_rewards")
MAY_BE_0 = ("entropy_weight", "first_penalty", "penalty_ramp", "idle_forecast", "contention_budget")
MAX_COUNT, SMALLEST = 10_000, 1e-12


@dataclass(frozen=True)
class Hyperparameters:
    """How PPO learns (Schulman et al. 2017); the defaults are where the search for the presets began."""

    networks: Annotated[int, "played at once"] = 8
    slots: Annotated[int, "in a rollout, between updates"] = 128
    minibatches: Annotated[int, "per epoch"] = 12
    epochs: Annotated[int, "passes over a rollout"] = 3
    learning_rate: Annotated[float, "step size of Adam"] = 1e-3
    annealed: Annotated[bool, "whether the learning rate falls to 0 over the training; =false: it stays"] = False
    discount: Annotated[float, "of rewards, per slot"] = 0.95
    trace: Annotated[float, "λ of generalised advantage estimation"] = 0.9
    clip: Annotated[float, "of the ratio of probabilities"] = 0.2
    entropy_weight: Annotated[float, "of the entropy bonus in the loss"] = 1e-3
    value_weight: Annotated[float, "of the value function in the loss"] = 0.5
    gradient_norm: Annotated[float, "longest gradient; a longer one is scaled"] = 0.5
    hidden: Annotated[int, "units of each of the two layers"] = 64
    encoder: Annotated[Encoder, "one small network for every peer, or a plain one of the whole observation"] = (
        "per-peer"
    )
    hidden_blocks: Annotated[
        tuple[str, ...], "block of the observation that the networks do not see; may be given several times"
    ] = ()
    warm_start: Annotated[WarmStart, "the rule that the policy starts from"] = "reactive"
    first_penalty: Annotated[float, "share of the contention penalty that training begins with"] = 0.1
    penalty_ramp: Annotated[float, "share of the training after which the penalty is whole"] = 0.4
    penalty_factor: Annotated[float, "by which training multiplies the contention penalty that it is told"] = 1.0
    # Off, as everywhere before there was one: a checkpoint without it is of a policy that always decides.
    idle_forecast: Annotated[
        float,
        "a node with nobody to serve waits unless it expects so many requests of a peer, over its forecast; 0: it "
        "always decides",
    ] = 0.0
    routes: Annotated[bool, "whether an allocation names its route; =false: the network picks one"] = False
    conditional: Annotated[bool, "whether it may ask for an allocation only if its route is free"] = False
    penalties: Annotated[
        tuple[float, ...],
        "two contention penalties β: every network of every episode has one between them, which the policy is told, so "
        "that it plays at any; none: that of the scenario",
    ] = ()
    scaled_rewards: Annotated[
        bool, "whether rewards are divided by 1 + the penalty charged, so that none of the penalties outweighs others"
    ] = False
    contention_budget: Annotated[
        float,
        "contention that training is to keep to: after every rollout the penalty charged rises if there was more, and "
        "falls if less; 0: none",
    ] = 0.0

    def __post_init__(self) -> None:
        require_one_of("warm_start", self.warm_start, get_args(WarmStart))
        require_one_of("encoder", self.encoder, get_args(Encoder))
        if not isinstance(self.hidden_blocks, tuple):
            raise DpemError(f"hidden_blocks is {self.hidden_blocks!r}; expected a list, such as ['forecast']")
        for block in self.hidden_blocks:
            from dpem_env.observations.features import BLOCKS  # so that telling what there is loads no compiler

            require_one_of("hidden_blocks", block, tuple(BLOCKS))
        for name in FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise DpemError(f"hyperparameter {name} is {getattr(self, name)!r}; expected true or false")
        if self.penalties and not _rising(self.penalties):
            raise DpemError(
                f"hyperparameter penalties is {list(self.penalties)!r}; expected two numbers above 0, the smaller first"
            )
        for name in COUNTS:
            given = getattr(self, name)
            if type(given) is not int or not 1 <= given <= MAX_COUNT:
                raise DpemError(f"hyperparameter {name} is {given!r}; expected a whole number from 1 to {MAX_COUNT}")
        for name, most in REALS.items():
            given, least = getattr(self, name), 0.0 if name in MAY_BE_0 else SMALLEST
            if type(given) not in (int, float) or not least <= given <= most:
                above = "from 0" if name in MAY_BE_0 else "above 0"
                raise DpemError(f"hyperparameter {name} is {given!r}; expected a number {above} to {most:g}")
        if self.contention_budget and self.penalties:
            raise DpemError(
                f"hyperparameter contention_budget is {self.contention_budget!r}, and penalties are "
                f"{list(self.penalties)!r}: a budget finds its own penalty, so give one of the two"
            )

    def learning_rate_at(self, remaining: float) -> float:
        """With a share `remaining` of the training to come."""
        return self.learning_rate * (remaining if self.annealed else 1.0)

    def penalty_share(self, done: float) -> float:
        """What is charged of the contention penalty after a share `done` of the training."""
        climbed = min(done / self.penalty_ramp, 1.0) if self.penalty_ramp > 0 else 1.0
        return self.penalty_factor * (self.first_penalty + (1.0 - self.first_penalty) * climbed)


# What the search found best for shared policies (`dpem_agents.studies.search`): short rollouts from many networks, so
# that updates do not follow the few that are being played, and a learning rate that falls to nothing. A second search,
# from there on, found who should decide.
SHARED = Hyperparameters(networks=32, slots=32, annealed=True, idle_forecast=1.0)
# Each node learns from its own 128 slots alone, from the whole observation: a small network for every peer needs less
# time, but learns less (dpem reproduce independent).
ALONE = Hyperparameters(networks=1, minibatches=2, epochs=4, encoder="plain", idle_forecast=1.0)
# What all nodes are to have in common must not depend on which peer is the first, and the fewer weights the less noise.
FEDERATED = replace(ALONE, encoder="per-peer", hidden=16)
PRESETS = {"shared": SHARED, "central": SHARED, "independent": ALONE, "federated": FEDERATED}


def kind_of(mode: str) -> str:
    """The name by which a policy of this mode is played, as ``NAME:PATH``."""
    return "central-ppo" if mode == "central" else "ppo"


def changed(preset: Hyperparameters, **values: Any) -> Hyperparameters:
    """The preset with other values; DpemError for an unknown name."""
    known = [field.name for field in fields(Hyperparameters)]
    for name in values:
        if name not in known:
            raise DpemError(f"unknown hyperparameter {name!r}; {nearest(name, known)}")
    plain: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    return replace(preset, **plain)


def _rising(pair: Any) -> bool:
    numbers = isinstance(pair, tuple) and len(pair) == 2 and all(type(each) in (int, float) for each in pair)
    return numbers and 0.0 < pair[0] < pair[1] < math.inf
