"""Federated averaging over Flower: the averager's arithmetic, whatever carries it and whatever nodes send."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from federated_processes import needs_flower, needs_ray, wait_until
from federated_rounds import averager, config, off

from dpem_agents.federated import DPConfig, FederatedAverager, NoisedUpdate, node_update
from dpem_agents.federated.spec import Vector

SIZE = 5


@pytest.fixture
def as_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """As within an app of a run: only there Flower makes messages."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class InOneProcess:
    """Stands in for Flower's grid: every node answers at once, in an order of its own."""

    def __init__(
        self, answer: Callable[[Any], Any], nodes: Iterable[int], connected: Iterable[int] | None = None
    ) -> None:
        self.answer, self.connected = answer, list(nodes if connected is None else connected)
        self.sent: list[Any] = []

    def get_node_ids(self) -> list[int]:
        return self.connected

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        for message in messages:
            message.metadata.__dict__.update(_message_id=message.object_id, _run_id=1)
            self.sent.append(message)
            self.answer(message)
        return []

    def send_and_receive(self, messages: Iterable[Any], timeout: float | None = None) -> list[Any]:
        sent = list(messages)
        for message in sent:
            message.metadata.__dict__.update(_message_id=message.object_id, _run_id=1)
        self.sent += sent
        return [self.answer(message) for message in reversed(sent)]


def drawn(weights: Vector, number: int) -> Vector:
    """What a node of that number would have learned: anything, but the same wherever it is computed."""
    return weights + np.random.default_rng(number % 2**32).normal(0.0, 1.0, len(weights)) * (1.0 + np.abs(weights))


def answering(dp: DPConfig) -> Callable[[Any], Any]:
    """Nodes with a client app that learns by `drawn`."""
    from flwr.app import Context, RecordDict

    from dpem_agents.deployment.flower import make_client_app

    def answer(message: Any) -> Any:
        number = message.metadata.dst_node_id
        app = make_client_app(
            lambda weights, settings, context: node_update(dp, drawn(weights, number), weights, 0, number)
        )
        return app(message, Context(1, number, {}, RecordDict(), {}))

    return answer


def embedded(made: FederatedAverager, numbers: list[int], rounds: int) -> Vector:
    """The same rounds without Flower."""
    for _ in range(rounds):
        cohort = made.sample(numbers)
        made.aggregate({n: made.update_of(n, drawn(made.weights, n)) for n in cohort})
    return made.weights


@needs_flower
@pytest.mark.usefixtures("as_a_task")
@pytest.mark.parametrize(
    "dp",
    [off(7), config(population=7, noise_seed=3, sample_rate=0.5, accountant="rdp"), config(population=7, noise_seed=3)],
    ids=["off", "sampled", "central"],
)
def test_rounds_by_flower_make_the_same_weights_as_without(dp: DPConfig) -> None:
    from dpem_agents.deployment.flower import AveragerStrategy

    numbers = [91, 7, 2**60, 13, 5, 4, 3]
    carried, alone = averager(dp, SIZE), averager(dp, SIZE)
    reports: list[Any] = []
    strategy = AveragerStrategy(carried, {n: n for n in numbers}, at_round=reports.append)
    strategy.play(InOneProcess(answering(dp), numbers), 4)  # type: ignore[arg-type]
    assert np.array_equal(carried.weights, embedded(alone, numbers, 4))
    assert [report.round for report in reports] == [1, 2, 3, 4]
    assert carried.ledger.charges == alone.ledger.charges


@needs_flower
@pytest.mark.usefixtures("as_a_task")
def test_nodes_are_sent_weights_and_a_fingerprint_and_nothing_of_the_reports() -> None:
    from dpem_agents.deployment.flower import AveragerStrategy

    dp = off(3)
    grid = InOneProcess(answering(dp), [1, 2, 3])
    strategy = AveragerStrategy(averager(dp, SIZE), {n: n for n in (1, 2, 3)}, settings="abc", patience=0.1)
    strategy.play(grid, 2)  # type: ignore[arg-type]
    strategy.finish(grid)  # type: ignore[arg-type]
    assert [m.metadata.message_type for m in grid.sent] == ["train"] * 6 + ["query"] * 3
    for message in grid.sent:
        assert set(message.content) == {"weights", "about"}
        assert set(message.content["weights"]) == {"weights"}
        assert dict(message.content["about"]) == {"settings": "abc"}


