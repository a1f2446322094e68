"""The first pass: which records of what is dirty are the latest of their keys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brokerd.storage.compaction.key_hashes import KeyHasher
from brokerd.storage.compaction.offset_map import OffsetMap
from brokerd.storage.compaction.source import Batch
from ingest.errors import CorruptBatch, UnsupportedFormat
from ingest.limits import MIB
from ingest.records.batch import decode_body, record_offsets
from ingest.records.columns import BinaryColumn

_RECORDS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 8 * MIB


class DirtyScan:
    """Take the dirty batches in order, until the table is full.

    Attributes:
        map: The latest offset of each key below `end_offset`.
        end_offset: What was taken ends here, at the end of a batch.
        tombstones: How many were among it, superseded ones included.
        opaque: Base offsets of batches whose bodies nobody can decode, though they are as their producer made them.
    """

    def __init__(self, hasher: KeyHasher, dirty_offset: int, map_bytes_max: int) -> None:
        self._hasher = hasher
        self._dirty_offset = dirty_offset
        self.map = OffsetMap(map_bytes_max)
        self.end_offset = dirty_offset
        self.tombstones = 0
        self.opaque: set[int] = set()
        self._keys: list[BinaryColumn] = []
        self._offsets: list[NDArray[np.int64]] = []
        self._waiting = self._waiting_bytes = 0
        self._keyless: list[NDArray[np.int64]] = []
        self._keyless_count = 0

    def take(self, batch: Batch) -> bool:
        """Note the keys of a batch; False: there is no room, and nothing of it counts.

        Views over it are kept until the next `settle`.
        """
        header = batch.header
        if header.record_count and header.next_offset > self._dirty_offset:
            wanted = self._waiting + self._keyless_count + len(self.opaque) + header.record_count
            if self.end_offset > self._dirty_offset and not self.map.has_room(wanted):
                return False
            try:
                columns = decode_body(batch.data, header)
                offsets = record_offsets(columns, header)
            except (CorruptBatch, UnsupportedFormat):
                self.opaque.add(header.base_offset)
            else:
                self._add(columns.keys, offsets)
                values = columns.values
                if values.valid is not None:
                    null = ~values.valid if columns.keys.valid is None else ~values.valid & columns.keys.valid
                    self.tombstones += int(null.sum())
        self.end_offset = max(self.end_offset, header.next_offset)
        return True

    def _add(self, keys: BinaryColumn, offsets: NDArray[np.int64]) -> None:
        wanted = offsets >= self._dirty_offset  # the log may start within this batch
        if keys.valid is not None:
            keyless = offsets[wanted & ~keys.valid]
            self._keyless.append(keyless)
            self._keyless_count += len(keyless)
            wanted &= keys.valid
        if not wanted.all():
            rows = np.flatnonzero(wanted)
            keys, offsets = keys.take(rows), offsets[rows]
        self._keys.append(keys)
        self._offsets.append(offsets)
        self._waiting += len(offsets)
        self._waiting_bytes += len(keys.data)
        if self._waiting >= _RECORDS_AT_ONCE or self._waiting_bytes >= _BYTES_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Put what waits into the table; the window that it came from may go."""
        if self._waiting:
            self.map.put(self._hasher.hashes(self._keys), np.concatenate(self._offsets))
        self._keys.clear()
        self._offsets.clear()
        self._waiting = self._waiting_bytes = 0

    def latest(self) -> NDArray[np.int64]:
        """Return the offsets that survive, ascending: the latest of each key, and those without a key."""
        assert not self._waiting, "settle first"
        return np.sort(np.concatenate([self.map.latest(), *self._keyless]))
