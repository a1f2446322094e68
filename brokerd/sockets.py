"""ZeroMQ sockets of a server, with the limits and options that ZeroMQ's habits ask for."""

from __future__ import annotations

import os
from pathlib import Path

import zmq

from ingest.errors import ConfigError, StorageError

HWM = 64  # answers queued for one peer; it has few requests under way, so more means that it does not read
HEARTBEAT_MS = 1000


def bind_router(
    context: zmq.Context[zmq.Socket[bytes]], *endpoints: str, message_bytes_max: int, hwm: int = HWM
) -> zmq.Socket[bytes]:
    """Return a ROUTER bound to those of `endpoints` that are not empty.

    The caller holds a lock, since a second bind steals an ipc path.

    Raises:
        ConfigError: one can't be bound.
    """
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    socket.set(zmq.SNDHWM, hwm)
    socket.set(zmq.RCVHWM, hwm)
    socket.set(zmq.MAXMSGSIZE, message_bytes_max)
    socket.set(zmq.BACKLOG, 1024)
    if any(endpoint.startswith("tcp:") for endpoint in endpoints):
        socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.set(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
        socket.set(zmq.IPV6, 1)
    before = os.umask(0o077)
    try:
        for endpoint in filter(None, endpoints):
            socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise ConfigError(f"can't listen on {endpoint}: {error.strerror}") from None
    finally:
        os.umask(before)
    return socket


class BoundPaths:
    """The files of the ipc endpoints that this process has bound. Without its file nobody finds a socket any more.

    Args:
        endpoints: Just bound; those that are not ipc are left out.
    """

    def __init__(self, *endpoints: str) -> None:
        paths = [Path(endpoint.removeprefix("ipc://")) for endpoint in endpoints if endpoint.startswith("ipc://")]
        self._inodes = {path: path.stat().st_ino for path in paths}

    def check(self) -> None:
        """Do nothing while they are what they were.

        Where their directory is gone too there is no use in starting again; who is connected is served on.

        Raises:
            StorageError: one was removed or replaced: the next process binds it anew.
        """
        for path, inode in self._inodes.items():
            try:
                found = path.stat().st_ino
            except OSError:
                found = -1
            if found != inode and path.parent.is_dir():
                raise StorageError(
                    f"{path} was removed or replaced, so that nobody can connect: start again", path=path
                )
