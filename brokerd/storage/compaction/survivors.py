"""The second pass: what becomes of each batch, decided for a window at a time. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brokerd.storage.compaction.dirty_scan import DirtyScan
from brokerd.storage.compaction.key_hashes import KeyHasher
from brokerd.storage.compaction.source import Batch
from ingest.errors import CorruptBatch, UnsupportedFormat
from ingest.limits import MIB
from ingest.records.batch import decode_body, record_offsets
from ingest.records.columns import ColumnsBody

_BYTES_AT_ONCE = 8 * MIB


class Verdict:
    """What stays of one batch.

    Attributes:
        rows: (m,) the numbers of the records that stay; None: all of them.
        columns: The batch decoded, where some go.
    """

    __slots__ = ("columns", "rows")

    def __init__(self, rows: NDArray[np.intp] | None = None, columns: ColumnsBody | None = None) -> None:
        self.rows = rows
        self.columns = columns


_ALL = Verdict()
_NONE = Verdict(np.empty(0, np.intp))


class Survivors:
    """Tell which records stay.

    What lies at or above the scan's end stays. What was dirty stays if it is the latest of its key; what was clean, if
    its key is not among the dirty ones, unless it is a tombstone below `purge_end`. What has no key stays, as does a
    batch whose body nobody can decode. What lies below the log start goes.

    Attributes:
        tombstones: That stay, in each range of what was clean.
    """

    def __init__(
        self,
        hasher: KeyHasher,
        scan: DirtyScan,
        *,
        log_start: int,
        dirty_offset: int,
        purge_end: int,
        range_ends: list[int],
    ) -> None:
        self._hasher = hasher
        self._keys = scan.map
        self._opaque = scan.opaque
        self._latest = scan.latest()
        self._log_start = log_start
        self._dirty_offset = dirty_offset
        self._end_offset = scan.end_offset
        self._purge_end = purge_end
        self._range_ends = np.asarray(range_ends, np.int64)
        self.tombstones = np.zeros(len(range_ends), np.int64)

    def judge(self, batches: list[Batch]) -> list[Verdict]:
        """Return a verdict for each batch."""
        verdicts = [_ALL] * len(batches)
        clean: list[tuple[int, ColumnsBody, NDArray[np.int64]]] = []
        size = 0
        for number, batch in enumerate(batches):
            header = batch.header
            if header.base_offset >= self._end_offset:
                break
            if header.next_offset <= self._log_start or not header.record_count:
                verdicts[number] = _NONE
            elif header.next_offset > self._dirty_offset:
                verdicts[number] = self._of_dirty(batch)
            elif self._keys.count or header.base_offset < max(self._purge_end, self._log_start) or self._counts:
                try:
                    columns = decode_body(batch.data, header)
                    clean.append((number, columns, record_offsets(columns, header)))
                except (CorruptBatch, UnsupportedFormat):
                    continue
                size += max(header.uncompressed_size, header.body_size)
                if size >= _BYTES_AT_ONCE:
                    self._judge_clean(clean, verdicts)
                    size = 0
        self._judge_clean(clean, verdicts)
        return verdicts

    @property
    def _counts(self) -> bool:
        return bool(len(self._range_ends))

    def _of_dirty(self, batch: Batch) -> Verdict:
        header = batch.header
        low, high = np.searchsorted(self._latest, (header.base_offset, header.next_offset)).tolist()
        count = high - low
        if count == header.record_count or header.base_offset in self._opaque:
            return _ALL
        if count == 0:
            return _NONE
        columns = decode_body(batch.data, header)
        return Verdict(np.searchsorted(record_offsets(columns, header), self._latest[low:high]), columns)

    def _judge_clean(self, clean: list[tuple[int, ColumnsBody, NDArray[np.int64]]], verdicts: list[Verdict]) -> None:
        """Judge what was clean, all keys of it at once."""
        if not clean:
            return
        counts = [len(offsets) for _, _, offsets in clean]
        if self._keys.count:
            superseded = self._keys.holds(self._hasher.hashes([columns.keys for _, columns, _ in clean]))
        else:
            superseded = np.zeros(sum(counts), np.bool_)
        ends = np.cumsum(counts)
        for (number, columns, offsets), end, count in zip(clean, ends.tolist(), counts, strict=True):
            verdicts[number] = self._of_clean(columns, offsets, ~superseded[end - count : end])
        clean.clear()

    def _of_clean(self, columns: ColumnsBody, offsets: NDArray[np.int64], stays: NDArray[np.bool_]) -> Verdict:
        keyed, values = columns.keys.valid, columns.values.valid
        if values is not None:
            tombstone = ~values if keyed is None else ~values & keyed
            stays &= ~(tombstone & (offsets < self._purge_end))
        if keyed is not None:
            stays |= ~keyed
        if offsets[0] < self._log_start:
            stays &= offsets >= self._log_start
        if values is not None and self._counts:
            left = offsets[tombstone & stays]
            ranges = np.searchsorted(self._range_ends, left, side="right")
            self.tombstones += np.bincount(ranges, minlength=len(self._range_ends))[: len(self._range_ends)]
        if stays.all():
            return _ALL
        rows = np.flatnonzero(stays)
        return Verdict(rows, columns) if len(rows) else _NONE
