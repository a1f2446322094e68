"""What this broker knows of the whole cluster, and who waits to hear more."""

from __future__ import annotations

from collections.abc import Mapping

from brokerd.serving.deadlines import Deadlines
from brokerd.serving.outbox import Outbox, Peer
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request
from ingest.wire.messages import MetadataRequest, MetadataResponse, TopicMetadata

WAITING_MAX = 8  # Metadata requests of one connection that may wait; a further one sends the oldest home


class ParkedMetadata:
    """A Metadata request that waits for a version newer than the one it knows."""

    __slots__ = ("correlation_id", "done", "known_version", "peer", "topics")

    def __init__(self, peer: Peer, correlation_id: int, topics: list[str] | None, known_version: int) -> None:
        self.peer = peer
        self.correlation_id = correlation_id
        self.topics = topics
        self.known_version = known_version
        self.done = False


class ClusterView:
    """The newest metadata from the controller, for clients. Thread: the broker loop.

    Attributes:
        leaderless: How many partitions of the cluster nobody leads.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._deadlines: Deadlines[ParkedMetadata] = Deadlines()
        self._waiting: list[ParkedMetadata] = []
        self._topics: dict[str, TopicMetadata] = {}
        self.snapshot: MetadataResponse | None = None
        self.leaderless = 0

    @property
    def version(self) -> int:
        return -1 if self.snapshot is None else self.snapshot.version

    def topic(self, name: str) -> TopicMetadata | None:
        return self._topics.get(name)

    def update(self, snapshot: MetadataResponse) -> None:
        """Take a newer snapshot and answer whoever waited for it."""
        self.snapshot = snapshot
        self._topics = {topic.name: topic for topic in snapshot.topics}
        self.leaderless = sum(p.leader < 0 for topic in snapshot.topics for p in topic.partitions)
        waiting, self._waiting = self._waiting, []
        for parked in waiting:
            if parked.done:
                continue
            if parked.known_version < snapshot.version:
                self._answer(parked)
            else:
                self._waiting.append(parked)

    def handle(self, peer: Peer, request: Request, now_ms: int, *, wait_for_creation: bool = False) -> None:
        """Answer with the topics asked for, or park until there is a newer version.

        Args:
            wait_for_creation: Some topics are being created: answer with the next version.
        """
        body: MetadataRequest = request.body
        known = self.version if wait_for_creation else body.known_version
        wait_ms = request.timeout_ms if wait_for_creation else min(body.max_wait_ms, request.timeout_ms)
        parked = ParkedMetadata(peer, request.correlation_id, body.topics, known)
        if self.snapshot is None:
            self._outbox.refuse(
                peer,
                request.correlation_id,
                ErrorCode.LEADER_NOT_AVAILABLE,
                "this broker has not heard the controller yet",
            )
        elif known < self.version or wait_ms <= 0:
            self._answer(parked)
        else:
            mine = [other for other in self._waiting if other.peer.connection == peer.connection and not other.done]
            for other in mine[: max(0, len(mine) - WAITING_MAX + 1)]:
                self._answer(other)
            self._waiting = [other for other in self._waiting if not other.done]
            self._waiting.append(parked)
            self._deadlines.add(now_ms + wait_ms, parked)

    def missing(self, body: MetadataRequest) -> list[str]:
        """Return the topics asked for by name that do not exist."""
        return [name for name in body.topics or [] if name not in self._topics]

    def not_created(self, codes: Mapping[str, int]) -> None:
        """Answer those that wait for topics which can't be created, with the code of the refusal for each."""
        for parked in self._waiting:
            if not parked.done and not codes.keys().isdisjoint(parked.topics or ()):
                self._answer(parked, codes)
        self._waiting = [parked for parked in self._waiting if not parked.done]

    def expire(self, now_ms: int) -> None:
        for parked in self._deadlines.pop_due(now_ms):
            self._answer(parked)

    def next_deadline_ms(self) -> int | None:
        return self._deadlines.next_ms()

    def _answer(self, parked: ParkedMetadata, codes: Mapping[str, int] = {}) -> None:
        parked.done = True
        snapshot = self.snapshot
        assert snapshot is not None
        if parked.topics is None:
            topics = snapshot.topics
        else:
            topics = [self._topics.get(name) or _unknown(name, codes) for name in parked.topics]
        self._outbox.answer(
            parked.peer,
            parked.correlation_id,
            MetadataResponse(
                snapshot.cluster_id, snapshot.version, snapshot.controller_epoch, snapshot.brokers, topics
            ),
        )


def _unknown(name: str, codes: Mapping[str, int]) -> TopicMetadata:
    return TopicMetadata(name, b"", [], {}, codes.get(name, int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)))
