"""Columns on their way into batches: spread over partitions by key, cut into pieces of a batch's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.client.batch import RECORD_OVERHEAD_BYTES
from ingest.errors import UsageError
from ingest.records.columns import BinaryColumn


def as_bytes(item: Any, what: str) -> bytes:
    """Return a value or key as bytes.

    Raises:
        UsageError: it is not bytes-like; without a serializer nothing else is taken.
    """
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    hint = f'{what}_serializer="string"' if isinstance(item, str) else f"a {what}_serializer"
    raise UsageError(f"{what} must be bytes, not {type(item).__name__} ({item!r:.60}); encode it, or use {hint}")


def as_column(column: Any, what: str) -> Any:
    """Return a column whose items, where it is no array, are bytes or None.

    Raises:
        UsageError: an item is neither.
    """
    if isinstance(column, np.ndarray) and column.dtype.hasobject:
        column = column.tolist()
    if column is None or isinstance(column, np.ndarray | BinaryColumn):
        return column
    return [item if item is None else as_bytes(item, what) for item in column]


def partitions_of(keys: Any, choose: Callable[[bytes], int]) -> NDArray[np.int64]:
    """Return (n,) the partition of each key; each distinct key of an array is asked for once."""
    count = len(keys)
    if not isinstance(keys, np.ndarray):
        return np.fromiter((choose(key) for key in keys), np.int64, count)
    flat = np.ascontiguousarray(keys)
    width = flat.nbytes // count
    distinct, inverse = np.unique(flat.reshape(count, -1).view(f"V{width}").ravel(), return_inverse=True)
    chosen: NDArray[np.int64] = np.fromiter((choose(key.tobytes()) for key in distinct), np.int64, len(distinct))[
        inverse
    ]
    return chosen


def record_sizes(keys: Any, values: Any, count: int) -> NDArray[np.int64]:
    """Return (n,) the bytes that each record takes in a batch, at most."""
    sizes: NDArray[np.int64] = np.full(count, RECORD_OVERHEAD_BYTES, np.int64)
    for column in (keys, values):
        sizes += column_sizes(column, count)
    return sizes


def pieces(sizes: NDArray[np.int64], bytes_max: int) -> Iterator[tuple[slice, int]]:
    """Cut rows into slices of at most `bytes_max`, or of one row; yield each with its bytes."""
    ends = np.cumsum(sizes)
    start, before = 0, 0
    while start < len(ends):
        end = max(start + 1, int(np.searchsorted(ends, before + bytes_max, side="right")))
        yield slice(start, end), int(ends[end - 1]) - before
        start, before = end, int(ends[end - 1])


def cut(column: Any, rows: slice) -> Any:
    """Return a slice of a column; zero copy of arrays."""
    if column is None:
        return None
    return column.rows(rows) if isinstance(column, BinaryColumn) else column[rows]


def pick(column: Any, rows: NDArray[np.int64]) -> Any:
    """Return chosen rows of a column."""
    if column is None:
        return None
    if isinstance(column, np.ndarray):
        return column[rows]
    strings = column.to_list() if isinstance(column, BinaryColumn) else column
    return [strings[row] for row in rows.tolist()]


def has_nulls(column: Any) -> bool:
    """Tell whether an item of a column is null; None: all are."""
    if column is None:
        return True
    if isinstance(column, np.ndarray):
        return False
    if isinstance(column, BinaryColumn):
        return column.valid is not None and not bool(column.valid.all())
    return any(item is None for item in column)


def column_sizes(column: Any, count: int) -> Any:
    """Return the bytes of each item, or of all where they have one width; of a null 0."""
    if column is None:
        return 0
    if isinstance(column, np.ndarray):
        return column.nbytes // count
    if isinstance(column, BinaryColumn):
        return column.width if column.width >= 0 else np.diff(column.offsets)
    return np.fromiter((0 if item is None else len(item) for item in column), np.int64, count)
