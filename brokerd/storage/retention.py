"""Decide which segments go. Pure: sizes, ages and settings in, a count out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class SealedSegment(msgspec.Struct, frozen=True):
    """What the decision needs: `idle_ms` is the running time since the last append to the segment."""

    size_bytes: int
    idle_ms: int
    end_offset: int


def count_expired(
    segments: Sequence[SealedSegment],
    active_bytes: int,
    *,
    high_watermark: int,
    retention_ms: int,
    retention_bytes: int,
) -> int:
    """Return how many of the oldest sealed segments to delete.

    Time: a segment idle for longer than `retention_ms`. Size: while the log without the segment still holds
    `retention_bytes`, as in Kafka. Nothing at or above the high watermark goes.
    """
    count = 0
    stored = active_bytes + sum(segment.size_bytes for segment in segments)
    for segment in segments:
        if segment.end_offset > high_watermark:
            break
        by_time = 0 <= retention_ms < segment.idle_ms
        by_size = 0 <= retention_bytes <= stored - segment.size_bytes
        if not by_time and not by_size:
            break
        stored -= segment.size_bytes
        count += 1
    return count
