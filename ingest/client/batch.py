"""A producer's batch from its first record to its answer, and the handle of one record in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ingest.errors import ForebayError
from ingest.records.batch import encode_batch
from ingest.records.columns import Headers
from ingest.records.header import HEADER_SIZE, decode_header, encode_producer_half

RECORD_OVERHEAD_BYTES = 24  # a record's share of timestamps and offsets, and of the objects that hold it meanwhile

FILL_MS = 5  # a caller this fast gains more by larger batches than it loses: each costs 100 to 300 µs of two processes


class RecordMetadata(NamedTuple):
    """Where an acknowledged record is. `offset` -1: acks 0, nobody said."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class ProducerBatch:
    """Records for one partition, gathered, encoded once, sent until answered.

    Attributes:
        queue: The PartitionQueue it belongs to; None while its topic is not known.
        owner: The producer, whom handles ask to wait.
        timestamps: Milliseconds, floats or whole; cut to whole ones when encoded.
        size: Bytes of keys, values and headers, with an overhead for each record.
        reserved: Bytes of buffer.memory held.
        number: Place among the batches of its partition, ascending.
        sequence: First sequence of the batch; -1 until it is sent, or with idempotence off.
        topic_id: The topic it was sent to last.
        reason: What a broker said last, when it did not take it.
        attempted: It may be in the log: it was sent and no answer proved that it is not.
        resolved: `base_offset` or `error` is final.
    """

    __slots__ = (
        "attempted",
        "attempts",
        "base_offset",
        "callbacks",
        "count",
        "created_ms",
        "data",
        "error",
        "headers",
        "keys",
        "number",
        "owner",
        "queue",
        "reason",
        "reserved",
        "resolved",
        "sequence",
        "size",
        "timestamps",
        "topic_id",
        "values",
    )

    def __init__(self, queue: Any, created_ms: int, owner: Any = None) -> None:
        self.queue = queue
        self.created_ms = created_ms
        self.owner = owner
        self.timestamps: Any = []
        self.keys: Any = []
        self.values: Any = []
        self.headers: list[Headers | None] | None = None
        self.callbacks: list[tuple[Callable[[Delivery], None], Delivery]] | None = None
        self.count = 0
        self.size = 0
        self.reserved = 0
        self.number = -1
        self.sequence = -1
        self.topic_id = b""
        self.data: bytes = b""
        self.attempted = False
        self.attempts = 0
        self.reason = ""
        self.resolved = False
        self.base_offset = -1
        self.error: ForebayError | None = None

    def fills_soon(self, limit: int, now_ms: int) -> bool:
        """Tell whether it holds `limit` bytes within `FILL_MS` of its first record, should they go on coming so."""
        return self.size * FILL_MS >= limit * (now_ms - self.created_ms)

    def own_columns(self) -> None:
        """Copy arrays that are still the caller's, who may change them once his call has returned."""
        if not self.data and not self.resolved:
            self.timestamps = self.timestamps.copy()
            self.keys, self.values = (
                column.copy() if isinstance(column, np.ndarray) else column for column in (self.keys, self.values)
            )

    def drop_half_record(self) -> None:
        """Take back what was added of the last record, if that is not all of it."""
        whole = min(len(self.timestamps), len(self.keys), len(self.values))
        for column in (self.timestamps, self.keys, self.values):
            del column[whole:]

    def encode(self, codec: int, producer_id: int, producer_epoch: int, sequence: int) -> None:
        """Turn the records into bytes under a sequence; later calls only write another header."""
        self.sequence = sequence
        if self.data:
            self.data = _restamp(self.data, producer_id, producer_epoch, sequence)
            return
        self.count = len(self.timestamps)
        headers = self.headers
        if headers is not None and len(headers) < self.count:
            headers = [*headers, *[None] * (self.count - len(headers))]
        self.data = encode_batch(
            self.timestamps,
            self.keys,
            self.values,
            headers,
            codec=codec,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=sequence,
        )
        self.keys = self.values = self.headers = None


def _restamp(data: bytes, producer_id: int, producer_epoch: int, sequence: int) -> bytes:
    old = decode_header(data)
    body = memoryview(data)[HEADER_SIZE:]
    header = encode_producer_half(
        body,
        attributes=old.attributes,
        base_timestamp_ms=old.base_timestamp_ms,
        max_timestamp_ms=old.max_timestamp_ms,
        record_count=old.record_count,
        last_offset_delta=old.last_offset_delta,
        uncompressed_size=old.uncompressed_size,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=sequence,
    )
    return b"%s%s" % (header, body)


class Delivery(msgspec.Struct, gc=False):
    """The handle of one record that was sent. Thread: any."""

    batch: ProducerBatch
    index: int

    def done(self) -> bool:
        """Tell whether the record is acknowledged or has failed for good."""
        return self.batch.resolved

    def exception(self) -> ForebayError | None:
        """Return why the record failed; None: it is acknowledged or not yet resolved."""
        return self.batch.error

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Wait for the acknowledgement.

        Args:
            timeout: Seconds; None waits until the producer's delivery timeout.
        Raises:
            TimeoutError: not resolved in time; it goes on being sent.
            ForebayError: the record failed for good; `RemoteError.definite` tells whether it can be in the log.
        """
        if not self.batch.resolved:
            self.batch.owner.wait_for(self.done, timeout)
        batch = self.batch
        if batch.error is not None:
            raise batch.error
        queue = batch.queue
        offset = batch.base_offset + self.index if batch.base_offset >= 0 else -1
        return RecordMetadata(queue.topic, queue.partition, offset, int(batch.timestamps[self.index]))


class ArraysDelivery(msgspec.Struct, frozen=True):
    """The handle of what one `send_arrays` sent: one batch or several. Thread: any."""

    batches: list[ProducerBatch]

    def done(self) -> bool:
        """Tell whether every batch is acknowledged or has failed for good."""
        return all(batch.resolved for batch in self.batches)

    def result(self, timeout: float | None = None) -> list[RecordMetadata]:
        """Wait for all and return the place of the first record of each batch, in the order they were sent.

        Raises:
            TimeoutError, ForebayError: as `Delivery.result`, of the first batch that failed.
        """
        return [Delivery(batch, 0).result(timeout) for batch in self.batches]
