"""What a policy returns, in the types that a simulator takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.session import as_actions
from dpem_env.policies import Decision
from dpem_env.support.errors import ActionError, PolicyError


def require_decision(given: Any, nodes: int, what: str = "the policy") -> Decision:
    """A policy's decision in the types that a simulator takes; PolicyError unless it is one for so many nodes."""
    if not isinstance(given, Decision):
        raise PolicyError(f"act() of {what} returned {type(given).__name__}; expected Decision(actions)")
    if given.action is None:
        raise PolicyError(f"{what} decided no actions; expected {nodes} integers, 0 waits")
    parts = {"action": "actions", "route": "routes", "priority": "priorities", "condition": "conditions"}
    whole = {
        field: _whole(f"{name} of {what}", part, (nodes,))
        for field, name in parts.items()
        if (part := getattr(given, field)) is not None
    }
    if given.fallback is not None:
        places = np.shape(given.fallback)[1:2] or (1,)
        whole["fallback"] = _whole(f"fallbacks of {what}", given.fallback, (nodes, *places))
    return given._replace(**whole)


def _whole(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    try:
        return as_actions(name, given, shape)
    except ActionError as error:
        raise PolicyError(str(error)) from None
