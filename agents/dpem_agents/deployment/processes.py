"""A federation of separate processes: the aggregator with Flower's SuperLink, and nodes with a SuperNode each.

TLS throughout: nodes check the server's certificate, the server asks nodes for their keys.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from dpem_agents.deployment.certificates import AUTHORITY, SERVER, SERVER_KEY, node_key, require_files
from dpem_agents.deployment.connections import Later, address_of, free_port, joined, require_free, require_server
from dpem_agents.deployment.flower_processes import OTHER_APP, app_bundle
from dpem_agents.deployment.plan import FILE as PLAN
from dpem_agents.deployment.plan import Plan
from dpem_agents.ppo.checkpoint import POLICY_FILE
from dpem_env.support.errors import DpemError
from dpem_env.support.files import make_writable, sole_writer

LOG = "flower.log"  # what Flower's processes say, in the folder of server or node
CONNECTED = "SuperNode ID:"  # logged once the server has let a node in
SECONDS_TO_START = 180.0  # a SuperLink, on a machine that has other work
SECONDS_TO_STOP = 15.0
SECONDS_BETWEEN_LOOKS = 1.0
Tell = Callable[[str], None]


def serve(
    plan: Plan,
    keys: Path,
    out: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 9092,
    patience: float = 600.0,
    tell: Tell = print,
) -> Path:
    """Aggregate all rounds that are left, then let the nodes go; returns the path of the global weights.

    `out` gets global.npz, the privacy budget in ledger.json and ledger-releases, reports in rounds.json and what is for
    the operator alone in operator-only.json. `patience` is in s, see `AveragerStrategy`. BudgetExhausted reads as any
    DpemError here.
    """
    apps = _flower()
    nodes = range(plan.nodes)
    authority, certificate, key = require_files(keys, (AUTHORITY, SERVER, SERVER_KEY))
    public = require_files(keys, [f"{node_key(node)}.pub" for node in nodes])
    _prepare(plan, len(nodes), out)
    require_free(host, port)
    options = ["--host", host, "--port", str(port), "--enable-supernode-auth"]
    options += ["--disable-runtime-dependency-installation"]
    options += ["--ssl-ca-certfile", os.fspath(authority)]
    options += ["--ssl-certfile", os.fspath(certificate), "--ssl-keyfile", os.fspath(key)]
    with sole_writer(out), _process("superlink", options, out) as link:
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        _await_link(link, near, port, authority, out)
        with _Control(near, port, authority, out) as control:
            numbers = {control.register(path): node for node, path in zip(nodes, public, strict=True)}
            plan.save(out, {"nodes": numbers, "patience": patience})
            tell(f"waiting for {len(nodes)} nodes on {host}:{port}")
            _follow(control, plan, out, tell)
    weights: Path = out / apps.GLOBAL
    return weights


def join(
    plan: Plan,
    node: int,
    server: str,
    keys: Path,
    out: Path,
    *,
    patience: float = 120.0,
    tell: Tell = print,
) -> Path:
    """Learn as one node of the federation until its end; returns the path of the policy.

    `patience`, in s, is for a server that is not there yet, or that still takes the node for connected after a crash.
    `out` keeps what the node has learned: after an interruption it goes on there.
    """
    _flower()
    nodes = plan.nodes
    if not 0 <= node < nodes:
        raise DpemError(f"node is {node}; {plan.scenario.name} has nodes 0 to {nodes - 1}")
    address_of(server)  # complains
    authority, key = require_files(keys, (AUTHORITY, node_key(node)))
    _prepare(plan, nodes, out)
    options = ["--superlink", server, "--root-certificates", os.fspath(authority)]
    options += ["--auth-supernode-private-key", os.fspath(key)]
    with sole_writer(out):
        plan.save(out, {"node": node})
        (out / POLICY_FILE).unlink(missing_ok=True)
        return _learn(node, server, authority, options, out, patience, tell)


def _learn(node: int, server: str, authority: Path, options: list[str], out: Path, patience: float, tell: Tell) -> Path:
    """Run SuperNodes, one after the other where it loses its server, until the federation ends."""
    host, port = address_of(server)
    until = time.monotonic() + patience
    while True:
        try:
            require_server(host, port, authority)
            tell(f"node {node} connects to {server}")
            if _run_node(options, out):
                return out / POLICY_FILE
            until = time.monotonic() + patience
            tell(f"node {node} has lost its server {server}, and tries again")
        except Later:
            if time.monotonic() > until:
                raise
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _run_node(options: list[str], out: Path) -> bool:
    """Run a SuperNode until the federation ends; False if it had been let in and then lost its server."""
    (out / LOG).unlink(missing_ok=True)
    with _process("supernode", [*options, "--port", str(free_port())], out) as process:
        while process.poll() is None:
            if (out / POLICY_FILE).exists():
                return True
            time.sleep(SECONDS_BETWEEN_LOOKS)
    log = (out / LOG).read_text(encoding="utf-8", errors="replace")
    if OTHER_APP in log:
        raise DpemError(f"{OTHER_APP}: is it of the same version? See {os.fspath(out / LOG)!r}")
    if CONNECTED not in log:
        raise Later(
            "the server refused this node: it does not know the node's key, or still takes it for connected (it "
            f"notices a crash within a minute); see {os.fspath(out / LOG)!r}"
        )
    return False


class _Control:
    """The SuperLink's interface for its operator."""

    def __init__(self, host: str, port: int, authority: Path, out: Path) -> None:
        from flwr.supercore.control import ControlHttpClient

        self.out = out
        self.client = ControlHttpClient.from_server_address(joined(host, port), False, os.fspath(authority), [])

    def __enter__(self) -> _Control:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from httpx import HTTPError

        self.client.close()
        if isinstance(error, HTTPError):
            raise DpemError(f"the SuperLink has failed: {error}; see {os.fspath(self.out / LOG)!r}") from None

    def register(self, public_key: Path) -> int:
        """Make a node known by its key; returns Flower's number of it."""
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key
        from flwr.proto.control_pb2 import RegisterNodeRequest
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        try:
            key = load_ssh_public_key(public_key.read_bytes())
        except ValueError as error:
            raise DpemError(f"{os.fspath(public_key)!r} is no public key: {error}") from None
        return int(self.client.RegisterNode(RegisterNodeRequest(public_key=public_key_to_bytes(key))).node_id)

    def start(self) -> int:
        """Start the app; returns its run's number."""
        from flwr.common.serde import fab_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        return int(self.client.StartRun(StartRunRequest(fab=fab_to_proto(Fab("", app_bundle(), {})))).run_id)

    def status(self, run: int) -> Any:
        """How the run stands: status, sub_status, details."""
        from flwr.proto.control_pb2 import ListRunsRequest

        return self.client.ListRuns(ListRunsRequest(run_id=run)).run_dict[run].status


