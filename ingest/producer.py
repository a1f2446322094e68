"""The producer: records in, acknowledged offsets out; no thread on the way of a busy caller.

The caller's own thread gathers, encodes, sends and takes answers, since a second thread would only fight it for the
GIL. A tender thread looks after what is left while the caller is away; an asyncio loop can take its place (`attach`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ingest.client.accumulator import Accumulator
from ingest.client.arrays import as_bytes, as_column
from ingest.client.batch import RECORD_OVERHEAD_BYTES, ArraysDelivery, Delivery, RecordMetadata
from ingest.client.cluster import Cluster
from ingest.client.driver import Driver, reentered
from ingest.client.forks import leave_to_parent, survive_forks
from ingest.client.partitioner import Partitioner
from ingest.client.pipeline import Pipeline
from ingest.client.producer_topic import OnDelivery, ProducerTopic, add_extras
from ingest.client.record_headers import HeaderChecker
from ingest.client.sender import Sender
from ingest.client.timestamps import as_timestamps, check_timestamp
from ingest.errors import ConfigError, ForkedHandle, RequestTimedOut, UsageError
from ingest.limits import KIB, MIB
from ingest.records.compression import CODEC_NUMBERS
from ingest.serializers import Serializer, serializer

if TYPE_CHECKING:
    import asyncio

__all__ = ["Delivery", "Producer", "RecordMetadata"]

ACKS = {"all": -1, -1: -1, "-1": -1, 0: 0, "0": 0, 1: 1, "1": 1}

_now_s = time.monotonic


class Producer:
    """Send records. Thread: any; calls take turns.

    Args:
        bootstrap: A data directory on this machine, or "tcp://host:port,…".
        acks: "all", 1 or 0.
        linger_ms: How long records may be gathered; 0 sends at once unless the caller is fast.
        buffer_memory: Bytes of records that may wait; then `send` blocks up to `max_block_ms` and raises BufferFull.
        delivery_timeout_ms: How long a record is tried.
        partitioner: (topic, key, partitions) -> partition; None: Kafka's murmur2, sticky round robin without a key.
    Raises:
        ConfigError: a setting can't be used, or there is no appliance at `bootstrap`.
    """

    __slots__ = (
        "__weakref__", "_accumulator", "_acks", "_batch_size", "_bootstrap", "_buffer_memory", "_check_headers",
        "_client_id", "_codec", "_delivery_timeout_ms", "_driver", "_idempotent", "_linger_ms",
        "_max_block_ms", "_partitioner", "_pipeline", "_serialize_key", "_serialize_value", "_serializes", "_topics",
    )  # fmt: skip

    def __init__(
        self,
        bootstrap: str,
        *,
        acks: str | int = "all",
        enable_idempotence: bool | None = None,
        batch_size: int = 64 * KIB,
        linger_ms: int = 0,
        buffer_memory: int = 64 * MIB,
        compression_type: str = "none",
        delivery_timeout_ms: int = 120_000,
        max_block_ms: int = 60_000,
        client_id: str = "",
        key_serializer: str | Serializer | None = None,
        value_serializer: str | Serializer | None = None,
        partitioner: Partitioner | None = None,
    ) -> None:
        if acks not in ACKS:
            raise ConfigError(f"acks={acks!r} is not 'all', 1 or 0")
        if compression_type not in CODEC_NUMBERS:
            raise ConfigError(f"compression_type={compression_type!r} is none of {', '.join(CODEC_NUMBERS)}")
        if enable_idempotence and ACKS[acks] == 0:
            raise ConfigError("enable_idempotence needs acks 'all' or 1")
        if batch_size > buffer_memory:
            raise ConfigError(f"batch_size={batch_size} is more than buffer_memory={buffer_memory}")
        self._bootstrap = bootstrap
        self._acks = ACKS[acks]
        self._idempotent = self._acks != 0 if enable_idempotence is None else enable_idempotence
        self._codec = CODEC_NUMBERS[compression_type]
        self._batch_size = batch_size
        self._linger_ms = linger_ms
        self._buffer_memory = buffer_memory
        self._delivery_timeout_ms = delivery_timeout_ms
        self._max_block_ms = max_block_ms
        self._client_id = client_id
        self._serialize_key = serializer(key_serializer)
        self._serialize_value = serializer(value_serializer)
        self._serializes = not (self._serialize_key is None and self._serialize_value is None)
        self._partitioner = partitioner
        self._start()
        survive_forks(self)

    def _start(self) -> None:
        """Make everything that does not survive a fork."""
        sender = Sender(
            codec=self._codec,
            idempotent=self._idempotent,
            linger_ms=self._linger_ms,
            delivery_timeout_ms=self._delivery_timeout_ms,
            acks=self._acks,
        )
        self._pipeline = Pipeline(
            Cluster(self._bootstrap, client_id=self._client_id),
            sender,
            acks=self._acks,
            buffer_memory=self._buffer_memory,
            held_timeout_ms=self._max_block_ms,
        )
        self._driver = Driver(self._pipeline, buffer_memory=self._buffer_memory, max_block_ms=self._max_block_ms)
        self._pipeline.owner = self._driver
        self._accumulator = Accumulator(self._driver, batch_size=self._batch_size, partitioner=self._partitioner)
        self._topics = self._pipeline.topics
        self._check_headers = HeaderChecker().check

    # ---- sending -----------------------------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Any,
        key: Any = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        partition: int | None = None,
        timestamp_ms: float | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> Delivery:
        """Send one record and return its handle.

        Args:
            value, key: bytes, or what the serializer takes; None: a null (a null value is a tombstone).
            timestamp_ms: Milliseconds since 1970-01-01 UTC; None: now.
            on_delivery: Called once with the handle, by the thread that takes the answer, when it is final.
        Raises:
            BufferFull: no room within `max_block_ms`; the record was not taken.
            RemoteError: code 10, 17 or 87: the record or the name can never be sent.
            UsageError: the producer is closed, a value or key is not bytes, a header not (str, bytes or None), or no
                timestamp; or this is a signal handler or partitioner within another call.
        Cost: about 0.6 µs, unless a batch is due.
        """
        if self._serializes:
            key, value = self._serialize(key, value)
        if type(value) is bytes and type(key) is bytes:
            size = RECORD_OVERHEAD_BYTES + len(value) + len(key)
        else:
            value = None if value is None else as_bytes(value, "value")
            key = None if key is None else as_bytes(key, "key")
            size = RECORD_OVERHEAD_BYTES + len(value or b"") + len(key or b"")
        if headers is not None:
            headers, headers_size = self._check_headers(headers)
            size += headers_size
        if timestamp_ms is not None:
            check_timestamp(timestamp_ms)
        driver = self._driver
        owned, acquire, release = driver.owned, driver.acquire, driver.release
        if owned():
            raise reentered()
        batch = None
        try:  # by hand, `with` costs 80 ns more; and both in here, for Ctrl-C may come anywhere
            acquire()
            now_ms = _now_s() * 1000.0
            due = now_ms >= driver.pump_at_ms
            if due:  # the wall clock may have been set meanwhile
                driver.wall_ahead_ms = time.time() * 1000.0 - now_ms
            if timestamp_ms is None:
                timestamp_ms = now_ms + driver.wall_ahead_ms
            try:
                state = self._topics[topic]
            except KeyError:
                state = self._topic(topic)
            if state.strict:
                if due:
                    driver.look_after()  # who is refused comes no further: what refuses it may be so no longer
                state.check_records(keyless=key is None, value_sizes=(len(value or b""),))
            if partition is None:
                queue = state.only
                if queue is None and state.queues:
                    queue = state.choose(key)
            else:
                queue = state.queue_of(partition) if state.queues else None
            if queue is None:
                delivery = self._accumulator.hold(
                    state, value, key, headers, partition, timestamp_ms, on_delivery, size
                )
            else:
                batch = queue.open
                if batch is None or batch.size + size >= queue.limit:
                    batch = self._accumulator.next_batch(state, queue, size)
                batch.size += size
                stamps = batch.timestamps
                delivery = Delivery(batch, len(stamps))
                stamps.append(timestamp_ms)
                batch.keys.append(key)
                batch.values.append(value)
                if headers is not None or on_delivery is not None:
                    add_extras(batch, delivery, headers, on_delivery)
                if due:
                    driver.look_after()
            release()
        except BaseException:
            if owned():
                if batch is not None:
                    self._pipeline.drop_half_record(batch)
                release()
            raise
        if due and self._pipeline.resolved:
            self._pipeline.run_callbacks()
        return delivery

    def send_run(
        self,
        topic: str,
        values: Sequence[bytes],
        key: bytes | None = None,
        *,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> Sequence[tuple[Delivery, int]]:
        """Send records in a row that share key and headers; nothing is done for each but to add it.

        Args:
            values: n byte strings; no serializer is asked.
            on_delivery: Called once for each handle returned.
        Returns:
            (handle of the last record, how many records) for each batch they went to, in order. Together they are
            fewer than n where there was room for some only: send the others later.
        Raises:
            BufferFull, RemoteError, UsageError: as `send`; none was taken.
        """
        if set(map(type, values)) != {bytes}:
            values = [as_bytes(value, "value") for value in values]
        share = RECORD_OVERHEAD_BYTES + (0 if key is None else len(key))
        if headers is not None:
            headers, headers_size = self._check_headers(headers)
            share += headers_size
        with self._driver:
            return self._accumulator.add_run(self._heard(topic), values, key, headers, on_delivery, share)

    def send_arrays(
        self, topic: str, timestamps: Any = None, keys: Any = None, values: Any = None, *, partition: int | None = None
    ) -> ArraysDelivery:
        """Send n records given as columns, with no Python object for each.

        Args:
            timestamps: (n,) milliseconds since 1970-01-01 UTC, or datetime64; None: now for all.
            keys, values: (n,) arrays of a fixed-size dtype, (n, width) uint8, a BinaryColumn, or n bytes; None: null.
        Raises:
            BufferFull, RemoteError, UsageError: as `send`; RequestTimedOut: the topic is not known.
        Cost: one copy of the data. Keys of many partitions are sorted by partition first.
        """
        column = values if values is not None else keys
        if column is None:
            raise UsageError("send_arrays needs keys or values")
        if self._driver.attached:
            raise UsageError("an attached producer takes records one by one")
        count = len(column)
        stamps = as_timestamps(timestamps, count)
        if keys is not None and len(keys) != count:
            raise UsageError(f"{len(keys)} keys and {count} values do not match")
        if count == 0:
            return ArraysDelivery([])
        keys, values = as_column(keys, "key"), as_column(values, "value")
        with self._driver:
            batches = self._accumulator.add_columns(self._heard(topic), stamps, keys, values, partition)
        if self._pipeline.resolved:
            self._pipeline.run_callbacks()
        return ArraysDelivery(batches)

    def _serialize(self, key: Any, value: Any) -> tuple[Any, Any]:
        if self._serialize_key is not None and key is not None:
            key = self._serialize_key(key)
        if self._serialize_value is not None and value is not None:
            value = self._serialize_value(value)
        return key, value

    def _heard(self, name: str) -> ProducerTopic:
        """Return a topic; of one that may refuse records hear what is new first."""
        topic = self._topic(name)
        if topic.strict and _now_s() * 1000.0 >= self._driver.pump_at_ms:
            self._driver.look_after()
        return topic

    def _topic(self, name: str) -> ProducerTopic:
        self._driver.check_open()
        return self._accumulator.topic(name)

    # ---- waiting, and the end ----------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Send everything that is gathered and wait until all of it is acknowledged or has failed.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        self._driver.flush(timeout)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let an asyncio loop drive this producer; call it in the loop's thread, before the first `send`.

        From then on `send` never blocks (BufferFull at once), records of one loop tick share batches, and
        `on_delivery` runs in the loop.
        """
        assert not self._topics, "attach before the first send"
        self._pipeline.held_timeout_ms = self._delivery_timeout_ms
        self._driver.attach(loop)

    @property
    def buffer_available_bytes(self) -> int:
        """Bytes of buffer.memory that are free."""
        return self._pipeline.free_bytes

    def stats(self) -> dict[str, int]:
        """Return counters of this producer; `throttle_ms_total`: for how long brokers told it to wait, by its quota."""
        pipeline = self._pipeline
        return {
            "records_sent_total": pipeline.records_total,
            "batches_sent_total": pipeline.batches_total,
            "batch_bytes_total": pipeline.batch_bytes_total,
            "retries_total": pipeline.sender.retries_total,
            "throttle_ms_total": pipeline.sender.throttle_ms_total,
            "buffer_available_bytes": pipeline.free_bytes,
        }

    def close(self, timeout: float | None = None) -> None:
        """Flush, then close the sockets; what is not acknowledged in `timeout` seconds fails.

        Raises:
            TimeoutError: records were left; their handles carry the error.
        """
        if self._driver.closing:
            return
        try:
            self._driver.end_intake()
            if not self._driver.attached and not self._pipeline.cluster.closed:
                self.flush(timeout)
        finally:
            self._driver.close(RequestTimedOut("the producer was closed; the outcome is unknown"))

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """In the child: forget the parent's sockets and records; the parent sends them."""
        if self._driver.closing:
            return
        error = ForkedHandle("this handle was made before fork(); ask the parent process")
        for delivery in self._pipeline.unresolved():
            delivery.batch.error, delivery.batch.resolved = error, True
        leave_to_parent(self._driver)
        self._start()
