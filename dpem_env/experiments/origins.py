"""What an episode follows from besides its scenario, seeds and the code of this package, by content and with names.

The code of packages is known by a stamp (`dpem_env.support.provenance`), data by a fingerprint. A policy, forecaster or
bound is known by the package that defines it, and by the files it reads. Which these are it says as `sources`, a list
of paths; where it says nothing, it is the argument in its name, if that is a path. A policy from a user's own file is
known by what this file says, and those beside it that it imports.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from dpem_env import policies
from dpem_env.demand import forecast
from dpem_env.demand.forecast import get_forecaster
from dpem_env.experiments.bounds import get_bound
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.network.topology import topohub_file
from dpem_env.policies import ArrayPolicy, Centralized
from dpem_env.policy_names import PolicyName
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.data import data_needed, source_file
from dpem_env.scenarios.own_files import paths
from dpem_env.scenarios.schema import TopohubNetwork
from dpem_env.support.errors import DpemError
from dpem_env.support.own_code import PREFIX, Place
from dpem_env.support.plugins import PluginName
from dpem_env.support.provenance import LIBRARIES, code_stamp, package_stamp, path_fingerprint

Sources = dict[str, str]
SOLVERS = ("networkx", "scipy")  # that decide networks and what linear programs find
ABSENT = "absent"


class Origins:
    """Looks at every source once: what it says is as of the first look."""

    def __init__(self) -> None:
        self._seen: dict[Any, Sources] = {}

    def of_scenario(self, scenario: Scenario) -> Sources:
        """Versions of Python and libraries, and the data that the scenario reads."""
        return self._once(scenario, lambda: _of_scenario(scenario))

    def of_policy(self, policy: PolicySpec) -> Sources:
        """Code and files of a policy and of the forecaster it is played with."""
        return self._once(policy, lambda: _of_policy(policy))

    def of_forecaster(self, name: str) -> Sources:
        """Code and files of a forecaster."""
        return self._once(("forecaster", name), lambda: _of_forecaster(name))

    def of_bound(self, name: str) -> Sources:
        """Code of a bound."""
        return self._once(("bound", name), lambda: _code([get_bound(name).__module__]))

    def _once(self, key: Any, look: Callable[[], Sources]) -> Sources:
        if key not in self._seen:
            self._seen[key] = look()
        return self._seen[key]


@contextmanager
def unchanged(look: Callable[[Origins], Iterable[Sources]]) -> Iterator[None]:
    """DpemError at the end of the block if the sources that `look` gives are no longer those of its beginning."""
    before = list(look(Origins()))
    yield
    changes = [name for old, new in zip(before, look(Origins()), strict=True) for name in changed(old, new)]
    if changes:
        raise DpemError(f"{', '.join(dict.fromkeys(changes))} changed while it was used: run it again")


def changed(before: Sources, now: Sources) -> list[str]:
    """Names of the sources that are no longer what they were."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _of_scenario(scenario: Scenario) -> Sources:
    found = {"the version of Python": platform.python_version()}
    found |= {f"the version of {name}": version(name) for name in (*LIBRARIES, *SOLVERS)}
    if isinstance(scenario.network, TopohubNetwork):
        key = scenario.network.topology
        found[f"the topology {key}"] = path_fingerprint(topohub_file(key)) or ABSENT
    found |= _files(path for section in (scenario.network, scenario.demand) for path in paths(section))
    for name in data_needed(scenario):
        source = source_file(name, scenario.data_dir)
        found[f"the {name} data"] = (source and path_fingerprint(source)) or ABSENT
    return found


def _of_policy(policy: PolicySpec) -> Sources:
    made = policy.make()
    player = made.rule if isinstance(made, Centralized) else made
    written = player.function if isinstance(player, ArrayPolicy) else player
    name = PolicyName.alone(policy.name)
    if policy.player is not None:
        found = _of_player(written, PluginName(""), "")
    elif name.place:
        found = _of_place(written, name.place)
    else:
        found = _of_player(player, name.plugin, policies.available()[name.plugin.kind].value)
    return found | _of_forecaster(made.forecaster if policy.forecaster is None else policy.forecaster)


def _of_forecaster(forecaster: Any) -> Sources:
    found = get_forecaster(forecaster)
    if found is None:
        return {}
    text = forecaster if isinstance(forecaster, str) else ""
    if place := Place.parse(text):
        return _of_place(found, place)
    name = forecast.announced_name(text)
    return _of_player(found, name, forecast.available().get(name.kind, ""))


def _of_place(player: object, place: Place) -> Sources:
    found = _of_player(player, PluginName(""), "" if place.is_file else place.module)
    return found | {f"the code in {file}": code_stamp(file) for file in place.sources()}


def _of_player(player: object, name: PluginName, announced: str) -> Sources:
    files = getattr(player, "sources", None)
    if files is None:
        files = [name.argument] if os.path.exists(name.argument or "") else []
    kinds = [player] if hasattr(player, "__qualname__") else type(player).__mro__
    return _code([announced.partition(":")[0], *(kind.__module__ for kind in kinds)]) | _files(files)


def _files(paths: Iterable[str | os.PathLike[str]]) -> Sources:
    return {f"the file {os.fspath(path)}": path_fingerprint(path) or ABSENT for path in paths}


def _code(modules: Iterable[str]) -> Sources:
    """Of the packages they belong to; Python's own and this one's are known otherwise."""
    packages = {module.partition(".")[0] for module in modules} - {"", "dpem_env"} - sys.stdlib_module_names
    return {f"the code of {name}": package_stamp(name) for name in sorted(packages) if not name.startswith(PREFIX)}
