"""What this package adds to the ``dpem`` command. Light to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from dpem_env.support.options import Changes, Count, Data, Folder, Network, Scenario, Split, overrides, told


def check(
    scenario: Scenario,
    /,
    *,
    changes: Changes = (),
    data: Data = None,
    topology: Network = None,
    split: Split = "evaluation",
    episodes: Annotated[Count, told("short episodes of a reactive rule to estimate delivery from")] = 3,
    out: Annotated[Folder, told("folder for the map and the table of pairs; made if missing")] = Path("check"),
) -> int:
    """Look at a scenario before anything is run on it.

    Draw a network of it and say which nodes can be partners, which cannot and why, how long pairs take to build, how
    much is asked for against what could be served, and what a simple rule delivers. Writes map.png and pairs.csv, with
    a line for every pair of nodes, to --out.
    """
    from dpem_baselines.survey import survey
    from dpem_env import scenarios
    from dpem_env.support.files import result_folder

    chosen = scenarios.get(scenario, **{"data_dir": data} | overrides(changes))
    if topology is not None:
        chosen = chosen.on_topology(topology, split)
    with result_folder(out):
        for line in survey(chosen, split, episodes, out):
            print(line)
    return 0
