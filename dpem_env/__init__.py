"""dpem_env: multi-agent reinforcement learning for entanglement allocation in quantum networks.

    import dpem_env
    env = dpem_env.parallel_env("mesh100-v0")           # PettingZoo: one agent per node
    env = dpem_env.env("mesh100-v0")                    # the same, agents acting in turn (AEC)
    env = dpem_env.CentralEnv("mesh100-v0", delay=0.5)  # Gymnasium: one controller, half a second late
    envs = dpem_env.make_vec("mesh100-v0", num_envs=64)  # Gymnasium: all agents of 64 networks, as arrays

Importing registers every scenario with PettingZoo (``pettingzoo.make("parallel", "dpem/mesh100-v0")``, or ``"aec"``,
where this registry exists) and its central view with Gymnasium (``gymnasium.make("dpem/mesh100-central-v0")``).
"""

from __future__ import annotations

from dpem_env.support.interrupts import attend

attend()  # if this is the command: before anything that takes time to load

# ruff: noqa: E402
import gymnasium
import pettingzoo

from dpem_env.envs.central import CentralEnv
from dpem_env.envs.parallel import EntanglementEnv, env, parallel_env, raw_env
from dpem_env.envs.vector import EntanglementVectorEnv, make_vec
from dpem_env.scenarios import SCENARIOS, Scenario
from dpem_env.support.errors import DpemError

__version__ = "0.0.1"

__all__ = [
    "SCENARIOS",
    "CentralEnv",
    "DpemError",
    "EntanglementEnv",
    "EntanglementVectorEnv",
    "Scenario",
    "__version__",
    "env",
    "make_vec",
    "parallel_env",
    "raw_env",
]


def _register() -> None:
    for name in SCENARIOS:
        stem, version = name.rsplit("-", 1)
        central = f"dpem/{stem}-central-{version}"
        if central not in gymnasium.registry:
            gymnasium.register(central, entry_point="dpem_env.envs.central:CentralEnv", kwargs={"scenario": name})
        if hasattr(pettingzoo, "register") and f"dpem/{name}" not in pettingzoo.parallel_registry:
            for kind, constructor in (("parallel", "parallel_env"), ("aec", "env")):
                entry_point = f"dpem_env.envs.parallel:{constructor}"
                pettingzoo.register(kind, f"dpem/{name}", entry_point=entry_point, kwargs={"scenario": name})


_register()
