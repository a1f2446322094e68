"""A control socket: a line in, a line out, over a unix stream; for supervisor and children alike."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path

SUFFIX = ".ctl"
LINE_BYTES_MAX = 4096
CONNECTIONS_MAX = 32
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Ready = Callable[[int], None]  # what a selector's key holds as data: called with the events that came


class Connection:
    """One peer. It never blocks: what the peer does not read waits, and nothing more is read from it meanwhile."""

    def __init__(self, server: ControlServer, peer: socket.socket) -> None:
        self._server = server
        self._peer = peer
        self._input = bytearray()
        self._output = bytearray()
        self.on_close: Callable[[], None] | None = None
        self.pinned = False  # it is not given up to make room for another
        server.selector.register(peer, _READ, self._ready)

    def send(self, line: bytes) -> None:
        """Send one line, now or when the peer reads. Thread: the selector's."""
        self._output += line
        self._flush()

    def send_now(self, line: bytes) -> None:
        """Send one short line if there is room, past whatever waits. Thread: any."""
        with contextlib.suppress(OSError):
            self._peer.send(line, socket.MSG_DONTWAIT)

    def close(self) -> None:
        if self._peer.fileno() < 0:
            return
        self._server.selector.unregister(self._peer)
        self._peer.close()
        self._server.connections.remove(self)
        if self.on_close is not None:
            self.on_close()

    def _ready(self, events: int) -> None:
        if events & _WRITE:
            self._flush()
        elif events & _READ:
            self._read()

    def _read(self) -> None:
        try:
            data = self._peer.recv(LINE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._input += data
        while b"\n" in self._input and self._peer.fileno() >= 0:
            line, _, rest = bytes(self._input).partition(b"\n")
            self._input = bytearray(rest)
            self.send(self._server.answer(line.decode(errors="replace").strip(), self))
        if len(self._input) > LINE_BYTES_MAX:
            self.close()

    def _flush(self) -> None:
        if self._peer.fileno() < 0:
            return
        try:
            while self._output:
                sent = self._peer.send(self._output)
                del self._output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._server.selector.modify(self._peer, _WRITE if self._output else _READ, self._ready)


class ControlServer:
    """Listen on a path. Thread: the one that runs the selector."""

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        answer: Callable[[str, Connection], bytes],
    ) -> None:
        """Bind the path, over what a dead predecessor left there.

        Args:
            answer: Given a command and who asks, returns one line, its end included; or nothing, if it has answered.
        Raises:
            OSError: the path can't be bound.
        """
        self.path = path
        self.selector = selector
        self.answer = answer
        self.connections: list[Connection] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        path.unlink(missing_ok=True)
        before = os.umask(0o077)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(before)
        self._listener.listen(16)
        selector.register(self._listener, _READ, self._accept)

    def _accept(self, events: int) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # gone again, or no descriptor is left: whoever asks will ask again
        peer.setblocking(False)
        if len(self.connections) >= CONNECTIONS_MAX:
            oldest = next((one for one in self.connections if not one.pinned), None)
            if oldest is not None:
                oldest.close()
        self.connections.append(Connection(self, peer))

    def close(self) -> None:
        """Close everything and remove the path."""
        for connection in list(self.connections):
            connection.close()
        self.selector.unregister(self._listener)
        self._listener.close()
        self.path.unlink(missing_ok=True)
