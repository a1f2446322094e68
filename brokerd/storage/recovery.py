"""Find out what a partition directory holds: which segments, where the log ends, and who had produced.

The active segment is read only from the checkpoint's recovery point on; of a sealed one the last index entry and what
follows it. Recovery keeps the longest prefix that is valid, gapless in bytes, increasing in offset and monotonic in
epoch. Above the recovery point bad or missing bytes are a torn tail, unless a later batch proves that they had been
flushed; below it they are damage, which is quarantined where it is read, or a missing file, which is refused. Without
a checkpoint, as in a log's first seconds, the recovery point is the log's start.

Source: docs/concepts/durability.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from brokerd.storage.checkpoint import CheckpointRecord
from brokerd.storage.compaction.swap import finish_swaps
from brokerd.storage.disk import Disk
from brokerd.storage.errors import DamagedLog
from brokerd.storage.history import last_epoch, rebuild_producers
from brokerd.storage.index_entries import NO_TIMESTAMP
from brokerd.storage.partition_files import Files, list_files
from brokerd.storage.producer_state import ProducerState
from brokerd.storage.segment import Segment
from ingest.atomic_file import fsync_directory
from ingest.errors import CorruptBatch
from ingest.failpoints import failpoint
from ingest.log.index import IndexDamaged
from ingest.log.names import LOG, file_name, lost_name
from ingest.records.header import BatchHeader

_UNKNOWN = 2**62  # where a segment ends, as long as nothing says it


class Recovered(msgspec.Struct, kw_only=True):
    """A log as its files say it is.

    Attributes:
        torn_bytes: About what was cut from the tail.
        lost_offsets: How many offsets below the recovery point are gone, as found now; `lost` has those of before too.
        damaged: (offset, next good offset) of damage found on the way; it stays in place.
        damage: The first of it in words, or of what an earlier open found lost; empty: there is none.
    """

    segments: list[Segment]
    start_offset: int
    end_offset: int
    recovery_point: int
    last_epoch: int
    producers: ProducerState
    snapshots: list[int]
    lost: list[tuple[int, int]]
    torn_bytes: int = 0
    lost_offsets: int = 0
    damaged: dict[int, int]
    damage: str = ""


def _overlap(segment: Segment, end: int, following: int) -> DamagedLog:
    return DamagedLog(
        f"{segment.path} goes on to offset {end}, but the next segment starts at {following}: they overlap",
        path=segment.path,
    )


def _missing(segment: Segment, end: int, following: int) -> DamagedLog:
    path = segment.path.with_name(file_name(end, LOG))
    return DamagedLog(
        f"{path} is missing, or {segment.path.name} was cut short: it ends at offset {end} and the next segment starts"
        f" at {following}",
        path=path,
    )


class Recovery:
    """Recover one partition. Thread: the owner's; it reads and writes the files."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        *,
        index_interval_bytes: int,
        durable: bool,
        has_holes: bool,
        checkpoint: CheckpointRecord | None,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._interval = index_interval_bytes
        self._durable = durable
        self._has_holes = has_holes
        self._checkpoint = checkpoint
        self._recovery_point = checkpoint.recovery_point if checkpoint else 0
        self._epoch = -1
        self._torn_bytes = 0
        self._lost_offsets = 0
        self._damaged: dict[int, int] = {}
        self._damage = ""

    def run(self) -> Recovered:
        """Return the log, its tail cut where it was torn.

        Raises:
            DamagedLog: segments are missing or overlap; nothing was changed.
            UnsupportedFormat: a newer program wrote here; nothing was changed.
            LogDirOffline: the device refused to read or write.
        Cost: two or three small reads per sealed segment, then everything above the recovery point.
        """
        try:
            finish_swaps(self._directory)
            return self._run(list_files(self._directory))
        except OSError as error:
            raise self._disk.refused(error, f"recovering {self._directory}") from error

    def _run(self, files: Files) -> Recovered:
        if not files.segments:
            if files.snapshots or files.lost or files.start_offset:
                raise DamagedLog(f"{self._directory}: the segments are missing", path=self._directory)
            return self._empty()
        while len(files.segments) > 1 and files.segments[1] <= files.start_offset:  # an owner died deleting it
            self._segment(files.segments.pop(0)).unlink()
        segments = [self._segment(base) for base in files.segments]
        first_open = self._first_unproven(segments)
        for index, segment in enumerate(segments[:-1]):
            segment.sealed = True
            self._disk.beat()
            if index < first_open:
                self._check_sealed(segment, segments[index + 1].base_offset, files.lost)
        end_offset = self._scan(segments, first_open, files.lost)
        record = self._checkpoint
        recovery_point = min(record.recovery_point, end_offset) if record else segments[0].base_offset
        self._last_epoch(segments)
        producers = rebuild_producers(
            self._disk, self._directory, files.snapshots, segments, end_offset, self._checkpoint
        )
        if record and segments[-1].base_offset == record.recovery_segment:
            segments[-1].since_age_ms = record.active_since_age_ms
        if segments[-1].since_age_ms < 0 and segments[-1].size:
            segments[-1].since_age_ms = self._disk.time.age_ms
        return Recovered(
            segments=segments,
            start_offset=max(files.start_offset, segments[0].base_offset, record.log_start if record else 0),
            end_offset=end_offset,
            recovery_point=max(recovery_point, segments[0].base_offset),
            last_epoch=self._epoch,
            producers=producers,
            snapshots=[offset for offset in files.snapshots if offset <= end_offset],
            lost=files.lost,
            torn_bytes=self._torn_bytes,
            lost_offsets=self._lost_offsets,
            damaged=self._damaged,
            damage=self._damage or "".join(f"{self._directory}: lost {lost}" for lost in files.lost[:1]),
        )

    def _segment(self, base_offset: int) -> Segment:
        return Segment(self._disk, self._directory, base_offset, self._interval, has_holes=self._has_holes)

    def _empty(self) -> Recovered:
        segment = self._segment(0)
        segment.create()
        return Recovered(
            segments=[segment],
            start_offset=0,
            end_offset=0,
            recovery_point=0,
            last_epoch=-1,
            producers=ProducerState(),
            snapshots=[],
            lost=[],
            damaged={},
        )

    def _first_unproven(self, segments: list[Segment]) -> int:
        """Return the index of the first segment that may hold bytes above the recovery point."""
        if self._checkpoint is None:
            return 0
        point = self._checkpoint.recovery_segment
        below = [index for index, segment in enumerate(segments) if segment.base_offset <= point]
        return below[-1] if below else 0

    # ---- sealed segments

    def _check_sealed(self, segment: Segment, next_base: int, lost: list[tuple[int, int]]) -> None:
        """Refuse a log with a hole or an overlap between this segment and the next."""
        try:
            end = self._end_of(segment, next_base)
        except CorruptBatch:
            return  # damage, not a missing file; it is quarantined when read
        if end > next_base:
            raise _overlap(segment, end, next_base)
        if end < next_base and (end, next_base) not in lost:
            raise _missing(segment, end, next_base)

    def _end_of(self, segment: Segment, next_base: int) -> int:
        try:
            if not segment.index.path.exists():
                raise IndexDamaged(f"{segment.index.path} is gone")
            offset, position = segment.index.find_offset(segment.base_offset + 2**32 - 1)
            headers = segment.headers(position, offset)
            end = self._follow(headers, offset)
        except (IndexDamaged, CorruptBatch):
            segment.rebuild_index(next_base)
            end = self._follow(segment.headers(0, segment.base_offset), segment.base_offset)
        segment.forget()
        return end

    def _follow(self, headers: Iterator[tuple[int, BatchHeader]], offset: int) -> int:
        for _, header in headers:
            offset = header.next_offset
        return offset

    # ---- the tail

    def _scan(self, segments: list[Segment], first: int, lost: list[tuple[int, int]]) -> int:
        """Check what lies above the recovery point; cut a torn tail; return the log's end."""
        index = first
        while True:
            self._disk.beat()
            segment = segments[index]
            following = segments[index + 1].base_offset if index + 1 < len(segments) else _UNKNOWN
            position, offset = self._start(segment)
            position, offset, bad = self._walk(segment, position, offset)
            failpoint("storage.mid_recovery")
            while bad is not None:
                good = self._good_behind(segments, index, position, offset)
                if good is None:
                    return self._cut(segments, index, position, offset, bad, lost)
                self._damaged[offset] = good[0]
                self._damage = self._damage or f"{segment.path}: {bad}"
                if good[1] < 0:
                    offset, bad = good[0], None
                else:
                    position, offset, bad = self._walk(segment, good[1], good[0])
            if following == _UNKNOWN:
                return self._cut(segments, index, position, offset, None, lost)
            if offset > following:
                raise _overlap(segment, offset, following)
            if offset < following and (offset, following) not in lost:
                if self._proven(segments, index, offset):
                    raise _missing(segment, offset, following)
                return self._cut(segments, index, position, offset, None, lost)
            segment.index.write_pending()
            segment.forget()
            index += 1

    def _start(self, segment: Segment) -> tuple[int, int]:
        """Return (position, offset) of the recovery point, or the segment's start."""
        record = self._checkpoint
        if record is None or segment.base_offset != record.recovery_segment:
            return 0, segment.base_offset
        try:
            offset, position = segment.index.find_offset(record.recovery_point)
            for position, header in segment.headers(position, offset):  # noqa: B020
                if header.base_offset >= record.recovery_point:
                    break
                offset, position = header.next_offset, position + header.padded_size
                self._epoch = max(self._epoch, header.leader_epoch)
        except (IndexDamaged, CorruptBatch):
            if self._starts_a_batch(segment, record):
                return record.recovery_position, record.recovery_point
            return 0, segment.base_offset  # of a segment that compaction has replaced the record says nothing
        if (position, offset) == (record.recovery_position, record.recovery_point):
            return position, offset
        return 0, segment.base_offset

    def _starts_a_batch(self, segment: Segment, record: CheckpointRecord) -> bool:
        """Whether a batch, or nothing, is where the checkpoint says that the recovery point lies."""
        try:
            for _ in segment.headers(record.recovery_position, record.recovery_point):
                break
        except CorruptBatch:
            return False
        return record.recovery_position <= segment.size

    def _walk(self, segment: Segment, position: int, offset: int) -> tuple[int, int, CorruptBatch | None]:
        """Verify batches from `position`, adding to the index; return where they end and what ended them."""
        segment.open_active()
        segment.size = segment.allocated
        self._trim_index(segment, position, offset)
        try:
            for position, header in segment.batches(position, offset, self._epoch):  # noqa: B020
                stamp = header.largest_timestamp_ms
                following = position + header.padded_size
                segment.index.add(header.leader_epoch, header.base_offset, position, stamp, following)
                offset = header.next_offset
                position += header.padded_size
                self._epoch = header.leader_epoch
        except CorruptBatch as error:
            return position, offset, error
        return position, offset, None

    def _trim_index(self, segment: Segment, position: int, offset: int) -> None:
        """Drop entries at or behind `position` and learn the latest timestamp below it."""
        index = segment.index
        try:
            index.truncate(position)
            latest = NO_TIMESTAMP
            hint_offset, hint = index.find_offset(offset)
            latest = index.last_time()
            for at, header in segment.headers(hint, hint_offset):
                if at >= position:
                    break
                latest = max(latest, header.largest_timestamp_ms)
            index.resume(latest, position)
        except (IndexDamaged, CorruptBatch):
            segment.size = position
            segment.rebuild_index(offset)
            segment.size = segment.allocated

    def _proven(self, segments: list[Segment], index: int, offset: int) -> bool:
        """Tell whether `offset`, where segment `index` breaks off, had been flushed.

        It had below the recovery point. Above, a batch that was appended later and names a higher high watermark proves
        it, where a high watermark means flushed. Nothing else does: write-back keeps no order, so a
        power cut may keep the name of the next segment and lose what was written before it.

        Cost: above the recovery point all headers of the later segments.
        """
        return offset < self._recovery_point or (
            self._durable
            and any(
                header.high_watermark > offset
                for segment in segments[index + 1 :]
                for _, header in segment.good_headers(0, segment.base_offset, _UNKNOWN)
            )
        )

    def _good_behind(self, segments: list[Segment], index: int, position: int, offset: int) -> tuple[int, int] | None:
        """Return the next good (offset, position) if what is bad at `offset` had been flushed; position -1: it is the
        next segment's start. None for a torn tail.
        """
        segment = segments[index]
        found = segment.next_marked(position, offset)
        marked = self._durable and found is not None and found[2] > offset
        if not marked and not self._proven(segments, index, offset):
            return None
        if found is not None:
            return found[:2]
        return (segments[index + 1].base_offset, -1) if index + 1 < len(segments) else None

    def _cut(
        self,
        segments: list[Segment],
        index: int,
        position: int,
        offset: int,
        bad: CorruptBatch | None,
        lost: list[tuple[int, int]],
    ) -> int:
        """End the log at `position` of segment `index`; zero what follows, unlink later segments; return its end."""
        segment = segments[index]
        if segments[index + 1 :]:
            for later in reversed(segments[index + 1 :]):
                self._torn_bytes += later.stored_bytes()
                later.unlink()
            del segments[index + 1 :]
            fsync_directory(self._directory)  # they must not come back over what is appended next
        segment.sealed = False
        segment.size = position
        if offset < self._recovery_point:
            return self._lose(segments, segment, offset, lost)
        if bad is not None or self._ghosts(segment, position):
            self._torn_bytes += self._data_behind(segment, position)
            segment.truncate_tail(position)
        segment.index.truncate(position)
        return offset

    def _lose(self, segments: list[Segment], segment: Segment, offset: int, lost: list[tuple[int, int]]) -> int:
        """Go on behind what the disk had promised to keep and did not: its offsets are not used again."""
        following = self._recovery_point
        self._lost_offsets += following - offset
        if (offset, following) not in lost:  # the mark of an open that died before it made the segment
            self._disk.mark(self._directory / lost_name(offset, following))
            lost.append((offset, following))
        segment.sealed = True
        fresh = self._segment(following)
        fresh.create()
        segments.append(fresh)
        return following

    def _ghosts(self, segment: Segment, position: int) -> bool:
        """Tell whether anything but zeros lies behind the end, without reading holes."""
        assert segment.file is not None
        fd, at = segment.file.fd, position
        while at < segment.allocated:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                return False  # ENXIO: nothing but holes
            window = os.pread(fd, 1 << 20, at)
            if not window:
                return False
            if window.strip(b"\0"):
                return True
            at += len(window)
        return False

    def _data_behind(self, segment: Segment, position: int) -> int:
        assert segment.file is not None
        end, at = position, position
        while at < segment.allocated:
            window = os.pread(segment.file.fd, 1 << 20, at)
            if not window:
                break
            data = len(window.rstrip(b"\0"))
            if not data:
                break
            end = at + data
            at += len(window)
        return end - position

    # ---- what is a function of the log

    def _last_epoch(self, segments: list[Segment]) -> None:
        """Make sure that `_epoch` is that of the log's last batch, which may lie in an earlier segment."""
        if self._checkpoint:
            self._epoch = max(self._epoch, self._checkpoint.leader_epoch)
        if self._epoch < 0:
            self._epoch = last_epoch(segments, _UNKNOWN)
