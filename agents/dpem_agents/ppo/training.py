"""Training of PPO policies: with checkpoints, validation and a learning curve; interrupted, it goes on where it was."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpem_agents.federated.embedded import LEDGER, training_name
from dpem_agents.federated.ledger import BudgetExhausted, Ledger
from dpem_agents.federation import Federation
from dpem_agents.libraries import agents_extra, errors_told_once, one_thread
from dpem_agents.ppo.checkpoint import EVENTS, FILE, POLICY_FILE, Checkpoint, load
from dpem_agents.ppo.hyperparameters import MODES, PRESETS, STACKED, Hyperparameters, kind_of
from dpem_agents.ppo.movement import MovedPolicy
from dpem_agents.ppo.policy import CentralPpoPolicy, PpoPolicy
from dpem_agents.ppo.start import Start, StartSettings
from dpem_env import scenarios
from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.control import played_delay, warn_if_rounded
from dpem_env.envs.metric_labels import METRICS
from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.report.tables import progress
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError, PolicyError, require_one_of
from dpem_env.support.files import require_folder, result_folder, write_json
from dpem_env.support.provenance import warn_of_other_code
from dpem_env.support.seeding import require_seed

if TYPE_CHECKING:
    from dpem_agents.ppo.learner import Learner

CURVE = "learning_curve.json"  # in the folder of a training
CURVE_FORMAT = "dpem-learning-curve-1"


@dataclass(frozen=True)
class Settings:
    """What a training must have in common with the one it goes on from."""

    scenario_hash: str
    mode: str
    seed: int
    forecaster: str | None
    delay: float | None  # s, central control only
    topology_seed: int | None  # policies of each node's own only
    hyperparameters: Hyperparameters
    federation: Federation | None = None
    start: StartSettings | None = None

    def __post_init__(self) -> None:
        if (self.mode == "federated") != (self.federation is not None):
            raise DpemError(f"mode is {self.mode!r}; a federation goes with mode 'federated', and with no other")
        if self.federation is not None and self.hyperparameters.contention_budget:
            raise DpemError(
                "hyperparameter contention_budget counts contention of all nodes, and those of mode 'federated' "
                "share nothing but what rounds release: leave contention_budget out"
            )

    def as_plain(self) -> dict[str, Any]:
        """As a checkpoint keeps them; without a start nothing is said of one, as before there were any."""
        return {name: value for name, value in _plain(self).items() if (name, value) != ("start", None)}

    @property
    def name(self) -> str:
        """Of trainings with these settings, in a privacy ledger."""
        return training_name(self.as_plain())


def train(
    scenario: str | Scenario,
    mode: str = "shared",
    timesteps: int = 5_000_000,
    out: str | os.PathLike[str] = "ppo",
    *,
    seed: int = 0,
    hyperparameters: Hyperparameters | None = None,
    federation: Federation | None = None,
    start: Start | None = None,
    forecaster: str | None = None,
    delay: float = 0.0,
    topology_seed: int = 0,
    validation_episodes: int = 4,
    validations: int = 20,
    save_every: float = 180.0,
    device: str = "cpu",
    resume: bool = True,
    show_progress: bool = True,
) -> Path:
    """Train a policy on the training split; returns the path of its checkpoint, which ``ppo:PATH`` plays.

    `mode` "shared" trains one policy for all nodes, "independent" one per node, on the network of `topology_seed` only:
    a node learns in its place, so training and evaluation share that topology, and demand alone is held out. "central"
    trains one policy for the commands of a controller whose view of the network is `delay` s old, fresh in all columns;
    ``central-ppo:PATH`` plays it. "federated" is "independent" with a `federation`: what nodes share of their policies
    is averaged now and then, and its privacy booked in `out`/ledger.json, with what rounds released in
    `out`/ledger-releases. The ε there is of these releases alone: checkpoint.npz and policy.npz hold each node's own
    weights without noise, learning_curve.json and the event files what those came to.

    With a `start`, in modes "shared", "independent" and "federated", every node begins at the weights of a shared
    policy that was trained before, and its critic where the file has one; a critic that begins anew learns alone for
    the first rollouts. Hyperparameters are by default `Start.hyperparameters`, and the forecaster is the start's;
    another one fills the same columns. Validations tell how far the policy has moved (`MovedPolicy.movement`).

    `timesteps` are slots × nodes, over all networks. `forecaster` (a name) fills the observations. At the start and
    `validations` times after, the policy plays the first `validation_episodes` of the validation split. `out` is a
    folder: checkpoint.npz, written every `save_every` seconds and at the end, the learning curve in it as
    learning_curve.json, event files of TensorBoard, and at the end policy.npz, the little of it that playing needs.

    With `resume`, training goes on from the checkpoint in `out` exactly as if it had never stopped, with a DpemWarning
    if that is of other code: then what it saves carries the stamps of both. Ctrl-C saves the
    state before the running rollout, and its KeyboardInterrupt says where; whatever else stops it, rounds that were
    released since the last checkpoint are taken over from the ledger, and cost no more. Raises DpemError if the
    checkpoint there is of another training, or cannot be written: then the one before is kept; or if another process
    trains there, or the privacy ledger does not agree with checkpoint, policy and releases; or, without `resume`, if it
    has booked any round: what was released cannot be undone; or if a federation's period is longer than the training.
    Raises DpemError, too, where hyperparameters, forecaster or scenario do not fit the start.
    BudgetExhausted, with state and policy saved, where privacy allows no further round.
    """
    scenario = scenarios.get(scenario)
    require_allocations(scenario)
    require_one_of("mode", mode, MODES)
    require_seed("seed", seed)
    require_seed("topology_seed", topology_seed)
    warn_if_rounded(scenario, delay)
    plan = Plan(timesteps, validation_episodes, validations, save_every, show_progress)
    chosen = hyperparameters or (start.hyperparameters(mode) if start else PRESETS[mode])
    forecaster = start.forecaster if start and forecaster is None else forecaster
    get_forecaster(forecaster)
    if chosen.contention_budget and scenario.reward.contention_penalty == 0.0:
        raise DpemError(
            f"hyperparameter contention_budget multiplies the contention penalty, which is 0 in {scenario.name}: set "
            "contention_penalty to where training is to begin"
        )
    if start:
        start.require(scenario, mode, chosen, forecaster)
    with agents_extra():
        from dpem_agents.ppo.learner import Learner, require_device
    require_device(device)
    settings = Settings(
        scenario.hash,
        mode,
        seed,
        forecaster,
        played_delay(scenario, delay) if mode == "central" else None,
        topology_seed if mode in STACKED else None,
        chosen,
        (federation or Federation()) if mode == "federated" else federation,
        start.settings if start else None,
    )
    with result_folder(Path(out)), one_thread():
        if not resume or settings.federation is not None:
            require_booked(Path(out), resume)
        before = _checkpoint_before(Path(out) / FILE, settings) if resume else None
        learner = Learner(scenario, settings, timesteps, device, Path(out), start)
        training = Training(learner, plan, Path(out), start)
        if before is not None:
            training.restore(before)
        elif learner.averaging is not None and (told := learner.averaging.told_of_ledger()) is not None:
            print(told, file=sys.stderr)
        with errors_told_once():
            return training.run()


def require_allocations(scenario: Scenario) -> None:
    """DpemError unless nodes decide on allocations."""
    if scenario.control.relays_decide:
        raise DpemError(f"{scenario.name} leaves swaps to decide; trained here are policies that decide on allocations")


def require_booked(folder: Path, resume: bool) -> None:
    """DpemError if the folder's ledger lacks rounds that were played there, or has any where a training begins anew."""
    ledger = Ledger(folder / LEDGER)
    for file in (folder / FILE, folder / POLICY_FILE):
        rounds = 0
        with suppress(PolicyError):  # a damaged one tells nothing, and beginning anew is the way out of it
            rounds = load(file).about.get("federated_rounds", 0) if file.exists() else 0
        if rounds > ledger.rounds:
            raise DpemError(
                f"{os.fspath(file)!r} has learned from {rounds} rounds, of which privacy ledger "
                f"{os.fspath(folder / LEDGER)!r} books {ledger.rounds}: put it back as it was, or begin anew in "
                "another folder; what nodes spend in both adds up"
            )
    if not resume and ledger.rounds > 0:
        raise DpemError(
            f"privacy ledger {os.fspath(folder / LEDGER)!r} has booked {ledger.rounds} rounds, which beginning anew "
            "does not undo: go on from there, or choose another --out; what nodes spend in both adds up"
        )


