"""The leader's view of how far its followers hold the log, and the high watermark that follows from it. Pure."""

from __future__ import annotations

import msgspec


class ReplicaEnd(msgspec.Struct, frozen=True):
    """How far one replica holds the log: in its page cache, and on its disk."""

    appended_end: int
    flushed_end: int


class HighWatermark:
    """The high watermark of a led partition: the minimum over the in-sync replicas, it never goes back.

    Under `durability=fsync` a replica counts with what it has flushed, the leader too; under `os` with what it has
    appended. Without followers the in-sync set is the leader alone.
    """

    __slots__ = ("_ends", "_leader", "in_sync", "min_in_sync", "offset")

    def __init__(self, leader: int, offset: int, *, min_in_sync: int = 1) -> None:
        """Start a leadership.

        Args:
            leader: Its broker id.
            offset: The log's high watermark now.
        """
        self._leader = leader
        self._ends: dict[int, ReplicaEnd] = {}
        self.in_sync: frozenset[int] = frozenset({leader})
        self.min_in_sync = min_in_sync
        self.offset = offset

    def set_in_sync(self, replicas: frozenset[int]) -> None:
        """Count over these from now on: the maximal set, proposals that are not confirmed included."""
        assert self._leader in replicas, "a leader is in sync with itself"
        self.in_sync = replicas

    def update(self, replica: int, end: ReplicaEnd, *, durable: bool) -> int:
        """Note how far a replica is and return the high watermark."""
        self._ends[replica] = end
        if len(self.in_sync) < self.min_in_sync:
            return self.offset
        ends = [self._ends.get(member) for member in self.in_sync]
        if all(ends):
            least = min((e.flushed_end if durable else e.appended_end) for e in ends if e is not None)
            self.offset = max(self.offset, least)
        return self.offset
