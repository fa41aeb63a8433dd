"""What nodes share of their models: named parameters as one flat vector, in the order of their names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpem_env.support.errors import DpemError

Vector = NDArray[np.float64]

# Patterns of parameter names, in policies of Stable-Baselines3 and in those of dpem_agents.ppo.
POLICY_HEAD = (
    "action_net.*",
    "log_std",
    "mlp_extractor.actor.2.*",  # the last of a plain actor
    "mlp_extractor.actor.quality.*",  # these two: of the actor with an encoder per peer
    "mlp_extractor.actor.wait.*",
)
POLICY_BODY = (
    "features_extractor.*",  # the actor's, also where the critic reads it too
    "mlp_extractor.policy_net.*",
    "mlp_extractor.actor.0.*",  # these two: of a plain actor
    "mlp_extractor.actor.1.*",
    "mlp_extractor.actor.peer.*",  # these three: of the actor with an encoder per peer
    "mlp_extractor.actor.context.*",
    "mlp_extractor.actor.hidden.*",
)
WHOLE_POLICY = (*POLICY_HEAD, *POLICY_BODY)
# The same of forecasters, whose weights have these names in `dpem_agents.forecasters`.
FORECASTER_HEAD = ("output", "output_bias")
FORECASTER_BODY = ("input", "input_bias", "recurrent", "recurrent_bias")
WHOLE_FORECASTER = (*FORECASTER_HEAD, *FORECASTER_BODY)


@dataclass(frozen=True)
class SharedSpec:
    """Names and shapes of the shared parameters of one node, sorted by name.

    By default the last layer of the actor (`POLICY_HEAD`); `POLICY_BODY` are all layers but that, `WHOLE_POLICY` both.
    Noise grows with the number of shared weights, so fewer are better. Value networks, the optimiser's state and
    observation statistics stay with the node. `nodes` is the size of a stack of policies, None for a model of one.

    A model is one of Stable-Baselines3, or its parameters by name, as the training of forecasters has them. Of the
    former it reads `named_parameters()`, not `state_dict()`: that lists a shared extractor three times, and buffers.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    nodes: int | None = None

    @classmethod
    def from_sb3(cls, model: Any, include: Sequence[str] = POLICY_HEAD, exclude: Sequence[str] = ()) -> SharedSpec:
        """Of a model of Stable-Baselines3 with one policy; patterns are those of `fnmatch`, such as "action_net.*"."""
        if _is_stack(model):
            raise DpemError("this model is a stack of one policy per node: use SharedSpec.from_stack")
        chosen = _chosen(model, include, exclude)
        return cls(tuple(chosen), tuple(tuple(parameter.shape) for parameter in chosen.values()))

    @classmethod
    def from_stack(cls, model: Any, include: Sequence[str] = POLICY_HEAD, exclude: Sequence[str] = ()) -> SharedSpec:
        """Of a `DecisionPPO`, or of forecasters' parameters: those have the node as their first axis."""
        if not _is_stack(model):
            raise DpemError("this model is not a stack of one policy per node: use SharedSpec.from_sb3")
        chosen = _chosen(model, include, exclude)
        [nodes] = {len(parameter) for parameter in chosen.values()}
        return cls(tuple(chosen), tuple(tuple(parameter.shape[1:]) for parameter in chosen.values()), nodes)

    @property
    def size(self) -> int:
        """Length d of a node's vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    def get(self, model: Any) -> Vector:
        """(d,): what a model of one policy shares."""
        self._require_stack(False)
        vector: Vector = self._rows(model)[0]
        return vector

    def get_all(self, model: Any) -> Vector:
        """(N, d): what each node of a stack shares."""
        self._require_stack(True)
        return self._rows(model)

    def set(self, model: Any, vector: ArrayLike) -> None:
        """Give a model of one policy the shared weights (d,)."""
        self._require_stack(False)
        self._write(model, vector, ((self.size,),))

    def set_all(self, model: Any, vectors: ArrayLike) -> None:
        """Give each node of a stack its shared weights (N, d), or all the same (d,)."""
        self._require_stack(True)
        self._write(model, vectors, ((self.size,), (self.nodes or 1, self.size)))

    def _rows(self, model: Any) -> Vector:
        parameters = [parameter.detach().cpu().numpy() for parameter in self._parameters(model)]
        return np.concatenate([array.reshape(self.nodes or 1, -1) for array in parameters], axis=1, dtype=np.float64)

    def _write(self, model: Any, vectors: ArrayLike, allowed: Iterable[tuple[int, ...]]) -> None:
        given = np.array(vectors, dtype=np.float64)
        if given.shape not in allowed:
            raise DpemError(
                f"shared weights have shape {given.shape}; expected {' or '.join(str(shape) for shape in allowed)}"
            )
        rows = np.broadcast_to(given, (self.nodes or 1, self.size))
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        parts = np.split(rows, ends[:-1], axis=1)
        for parameter, part in zip(self._parameters(model), parts, strict=True):
            parameter.data.copy_(parameter.data.new_tensor(part.reshape(parameter.shape)))

    def _parameters(self, model: Any) -> list[Any]:
        """The model's parameters in the order of the spec; DpemError if it has others."""
        named = _named(model)
        for name, shape in zip(self.names, self.shapes, strict=True):
            expected = shape if self.nodes is None else (self.nodes, *shape)
            found = tuple(named[name].shape) if name in named else None
            if found != expected:
                raise DpemError(
                    f"parameter {name} has shape {found} in this model, but {expected} where the spec is from"
                )
        return [named[name] for name in self.names]

    def _require_stack(self, stack: bool) -> None:
        if stack != (self.nodes is not None):
            kind = "one policy: use get and set" if stack else "a stack: use get_all and set_all"
            raise DpemError(f"this spec is of a model of {kind}")


def _is_stack(model: Any) -> bool:
    """Whether it holds a policy or forecaster for each node; a stack of one is what all share."""
    return isinstance(model, Mapping) or getattr(model.policy, "nodes", 1) > 1


def _chosen(model: Any, include: Sequence[str], exclude: Sequence[str]) -> dict[str, Any]:
    """Learned parameters by name that `include` matches and `exclude` does not, sorted by name."""
    for field, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise DpemError(f"{field} is {patterns!r}; expected a list of patterns, such as ['{patterns}']")
    # What is not learned only costs noise; integers cannot be.
    learned = {name: parameter for name, parameter in _named(model).items() if parameter.requires_grad}
    names = [name for name in sorted(learned) if _matches(name, include) and not _matches(name, exclude)]
    idle = [pattern for pattern in exclude if not any(fnmatchcase(name, pattern) for name in learned)]
    if idle or not names:
        what = f"exclude pattern {idle[0]!r} matches none" if idle else "include and exclude leave none"
        raise DpemError(f"{what} of the learned parameters: {', '.join(sorted(learned))}")
    return {name: learned[name] for name in names}


def _named(model: Any) -> Mapping[str, Any]:
    """Parameters by name."""
    return model if isinstance(model, Mapping) else dict(model.policy.named_parameters())


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
