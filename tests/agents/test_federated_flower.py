"""A deployed federation: the averager's arithmetic whatever carries it, and nobody in it who does not belong there."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federated_rounds import averager, config, off

from dpem_agents.federated import DPConfig, FederatedAverager, Ledger, NoisedUpdate, node_update
from dpem_agents.federated.commands import add_federate
from dpem_agents.federated.connections import free_port, require_server
from dpem_agents.federated.deployment import join, serve
from dpem_agents.federated.embedded import federation
from dpem_agents.federated.flower_processes import OnlyNodesFromAfar
from dpem_agents.federated.plan import Plan
from dpem_agents.federated.spec import Vector
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_env import scenarios
from dpem_env.errors import DpemError

PLAN = Plan(
    scenarios.get("chain3-v0", slots=50),
    federation(privacy="off", rollouts=2),
    Hyperparameters(networks=1, slots=16, minibatches=2, epochs=2, hidden=8, encoder="plain"),
    rounds=3,
)
SIZE = 5

needs_flower = pytest.mark.skipif(
    find_spec("flwr") is None,
    reason="Flower is not installed; its pins need an environment of their own (docs/federation.md)",
)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'flwr[simulation]'")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dpem_agents.federated.certificates import make_certificates

    folder = tmp_path_factory.mktemp("keys")
    make_certificates(folder, 3)
    return folder


@pytest.fixture(scope="session")
def foreign_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dpem_agents.federated.certificates import make_certificates

    folder = tmp_path_factory.mktemp("foreign")
    make_certificates(folder, 3)
    return folder


# Strategy and client app, without a network between them


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

    from dpem_agents.federated.flower import make_client_app

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
    from dpem_agents.federated.flower import AveragerStrategy

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
    from dpem_agents.federated.flower import AveragerStrategy

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

    from dpem_agents.federated.flower import AveragerStrategy

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
    from dpem_agents.federated.flower import AveragerStrategy

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
import os, dpem_agents.federated.flower_apps
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


# What is refused, in one line


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(DpemError) as told:
        call(*arguments, **named)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_without_flower_one_line_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("flower", "flower_apps"):
        monkeypatch.delitem(sys.modules, f"dpem_agents.federated.{module}", raising=False)
        monkeypatch.delattr(f"dpem_agents.federated.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    assert "pip install 'dpem-env[flower]'" in refusal(serve, PLAN, tmp_path, tmp_path / "out")
    assert "pip install 'dpem-env[flower]'" in refusal(join, PLAN, 0, "127.0.0.1:9", tmp_path, tmp_path / "out")


@needs_flower
def test_files_ports_servers_and_folders_that_cannot_be_used_are_told(keys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = refusal(serve, PLAN, tmp_path, out)
    assert "ca.crt' is missing: make certificates with dpem federate certificates" in line
    assert "node-3.key' is missing" not in line
    assert "node-0.key' is missing" in refusal(
        join, PLAN, 0, "127.0.0.1:9092", _only(keys, tmp_path / "k", "ca.crt"), out
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be served" in refusal(serve, PLAN, keys, out, port=port)
    server = f"127.0.0.1:{free_port()}"
    assert f"server {server} is not reachable" in refusal(join, PLAN, 0, server, keys, out, patience=0.1)
    assert "expected HOST:PORT" in refusal(join, PLAN, 0, "nowhere", keys, out)
    assert "chain3-v0+slots=50 has nodes 0 to 2" in refusal(join, PLAN, 3, server, keys, out)
    other = replace(PLAN, seed=1)
    assert "is of a federation with other settings" in refusal(join, other, 0, server, keys, out)
    assert "expected a number above 0 and below 0.333" in refusal(
        serve, replace(PLAN, federation=federation(delta=0.5)), keys, tmp_path / "new"
    )


@needs_flower
def test_a_server_is_believed_by_its_certificate_alone(keys: Path, foreign_keys: Path) -> None:
    with tls_server(keys) as port:
        require_server("127.0.0.1", port, keys / "ca.crt")
        require_server("localhost", port, keys / "ca.crt")
        assert "is not one that" in refusal(require_server, "127.0.0.1", port, foreign_keys / "ca.crt")
        assert "is none" in refusal(require_server, "127.0.0.1", port, keys / "server.key")
    with tls_server(None) as port:
        assert "does not speak TLS" in refusal(require_server, "127.0.0.1", port, keys / "ca.crt")


@needs_flower
def test_private_keys_are_for_their_owner_and_are_not_overwritten(keys: Path) -> None:
    from dpem_agents.federated.certificates import make_certificates

    for name in ("ca.key", "server.key", "node-2.key"):
        assert (keys / name).stat().st_mode & 0o077 == 0, name
    assert "holds certificates already" in refusal(make_certificates, keys, 3)


def test_from_other_machines_one_can_be_a_node_and_nothing_else() -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    def ask(client: str | None, path: str, kind: str = "http") -> list[Any]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": kind, "path": path, "client": client and (client, 4), "server": ("192.0.2.1", 9092)}
        asyncio.run(OnlyNodesFromAfar(app)(scope, None, send))  # type: ignore[arg-type]
        return said

    for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/v1/fleetx", "//v1/fleet/"):
        assert ask("192.0.2.7", path)[0]["status"] == 403
        assert ask(None, path)[0]["status"] == 403
        assert ask("192.0.2.7", path, "websocket") == [{"type": "websocket.close"}]
    assert reached == []
    ask("192.0.2.7", "/v1/fleet/pull-messages")
    for near in ("127.0.0.1", "::1", "192.0.2.1"):
        ask(near, "/v1/control/start-run")
    assert reached == ["/v1/fleet/pull-messages", *["/v1/control/start-run"] * 3]


def test_a_plan_is_read_back_unchanged_and_anything_agreed_on_changes_its_fingerprint(tmp_path: Path) -> None:
    PLAN.save(tmp_path, {"node": 2})
    assert Plan.load(tmp_path) == (PLAN, {"node": 2})
    changed = [
        replace(PLAN, rounds=4),
        replace(PLAN, seed=1),
        replace(PLAN, topology_seed=1),
        replace(PLAN, forecaster="persistence"),
        replace(PLAN, scenario=scenarios.get("chain3-v0", slots=60)),
        replace(PLAN, federation=federation(privacy="off", rollouts=3)),
        replace(PLAN, hyperparameters=replace(PLAN.hyperparameters, discount=0.9)),
    ]
    assert len({plan.fingerprint for plan in [PLAN, *changed]}) == len(changed) + 1
    assert "rounds is 0" in refusal(replace, PLAN, rounds=0)


def test_the_command_starts_server_and_nodes_with_one_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = (
        "--scenario chain3-v0 --set slots=50 --rounds 3 --federate privacy=off --federate rollouts=2 --keys k --out o"
    )
    learn = [f"--learn={name}" for name in ("slots=16", "epochs=2", "hidden=8")]
    started: list[Any] = []
    monkeypatch.setattr("dpem_agents.federated.deployment.serve", lambda *a, **n: started.append((a, n)) or Path("o/g"))
    monkeypatch.setattr("dpem_agents.federated.deployment.join", lambda *a, **n: started.append((a, n)) or Path("o/p"))
    assert federate("server", *common.split(), *learn, "--port", "7000") == 0
    assert federate("node", *common.split(), *learn, "--node", "1", "--server", "there:7000") == 0
    (server, named), (node, _) = started
    assert server == (PLAN, Path("k"), Path("o"))
    assert named["port"] == 7000
    assert node == (PLAN, 1, "there:7000", Path("k"), Path("o"))
    assert "--patience is 0" in refusal(federate, "server", *common.split(), "--patience", "0")
    assert "--port is 0" in refusal(federate, "server", *common.split(), "--port", "0")


# Separate processes


@needs_flower
@pytest.mark.slow
def test_processes_learn_what_one_process_does_and_strangers_are_refused(
    keys: Path, foreign_keys: Path, tmp_path: Path
) -> None:
    from dpem_agents.ppo.checkpoint import load
    from dpem_agents.ppo.training import train

    with running_federation(keys, tmp_path) as (start, server, _):
        strangers = {
            "foreign certificate": ["--root-certificates", str(foreign_keys / "ca.crt")],
            "no TLS": ["--insecure"],
            "foreign key": [
                "--root-certificates", str(keys / "ca.crt"),
                "--auth-supernode-private-key", str(foreign_keys / "node-0.key"),
            ],
            "no key": ["--root-certificates", str(keys / "ca.crt")],
        }  # fmt: skip
        for what, options in strangers.items():
            refused, log = supernode(server, options, tmp_path)
            assert refused, f"{what}: {log}"
            assert "SuperNode ID" not in log, f"{what}: {log}"
        assert "vouches for" in refusal(join, PLAN, 0, server, foreign_keys, tmp_path / "stranger", patience=1.0)
        mixed = _only(keys, tmp_path / "mixed", "ca.crt")
        (mixed / "node-0.key").write_bytes((foreign_keys / "node-0.key").read_bytes())
        assert "refused this node" in refusal(join, PLAN, 0, server, mixed, tmp_path / "mixed-out", patience=1.0)
        nodes = [start(node) for node in range(3)]
        assert [finished(node) for node in nodes] == [0, 0, 0]
    assert received(tmp_path) == [3, 3, 3]
    path = train(
        PLAN.scenario, "federated", PLAN.timesteps(None), tmp_path / "one", hyperparameters=PLAN.hyperparameters,
        federation=PLAN.federation, validation_episodes=0,
    )  # fmt: skip
    expected = load(path, training=True).arrays
    with np.load(tmp_path / "server" / "global.npz") as stored:
        assert stored["rounds"] == 3
        assert np.array_equal(stored["weights"], expected["federated.weights"])
    for node in range(3):
        arrays = load(tmp_path / f"node{node}", training=True).arrays
        for name, array in arrays.items():
            assert np.array_equal(array, expected[name]), (node, name)
    assert_nothing_runs(tmp_path)


@needs_flower
@pytest.mark.slow
def test_a_node_that_is_killed_in_a_round_costs_its_own_update_only_and_comes_back(keys: Path, tmp_path: Path) -> None:
    with running_federation(keys, tmp_path) as (start, _, wait_for_rounds):
        nodes = [start(node) for node in range(3)]
        log = tmp_path / "node1" / "flower.log"
        wait_until(lambda: log.exists() and log.read_text(errors="replace").count("Receiving: train") == 2)
        os.kill(nodes[1].pid, signal.SIGKILL)
        nodes[1].wait()
        wait_for_rounds(2)
        nodes[1] = start(1)
        assert [finished(node) for node in nodes] == [0, 0, 0]
    assert received(tmp_path) == [3, 2, 3]
    made = replayed(tmp_path / "replay", [(0, 1, 2), (0, 2), (0, 1, 2)])
    with np.load(tmp_path / "server" / "global.npz") as stored:
        assert np.array_equal(stored["weights"], made.weights)
    assert_nothing_runs(tmp_path)


@needs_flower
@pytest.mark.slow
def test_a_node_runs_no_other_app_than_its_own(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.cli.build import build_fab_from_files

    from dpem_agents.federated.flower_processes import APP

    other = build_fab_from_files({"pyproject.toml": APP.encode(), "anything.py": b"import os"})[0]
    monkeypatch.setattr("dpem_agents.federated.deployment.app_bundle", lambda: other)
    port = free_port()
    lines: list[str] = []
    server = threading.Thread(
        target=lambda: lines.append(refusal(serve, PLAN, keys, tmp_path / "server", port=port, patience=20.0)),
        daemon=True,
    )
    server.start()
    line = refusal(join, PLAN, 0, f"127.0.0.1:{port}", keys, tmp_path / "node", patience=300.0)
    assert "sent another app than this node's own" in line
    assert not (tmp_path / "node" / "flower" / "apps").exists()


@needs_flower
@needs_ray
@pytest.mark.slow
def test_a_hundred_simulated_nodes_make_the_same_weights_as_without_flower() -> None:
    from flwr.simulation import run_simulation

    from dpem_agents.federated.flower import AveragerStrategy, make_client_app, make_server_app

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


@needs_flower
@pytest.mark.slow
def test_in_mode_local_a_node_books_its_own_releases_and_stops_at_its_budget(tmp_path: Path) -> None:
    from dpem_agents.federated import BudgetExhausted
    from dpem_agents.federated.flower_apps import LocalLearning

    plan = replace(PLAN, federation=federation(privacy="local", rollouts=1, delta=1e-2, epsilon=4.0), rounds=2)
    plan.save(tmp_path, {"node": 1, "data": None})
    weights = LocalLearning(tmp_path).averager.weights
    for finished_rounds in (1, 2):
        sent = LocalLearning(tmp_path).learn(weights)
        assert isinstance(sent, NoisedUpdate)
        assert Ledger(tmp_path / "ledger.json").rounds == finished_rounds
    with pytest.raises(BudgetExhausted):
        LocalLearning(tmp_path).learn(weights)


def federate(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    add_federate(parser.add_subparsers())
    arguments = parser.parse_args(["federate", *argv])
    code: int = arguments.run(arguments)
    return code


@contextmanager
def running_federation(keys: Path, folder: Path) -> Iterator[tuple[Any, str, Any]]:
    """A server, and how to start its nodes; everything is stopped at the end."""
    port = free_port()
    server = f"127.0.0.1:{port}"
    PLAN.save(folder, {})
    processes: list[subprocess.Popen[bytes]] = []

    def launch(kind: str, out: str, *arguments: str) -> subprocess.Popen[bytes]:
        code = f"""
