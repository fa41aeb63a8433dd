"""Imitation: nodes come to decide as a central policy commands that sees the present, as far as they can word it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ppo_models import checkpoint_of, learner

from dpem_agents.ppo import imitation
from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_agents.ppo.hyperparameters import PRESETS
from dpem_agents.ppo.imitation import imitate, worded
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.ppo.start import CRITIC_ALONE, Start
from dpem_agents.ppo.training import train
from dpem_env import scenarios
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.policies import CentralPolicy, Decision
from dpem_env.simulator import Condition
from dpem_env.simulator.actions import ActionCode
from dpem_env.support.errors import DpemError, PolicyError
from support.command_line import complaint, dpem

STAR = scenarios.get("star8-v0", slots=40)
EXPERT = PolicySpec("central-maxweight", 0.0)
SMALL = ("--scenario", "star8-v0", "--set", "slots=40")
QUICK = replace(PRESETS["shared"], hidden=8, learning_rate=5e-3)
EPISODE = 40 * 8


def imitated(out: Path, timesteps: int = 10 * EPISODE, expert: PolicySpec = EXPERT, **arguments: Any) -> Path:
    return imitate(STAR, expert, timesteps, out, **{"hyperparameters": QUICK, "show_progress": False} | arguments)


def agreement(checkpoint: Checkpoint, asked: PolicySpec) -> tuple[float, float]:
    """With the expert on validation episodes that the policy plays: in all decisions, and in those to allocate."""
    session = Session(STAR, 1, 0.0, advised=True, split="validation", forecaster="moving-average")
    policy, expert, same, ordered = PpoPolicy(checkpoint), asked.make(), [], []
    assert isinstance(expert, CentralPolicy)
    for index in range(4):
        session.begin(episode_seeds(STAR, "validation", index))
        for player in (policy, expert):
            player.reset(STAR, session.network, index)
        while not session.done:
            look, view = session.look(), session.view()
            assert view is not None
            seen, masks = session.observer.table.read(look.observations[0]), look.masks[0]
            rows = policy.actor.asked(seen, masks).rows
            own, command = policy.act(seen, masks), expert.act(view)
            same += list((own.action == command.action)[rows])
            ordered += list((command.action > 0)[rows])
            session.step(*own)
    return float(np.mean(same)), float(np.mean(np.array(same)[ordered]))


@pytest.mark.parametrize(
    ("expert", "warm_start", "least", "of_commands"),
    [("central:local-reactive", "none", 0.85, 0.85), ("central-maxweight", "reactive", 0.65, 0.25)],
    ids=["what nodes can know", "what they cannot"],
)
def test_nodes_come_to_decide_as_the_controller_commands(
    expert: str, warm_start: Any, least: float, of_commands: float, tmp_path: Path
) -> None:
    chosen, asked = replace(QUICK, warm_start=warm_start), PolicySpec(expert, 0.0)
    untrained = learner(
        STAR, "shared", tmp_path / "events", forecaster="moving-average", warm_start=warm_start, idle_forecast=1.0
    )
    before, _ = agreement(checkpoint_of(untrained), asked)
    path = imitated(tmp_path / "out", 30 * EPISODE, asked, hyperparameters=chosen, forecaster="moving-average")
    after, commanded = agreement(load(path), asked)
    assert before + 0.1 < least < after
    assert of_commands < commanded  # it does not merely wait
    told = load(path).about["imitation"]
    assert told["policy"] == expert
    rounds = [each["agreement"] for each in told["rounds"]]
    assert len(rounds) == imitation.ROUNDS
    assert rounds[0] < 0.6 < rounds[-1]


def test_the_same_arguments_come_to_the_same_policy_and_others_to_another(tmp_path: Path) -> None:
    ours, again, other = (
        load(imitated(tmp_path / name, **more)) for name, more in (("a", {}), ("b", {}), ("c", {"seed": 1}))
    )
    assert ours.about["imitation"] == again.about["imitation"]
    assert all(np.array_equal(array, again.arrays[name]) for name, array in ours.arrays.items())
    assert not np.array_equal(ours.arrays["weights.actor.wait.bias"], other.arrays["weights.actor.wait.bias"])


def test_ppo_goes_on_from_it_with_a_critic_that_learns_alone_at_first(tmp_path: Path) -> None:
    chosen = replace(QUICK, routes=True, penalties=(0.03, 2.0), idle_forecast=0.5)
    folder = imitated(tmp_path / "out", hyperparameters=chosen).parent
    start = Start.of(f"ppo:{folder}")
    assert start.settings.critic_alone == CRITIC_ALONE
    assert start.forecaster == "moving-average"
    learn = start.hyperparameters("shared", networks=1, slots=16, minibatches=2, epochs=1)
    path = train(
        STAR, "shared", 16 * 8, tmp_path / "ppo", start=start, hyperparameters=learn, validation_episodes=0,
        show_progress=False,
    )  # fmt: skip
    assert all(np.array_equal(array, load(path).actor[name]) for name, array in start.checkpoint.actor.items())


def test_the_first_round_plays_what_is_commanded_and_others_what_nodes_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played, commanded = [], []
    usual, words = imitation.NodeVecEnv.step_async, imitation.worded
    monkeypatch.setattr(
        imitation.NodeVecEnv, "step_async", lambda self, actions: played.append(actions) or usual(self, actions)
    )
    monkeypatch.setattr(imitation, "worded", lambda *given: commanded.append(words(*given)) or commanded[-1])
    imitated(tmp_path)
    commands = [command for command, _ in commanded]
    assert len(played) == len(commands) == 10 * 40
    assert np.array_equal(played[:40], commands[:40])
    assert np.any(commands[:40])
    assert (np.array(played[40:]) != commands[40:]).any()


def test_commands_are_worded_as_far_as_nodes_have_words() -> None:
    # Two peers, two qualities, three routes. Nodes: wait; peer 1 at quality 2 on auto, on routes 0 and 2; on 2 if free.
    action, route = np.array([0, 4, 4, 4, 4]), np.array([-1, -1, 0, 2, 2])
    decision = Decision(action, route, condition=np.array([0, 0, 0, 0, Condition.READ_FREE | Condition.FREE]))

    def said(code: ActionCode, forbidden: int | None = None) -> list[int | None]:
        masks = np.ones((5, code.num_actions), dtype=np.int8)
        if forbidden is not None:
            masks[:, forbidden] = 0
        command, known = worded(decision, code, masks)
        assert not command[~known].any()
        return [int(each) if has else None for each, has in zip(command, known, strict=True)]

    assert said(ActionCode(2, 2)) == [0, 4, 4, None, None]
    assert said(ActionCode(2, 2), forbidden=4) == [0, None, None, None, None]
    named = ActionCode(2, 2, 3)
    assert said(named) == [0, None, named.encode(1, 2, 0), named.encode(1, 2, 2), None]
    conditional = ActionCode(2, 2, 3, Condition.FREE)
    assert said(conditional)[4] == conditional.encode(1, 2, 2, True)
    assert said(conditional)[3] == conditional.encode(1, 2, 2, False)


def test_what_is_interrupted_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = imitated(tmp_path / "out").read_bytes()
    with pytest.raises(DpemError, match=r"policy.npz' is there already: choose another --out, or begin anew with"):
        imitated(tmp_path / "out")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(imitation, "worded", interrupted)
    for folder in ("out", "new"):
        with pytest.raises(KeyboardInterrupt):
            imitated(tmp_path / folder, again=True, seed=1)
    assert (tmp_path / "out" / "policy.npz").read_bytes() == before
    assert not (tmp_path / "new" / "policy.npz").exists()


def test_the_command_imitates_and_what_comes_of_it_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    learn = ("--learn.hidden", "4", "--timesteps", "320")
    assert dpem("train", *SMALL, "--imitate", "central-reactive", *learn, "--out", out) == 0
    said = capsys.readouterr().out
    assert f"use it as --policy ppo:{out}, or train on with --start-from ppo:{out}" in said
    assert dpem("run", *SMALL, "--policy", f"ppo:{out}", "--seeds", "1", "--out", str(tmp_path / "played")) == 0


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("--imitate", "maxweight"), "maxweight decides for itself at every node; imitated are central policies"),
        (("--imitate", "central-maxweight", "--mode", "central"), "--mode is of PPO: leave it out with --imitate"),
        (("--imitate", "central-maxweight", "--delay", "0.5"), "--delay is of PPO: leave it out with --imitate"),
        (("--tuned", "shipped"), "--tuned is of the policy that --imitate names: name one"),
    ],
)
def test_what_cannot_be_imitated_is_told_in_one_line(
    given: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line in complaint(capsys, "train", *SMALL, *given, "--timesteps", "9", "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_policies_on_swaps_are_not_imitated(tmp_path: Path) -> None:
    with pytest.raises(DpemError, match="leaves swaps to decide"):
        imitate(scenarios.get("swap-chain3-v0", swapping="agents"), EXPERT, 9, tmp_path)
    with pytest.raises(PolicyError, match="decides for itself"):
        imitate(STAR, PolicySpec("local-reactive"), 9, tmp_path)
