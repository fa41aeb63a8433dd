"""Scenarios: the schema, the shipped ones, and the data that some of them read.

``get("mesh100-v0")`` is a shipped scenario, ``get("mine.toml")`` one of a file. Installed packages announce others.
"""

from dpem_env.scenarios.schema import SPLITS, Scenario, Split
from dpem_env.scenarios.shipped import OFFERED_LOADS, SCENARIOS, available, from_toml, get, load

__all__ = ["OFFERED_LOADS", "SCENARIOS", "SPLITS", "Scenario", "Split", "available", "from_toml", "get", "load"]
