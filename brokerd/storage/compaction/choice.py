"""Which log to compact next. Pure: what is dirty and settings in, an urgency out."""

from __future__ import annotations

from brokerd.storage.compaction.log_compaction import Dirt
from brokerd.storage.config import LogConfig

Urgency = tuple[int, float]
_TOMBSTONES, _DIRTY, _OVERDUE = 1, 2, 3


def urgency(config: LogConfig, dirt: Dirt, *, purges: bool) -> Urgency | None:
    """Return how much a log wants a run, the greater the more; None: it wants none.

    First what has waited for `max.compaction.lag.ms`, the longest; then what is dirty beyond
    `min.cleanable.dirty.ratio`, the most, as in Kafka; then tombstones whose time has come.
    """
    if dirt.dirty_bytes and dirt.oldest_ms >= config.max_compaction_lag_ms:
        return _OVERDUE, dirt.oldest_ms - config.max_compaction_lag_ms
    if dirt.dirty_bytes and dirt.ratio > config.min_cleanable_dirty_ratio:
        return _DIRTY, dirt.ratio
    return (_TOMBSTONES, 0.0) if purges else None
