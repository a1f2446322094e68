"""Histograms of the last minute, from counters that only grow. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from ingest.latency import BOUNDS_SECONDS

WINDOW_MS = 60_000
_STEPS_MAX = 240  # however often somebody asks


class Recent:
    """Remember counts of the last minute and give the difference."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, dict[str, list[int]]]] = deque(maxlen=_STEPS_MAX)

    def step(self, counts: Mapping[str, list[int]], now_ms: int) -> dict[str, list[int]]:
        """Note the counts of now; return what was added within the window, or since the start where that is later."""
        if not self._seen:
            self._seen.append((now_ms, {}))
        while len(self._seen) > 1 and self._seen[1][0] <= now_ms - WINDOW_MS:
            self._seen.popleft()
        before = self._seen[0][1]
        self._seen.append((now_ms, dict(counts)))
        return {
            name: [now - then for now, then in zip(new, before.get(name, [0] * len(new)), strict=True)]
            for name, new in counts.items()
        }


def quantile_seconds(counts: list[int], quantile: float) -> float:
    """Estimate a quantile by straight lines within buckets, as PromQL's histogram_quantile does; 0 without data."""
    total = sum(counts)
    if not total:
        return 0.0
    rank, seen = quantile * total, 0
    for index, count in enumerate(counts[: len(BOUNDS_SECONDS)]):
        if count and seen + count >= rank:
            low = BOUNDS_SECONDS[index - 1] if index else 0.0
            return low + (BOUNDS_SECONDS[index] - low) * (rank - seen) / count
        seen += count
    return BOUNDS_SECONDS[-1]
