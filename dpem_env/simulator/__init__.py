"""The simulator: one batched core that every façade, policy and replay drives."""

from dpem_env.simulator.actions import Condition
from dpem_env.simulator.simulator import RULES_VERSION, Call, Episode, Simulator, require_rules
from dpem_env.simulator.state import WHERE_PAIRS_GO, Status, Tally, Verdict

__all__ = [
    "RULES_VERSION",
    "WHERE_PAIRS_GO",
    "Call",
    "Condition",
    "Episode",
    "Simulator",
    "Status",
    "Tally",
    "Verdict",
    "require_rules",
]
