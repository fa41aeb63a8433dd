"""A deployed federation: processes learn what one process does, and nobody is in it who does not belong there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federated_processes import (
    PLAN,
    finished,
    needs_flower,
    processes,
    replayed,
    status_of,
    supernode,
    tls_server,
    wait_until,
)
from killing import Killed, killed_at

from dpem_agents.deployment.connections import free_port, require_free, require_server
from dpem_agents.deployment.flower_processes import OnlyNodesFromAfar
from dpem_agents.deployment.plan import Plan
from dpem_agents.deployment.processes import end, join, serve
from dpem_agents.federated import Ledger, NoisedUpdate
from dpem_agents.federation import federation
from dpem_env import scenarios
from dpem_env.support.errors import DpemError
from dpem_env.support.files import sole_writer
from support.command_line import complaint, dpem


def new_keys(factory: pytest.TempPathFactory) -> Path:
    from dpem_agents.deployment.certificates import make_certificates

    folder = factory.mktemp("keys")
    make_certificates(folder, 3)
    return folder


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_keys(tmp_path_factory)


@pytest.fixture(scope="session")
def foreign_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_keys(tmp_path_factory)


def only(keys: Path, folder: Path, *names: str) -> Path:
    """A folder with these files alone."""
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes((keys / name).read_bytes())
    return folder


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
        join, PLAN, 0, "127.0.0.1:9092", only(keys, tmp_path / "k", "ca.crt"), out
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
    with sole_writer(out):
        for call, where in ((serve, ()), (join, (0, server))):
            assert "another process is writing" in refusal(call, PLAN, *where, keys, out)
    (out / "federation.json").write_text("[" * 100_000)
    assert "federation.json' cannot be used: it is nested too deeply" in refusal(join, PLAN, 0, server, keys, out)
    PLAN.save(out, {})
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
    from dpem_agents.deployment.certificates import make_certificates

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
    replace(PLAN, scenario=PLAN.scenario.override(data_dir=tmp_path)).save(tmp_path, {"node": 2})
    assert Plan.load(tmp_path) == (PLAN, {"node": 2})
    assert Plan.load(tmp_path)[0].scenario.data_dir == tmp_path
    changed = [
        replace(PLAN, rounds=4),
        replace(PLAN, seed=1),
        replace(PLAN, topology_seed=1),
        replace(PLAN, forecaster="persistence"),
        replace(PLAN, scenario=scenarios.get("chain3-v0", slots=60)),
        replace(PLAN, federation=federation(privacy="off", period=3)),
        replace(PLAN, hyperparameters=replace(PLAN.hyperparameters, discount=0.9)),
    ]
    assert len({plan.fingerprint for plan in [PLAN, *changed]}) == len(changed) + 1
    assert "rounds is 0" in refusal(replace, PLAN, rounds=0)


def test_the_command_starts_server_and_nodes_with_one_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (
        "--scenario chain3-v0 --set slots=50 --rounds 3 --federate.privacy off --federate.period 2 --keys k --out o"
    )
    learn = [f"--learn.{name}" for name in ("slots=16", "epochs=2", "hidden=8", "idle_forecast=0")]
    started: list[Any] = []
    monkeypatch.setattr("dpem_agents.deployment.processes.serve", lambda *a, **n: started.append((a, n)) or Path("o/g"))
    monkeypatch.setattr("dpem_agents.deployment.processes.join", lambda *a, **n: started.append((a, n)) or Path("o/p"))
    assert dpem("federate", "server", *common.split(), *learn, "--port", "7000") == 0
    assert dpem("federate", "node", *common.split(), *learn, "--node", "1", "--server", "there:7000") == 0
    (server, named), (node, _) = started
    assert server == (PLAN, Path("k"), Path("o"))
    assert named["port"] == 7000
    assert node == (PLAN, 1, "there:7000", Path("k"), Path("o"))
    capsys.readouterr()
    for option, expected in (("--patience", "seconds above 0"), ("--port", "a whole number from 1 to 65,535")):
        said = complaint(capsys, "federate", "server", *common.split(), option, "0")
        assert f"{option} is '0'; expected {expected}" in said


# Separate processes


def test_what_a_process_has_started_ends_with_it_even_if_it_ended_by_itself() -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert process.wait(60) == 0
    os.kill(child, 0)  # it is still there
    end(process)
    wait_until(lambda: not is_running(child), seconds=30.0)


@needs_flower
@pytest.mark.slow
def test_processes_learn_what_one_process_does_and_strangers_are_refused(
    keys: Path, foreign_keys: Path, tmp_path: Path
) -> None:
    from dpem_agents.ppo.checkpoint import load
    from dpem_agents.ppo.training import train

    with processes(keys, tmp_path) as run:
        serving, server = run.serve(), run.address
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
        mixed = only(keys, tmp_path / "mixed", "ca.crt")
        (mixed / "node-0.key").write_bytes((foreign_keys / "node-0.key").read_bytes())
        assert "refused this node" in refusal(join, PLAN, 0, server, mixed, tmp_path / "mixed-out", patience=1.0)
        for path in ("/v1/control/list-runs", "/v1/runtime/acquire-task"):
            assert status_of(run.port, path, keys, "192.0.2.7") == 403
            assert status_of(run.port, path, keys) != 403
        assert status_of(run.port, "/v1/fleet/pull-messages", keys, "192.0.2.7") != 403
        nodes = [run.join(node) for node in range(3)]
        assert [finished(process) for process in (*nodes, serving)] == [0, 0, 0, 0]
    assert run.received == [3, 3, 3]
    path = train(
        PLAN.scenario, "federated", PLAN.timesteps, tmp_path / "one", hyperparameters=PLAN.hyperparameters,
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


@needs_flower
@pytest.mark.slow
def test_a_node_that_is_killed_in_a_round_costs_its_own_update_only_and_comes_back(keys: Path, tmp_path: Path) -> None:
    with processes(keys, tmp_path) as run:
        server = run.serve()
        nodes = [run.join(node) for node in range(3)]
        wait_until(lambda: run.training(1) == 2)
        os.kill(nodes[1].pid, signal.SIGKILL)
        nodes[1].wait()
        wait_until(lambda: len(run.received) == 2)
        nodes[1] = run.join(1)
        assert [finished(process) for process in (*nodes, server)] == [0, 0, 0, 0]
    assert run.received == [3, 2, 3]
    alone = replayed(tmp_path / "replay", [(0, 1, 2), (0, 2), (0, 1, 2)])
    with np.load(tmp_path / "server" / "global.npz") as stored:
        assert np.array_equal(stored["weights"], alone.weights)


@needs_flower
@pytest.mark.slow
def test_a_server_that_is_killed_goes_on_from_its_last_round_and_its_nodes_come_back(
    keys: Path, tmp_path: Path
) -> None:
    with processes(keys, tmp_path) as run:
        server = run.serve()
        nodes = [run.join(node) for node in range(3)]
        wait_until(lambda: len(run.received) == 1)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        wait_until(lambda: is_free(run.port))
        server = run.serve()
        assert [finished(process) for process in (*nodes, server)] == [0, 0, 0, 0]
    assert run.received == [3, 3, 3]
    assert Ledger(tmp_path / "server" / "ledger.json").rounds == 3


@needs_flower
@pytest.mark.slow
def test_a_node_runs_no_other_app_than_its_own(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.cli.build import build_fab_from_files

    from dpem_agents.deployment.flower_processes import APP

    other = build_fab_from_files({"pyproject.toml": APP.encode(), "anything.py": b"import os"})[0]
    monkeypatch.setattr("dpem_agents.deployment.processes.app_bundle", lambda: other)
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
@pytest.mark.slow
def test_in_mode_local_a_node_books_its_own_releases_and_stops_at_its_budget(tmp_path: Path) -> None:
    from dpem_agents.deployment.flower_apps import LocalLearning
    from dpem_agents.federated import BudgetExhausted

    plan = replace(PLAN, federation=federation(privacy="local", period=1, delta=1e-2, epsilon=4.0), rounds=2)
    plan.save(tmp_path, {"node": 1})
    start = LocalLearning(tmp_path).averaging.averager.weights
    for finished_rounds in (1, 2):
        weights = start + finished_rounds
        sent = LocalLearning(tmp_path).learn(weights)
        assert isinstance(sent, NoisedUpdate)
        assert Ledger(tmp_path / "ledger.json").rounds == finished_rounds
        again = LocalLearning(tmp_path).learn(weights)  # a server that was stopped asks once more
        assert isinstance(again, NoisedUpdate)
        assert np.array_equal(again.vector, sent.vector)
        assert Ledger(tmp_path / "ledger.json").rounds == finished_rounds
    with pytest.raises(BudgetExhausted):
        LocalLearning(tmp_path).learn(start)
    (tmp_path / "ledger.json").unlink()
    assert "is missing, which booked 2 of the releases in" in refusal(LocalLearning, tmp_path)
    shutil.rmtree(tmp_path / "ledger-releases")
    assert "this node has sent 2 updates, and" in refusal(LocalLearning, tmp_path)


@needs_flower
@pytest.mark.parametrize("private", [False, True])
def test_a_server_that_is_killed_at_any_moment_releases_each_round_once_and_reports_it_once(
    private: bool, tmp_path: Path
) -> None:
    from dpem_agents.deployment.flower_apps import Aggregator

    chosen = federation(epsilon=4.0, delta=1e-2, period=2) if private else PLAN.federation
    plan = replace(PLAN, federation=chosen)
    here = {"nodes": {str(node): node for node in range(3)}, "patience": 1.0}

    def serve_rounds(folder: Path) -> Any:
        made = Aggregator(folder)
        averager = made.averager
        while averager.rounds < plan.rounds:
            cohort = averager.sample(range(3))
            weights = averager.weights
            _, report = averager.aggregate({node: averager.update_of(node, weights + node) for node in cohort})
            made._keep(report)
        return made

    kills = 0
    plan.save(tmp_path, here)
    for moment in count(4, 5):
        try:
            with killed_at(moment):
                made = serve_rounds(tmp_path)
            break
        except Killed:
            kills += 1
    assert kills >= 3
    assert Ledger(tmp_path / "ledger.json").rounds == made.averager.rounds == 3
    for name in ("rounds.json", "operator-only.json"):
        numbers = [report["round"] for report in reports(tmp_path / name)]
        assert numbers == sorted(set(numbers))
    assert [report["round"] for report in reports(tmp_path / "rounds.json")] == [1, 2, 3]
    with np.load(tmp_path / "global.npz") as stored:
        assert stored["rounds"] == 3
        assert np.array_equal(stored["weights"], made.averager.weights)
    if not private:
        np.testing.assert_allclose(made.averager.weights - serve_start(plan, tmp_path / "new"), 3.0)
    (tmp_path / "ledger.json").unlink()
    assert "is missing, which booked 3 of the releases in" in refusal(Aggregator, tmp_path)
    shutil.rmtree(tmp_path / "ledger-releases")
    assert "which its privacy ledger does not book" in refusal(Aggregator, tmp_path)


def serve_start(plan: Plan, folder: Path) -> Any:
    averaging = plan.learner(folder).averaging
    assert averaging is not None
    return averaging.averager.weights


def reports(path: Path) -> list[dict[str, Any]]:
    known: list[dict[str, Any]] = json.loads(path.read_text())["rounds"]
    return known


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_free(port: int) -> bool:
    try:
        require_free("127.0.0.1", port)
    except DpemError:
        return False
    return True
