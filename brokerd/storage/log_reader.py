"""Read a log for clients of the broker: with pread, so that a bad sector is an error and not a signal."""

from __future__ import annotations

import os
from pathlib import Path

from brokerd.storage.errors import QuarantinedBatch
from brokerd.storage.files import File
from brokerd.storage.log_values import Unread
from brokerd.storage.segment import Segment
from brokerd.storage.segments import Segments
from brokerd.storage.unflushed import Unflushed
from ingest.errors import CorruptBatch, StorageError, UnsupportedFormat
from ingest.records.checksum import crc32c
from ingest.records.header import HEADER_SIZE, BatchHeader, decode_header, verify_batch

_CURSORS_MAX = 64  # readers of one partition whose place is remembered
_OPEN_SEALED_MAX = 4
_ENDS_LOOKED_FOR_MAX = (
    4  # at some 50 us each; the others count by what their files take, to a page, until the next time
)
_SCRUB_BATCHES_MAX = 100  # at some 10 us each: requests wait no longer than 1 ms


class LogReader:
    """Find and check batches. Thread: the owner's.

    Attributes:
        quarantined: {offset of damage: next offset that can be read}.
        cursors: {offset: (segment, position)} where reads ended, and the next will likely begin.
        lost: Ranges of offsets that the disk lost.
    """

    def __init__(
        self,
        path: Path,
        segments: Segments,
        unflushed: Unflushed,
        lost: list[tuple[int, int]],
        damaged: dict[int, int],
    ) -> None:
        self._path = path
        self._segments = segments
        self._unflushed = unflushed
        self._opened_sealed: list[Segment] = []
        self.quarantined = dict(damaged)
        self.cursors: dict[int, tuple[Segment, int]] = {}
        self.lost = lost
        self._scrub_offset = 0

    def forget(self, gone: list[Segment]) -> None:
        """Drop what is known of segments that were deleted or cut."""
        self.cursors = {key: value for key, value in self.cursors.items() if value[0] not in gone}
        self._opened_sealed = [segment for segment in self._opened_sealed if segment not in gone]

    def holds(self, segment: Segment) -> bool:
        """Tell whether a sealed segment's file is open for reading."""
        return segment in self._opened_sealed

    def read(self, offset: int, max_bytes: int, *, end: int) -> memoryview:
        """Return whole batches from the one that holds `offset`; see `Log.read`."""
        segment, position = self._find(offset)
        return self._read_at(segment, position, offset, max_bytes, end)

    def _open(self, segment: Segment) -> File:
        """Open a sealed segment's file and keep only a few of them open."""
        if segment.sealed and segment.file is None:
            self._opened_sealed.append(segment)
            if len(self._opened_sealed) > _OPEN_SEALED_MAX:
                oldest = self._opened_sealed.pop(0)
                if not self._unflushed.holds(oldest):
                    oldest.forget()
        try:
            return segment.reader()
        except FileNotFoundError:
            raise CorruptBatch(f"{segment.path} is gone") from None
        except OSError as error:  # no descriptor is left; a bad sector, below, is damage
            raise StorageError(f"opening {segment.path}: {error}", path=segment.path) from error

    def _find(self, offset: int) -> tuple[Segment, int]:
        cursor = self.cursors.pop(offset, None)
        if cursor is not None:
            return cursor
        known = self.quarantined.get(offset)
        if known is not None:
            raise QuarantinedBatch(f"{self._path}: offset {offset} is quarantined", next_offset=known)
        index = self._segments.index_at(offset)
        segment = self._segments.items[index]
        try:
            self._open(segment)
            position, _ = segment.locate(offset, self._segments.end_of(index))
        except (CorruptBatch, UnsupportedFormat) as error:
            raise self._quarantine(index, getattr(error, "position", -1), offset, str(error)) from error
        return segment, position

    def _read_at(self, segment: Segment, position: int, offset: int, max_bytes: int, end: int) -> memoryview:
        file = self._open(segment)
        at = 0
        expected = -1
        try:
            data = os.pread(file.fd, min(max(max_bytes, HEADER_SIZE), segment.size - position), position)
            view = memoryview(data)
            have = len(data)
            while have - at >= HEADER_SIZE:
                if not data[at] and expected < 0 and not any(view[at : at + HEADER_SIZE]):
                    break
                header = decode_header(data, at)
                if crc32c(view[at + 8 : at + HEADER_SIZE]) != header.header_crc or header.base_offset < expected:
                    raise CorruptBatch(f"header at byte {position + at}", position=position + at)
                if header.base_offset >= end:
                    break
                size = header.padded_size
                if at + size > have:
                    if at:
                        break
                    data = os.pread(file.fd, size, position)
                    view, have = memoryview(data), len(data)
                verify_batch(view[at : at + HEADER_SIZE + header.body_size], header)
                expected = header.next_offset
                at += size
        except (CorruptBatch, UnsupportedFormat, OSError) as error:
            if at == 0:
                index = self._segments.index_at(segment.base_offset)
                raise self._quarantine(index, position, offset, str(error)) from error
        if at == 0:
            index = self._segments.index_at(segment.base_offset)
            following = self._segments.end_of(index)
            if following < end and index + 1 < len(self._segments.items):
                if following == offset or expected == following:
                    return self._read_at(self._segments.items[index + 1], 0, following, max_bytes, end)
                raise self._quarantine(index, position, offset, "the segment ends before the next one starts")
            raise self._quarantine(index, position, offset, "no batch where the log has one")
        self._remember(segment, position + at, expected)
        return view[:at]

    def _remember(self, segment: Segment, position: int, offset: int) -> None:
        if segment.sealed and offset >= self._segments.end_of(self._segments.index_at(segment.base_offset)):
            return
        cursors = self.cursors
        if len(cursors) >= _CURSORS_MAX:
            del cursors[next(iter(cursors))]
        cursors[offset] = (segment, position)

    def _quarantine(self, index: int, position: int, offset: int, reason: str) -> QuarantinedBatch:
        """Note damage and say where reading can go on."""
        following = self._behind(index, position, offset)
        self.quarantined[offset] = following
        return QuarantinedBatch(
            f"{self._segments.items[index].path} at byte {position}: {reason}; reading goes on at offset {following}",
            position=position,
            next_offset=following,
        )

    def _behind(self, index: int, position: int, offset: int) -> int:
        """Return the offset at which reading goes on behind the damage at `position`, -1: all of the segment."""
        segment, end = self._segments.items[index], self._segments.end_of(index)
        for start, stop in self.lost:
            if start <= offset < stop:
                end = stop
        good = segment.next_good(position, offset, end) if position >= 0 else None
        return max(good[0] if good is not None else end, offset + 1)

    def scrub(self, bytes_max: int, start_offset: int) -> tuple[int, str]:
        """Verify the batches that follow those verified last; see `Log.scrub`."""
        offset = max(self._scrub_offset, start_offset)
        size = batches = 0
        for index in range(self._segments.index_at(offset), len(self._segments)):
            segment, end = self._segments.items[index], self._segments.end_of(index)
            try:
                if offset < end:
                    self._open(segment)
                    position, first = segment.locate(offset, end)
                    for _, header in segment.batches(position, first.base_offset):
                        offset = self._scrub_offset = header.next_offset
                        size += header.padded_size
                        batches += 1
                        if size >= bytes_max or batches >= _SCRUB_BATCHES_MAX:
                            return size, ""
                if offset < end and index + 1 < len(self._segments):
                    raise CorruptBatch(f"{segment.path} ends at offset {offset}, the next one starts at {end}")
            except (CorruptBatch, UnsupportedFormat, OSError) as error:
                damage = self._quarantine(index, getattr(error, "position", -1), offset, str(error))
                self._scrub_offset = damage.next_offset
                return size, str(damage)
            except StorageError:  # no descriptor left: the next round tries again
                return size, ""
            offset = max(offset, end)
        self._scrub_offset = 0
        return size, ""

    def unread(self, offset: int, end: int) -> Unread:
        """Return what lies in [offset, end); see `Log.unread`."""
        found = self._first_batch(offset, end)
        if found is None:
            return Unread(end - offset, 0, -1)
        first, start, header = found
        last, stop = self._end_position(end)
        segments = self._segments
        size, looks = stop - start, 0
        for index in range(first, last):
            segment = segments.items[index]
            if not segment.data_end_known:
                looks += 1
                if looks > _ENDS_LOOKED_FOR_MAX:
                    size += segment.stored_bytes()
                    continue
                self._open(segment)
            size += segment.data_end(segments.end_of(index))
        return Unread(end - offset, max(0, size), header.append_time_ms)

    def _first_batch(self, offset: int, end: int) -> tuple[int, int, BatchHeader] | None:
        """Return (segment index, position, header) of the first good batch that reaches `offset`, None: none does."""
        while offset < end:
            known = self.quarantined.get(offset)
            if known is not None:
                offset = known
                continue
            index = self._segments.index_at(offset)
            segment = self._segments.items[index]
            try:
                self._open(segment)
                position, header = segment.locate(offset, self._segments.end_of(index))
            except (CorruptBatch, UnsupportedFormat) as error:
                offset = self._behind(index, getattr(error, "position", -1), offset)
                continue
            return (index, position, header) if header.base_offset < end else None
        return None

    def _end_position(self, end: int) -> tuple[int, int]:
        """Return (segment index, position) behind the last batch that reaches below `end`."""
        index = self._segments.index_at(end)
        segment = self._segments.items[index]
        if end >= self._segments.end_offset:
            return index, segment.size
        if end == segment.base_offset:
            return index, 0
        try:
            self._open(segment)
            position, header = segment.locate(end, self._segments.end_of(index))
        except (CorruptBatch, UnsupportedFormat) as error:
            return index, max(0, getattr(error, "position", -1))
        return index, position + (header.padded_size if header.base_offset < end else 0)

    def offset_for_time(self, timestamp_ms: int, start: int, end: int) -> tuple[int, int] | None:
        """Return the first batch in [start, end) with a record at or after the time; see `Log.offset_for_time`."""
        for index in range(self._segments.index_at(start), len(self._segments.items)):
            segment, segment_end = self._segments.items[index], self._segments.end_of(index)
            self._open(segment)
            hint_offset, hint = segment.locate_time(timestamp_ms, segment_end)
            for _, header in segment.good_headers(hint, hint_offset, segment_end):
                if header.base_offset >= end:
                    return None
                if not header.record_count:  # compaction has left its header alone
                    continue
                if header.last_offset >= start and header.largest_timestamp_ms >= timestamp_ms:
                    return header.base_offset, header.largest_timestamp_ms
        return None
