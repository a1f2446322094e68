"""Bound what replicas catch up with, so that those in sync and their producers do not suffer; pure. Source: KIP-73."""

from __future__ import annotations

UNBOUNDED = 2**63 - 1  # Kafka's default of *.replication.throttled.rate
PORTION_MS = 50  # nothing goes before so much is there: a trickle of single batches costs more than it moves
BURST_MS = 200  # and no more than this is saved


class Throttle:
    """A bucket of bytes that fills at a rate. What goes may overdraw it, for a batch goes whole; then it is paid back.

    Attributes:
        bytes_per_s: May be set at any time.
    """

    def __init__(self) -> None:
        self.bytes_per_s = UNBOUNDED
        self._filled = 0  # in thousandths of a byte
        self._at_ms: int | None = None

    def room(self, now_ms: int) -> int:
        """Return how many bytes may go now; 0: none before `ready_ms`."""
        full = self.bytes_per_s * BURST_MS
        if self._at_ms is None:
            self._filled = full
        else:
            self._filled = min(full, self._filled + self.bytes_per_s * max(0, now_ms - self._at_ms))
        self._at_ms = now_ms
        return max(1, self._filled // 1000) if self._filled >= self.bytes_per_s * PORTION_MS else 0

    def spend(self, size_bytes: int, now_ms: int) -> None:
        """Take note of what goes."""
        self.room(now_ms)
        self._filled -= size_bytes * 1000

    def ready_ms(self) -> int:
        """Return when there is room again."""
        missing = self.bytes_per_s * PORTION_MS - self._filled
        return (self._at_ms or 0) + -(-max(0, missing) // self.bytes_per_s)


def names_replica(listed: str, partition: int, broker: int) -> bool:
    """Tell whether a topic's `leader.` or `follower.replication.throttled.replicas` names a replica."""
    return listed == "*" or f"{partition}:{broker}" in listed.split(",")
