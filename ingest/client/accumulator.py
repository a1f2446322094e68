"""The accumulator: records into batches, whose size is fitted to how fast they come. Thread: in the driver's turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.client.arrays import column_sizes, cut, has_nulls, partitions_of, pick, pieces, record_sizes
from ingest.client.batch import Delivery, ProducerBatch
from ingest.client.cluster import monotonic_ms
from ingest.client.driver import Driver
from ingest.client.partition_queue import PartitionQueue
from ingest.client.partitioner import Partitioner
from ingest.client.pipeline import placeholder
from ingest.client.producer_topic import BATCH_OVERHEAD_BYTES, HeldRecord, OnDelivery, ProducerTopic, add_extras
from ingest.errors import BufferFull, RemoteError
from ingest.limits import MIB
from ingest.records.columns import Headers
from ingest.topic_name import check_topic_name

ARRAYS_BATCH_BYTES = 1 * MIB  # what `send_arrays` cuts its columns into, where the topic allows it


class Accumulator:
    """Gather records by partition until a batch is full or due."""

    __slots__ = ("_batch_size", "_driver", "_partitioner", "_pipeline")

    def __init__(self, driver: Driver, *, batch_size: int, partitioner: Partitioner | None) -> None:
        self._driver = driver
        self._pipeline = driver.pipeline
        self._batch_size = batch_size
        self._partitioner = partitioner

    def topic(self, name: str) -> ProducerTopic:
        """Return a topic, asked for from now on if it is new.

        Raises:
            RemoteError: no topic can have that name.
        """
        topic = self._pipeline.topics.get(name)
        if topic is None:
            check_topic_name(name)
            topic = self._pipeline.topics[name] = ProducerTopic(name, self._batch_size, self._partitioner)
            self._pipeline.cluster.want([name], auto_create=True)
        return topic

    def hold(
        self,
        topic: ProducerTopic,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None,
        partition: int | None,
        timestamp_ms: float,
        on_delivery: OnDelivery | None,
        size: int,
    ) -> Delivery:
        """Keep a record until its topic is known."""
        self._driver.make_room(size)
        delivery = placeholder(self._driver)
        record = HeldRecord(value, key, headers, partition, timestamp_ms, on_delivery, delivery)
        self._pipeline.hold(topic, record, size)
        if topic.queues:  # it became known while there was no room
            self._pipeline.release(topic)
        self._driver.look_after()
        return delivery

    def next_batch(self, topic: ProducerTopic, queue: PartitionQueue, size: int) -> ProducerBatch:
        """Return a batch with room for `size` more bytes: a new one, or the open one, grown.

        It grows while the window is full, and for a caller so fast that its batches follow each other in no time.

        Raises:
            BufferFull, RemoteError: there is no room, or no batch of the topic can hold that.
        """
        driver, pipeline = self._driver, self._pipeline
        topic.check_size(size)
        while True:  # from the start again whenever others had their turns
            batch = queue.open
            if batch is not None:
                if batch.size + size < queue.limit:
                    return batch
                grown = min(2 * queue.limit, topic.bytes_max - BATCH_OVERHEAD_BYTES)
                fits = batch.size + size < grown
                if fits and not queue.has_room:
                    driver.pump_busy()
                if fits and (not queue.has_room or batch.fills_soon(grown, monotonic_ms())):
                    if not driver.make_room(grown - batch.reserved) and queue.open is batch:
                        queue.limit = grown
                        pipeline.reserve(batch, grown)
                        return batch
                    continue
                pipeline.close_batch(topic, queue)
                driver.pump_busy()
            queue.limit = topic.limit
            if not driver.make_room(max(size, queue.limit)):
                return pipeline.open_batch(topic, queue, size)

    def add_run(
        self,
        topic: ProducerTopic,
        values: Sequence[bytes],
        key: bytes | None,
        headers: Headers | None,
        on_delivery: OnDelivery | None,
        share: int,
    ) -> list[tuple[Delivery, int]]:
        """Add records that share key and headers; `share` is what each takes beside its value. See `send_run`."""
        if topic.strict:
            topic.check_records(keyless=key is None, value_sizes=map(len, values))
        now_ms = time.time() * 1000.0
        runs: list[tuple[Delivery, int]] = []
        at = 0
        queue: PartitionQueue | None = None
        while at < len(values):
            size = share + len(values[at])
            try:
                if not topic.queues:
                    runs.append((self.hold(topic, values[at], key, headers, None, now_ms, on_delivery, size), 1))
                    at += 1
                    continue
                queue = queue or topic.only or topic.choose(key)
                batch = queue.open
                if batch is None or batch.size + size >= queue.limit:
                    batch = self.next_batch(topic, queue, size)
            except (BufferFull, RemoteError):
                if runs:
                    break
                raise
            end = at + 1
            room = queue.limit - batch.size
            while end < len(values) and size + share + len(values[end]) < room:
                size += share + len(values[end])
                end += 1
            count = end - at
            batch.timestamps.extend([now_ms] * count)
            batch.keys.extend([key] * count)
            batch.values.extend(values[at:end])
            batch.size += size
            delivery = Delivery(batch, len(batch.timestamps) - 1)
            add_extras(batch, delivery, headers, on_delivery, count)
            runs.append((delivery, count))
            at = end
        self._driver.look_after()
        return runs

    def add_columns(
        self, topic: ProducerTopic, stamps: NDArray[np.int64], keys: Any, values: Any, partition: int | None
    ) -> list[ProducerBatch]:
        """Add columns; those with keys of several partitions are spread first. Return their batches in order."""
        self._driver.await_partitions(topic)
        batches: list[ProducerBatch] = []
        if partition is None and keys is not None and len(topic.queues) > 1:
            chosen = partitions_of(keys, lambda key: topic.choose(key).partition)
            for index in np.unique(chosen).tolist():
                rows = np.flatnonzero(chosen == index)
                mine = (stamps[rows], pick(keys, rows), pick(values, rows))
                batches += self._add_to(topic, topic.queues[index], *mine)
        else:
            queue = topic.choose(None) if partition is None else topic.queue_of(partition)
            batches += self._add_to(topic, queue, stamps, keys, values)
        self._driver.look_after()
        for batch in batches:
            batch.own_columns()
        return batches

    def _add_to(
        self, topic: ProducerTopic, queue: PartitionQueue, stamps: NDArray[np.int64], keys: Any, values: Any
    ) -> list[ProducerBatch]:
        pipeline = self._pipeline
        if topic.strict:
            sizes_of_values = np.unique(column_sizes(values, len(stamps))).tolist()
            topic.check_records(keyless=has_nulls(keys), value_sizes=sizes_of_values)
        sizes = record_sizes(keys, values, len(stamps))
        topic.check_size(int(sizes.max()))
        pipeline.close_batch(topic, queue)
        wanted = min(max(self._batch_size, ARRAYS_BATCH_BYTES), self._driver.buffer_memory // 4)
        batches = []
        for rows, size in pieces(sizes, min(wanted, topic.bytes_max - BATCH_OVERHEAD_BYTES)):
            batch = ProducerBatch(queue, monotonic_ms(), self._driver)
            batch.timestamps, batch.keys, batch.values = stamps[rows], cut(keys, rows), cut(values, rows)
            batch.size = size
            self._driver.make_room(batch.size)
            pipeline.reserve(batch, batch.size)
            queue.add(batch)
            pipeline.sender.activate(queue)
            batches.append(batch)
            self._driver.pump()
        return batches
