"""Fetch: whole batches below the high watermark, or a parked request until there are some.

A reader that names its rack is served from followed partitions too, and may be sent to a replica nearer to it. What a
follower can't serve it calls OFFSET_NOT_AVAILABLE: only a leader can say that there is no such offset. Source: KIP-392.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from brokerd.serving.deadlines import Deadlines
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.parked import ParkedFetch
from brokerd.serving.partition import Find, Partition
from brokerd.serving.quotas import Quota
from brokerd.serving.unsent import UnsentAnswers
from brokerd.storage.log import OffsetOutOfRange
from ingest.errors import CorruptBatch, LogDirOffline, StorageError
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request
from ingest.wire.messages import FetchedPartition, FetchPartition, FetchRequest, FetchResponse
from replicas.selector import nearest_replica

if TYPE_CHECKING:
    from typing_extensions import Buffer


class FetchRoom:
    """Serve fetches. Thread: the broker loop.

    Args:
        find, find_replica: What is led here, and what is led or followed.
        unsent: Tells how much more a peer may be sent: for one that does not read, nothing is read from disk.

    Attributes:
        quota: What clients may be sent a second: `consumer_byte_rate`.
        racks: Of the brokers that are alive; empty: readers are sent nowhere else.
        damaged: Partitions in which damage was met, and where; the owner takes them.
    """

    def __init__(
        self, find: Find, find_replica: Find, outbox: Outbox, response_bytes_max: int, unsent: UnsentAnswers
    ) -> None:
        self._find_led = find
        self._find_replica = find_replica
        self.quota = Quota()
        self.racks: Mapping[int, str] = {}
        self._outbox = outbox
        self._response_bytes_max = response_bytes_max
        self._unsent = unsent
        self._deadlines: Deadlines[ParkedFetch] = Deadlines()
        self._by_connection: dict[tuple[int, bytes], ParkedFetch] = {}
        self.bytes_out: dict[str, int] = {}
        self.corrupt = 0
        self.damaged: dict[Partition, str] = {}

    def handle(self, peer: Peer, request: Request, now_ms: int) -> None:
        """Answer at once if there is an error or enough to read, else park until there is or the time is over.

        While its client is over its quota a fetch waits, too, and comes back without records.
        """
        body: FetchRequest = request.body
        if body.max_wait_ms < 0 or any(item.max_bytes < 0 for item in body.partitions):
            self._outbox.refuse(peer, request.correlation_id, ErrorCode.INVALID_REQUEST, "negative wait or size")
            return
        if len({(item.topic_id, item.partition) for item in body.partitions}) != len(body.partitions):
            self._outbox.refuse(peer, request.correlation_id, ErrorCode.INVALID_REQUEST, "a partition is named twice")
            return
        partitions = []
        ready = not body.partitions
        for item in body.partitions:
            found = self._find(body, item)
            if isinstance(found, ErrorCode) or found.check_epoch(item.leader_epoch):
                ready = True
                continue
            partitions.append(found)
            if (
                found.diverging(item.offset, item.last_epoch)
                or (found.check_offset(item.offset) and not found.trails(item.offset))
                or self._elsewhere(found, item, body.rack) >= 0
            ):
                ready = True
        throttle_ms = self.quota.throttle_ms(request.client_id, now_ms) if body.max_bytes else 0
        wait_ms = min(body.max_wait_ms, request.timeout_ms)
        if throttle_ms:
            body, wait_ms = msgspec.structs.replace(body, max_bytes=0), min(wait_ms, throttle_ms)
        throttled = throttle_ms > 0
        parked = ParkedFetch(peer, request.correlation_id, body, request.client_id, throttled=throttled)
        if ready or body.max_wait_ms == 0 or (not throttled and self._enough(parked)):
            self._answer(parked, now_ms)
            return
        previous = self._by_connection.get(peer.connection)
        if previous is not None and not previous.done:
            self._answer(previous, now_ms)  # one fetch waits for each connection
        self._by_connection[peer.connection] = parked
        self._deadlines.add(now_ms + wait_ms, parked)
        for partition in () if throttled else partitions:
            partition.park_fetch(parked)

    def moved(self, partition: Partition, now_ms: int) -> None:
        """Look again at the fetches that wait for this partition, whose high watermark has moved."""
        for parked in partition.take_fetches():
            if self._enough(parked):
                self._answer(parked, now_ms)
            else:
                partition.park_fetch(parked)

    def abandon(self, partition: Partition, now_ms: int) -> None:
        """Answer what waits for a partition that is led here no longer."""
        for parked in partition.take_fetches():
            self._answer(parked, now_ms)

    def expire(self, now_ms: int) -> None:
        for parked in self._deadlines.pop_due(now_ms):
            self._answer(parked, now_ms)

    def next_deadline_ms(self) -> int | None:
        return self._deadlines.next_ms()

    def _find(self, body: FetchRequest, item: FetchPartition) -> Partition | ErrorCode:
        find = self._find_replica if body.rack else self._find_led
        return find(item.topic_id, item.partition)

    def _elsewhere(self, found: Partition, item: FetchPartition, rack: str) -> int:
        """Return the broker where a reader is served better, -1 for none."""
        leadership = found.leadership
        if not rack or not self.racks or leadership is None or found.check_offset(item.offset):
            return -1
        broker = nearest_replica(leadership, rack, self.racks, item.offset)
        return -1 if broker == leadership.state.leader else broker

    def _enough(self, parked: ParkedFetch) -> bool:
        """Tell whether a parked fetch can be answered; remember how many bytes are missing."""
        readable = False
        appended = 0
        for item in parked.body.partitions:
            found = self._find(parked.body, item)
            if isinstance(found, ErrorCode) or found.check_epoch(item.leader_epoch):
                return True
            appended += found.appended_bytes
            if found.log.high_watermark > item.offset:
                readable = True
        if not readable or parked.body.max_bytes == 0 or parked.body.min_bytes <= 1:
            return readable
        if appended < parked.wanted_bytes:
            return False
        _, payload = self._read(parked)
        size = sum(memoryview(frame).nbytes for frame in payload)
        if size >= min(parked.body.min_bytes, self._bytes_max(parked)):
            return True
        parked.wanted_bytes = appended + parked.body.min_bytes - size
        return False

    def _bytes_max(self, parked: ParkedFetch) -> int:
        """Return what the client wants at most, and with a quota no more than that of a second."""
        wanted = parked.body.max_bytes
        return min(wanted, self.quota.bytes_per_s(parked.client_id) or wanted)

    def _answer(self, parked: ParkedFetch, now_ms: int) -> None:
        parked.done = True
        if self._by_connection.get(parked.peer.connection) is parked:
            del self._by_connection[parked.peer.connection]
        results, payload = self._read(parked)
        total = sum(memoryview(frame).nbytes for frame in payload)
        counted = self.quota.bytes_per_s(parked.client_id) > 0
        throttle_ms = self.quota.spend(parked.client_id, total, now_ms) if total or parked.throttled else 0
        for item, result in zip(parked.body.partitions, results, strict=True):
            if result.frame >= 0:
                found = self._find(parked.body, item)
                assert isinstance(found, Partition)
                size = memoryview(payload[result.frame]).nbytes
                self.bytes_out[found.topic] = self.bytes_out.get(found.topic, 0) + size
                self._unsent.decided(parked.peer.connection, size)
        self._outbox.answer(parked.peer, parked.correlation_id, FetchResponse(results, throttle_ms, counted), payload)

    def _read(self, parked: ParkedFetch) -> tuple[list[FetchedPartition], list[Buffer]]:
        body = parked.body
        results: list[FetchedPartition] = []
        payload: list[Buffer] = []
        left = min(self._bytes_max(parked), self._response_bytes_max)
        if left:
            left = min(left, self._unsent.room(parked.peer.connection))
        for item in body.partitions:
            found = self._find(body, item)
            if isinstance(found, ErrorCode):
                results.append(FetchedPartition(item.topic_id, item.partition, int(found)))
                continue
            data: Buffer = b""
            code = found.check_epoch(item.leader_epoch)
            next_offset = -1
            diverging = found.diverging(item.offset, item.last_epoch) if not code else None
            if diverging is not None and found.leadership is None:  # it may be this log that is to be cut
                code, diverging = ErrorCode.OFFSET_NOT_AVAILABLE, None
            elsewhere = self._elsewhere(found, item, body.rack) if not code and diverging is None else -1
            if not code and diverging is None and elsewhere < 0:
                want = min(item.max_bytes, left) if len(payload) < LIMITS.payload_frames_max else 0
                code, data, next_offset = self._read_partition(found, item, want)
            frame = -1
            if data:
                frame = len(payload)
                payload.append(data)
                left = max(0, left - memoryview(data).nbytes)
            log = found.log
            results.append(
                FetchedPartition(
                    item.topic_id,
                    item.partition,
                    int(code),
                    log.high_watermark,
                    log.start_offset,
                    log.leader_epoch,
                    frame,
                    log.row,
                    next_offset,
                    *(diverging or (-1, -1)),
                    elsewhere,
                )
            )
        return results, payload

    def _read_partition(self, found: Partition, item: FetchPartition, want: int) -> tuple[ErrorCode, Buffer, int]:
        log = found.log
        code = found.check_offset(item.offset)
        if code:
            return code, b"", -1
        if want == 0 or item.offset == log.high_watermark:
            return ErrorCode.NONE, b"", -1
        try:
            return ErrorCode.NONE, log.read(item.offset, want, end=log.high_watermark), -1
        except OffsetOutOfRange:
            known = found.leadership is not None
            return ErrorCode.OFFSET_OUT_OF_RANGE if known else ErrorCode.OFFSET_NOT_AVAILABLE, b"", -1
        except CorruptBatch as error:
            self.corrupt += 1
            self.damaged[found] = str(error)
            if not found.is_alone:  # another replica has the records: nobody may skip them
                return ErrorCode.KAFKA_STORAGE_ERROR, b"", -1
            return ErrorCode.CORRUPT_MESSAGE, b"", getattr(error, "next_offset", -1)
        except LogDirOffline:
            raise
        except (StorageError, OSError):  # no descriptor left, a file gone: this read's trouble alone
            return ErrorCode.KAFKA_STORAGE_ERROR, b"", -1
