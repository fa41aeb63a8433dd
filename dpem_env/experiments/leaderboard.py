"""The leaderboard's declaration: what every submission plays, and on which seeds. A change of it is a new version.

Nothing here says how: a submission is a benchmark (`dpem_env.experiments.submission`), and what it claims is verified
(`dpem_env.experiments.submission_check`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from dpem_env import scenarios
from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.policies import LocalPolicy, Policy
from dpem_env.scenarios import Scenario
from dpem_env.simulator import RULES_VERSION
from dpem_env.support.errors import DpemError, PolicyError
from dpem_env.support.seeding import following, hexadecimal

Track = Literal["decentralized", "central", "unrestricted"]
TRACKS: tuple[Track, ...] = get_args(Track)


@dataclass(frozen=True)
class Declaration:
    """An evaluation that is the same for everybody: scenarios by name and hash, episodes of each, control delays."""

    version: str
    scenarios: Mapping[str, str]
    episodes: int  # of each: the first of its evaluation split, or as many from a beacon
    delays: tuple[float, ...]  # s, of track "central"
    ranked_by: str  # metric, the mean of its means on all scenarios
    trial: Mapping[str, int]  # episodes by scenario of what is only to be tried out

    @property
    def text(self) -> str:
        """All of it in a line, which seeds from a beacon follow from."""
        played = ", ".join(f"{name} {known}" for name, known in self.scenarios.items())
        delays = ", ".join(f"{delay:g}" for delay in self.delays)
        return (
            f"dpem leaderboard {self.version}: rules {RULES_VERSION}; {played}; {self.episodes} episodes; "
            f"central at {delays} s; ranked by {self.ranked_by}"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def played(self, trial: bool = False) -> dict[str, int]:
        """How many episodes of which scenarios."""
        return dict(self.trial) if trial else dict.fromkeys(self.scenarios, self.episodes)

    def scenario(self, name: str) -> Scenario:
        """One of the scenarios; DpemError if it is no longer the one that was declared."""
        found = scenarios.get(name)
        if found.hash != (declared := self.scenarios[name]):
            raise DpemError(f"leaderboard {self.version} has {name} of hash {declared}; that of here is {found.hash}")
        return found

    def seeds(self, scenario: Scenario, index: int, beacon: str | None) -> EpisodeSeeds:
        """Of the `index`-th episode: those of the evaluation split, or what follows from a beacon's value.

        Then each seed is the first 63 bits of the SHA-256 of DIGEST:BEACON:SCENARIO:INDEX:WHAT, where WHAT is
        "topology" or "demand", and BEACON `beacon_value`.
        """
        if beacon is None:
            return episode_seeds(scenario, "evaluation", index)
        asked = (f"{self.digest}:{beacon}:{scenario.name}:{index}:{what}" for what in EpisodeSeeds._fields)
        return EpisodeSeeds(*map(following, asked))

    def require(self, track: Track, delay: float | None, policy: Policy, forecaster: str | None) -> None:
        """PolicyError unless a policy may play on a track, at a control delay (s) where there is a controller."""
        named = type(policy).__name__
        local = isinstance(policy, LocalPolicy)
        if track == "decentralized" and not local:
            raise PolicyError(f"{named} has a controller; expected a local policy on track 'decentralized'")
        if track == "central" and local:
            raise PolicyError(f"{named} is local; central:NAME puts it under central control")
        if track == "central" and delay not in self.delays:
            given = "there is no --delay" if delay is None else f"--delay is {delay:g}"
            raise PolicyError(f"{given}; expected one of {', '.join(f'{each:g}' for each in self.delays)} s")
        if track != "central" and delay:
            raise PolicyError(f"--delay is {delay:g}; only track 'central' has one")
        forecasts = get_forecaster(policy.forecaster if forecaster is None else forecaster)
        if track != "unrestricted" and forecasts is not None and forecasts.clairvoyant:
            raise PolicyError(f"{type(forecasts).__name__} knows the future; expected on track 'unrestricted' alone")


V1 = Declaration(
    version="v1",
    scenarios={"mesh20-v0": "7fdfdc814ca7", "surfnet-v0": "3cf3ba553938", "mesh100-v0": "ef9add87b8e5"},
    episodes=15,
    delays=(0.0, 0.5, 1.0),
    ranked_by="delivery_rate",
    trial={"mesh20-v0": 2},
)


def usual_track(policy: Policy) -> Track:
    """That of a policy whose user names none: by whether it has a controller."""
    return "decentralized" if isinstance(policy, LocalPolicy) else "central"


def beacon_value(text: str) -> str:
    """A beacon's value in lower case, without "0x"; DpemError unless it is 32 to 256 hexadecimal digits."""
    return hexadecimal("beacon", text, "the value of a randomness beacon")
