"""Answers given to ZeroMQ and not yet read by their peers: a peer that stops reading must cost bounded memory."""

from __future__ import annotations

from collections import deque

import zmq

Connection = tuple[int, bytes]


class UnsentAnswers:
    """Count the bytes ZeroMQ still holds. Thread: the broker loop.

    Args:
        bytes_max: For all peers together; one may hold a quarter.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._by_connection: dict[Connection, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._decided: dict[Connection, int] = {}
        self.total_bytes = 0

    def room(self, connection: Connection) -> int:
        """Return how many bytes more an answer to this peer may have; 0: it does not read what it asked for."""
        mine = self._prune(connection)
        if self.total_bytes * 2 > self._bytes_max:
            for other in list(self._by_connection):
                self._prune(other)
        mine += self._decided.get(connection, 0)
        return max(
            0, min(self._bytes_max // 4 - mine, self._bytes_max - self.total_bytes - sum(self._decided.values()))
        )

    def decided(self, connection: Connection, size: int) -> None:
        """Note an answer of `size` bytes that will be handed to ZeroMQ in this round."""
        self._decided[connection] = self._decided.get(connection, 0) + size

    def round_over(self) -> None:
        """What was decided is sent, or dropped, by now."""
        self._decided.clear()

    def add(self, connection: Connection, tracker: zmq.MessageTracker, size: int) -> None:
        """Note an answer of `size` bytes that was handed to ZeroMQ and is shared with it."""
        self.total_bytes += size
        self._by_connection.setdefault(connection, deque()).append((tracker, size))

    def _prune(self, connection: Connection) -> int:
        """Forget what the peer has read; return the bytes it has not."""
        waiting = self._by_connection.get(connection)
        if waiting is None:
            return 0
        while waiting and waiting[0][0].done:
            self.total_bytes -= waiting.popleft()[1]
        if not waiting:
            del self._by_connection[connection]
            return 0
        return sum(size for _, size in waiting)