@dataclass(frozen=True)
class Plan:
    """How long to train, and what to do in between; see `train`."""

    timesteps: int
    validation_episodes: int
    validations: int
    save_every: float  # s
    show_progress: bool

    def __post_init__(self) -> None:
        for name, least in (("timesteps", 1), ("validation_episodes", 0), ("validations", 1)):
            given = getattr(self, name)
            if not isinstance(given, int) or given < least:
                raise DpemError(f"{name} is {given!r}; expected a whole number >= {least}")

    def validates(self, before: int, now: int) -> bool:
        """Whether a validation is due, the latest having been after `before` timesteps (-1: none so far)."""
        every = math.ceil(self.timesteps / self.validations)
        return now > before and (now // every > before // every or now >= self.timesteps)


class Training:
    """One call of `train`: what happens between the rollouts of a learner."""

    def __init__(self, learner: Learner, plan: Plan, out: Path, start: Start | None = None) -> None:
        self.learner, self.plan, self.out, self.start = learner, plan, out, start
        self.curve: list[dict[str, Any]] = []
        self.checkpoint: Checkpoint | None = None  # of the latest boundary of two rollouts
        self._began = self._saved = time.monotonic()
        self._seconds = 0.0  # of the calls before this one

    def restore(self, before: Checkpoint) -> None:
        """Go on from a checkpoint; DpemError if it holds a policy but not how its training stood."""
        try:
            self.learner.restore(before)
            self.curve, self._seconds = before.about["curve"], before.about["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # what Python and torch raise
            path = os.fspath(self.out / FILE)
            anew = "--again (in Python resume=False) begins anew"
            raise DpemError(f"training cannot go on from {path!r}: {error}; {anew}") from None
        if self.learner.averaging is not None:
            self.learner.averaging.require_booked()

    def run(self) -> Path:
        """Train to the end; returns the path of the checkpoint."""
        try:
            self._run()
        except KeyboardInterrupt:
            if self.checkpoint is None:
                raise
            path, done = self._save(self.checkpoint), self.checkpoint.about["timesteps"]
            raise KeyboardInterrupt(
                f"interrupted after {done:,} of {self.plan.timesteps:,} timesteps, saved to {path}"
            ) from None
        except BudgetExhausted:
            self._finish(self._state())
            raise
        assert self.checkpoint is not None
        return self._finish(self.checkpoint)

    def _finish(self, checkpoint: Checkpoint) -> Path:
        path = self._save(checkpoint)
        checkpoint.for_playing().save(self.out / POLICY_FILE, compressed=True)
        return path

    def _run(self) -> None:
        first, began = self.learner.timesteps, time.monotonic()
        with progress(self.plan.show_progress) as bar:
            task = bar.add_task("", total=self.plan.timesteps, completed=first)

            def at_boundary() -> None:
                self._boundary()
                speed = (self.learner.timesteps - first) / (time.monotonic() - began)
                bar.update(task, description=self._description(speed))

            self.learner.learn(at_boundary, lambda: bar.update(task, completed=self.learner.timesteps))

    def _boundary(self) -> None:
        """Before the first rollout, between two, and after the last: average, validate and save what is due."""
        self.learner.average_if_due()
        if self.plan.validation_episodes > 0:
            latest = self.curve[-1]["timesteps"] if self.curve else -1
            if self.plan.validates(latest, self.learner.timesteps):
                self._validate()
        self.checkpoint = self._state()
        if time.monotonic() - self._saved >= self.plan.save_every:
            self._save(self.checkpoint)

    def _validate(self) -> None:
        scenario, delay = self.learner.scenario, self.learner.settings.delay
        policy = self._policy()
        played = [
            run_episode(scenario, policy, self._validation_seeds(index), delay=delay or 0.0)[0]
            for index in range(self.plan.validation_episodes)
        ]
        means = {
            name: sum(getattr(metrics, name) for metrics in played) / len(played)
            for name in ("reward", "delivery_rate", "contention")
        }
        if isinstance(policy, MovedPolicy):
            means |= policy.movement()
        self.learner.log({f"validation/{name}": mean for name, mean in means.items()})
        timesteps = self.learner.timesteps
        done = {"timesteps": timesteps, "environment_steps": timesteps // self.learner.nodes}
        plain = {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
        self.curve.append(done | {"seconds": round(self._elapsed(), 3)} | plain)

    def _policy(self) -> PpoPolicy | CentralPpoPolicy:
        """As it is now."""
        if self.start is not None:
            return MovedPolicy(self._state(), self.start.checkpoint)
        return PpoPolicy(self._state()) if self.learner.settings.delay is None else CentralPpoPolicy(self._state())

    def _validation_seeds(self, index: int) -> EpisodeSeeds:
        seeds = episode_seeds(self.learner.scenario, "validation", index)
        topology = self.learner.settings.topology_seed
        return seeds if topology is None else seeds._replace(topology=topology)

    def _state(self) -> Checkpoint:
        return self.learner.checkpoint({"curve": list(self.curve), "seconds": self._elapsed()})

    def _save(self, checkpoint: Checkpoint) -> Path:
        """Write the checkpoint and, as a file of its own, the learning curve in it."""
        require_folder(self.out, EVENTS)
        checkpoint.save(self.out / FILE)
        about: dict[str, Any] = {"format": CURVE_FORMAT, "policy": kind_of(self.learner.settings.mode)}
        about |= {name: checkpoint.about[name] for name in ("stamp", "scenario", "mode", "settings", "curve")}
        about["validation_episodes"] = self.plan.validation_episodes
        try:
            write_json(self.out / CURVE, about)
        except OSError as error:
            raise DpemError(f"learning curve {os.fspath(self.out / CURVE)!r} cannot be written: {error}") from None
        self._saved = time.monotonic()
        return self.out / FILE

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._began

    def _description(self, speed: float) -> str:
        told = [f"{self.learner.scenario.name}, {self.learner.settings.mode}"]
        finished = self.learner.env.finished.items()
        told += [f"{METRICS[name].label} {mean:.{METRICS[name].decimals}f}" for name, mean in finished]
        if self.curve and self.curve[-1]["reward"] is not None:
            told.append(f"validation reward {self.curve[-1]['reward']:.2f}")
        if self.learner.settings.hyperparameters.contention_budget:
            told.append(f"penalty × {self.learner.multiplier:.3g}")
        if self.learner.averaging is not None:
            told.append(self.learner.averaging.told())
        return ", ".join([*told, f"{speed:,.0f} steps/s"])


def _checkpoint_before(path: Path, settings: Settings) -> Checkpoint | None:
    if not path.exists():
        return None
    checkpoint = load(path, training=True)
    stored = checkpoint.about["settings"] | {"hyperparameters": _plain(checkpoint.hyperparameters)}
    for name, ours in ({"start": None} | settings.as_plain()).items():
        theirs = stored.get(name)
        if ours != theirs:
            raise DpemError(
                f"{os.fspath(path)!r} is of another training, with {_difference(name, theirs, ours)}: "
                "choose another --out, or begin anew with --again (in Python resume=False)"
            )
    so = "training goes on with this one, and its stamp will name both; --again (in Python resume=False) begins anew"
    warn_of_other_code(os.fspath(path), checkpoint.about["stamp"], so)
    return checkpoint


def _plain(settings: Settings | Hyperparameters) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(settings)))  # type: ignore[no-any-return]


def _difference(name: str, theirs: Any, ours: Any) -> str:
    """Of groups of settings, the first that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for part in sorted(theirs.keys() | ours.keys()):
            if theirs.get(part) != ours.get(part):
                return _difference(f"start's {part}" if name == "start" else part, theirs.get(part), ours.get(part))
    if name == "start":  # one of both has none
        theirs, ours = (each and each["name"] for each in (theirs, ours))
    return f"{name} {theirs!r} instead of {ours!r}"
