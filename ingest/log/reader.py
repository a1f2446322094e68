"""Read a partition straight from its mapped segments: no broker on the path, no copy, every byte checked first."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ingest.errors import CorruptBatch, ForebayError, LogTruncation
from ingest.log.index import ENTRY_SIZE, IndexDamaged, crc_seed, find_offset
from ingest.log.mapping import PageMap, SegmentMap
from ingest.log.names import INDEX, LOG, file_name, parse_file_name, partition_name
from ingest.log.state_page import PAGE_HEADER_SIZE, ROW_SIZE, Marks, decode_marks, row_tag
from ingest.records.checksum import crc32c
from ingest.records.header import HEADER_SIZE, BatchHeader, decode_header, verify_batch, verify_header

__all__ = ["LocalLog", "LogMoved", "Marks"]

_MAPS_MAX = 3  # readers pin the space of deleted segments: keep few
_BEFORE_DATA = threading.Lock()
_ZEROS = bytes(HEADER_SIZE)


class LogMoved(ForebayError):
    """The log is not to be read here any more, or not known to be: ask Metadata, then Fetch, where to go on."""


class LocalLog:
    """One partition as its leader on this machine keeps it. Thread: one at a time.

    Attributes:
        high_watermark, log_start: As the last read found them, -1 before.

    Only offsets below the high watermark are read, and only bytes whose CRC and epoch were checked. Whether an offset
    is out of range is the leader's to say: here it is `LogMoved`.
    """

    def __init__(
        self,
        directory: Path,
        page_path: Path,
        row: int,
        topic_id: bytes,
        partition: int,
        *,
        leader_epoch: int = -1,
    ) -> None:
        """Map the state page; segments are mapped when they are read.

        Args:
            directory: The broker's log directory.
            row: The partition's row on the page.
            leader_epoch: What Metadata says; a page with an older one is a dead leader's.
        Raises:
            LogMoved: the row is not this partition's.
            OSError: the files may not be read.
        """
        self._path = directory / partition_name(topic_id, partition)
        self._page = PageMap(page_path)
        self._row = row
        self._tag = row_tag(topic_id, partition)
        self._leader_epoch = leader_epoch
        self._incarnation = -1
        self._generation = -1
        self._maps: dict[int, SegmentMap] = {}
        self._bases: list[int] = []
        self.high_watermark = self.log_start = -1
        self._next: tuple[int, SegmentMap, int] | None = None  # offset, map and position where the last read ended
        marks = self.marks()
        self._incarnation, self._generation = marks.incarnation, marks.generation

    def marks(self) -> Marks:
        """Return what the page says now.

        Raises:
            LogMoved: the row is another's, the broker was restarted, or its epoch is another than known.
            LogTruncation: records that could be read were replaced (unclean election).
        Cost: two CRCs of 60 bytes.
        """
        page = self._page
        if PAGE_HEADER_SIZE + (self._row + 1) * ROW_SIZE > len(page.view):
            page.grow()
            if PAGE_HEADER_SIZE + (self._row + 1) * ROW_SIZE > len(page.view):
                raise LogMoved(f"{page.path} has no row {self._row}")
        marks = decode_marks(page.view, self._row)
        if marks is None or marks.tag != self._tag:
            raise LogMoved(f"row {self._row} of {page.path} is not {self._path.name}'s")
        if self._incarnation >= 0 and marks.incarnation != self._incarnation:
            raise LogMoved(f"the broker that keeps {self._path} was restarted")
        if marks.leader_epoch < self._leader_epoch:
            raise LogMoved(f"{self._path} is at epoch {marks.leader_epoch}, the leader's is {self._leader_epoch}")
        if 0 <= self._leader_epoch < marks.leader_epoch:
            raise LogMoved(f"{self._path} is led under epoch {marks.leader_epoch} now, not {self._leader_epoch}")
        if self._generation >= 0 and marks.generation != self._generation:
            raise LogTruncation(f"{self._path}: records were replaced; the log now ends at {marks.high_watermark}")
        return marks

    def read(self, offset: int, max_bytes: int) -> list[tuple[BatchHeader, memoryview]]:
        """Return whole batches from the one that holds `offset` up to the high watermark, none if there is none yet.

        Each memoryview is one batch, header included, over the map. At least one is returned where there is one,
        then as many as fit `max_bytes`.

        Raises:
            LogMoved: ask Metadata; also where the offset is below the log start or above the high watermark.
            LogTruncation: see `marks`.
            CorruptBatch: damage; the leader tells where reading can go on.
            OSError: the files may not be read.
        Cost: one CRC pass; about 2 us a batch.
        """
        marks = self.marks()
        with _BEFORE_DATA:  # an acquire barrier: no load of data may have gone before that of the marks (arm64)
            pass
        end = self.high_watermark = marks.high_watermark
        self.log_start = marks.log_start
        if offset == end:
            return []
        if not marks.log_start <= offset < end:
            raise LogMoved(f"{self._path}: offset {offset} is not in {marks.log_start}..{end}; ask the leader")
        segment, position = self._find(offset, marks)
        batches: list[tuple[BatchHeader, memoryview]] = []
        view = segment.view
        while True:
            if position + HEADER_SIZE > len(view) or view[position : position + HEADER_SIZE] == _ZEROS:
                if position + HEADER_SIZE > len(view) and segment.grow():
                    view = segment.view
                    continue
                following = self._after(segment, offset)
                if following is None:
                    if batches:
                        break
                    raise CorruptBatch(f"{segment.path} ends at byte {position}, before offset {offset}")
                segment, position = following
                view = segment.view
                continue
            header = decode_header(view, position)
            size = HEADER_SIZE + header.body_size
            if batches and size > max_bytes:
                break
            if position + size > len(view):
                if not segment.grow():
                    raise CorruptBatch(f"{segment.path}: batch at byte {position} passes the end", position=position)
                view = segment.view
            if crc32c(view[position + 8 : position + HEADER_SIZE]) != header.header_crc:
                raise CorruptBatch(f"{segment.path}: header at byte {position} fails its CRC", position=position)
            if header.base_offset >= end:
                break
            if (
                header.leader_epoch > marks.leader_epoch
                or header.last_offset < offset
                or (batches and header.base_offset < offset)
            ):
                raise CorruptBatch(
                    f"{segment.path}: batch {header.base_offset} epoch {header.leader_epoch} at byte {position} where"
                    f" offset {offset} was due",
                    position=position,
                )
            batch = view[position : position + size]
            verify_batch(batch, header)
            batches.append((header, batch))
            max_bytes -= size
            offset = header.base_offset + header.last_offset_delta + 1
            position += (size + 7) & -8
            if offset >= end or max_bytes <= 0:
                break
        self._next = (offset, segment, position)
        return batches

    def cold(self, offset: int, max_bytes: int) -> Callable[[], None] | None:
        """Return what to call in a thread before `read`, None if what that reads is in memory already.

        A fault of a mapped page holds the GIL while the disk works, so that it stops the whole process; pread doesn't.
        Where the file system does not tell what is in memory, all is taken to be.

        Raises:
            as `read`.
        """
        marks = self.marks()
        if not marks.log_start <= offset < marks.high_watermark:
            return None
        segment, position = self._find(offset, marks)
        return None if segment.is_cached(position, max_bytes) else partial(segment.load, position, max_bytes)

    def close(self) -> None:
        """Drop the maps; views handed out stay valid."""
        self._maps.clear()
        self._next = None

    # ---- from an offset to a place

    def _find(self, offset: int, marks: Marks) -> tuple[SegmentMap, int]:
        if self._next is not None and self._next[0] == offset:
            return self._next[1:]
        if not self._bases or offset < self._bases[0] or marks.active_segment > self._bases[-1]:
            self._list()
        at = bisect_right(self._bases, offset) - 1
        if at < 0:
            raise LogMoved(f"{self._path}: no segment holds offset {offset}")
        segment = self._map(self._bases[at])
        if segment is None:  # deleted, or merged into an earlier one
            self._list()
            at = bisect_right(self._bases, offset) - 1
            segment = self._map(self._bases[at]) if at >= 0 else None
        if segment is None:
            raise LogMoved(f"{self._path}: the segment that held offset {offset} is gone")
        hint, position = self._look_up(segment.base_offset, offset)
        return segment, self._walk(segment, hint, position, offset)

    def _walk(self, segment: SegmentMap, hint: int, position: int, offset: int) -> int:
        """Hop from a hint to the batch that holds `offset`; a hint that leads nowhere is not used."""
        start = position
        try:
            while True:
                if position + HEADER_SIZE > len(segment.view) and not segment.grow():
                    return position
                if segment.view[position : position + HEADER_SIZE] == _ZEROS:
                    return position
                header = verify_header(segment.view, position)
                if position == start and header.base_offset != hint and start:
                    raise CorruptBatch("a stale hint")
                if header.last_offset >= offset:
                    return position
                position += header.padded_size
        except CorruptBatch:
            if start == 0:
                raise
            return self._walk(segment, segment.base_offset, 0, offset)

    def _look_up(self, base_offset: int, offset: int) -> tuple[int, int]:
        """Return (offset, position) of an index entry at or before `offset`, the segment's start if there is none."""
        try:
            fd = os.open(self._path / file_name(base_offset, INDEX), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return base_offset, 0
        try:
            count = os.fstat(fd).st_size // ENTRY_SIZE
            found = find_offset(
                crc_seed(base_offset), lambda i: os.pread(fd, ENTRY_SIZE, i * ENTRY_SIZE), count, offset - base_offset
            )
        except IndexDamaged:
            return base_offset, 0  # the broker rebuilds it, we only read
        finally:
            os.close(fd)
        return (base_offset + found[0], found[1]) if found else (base_offset, 0)

    def _after(self, segment: SegmentMap, offset: int) -> tuple[SegmentMap, int] | None:
        """Return map and position of what follows the end of `segment`, which is at `offset`; None: nothing does yet.

        It is the segment of that name, or one that compaction has merged it into since this one was mapped: an earlier
        one, perhaps even under the name of `segment`.

        Raises:
            LogMoved: what follows was deleted while it was looked for.
        """
        for known in (True, False):
            if not known:
                self._list()
            at = bisect_right(self._bases, offset) - 1
            if at >= 0 and self._bases[at] == offset != segment.base_offset:
                following = self._map(offset)
                if following is not None:
                    return following, 0
        if at < 0 or (self._bases[at] == segment.base_offset and segment.is_current()):
            return None
        self._maps.pop(self._bases[at], None)
        merged = self._map(self._bases[at])
        if merged is None:
            raise LogMoved(f"{self._path}: the segment that held offset {offset} is gone")
        return merged, self._walk(merged, *self._look_up(merged.base_offset, offset), offset)

    def _list(self) -> None:
        try:
            names = [parse_file_name(name) for name in os.listdir(self._path)]
        except FileNotFoundError:
            raise LogMoved(f"{self._path} is gone") from None
        self._bases = sorted(name[0] for name in names if name is not None and name[1] == LOG)

    def _map(self, base_offset: int) -> SegmentMap | None:
        """Return the map of a segment, None if there is no such file any more."""
        segment = self._maps.get(base_offset)
        if segment is None:
            try:
                segment = SegmentMap(self._path, base_offset)
            except FileNotFoundError:
                self._bases = []
                self._next = None
                return None
            if len(self._maps) >= _MAPS_MAX:
                del self._maps[min(self._maps)]
            self._maps[base_offset] = segment
        return segment
