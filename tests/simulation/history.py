"""What was promised, and the invariants every step is held against; numbers are those of the concepts page."""

from __future__ import annotations

from collections import Counter, defaultdict

from ingest.records.batch import decode_batch
from ingest.records.header import BatchHeader
from tests.simulation.storage import TOPIC_ID, Batch, Key


class Violation(AssertionError):
    """The cluster broke a promise."""


class History:
    """Everything that some high watermark has ever passed, and everything a producer was told.

    Attributes:
        committed: {partition: {base offset: batch}}; what a high watermark passed anywhere stays as it is for ever.
        committed_in: The leader epoch of that high watermark, by (partition, base offset).
    """

    def __init__(self) -> None:
        self.committed: dict[Key, dict[int, Batch]] = defaultdict(dict)
        self.committed_in: dict[tuple[Key, int], int] = {}
        self.lossy = False  # from now on nothing is promised but one leader an epoch
        self.mark: Counter[Key] = Counter()
        self.trimmed: Counter[Key] = Counter()  # what lies below was deleted by request
        self.acked: dict[Key, dict[bytes, int]] = defaultdict(dict)
        self.failed: set[bytes] = set()
        self.leaders: dict[tuple[Key, int], tuple[str, int]] = {}
        self._last_value: dict[tuple[Key, bytes], int] = {}
        self._sequences: dict[tuple[Key, int, int, int], int] = {}
        self._values: dict[bytes, tuple[Key, int]] = {}
        self.offsets: Counter[str] = Counter()  # the last that a group was told is committed
        self.events: Counter[str] = Counter()

    def leads(self, key: Key, epoch: int, broker: str, incarnation: int) -> None:
        """A broker begins to lead: nobody else ever does under that epoch (I7)."""
        known = self.leaders.setdefault((key, epoch), (broker, incarnation))
        if known != (broker, incarnation):
            raise Violation(f"I7: epoch {epoch} of {key[1]} is led by {known} and by {(broker, incarnation)}")

    def began(self, key: Key, epoch: int, batches: list[Batch], broker: str) -> None:
        """A leader has begun, perhaps after others in later epochs: it holds all that was committed before its (I6)."""
        if (offset := self._lacking(key, batches, epoch)) is not None:
            raise Violation(f"I6: {broker} leads {key[1]} without the committed batch at {offset}")

    def joined(self, key: Key, batches: list[Batch], broker: str) -> None:
        """A replica is in the in-sync set from now on: so does it (I8)."""
        if (offset := self._lacking(key, batches)) is not None:
            raise Violation(f"I8: {broker} is taken for in sync in {key[1]} without the committed batch at {offset}")

    def _lacking(self, key: Key, batches: list[Batch], epoch: int | None = None) -> int | None:
        """Return a batch that was committed, in an earlier leader epoch than this, and is not among these."""
        if self.lossy:
            return None
        held = {batch.header.base_offset: batch for batch in batches}
        for offset, batch in self.committed[key].items():
            if batch.header.next_offset <= self.trimmed[key]:
                continue
            if epoch is not None and self.committed_in[key, offset] >= epoch:
                continue
            if offset not in held or held[offset].data != batch.data:
                return offset
        return None

    def passed(self, key: Key, epoch: int, batches: list[Batch], start: int, mark: int, where: str) -> None:
        """A high watermark went from `start` to `mark` in this epoch: what is below is committed (I4, I5, I15-I17)."""
        if self.lossy:
            return
        known = self.committed[key]
        for batch in batches:
            header = batch.header
            if header.next_offset <= start or header.base_offset >= mark:
                continue
            if header.base_offset in known:
                if known[header.base_offset].data != batch.data:
                    raise Violation(f"I4: {where} shows another batch at {key[1]}@{header.base_offset}")
                continue
            for other in known.values():
                if other.header.base_offset < header.next_offset and header.base_offset < other.header.next_offset:
                    raise Violation(f"I4: {where} shows a batch at {header.base_offset} across another")
            known[header.base_offset] = batch
            self.committed_in[key, header.base_offset] = epoch
            self.mark[key] = max(self.mark[key], header.next_offset)
            if key[0] == TOPIC_ID:
                self._check_new(key, header, batch.data)

    def _check_new(self, key: Key, header: BatchHeader, data: bytes) -> None:
        sequence = (key, header.producer_id, header.producer_epoch, header.base_sequence)
        if sequence in self._sequences:
            raise Violation(f"I15: sequence {sequence[1:]} is at {self._sequences[sequence]} and {header.base_offset}")
        self._sequences[sequence] = header.base_offset
        for index, value in enumerate(values_of(header, data)):
            if value in self.failed:
                raise Violation(f"I16: {value!r} had failed for certain and is committed")
            if value in self._values:
                raise Violation(f"I15: {value!r} is committed at {self._values[value]} and at {header.base_offset}")
            self._values[value] = (key, header.base_offset + index)
            producer, number = value.split(b":")
            if self._last_value.get((key, producer), -1) >= int(number):
                raise Violation(f"I17: {value!r} came after number {self._last_value[key, producer]}")
            self._last_value[key, producer] = int(number)

    def acknowledged(self, key: Key, value: bytes, offset: int) -> None:
        """A producer was told that its record is safe: some high watermark has passed it (I3)."""
        if not self.lossy and self._values.get(value) != (key, offset):
            raise Violation(f"I3: {value!r} was acknowledged at {offset}, committed: {self._values.get(value)}")
        self.acked[key][value] = offset
        self.events["acknowledged"] += 1

    def failed_for_certain(self, value: bytes) -> None:
        self.failed.add(value)

    def offset_acknowledged(self, group: str, offset: int) -> None:
        """A consumer was told that its offset is committed: it stays so until it commits a greater one (I18)."""
        self.offsets[group] = offset
        self.events["offset acknowledged"] += 1

    def offset_found(self, group: str, least: int, most: int, found: int, where: str) -> None:
        """Somebody says what a group has committed: no less than was acknowledged before the question (I18)."""
        if not self.lossy and not least <= found <= most:
            raise Violation(f"I18: {where} says that {group} is at {found}, {least} was acknowledged, {most} tried")
        self.events["offset found"] += 1

    def read(self, key: Key, offset: int, batch: Batch, where: str) -> None:
        """A reader saw a batch: it is committed, for ever (I4, I5)."""
        known = self.committed[key].get(batch.header.base_offset)
        if self.lossy:
            return
        if known is None or known.data != batch.data:
            raise Violation(f"I5: {where} read at {key[1]}@{offset} what is not committed")

    def check_same(self, partition: int, copies: list[list[Batch]]) -> None:
        """After all faults: where two replicas in sync both hold something, they hold the same (I5)."""
        for other in copies[1:]:
            start = max(batches[0].header.base_offset if batches else 0 for batches in (copies[0], other))
            end = min(batches[-1].header.next_offset if batches else 0 for batches in (copies[0], other))
            mine, theirs = (
                [b.data for b in batches if start <= b.header.base_offset < end] for batches in (copies[0], other)
            )
            if mine != theirs:
                raise Violation(f"I5: replicas of {partition} differ in {start}..{end}")

    def check_whole(self, key: Key, batches: list[Batch], where: str) -> None:
        """After all faults: a replica in sync holds every acknowledged record where it was acknowledged (I1, I2)."""
        held = {
            value: batch.header.base_offset + index
            for batch in batches
            for index, value in enumerate(values_of(batch.header, batch.data))
        }
        for value, offset in self.acked[key].items():
            if held.get(value) != offset and offset >= self.trimmed[key]:
                raise Violation(f"I1: {where} lacks {value!r}, acknowledged at {offset}; it has {held.get(value)}")


def values_of(header: BatchHeader, data: bytes) -> list[bytes]:
    """Return the values of a batch."""
    return [bytes(record.value) for record in decode_batch(data[: header.size], "t", 0).to_records()]
