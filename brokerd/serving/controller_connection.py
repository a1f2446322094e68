"""The broker's connection to the controller: where this machine's listens, or where that one says the controller is."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable

import zmq

from brokerd.serving.controller_link import Reconnect, Send
from ingest.client.connection import Connection
from ingest.wire.frames import Response

CONNECT_MS = 200  # a machine that is there answers in a few; one that went leaves a connection attempt without answer


class ControllerConnection:
    """One connection, made anew as the `ControllerLink` says. Thread: the broker loop.

    Args:
        home: Where the controller of this machine listens, or its guide to another machine's.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], poller: zmq.Poller, home: str) -> None:
        self._context = context
        self._poller = poller
        self._home = home
        self._queue: deque[bytes] = deque()
        self._opened_ms = 0
        self._connection = Connection(context, home)
        self._register()

    def poll(self, ready: Container[object], now_ms: int) -> tuple[list[Response], bool]:
        """Return the answers that came, and whether the connection has ended since the last look.

        Args:
            ready: The sockets on which something has come.
        """
        lost = self._connection.lost
        responses = self._connection.poll() if any(s in ready for s in self._connection.sockets) else []
        if self._is_away and not self._connection.connected and now_ms >= self._opened_ms + CONNECT_MS:
            self._open(self._home, now_ms)
            return responses, True
        return responses, self._connection.lost != lost

    def carry_out(self, effects: Iterable[Send | Reconnect], now_ms: int) -> None:
        """Send, in order; what can't be sent yet waits, unless the connection is made anew."""
        for effect in effects:
            if isinstance(effect, Send):
                self._queue.append(effect.header)
            else:
                self._open(effect.endpoint or self._home, now_ms)
        while self._queue and self._connection.send(self._queue[0]):
            self._queue.popleft()

    def close(self) -> None:
        for socket in self._connection.sockets:
            self._poller.unregister(socket)
        self._connection.close()

    @property
    def _is_away(self) -> bool:
        return self._connection.endpoint != self._home

    def _open(self, endpoint: str, now_ms: int) -> None:
        self._queue.clear()
        self._opened_ms = now_ms
        self.close()
        self._connection = Connection(self._context, endpoint)
        self._register()

    def _register(self) -> None:
        for socket in self._connection.sockets:
            self._poller.register(socket, zmq.POLLIN)
