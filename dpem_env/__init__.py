"""dpem_env: multi-agent reinforcement learning for entanglement allocation in quantum networks.

    import dpem_env
    env = dpem_env.parallel_env("mesh100-v0")           # PettingZoo: one agent per node
    env = dpem_env.env("mesh100-v0")                    # the same, agents acting in turn (AEC)
    env = dpem_env.CentralEnv("mesh100-v0", delay=0.5)  # Gymnasium: one controller, half a second late
    envs = dpem_env.make_vec("mesh100-v0", num_envs=64)  # Gymnasium: all agents of 64 networks, as arrays
    found = dpem_env.evaluate({"mine": policy, "rule": "local-reactive"}, "mesh100-v0")  # paired, with intervals

Importing registers every scenario, shipped or announced by a package, with PettingZoo
(``pettingzoo.make("parallel", "dpem/mesh100-v0")``, or ``"aec"``, where this registry exists) and its central view with
Gymnasium (``gymnasium.make("dpem/mesh100-central-v0")``).
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpem_env.support.interrupts import attend

_IS_COMMAND = attend()  # before anything that takes time to load

if TYPE_CHECKING:
    from dpem_env.envs.central import CentralEnv
    from dpem_env.envs.parallel import EntanglementEnv, env, parallel_env, raw_env
    from dpem_env.envs.vector import EntanglementVectorEnv, make_vec
    from dpem_env.experiments.in_python import evaluate
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
    "evaluate",
    "make_vec",
    "parallel_env",
    "raw_env",
]

_ROOMS = {
    "envs.central": ("CentralEnv",),
    "envs.parallel": ("EntanglementEnv", "env", "parallel_env", "raw_env"),
    "envs.vector": ("EntanglementVectorEnv", "make_vec"),
    "experiments.in_python": ("evaluate",),
    "scenarios": ("SCENARIOS", "Scenario"),
    "support.errors": ("DpemError",),
}


def __getattr__(name: str) -> Any:
    """What the package offers is loaded when it is asked for: the command asks for little."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _register() -> None:
    import gymnasium
    import pettingzoo

    from dpem_env.scenarios import SCENARIOS, available

    for name in [*SCENARIOS, *filter(re.compile(r"[\w.-]+-v\d+").fullmatch, available())]:
        stem, version = name.rsplit("-", 1)
        central = f"dpem/{stem}-central-{version}"
        if central not in gymnasium.registry:
            gymnasium.register(central, entry_point="dpem_env.envs.central:CentralEnv", kwargs={"scenario": name})
        if hasattr(pettingzoo, "register") and f"dpem/{name}" not in pettingzoo.parallel_registry:
            for kind, constructor in (("parallel", "parallel_env"), ("aec", "env")):
                entry_point = f"dpem_env.envs.parallel:{constructor}"
                pettingzoo.register(kind, f"dpem/{name}", entry_point=entry_point, kwargs={"scenario": name})


if not _IS_COMMAND:  # which makes no environment by its registered name, and should not take long to say so
    _register()
