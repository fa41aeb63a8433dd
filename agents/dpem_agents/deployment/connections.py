"""Addresses of a federation: whether one is free to serve on, and whether its server answers there by TLS."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

from dpem_env.support.errors import DpemError


class Later(DpemError):
    """The server does not answer, or not let the node in, but might soon."""


def require_server(host: str, port: int, authority: Path) -> None:
    """Raise DpemError unless a server whose certificate this authority has signed answers by TLS."""
    address = f"{host}:{port}"
    try:
        trust = ssl.create_default_context(cafile=os.fspath(authority))
        with (
            socket.create_connection((host, port), timeout=10.0) as plain,
            trust.wrap_socket(plain, server_hostname=host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        raise DpemError(
            f"server {address} is not one that {os.fspath(authority)!r} vouches for: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        raise DpemError(f"server {address} does not speak TLS, or {os.fspath(authority)!r} is none: {error}") from None
    except OSError as error:
        raise Later(f"server {address} is not reachable: {error}") from None


def require_free(host: str, port: int) -> None:
    """Raise DpemError unless one can serve there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise DpemError(f"{host}:{port} cannot be served: {error}; choose another --port") from None


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def address_of(server: str) -> tuple[str, int]:
    """Host and port."""
    host, colon, port = server.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise DpemError(f"server is {server!r}; expected HOST:PORT, such as 127.0.0.1:9092")
    return host.strip("[]"), int(port)


def joined(host: str, port: int) -> str:
    """HOST:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
