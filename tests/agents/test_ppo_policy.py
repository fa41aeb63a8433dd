"""A trained policy is a local rule: of each node's own row, on any network it fits, and of no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ppo_models import TOPOLOGY, checkpoint_of, draw_weights, drawn_checkpoint, learner

from dpem_agents.ppo import checkpoint as checkpoints
from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_agents.ppo.forward import shapes
from dpem_agents.ppo.layout import OWN, interface, told
from dpem_agents.ppo.networks import layout_of
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.ppo.prior import prior
from dpem_baselines.local import LocalReactive
from dpem_baselines.maxweight import MaxWeight
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import build_network
from dpem_env.observations.features import FeatureTable, Observations
from dpem_env.policies import LocalPolicy, available, get_policy
from dpem_env.simulator import RULES_VERSION, Condition
from dpem_env.simulator.actions import ActionCode
from dpem_env.support.errors import PolicyError

STAR = scenarios.get("star8-v0", slots=40)
CODE = ActionCode.of(STAR)
WHOLE: dict[str, Any] = {"routes": True, "conditional": True, "penalties": (0.01, 1.0)}  # all that it may word
MODES = pytest.mark.parametrize("mode", ["shared", "independent"])


def observed(scenario: Any = STAR, slots: int = 30, topology: int = TOPOLOGY) -> tuple[Observations, NDArray[np.int8]]:
    """What nodes see after some slots of the reactive rule, and their masks."""
    session, rule = Session(scenario, forecaster="moving-average"), LocalReactive()
    session.begin(EpisodeSeeds(topology, 3))
    for _ in range(slots):
        session.step(rule.act(session.observer.table.read(session.observations()), session.masks()).action)
    return session.observer.table.read(session.observations()), session.masks()


def logits_of(policy: PpoPolicy, seen: Observations) -> NDArray[np.float32]:
    masks = np.ones((len(seen.matrix), policy.actor.layout.code.num_actions), dtype=np.int8)
    return policy.actor.choices(seen, told_to(policy, len(masks)), masks).logits


def told_to(policy: PpoPolicy, nodes: int) -> NDArray[np.float32]:
    return told(policy.actor.hyperparameters.penalties, np.full(nodes, STAR.reward.contention_penalty))


@pytest.mark.parametrize(
    ("mode", "changed"),
    [
        ("shared", {}),
        ("shared", {"encoder": "plain"}),
        ("shared", {"hidden_blocks": ("topology", "resources")}),
        ("independent", {}),
        ("independent", {"encoder": "plain"}),
        ("independent", {"hidden_blocks": ("stock",)}),
        ("shared", {"routes": True}),
        ("shared", {"conditional": True}),
        ("shared", WHOLE),
        ("shared", WHOLE | {"encoder": "plain"}),
        ("independent", WHOLE),
    ],
)
def test_it_plays_in_numpy_what_learned_in_torch(mode: str, changed: dict[str, Any], tmp_path: Path) -> None:
    made = learner(STAR, mode, tmp_path, **changed)
    draw_weights(made)
    for slots in (0, 11, 30):
        seen, masks = observed(slots=slots)
        policy = PpoPolicy(checkpoint_of(made))
        rows = np.concatenate([seen.matrix, told_to(policy, len(masks))], axis=1)
        with torch.no_grad():
            expected = made.model.policy.mlp_extractor.forward_actor(torch.from_numpy(rows)).numpy()
        np.testing.assert_allclose(logits_of(policy, seen), expected, atol=1e-5)
        worded = policy.actor.worded(seen, masks)
        learned = made.model.predict(rows, deterministic=True, action_masks=worded)[0]
        for ours, theirs in zip(policy.act(seen, masks), policy.actor.code.commands(learned), strict=False):
            assert (ours is theirs) or np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "changed", [{}, {"routes": True}, {"conditional": True}, {"routes": True, "conditional": True}]
)
@pytest.mark.parametrize("slots", [0, 7, 30])
def test_it_may_ask_for_all_that_nodes_may_ask_for(changed: dict[str, bool], slots: int, tmp_path: Path) -> None:
    policy = PpoPolicy(drawn_checkpoint(STAR, "shared", tmp_path, **changed))
    session, rule = Session(STAR, forecaster="moving-average", **changed), LocalReactive()
    session.begin(EpisodeSeeds(TOPOLOGY, 3))
    for slot in range(slots):
        session.step(rule.act(*observed(slots=slot)).action)
    seen, masks = observed(slots=slots)
    assert np.array_equal(policy.actor.worded(seen, masks), session.masks())


def test_a_route_and_a_condition_are_asked_for_in_so_many_words(tmp_path: Path) -> None:
    scenario = scenarios.get("mesh20-v0", slots=40)
    policy = PpoPolicy(drawn_checkpoint(scenario, "shared", tmp_path, routes=True, conditional=True))
    (seen, masks), actor = observed(scenario), policy.actor
    number = actor.asked(seen, masks).best(len(masks))
    decision, asking = policy.act(seen, masks), np.flatnonzero(number)
    place, quality, route, conditional = actor.layout.code.decode(number[asking])
    assert np.array_equal(decision.action > 0, number > 0)
    assert np.array_equal(decision.action[asking], ActionCode.of(scenario).encode(place, quality))
    assert np.array_equal(decision.route[asking], route)
    assert np.array_equal(decision.condition[asking], Condition.FREE * conditional)
    assert len(set(route.tolist())) > 1
    assert conditional.any()


def test_a_policy_is_told_the_contention_penalty_that_it_is_played_at(tmp_path: Path) -> None:
    made = learner(STAR, "shared", tmp_path, penalties=(0.01, 1.0))
    draw_weights(made, spread=1.0)
    actor, (seen, masks), chosen = PpoPolicy(checkpoint_of(made)).actor, observed(), []
    for penalty in (0.001, 0.01, 0.1, 1.0, 5.0):
        at_it = FeatureTable(STAR.override(contention_penalty=penalty)).read(seen.matrix)
        chosen.append(actor.asked(at_it, masks).logits)
    assert np.array_equal(chosen[0], chosen[1])  # beyond what it has learned from it plays as at the nearest
    assert np.array_equal(chosen[3], chosen[4])
    assert not np.allclose(chosen[1], chosen[2])
    assert not np.allclose(chosen[2], chosen[3])
    np.testing.assert_allclose(told((0.01, 1.0), np.array([0.01, 0.1, 1.0]))[:, 0], [0.0, 0.5, 1.0], atol=1e-6)


def test_training_starts_over_the_route_that_is_most_likely_to_finish_in_time(tmp_path: Path) -> None:
    scenario = scenarios.get("mesh20-v0", slots=60)
    made = learner(scenario, "shared", tmp_path, **WHOLE)
    for weight in made.model.policy.mlp_extractor.actor.parameters():
        weight.data *= 0.0
    policy = PpoPolicy(checkpoint_of(made))
    session, named = Session(scenario), 0
    session.begin(EpisodeSeeds(TOPOLOGY, 0))
    policy.reset(scenario, session.network, 0)
    for _ in range(scenario.episode.slots):
        seen, masks = session.observer.table.read(session.observations()), session.masks()
        decision = policy.act(seen, masks)
        assert np.array_equal(decision.action, LocalReactive().act(seen, masks).action)
        serving = np.flatnonzero(decision.action)
        place, _, _, _ = ActionCode.of(scenario).decode(decision.action[serving])
        chance, route = seen.useful_in_time[serving, place], decision.route[serving]
        np.testing.assert_allclose(chance[np.arange(len(route)), route], chance.max(axis=1), atol=1e-6)
        assert not decision.condition.any()
        named += int((route > 0).sum())
        session.step(*decision)
    assert named > 0


@pytest.mark.parametrize("routes", [False, True])
def test_training_may_start_at_maxweight(routes: bool, tmp_path: Path) -> None:
    scenario = scenarios.get("mesh20-v0", slots=60, qualities=1, request_rate=8.0)
    made = learner(scenario, "shared", tmp_path, forecaster="moving-average", warm_start="maxweight", routes=routes)
    for weight in made.model.policy.mlp_extractor.actor.parameters():
        weight.data *= 0.0
    rule = MaxWeight(0.15, 0.3, 8, 0.25, routes="ranked" if routes else "auto")
    session, asked = Session(scenario, forecaster="moving-average"), 0
    session.begin(EpisodeSeeds(TOPOLOGY, 0))
    policy = PpoPolicy(checkpoint_of(made))
    for each in (policy, rule):
        each.reset(scenario, session.network, 0)
    for _ in range(scenario.episode.slots):
        look = session.look()
        theirs = rule.act(session.observer.table.read(look.observations[0][:]), look.masks[0])
        ours = policy.act(session.observer.table.read(look.observations[0]), look.masks[0])
        assert np.array_equal(ours.action, theirs.action)
        if routes:
            assert np.array_equal(ours.route[ours.action > 0], theirs.route[ours.action > 0])
        asked += int((ours.action > 0).sum())
        session.step(*theirs)
    assert asked > 0


@MODES
@pytest.mark.parametrize("name", ["star8-v0", "mesh20-v0"])
def test_training_starts_at_the_reactive_rule(mode: str, name: str, tmp_path: Path) -> None:
    scenario = scenarios.get(name, slots=60)
    made = learner(scenario, mode, tmp_path)
    for weight in made.model.policy.mlp_extractor.actor.parameters():
        weight.data *= 0.0
    checkpoint = checkpoint_of(made)
    for seed in range(3):
        seeds = EpisodeSeeds(TOPOLOGY, seed)
        ours = run_episode(scenario, PpoPolicy(checkpoint), seeds)[0]
        assert ours.as_dict() == run_episode(scenario, LocalReactive(), seeds)[0].as_dict()
        assert ours.submitted > 0


def test_weights_at_the_start_leave_the_rule_as_it_is_and_a_waiting_start_waits(tmp_path: Path) -> None:
    seen, masks = observed()
    action = LocalReactive().act(seen, masks).action
    assert action.any()
    assert np.array_equal(PpoPolicy(checkpoint_of(learner(STAR, "shared", tmp_path))).act(seen, masks).action, action)
    waiting = PpoPolicy(checkpoint_of(learner(STAR, "shared", tmp_path, warm_start="waiting")))
    assert not waiting.act(seen, masks).action.any()
    assert not prior("none", seen, CODE).any()


def test_a_shared_policy_plays_on_networks_of_any_size(tmp_path: Path) -> None:
    # D = 8 peers per node on 20 nodes; then 8 places, one of them empty, on 8 nodes; then fewer peers, and more.
    trained_on = scenarios.get("mesh20-v0", slots=40)
    policy = PpoPolicy(drawn_checkpoint(trained_on, "shared", tmp_path))
    for other in (
        trained_on,
        scenarios.get("star8-v0", slots=40, peers=8),
        scenarios.get("star8-v0", slots=40),
        scenarios.get("mesh20-v0", slots=40, peers=11),
        scenarios.get("mesh20-v0", nodes=31, slots=9),
    ):
        metrics, session = run_episode(other, policy, EpisodeSeeds(2000, 1))
        assert metrics.submitted > 0
        assert metrics.illegal == 0
    assert session.network.num_nodes == 31


def test_peers_go_through_the_same_network_wherever_they_stand(tmp_path: Path) -> None:
    policy = PpoPolicy(drawn_checkpoint(STAR, "shared", tmp_path))
    seen, _ = observed()
    table, peers, qualities = seen.table, STAR.demand.peers, STAR.control.qualities
    order = np.array([2, 0, 3, 1])
    blocks = seen.matrix[:, OWN:].reshape(-1, peers, table.peer_width)
    moved = np.concatenate([seen.matrix[:, :OWN], blocks[:, order].reshape(len(blocks), -1)], axis=1)
    before, after = logits_of(policy, seen), logits_of(policy, Observations(table, moved))
    expected = before[:, 1:].reshape(-1, peers, qualities)[:, order].reshape(len(before), -1)
    np.testing.assert_allclose(after[:, 1:], expected, atol=1e-5)
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-5)
    assert np.ptp(before[:, 1:], axis=1).min() > 0.1  # they do differ


@MODES
def test_a_node_decides_by_its_own_row_alone(mode: str, tmp_path: Path) -> None:
    policy = PpoPolicy(drawn_checkpoint(STAR, mode, tmp_path))
    seen, _ = observed()
    changed = np.random.default_rng(0).random(seen.matrix.shape).astype(np.float32)
    changed[3] = seen.matrix[3]
    alone = logits_of(policy, Observations(seen.table, changed))
    np.testing.assert_allclose(alone[3], logits_of(policy, seen)[3], atol=1e-5)
    assert not np.allclose(alone, logits_of(policy, seen), atol=1e-2)


@pytest.mark.parametrize(
    ("mode", "encoder"),
    [("shared", "per-peer"), ("shared", "plain"), ("independent", "per-peer"), ("independent", "plain")],
)
def test_hidden_blocks_reach_no_network_and_the_prior_still_reads_them(mode: str, encoder: str, tmp_path: Path) -> None:
    made = learner(STAR, mode, tmp_path, encoder=encoder, hidden_blocks=("demand", "forecast"))
    draw_weights(made)
    networks, (seen, _) = made.model.policy.mlp_extractor, observed()
    other = seen.matrix.copy()
    blocks = other[:, OWN:].reshape(len(other), STAR.demand.peers, -1)
    for name, columns in (("pending", 3), ("slack", 1), ("forecast", 8)):
        start = seen.table.offset[name]
        assert blocks[:, :, start : start + columns].any()
        blocks[:, :, start : start + columns] = 0.0
    rows, hidden = torch.from_numpy(seen.matrix), torch.from_numpy(other)
    with torch.no_grad():
        assert torch.equal(networks.forward_critic(rows), networks.forward_critic(hidden))
        learned = [networks.forward_actor(matrix) - networks.prior(matrix) for matrix in (rows, hidden)]
        assert torch.allclose(*learned, atol=1e-5)
        assert not torch.equal(networks.prior(rows), networks.prior(hidden))
        blocks[:, :, seen.table.offset["hops"]] += 0.5
        assert not torch.equal(networks.forward_critic(rows), networks.forward_critic(torch.from_numpy(other)))


def test_only_legal_actions_are_taken(tmp_path: Path) -> None:
    policy = PpoPolicy(drawn_checkpoint(STAR, "shared", tmp_path))
    seen, masks = observed()
    best = policy.act(seen, np.ones_like(masks)).action
    nodes = np.arange(len(best))
    forbidding = np.ones_like(masks)
    forbidding[nodes, best] = 0
    second = policy.act(seen, forbidding).action
    ranked = np.argsort(-logits_of(policy, seen), axis=1)
    assert np.array_equal(best, ranked[:, 0])
    assert np.array_equal(second, ranked[:, 1])


def test_it_is_found_by_name_and_brings_its_forecaster(tmp_path: Path) -> None:
    checkpoint = drawn_checkpoint(STAR, "shared", tmp_path, forecaster="moving-average")
    checkpoint.save(tmp_path / "checkpoint.npz")
    assert available()["ppo"].load() is PpoPolicy
    for path in (tmp_path, tmp_path / "checkpoint.npz"):
        policy = get_policy(f"ppo:{path}")
        assert isinstance(policy, LocalPolicy)
        assert policy.forecaster == "moving-average"
    read, kept = load(tmp_path, training=True), checkpoint
    assert read.about == kept.about | {"rules": RULES_VERSION}
    assert set(read.arrays) == set(kept.arrays)
    assert all(np.array_equal(array, kept.arrays[name]) for name, array in read.arrays.items())


def test_a_forecaster_in_the_same_folder_moves_with_the_checkpoint(tmp_path: Path) -> None:
    there, here = f"gru:{tmp_path / 'there' / 'gru.npz'}", tmp_path / "here"
    checkpoint = drawn_checkpoint(STAR, "shared", tmp_path)
    settings = checkpoint.about["settings"] | {"forecaster": there}
    spoilt(checkpoint, settings=settings).save(here / "checkpoint.npz")
    assert PpoPolicy(here).forecaster == there
    (here / "gru.npz").touch()
    assert PpoPolicy(here).forecaster == PpoPolicy(here / "checkpoint.npz").forecaster == f"gru:{here / 'gru.npz'}"


def test_an_independent_policy_plays_on_its_own_topology_only(tmp_path: Path) -> None:
    scenario = scenarios.get("mesh20-v0", slots=20)
    policy = PpoPolicy(drawn_checkpoint(scenario, "independent", tmp_path))
    run_episode(scenario, policy, EpisodeSeeds(TOPOLOGY, 1_000_000))
    run_episode(scenario.override(request_rate=1.0), policy, EpisodeSeeds(TOPOLOGY, 1))
    with pytest.raises(PolicyError, match=r"one topology of mesh20-v0\S* \(topology seed 5, 20 nodes\)"):
        run_episode(scenario, policy, EpisodeSeeds(TOPOLOGY + 1, 1))
    with pytest.raises(PolicyError, match="not for this one of 31"):
        run_episode(scenario.override(nodes=31), policy, EpisodeSeeds(TOPOLOGY, 1))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"peers": 3}, "the PPO checkpoint is for 4 peers per node; star8-v0+slots=40+peers=3 has 3"),
        ({"qualities": 2}, "is for 3 qualities; star8-v0+slots=40+qualities=2 has 2"),
        ({"forecast_horizon": 4}, "is for 8 forecast slots; star8-v0+slots=40+forecast_horizon=4 has 4"),
        (
            {"fidelity_classes": (0.75,), "class_weights": (1.0,), "deadline": 1.0},
            "is for 3 fidelity classes; star8-v0",
        ),
    ],
)
def test_a_scenario_of_another_shape_is_refused_in_one_line(changed: Any, line: str, tmp_path: Path) -> None:
    policy = PpoPolicy(drawn_checkpoint(STAR, "shared", tmp_path, encoder="plain"))
    other = STAR.override(**changed)
    with pytest.raises(PolicyError, match=line.replace("+", r"\+")):
        policy.reset(other, build_network(other, 0), 0)


def test_a_checkpoint_of_other_features_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = PpoPolicy(drawn_checkpoint(STAR, "shared", tmp_path))
    ours = interface(STAR)
    monkeypatch.setattr(checkpoints, "interface", lambda *_: ours | {"features": ["colour", *ours["features"][1:]]})
    with pytest.raises(PolicyError, match="trained on other features"):
        policy.reset(STAR, build_network(STAR, 0), 0)


@pytest.mark.parametrize("mode", ["shared", "independent"])
@pytest.mark.parametrize("encoder", ["per-peer", "plain"])
def test_the_loader_knows_the_shape_of_every_weight(mode: str, encoder: str, tmp_path: Path) -> None:
    made = learner(STAR, mode, tmp_path, encoder=encoder)
    nodes = made.nodes if mode == "independent" else 1
    expected = {name: tuple(weight.shape) for name, weight in made.model.policy.mlp_extractor.named_parameters()}
    chosen = made.settings.hyperparameters
    assert shapes(encoder, layout_of(FeatureTable(STAR), chosen), 8, nodes) == expected


def spoilt(checkpoint: Checkpoint, **about: Any) -> Checkpoint:
    return Checkpoint(checkpoint.about | about, checkpoint.arrays)


def relearnt(checkpoint: Checkpoint, **changed: Any) -> Checkpoint:
    settings = checkpoint.about["settings"]
    return spoilt(checkpoint, settings=settings | {"hyperparameters": settings["hyperparameters"] | changed})


def test_files_that_are_no_checkpoints_are_refused_in_one_line(tmp_path: Path) -> None:
    good = drawn_checkpoint(STAR, "shared", tmp_path)
    path = tmp_path / "checkpoint.npz"
    good.save(path)
    whole = path.read_bytes()
    name = "weights.actor.hidden.weight"
    files: dict[str, Checkpoint | bytes] = {
        "not a zip file": whole[: len(whole) // 2],
        "Bad CRC-32|zlib|magic": whole[:3000] + bytes(2000) + whole[5000:],
        "cannot be used": b"",
        "mode is 'teamwork'; expected one of shared, independent, central": spoilt(good, mode="teamwork"),
        "warm_start is 'hot'": relearnt(good, warm_start="hot"),
        "unknown hyperparameter 'colour'": relearnt(good, colour="red"),
        "topology is None in mode independent": spoilt(good, mode="independent"),
        "format 'other' instead of 'dpem-ppo-3'": spoilt(good, format="other"),
        f"made under rules v0, and rules are {RULES_VERSION} now; train it again": spoilt(good, rules="v0"),
        "'about' is missing|about is not a file": b"npz",
        "hidden.weight has shape \\(2, 2\\)": Checkpoint(
            good.about, good.arrays | {name: np.zeros((2, 2), dtype=np.float32)}
        ),
        "NaN": Checkpoint(good.about, good.arrays | {name: good.arrays[name] * np.float32(np.nan)}),
        "actor.hidden.weight' is missing": Checkpoint(
            good.about, {key: array for key, array in good.arrays.items() if key != name}
        ),
        "about.nodes: is missing": Checkpoint({k: v for k, v in good.about.items() if k != "nodes"}, good.arrays),
    }
    for message, content in files.items():
        if content == b"npz":
            np.savez(path, other=np.zeros(1))
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path)
        with pytest.raises(PolicyError, match=message) as caught:
            PpoPolicy(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(PolicyError, match=r"cannot be used: .*No such file"):
        PpoPolicy(tmp_path / "missing.npz")


def test_playing_loads_no_torch(tmp_path: Path) -> None:
    drawn_checkpoint(STAR, "shared", tmp_path).save(tmp_path / "checkpoint.npz")
    code = (
        "import sys; sys.modules['torch'] = None; from dpem_agents.ppo.policy import PpoPolicy\n"
        f"policy = PpoPolicy({str(tmp_path)!r}); print(policy.actor.checkpoint.about['mode'])"
    )
    played = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert played.stdout.strip() == "shared"


def test_the_prior_reads_counts_as_the_rule_does() -> None:
    table = FeatureTable(STAR)
    row = np.zeros((1, table.width), dtype=np.float32)
    block = OWN + table.peer_width  # of the second peer
    row[0, block + table.offset["pending"] + 1] = 2 / 8
    row[0, block + table.offset["slack"]] = 0.5
    row[0, block + table.offset["open_allocations"]] = 1 / 8
    row[0, block + table.offset["min_quality"] + 1] = 2 / 3
    logits = prior("reactive", table.read(row), CODE)[0]
    assert logits[0] == 0.0
    assert np.flatnonzero(logits > 0).tolist() == [1 + 1 * 3 + (2 - 1)]
    assert logits[5] == pytest.approx(3.0 + 1.0 * 0.5)
    assert set(np.delete(logits, [0, 5])) == {-6.0}
    row[0, block + table.offset["open_allocations"]] = 2 / 8
    assert not (prior("reactive", table.read(row), CODE) > 0).any()
