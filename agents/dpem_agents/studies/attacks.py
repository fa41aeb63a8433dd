"""What a federation withstands: some of its nodes send updates made to spoil it, and the others learn on.

A training goes on from its checkpoint for some rounds, in which adversaries replace what they have learned. They act in
the network as everybody does, by the weights that come back, so that what is measured is the harm of their updates
alone. Nothing is noised: median and trimmed mean know no privacy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dpem_agents.federated.embedded import Averaging
from dpem_agents.federated.mechanism import NoisedUpdate
from dpem_agents.federated.spec import Vector
from dpem_agents.federation import Aggregator, Federation, federation
from dpem_agents.libraries import one_thread
from dpem_agents.ppo.checkpoint import FILE, Checkpoint, load
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.ppo.start import StartSettings
from dpem_agents.ppo.training import Settings
from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.workers import played
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError
from dpem_env.support.files import Part, checked, read_json, reading, sole_writer, write_json
from dpem_env.support.provenance import UNKNOWN, stamp, warn_of_other_code
from dpem_env.support.seeding import generator

FORMAT = "dpem-attacks-1"
METRICS = ("delivery_rate", "contention", "reward")
Attack = Callable[[Vector, np.random.Generator], Vector]

# What adversaries send in place of their update.
ATTACKS: dict[str, Attack] = {
    "none": lambda update, draws: update,
    "sign flip": lambda update, draws: -update,
    "× 100": lambda update, draws: 100.0 * update,
    "random": lambda update, draws: draws.normal(0.0, 1.0, len(update)),  # Gaussian (Blanchard et al. 2017, §5)
}
# How the aggregator averages, and whether it clips.
DEFENCES: dict[str, tuple[Aggregator, bool]] = {
    "mean + clip": ("mean", True),
    "trimmed mean": ("trimmed_mean", False),
    "median": ("median", False),
    "mean": ("mean", False),
}


@dataclass(frozen=True)
class Setting:
    """What all trials have in common."""

    training: Path  # folder of a training in mode "federated", with its checkpoint
    scenario: Scenario
    rounds: int = 20
    period: int = 8  # rollouts of local learning in a round
    adversaries: float = 0.2  # share of the nodes
    clip_norm: float = 0.5  # of "mean + clip"
    episodes: int = 10  # that a trial is scored on

    def __post_init__(self) -> None:
        for name in ("rounds", "period", "episodes"):
            given = getattr(self, name)
            if not isinstance(given, int) or given < 1:
                raise DpemError(f"{name} is {given!r}; expected a whole number >= 1")
        if not 0.0 <= self.adversaries < 0.5:
            raise DpemError(f"adversaries is {self.adversaries!r}; expected a share of the nodes from 0 to below 0.5")
        if not self.clip_norm > 0.0:
            raise DpemError(f"clip_norm is {self.clip_norm!r}; expected a number above 0")

    def federation(self, defence: str, trained: Federation) -> Federation:
        """The federation of the training, averaging without noise and in another way."""
        aggregator, clips = DEFENCES[defence]
        clip = self.clip_norm if clips else None
        shared = {"share": trained.share, "server_lr": trained.server_lr}
        return federation(privacy="off", period=self.period, aggregator=aggregator, clip_norm=clip, **shared)


@dataclass(frozen=True)
class Trial:
    """One continuation of the training; the seed draws the adversaries and all luck."""

    attack: str
    defence: str
    seed: int


class _Scores(Part):
    attack: str
    defence: str
    seed: int
    delivery_rate: float
    contention: float
    reward: float


class _Results(Part):
    trials: list[_Scores]


class AttackedAveraging(Averaging):
    """Rounds in which some nodes replace their updates."""

    def under(self, attack: str, adversaries: frozenset[int], seed: int) -> None:
        """Let these nodes attack from now on."""
        self.attack, self.adversaries = ATTACKS[attack], adversaries
        self.draws = generator("federated attack", seed)

    def sent(self, node: Hashable, local: Vector) -> Vector | NoisedUpdate:
        """What a node sends, honest or not."""
        update = super().sent(node, local)
        assert not isinstance(update, NoisedUpdate)
        return self.attack(update, self.draws) if node in self.adversaries else update


def withstand(
    setting: Setting,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int = 1,
    on_trial: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Try every attack on every defence, once per seed; returns what `out`, a JSON file, then holds.

    Trials that the file holds already are kept, if it is of the same setting.
    """
    trained = _trained(setting)
    about = {"format": FORMAT, "stamp": stamp()} | _plain(setting, trained)
    warn_of_other_code(os.fspath(setting.training), trained.about["stamp"], "trials go on with this one")
    trials = [Trial(attack, defence, seed) for defence, seed, attack in product(DEFENCES, seeds, ATTACKS)]
    with sole_writer(out):
        known = _known(out, about)
        about["before"] = _scores(setting, trained)
        missing = [trial for trial in trials if trial not in known]
        for _ in range(len(trials) - len(missing)):
            on_trial()
        for trial, scores in played(partial(play, setting), missing, workers):
            known[trial] = scores
            write_json(out, about | {"trials": [asdict(t) | known[t] for t in trials if t in known]})
            on_trial()
    with reading("results", out):
        return read_json(out)


