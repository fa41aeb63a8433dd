"""Imitation: nodes learn to decide, each from what it knows, as a central policy would that sees the present.

DAgger (Ross, Gordon & Bagnell, AISTATS 2011): the central policy plays first, then the nodes as they have learned by
then. Wherever they come to, it is asked what it would command there, and they are fitted to all its answers so far.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_agents.libraries import agents_extra, errors_told_once, one_thread
from dpem_agents.ppo.acting import Choices
from dpem_agents.ppo.checkpoint import FILE, POLICY_FILE
from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters
from dpem_agents.ppo.training import Settings, require_allocations
from dpem_env import scenarios
from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.decisions import require_decision
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.observations.features import FeatureTable
from dpem_env.policies import CentralPolicy, Decision
from dpem_env.report.tables import progress
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Condition
from dpem_env.simulator.actions import ActionCode
from dpem_env.support.errors import DpemError, PolicyError
from dpem_env.support.files import result_folder
from dpem_env.support.seeding import generator, require_seed

with agents_extra():
    import torch

    from dpem_agents.ppo.decision_ppo import ILLEGAL
    from dpem_agents.ppo.learner import Learner, require_device
    from dpem_agents.ppo.networks import layout_of
    from dpem_agents.ppo.vec_env import NodeVecEnv

Ints = NDArray[np.int64]

ROUNDS = 10  # of playing and fitting
PASSES, BATCH = 4, 128  # in a round over all answers so far; answers in a step


def imitate(
    scenario: str | Scenario,
    expert: PolicySpec,
    timesteps: int = 200_000,
    out: str | os.PathLike[str] = "imitation",
    *,
    seed: int = 0,
    hyperparameters: Hyperparameters | None = None,
    forecaster: str | None = None,
    device: str = "cpu",
    again: bool = False,
    show_progress: bool = True,
) -> Path:
    """Fit a shared policy to what a central one commands; returns the path of policy.npz, in the folder `out`.

    ``ppo:OUT`` plays it, and trainings start from it: it holds the actor alone, since nothing is learned of values. The
    `expert` sees the network without delay. Nodes are asked what they are asked in PPO: those that decide, by
    `hyperparameters.idle_forecast`, choose an action or wait, and the loss is the cross-entropy with the command, or
    with waiting where there is none. `worded` says which commands are left out. Where the policy is told its contention
    penalty, episodes have penalties of their own, which change nothing in the commands.

    `timesteps` are slots × nodes, rounded up to as many whole episodes of the training split in each of `ROUNDS`
    rounds. `forecaster` (a name, by default the expert's) fills the observations of both. The file tells of every round
    how many ``decisions`` the nodes had and in which share of them they agreed before they were fitted to them
    (``agreement``); how many ``commands`` there were, and of these how many were left out (``unworded``) or for nodes
    that do not decide (``idle``).

    The same arguments come to the same file, which is written at the end, whole or not at all. DpemError if `out` holds
    a policy already, unless it is to be made `again`, and for an expert that is not central.
    """
    scenario, policy = scenarios.get(scenario), expert.make()
    require_allocations(scenario)
    require_seed("seed", seed)
    if not isinstance(policy, CentralPolicy):
        raise PolicyError(
            f"{expert.label} decides for itself at every node; imitated are central policies, as central-maxweight is, "
            "or a local rule that a controller plays, as central:NAME"
        )
    chosen = hyperparameters or PRESETS["shared"]
    forecaster = forecaster or expert.forecaster or policy.forecaster
    get_forecaster(forecaster)
    there = [file for file in (FILE, POLICY_FILE) if (Path(out) / file).exists()]
    if there and not again:
        path = os.fspath(Path(out) / there[0])
        raise DpemError(f"{path!r} is there already: choose another --out, or begin anew with --again")
    require_device(device)
    settings = Settings(scenario.hash, "shared", seed, forecaster, None, None, chosen)
    with result_folder(Path(out)), one_thread(), errors_told_once():
        imitation = Imitation(scenario, settings, policy, device, Path(out))
        episodes = max(math.ceil(timesteps / (ROUNDS * imitation.timesteps)), 1)  # of a round
        with progress(show_progress) as bar:
            task = bar.add_task("", total=ROUNDS * episodes * scenario.episode.slots)
            for number in range(ROUNDS):
                bar.update(task, description=f"{scenario.name}, imitating {expert.label}, {imitation.told()}")
                imitation.round(number, episodes, lambda: bar.advance(task))
        return imitation.save(expert)


class Answers(NamedTuple):
    """What nodes that decided had to choose from, k of them, and what they were commanded."""

    matrix: NDArray[np.float32]  # (k, F)
    legal: NDArray[np.bool_]  # (k, actions)
    prior: NDArray[np.float32]  # (k, actions)
    command: Ints  # (k,)


class Imitation:
    """A shared policy in the making, and the network on which it is compared with a central one."""

    def __init__(
        self, scenario: Scenario, settings: Settings, expert: CentralPolicy, device: str, folder: Path
    ) -> None:
        chosen = settings.hyperparameters
        self.scenario, self.settings, self.expert, self.folder = scenario, settings, expert, folder
        self.learner = Learner(scenario, settings, 0, device, folder)
        # Nodes decide, beside a controller that sees the same slot and whose commands nobody has to follow.
        self.env = NodeVecEnv(
            scenario,
            delay=0.0,
            advised=True,
            penalties=chosen.penalties,
            forecaster=settings.forecaster,
            routes=chosen.routes,
            conditional=chosen.conditional,
        )
        self.timesteps = self.env.num_envs * scenario.episode.slots  # of an episode
        self.env.seed(settings.seed)
        self._rows: Any = self.env.reset()
        self._code = layout_of(FeatureTable(scenario), chosen).code
        self._actor = self.learner.model.policy.mlp_extractor.actor
        self._optimizer = torch.optim.Adam(self._actor.parameters(), lr=chosen.learning_rate)
        self._rng, self._began = generator("imitation", settings.seed), time.monotonic()
        self.answers: list[Answers] = []
        self.rounds: list[dict[str, int | float]] = []

    def round(self, number: int, episodes: int, at_slot: Callable[[], None]) -> None:
        """Play so many episodes, the first round as commanded, and fit the policy to all answers so far."""
        counts = Counter[str](decisions=0, agreeing=0, commands=0, unworded=0, idle=0)
        for _ in range(episodes):
            self._play(number == 0, counts, at_slot)
        agreeing = counts.pop("agreeing")
        self.rounds.append(dict(counts) | {"agreement": agreeing / max(counts["decisions"], 1)})
        self.learner.model.logger.record("imitation/agreement", self.rounds[-1]["agreement"])
        self.learner.model.logger.dump(number)
        self._fit()

    def told(self) -> str:
        """How far it has come."""
        return f"agreement {self.rounds[-1]['agreement']:.1%}" if self.rounds else "which plays"

    def save(self, expert: PolicySpec) -> Path:
        """Write the policy, in place of one that was there."""
        played = sum(len(each.command) for each in self.answers)
        about: dict[str, Any] = {"curve": [], "seconds": time.monotonic() - self._began, "answers": played}
        about["imitation"] = {"policy": expert.name, "options": dict(expert.options), "rounds": self.rounds}
        (self.folder / FILE).unlink(missing_ok=True)  # which would be played in its place
        self.learner.checkpoint(about).for_playing().save(self.folder / POLICY_FILE, compressed=True)
        return self.folder / POLICY_FILE

    def _play(self, as_commanded: bool, counts: Counter[str], at_slot: Callable[[], None]) -> None:
        """One episode."""
        session, nodes, policy = self.env.envs.session, self.env.num_envs, self.learner.model.policy
        self.expert.reset(self.scenario, session.network, session.seeds.demand)
        for _ in range(session.slots):
            masks, view = self.env.action_masks(), session.view()
            assert view is not None  # without delay there is always one
            choices = policy.actor().choices(*policy.read(self._rows), masks)
            decision = require_decision(self.expert.act(view), nodes)
            command, known = worded(decision, self._code, masks)
            own = choices.best(nodes)
            self._note(choices, command, known)
            decides = np.isin(np.arange(nodes), choices.rows)
            counts["commands"] += int((decision.action > 0).sum())
            counts["unworded"] += int((~known).sum())
            counts["idle"] += int((known & ~decides & (command > 0)).sum())
            counts["decisions"] += int((known & decides).sum())
            counts["agreeing"] += int((known & decides & (command == own)).sum())
            self._rows = self.env.step(command if as_commanded else own)[0]
            at_slot()

    def _note(self, choices: Choices, command: Ints, known: NDArray[np.bool_]) -> None:
        kept = known[choices.rows]
        self.answers.append(
            Answers(choices.matrix[kept], choices.masks[kept] == 1, choices.prior[kept], command[choices.rows[kept]])
        )

    def _fit(self) -> None:
        matrix, legal, prior, command = (
            torch.from_numpy(np.concatenate(parts)).to(self.learner.model.device)
            for parts in zip(*self.answers, strict=True)
        )
        networks = self.learner.model.policy.mlp_extractor
        for _ in range(PASSES):
            order = torch.from_numpy(self._rng.permutation(len(command)))
            for first in range(0, len(order), BATCH):
                some = order[first : first + BATCH]
                logits = self._actor(*networks.read(matrix[some].unsqueeze(0))).squeeze(0) + prior[some]
                logits = logits.masked_fill(~legal[some], ILLEGAL)
                loss: Any = torch.nn.functional.cross_entropy(logits, command[some])
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()


def worded(decision: Decision, code: ActionCode, masks: NDArray[np.int8]) -> tuple[Ints, NDArray[np.bool_]]:
    """(N,) commands as actions of nodes, and which of them nodes can word: legal ones; the others are waits here.

    Without named routes nodes can ask for the cheapest, which is tried first, and with them for no unnamed one. An
    order "only if free" is worded where nodes have conditions; "only if pending" says nothing that a controller without
    delay has not seen. Routes to fall back to are left out.
    """
    action, route, _, condition, _ = decision.completed(len(masks))
    assert route is not None
    assert condition is not None
    ordered, free = action > 0, condition & (Condition.FREE | Condition.READ_FREE) > 0
    place, quality, _, _ = ActionCode(code.peers, code.qualities).decode(np.where(ordered, action, 1))
    plain = code.encode(place, quality, route.clip(0))
    has_words = (route <= 0 if code.routes is None else route >= 0) & (~free | (code.condition > 0))
    command = np.where(ordered & has_words, plain + code.num_allocations * free, 0)
    known = ~ordered | (has_words & (masks[np.arange(len(masks)), command] == 1))
    return np.where(known, command, 0), known
