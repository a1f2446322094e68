"""TCP ports: whether they can be had, checked before anything is started, and free ones where any will do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

import msgspec

from ingest.errors import ConfigError

FREE_TRIES = 20


class Listener(msgspec.Struct, frozen=True):
    """A port that is asked for.

    Attributes:
        name: Of the listener: mqtt, mqtts, http, tcp.
        processes: Whose it is: one of these listens.
        port: 0: any free one; -1: none.
        setting: What to set to have another.
        optional: Nobody asked for it: where one of its processes' ports can't be had, they are left out.
    """

    name: str
    processes: tuple[str, ...]
    host: str
    port: int
    setting: str
    optional: bool = False


class Picked(msgspec.Struct, frozen=True):
    """The port of each listener that there will be; `warnings` tell of those that are left out."""

    ports: dict[str, int]
    warnings: list[str]


def pick_ports(listeners: Iterable[Listener], running: dict[str, int], survivors: set[str]) -> Picked:
    """Choose the port of each listener.

    Args:
        running: The ports of an appliance that is taken over.
        survivors: Names of its processes that live: what they listen on is not taken from us.
    Raises:
        ConfigError: a port is taken, or not ours to take.
    """
    asked = sorted(listeners, key=lambda one: one.optional)  # those give way to what was asked for
    picked = Picked({}, [])
    left_out: set[tuple[str, ...]] = set()
    for listener in asked:
        if listener.port < 0 or listener.processes in left_out:
            continue
        before = running.get(listener.name) if survivors.intersection(listener.processes) else None
        try:
            picked.ports[listener.name] = _pick(listener, before, set(picked.ports.values()))
        except ConfigError as error:
            if not listener.optional:
                raise
            left_out.add(listener.processes)
            picked.warnings.append(f"{error}; until then {' and '.join(listener.processes)} does not run")
    for listener in asked:
        if listener.processes in left_out:
            picked.ports.pop(listener.name, None)
    return picked


def _pick(listener: Listener, before: int | None, taken: set[int]) -> int:
    if before is not None and listener.port in (0, before):
        return before
    if listener.port == 0:
        return _free_port(listener.host, taken)
    if listener.port in taken:
        raise ConfigError(
            f"{listener.name} port {listener.port} is asked for twice; set another with {listener.setting}"
        )
    check_port(listener)
    return listener.port


def address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def check_port(listener: Listener) -> None:
    """Refuse a port that can't be listened on now.

    Raises:
        ConfigError: says why, who has it, and what to set.
    """
    try:
        _bind(listener.host, listener.port).close()
    except OSError as error:
        what = f"{listener.name} port {listener.port} on {listener.host}"
        if error.errno == errno.EADDRINUSE:
            reason = f"is taken{_who_listens(listener.port)}"
        elif error.errno == errno.EACCES:
            reason = "needs root: it is below 1024"
        else:
            reason = f"can't be had: {error.strerror or error}"
        raise ConfigError(f"{what} {reason}; set another with {listener.setting} (0 picks a free one)") from None


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    probe = socket.socket(family, kind, protocol)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener will: TIME_WAIT is no obstacle
        probe.bind(address)
        probe.listen(1)
    except OSError:
        probe.close()
        raise
    return probe


def _free_port(host: str, taken: set[int]) -> int:
    for _ in range(FREE_TRIES):
        with _bind(host, 0) as probe:
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
    raise ConfigError(f"no free port on {host}")


def _who_listens(port: int) -> str:
    """Name the program that listens, if we may know."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f" by {psutil.Process(connection.pid).name()} ({connection.pid})"
    except psutil.Error:
        pass
    return " by another program"
