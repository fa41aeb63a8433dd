"""Work items, one episode of one policy each, and who plays them: this process, several, or a Ray cluster.

Whoever plays, an item has the same result. Results are yielded as they come, for the caller to save.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.experiments.bounds import get_bound
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.evaluation import Recorder, run_episode
from dpem_env.experiments.origins import Origins, Sources, changed
from dpem_env.logs.recorder import simulator_version
from dpem_env.scenarios import Scenario, Split
from dpem_env.support.console import uninterrupted
from dpem_env.support.errors import DpemError, DpemWarning
from dpem_env.support.files import file_name
from dpem_env.support.own_code import blamed
from dpem_env.support.provenance import stamp

FORMAT = "dpem-episode-2"
DEATHS = 3  # of workers in a row, with nothing finished between, that are put up with
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EpisodeItem(ABC):
    """Work on the `index`-th episode of a split."""

    scenario: Scenario
    split: Split
    index: int

    @property
    def file(self) -> Path:
        """Where its result belongs, below the folder of a benchmark."""
        return Path("episodes", file_name(self.scenario.name, *self.name), f"{self.split}-{self.index:05d}.json")

    @property
    def seeds(self) -> EpisodeSeeds:
        """What fixes the episode."""
        return episode_seeds(self.scenario, self.split, self.index)

    @property
    @abstractmethod
    def name(self) -> Sequence[str]:
        """What is done with the episode, in words for a file's name."""

    @abstractmethod
    def play(self) -> dict[str, Any]:
        """Do the work; returns what is found as plain data, "metrics" among it."""

    @abstractmethod
    def sources(self, origins: Origins) -> Sources:
        """What its result follows from besides, by content."""

    def identity(self) -> dict[str, Any]:
        """What its result says it is the result of."""
        return {
            "format": FORMAT,
            "version": simulator_version(),
            "stamp": stamp(),
            "scenario": self.scenario.name,
            "scenario_hash": self.scenario.hash,
            "split": self.split,
            "index": self.index,
            "seeds": self.seeds._asdict(),
        }


@dataclass(frozen=True)
class WorkItem(EpisodeItem):
    """An episode played by a policy."""

    policy: PolicySpec

    @property
    def name(self) -> Sequence[str]:
        """Policy, forecaster if another than its own, delay if central."""
        return self.policy.file_parts

    def sources(self, origins: Origins) -> Sources:
        """Those of scenario, policy and forecaster."""
        return origins.of_scenario(self.scenario) | origins.of_policy(self.policy)

    def identity(self) -> dict[str, Any]:
        """The episode and the policy."""
        return (
            super().identity()
            | {
                "policy": self.policy.called or self.policy.name,
                "delay": self.policy.delay,
                "forecaster": self.policy.forecaster,
                "options": dict(self.policy.options),
            }
            | ({} if self.policy.called is None else {"plays": self.policy.name})
        )

    def play(self, recorder: Recorder | None = None) -> dict[str, Any]:
        """The number of nodes and the metrics."""
        with blamed(f"policy {self.policy.label}") if self.policy.own else nullcontext():
            metrics, session = run_episode(
                self.scenario,
                self.policy.make(),
                self.seeds,
                delay=self.policy.delay or 0.0,
                forecaster=self.policy.forecaster,
                recorder=recorder,
                label=self.policy.label,
            )
        return {"nodes": session.network.num_nodes, "metrics": metrics.as_dict()}


@dataclass(frozen=True)
class BoundItem(EpisodeItem):
    """What nobody can exceed in an episode."""

    bound: str

    @property
    def name(self) -> Sequence[str]:
        """The bound's name, said to be one."""
        return ["bound", self.bound]

    def sources(self, origins: Origins) -> Sources:
        """Those of scenario and bound."""
        return origins.of_scenario(self.scenario) | origins.of_bound(self.bound)

    def identity(self) -> dict[str, Any]:
        """The episode and the bound."""
        return super().identity() | {"bound": self.bound}

    def play(self) -> dict[str, Any]:
        """The bound on the delivery rate."""
        return {"metrics": {"delivery_rate": get_bound(self.bound)(self.scenario, self.seeds)}}


