"""What a listener has to have before other machines may reach it: the rules that all gateways share. Pure."""

from __future__ import annotations

import ipaddress
from typing import Protocol

from ingest.errors import ConfigError


class ListenerConfig(Protocol):
    """The settings of a gateway that are about who may come in; a frozen Struct of the gateway's has them.

    Attributes:
        port, tls_port: 0: any free one; -1: there is no such listener.
        tls_client_ca_file: Only clients with a certificate signed by these may connect.
        password_file: Users; empty: everybody may come in.
        allow_insecure: Listen beyond loopback without passwords, or without TLS.
    """

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def tls_port(self) -> int: ...

    @property
    def tls_cert_file(self) -> str: ...

    @property
    def tls_key_file(self) -> str: ...

    @property
    def tls_client_ca_file(self) -> str: ...

    @property
    def password_file(self) -> str: ...

    @property
    def allow_insecure(self) -> bool: ...


def check_listener(section: str, config: ListenerConfig) -> None:
    """Refuse a listener that can't be, or that is open to others without being meant to.

    Raises:
        ConfigError: names the section, the field, its value and what to do.
    """
    if config.port < 0 and config.tls_port < 0:
        raise ConfigError(f"{section}: port and tls_port are both -1: nothing to listen on")
    if config.tls_port >= 0 and not (config.tls_cert_file and config.tls_key_file):
        raise ConfigError(f"{section}: tls_port={config.tls_port} needs tls_cert_file and tls_key_file")
    if is_loopback(config.host) or config.allow_insecure:
        return
    missing = [] if config.password_file else ["password_file (make one with `forebay gateway passwd FILE USER`)"]
    if config.port >= 0:
        missing.append("TLS only (port=-1 with tls_port, tls_cert_file, tls_key_file)")
    if missing:
        raise ConfigError(
            f"{section}: host={config.host} is reached from other machines; that needs {' and '.join(missing)}, "
            "or allow_insecure=true"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
