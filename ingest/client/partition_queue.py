"""The batches of one partition on their way out of a producer, in order."""

from __future__ import annotations

from ingest.client.batch import ProducerBatch
from ingest.errors import ForebayError

IN_FLIGHT_MAX = 5  # Kafka's max.in.flight.requests.per.connection, the most idempotence allows


class PartitionQueue:
    """The batches of one partition, in order.

    Attributes:
        open: The batch that records are added to; None: there is none.
        limit: Size at which the open batch is looked at; grows while the window is full.
        waiting: Closed batches to send, ascending by number; those sent before come first.
        in_flight: Batches under way, ascending by number.
        retired: Why nothing can be sent any more: the partition is gone with its topic.
        known_producer_id: The producer id under which a batch was last acknowledged: the broker keeps its sequences.
    """

    __slots__ = (
        "in_flight",
        "known_producer_id",
        "leader",
        "leader_epoch",
        "limit",
        "next_number",
        "next_sequence",
        "open",
        "partition",
        "retired",
        "retries",
        "retry_at_ms",
        "sequence_epoch",
        "topic",
        "topic_id",
        "waiting",
    )

    def __init__(self, topic: str, topic_id: bytes, partition: int, limit: int) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.leader = -1
        self.leader_epoch = -1
        self.open: ProducerBatch | None = None
        self.limit = limit
        self.waiting: list[ProducerBatch] = []
        self.in_flight: list[ProducerBatch] = []
        self.next_number = 0
        self.next_sequence = 0
        self.sequence_epoch = (-1, -1)
        self.known_producer_id = -1
        self.retired: ForebayError | None = None
        self.retries = 0
        self.retry_at_ms = 0

    def close_open(self) -> ProducerBatch | None:
        """End the open batch and put it behind the waiting ones."""
        batch = self.open
        if batch is not None:
            self.add(batch)
            self.open = None
        return batch

    def add(self, batch: ProducerBatch) -> None:
        """Put a whole batch behind the waiting ones."""
        batch.number = self.next_number
        self.next_number += 1
        self.waiting.append(batch)

    def overdue(self, before_ms: int) -> list[ProducerBatch]:
        """Return the batches begun at or before a time. Cost: that of the oldest, as long as there are none."""
        found: list[ProducerBatch] = []
        for batches in (self.in_flight, self.waiting, [self.open] if self.open else []):
            for batch in batches:  # ascending by number, and so by age
                if batch.created_ms > before_ms:
                    break
                found.append(batch)
        return found

    def begin_anew(self, topic_id: bytes) -> None:
        """The topic was deleted and created anew: its log knows no sequence and holds no batch of ours."""
        self.topic_id = topic_id
        self.sequence_epoch = (-1, -1)
        self.known_producer_id = -1
        for batch in self.waiting:
            batch.sequence, batch.attempted = -1, False

    @property
    def has_room(self) -> bool:
        return len(self.in_flight) + len(self.waiting) < IN_FLIGHT_MAX
