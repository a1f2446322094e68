"""The two index files of one segment: written behind the log, looked up by bisection, rebuilt when damaged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from brokerd.storage.disk import Disk
from brokerd.storage.files import READ, READ_WRITE, File
from brokerd.storage.index_entries import NO_TIMESTAMP, IndexEntries
from ingest.errors import StorageError
from ingest.log.index import (
    ENTRY_SIZE,
    IndexDamaged,
    ReadEntry,
    crc_seed,
    decode_offset_entry,
    decode_time_entry,
    find_offset,
    find_time,
)
from ingest.log.names import INDEX, TIME_INDEX, file_name
from ingest.records.header import BatchHeader

# One write per so many entries: at 4 KiB between entries a reader's walk past the last written one stays below 1 MiB.
_PENDING_BYTES_MAX = 256 * ENTRY_SIZE


class SegmentIndex:
    """Hints of one segment. Entries wait in memory until there are enough for one write. No descriptor stays open."""

    __slots__ = ("_base", "_disk", "_entries", "_seed", "_written", "path", "time_path")

    def __init__(self, disk: Disk, directory: Path, base_offset: int, interval_bytes: int) -> None:
        self._disk = disk
        self._base = base_offset
        self._seed = crc_seed(base_offset)
        self._entries = IndexEntries(base_offset, interval_bytes)
        self._written = -1  # entries in the files; -1: not yet looked
        self.path = directory / file_name(base_offset, INDEX)
        self.time_path = directory / file_name(base_offset, TIME_INDEX)

    def set_interval(self, interval_bytes: int) -> None:
        """Make an entry every so many bytes from now on."""
        self._entries.interval_bytes = interval_bytes

    # ---- writing, in the order of the log

    def add(self, leader_epoch: int, base_offset: int, position: int, timestamp_ms: int, next_position: int) -> None:
        """Note a batch that was appended; every `index.interval.bytes` one becomes an entry."""
        entries = self._entries
        entries.add(leader_epoch, base_offset, position, timestamp_ms, next_position)
        if len(entries.offsets) >= _PENDING_BYTES_MAX:
            self.write_pending()

    def write_pending(self) -> None:
        """Write what is in memory. Not flushed: hints may be lost."""
        offsets, times = self._entries.offsets, self._entries.times
        if not offsets:
            return
        position = self._count_written() * ENTRY_SIZE
        self._disk.append_hint(self.path, offsets, position)
        self._disk.append_hint(self.time_path, times, position)
        self._written += len(offsets) // ENTRY_SIZE
        offsets.clear()
        times.clear()

    def _count_written(self) -> int:
        if self._written < 0:
            sizes = [path.stat().st_size if path.exists() else 0 for path in (self.path, self.time_path)]
            self._written = min(sizes) // ENTRY_SIZE
        return self._written

    # ---- looking up

    def _reader(self, path: Path, pending: bytearray) -> tuple[ReadEntry, int]:
        written = self._count_written()
        count = written + len(pending) // ENTRY_SIZE
        if written == 0:
            return lambda i: bytes(pending[i * ENTRY_SIZE : (i + 1) * ENTRY_SIZE]), count
        try:
            file = File(path, READ)
        except FileNotFoundError:
            raise IndexDamaged(f"{path} is gone") from None
        except OSError as error:
            raise StorageError(f"opening {path}: {error}", path=path) from error

        def read(i: int) -> bytes:
            if i >= written:
                start = (i - written) * ENTRY_SIZE
                return bytes(pending[start : start + ENTRY_SIZE])
            return os.pread(file.fd, ENTRY_SIZE, i * ENTRY_SIZE)

        return read, count

    def find_offset(self, offset: int) -> tuple[int, int]:
        """Return (offset, position) of a batch at or before `offset`, the segment's start if no entry is nearer.

        Raises:
            IndexDamaged: call `rebuild`.
        """
        read, count = self._reader(self.path, self._entries.offsets)
        entry = find_offset(self._seed, read, count, offset - self._base)
        return (self._base + entry[0], entry[1]) if entry else (self._base, 0)

    def find_time(self, timestamp_ms: int) -> int:
        """Return an offset below which the segment holds nothing as late as `timestamp_ms`.

        Raises:
            IndexDamaged: call `rebuild`.
        """
        read, count = self._reader(self.time_path, self._entries.times)
        relative = find_time(self._seed, read, count, timestamp_ms)
        return self._base + (relative or 0)

    def last_time(self) -> int:
        """Return the latest timestamp of what lies below the last entry.

        Raises:
            IndexDamaged: call `rebuild`.
        """
        read, count = self._reader(self.time_path, self._entries.times)
        return decode_time_entry(self._seed, read(count - 1))[0] if count else NO_TIMESTAMP

    def next_anchor(self, position: int) -> tuple[int, int] | None:
        """Return (offset, position) of the first valid entry behind `position`; damaged ones are stepped over."""
        read, count = self._reader(self.path, self._entries.offsets)
        best: tuple[int, int] | None = None
        for i in range(count - 1, -1, -1):
            try:
                relative, at, _ = decode_offset_entry(self._seed, read(i))
            except IndexDamaged:
                continue
            if at <= position:
                break
            best = (self._base + relative, at)
        return best

    # ---- after a cut or damage

    def resume(self, max_timestamp_ms: int, next_position: int) -> None:
        """Go on adding at `next_position` after a reopen."""
        self._entries.resume(max_timestamp_ms, next_position)

    def truncate(self, position: int) -> None:
        """Forget the entries at or behind `position` of the log."""
        self.write_pending()
        self._written = -1
        read, count = self._reader(self.path, self._entries.offsets)
        keep = count
        while keep:
            if decode_offset_entry(self._seed, read(keep - 1))[1] < position:
                break
            keep -= 1
        for path in (self.path, self.time_path):
            if path.exists():
                file = File(path, READ_WRITE)
                if file.size() > keep * ENTRY_SIZE:
                    os.ftruncate(file.fd, keep * ENTRY_SIZE)  # nobody maps an index
        self._written = -1

    def rebuild(self, batches: Iterable[tuple[int, BatchHeader]]) -> None:
        """Write both files anew from the headers of the whole segment, given as (position, header)."""
        self.reset()
        for position, header in batches:
            stamp = header.largest_timestamp_ms
            self.add(header.leader_epoch, header.base_offset, position, stamp, position + header.padded_size)
        self.write_pending()

    def reset(self) -> None:
        """Empty both files."""
        self._entries.reset()
        self._written = 0
        self._disk.replace(self.path, b"")
        self._disk.replace(self.time_path, b"")

    def remove(self) -> None:
        """Unlink both files."""
        self.path.unlink(missing_ok=True)
        self.time_path.unlink(missing_ok=True)
