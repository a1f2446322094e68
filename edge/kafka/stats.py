"""What a Kafka gateway counted."""

from __future__ import annotations

import msgspec


class Counters:
    """Counts of one process. Thread: its loop writes; any may read.

    Attributes:
        malformed: Connections closed for bytes that are no request.
        failed: Requests that ended in an error of ours; their connections were closed.
    """

    __slots__ = ("bytes_in", "connections", "connections_refused", "failed", "malformed", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes_in = 0
        self.connections = 0
        self.connections_refused = 0
        self.malformed = 0
        self.failed = 0


class KafkaStats(msgspec.Struct, frozen=True, kw_only=True):
    """`Counters` as they were at a moment, and where the gateway listens."""

    port: int
    requests_total: int
    bytes_in_total: int
    connections: int
    connections_refused_total: int
    malformed_total: int
    failed_total: int
