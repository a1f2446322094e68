"""Processes that outlived their supervisor: found by what it wrote down, verified, and tied to a new one."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import ForebayError, TransportError
from ops.supervisor.control_client import Identity, connect, decode_identity
from ops.supervisor.control_server import SUFFIX
from ops.supervisor.state_file import RunningProcess

ANSWER_SECONDS = 2.0  # a broker at full load answers within tens of ms


@dataclass(slots=True)
class Survivor:
    """A live process. It did not answer if there is no identity.

    Attributes:
        tether: The connection that tells it that it has a supervisor again.
        unread: What it said after it had said who it is.
    """

    process: RunningProcess
    pidfd: int
    tether: socket.socket | None = None
    identity: Identity | None = None
    unread: bytes = b""


def find_survivors(processes: Iterable[RunningProcess]) -> list[Survivor]:
    """Return those that are the very processes that were written down. The caller owns the pidfds."""
    survivors = []
    for process in processes:
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            continue
        if process.lives():  # looked at after the pidfd was opened: it holds this one, not a later owner of the pid
            survivors.append(Survivor(process, pidfd))
        else:
            os.close(pidfd)
    return survivors


def tie(survivors: Iterable[Survivor], run_dir: Path) -> None:
    """Ask all at once to be their supervisor. Cost: a round trip, or `ANSWER_SECONDS` if one does not answer."""
    deadline = time.monotonic() + ANSWER_SECONDS
    asked = []
    for survivor in survivors:
        with contextlib.suppress(OSError, TransportError):
            survivor.tether = connect(run_dir / f"{survivor.process.name}{SUFFIX}", ANSWER_SECONDS)
            survivor.tether.sendall(b"supervise\n")
            asked.append(survivor)
    for survivor in asked:
        assert survivor.tether is not None
        try:
            line, survivor.unread = _first_line(survivor.tether, deadline)
            identity = decode_identity(line)
            if identity.pid == survivor.process.pid:
                survivor.identity = identity
        except (OSError, ForebayError):
            survivor.tether.close()
            survivor.tether = None


def _first_line(tether: socket.socket, deadline: float) -> tuple[bytes, bytes]:
    data = b""
    while b"\n" not in data:
        tether.settimeout(max(0.001, deadline - time.monotonic()))
        more = tether.recv(1 << 16)
        if not more:
            raise TransportError("closed")
        data += more
    line, _, rest = data.partition(b"\n")
    return line, rest