def _follow(control: _Control, plan: Plan, out: Path, tell: Tell) -> None:
    """Tell of the rounds until the last; DpemError if the run ends otherwise."""
    apps = _flower()
    told = len(apps.reports(out / apps.ROUNDS))
    run = control.start()
    while True:
        status = control.status(run)
        for report in (rounds := apps.reports(out / apps.ROUNDS))[told:]:
            spent = "" if report["mode"] == "off" else f", ε {report['epsilon']:.3g} at δ = {report['delta']:g}"
            tell(f"round {report['round']} of {plan.rounds}{spent}")
        told = len(rounds)
        if status.status == "finished":
            if status.sub_status != "completed":
                reason = status.details.removeprefix("ServerApp failed with exception: ")
                raise DpemError(f"{reason or status.sub_status} (see {os.fspath(out / LOG)!r})")
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def _process(kind: str, options: list[str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One of Flower's, logging to the folder; stopped at the end, with what it has started."""
    apps = _flower()
    beside = os.path.dirname(sys.executable)  # Flower starts its other programs by their names
    environment = os.environ | {
        apps.FOLDER: os.fspath(out.resolve()),
        "FLWR_HOME": os.fspath(out.resolve() / "flower"),
        "PATH": os.pathsep.join([beside, os.environ.get("PATH", "")]),
    }
    with open(out / LOG, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dpem_agents.deployment.flower_processes", kind, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us; we stop it
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop it, and what is left of its group: a node's app in the middle of learning outlives a SuperNode that ends."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_STOP)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _await_link(link: subprocess.Popen[bytes], host: str, port: int, authority: Path, out: Path) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            return require_server(host, port, authority)
        except Later:
            if link.poll() is not None or time.monotonic() > until:
                raise DpemError(f"the SuperLink did not start: see {os.fspath(out / LOG)!r}") from None
            time.sleep(0.2)


def _prepare(plan: Plan, nodes: int, out: Path) -> None:
    """Make the folder; DpemError if it is another federation's, or if this one is impossible."""
    plan.federation.protection(nodes, plan.rounds)  # complains
    make_writable(out)
    if (out / PLAN).exists():
        before = Plan.load(out)[0]
        if before.fingerprint != plan.fingerprint:
            raise DpemError(f"{os.fspath(out)!r} is of a federation with other settings: choose another folder")


def _flower() -> ModuleType:
    """The apps that Flower runs; DpemError tells how to install it."""
    from dpem_agents.deployment import flower_apps

    return flower_apps
