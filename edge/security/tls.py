"""TLS 1.2 and newer: a listener's side, whose certificates are read again when they change, and the bridge's."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge.security.listener import ListenerConfig
from ingest.errors import ConfigError


def trusting(ca_file: str) -> ssl.SSLContext:
    """Return a client's context that trusts these certificates, as `ssl.create_default_context` checks them.

    Raises:
        ConfigError: the file can't be read or used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"bridge: tls_ca_file={ca_file}: {error}") from None


class Certificates:
    """Hold a listener's TLS context. Thread: the gateway's loop.

    Args:
        section: Of the settings, for errors.
    Raises:
        ConfigError: a file can't be read or used, or others may read the key.
    """

    def __init__(self, section: str, config: ListenerConfig) -> None:
        self._section = section
        self._cert, self._key = config.tls_cert_file, config.tls_key_file
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._check_key_mode()
        self._load()
        if config.tls_client_ca_file:
            try:
                self.context.load_verify_locations(config.tls_client_ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"{section}: tls_client_ca_file={config.tls_client_ca_file}: {error}") from None
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._seen = self._stamp()

    def reload(self) -> str:
        """Read the files again if they changed; return what was wrong. New connections get the new certificate."""
        stamp = self._stamp()
        if stamp == self._seen:
            return ""
        self._seen = stamp
        try:
            self._load()
        except ConfigError as error:
            return str(error)
        return ""

    def _load(self) -> None:
        try:
            self.context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            files = f"tls_cert_file={self._cert}, tls_key_file={self._key}"
            raise ConfigError(f"{self._section}: {files}: {error}") from None

    def _check_key_mode(self) -> None:
        try:
            if Path(self._key).stat().st_mode & 0o077:
                raise ConfigError(f"{self._key}: others can read it; chmod 600 {self._key}")
        except OSError as error:
            raise ConfigError(f"{self._section}: tls_key_file={self._key}: {error.strerror}") from None

    def _stamp(self) -> tuple[int, ...]:
        try:
            return tuple(Path(path).stat().st_mtime_ns for path in (self._cert, self._key))
        except OSError:
            return ()
