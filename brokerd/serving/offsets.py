"""Where logs and epochs end, what lies between: ListOffsets, OffsetForLeaderEpoch, OffsetLag; DeleteRecords cuts."""

from __future__ import annotations

from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Find, Partition
from ingest.errors import CorruptBatch, LogDirOffline, StorageError
from ingest.topic_name import is_internal
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request
from ingest.wire.messages import (
    EARLIEST_TIMESTAMP,
    EPOCH_END_PARTITIONS_MAX,
    LATEST_TIMESTAMP,
    OFFSET_LAG_PARTITIONS_MAX,
    DeletedRecords,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    EpochEnd,
    EpochEndPartition,
    ListedOffset,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetLag,
    OffsetLagPartition,
    OffsetLagRequest,
    OffsetLagResponse,
)


class OffsetsRoom:
    """Serve what is asked about offsets. Thread: the broker loop.

    Attributes:
        trimmed: Partitions whose log start was raised; the owner takes them.
        damaged: Partitions in which damage was met, and where; the owner takes them.
    """

    def __init__(self, find: Find, outbox: Outbox) -> None:
        self._find = find
        self._outbox = outbox
        self.trimmed: dict[Partition, None] = {}
        self.damaged: dict[Partition, str] = {}

    def list_offsets(self, peer: Peer, request: Request) -> None:
        """Say which offsets belong to times; the end of a log only once it is known."""
        body: ListOffsetsRequest = request.body
        listed = [self._list_offset(item) for item in body.partitions]
        self._outbox.answer(peer, request.correlation_id, ListOffsetsResponse(listed))

    def _list_offset(self, item: ListOffsetsPartition) -> ListedOffset:
        found = self._find(item.topic_id, item.partition)
        if isinstance(found, ErrorCode):
            return ListedOffset(int(found))
        code = found.check_epoch(item.leader_epoch)
        if code:
            return ListedOffset(int(code))
        log = found.log
        epoch = log.leader_epoch
        if item.timestamp_ms != EARLIEST_TIMESTAMP and not found.knows_its_end:
            return ListedOffset(int(ErrorCode.OFFSET_NOT_AVAILABLE))
        if item.timestamp_ms == LATEST_TIMESTAMP:
            return ListedOffset(0, log.high_watermark, -1, epoch)
        if item.timestamp_ms == EARLIEST_TIMESTAMP:
            return ListedOffset(0, log.start_offset, -1, epoch)
        if item.timestamp_ms < 0:
            return ListedOffset(int(ErrorCode.INVALID_REQUEST))
        try:
            at = log.offset_for_time(item.timestamp_ms, end=log.high_watermark)
        except LogDirOffline:
            raise
        except (CorruptBatch, StorageError, OSError) as error:
            if isinstance(error, CorruptBatch):
                self.damaged[found] = str(error)
            return ListedOffset(int(ErrorCode.KAFKA_STORAGE_ERROR))
        if at is None:
            return ListedOffset(0, -1, -1, epoch)
        return ListedOffset(0, max(at[0], log.start_offset), at[1], epoch)

    def _refuses(self, peer: Peer, request: Request, count: int, count_max: int) -> bool:
        """Refuse a request for too many partitions: others wait while it is answered."""
        if count > count_max:
            text = f"{count} partitions; one request may ask for {count_max}"
            self._outbox.refuse(peer, request.correlation_id, ErrorCode.INVALID_REQUEST, text)
        return count > count_max

    def epoch_ends(self, peer: Peer, request: Request) -> None:
        """Say where leader epochs end, by which readers see whether a log is still the one they read (KIP-320)."""
        body: OffsetForLeaderEpochRequest = request.body
        if self._refuses(peer, request, len(body.partitions), EPOCH_END_PARTITIONS_MAX):
            return
        ends = [self._epoch_end(item) for item in body.partitions]
        self._outbox.answer(peer, request.correlation_id, OffsetForLeaderEpochResponse(ends))

    def _epoch_end(self, item: EpochEndPartition) -> EpochEnd:
        found = self._find(item.topic_id, item.partition)
        if isinstance(found, ErrorCode):
            return EpochEnd(int(found))
        code = _check(found, item.leader_epoch, item.epoch)
        if code:
            return EpochEnd(int(code))
        log = found.log
        if item.epoch >= log.leader_epoch:
            return EpochEnd(0, item.epoch, log.end_offset) if item.epoch == log.leader_epoch else EpochEnd(0)
        end = log.epoch_end(item.epoch)
        if end is None:
            return EpochEnd(int(ErrorCode.KAFKA_STORAGE_ERROR))
        return EpochEnd(0) if end[0] < 0 else EpochEnd(0, *end)

    def offset_lag(self, peer: Peer, request: Request, wall_ms: int) -> None:
        """Say what readers at offsets have not read yet, as `Log.unread` finds it."""
        body: OffsetLagRequest = request.body
        if self._refuses(peer, request, len(body.partitions), OFFSET_LAG_PARTITIONS_MAX):
            return
        lags = [self._offset_lag(item, wall_ms) for item in body.partitions]
        self._outbox.answer(peer, request.correlation_id, OffsetLagResponse(lags))

    def _offset_lag(self, item: OffsetLagPartition, wall_ms: int) -> OffsetLag:
        found = self._find(item.topic_id, item.partition)
        if isinstance(found, ErrorCode):
            return OffsetLag(int(found))
        code = _check(found, item.leader_epoch, item.offset)
        if code:
            return OffsetLag(int(code))
        log = found.log
        try:
            unread = log.unread(item.offset, end=log.high_watermark)
        except LogDirOffline:
            raise
        except (StorageError, OSError):
            return OffsetLag(int(ErrorCode.KAFKA_STORAGE_ERROR))
        age_ms = 0 if unread.append_time_ms < 0 else max(0, wall_ms - unread.append_time_ms)
        return OffsetLag(0, log.start_offset, log.high_watermark, unread.records, unread.size_bytes, age_ms)

    def delete_records(self, peer: Peer, request: Request) -> None:
        """Raise log starts; followers hear of it with the next answer to their fetches."""
        body: DeleteRecordsRequest = request.body
        deleted = []
        for item in body.partitions:
            found = self._find(item.topic_id, item.partition)
            if isinstance(found, ErrorCode):
                deleted.append(DeletedRecords(int(found)))
                continue
            if is_internal(found.topic):
                text = f"{found.topic} is the brokers' own: committed offsets would be gone"
                deleted.append(DeletedRecords(int(ErrorCode.INVALID_TOPIC_EXCEPTION), message=text))
                continue
            log = found.log
            offset = log.high_watermark if item.offset == -1 else item.offset
            if not 0 <= offset <= log.high_watermark:
                text = f"offset {offset} is not in 0..{log.high_watermark}"
                deleted.append(DeletedRecords(int(ErrorCode.OFFSET_OUT_OF_RANGE), message=text))
                continue
            try:
                log.delete_records(offset)
            except StorageError as error:
                deleted.append(DeletedRecords(int(ErrorCode.KAFKA_STORAGE_ERROR), message=str(error)))
                continue
            self.trimmed[found] = None
            deleted.append(DeletedRecords(0, log.start_offset))
        self._outbox.answer(peer, request.correlation_id, DeleteRecordsResponse(deleted))


def _check(found: Partition, leader_epoch: int, asked: int) -> ErrorCode:
    """Tell why a leader says nothing about a number that has to be 0 or more, NONE if it does."""
    code = found.check_epoch(leader_epoch)
    if code:
        return code
    if asked < 0:
        return ErrorCode.INVALID_REQUEST
    return ErrorCode.NONE if found.knows_its_end else ErrorCode.OFFSET_NOT_AVAILABLE