@needs_flower
@pytest.mark.usefixtures("as_a_task")
@pytest.mark.parametrize("mode", ["off", "local"])
def test_whatever_a_node_sends_instead_of_an_update_loses_nobody_elses(mode: str) -> None:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

    from dpem_agents.deployment.flower import AveragerStrategy

    dp = off(10) if mode == "off" else config(mode="local", population=10, noise_seed=1)
    local = mode == "local"

    def archive(length: int) -> bytes:
        """An array that claims to be longer than memory."""
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (length,)})
        return stream.getvalue()

    def zipped(vector: Vector) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, vector)
        return stream.getvalue()

    def content(vector: Any, noised: Any = local) -> RecordDict:
        return RecordDict({"update": ArrayRecord({"update": vector}), "about": ConfigRecord({"noised": noised})})

    good = np.arange(SIZE) * 0.1
    sent: dict[int, Any] = {
        1: content(Array(good)),
        2: RecordDict(),
        3: content(Array(good), not local),
        4: content(Array("float64", (SIZE,), "numpy.ndarray", b"no array")),
        5: content(Array(np.full(SIZE, np.nan))),
        6: content(Array(np.zeros(SIZE + 1))),
        9: content(Array("float64", (2**60,), "numpy.ndarray", archive(2**60))),
        10: content(Array("float64", (SIZE,), "numpy.ndarray", zipped(good))),
        7: RecordDict({"update": MetricRecord({"update": 1.0}), "about": ConfigRecord({"noised": local})}),
    }

    def answer(message: Any) -> Any:
        number = message.metadata.dst_node_id
        return Message(sent.get(number, Error(0, "broken")), reply_to=message)

    made, alone = averager(dp, SIZE), averager(dp, SIZE)
    reports: list[Any] = []
    strategy = AveragerStrategy(made, {n: n for n in range(1, 11)}, at_round=reports.append)
    strategy.play(InOneProcess(answer, range(1, 11)), 1)  # type: ignore[arg-type]
    alone.sample(range(1, 11))
    alone.aggregate({1: NoisedUpdate(good) if local else good})
    assert np.array_equal(made.weights, alone.weights)
    assert set(reports[0].operator.rejected) == {2, 3, 4, 5, 6, 7, 9, 10}
    assert reports[0].operator.received == 9


@needs_flower
@pytest.mark.usefixtures("as_a_task")
def test_a_round_goes_on_without_nodes_that_are_not_connected_but_not_without_any() -> None:
    from dpem_agents.deployment.flower import AveragerStrategy

    dp = off(4)
    made, alone = averager(dp, SIZE), averager(dp, SIZE)
    grid = InOneProcess(answering(dp), [])
    threading.Timer(1.0, lambda: grid.connected.extend([2, 4, 99])).start()
    AveragerStrategy(made, {n: n for n in (1, 2, 3, 4)}, patience=0.2).play(grid, 1)  # type: ignore[arg-type]
    alone.sample((1, 2, 3, 4))
    alone.aggregate({n: drawn(np.zeros(SIZE), n) for n in (2, 4)})
    assert np.array_equal(made.weights, alone.weights)
    assert [m.metadata.dst_node_id for m in grid.sent] == [2, 4]


@needs_flower
def test_flower_and_ray_report_to_nobody_unless_told_to() -> None:
    code = """
import os, dpem_agents.deployment.flower_apps
from flwr.supercore import telemetry
print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ["FLWR_DISABLE_UPDATE_CHECK"], os.environ["RAY_USAGE_STATS_ENABLED"])
"""
    switches = ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "RAY_USAGE_STATS_ENABLED")
    silent = {name: value for name, value in os.environ.items() if name not in switches}
    for environment, expected in ((silent, "0 1 0"), (silent | {"FLWR_TELEMETRY_ENABLED": "1"}, "1 1 0")):
        said = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100
        )
        assert said.stdout.strip() == expected, said.stderr


@needs_flower
@needs_ray
@pytest.mark.slow
def test_a_hundred_simulated_nodes_make_the_same_weights_as_without_flower() -> None:
    from flwr.simulation import run_simulation

    from dpem_agents.deployment.flower import AveragerStrategy, make_client_app, make_server_app

    dp = config(population=100, clip_norm=3.0, sample_rate=0.5, noise_seed=5)
    carried = averager(dp, SIZE)
    numbers: list[int] = []

    def serve_simulation(grid: Any, context: Any) -> None:
        wait_until(lambda: len(list(grid.get_node_ids())) == 100)
        numbers.extend(sorted(grid.get_node_ids()))
        AveragerStrategy(carried, {n: n for n in numbers}).play(grid, 3)

    def update(weights: Any, number: int) -> Any:
        draws = np.random.default_rng(number % 2**32)
        return draws.normal(0.0, 1.0, len(weights)) * (1.0 + np.abs(weights))

    run_simulation(
        make_server_app(serve_simulation),
        make_client_app(lambda weights, settings, context: update(weights, context.node_id)),
        100,
        backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 2}},
    )
    alone = averager(dp, SIZE)
    for _ in range(3):
        cohort = alone.sample(numbers)
        alone.aggregate({n: update(alone.weights, n) for n in cohort})
    assert alone.ledger.rounds == carried.ledger.rounds == 3
    assert np.array_equal(carried.weights, alone.weights)
