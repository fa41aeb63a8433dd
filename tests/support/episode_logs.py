"""Making and tampering with episode logs, for the tests of the log and of its replay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpem_env.envs.metrics import EpisodeMetrics
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.logs.format import DIGEST, HEADER, digest_of
from dpem_env.logs.recorder import EpisodeRecorder
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario

Header = dict[str, Any]
Row = dict[str, Any]
Change = Callable[[Header, list[Row]], object]


def record_episode(
    path: Path, scenario: Scenario, policy: str = "local-reactive", **how: Any
) -> tuple[EpisodeMetrics, Session]:
    """Play the first evaluation episode, log it to `path`."""
    recorder = EpisodeRecorder()
    seeds = episode_seeds(scenario, "evaluation", 0)
    played = run_episode(scenario, get_policy(policy), seeds, recorder=recorder, label=policy, **how)
    recorder.save(path)
    return played


def rewrite(source: Path, target: Path, change: Change, sealed: bool = True) -> Path:
    """A copy of a log with header and rows changed in place by `change`: still valid Parquet of the same types.

    Unless `sealed`, the digest stays that of the source.
    """
    table = pq.read_table(source)
    header, rows = json.loads(table.schema.metadata[HEADER]), table.to_pylist()
    change(header, rows)
    copy, text = pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()), json.dumps(header).encode()
    digest = digest_of(text, copy) if sealed else table.schema.metadata[DIGEST]
    pq.write_table(copy.replace_schema_metadata({HEADER: text, DIGEST: digest}), target)
    return target
