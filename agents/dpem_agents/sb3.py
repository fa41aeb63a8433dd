"""Models of Stable-Baselines3 and sb3-contrib as policies that all nodes follow.

A model is a zip of weights and of pickled Python objects. Pickles run code when they are opened, whoever opens them:
such a file is opened only for those who say that they trust it.
"""

from __future__ import annotations

import os
import shlex
import warnings
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_agents.libraries import agents_extra, one_thread
from dpem_env.network.network import Network
from dpem_env.observations.features import FeatureTable, Observations
from dpem_env.policies import ALLOCATIONS, SWAPS, Decision, LocalPolicy
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import code_for
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import reading, require_regular


class Sb3Policy(LocalPolicy):
    """Every node takes the action that a model holds best, without drawing: an illegal one is a wait, as in training.

    The model was trained on single nodes, as `dpem_env.make_vec` or `dpem_agents.ppo.vec_env.NodeVecEnv` shows them:
    flat observations, discrete actions, one policy for all. MaskablePPO is given the masks; of a recurrent model every
    node has a state of its own. Observations are filled by no forecaster, unless one is named, as in
    ``model.zip+oracle``.

    path: the zip that ``model.save`` has written. trusted: whether its pickled objects may be loaded.
    """

    decides = (ALLOCATIONS, SWAPS)

    def __init__(self, path: str | os.PathLike[str], trusted: bool = False) -> None:
        if not trusted:
            name = os.fspath(path)
            raise PolicyError(
                f"{name!r} holds pickled objects, which run code when they are opened: if you trust who made it, "
                f"add --trust {shlex.quote(name)} (in Python trusted=True)"
            )
        self.sources = [path]
        with agents_extra(), reading("model", path, PolicyError), warnings.catch_warnings(action="ignore"):
            require_regular(path)
            self._model = _model(os.fspath(path))
        self._masked = "action_masks" in signature(self._model.predict).parameters

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Check that the model is one for this scenario, and forget what was."""
        wanted = (FeatureTable(scenario).width,), code_for(scenario).num_actions
        shape, actions = self._model.observation_space.shape, getattr(self._model.action_space, "n", None)
        if (shape, actions) != wanted:
            raise PolicyError(
                f"the model takes observations of shape {shape} and has {actions or 'no discrete'} actions; "
                f"{scenario.name} has {wanted[0]} and {wanted[1]}: train it there"
            )
        self._state: Any = None
        self._begins = np.ones(network.num_nodes, dtype=np.bool_)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """The model's action of each node."""
        more = {"action_masks": masks == 1} if self._masked else {}
        with one_thread():
            action, self._state = self._model.predict(
                observations.matrix, state=self._state, episode_start=self._begins, deterministic=True, **more
            )
        self._begins = np.zeros_like(self._begins)
        legal = masks[np.arange(len(masks)), action] == 1
        return Decision(np.where(legal, action, 0))


def _model(path: str) -> Any:
    """The policy of a model; ValueError for a zip of something else."""
    from stable_baselines3.common.save_util import load_from_zip_file

    data, weights, _ = load_from_zip_file(path, device="cpu")
    if not data or "policy_class" not in data or "policy" not in weights:
        raise ValueError("it is no model that Stable-Baselines3 has saved")
    kwargs = {name: value for name, value in (data.get("policy_kwargs") or {}).items() if name != "device"}
    policy = data["policy_class"](data["observation_space"], data["action_space"], lambda _: 0.0, **kwargs)
    policy.load_state_dict(weights["policy"])
    policy.set_training_mode(False)
    return policy
