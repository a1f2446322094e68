"""Requests that wait for a partition to move."""

from __future__ import annotations

from brokerd.serving.outbox import Peer
from ingest.wire.messages import FetchRequest, ProducedPartition


class ParkedProduce:
    """A produce request some of whose batches are appended and not yet committed."""

    __slots__ = ("correlation_id", "counted", "done", "peer", "results", "throttle_ms", "waiting")

    def __init__(self, peer: Peer, correlation_id: int, results: list[ProducedPartition]) -> None:
        self.peer = peer
        self.counted = False
        self.throttle_ms = 0
        self.correlation_id = correlation_id
        self.results = results
        self.waiting = 0
        self.done = False


class ParkedFetch:
    """A fetch that found too little.

    Attributes:
        throttled: Its client is over its quota: it gets no records.
        wanted_bytes: What its partitions must have appended, all together, before it is worth another look.
    """

    __slots__ = ("body", "client_id", "correlation_id", "done", "peer", "throttled", "wanted_bytes")

    def __init__(
        self, peer: Peer, correlation_id: int, body: FetchRequest, client_id: str = "", *, throttled: bool = False
    ) -> None:
        self.peer = peer
        self.client_id = client_id
        self.throttled = throttled
        self.correlation_id = correlation_id
        self.body = body
        self.wanted_bytes = 0
        self.done = False
