"""A heap of deadlines: parked requests that must be answered by a time, whatever happens."""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar


class Parked(Protocol):
    """Something that waits; `done` once it was answered."""

    done: bool


COMPACT_FROM = 128

T = TypeVar("T", bound=Parked)


class Deadlines(Generic[T]):
    """Parked requests by the time they must be answered; the answered ones are dropped as they come up."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._count = 0
        self._compact_at = COMPACT_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, deadline_ms: int, parked: T) -> None:
        self._count += 1
        heapq.heappush(self._heap, (deadline_ms, self._count, parked))
        if len(self._heap) >= self._compact_at:  # answered long before their time, and not yet come up
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._compact_at = max(COMPACT_FROM, 2 * len(self._heap))

    def next_ms(self) -> int | None:
        """Return the earliest deadline of what still waits."""
        heap = self._heap
        while heap and heap[0][2].done:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now_ms: int) -> list[T]:
        """Take out what still waits and is due, earliest first."""
        due: list[T] = []
        while (deadline_ms := self.next_ms()) is not None and deadline_ms <= now_ms:
            due.append(heapq.heappop(self._heap)[2])
        return due
