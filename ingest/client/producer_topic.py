"""What a producer knows of one topic: its partitions, or the records that wait until it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ingest.client.batch import RECORD_OVERHEAD_BYTES, Delivery, ProducerBatch
from ingest.client.partition_queue import PartitionQueue
from ingest.client.partitioner import KeyPartitioner, Partitioner
from ingest.errors import RemoteError, UsageError
from ingest.limits import KIB, MIB
from ingest.records.columns import Headers
from ingest.topic_config import is_compacted
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import TopicMetadata

BATCH_BYTES_MAX = 1 * MIB  # what a batch may grow to while the window is full, within the topic's max.message.bytes
BATCH_OVERHEAD_BYTES = 1 * KIB  # header, directory and padding of a batch

OnDelivery = Callable[[Delivery], None]


class HeldRecord(NamedTuple):
    """A record whose topic is not known yet. Its delivery's batch is a placeholder that carries its size and age."""

    value: bytes | None
    key: bytes | None
    headers: Headers | None
    partition: int | None
    timestamp_ms: float
    on_delivery: OnDelivery | None
    delivery: Delivery


class ProducerTopic:
    """One topic. Thread: under the producer's lock.

    Attributes:
        queues: By partition; empty until metadata has come.
        only: The queue of a topic with one partition, when no partitioner of the caller's has a say.
        value_width: Bytes of every value where the topic declares value.dtype; None: it does not.
        compacted: The topic keeps the latest record of each key: each has to have one.
        strict: Records have to be checked for one of the two.
        bytes_max: What a batch may take: max.message.bytes, within what this producer wants.
    """

    __slots__ = (
        "_batch_size",
        "_by_key",
        "_partitioner",
        "_sticky",
        "bytes_max",
        "compacted",
        "held",
        "name",
        "only",
        "queues",
        "strict",
        "value_width",
    )

    def __init__(self, name: str, batch_size: int, partitioner: Partitioner | None) -> None:
        self.name = name
        self.queues: list[PartitionQueue] = []
        self.only: PartitionQueue | None = None
        self.bytes_max = BATCH_BYTES_MAX
        self.held: list[HeldRecord] = []
        self.value_width: int | None = None
        self.compacted = self.strict = False
        self._batch_size = batch_size
        self._partitioner = partitioner
        self._by_key: KeyPartitioner | None = None
        self._sticky = 0

    @property
    def limit(self) -> int:
        """Size at which a batch is sent while the window has room."""
        return max(1, min(self._batch_size, self.bytes_max - BATCH_OVERHEAD_BYTES))

    def update(self, topic: TopicMetadata) -> list[PartitionQueue]:
        """Follow the topic's metadata: partitions, leaders, limits; return the queues whose partitions are gone."""
        allowed = int(topic.configs.get("max.message.bytes", BATCH_BYTES_MAX))
        self.bytes_max = allowed if allowed > BATCH_BYTES_MAX * 2 else min(BATCH_BYTES_MAX, allowed)
        dtype = topic.configs.get("value.dtype", "")
        self.value_width = np.dtype(dtype).itemsize if dtype else None
        self.compacted = is_compacted(topic.configs)
        self.strict = self.compacted or self.value_width is not None
        known = len(self.queues)
        gone: list[PartitionQueue] = []
        if known and self.queues[0].topic_id != topic.topic_id:  # deleted and created anew
            gone = self.queues[len(topic.partitions) :]
            del self.queues[len(topic.partitions) :]
            for queue in self.queues:
                queue.begin_anew(topic.topic_id)
        for item in sorted(topic.partitions, key=lambda p: p.partition):
            if item.partition >= len(self.queues):
                self.queues.append(PartitionQueue(self.name, topic.topic_id, item.partition, self.limit))
            queue = self.queues[item.partition]
            if queue.leader_epoch != item.leader_epoch or queue.leader != item.leader:
                queue.leader, queue.leader_epoch = item.leader, item.leader_epoch
                queue.retry_at_ms = 0
        if len(self.queues) != known:
            self._by_key = KeyPartitioner(len(self.queues))
            self._sticky %= len(self.queues)
            self.only = self.queues[0] if len(self.queues) == 1 and self._partitioner is None else None
        return gone

    def queue_of(self, partition: int) -> PartitionQueue:
        """Return the queue of a partition the caller named."""
        if not 0 <= partition < len(self.queues):
            raise UsageError(f"partition {partition} of {self.name} is not in 0..{len(self.queues) - 1}")
        return self.queues[partition]

    def choose(self, key: bytes | None) -> PartitionQueue:
        """Return the queue that the partitioner chooses for a key."""
        if self._partitioner is not None:
            try:
                chosen = self._partitioner(self.name, key, len(self.queues))
            except Exception as error:  # whatever a partitioner of the caller's does
                text = f"the partitioner of {self.name} raised {type(error).__name__}: {error}"
                raise UsageError(text) from error
            if not isinstance(chosen, int) or not 0 <= chosen < len(self.queues):
                raise UsageError(f"the partitioner chose {chosen} for {self.name} with {len(self.queues)} partitions")
            return self.queues[chosen]
        if key is None:
            return self.queues[self._sticky]
        assert self._by_key is not None
        return self.queues[self._by_key(key)]

    def turn_sticky(self) -> None:
        """Let records without a key go to the next partition."""
        self._sticky = (self._sticky + 1) % len(self.queues)

    def check_records(self, *, keyless: bool, value_sizes: Iterable[int]) -> None:
        """Refuse records that readers or the topic's compaction could not take.

        Args:
            keyless: Whether one has no key. Compaction would never drop it, nor any that comes after it without one.
            value_sizes: One that is not of the topic's value.dtype would break every array its readers get.
        Raises:
            RemoteError: INVALID_RECORD (87).
        """
        if keyless and self.compacted:
            raise RemoteError(
                f"INVALID_RECORD: a record without a key; {self.name} is compacted (cleanup.policy), which keeps the "
                "latest record of each key",
                code=int(ErrorCode.INVALID_RECORD),
            )
        width = self.value_width
        for size in value_sizes:
            if width is not None and size != width:
                raise RemoteError(
                    f"INVALID_RECORD: a value of {size} bytes; the value.dtype of {self.name} has {width}",
                    code=int(ErrorCode.INVALID_RECORD),
                )

    def check_size(self, size: int) -> None:
        """Refuse a record that no batch of this topic can hold.

        Raises:
            RemoteError: MESSAGE_TOO_LARGE (10), as the broker would answer.
        """
        if size + BATCH_OVERHEAD_BYTES > self.bytes_max:
            raise RemoteError(
                f"MESSAGE_TOO_LARGE: a record of {size - RECORD_OVERHEAD_BYTES} bytes does not fit in a batch of "
                f"{self.name}, whose max.message.bytes allows {self.bytes_max}",
                code=int(ErrorCode.MESSAGE_TOO_LARGE),
            )


def add_extras(
    batch: ProducerBatch,
    delivery: Delivery,
    headers: Headers | None,
    on_delivery: OnDelivery | None,
    count: int = 1,
) -> None:
    """Add what few records have to a batch: headers and a callback of the last `count` records."""
    if headers:
        if batch.headers is None:
            batch.headers = []
        missing = delivery.index + 1 - count - len(batch.headers)
        if missing:
            batch.headers.extend([None] * missing)
        batch.headers.extend([headers] * count)
    if on_delivery is not None:
        if batch.callbacks is None:
            batch.callbacks = []
        batch.callbacks.append((on_delivery, delivery))