from pathlib import Path
from dpem_agents.federated import deployment
from dpem_agents.federated.plan import Plan
plan, folder, keys = Plan.load(Path({str(folder)!r}))[0], Path({str(folder / out)!r}), Path({str(keys)!r})
deployment.{kind}(plan, {", ".join(arguments)})
"""
        with open(folder / f"{out}.txt", "ab") as said:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=said, stderr=said, cwd=folder)
        processes.append(process)
        return process

    def start(node: int) -> subprocess.Popen[bytes]:
        return launch("join", f"node{node}", str(node), repr(server), "keys", "folder", "patience=300.0")

    def wait_for_rounds(rounds: int) -> None:
        wait_until(lambda: len(received(folder)) >= rounds)

    serving = launch("serve", "server", "keys", "folder", f"port={port}", "patience=180.0")
    try:
        wait_until(lambda: "waiting for 3 nodes" in (folder / "server.txt").read_text() or serving.poll() is not None)
        assert serving.poll() is None, (folder / "server.txt").read_text()
        yield start, server, wait_for_rounds
        assert finished(serving) == 0, (folder / "server.txt").read_text()
    finally:
        for process in reversed(processes):  # nodes before the server
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()


def supernode(server: str, options: list[str], folder: Path) -> tuple[bool, str]:
    """Whether Flower's own SuperNode, started with these options, gives up without having been let in; what it says."""
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    environment |= {"FLWR_HOME": str(folder / "stranger-home")}
    beside = Path(sys.executable).parent
    environment["PATH"] = f"{beside}{os.pathsep}{environment['PATH']}"
    command = [
        str(beside / "flower-supernode"),
        "--superlink",
        server,
        "--port",
        str(free_port()),
        "--max-retries",
        "0",
    ]
    with open(folder / "stranger.txt", "wb") as said:
        process = subprocess.Popen([*command, *options], env=environment, stdout=said, stderr=said)
    try:
        refused = process.wait(120) != 0
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(30)
        refused = False
    return refused, (folder / "stranger.txt").read_text()


