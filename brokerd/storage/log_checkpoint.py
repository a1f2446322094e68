"""What the directory's checkpoint says of one log, and what it should say next."""

from __future__ import annotations

import msgspec

from brokerd.storage.checkpoint import PARTITION, UNKNOWN_PRODUCERS, Checkpoint, CheckpointRecord
from brokerd.storage.disk import Disk


class LogCheckpoint:
    """One log's records. Thread: the owner's."""

    def __init__(self, disk: Disk, checkpoint: Checkpoint, topic_id: bytes, partition: int) -> None:
        self._disk = disk
        self._checkpoint = checkpoint
        self._key = (topic_id, partition)

    @property
    def last(self) -> CheckpointRecord | None:
        """The record that counts now."""
        return self._checkpoint.partitions.get(self._key)

    @property
    def recovery_segment(self) -> int:
        """The segment from which on recovery reads, were it now: what lies before it was flushed."""
        return self.last.recovery_segment if self.last else 0

    def news(
        self,
        flushed_at: tuple[int, int],
        *,
        recovery_point: int,
        high_watermark: int,
        log_start: int,
        snapshot_offset: int,
        active_since_age_ms: int,
        leader_epoch: int,
        producer_id_max: int,
    ) -> CheckpointRecord | None:
        """Return the record to write, None if the last one says the same.

        Args:
            flushed_at: Segment and position of the recovery point.
        """
        topic_id, partition = self._key
        record = CheckpointRecord(
            kind=PARTITION,
            topic_id=topic_id,
            partition=partition,
            recovery_point=recovery_point,
            recovery_segment=flushed_at[0],
            recovery_position=flushed_at[1],
            high_watermark=min(high_watermark, recovery_point),
            log_start=log_start,
            snapshot_offset=snapshot_offset,
            active_since_age_ms=active_since_age_ms,
            leader_epoch=leader_epoch,
            producer_id_max=producer_id_max,
            age_ms=self._disk.time.age_ms,
        )
        last = self.last
        same = last is not None and msgspec.structs.replace(last, age_ms=record.age_ms) == record
        return None if same else record

    def withdraw(
        self, recovery_point: int, flushed_at: tuple[int, int], *, high_watermark: int, log_start: int
    ) -> None:
        """Vouch durably for nothing at or above an offset, before it is cut off. Cost: one fdatasync."""
        topic_id, partition = self._key
        record = CheckpointRecord(
            kind=PARTITION,
            topic_id=topic_id,
            partition=partition,
            recovery_point=recovery_point,
            recovery_segment=flushed_at[0],
            recovery_position=flushed_at[1],
            high_watermark=high_watermark,
            log_start=log_start,
            snapshot_offset=UNKNOWN_PRODUCERS,
            age_ms=self._disk.time.age_ms,
        )
        self._checkpoint.write([record])
