"""A histogram of durations that costs a bisection per observation, with the buckets of every latency metric."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram(msgspec.Struct, frozen=True):
    """A snapshot: `counts[i]` observations fell at or below `bounds_seconds[i]` and above the bound before.

    The last count, one more than there are bounds, is of what lies above them all.
    """

    bounds_seconds: tuple[float, ...]
    counts: tuple[int, ...]
    sum_seconds: float


class LatencyRecorder:
    """Count durations by bucket. Thread: one observes, any takes snapshots."""

    __slots__ = ("_counts", "_sum_seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self._sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self._sum_seconds += seconds

    def snapshot(self) -> Histogram:
        return Histogram(BOUNDS_SECONDS, tuple(self._counts), self._sum_seconds)