@contextmanager
def tls_server(keys: Path | None) -> Iterator[int]:
    """Somebody who answers with the certificate there, or with nothing like TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()
        listening.settimeout(0.1)

        def answer() -> None:
            while not stop.is_set():
                try:
                    plain, _ = listening.accept()
                except TimeoutError:
                    continue
                with plain:
                    plain.settimeout(5.0)
                    try:
                        if keys is None:
                            plain.recv(1)
                            plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                            continue
                        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                        trust.load_cert_chain(keys / "server.crt", keys / "server.key")
                        trust.wrap_socket(plain, server_side=True).close()
                    except (OSError, ssl.SSLError):
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def replayed(folder: Path, rounds: list[tuple[int, ...]]) -> FederatedAverager:
    """The rounds of the embedded averager in which these nodes learn, in this process."""
    from dpem_agents.federated.flower_apps import LocalLearning
    from dpem_agents.libraries import one_thread

    for node in range(3):
        (folder / f"node{node}").mkdir(parents=True)
        PLAN.save(folder / f"node{node}", {"node": node, "data": None})
    with one_thread():
        averaging = PLAN.learner(folder, None).averaging
        assert averaging is not None
        made = averaging.averager
        for nodes in rounds:
            made.sample(range(3))
            updates = {node: LocalLearning(folder / f"node{node}").learn(made.weights) for node in nodes}
            made.aggregate(updates)
    return made


def received(folder: Path) -> list[int]:
    """Updates that came in each round so far."""
    path = folder / "server" / "operator-only.json"
    return [entry["received"] for entry in json.loads(path.read_text())["rounds"]] if path.exists() else []


def assert_nothing_runs(folder: Path) -> None:
    """Nothing that the federation started outlives it by more than moments."""

    def commands() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if f"FLWR_HOME={folder}".encode() in environment:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    wait_until(lambda: not commands(), seconds=30.0)


def finished(process: subprocess.Popen[bytes]) -> int:
    return process.wait(600)


def wait_until(true: Callable[[], bool], seconds: float = 400.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)


def _only(keys: Path, folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes((keys / name).read_bytes())
    return folder
