"""The checkpoint: one append-only file per log directory that says from where recovery has to look.

Records of 128 bytes, each with a CRC; the last valid one of a partition counts. A record only ever trails: what lies
below its recovery point was flushed before it was written. Losing the file costs a longer recovery and an
unclean start, nothing else.

    offset  size  field
         0     4  magic b"FBYC"
         4     4  crc                 CRC-32C of bytes 8..128
         8     2  version             1
        10     2  kind                1 partition, 2 directory opened, 3 running time, 4 directory closed
        12     4  partition           kinds 2-4: 1 until the cluster knows of the last unclean start, else 0
        16    16  topic_id            kinds 2-4: the boot id
        32     8  recovery_point      offset; below it everything is flushed
        40     8  recovery_segment    base offset of the segment it lies in
        48     8  recovery_position   in that segment
        56     8  high_watermark
        64     8  log_start
        72     8  snapshot_offset     of the producer snapshot that holds at the recovery point; -1: there were no
                                      producers with an id; -2: not known
        80     8  active_since_age_ms running time at the first append to that segment; -1: it is empty
        88     8  leader_epoch
        96     8  age_ms              the directory's running time
       104     8  incarnation
       112     8  boot_ms             the boot clock at the write; -1: not known
       120     8  producer_id_max     the greatest producer id ever seen in the log; -1: none

Source: docs/format/checkpoint.md.
"""

from __future__ import annotations

import os
import struct

import msgspec

from brokerd.storage.disk import Disk
from brokerd.storage.files import CREATE, File, pwrite_all
from ingest.errors import DiskFull
from ingest.records.checksum import crc32c

RECORD_SIZE = 128
_RECORD = struct.Struct("<HHi16s12q")
_HEAD = struct.Struct("<4sI")
_MAGIC = b"FBYC"
_VERSION = 1
assert _HEAD.size + _RECORD.size == RECORD_SIZE

PARTITION, OPENED, RUNNING, CLOSED = 1, 2, 3, 4
INTACT, UNPROVEN = 0, 1
NO_PRODUCERS, UNKNOWN_PRODUCERS = -1, -2
_COMPACT_BYTES = 1 << 20
_INCARNATIONS_MAX = 64  # remembered; a process that opens the directory and is never registered adds one too


class CheckpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record; see the module's drawing."""

    kind: int
    topic_id: bytes
    partition: int = 0
    recovery_point: int = 0
    recovery_segment: int = 0
    recovery_position: int = 0
    high_watermark: int = 0
    log_start: int = 0
    snapshot_offset: int = -1
    active_since_age_ms: int = -1
    leader_epoch: int = -1
    age_ms: int = 0
    incarnation: int = 0
    boot_ms: int = -1
    producer_id_max: int = -1


def encode_record(record: CheckpointRecord) -> bytes:
    """Encode one record of 128 bytes."""
    body = _RECORD.pack(
        _VERSION,
        record.kind,
        record.partition,
        record.topic_id,
        record.recovery_point,
        record.recovery_segment,
        record.recovery_position,
        record.high_watermark,
        record.log_start,
        record.snapshot_offset,
        record.active_since_age_ms,
        record.leader_epoch,
        record.age_ms,
        record.incarnation,
        record.boot_ms,
        record.producer_id_max,
    )
    return _HEAD.pack(_MAGIC, crc32c(body)) + body


def decode_record(data: bytes, position: int = 0) -> CheckpointRecord | None:
    """Return the record at `position`, None if it is not what was written."""
    magic, crc = _HEAD.unpack_from(data, position)
    body = data[position + _HEAD.size : position + RECORD_SIZE]
    if magic != _MAGIC or crc32c(body) != crc:
        return None
    fields = _RECORD.unpack(body)
    if fields[0] != _VERSION:
        return None
    return CheckpointRecord(
        kind=fields[1],
        partition=fields[2],
        topic_id=fields[3],
        recovery_point=fields[4],
        recovery_segment=fields[5],
        recovery_position=fields[6],
        high_watermark=fields[7],
        log_start=fields[8],
        snapshot_offset=fields[9],
        active_since_age_ms=fields[10],
        leader_epoch=fields[11],
        age_ms=fields[12],
        incarnation=fields[13],
        boot_ms=fields[14],
        producer_id_max=fields[15],
    )


class Checkpoint:
    """The file. Thread: the owner's.

    Attributes:
        partitions: The last record of each partition.
        incarnations: The last record of each process that had the directory open, the latest last.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._path = disk.path / "checkpoint"
        self._file = File(self._path, CREATE, disk.file_mode)
        self.partitions: dict[tuple[bytes, int], CheckpointRecord] = {}
        self.incarnations: dict[int, CheckpointRecord] = {}
        self.age_ms = 0
        self._stale: set[tuple[bytes, int]] = set()  # dropped partitions of which the file still has records
        data = os.pread(self._file.fd, self._file.size(), 0)
        for position in range(0, len(data) - RECORD_SIZE + 1, RECORD_SIZE):
            record = decode_record(data, position)
            if record is not None:
                self._take(record)
        self._size = len(data) // RECORD_SIZE * RECORD_SIZE  # a torn last record is written over

    def _take(self, record: CheckpointRecord) -> None:
        self.age_ms = max(self.age_ms, record.age_ms)
        if record.kind == PARTITION:
            self.partitions[record.topic_id, record.partition] = record
        else:
            self.incarnations.pop(record.incarnation, None)
            self.incarnations[record.incarnation] = record
            if len(self.incarnations) > _INCARNATIONS_MAX:
                del self.incarnations[next(iter(self.incarnations))]

    @property
    def last(self) -> CheckpointRecord | None:
        """The last record that is no partition's; None on a new file."""
        return next(reversed(self.incarnations.values()), None)

    def write(self, records: list[CheckpointRecord]) -> None:
        """Append records and make them durable.

        The caller has flushed what they vouch for. Without room they are dropped: the older ones still hold.
        Cost: one pwrite, one fdatasync.
        """
        for record in records:
            self._take(record)
        data = b"".join(map(encode_record, records))
        if self._size + len(data) > _COMPACT_BYTES and self._size > 4 * RECORD_SIZE * (
            len(self.partitions) + len(self.incarnations) + 1
        ):
            self._compact()
            return
        try:
            pwrite_all(self._file.fd, data, self._size)
        except OSError as error:
            if not self._disk.is_full(error):
                raise self._disk.fail(error, f"writing {self._path}") from error
            self._compact()
            return
        try:
            os.fdatasync(self._file.fd)
        except OSError as error:  # ENOSPC too: a failing device may show itself as that
            raise self._disk.fail(error, f"flushing {self._path}") from error
        self._size += len(data)

    def forget(self, topic_id: bytes, partition: int) -> None:
        """Drop a deleted partition's record at the next compaction."""
        if self.partitions.pop((topic_id, partition), None) is not None:
            self._stale.add((topic_id, partition))

    def begin(self, topic_id: bytes, partition: int) -> None:
        """Have the file say nothing of a partition that is about to be made: it may have been here before.

        Raises:
            DiskFull: it still does.
        Cost: nothing, or a compaction if it did.
        """
        self.forget(topic_id, partition)
        if (topic_id, partition) in self._stale and not self._compact():
            raise DiskFull(f"{self._path}: the disk is full", path=self._path)

    def _compact(self) -> bool:
        data = b"".join(map(encode_record, [*self.incarnations.values(), *self.partitions.values()]))
        if self._disk.replace(self._path, data, durable=True):
            self._file = File(self._path, CREATE, self._disk.file_mode)
            self._size = len(data)
            self._stale.clear()
            return True
        return False
