"""What the tests of a deployed federation share: its plan, its processes, and strangers to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from dpem_agents.deployment.connections import free_port
from dpem_agents.deployment.plan import Plan
from dpem_agents.federated import FederatedAverager
from dpem_agents.federation import federation
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_env import scenarios

needs_flower = pytest.mark.skipif(
    find_spec("flwr") is None,
    reason="Flower is not installed; its pins need an environment of their own (docs/federation.md)",
)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'flwr[simulation]'")

PLAN = Plan(
    scenarios.get("chain3-v0", slots=50),
    federation(privacy="off", period=2),
    Hyperparameters(networks=1, slots=16, minibatches=2, epochs=2, hidden=8),
    rounds=3,
)
NODES = 3


class Processes:
    """Server and nodes of `PLAN` in a folder, each a process of its own."""

    def __init__(self, keys: Path, folder: Path) -> None:
        self.keys, self.folder, self.port = keys, folder, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.running: list[subprocess.Popen[bytes]] = []
        PLAN.save(folder, {})

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the server; returns when nodes can come."""
        (self.folder / "server.txt").unlink(missing_ok=True)
        process = self._start("serve", "server", f"port={self.port}", "patience=180.0")
        said = self.folder / "server.txt"
        wait_until(lambda: "waiting for 3 nodes" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        return process

    def join(self, node: int) -> subprocess.Popen[bytes]:
        """Start a node."""
        return self._start("join", f"node{node}", "patience=300.0", before=f"{node}, {self.address!r}, ")

    @property
    def received(self) -> list[int]:
        """Updates that came in each round so far."""
        path = self.folder / "server" / "operator-only.json"
        return [entry["received"] for entry in json.loads(path.read_text())["rounds"]] if path.exists() else []

    def training(self, node: int) -> int:
        """Rounds in which the node has begun to learn since it was started."""
        log = self.folder / f"node{node}" / "flower.log"
        return log.read_text(errors="replace").count("Receiving: train") if log.exists() else 0

    def stop(self) -> None:
        """End what still runs, nodes before the server."""
        for process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()

    def started(self) -> list[str]:
        """Commands of Flower that still run for this federation."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"FLWR_HOME={self.folder}/".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def _start(self, kind: str, name: str, *named: str, before: str = "") -> subprocess.Popen[bytes]:
        out = self.folder / name
        code = f"""
from pathlib import Path
from dpem_agents.deployment import processes as deployment
from dpem_agents.deployment import plan
agreed = plan.Plan.load(Path({str(self.folder)!r}))[0]
deployment.{kind}(agreed, {before}Path({str(self.keys)!r}), Path({str(out)!r}), {", ".join(named)})
"""
        with open(self.folder / f"{name}.txt", "ab") as said:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=said, stderr=said, cwd=self.folder)
        self.running.append(process)
        return process


@contextmanager
def processes(keys: Path, folder: Path) -> Iterator[Processes]:
    """To start a federation's processes; at the end all have stopped, with whatever they started."""
    made = Processes(keys, folder)
    try:
        yield made
    finally:
        made.stop()
    wait_until(lambda: not made.started(), seconds=60.0)


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


def status_of(port: int, path: str, keys: Path, client: str | None = None) -> int:
    """What the server answers, as a proxy on its machine would ask it for another client."""
    trust = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=30)
    connection.request("POST", path, headers={"X-Forwarded-For": client} if client else {})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def replayed(folder: Path, rounds: list[tuple[int, ...]]) -> FederatedAverager:
    """The rounds of the embedded averager in which these nodes learn, in this process."""
    from dpem_agents.deployment.flower_apps import LocalLearning
    from dpem_agents.libraries import one_thread

    for node in range(NODES):
        (folder / f"node{node}").mkdir(parents=True)
        PLAN.save(folder / f"node{node}", {"node": node, "data": None})
    with one_thread():
        averaging = PLAN.learner(folder).averaging
        assert averaging is not None
        made = averaging.averager
        for nodes in rounds:
            made.sample(range(NODES))
            updates = {node: LocalLearning(folder / f"node{node}").learn(made.weights) for node in nodes}
            made.aggregate(updates)
    return made


def finished(process: subprocess.Popen[bytes]) -> int:
    """Exit code of a process that ends by itself."""
    return process.wait(600)


def wait_until(true: Callable[[], bool], seconds: float = 400.0) -> None:
    """Fails if it does not come true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)
