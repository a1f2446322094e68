"""Virtual time: what happens next, and dice that a seed throws."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

EVENTS_MAX = 300_000  # some 20 times what a run takes


class Schedule:
    """Events by time; at the same time in the order they were set.

    Attributes:
        now_ms: The monotonic clock of every machine.
        wall_offset_ms: The wall clock is that much ahead; it may step.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now_ms = 1_000
        self.wall_offset_ms = 1_700_000_000_000
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.happened = 0

    @property
    def wall_ms(self) -> int:
        return self.now_ms + self.wall_offset_ms

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Have something happen later."""
        self._count += 1
        heapq.heappush(self._events, (self.now_ms + max(0, delay_ms), self._count, act))

    def run_next(self, until_ms: int) -> bool:
        """Let the next event happen; False: there is none before `until_ms`, and it is that late now."""
        if not self._events or self._events[0][0] > until_ms:
            self.now_ms = max(self.now_ms, until_ms)
            return False
        self.now_ms, _, act = heapq.heappop(self._events)
        act()
        self.happened += 1
        assert self.happened < EVENTS_MAX, "the cluster turns in circles"
        return True
