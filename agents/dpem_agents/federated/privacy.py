"""How shared updates are protected: the configuration, checked, and the noise that a target needs."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, get_args

from dpem_agents.federated.accounting import MOST_ROUNDS, Accountant, Charge, epsilon, noise_multiplier_for
from dpem_agents.federation import Mode
from dpem_env.support.errors import DpemError, require_one_of

NEIGHBOURS = {
    "central": "one node's updates, over its whole participation, are counted or replaced by zeros (add or remove one "
    "node); nodes join by Poisson sampling",
    "local": "one node's updates, over its whole participation, are what they are or zeros, seen as the node sent "
    "them; counted as if it had sent one in every round",
    "off": "none: nothing is protected",
}
# What ε is of, for reports.
COVERS = (
    "the global weights that rounds released, and these reports; not nodes' own weights (checkpoints and policies hold "
    "them without noise), learning curves, event files, logs or how nodes act"
)
LARGEST_WHOLE = 2**53  # of numbers that are counted with
LARGEST = sys.float_info.max


@dataclass(frozen=True)
class AdaptiveClipping:
    """The clip follows a quantile of the updates' norms (Andrew et al., NeurIPS 2021).

    C ← C·exp(−`rate`·(b − `quantile`)), where b is the noised share of updates no longer than C. `count_noise` is the
    standard deviation σ_b of the noise on their number; None is a twentieth of the expected cohort, as in the paper.
    """

    quantile: float = 0.5
    rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        _require("quantile", self.quantile, 0.0, 1.0)
        _require("rate", self.rate, 0.0, 1.0, up_to=True)
        if self.count_noise is not None:
            _require("count_noise", self.count_noise, 0.0, math.inf)

    def next_clip(self, clip_norm: float, share: float) -> float:
        """The clip after a round in which that share of updates was no longer than `clip_norm`."""
        return clip_norm * math.exp(-self.rate * (share - self.quantile))


@dataclass(frozen=True, kw_only=True)
class DPConfig:
    """Differential privacy of federated averaging; the unit of privacy is one node's whole participation.

    Mode "central": a trusted aggregator clips each update to `clip_norm` C and adds noise N(0, (zC)²), with z the
    `noise_multiplier`, to their sum. Nodes join a round with probability `sample_rate` each, unknown to others, which
    the accounting takes into account.
    Mode "local": each node clips and noises its own update, N(0, (zC)²), before it sends it. The average is √n times
    noisier than centrally at the same z. ε is that of a node's own releases: neither that others' noise is added nor
    that the node may not have joined makes it smaller, as who sends is seen. An update and zeros are told apart no
    better than ε allows; two arbitrary updates are 2C apart, hence at half the multiplier.
    Mode "off": no noise, ε infinite; a clip bounds updates if one is given.

    `population` is the number of nodes that may join, `delta` the δ of ε. No round is released that would take ε beyond
    `max_epsilon`. Noise and sampling come from the operating system's cryptographic generator. With a `noise_seed` they
    can be repeated, hence known: such a run is not private, and its ε is what another would cost.

    ε is of what rounds release, the global weights, and of nothing else: see `dpem_agents.federated`.
    """

    mode: Mode = "central"
    population: int
    clip_norm: float = math.inf
    noise_multiplier: float = 0.0
    sample_rate: float = 1.0
    delta: float = 1e-5
    max_epsilon: float = math.inf
    accountant: Accountant = "pld"
    noise_seed: int | None = None
    adaptive: AdaptiveClipping | None = None

    def __post_init__(self) -> None:
        require_one_of("mode", self.mode, get_args(Mode))
        require_one_of("accountant", self.accountant, get_args(Accountant))
        for name, least in (("population", 1), ("noise_seed", 0)):
            given = getattr(self, name)
            whole = isinstance(given, Integral) and not isinstance(given, bool) and least <= int(given) <= LARGEST_WHOLE
            if not whole and not (name == "noise_seed" and given is None):
                raise DpemError(f"{name} is {given!r}; expected a whole number from {least} on, below 2^53")
        _require("clip_norm", self.clip_norm, 0.0, math.inf, up_to=self.mode == "off")
        _require("sample_rate", self.sample_rate, 0.0, 1.0, up_to=True)
        # A mechanism that publishes all of one node's data, drawn at random, has δ = 1/population.
        _require("delta", self.delta, 0.0, 1.0 / self.population)
        _require("max_epsilon", self.max_epsilon, 0.0, math.inf, up_to=True)
        if self.mode != "off":
            _require("noise_multiplier", self.noise_multiplier, 0.0, math.inf)
        elif self.noise_multiplier != 0.0 or self.max_epsilon != math.inf:
            raise DpemError("mode 'off' has neither noise nor budget: leave out noise_multiplier and max_epsilon")
        if self.adaptive is not None:
            self._require_adaptive_noise()

    @classmethod
    def calibrate(cls, target_epsilon: float, rounds: int, **settings: Any) -> DPConfig:
        """The configuration with the least noise whose ε after `rounds` is no more than `target_epsilon`.

        `settings` are the other fields; `max_epsilon` is the target unless given.
        """
        # With less noise than ε = 100 needs nothing is protected.
        _require("target_epsilon", target_epsilon, 0.0, 100.0, up_to=True)
        if not isinstance(rounds, Integral) or not 1 <= rounds <= MOST_ROUNDS:
            raise DpemError(f"rounds is {rounds!r}; expected a whole number from 1 on, {MOST_ROUNDS:,} at most")
        if "noise_multiplier" in settings or settings.get("mode") == "off":
            raise DpemError("calibrate finds the noise_multiplier of mode 'central' or 'local': leave it out")
        plan = cls(**settings | {"noise_multiplier": 1.0, "adaptive": None})
        found = noise_multiplier_for(
            float(target_epsilon), int(rounds), plan.charge.sample_rate, plan.delta, plan.accountant
        )
        return cls(**{"max_epsilon": float(target_epsilon)} | settings | {"noise_multiplier": found})

    @property
    def expected_cohort(self) -> float:
        """Nodes that join a round on average."""
        return float(self.sample_rate * self.population)

    @property
    def charge(self) -> Charge:
        """What a round costs."""
        rate = 1.0 if self.mode == "local" else float(self.sample_rate)
        return Charge(rate, float(self.noise_multiplier), self.mode != "off" and self.noise_seed is None)

    @property
    def count_noise(self) -> float:
        """σ_b of adaptive clipping."""
        given = self.adaptive.count_noise if self.adaptive else None
        return float(given) if given is not None else self.expected_cohort / 20.0

    @property
    def update_multiplier(self) -> float:
        """Noise on the sum of updates over the clip: z, or more where the count of adaptive clipping takes its share.

        z_Δ = (z⁻² − (2σ_b)⁻²)^(−1/2), so that updates and count together cost what z says (Andrew et al. 2021, Thm 1).
        """
        if self.adaptive is None:
            return float(self.noise_multiplier)
        return float((self.noise_multiplier**-2 - (2.0 * self.count_noise) ** -2) ** -0.5)

    def average_multiplier(self, received: float) -> float:
        """Noise on each coordinate of a round's average over the clip, where that many updates came."""
        noises = math.sqrt(received) if self.mode == "local" else 1.0  # locally each update brings its own
        return self.update_multiplier * noises / self.expected_cohort

    def epsilon(self, rounds: int) -> float:
        """ε after that many rounds."""
        one = self.charge
        return epsilon((Charge(one.sample_rate, one.noise_multiplier, rounds=rounds),), self.delta, self.accountant)

    def _require_adaptive_noise(self) -> None:
        if not isinstance(self.adaptive, AdaptiveClipping) or self.mode != "central":
            raise DpemError("adaptive is an AdaptiveClipping, in mode 'central' alone: only there norms are counted")
        if not self.noise_multiplier / 2.0 < self.count_noise <= self.expected_cohort:
            raise DpemError(
                f"count_noise is {self.count_noise:g}; expected more than half the noise_multiplier "
                f"({self.noise_multiplier / 2.0:g}) and at most the expected cohort ({self.expected_cohort:g})"
            )


def _require(field: str, given: Any, low: float, high: float, up_to: bool = False) -> None:
    """DpemError unless `given` is a number in (low, high), or with `up_to` in (low, high]."""
    number = isinstance(given, Real) and not isinstance(given, bool)
    small = number and (given == high or abs(given) <= LARGEST)
    if not (small and low < given <= high and (up_to or given < high)):
        limit = f" and {'at most' if up_to else 'below'} {high:g}" if high < math.inf else ""
        kind = "number" if up_to or limit else "finite number"
        raise DpemError(f"{field} is {given!r}; expected a {kind} above {low:g}{limit}")
