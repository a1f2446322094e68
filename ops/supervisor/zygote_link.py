"""The supervisor's end of the zygote: start it, order forks, hear of deaths."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from ingest.errors import ConfigError
from ops.supervisor.orders import ORDER_BYTES_MAX, Fork, Importing, Report

# numpy's BLAS would start a thread for each core in a process that must have one; few malloc arenas keep memory shared
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
_decode = msgspec.msgpack.Decoder(Report).decode


class ZygoteGone(Exception):
    """The zygote has ended."""


class ZygoteLink:
    """One zygote. Thread: the supervisor's."""

    def __init__(self, modules: Sequence[str], output_fd: int) -> None:
        """Start one; it answers `Imported` once it can fork. It inherits nothing but its socket and `output_fd`."""
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ops.supervisor.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output_fd,
                stderr=output_fd,
                cwd="/",
                env={**os.environ, **{key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()}},
            )
        self.pid = self._process.pid
        self._send(Importing(list(modules)))

    def fork(self, order: Fork, tether: socket.socket) -> None:
        """Order a fork; `Forked` answers it.

        Raises:
            ZygoteGone: there is no one to order.
            ConfigError: the config is too large to hand over.
        """
        self._send(order, [tether.fileno()])

    def receive(self) -> tuple[Report, int | None]:
        """Return the next report, with the pidfd that came beside it.

        Raises:
            ZygoteGone: there are no more.
        """
        try:
            data, fds, _, _ = socket.recv_fds(self.link, ORDER_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            data, fds = b"", []
        if not data:
            raise ZygoteGone
        return _decode(data), fds[0] if fds else None

    def close(self) -> int:
        """Let it go, and return how it ended. Its children live on."""
        self.link.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1)
        self._process.kill()
        return self._process.wait()

    def _send(self, order: Fork | Importing, fds: Sequence[int] = ()) -> None:
        data = msgspec.msgpack.encode(order)
        if len(data) > ORDER_BYTES_MAX:
            raise ConfigError(f"the configuration of a process is {len(data)} bytes; at most {ORDER_BYTES_MAX} fit")
        try:
            socket.send_fds(self.link, [data], list(fds))
        except OSError as error:
            raise ZygoteGone from error
