"""Certificates made by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
FOR_HERE = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """Make a self-signed certificate for this machine; return its file and its key's."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl("req", "-x509", *NEW_KEY, "-days", "2", *FOR_HERE, "-keyout", key, "-out", cert)
    key.chmod(0o600)
    return str(cert), str(key)


def expired_certificate(folder: Path, name: str) -> tuple[str, str]:
    """Make one that was good until yesterday."""
    cert, key, request = folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.csr"
    _openssl("req", "-new", *NEW_KEY, *FOR_HERE, "-keyout", key, "-out", request)
    _openssl("x509", "-req", "-in", request, "-key", key, "-days", "-1", "-copy_extensions", "copyall", "-out", cert)
    key.chmod(0o600)
    return str(cert), str(key)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