def play(setting: Setting, trial: Trial) -> dict[str, Any]:
    """Scores after the rounds of a trial: means over evaluation episodes on the network of the training."""
    trained = _trained(setting)
    with one_thread(), TemporaryDirectory() as folder:
        learner = _learner(setting, trial, trained, Path(folder))
        learner.learn(learner.average_if_due, lambda: None)
        return _scores(setting, learner.checkpoint({"curve": [], "seconds": 0.0}))


def _trained(setting: Setting) -> Checkpoint:
    """The training that goes on; DpemError if there is none of that kind."""
    trained = load(setting.training, training=True)
    mode, folder = trained.about["mode"], os.fspath(setting.training)
    if mode != "federated":
        raise DpemError(f"{folder!r} was trained in mode {mode!r}; expected a training in mode 'federated'")
    if trained.about["settings"]["scenario_hash"] != setting.scenario.hash:
        raise DpemError(f"{folder!r} was trained on another scenario than {setting.scenario.name}")
    if "federated.weights" not in trained.arrays:
        raise DpemError(f"{folder!r} holds a policy, but no training to go on from: {FILE} is missing")
    return trained


def _learner(setting: Setting, trial: Trial, trained: Checkpoint, folder: Path) -> Any:
    """The training as it was left, with rounds to come and adversaries among its nodes."""
    from dpem_agents.ppo.learner import Learner

    about = trained.about["settings"]
    federated = setting.federation(trial.defence, federation(**about["federation"]))
    settings = Settings(
        about["scenario_hash"],
        "federated",
        trial.seed,
        about["forecaster"],
        None,
        about["topology_seed"],
        trained.hyperparameters,
        federated,
        StartSettings(**about["start"]) if about.get("start") else None,
    )
    chosen, nodes = trained.hyperparameters, trained.about["nodes"]
    a_round = setting.period * chosen.slots * chosen.networks * nodes  # in timesteps
    done = trained.about["timesteps"] // a_round
    total = trained.about["timesteps"] + setting.rounds * a_round
    learner = Learner(setting.scenario, settings, total, "cpu", folder)
    learner.averaging = AttackedAveraging(federated, learner.model, setting.rounds)
    draws = generator("federated adversaries", trial.seed)
    adversaries = draws.choice(nodes, round(setting.adversaries * nodes), replace=False)
    learner.averaging.under(trial.attack, frozenset(adversaries.tolist()), trial.seed)
    learner.restore(trained)
    learner.averaging.rounds = done  # as if rounds had always been as long: no earlier one is due any more
    return learner


def _scores(setting: Setting, policy: Checkpoint) -> dict[str, float]:
    """Means over the episodes, the same for all trials."""
    topology = policy.about["settings"]["topology_seed"]
    metrics = []
    for index in range(setting.episodes):
        demand = episode_seeds(setting.scenario, "evaluation", index).demand
        metrics.append(run_episode(setting.scenario, PpoPolicy(policy), EpisodeSeeds(topology, demand))[0])
    return {name: float(np.mean([getattr(each, name) for each in metrics])) for name in METRICS}


def _plain(setting: Setting, trained: Checkpoint) -> dict[str, Any]:
    """The setting as its file tells it."""
    known = {name: value for name, value in asdict(setting).items() if name not in ("training", "scenario")}
    about = {"scenario": setting.scenario.name, "scenario_hash": setting.scenario.hash}
    return about | {"nodes": trained.about["nodes"], "trained_for": trained.about["timesteps"]} | known


def _known(out: Path, about: dict[str, Any]) -> dict[Trial, dict[str, Any]]:
    """Trials of the same setting that the file holds; DpemError if it holds others."""
    if not out.exists():
        return {}
    with reading("results", out):
        stored = read_json(out)
        if stored.get("stamp", UNKNOWN) != about["stamp"]:
            print("playing all trials again: the code of dpem_env changed", file=sys.stderr)
            return {}
        if {name: stored.get(name) for name in about} != about:
            raise ValueError("it holds trials of another setting: choose another --out")
        checked(_Results, stored, "it")
        return {
            Trial(trial["attack"], trial["defence"], trial["seed"]): {name: trial[name] for name in METRICS}
            for trial in stored["trials"]
        }
