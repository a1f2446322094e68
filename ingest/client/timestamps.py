"""Timestamps as a caller gives them, checked in the call that brings them: one bad one would spoil its whole batch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import UsageError

TIMESTAMP_MS_MAX = 1 << 53  # the year 287,396; a float64 of milliseconds is exact up to there


def check_timestamp(timestamp_ms: Any) -> None:
    """Refuse what is not milliseconds since 1970-01-01 UTC.

    Raises:
        UsageError: not a number, negative, or too large.
    """
    if not (isinstance(timestamp_ms, int | float | np.integer | np.floating) and 0 <= timestamp_ms <= TIMESTAMP_MS_MAX):
        raise UsageError(f"timestamp_ms={timestamp_ms!r:.60} is not milliseconds since 1970, 0..2^53")


def as_timestamps(timestamps: Any, count: int) -> NDArray[np.int64]:
    """Return (count,) int64 milliseconds since 1970-01-01 UTC, of numbers or of datetime64; None: now for all.

    Raises:
        UsageError: not a number for each record, or one that `check_timestamp` refuses.
    """
    if timestamps is None:
        return np.full(count, time.time_ns() // 1_000_000)
    try:
        given = np.asarray(timestamps)
    except ValueError as error:  # of no shape
        raise UsageError(f"timestamps: {error}") from None
    if given.dtype.kind == "M":
        given = given.astype("datetime64[ms]").astype(np.int64)
    if given.shape != (count,) or given.dtype.kind not in "iuf":
        raise UsageError(f"timestamps of shape {given.shape} and type {given.dtype} for {count} records")
    if count:
        check_timestamp(given.min().item())
        check_timestamp(given.max().item())
    return given.astype(np.int64)