def expected_of(item: EpisodeItem, origins: Origins) -> dict[str, Any]:
    """What a result must say that it is the result of, sources included."""
    return item.identity() | {"sources": item.sources(origins)}


def play(item: EpisodeItem) -> dict[str, Any]:
    """Do the work of an item; returns its identity and what was found, as plain data.

    Sources are looked at afterwards, here: whoever compares them with those of before knows that this is what was read.
    """
    found = item.play()
    return expected_of(item, Origins()) | found


def require_result_of(expected: dict[str, Any], result: dict[str, Any], origin: str) -> None:
    """DpemError unless a result is of what was asked for, made from the same sources."""
    for name, value in expected.items():
        given = result.get(name)
        if name == "sources" and given != value:
            changes = ", ".join(changed(value, given if isinstance(given, dict) else {}))
            raise DpemError(f"{origin} has a result with other sources than this run: {changes} changed meanwhile")
        if given != value:
            raise DpemError(f"{origin} has a result with {name} {given}, this run {value}")


def played(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int = 1, ray: str | None = None
) -> Generator[tuple[Item, Result]]:
    """Call `function` on every item: on a Ray cluster if an address is given, else on so many processes, or here."""
    if not items:
        return
    if ray is not None:
        yield from on_ray(function, items, ray)
    elif workers > 1:
        yield from on_processes(function, items, min(workers, len(items)))
    else:
        yield from here(function, items)


def here(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Call `function` on every item, in this process."""
    for item in items:
        yield item, function(item)


def on_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    """Call `function` on every item on several processes of one thread each; yields in the order they finish.

    Items whose worker died are tried again, after all others. Raises DpemError when workers die `DEATHS` times in a row
    with nothing finished between, and whatever `function` raises.
    """
    waiting, deaths = deque(items), 0
    while waiting:
        running: dict[Future[Result], Item] = {}
        with _pool(workers) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < workers:
                        with uninterrupted():  # a worker that starts here cannot answer Ctrl-C for a while
                            running[pool.submit(function, waiting[0])] = waiting[0]
                        waiting.popleft()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in sorted(done, key=lambda future: future.exception() is not None):
                        result = future.result()
                        deaths = 0
                        yield running.pop(future), result
            except BrokenProcessPool:
                deaths += 1
                waiting.extend(running.values())
        if deaths == DEATHS:
            raise DpemError(f"workers died {DEATHS} times in a row (out of memory?); what was finished is kept")


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes (numba's threads do not survive a fork), ended at once if the block fails."""
    others = set(active_children())
    with one_thread():
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_work)
        try:
            yield pool
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes that are started inside compute on one thread each: numpy and numba read it when they are loaded."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _begin_work() -> None:
    """A worker leaves Ctrl-C and warnings to its parent, and goes when the parent has gone, however that ended."""
    warnings.simplefilter("ignore", DpemWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def on_ray(function: Callable[[Item], Result], items: Iterable[Item], address: str) -> Iterator[tuple[Item, Result]]:
    """Call `function` on every item on a Ray cluster ("local" starts one here); yields in the order they finish.

    Every node of the cluster needs this package and the policies. An item whose worker died is tried again, `DEATHS`
    times at most. Needs the extra ``ray``.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read at import
    try:
        import ray
    except ImportError:
        raise DpemError("--ray needs Ray: pip install 'dpem-env[ray]'") from None
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": ONE_THREAD})
    except (OSError, RuntimeError, ValueError) as error:
        raise DpemError(f"--ray {address!r}: no cluster: {error}") from None

    def call(item: Item) -> Result:
        return function(item)

    try:
        task = ray.remote(num_cpus=1, max_retries=DEATHS)(call)
        running = {task.remote(item): item for item in items}
        while running:
            [reference], _ = ray.wait(list(running), num_returns=1)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise DpemError(f"Ray gave up on {running[reference]}: {error}") from None
            yield running.pop(reference), result
    finally:
        ray.shutdown()
