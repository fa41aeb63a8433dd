"""Certificates and keys of a deployed federation.

A certificate authority of its own signs the server's certificate, by which nodes know the server. The server knows
nodes by the public halves of their keys. All are elliptic-curve keys (P-384).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpem_env.support.errors import DpemError
from dpem_env.support.files import make_writable

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
SERVER, SERVER_KEY = "server.crt", "server.key"
YEARS = 5  # that certificates are valid


def node_key(node: int) -> str:
    """Name of the file with a node's private key; its public half has .pub added."""
    return f"node-{node}.key"


def make_certificates(folder: Path, nodes: int, hosts: Sequence[str] = ()) -> None:
    """Write the files for a server reached as one of `hosts`, or on this machine, and for so many nodes.

    DpemError if there are some already: who has the old ones would be locked out.
    """
    if nodes < 1:
        raise DpemError(f"nodes is {nodes}; expected at least 1")
    make_writable(folder)
    if (folder / AUTHORITY_KEY).exists():
        raise DpemError(f"{os.fspath(folder)!r} holds certificates already: choose another folder")
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
    except ImportError as error:
        raise DpemError(f"certificates need more than is installed ({error}): pip install 'dpem-env[flower]'") from None

    def new_key(name: str, form: PrivateFormat = PrivateFormat.TraditionalOpenSSL) -> EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP384R1())
        _write_secret(folder / name, key.private_bytes(Encoding.PEM, form, NoEncryption()))
        return key

    authority, server = new_key(AUTHORITY_KEY), new_key(SERVER_KEY)
    names = [_alternative_name(host) for host in dict.fromkeys(["localhost", "127.0.0.1", "::1", *hosts])]
    issuer = "dpem federation authority"
    (folder / AUTHORITY).write_bytes(
        _certificate(
            issuer, authority, issuer, authority, x509.BasicConstraints(True, path_length=0), _may_sign_certificates()
        )
    )
    (folder / SERVER).write_bytes(
        _certificate("dpem federation server", server, issuer, authority, x509.SubjectAlternativeName(names))
    )
    for node in range(nodes):
        public = new_key(node_key(node), PrivateFormat.OpenSSH).public_key()
        (folder / f"{node_key(node)}.pub").write_bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))


def require_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The paths of these files; DpemError with the command that makes them if one is missing."""
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise DpemError(
                f"{os.fspath(path)!r} is missing: make certificates with dpem federate certificates --out DIR, "
                "and copy to each machine what is its own (docs/federation.md)"
            )
    return paths


def _certificate(
    subject: str,
    key: EllipticCurvePrivateKey,
    issuer: str,
    signer: EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
) -> bytes:
    """PEM; with the identifiers that strict TLS libraries ask for."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
    builder = builder.not_valid_after(now + datetime.timedelta(days=365 * YEARS))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=not isinstance(extension, x509.SubjectAlternativeName))
    for identifier in (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
    ):
        builder = builder.add_extension(identifier, critical=False)
    pem: bytes = builder.sign(signer, SHA384()).public_bytes(Encoding.PEM)
    return pem


def _may_sign_certificates() -> x509.KeyUsage:
    from cryptography import x509

    others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    idle = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **idle)


def _alternative_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_secret(path: Path, data: bytes) -> None:
    """Readable by its owner alone, from the first moment on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
