"""What the aggregator and the nodes of a deployed federation agree on, and keep in their folders."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpem_agents.federation import Federation, federation
from dpem_agents.ppo.hyperparameters import Hyperparameters, changed
from dpem_agents.ppo.training import Settings
from dpem_env import scenarios
from dpem_env.demand.forecast import get_forecaster
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import Natural
from dpem_env.support.errors import DpemError
from dpem_env.support.files import Part, checked, read_json, reading, write_json

if TYPE_CHECKING:
    from dpem_agents.ppo.learner import Learner

FILE = "federation.json"


class _Stored(Part):
    scenario: str
    federation: dict[str, Any]
    hyperparameters: dict[str, Any]
    rounds: Natural
    seed: Natural
    topology_seed: Natural
    forecaster: str | None
    here: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A federation of all nodes of one network, for so many rounds: the same at the aggregator and at every node."""

    scenario: Scenario
    federation: Federation
    hyperparameters: Hyperparameters
    rounds: int
    seed: int = 0
    topology_seed: int = 0
    forecaster: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rounds, int) or self.rounds < 1:
            raise DpemError(f"rounds is {self.rounds!r}; expected a whole number >= 1")
        get_forecaster(self.forecaster)  # complains

    @property
    def settings(self) -> Settings:
        """Those of the same training in one process, ``dpem train --mode federated``."""
        return Settings(
            self.scenario.hash,
            "federated",
            self.seed,
            self.forecaster,
            None,
            self.topology_seed,
            self.hyperparameters,
            self.federation,
        )

    @property
    def fingerprint(self) -> str:
        """Changes with anything that is agreed on."""
        agreed = json.dumps(self.settings.as_plain() | {"rounds": self.rounds}, sort_keys=True)
        return hashlib.sha256(agreed.encode()).hexdigest()[:12]

    @property
    def nodes(self) -> int:
        """How many there are."""
        return build_network(self.scenario, self.topology_seed).num_nodes

    @property
    def timesteps(self) -> int:
        """Slots × nodes that all rounds take in one process."""
        chosen = self.hyperparameters
        rollout = chosen.slots * chosen.networks * self.nodes
        return self.rounds * self.federation.period * rollout

    def learner(self, folder: Path) -> Learner:
        """A fresh one: the same everywhere, since it depends on what is agreed on alone."""
        from dpem_agents.ppo.learner import Learner

        return Learner(self.scenario, self.settings, self.timesteps, "cpu", folder)

    def save(self, folder: Path, here: dict[str, Any]) -> None:
        """Write it, with what is particular to this place."""
        known = {name: getattr(self, name) for name in ("rounds", "seed", "topology_seed", "forecaster")}
        known |= {"federation": asdict(self.federation), "hyperparameters": asdict(self.hyperparameters)}
        data = self.scenario.data_dir
        here = here | {"data": None if data is None else os.fspath(data)}
        write_json(folder / FILE, known | {"scenario": self.scenario.to_toml(), "here": here})

    @classmethod
    def load(cls, folder: Path) -> tuple[Plan, dict[str, Any]]:
        """What `save` wrote."""
        with reading("federation", folder / FILE):
            stored = read_json(folder / FILE)
            checked(_Stored, stored, "it")
            here = stored.pop("here")
            made = {
                "scenario": scenarios.from_toml(stored["scenario"]).override(data_dir=here.pop("data", None)),
                "federation": federation(**stored["federation"]),
                "hyperparameters": changed(Hyperparameters(), **stored["hyperparameters"]),
            }
            return cls(**stored | made), here
