"""Produce: append, then answer once the high watermark has passed: one path for new and duplicate batches."""

from __future__ import annotations

from brokerd.serving.deadlines import Deadlines
from brokerd.serving.held_produces import HeldProduces, payload_bytes
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.parked import ParkedProduce
from brokerd.serving.partition import Find, Partition
from brokerd.serving.quotas import Quota
from ingest.errors import CorruptBatch, DiskFull, LogDirOffline, RemoteError, StorageError, UnsupportedFormat
from ingest.limits import LIMITS
from ingest.topic_name import is_internal
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request
from ingest.wire.messages import ProducedPartition, ProducePartition, ProduceRequest, ProduceResponse

PARKED_MAX = LIMITS.parked_produces_max  # produce requests of one connection that may wait


class ProduceRoom:
    """Append batches and hold their answers. Thread: the broker loop.

    Attributes:
        touched: Partitions appended to since the caller last looked; it flushes them and moves their high watermark.
        quota: What clients may append a second: `producer_byte_rate`.
    """

    def __init__(self, find: Find, outbox: Outbox) -> None:
        self._find = find
        self._outbox = outbox
        self._deadlines: Deadlines[ParkedProduce] = Deadlines()
        self.touched: dict[Partition, None] = {}
        self.quota = Quota()
        self._held = HeldProduces(self.quota)
        self._by_connection: dict[tuple[int, bytes], int] = {}
        self.parked = 0
        self.records_in: dict[str, int] = {}
        self.bytes_in: dict[str, int] = {}
        self.errors: dict[str, int] = {}

    def handle(self, peer: Peer, request: Request, now_ms: int, wall_ms: int) -> None:
        """Append each batch of the request; answer at once only what failed or waits for nothing.

        While its client is over its quota a request is held, for a client that does not heed what it was told.
        """
        if not self._held.must_wait(request.client_id, now_ms):
            self._take(peer, request, now_ms, wall_ms)
        elif not self._held.add(peer, request, now_ms):
            self._throttle(peer, request, now_ms)

    def release(self, now_ms: int, wall_ms: int) -> None:
        """Append what was held for as long as it had to be."""
        for held in self._held.due(now_ms):
            if now_ms < held.deadline_ms:
                self._take(held.peer, held.request, now_ms, wall_ms)
            else:
                self._throttle(held.peer, held.request, now_ms)

    def _throttle(self, peer: Peer, request: Request, now_ms: int) -> None:
        """Refuse what waited too long, or had no room to wait in: nothing of it was appended."""
        body: ProduceRequest = request.body
        text = f"client {request.client_id[:100]!r} is over its producer_byte_rate"
        refused = self._failed(ErrorCode.THROTTLING_QUOTA_EXCEEDED, text)
        if body.acks != 0 or body.tell_throttle:
            throttle_ms = self.quota.throttle_ms(request.client_id, now_ms)
            answer = ProduceResponse([refused] * len(body.partitions), throttle_ms, counted=True)
            self._outbox.answer(peer, request.correlation_id, answer)

    def _take(self, peer: Peer, request: Request, now_ms: int, wall_ms: int) -> None:
        body: ProduceRequest = request.body
        if body.acks not in (-1, 0, 1):
            self._refuse(peer, request, ErrorCode.INVALID_REQUIRED_ACKS, f"acks {body.acks} is not -1, 0 or 1")
            return
        named = {(item.topic_id, item.partition) for item in body.partitions}
        if len(request.payload) != len(body.partitions) or len(named) != len(body.partitions) or not named:
            self._refuse(
                peer,
                request,
                ErrorCode.INVALID_RECORD if request.payload and body.partitions else ErrorCode.INVALID_REQUEST,
                f"{len(request.payload)} batches for {len(named)} distinct partitions; one batch for each is due",
            )
            return
        waiting = self._by_connection.get(peer.connection, 0)
        if waiting >= PARKED_MAX:
            self._refuse(peer, request, ErrorCode.THROTTLING_QUOTA_EXCEEDED, f"{waiting} requests wait already")
            return
        parked = ParkedProduce(peer, request.correlation_id, [])
        parked.counted = self.quota.bytes_per_s(request.client_id) > 0
        parked.throttle_ms = self.quota.spend(request.client_id, payload_bytes(request), now_ms)
        for index, (item, batch) in enumerate(zip(body.partitions, request.payload, strict=True)):
            result, partition, last_offset = self._append(item, memoryview(batch), body.acks, wall_ms)
            parked.results.append(result)
            if partition is not None and body.acks != 0:
                parked.waiting += 1
                partition.park_produce(last_offset, parked, index, replicated=body.acks < 0)
        if body.acks == 0 and not body.tell_throttle:
            return
        if parked.waiting:
            self.parked += 1
            self._by_connection[peer.connection] = waiting + 1
            self._deadlines.add(now_ms + request.timeout_ms, parked)
        else:
            self._answer(parked)

    def _append(
        self, item: ProducePartition, batch: memoryview, acks: int, wall_ms: int
    ) -> tuple[ProducedPartition, Partition | None, int]:
        found = self._find(item.topic_id, item.partition)
        if isinstance(found, ErrorCode):
            return self._failed(found, ""), None, -1
        if is_internal(found.topic):
            text = f"{found.topic} is the brokers' own"
            return self._failed(ErrorCode.INVALID_TOPIC_EXCEPTION, text), None, -1
        code = found.check_epoch(item.leader_epoch)
        if code:
            return self._failed(code, f"leader epoch is {found.log.leader_epoch}"), None, -1
        if acks < 0 and not found.enough_in_sync:
            assert found.leadership is not None
            why = (
                "fewer copies than min.insync.replicas" if found.leadership.confirmed else "and no controller is heard"
            )
            text = f"in sync are {found.leadership.state.isr}, {why}"
            return self._failed(ErrorCode.NOT_ENOUGH_REPLICAS, text), None, -1
        log = found.log
        try:
            (appended,) = log.append([batch], wall_ms=wall_ms)
        except CorruptBatch as error:
            return self._failed(ErrorCode.CORRUPT_MESSAGE, str(error)), None, -1
        except UnsupportedFormat as error:
            return self._failed(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, str(error)), None, -1
        except RemoteError as error:
            return self._failed(ErrorCode(error.code), str(error)), None, -1
        except DiskFull as error:
            return self._failed(ErrorCode.KAFKA_STORAGE_ERROR, f"disk full: {error}"), None, -1
        except LogDirOffline:
            raise
        except StorageError as error:
            return self._failed(ErrorCode.KAFKA_STORAGE_ERROR, str(error)), None, -1
        if not appended.duplicate:
            size = batch.nbytes
            records = appended.last_offset - appended.base_offset + 1
            found.appended_bytes += size
            self.records_in[found.topic] = self.records_in.get(found.topic, 0) + records
            self.bytes_in[found.topic] = self.bytes_in.get(found.topic, 0) + size
        self.touched[found] = None
        result = ProducedPartition(0, appended.base_offset, appended.append_time_ms, log.start_offset)
        return result, found, appended.last_offset

    def committed(self, partition: Partition) -> None:
        """Answer what the partition's high watermark has passed."""
        for parked, _ in partition.pop_committed():
            parked.waiting -= 1
            if parked.waiting == 0 and not parked.done:
                self._unpark(parked)

    def abandon(self, partition: Partition, code: ErrorCode, message: str) -> None:
        """Give up everything that waits for a partition this broker no longer leads; the outcome is unknown."""
        assert not code.definite, "after an append the outcome is always unknown"
        for parked, index in partition.pop_all():
            if not parked.done:
                parked.results[index] = self._failed(code, message)
                parked.waiting -= 1
                if parked.waiting == 0:
                    self._unpark(parked)

    def expire(self, now_ms: int) -> None:
        """Answer REQUEST_TIMED_OUT to what has waited long enough: appended, perhaps never committed."""
        for parked in self._deadlines.pop_due(now_ms):
            parked.results = [
                result if result.error_code else self._failed(ErrorCode.REQUEST_TIMED_OUT, "not yet committed")
                for result in parked.results
            ]
            self._unpark(parked)

    def next_deadline_ms(self) -> int | None:
        """Return when `expire` or `release` has something to do."""
        times = (self._deadlines.next_ms(), self._held.next_ms())
        return min((due for due in times if due is not None), default=None)

    def _unpark(self, parked: ParkedProduce) -> None:
        self.parked -= 1
        connection = parked.peer.connection
        left = self._by_connection[connection] - 1
        if left:
            self._by_connection[connection] = left
        else:
            del self._by_connection[connection]
        self._answer(parked)

    def _answer(self, parked: ParkedProduce) -> None:
        parked.done = True
        answer = ProduceResponse(parked.results, parked.throttle_ms, parked.counted)
        self._outbox.answer(parked.peer, parked.correlation_id, answer)

    def _refuse(self, peer: Peer, request: Request, code: ErrorCode, message: str) -> None:
        self.errors[code.name] = self.errors.get(code.name, 0) + 1
        self._outbox.refuse(peer, request.correlation_id, code, message)

    def _failed(self, code: ErrorCode, message: str) -> ProducedPartition:
        self.errors[code.name] = self.errors.get(code.name, 0) + 1
        return ProducedPartition(int(code), message=message)
