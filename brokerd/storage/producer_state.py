"""Idempotence: which batches of each producer id are in the log. A function of the log's prefix, nothing else.

Source: KIP-98, KIP-360; org.apache.kafka.storage.internals.log.ProducerAppendInfo.
"""

from __future__ import annotations

import msgspec

from brokerd.storage.errors import InvalidRecord, ProducerFenced, SequenceError
from ingest.records.header import NO_PRODUCER_ID, BatchHeader

# Kafka remembers 5, for its clients keep at most 5 requests in flight. Ours may keep more, and MUST stay below this.
BATCHES_REMEMBERED = 8
_SEQUENCE_MASK = 0x7FFFFFFF


class AppendedBatch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One remembered batch."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    append_time_ms: int


class Producer(msgspec.Struct, array_like=True):
    """One producer id. `last_age_ms` is when it last appended, in the directory's running time."""

    epoch: int
    last_age_ms: int
    batches: list[AppendedBatch]


class ProducerState:
    """The producers of one log. Thread: the owner's; no I/O.

    Attributes:
        changes: Counts the batches applied, so that a snapshot is only written when there is news.
    """

    __slots__ = ("changes", "producer_id_max", "producers")

    def __init__(self) -> None:
        self.producers: dict[int, Producer] = {}
        self.producer_id_max = NO_PRODUCER_ID
        self.changes = 0

    def check(self, header: BatchHeader, before: BatchHeader | None = None) -> AppendedBatch | None:
        """Return the batch that `header` repeats, or None if it is the next one due.

        Args:
            before: The batch of the same producer that will be appended right before, in the same call.
        Raises:
            SequenceError, ProducerFenced, InvalidRecord: nothing has changed.
        """
        producer_id = header.producer_id
        if producer_id < 0:
            if header.base_sequence >= 0:
                raise InvalidRecord(f"base sequence {header.base_sequence} without a producer id")
            return None
        if header.base_sequence < 0 or header.producer_epoch < 0:
            raise InvalidRecord(f"producer {producer_id} without a sequence or an epoch")
        producer = self.producers.get(producer_id)
        if before is not None:
            epoch, last = before.producer_epoch, before.last_sequence
        elif producer is not None:
            epoch, last = producer.epoch, producer.batches[-1].last_sequence
        else:
            return None  # nothing is known, retention may have taken it: Kafka too takes any sequence
        if header.producer_epoch < epoch:
            raise ProducerFenced(f"producer {producer_id} epoch {header.producer_epoch} is fenced by epoch {epoch}")
        if header.producer_epoch > epoch:
            if header.base_sequence != 0:
                raise SequenceError(
                    f"producer {producer_id} starts epoch {header.producer_epoch} at sequence {header.base_sequence}"
                )
            return None
        if header.base_sequence == (last + 1) & _SEQUENCE_MASK:
            return None
        if producer is not None and producer.epoch == epoch:
            for batch in producer.batches:
                if batch.base_sequence == header.base_sequence and batch.last_sequence == header.last_sequence:
                    return batch
        raise SequenceError(
            f"producer {producer_id} epoch {epoch}: sequence {header.base_sequence} came where"
            f" {(last + 1) & _SEQUENCE_MASK} was due"
        )

    def apply(self, header: BatchHeader, base_offset: int, append_time_ms: int, age_ms: int) -> None:
        """Remember a batch that is in the log."""
        producer_id = header.producer_id
        if producer_id < 0:
            return
        self.changes += 1
        if producer_id > self.producer_id_max:
            self.producer_id_max = producer_id
        batch = AppendedBatch(
            header.base_sequence,
            header.last_sequence,
            base_offset,
            base_offset + header.last_offset_delta,
            append_time_ms,
        )
        producer = self.producers.get(producer_id)
        if producer is None or producer.epoch != header.producer_epoch:
            self.producers[producer_id] = Producer(header.producer_epoch, age_ms, [batch])
            return
        producer.last_age_ms = age_ms
        producer.batches.append(batch)
        if len(producer.batches) > BATCHES_REMEMBERED:
            del producer.batches[0]

    def batches_below(self, offset: int) -> list[int]:
        """Return the base offsets of the batches remembered, those below `offset`."""
        producers = self.producers.values()
        return [batch.base_offset for one in producers for batch in one.batches if batch.base_offset < offset]

    def expire(self, age_ms: int, expiration_ms: int) -> None:
        """Forget the producers that have not appended for `expiration_ms` (producer.id.expiration.ms)."""
        old = [key for key, producer in self.producers.items() if age_ms - producer.last_age_ms > expiration_ms]
        for producer_id in old:
            del self.producers[producer_id]
        self.changes += len(old)

    def next_expiry_ms(self, expiration_ms: int) -> int | None:
        """Return the running time at which `expire` forgets the next one, if none appends; None: there is none."""
        oldest = min((producer.last_age_ms for producer in self.producers.values()), default=None)
        return None if oldest is None else oldest + expiration_ms + 1
