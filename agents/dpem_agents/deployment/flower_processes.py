"""Flower's SuperLink and SuperNode, with what nobody should ask of them refused.

Run as ``python -m dpem_agents.deployment.flower_processes superlink|supernode OPTIONS``; options are those of the
commands ``flower-superlink`` and ``flower-supernode`` of Flower 1.41.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# What Flower sends around: the names of the apps and no code, so that every machine runs its own installed package.
APP = """\
[project]
name = "dpem-federation"
version = "1.0.0"
description = "Federated averaging of dpem_agents"
license = "MIT"
dependencies = ["flwr>=1.41.0,<1.42"]

[tool.flwr.app]
publisher = "dpem-env"

[tool.flwr.app.components]
serverapp = "dpem_agents.deployment.flower_apps:server_app"
clientapp = "dpem_agents.deployment.flower_apps:client_app"
"""
OTHER_APP = "the server sent another app than this node's own"  # what a node says that refuses it
NODES = "/v1/fleet/"  # paths of the interface for nodes, which asks for their keys
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class OnlyNodesFromAfar:
    """ASGI middleware: who is not on this machine can be a node, and nothing else.

    The same port also serves the interface that runs apps and the one that such apps use. Neither asks who is there, so
    whoever reaches them can run any code at the aggregator.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan" or scope["path"].startswith(NODES) or _is_near(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"only nodes may connect from other machines"})
        else:
            await send({"type": "websocket.close"})


def app_bundle() -> bytes:
    """The app as Flower sends it around."""
    from flwr.cli.build import build_fab_from_files

    bundle: bytes = build_fab_from_files({"pyproject.toml": APP.encode()})[0]
    return bundle


def same_app(bundle: bytes, other: bytes) -> bool:
    """Whether two bundles hold the same files, however compressed."""
    try:
        files, others = (_files(each) for each in (bundle, other))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        return False
    return files == others


def superlink() -> None:
    """Run the SuperLink."""
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink
    from starlette.middleware import Middleware

    extensions.get_middleware = lambda: (Middleware(OnlyNodesFromAfar),)
    start_parent_process_monitor(os.getppid())
    flower_superlink()


def supernode() -> None:
    """Run a SuperNode that runs its own app only: whoever controls the server may not choose what a node computes."""
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.supercore.exit import ExitCode, flwr_exit
    from flwr.supernode import start_client_internal as loop
    from flwr.supernode.cli import flower_supernode

    known, configuration = app_bundle(), loop.get_fused_config_from_fab

    def configuration_of_known(app: bytes, run: Any) -> Any:
        if not same_app(app, known):
            flwr_exit(ExitCode.SUPERNODE_INVALID_TRUSTED_ENTITIES, OTHER_APP)
        return configuration(app, run)

    loop.get_fused_config_from_fab = configuration_of_known
    start_parent_process_monitor(os.getppid())
    flower_supernode()
    os._exit(1)  # it has lost its server, and threads of it would wait forever


def _files(bundle: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def _is_near(scope: Scope) -> bool:
    client, server = scope.get("client"), scope.get("server")
    if client is None:
        return False
    return client[0] in ("127.0.0.1", "::1") or (server is not None and client[0] == server[0])


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    {"superlink": superlink, "supernode": supernode}[kind]()
