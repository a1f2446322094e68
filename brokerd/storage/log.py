"""One partition's log: append, read, marks, roll, retention. It writes; a `Flusher` makes durable what it wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brokerd.storage.checkpoint import Checkpoint, CheckpointRecord
from brokerd.storage.compaction.job import Job
from brokerd.storage.compaction.log_compaction import Dirt, LogCompaction
from brokerd.storage.config import LogConfig
from brokerd.storage.disk import Disk
from brokerd.storage.errors import OffsetOutOfRange, StaleLeaderEpoch
from brokerd.storage.history import epoch_end, last_epoch, rebuild_producers
from brokerd.storage.log_checkpoint import LogCheckpoint
from brokerd.storage.log_reader import LogReader
from brokerd.storage.log_values import NOTHING_UNREAD, Appended, FlushTarget, Unread
from brokerd.storage.page import Row
from brokerd.storage.producer_state import ProducerState
from brokerd.storage.recovery import Recovered
from brokerd.storage.replicated import check_replicated, fitting
from brokerd.storage.retention import SealedSegment, count_expired
from brokerd.storage.segment import Segment
from brokerd.storage.segments import Segments
from brokerd.storage.snapshots import Snapshots
from brokerd.storage.staging import stage
from brokerd.storage.unflushed import Unflushed
from ingest.errors import CorruptBatch, LogDirOffline, StorageError
from ingest.failpoints import failpoint
from ingest.log.names import START, file_name
from ingest.records.header import FLAG_LOG_APPEND_TIME, BatchHeader

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Appended", "FlushTarget", "Log", "OffsetOutOfRange", "Unread"]

_EMPTY = memoryview(b"")
_EPOCH_ENDS_MAX = 64  # a client names epochs as it likes
_MAINTAIN_MS_MAX = 30_000  # what the file system says of the sizes of sealed files may change with nobody writing


class Log:
    """One partition. Thread: the owner's; nothing here blocks on fsync but rolls of deleted records and truncation.

    Attributes:
        end_offset: The offset the next record gets.
        flushed_end: Everything below is on the disk.
        high_watermark: Everything below may be read; it never goes back.
        maintain_age_ms: The running time at which `maintain` is due, if nothing is written until then.
        torn_bytes_total: About what recovery cut from the tail; none of it had been flushed.
        damaged_batches_total: Places recovery found where flushed bytes are bad; reads find more, see `read`.
        lost_offsets_total: Offsets that had been flushed and that recovery found gone.
        compaction: What of it is compacted, and how more of it comes to be.
        damage: Where recovery found, now or at an earlier open, that flushed records are bad or gone; empty: nowhere.
    """

    def __init__(
        self,
        disk: Disk,
        path: Path,
        topic_id: bytes,
        partition: int,
        config: LogConfig,
        row: Row,
        recovered: Recovered,
        checkpoint: Checkpoint,
        new_directories: Sequence[Path] = (),
    ) -> None:
        self.topic_id = topic_id
        self.partition = partition
        self.config = config
        self.path = path
        self._disk = disk
        self._row = row
        self.start_offset = recovered.start_offset
        self.end_offset = max(recovered.end_offset, recovered.start_offset)
        self._segments = Segments(recovered.segments, self.end_offset)
        self._active = self._segments.active
        self.flushed_end = min(recovered.recovery_point, self.end_offset)
        self.last_epoch = recovered.last_epoch
        self.leader_epoch = -1
        self._epoch_ends: dict[int, tuple[int, int]] = {}
        self._producers = recovered.producers
        self._snapshots = Snapshots(disk, path, recovered.snapshots)
        self.torn_bytes_total = recovered.torn_bytes
        self.damaged_batches_total = len(recovered.damaged)
        self.lost_offsets_total = recovered.lost_offsets
        self.damage = recovered.damage
        self._unflushed = Unflushed()
        self._reader = LogReader(path, self._segments, self._unflushed, recovered.lost, recovered.damaged)
        self.compaction = LogCompaction(disk, path, self._segments, self._snapshots, self._reader)
        for directory in new_directories:
            self._unflushed.add_directory(directory, -1)
        self._checkpoint = LogCheckpoint(disk, checkpoint, topic_id, partition)
        if self.flushed_end == self.end_offset:
            self._unflushed.flushed_at = (self._active.base_offset, self._active.size)
        self._last_append_age_ms = -1
        self.maintain_age_ms = 0
        self.closed = False
        if self.flushed_end < self.end_offset:  # after a takeover: all since the checkpoint is in doubt until a flush
            first = self._segments.index_at(self.flushed_end)
            self._unflushed.doubt(self._segments.items[first:])
        record, inherited = self._checkpoint.last, row.inherited
        mark = max(record.high_watermark if record else 0, inherited.high_watermark if inherited else 0)
        self.high_watermark = max(self.start_offset, min(mark, self.end_offset))
        self._publish()

    # ---- gauges

    @property
    def row(self) -> int:
        return self._row.index

    @property
    def names_unflushed(self) -> bool:
        """Whether files or directories were made that no flush has covered yet."""
        return bool(self._unflushed.directories)

    @property
    def flush_under_way(self) -> bool:
        """Whether a flush was captured whose end nobody has taken note of: nothing may be truncated meanwhile."""
        return self._unflushed.flushes > 0

    @property
    def unflushed_bytes(self) -> int:
        """What was written since the last flush that reached the end."""
        return self._unflushed.size_bytes

    @property
    def size_bytes(self) -> int:
        return sum(segment.stored_bytes() for segment in self._segments.items)

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def producer_id_max(self) -> int:
        return self._producers.producer_id_max

    # ---- leadership

    def become_leader(self, leader_epoch: int) -> None:
        """Append under `leader_epoch` from now on.

        Raises:
            StaleLeaderEpoch: the log already knows that epoch, or a newer one.
        """
        known = max(self.leader_epoch, self.last_epoch)
        if leader_epoch <= known:
            reason = f"leadership under epoch {leader_epoch}, but the log knows epoch {known} already"
            raise StaleLeaderEpoch(f"{self.path}: {reason}", path=self.path)
        self.leader_epoch = leader_epoch
        self._publish()

    def become_follower(self, leader_epoch: int) -> None:
        """Append nothing of one's own from now on; what comes is of `leader_epoch` or an earlier one."""
        self.leader_epoch = max(self.leader_epoch, leader_epoch)
        self._publish()

    # ---- appending

    def append(self, batches: Sequence[Buffer], *, wall_ms: int) -> list[Appended]:
        """Append whole batches at the end and say where each landed. All are written, or none.

        Args:
            batches: Each one batch as its producer made it; the leader's half of its header is not looked at.
            wall_ms: The broker's wall clock.
        Raises:
            CorruptBatch, UnsupportedFormat, InvalidRecord, MessageTooLarge, SequenceError, ProducerFenced, DiskFull:
                nothing was written.
            LogDirOffline: the system refused; whether anything will be found later is unknown.
        Cost: one CRC pass, one pwritev, no copy of a body, no fsync.
        Source: docs/format/batch.md.
        """
        self._disk.check_online()
        assert self.leader_epoch >= 0, "append before become_leader"
        assert not self.closed
        flags = FLAG_LOG_APPEND_TIME if self.config.timestamp_type == "LogAppendTime" else 0
        staged = stage(
            batches,
            self._producers,
            self.config,
            base_offset=self.end_offset,
            leader_epoch=self.leader_epoch,
            high_watermark=self.high_watermark,
            wall_ms=wall_ms,
            leader_flags=flags,
        )
        if staged.news:
            self._write(staged.vectors, staged.size_bytes, staged.end_offset)
            self._apply(staged.news, self.leader_epoch, wall_ms, flags)
        return staged.appended

    def append_replicated(self, batches: Buffer, *, wall_ms: int) -> int:
        """Append batches exactly as the leader stored them, padding included; return how many records came.

        Raises:
            CorruptBatch: one is damaged or does not continue this log; nothing was written.
            DiskFull: those that had room are appended.
            LogDirOffline: the system refused.
        Cost: one CRC pass, one pwritev a segment.
        """
        self._disk.check_online()
        assert not self.closed
        view = memoryview(batches)
        found = check_replicated(view, self.end_offset, self.last_epoch)
        records = 0
        while found:
            group = fitting(found, self.config.segment_bytes - self._active.size)
            del found[: len(group)]
            start, size = group[0][0], sum(header.padded_size for _, header in group)
            self._write([view[start : start + size]], size, group[-1][1].next_offset)
            for _, header in group:
                flags = header.leader_flags & FLAG_LOG_APPEND_TIME
                batch = (header, header.base_offset, header.padded_size)
                self._apply([batch], header.leader_epoch, header.append_time_ms, flags)
                records += header.record_count
        return records

    def _write(self, vectors: list[Buffer], total: int, end_offset: int) -> None:
        """Put the bytes at the end of the active segment, rolling or growing it first."""
        active = self._active
        if active.size and (
            active.size + total > self.config.segment_bytes or end_offset - active.base_offset > 0xFFFFFFFF
        ):
            self.roll()
            active = self._active
        active.write(vectors, total, limit=self.config.segment_bytes, uses_reserve=self.config.uses_reserve)

    def _apply(self, news: list[tuple[BatchHeader, int, int]], epoch: int, wall_ms: int, flags: int) -> None:
        active = self._active
        age_ms, position = self._disk.time.age_ms, active.size
        if position == 0:
            active.since_age_ms = age_ms
        for header, base_offset, space in news:
            stamp = wall_ms if flags else header.max_timestamp_ms
            following = position + space
            active.index.add(epoch, base_offset, position, stamp, following)
            if header.producer_id >= 0:
                self._producers.apply(header, base_offset, wall_ms, age_ms)
            position = following
        self._unflushed.size_bytes += position - active.size
        active.size = position
        self.end_offset = self._segments.end_offset = base_offset + header.last_offset_delta + 1
        self.last_epoch = epoch
        self._last_append_age_ms = age_ms
        self.maintain_age_ms = 0

    def roll(self) -> None:
        """Seal the active segment and start the next one at the log's end.

        The new file and its name count as flushed with the first flush that follows, and no offset in it before.

        Raises:
            DiskFull: the log goes on in the old segment once there is room.
            LogDirOffline: the system refused.
        """
        old = self._active
        assert old.file is not None
        fresh = self._new_segment(self.end_offset)
        fresh.create(uses_reserve=self.config.uses_reserve)
        failpoint("storage.mid_roll")
        if self.flushed_end < self.end_offset:
            self._unflushed.files.append((old.file, self.end_offset))
        self._unflushed.add_directory(self.path, self.end_offset)
        self._snapshots.write(self.end_offset, self._last_append_age_ms, self._producers)
        old.seal()
        if self.flushed_end >= self.end_offset:
            old.forget()
        self._segments.add(fresh)
        self._active = fresh
        self._publish()

    def _new_segment(self, base_offset: int) -> Segment:
        interval = self.config.index_interval_bytes
        return Segment(self._disk, self.path, base_offset, interval, has_holes=self.config.compacts)

    # ---- flushing

    def flush_target(self) -> FlushTarget:
        """Capture what a flush has to write now. Thread: the owner's."""
        dirty = self.flushed_end < self.end_offset
        files, directories = self._unflushed.capture(self.end_offset, self._active, dirty=dirty)
        return FlushTarget(self, self._disk, self.end_offset, files, directories)

    def flushed(self, end_offset: int) -> None:
        """Take note that everything below `end_offset`, of an earlier `flush_target`, is on the disk."""
        assert end_offset <= self.end_offset
        self._unflushed.flushes -= 1
        if end_offset < self.flushed_end:
            return
        self.flushed_end = end_offset
        done = self._unflushed.settle(end_offset)
        if done:
            for segment in self._segments.items[:-1]:
                if segment.file in done and not self._reader.holds(segment):
                    segment.forget()
        if end_offset == self.end_offset:
            self._unflushed.size_bytes = 0

    def flush_dropped(self) -> None:
        """Take note that an earlier `flush_target` is not flushed: a later one takes its place."""
        self._unflushed.flushes -= 1

    # ---- marks

    def advance_high_watermark(self, offset: int) -> None:
        """Let everything below `offset` be read, and show it on the state page; it never goes back."""
        assert offset <= self.end_offset, "high watermark beyond the log's end"
        if offset > self.high_watermark:
            self.high_watermark = offset
            self.maintain_age_ms = 0
            self._publish()

    def _publish(self) -> None:
        self._row.publish(
            max(self.leader_epoch, self.last_epoch, 0),
            self.start_offset,
            self.high_watermark,
            self.end_offset,
            self._active.base_offset,
        )

    # ---- reading

    def read(self, offset: int, max_bytes: int, *, end: int) -> memoryview:
        """Return whole batches as they are stored, padding included; the first may start below `offset`.

        At least one batch is returned, however large, and none that starts at or above `end`.

        Raises:
            OffsetOutOfRange: `offset` is not in [start_offset, end].
            QuarantinedBatch: a CorruptBatch; damage lies there, `next_offset` can be read.
            StorageError: no file descriptor is left to open a segment with.
        Cost: one pread and one CRC pass; where the last read did not end here, a look into the index before.
        """
        if not self.start_offset <= offset <= end:
            raise OffsetOutOfRange(f"offset {offset} is not in {self.start_offset}..{end}")
        if offset == end:
            return _EMPTY
        return self._reader.read(offset, max_bytes, end=end)

    def offset_for_time(self, timestamp_ms: int, *, end: int) -> tuple[int, int] | None:
        """Return (base offset, latest timestamp) of the first batch below `end` with a record at or after the time.

        The broker never looks inside a body: the reader skips what is older in that batch.

        Cost: for each older segment two small reads, then a look into one index.
        """
        return self._reader.offset_for_time(timestamp_ms, self.start_offset, end)

    def unread(self, offset: int, *, end: int) -> Unread:
        """Return what a reader at `offset` has not read of what lies below `end`: its lag.

        An offset below the log start counts from there.

        Raises:
            StorageError: no file descriptor is left to open a segment with.
        Cost: two looks into indexes with a few headers each; for each segment between a stat at most.
        """
        offset = max(offset, self.start_offset)
        return self._reader.unread(offset, end) if offset < end else NOTHING_UNREAD

    def epoch_end(self, epoch: int) -> tuple[int, int] | None:
        """Return the greatest epoch up to `epoch` with records here and where it ends; None: damage hides it.

        (-1, offset): no record is so old; the first batch begins there, below the log start or above it.

        Cost: none for the newest epoch; for another one look into the indexes, once.
        """
        if epoch >= self.last_epoch:
            return self.last_epoch, self.end_offset
        found = self._epoch_ends.get(epoch)
        if found is None:
            try:
                found = epoch_end(self._segments, max(self.start_offset, self._segments.bases[0]), epoch)
            except (CorruptBatch, StorageError, OSError):
                return None
            if len(self._epoch_ends) >= _EPOCH_ENDS_MAX:
                self._epoch_ends.clear()
            self._epoch_ends[epoch] = found
        return found

    def scrub(self, bytes_max: int) -> tuple[int, str]:
        """Verify about the next `bytes_max` bytes of stored batches, all in turn.

        Returns:
            How many bytes were verified, fewer where batches are small; and where damage is, empty: nowhere.
        Cost: reads and checks that much. What the page cache holds is read from there, whatever the disk has.
        """
        return self._reader.scrub(bytes_max, self.start_offset)

    # ---- what goes

    def delete_records(self, offset: int) -> None:
        """Raise the log start to `offset`, durably, and delete the segments that lie wholly below.

        Raises:
            OffsetOutOfRange: `offset` lies above the high watermark.
            StorageError, LogDirOffline: the system refused; the log start may have been raised all the same.
        Cost: one file made, one fsync of the directory.
        """
        if offset > self.high_watermark:
            raise OffsetOutOfRange(f"offset {offset} is above the high watermark {self.high_watermark}")
        if offset <= self.start_offset:
            return
        self._disk.check_online()
        self._disk.mark(self.path / file_name(offset, START))
        self.start_offset = offset
        self._publish()
        count = sum(1 for base in self._segments.bases[1:] if base <= offset)
        self._drop(count)
        try:
            names = os.listdir(self.path)
        except OSError as error:
            raise self._disk.refused(error, f"listing {self.path}") from error
        for name in names:  # of several marks the highest counts
            if name.endswith(START) and name != file_name(offset, START):
                self._disk.drop(self.path / name)

    def _drop(self, count: int) -> None:
        """Delete the oldest `count` segments."""
        if not count:
            return
        self.compaction.settle()
        gone = self._segments.drop_first(count)
        first = self._segments.bases[0]
        if first > self.start_offset:
            self.start_offset = first
            self._publish()
        self._unflushed.drop(gone)
        self._reader.forget(gone)
        for segment in gone:  # oldest first: what is left after a crash has no hole
            segment.unlink()
        self._snapshots.drop_below(first)

    def maintain(self) -> None:
        """Roll by time, delete by time and size, forget idle producers, and say when to come again.

        Cost: one stat per sealed segment.
        """
        config, age_ms = self.config, self._disk.time.age_ms
        if self._disk.failed or self.closed:
            return
        due = [age_ms + _MAINTAIN_MS_MAX]
        active = self._active
        if active.size and active.since_age_ms >= 0:
            idle_since_ms = max(self._last_append_age_ms, active.since_age_ms)
            retained_ms = config.retention_ms if config.deletes else -1
            expired = 0 <= retained_ms < age_ms - idle_since_ms and self.end_offset <= self.high_watermark
            due.append(active.since_age_ms + config.roll_ms)
            if retained_ms >= 0:
                due.append(idle_since_ms + retained_ms + 1)
            if age_ms - active.since_age_ms >= config.roll_ms or expired:
                try:
                    self.roll()
                except LogDirOffline:
                    raise
                except StorageError:  # a full disk, no descriptor left: the next round tries again
                    pass
        if self.compaction.swapping:  # a matter of two flushes of the directory
            due.append(age_ms)
        elif config.deletes and len(self._segments) > 1:
            sealed = [
                SealedSegment(segment.stored_bytes(), age_ms - self._snapshots.age_ms(following), following)
                for segment, following in zip(self._segments.items, self._segments.bases[1:], strict=False)
            ]
            self._drop(
                count_expired(
                    sealed,
                    self._active.size,
                    high_watermark=self.high_watermark,
                    retention_ms=config.retention_ms,
                    retention_bytes=config.retention_bytes,
                )
            )
            if config.retention_ms >= 0:
                due += [self._snapshots.age_ms(end) + config.retention_ms + 1 for end in self._segments.bases[1:2]]
        self._producers.expire(age_ms, config.producer_id_expiration_ms)
        next_expiry_ms = self._producers.next_expiry_ms(config.producer_id_expiration_ms)
        if next_expiry_ms is not None:
            due.append(next_expiry_ms)
        self.maintain_age_ms = min(due)

    # ---- snapshot and checkpoint

    def checkpoint_record(self) -> CheckpointRecord | None:
        """Return what the checkpoint should say of this log, None if it says so already; write a snapshot if due."""
        if self._unflushed.flushed_at is None or self.closed:
            return None
        snapshot_offset = self._snapshots.for_checkpoint(
            self._producers, self.end_offset, self.flushed_end, self._last_append_age_ms, self._segments.bases
        )
        at_active = self._unflushed.flushed_at[0] == self._active.base_offset
        record = self._checkpoint.news(
            self._unflushed.flushed_at,
            recovery_point=self.flushed_end,
            high_watermark=self.high_watermark,
            log_start=self.start_offset,
            snapshot_offset=snapshot_offset,
            active_since_age_ms=self._active.since_age_ms if at_active else -1,
            leader_epoch=self.last_epoch,
            producer_id_max=self.producer_id_max,
        )
        if record is not None:
            self._active.index.write_pending()
        return record

    # ---- truncation

    def truncate_to(self, offset: int) -> None:
        """Drop the batches that reach `offset` or lie above, as a follower must whose leader diverged.

        Above the high watermark the tail is zeroed in place, nobody has seen it; below, the segment is replaced by a
        new file and the page's generation raised. No flush of this log may be under way.

        Raises:
            LogDirOffline: the system refused.
        Cost: two fsyncs, and the headers behind the newest producer snapshot.
        """
        assert self.start_offset <= offset, "truncation below the log start"
        assert not self.flush_under_way, "a flush under way would vouch for what replaces the tail: drain it first"
        if offset >= self.end_offset:
            return
        self._disk.check_online()
        self.compaction.cut(offset)
        segments = self._segments
        index = segments.index_at(offset)
        segment = segments.items[index]
        position, offset, first_gone = segment.cut_at(offset, segments.end_of(index))
        seen = first_gone < self.high_watermark
        self._withdraw(offset, segment.base_offset, position)
        gone = segments.drop_behind(index)
        for later in gone:
            later.unlink()
        self._disk.sync_names(self.path)  # they must not come back over what is appended next
        segment.reopen(position, replace=seen)
        self._row.generation += seen
        self._active = segment
        self.end_offset = segments.end_offset = offset
        self.flushed_end = min(self.flushed_end, offset)
        self.high_watermark = min(self.high_watermark, offset)
        flushed_at = (segment.base_offset, position) if self.flushed_end == offset else None
        self._unflushed.cut(offset, flushed_at)
        self._reader.forget([*gone, segment])
        self._snapshots.drop_above(offset)
        self._producers = rebuild_producers(self._disk, self.path, self._snapshots.offsets, segments.items, offset)
        self.last_epoch = last_epoch(segments.items, offset)
        self._epoch_ends.clear()
        self.maintain_age_ms = 0
        self._publish()

    def restart_at(self, offset: int) -> None:
        """Drop everything and go on from `offset`, above the end: what lies between is gone where this log follows.

        Raises:
            DiskFull: nothing is lost yet.
            LogDirOffline: the system refused.
        Cost: four fsyncs.
        """
        assert offset > self.end_offset, "a restart leads ahead"
        assert not self.flush_under_way, "a flush under way would vouch for what is dropped"
        self._disk.check_online()
        self.compaction.cut(0)
        self._disk.mark(self.path / file_name(offset, START))  # from here on what lies below is gone for good
        fresh = self._new_segment(offset)
        fresh.create(uses_reserve=self.config.uses_reserve)
        self._active.seal()
        self._segments.add(fresh)
        self._active = fresh
        gone = self._segments.drop_first(len(self._segments) - 1)
        self.start_offset = self.end_offset = self.flushed_end = self._segments.end_offset = offset
        self.high_watermark = max(self.high_watermark, offset)
        self.last_epoch = -1
        self._unflushed.cut(0, (offset, 0))
        self._unflushed.size_bytes = 0
        self._unflushed.add_directory(self.path, offset)
        self._reader.forget(gone)
        for segment in gone:
            segment.unlink()
        self._disk.sync_names(self.path)
        self._snapshots.drop_above(-1)
        self._producers = ProducerState()
        self._epoch_ends.clear()
        self._publish()

    def _withdraw(self, offset: int, segment: int, position: int) -> None:
        """Have the checkpoint vouch for nothing at or above `offset`."""
        first = self._segments.bases[0]
        point = (offset, (segment, position)) if self.flushed_end >= offset else (first, (first, 0))
        mark = min(self.high_watermark, offset)
        self._checkpoint.withdraw(*point, high_watermark=mark, log_start=self.start_offset)

    def alter_config(self, config: LogConfig) -> None:
        """Follow the topic's new settings from the next append on."""
        self.config = config
        self.maintain_age_ms = 0
        for segment in self._segments.items:
            segment.index.set_interval(config.index_interval_bytes)
            segment.has_holes |= config.compacts

    # ---- compaction

    @property
    def cleaned_end(self) -> int:
        """Below it each key has one record."""
        return self.compaction.cleaned.end_offset

    def dirt(self) -> Dirt:
        """Measure what compaction could gain: below the high watermark alone, and of what recovery would not read."""
        end_max = min(self.high_watermark, self.flushed_end, self._checkpoint.recovery_segment)
        return self.compaction.dirt(self.config, log_start=self.start_offset, end_max=end_max)

    def begin_compaction(self, dirt: Dirt, run: str, *, purge_end: int, map_bytes_max: int, io_bytes_per_s: int) -> Job:
        """Return the job of a compaction run; what it writes is for `compaction` to take.

        Raises:
            CorruptBatch, StorageError: where what is dirty begins can't be read.
        """
        return self.compaction.begin(
            self.config,
            dirt,
            run,
            log_start=self.start_offset,
            purge_end=purge_end,
            kept_batches=self._producers.batches_below(dirt.end_offset),
            map_bytes_max=map_bytes_max,
            io_bytes_per_s=io_bytes_per_s,
        )

    def replaced(self) -> None:
        """Tell the readers of the page that another log takes this one's place."""
        self._row.generation += 1
        self._publish()

    def close(self) -> None:
        """Take no more appends; nothing of the log is written or flushed here."""
        if not self._disk.failed:
            self.compaction.abandon()
        self.closed = True
