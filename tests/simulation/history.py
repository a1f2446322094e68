"""What was promised, and the invariants every step is held against; numbers are those of the concepts page."""

from __future__ import annotations

from collections import Counter, defaultdict

from ingest.records.header import BatchHeader
from tests.simulation.compacted import SimRecord, is_left_of, lacking, lost_marks, records_of
from tests.simulation.disk import TOPIC_ID, Batch, Key


class Violation(AssertionError):
    """The cluster broke a promise."""


class History:
    """Everything that some high watermark has ever passed, and everything a producer was told.

    Attributes:
        committed: {partition: {base offset: batch}}; what a high watermark passed anywhere stays as it is for ever.
        committed_in: The leader epoch of that high watermark, by (partition, base offset).
        compacts: Of the producers' topic only the latest record of each key has to stay.
    """

    def __init__(self, *, compacts: bool = False) -> None:
        self.compacts = compacts
        self._records: dict[Key, dict[int, SimRecord]] = defaultdict(dict)  # where it is compacted
        self._latest: dict[tuple[Key, bytes | None], int] = {}
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
        if self._is_compacted(key):
            wanted = [
                record
                for offset, batch in sorted(self.committed[key].items())
                if epoch is None or self.committed_in[key, offset] < epoch
                for record in records_of(*batch)
                if record.offset >= self.trimmed[key]
            ]
            return lacking(wanted, [record for batch in batches for record in records_of(*batch)])
        held = {batch.header.base_offset: batch for batch in batches}
        for offset, batch in self.committed[key].items():
            if batch.header.next_offset <= self.trimmed[key]:
                continue
            if epoch is not None and self.committed_in[key, offset] >= epoch:
                continue
            if offset not in held or held[offset].data != batch.data:
                return offset
        return None

    def _is_compacted(self, key: Key) -> bool:
        return self.compacts and key[0] == TOPIC_ID

    def _is_same(self, key: Key, batch: Batch, known: Batch) -> bool:
        """Whether a batch is the one that was committed, or what may be left of it."""
        return batch.data == known.data or (self._is_compacted(key) and is_left_of(batch, known))

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
                if not self._is_same(key, batch, known[header.base_offset]):
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
        for record in records_of(header, data):
            value = record.name
            if value in self.failed:
                raise Violation(f"I16: {value!r} had failed for certain and is committed")
            if value in self._values:
                raise Violation(f"I15: {value!r} is committed at {self._values[value]} and at {header.base_offset}")
            self._values[value] = (key, record.offset)
            if self.compacts:
                self._records[key][record.offset] = record
                self._latest[key, record.key] = max(record.offset, self._latest.get((key, record.key), -1))
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
        if known is None or not self._is_same(key, batch, known):
            raise Violation(f"I5: {where} read at {key[1]}@{offset} what is not committed")

    def read_on(self, key: Key, offset: int, batch: Batch, where: str) -> None:
        """A reader at `offset` was given this batch next: it missed only what compaction may drop (I19)."""
        base_offset = batch.header.base_offset
        if self.lossy:
            return
        if not self._is_compacted(key):
            if base_offset > offset:
                raise Violation(f"I19: {where} at {offset} was given {base_offset}")
            return
        got = {record.offset for record in records_of(*batch)}
        for missed in range(max(offset, self.trimmed[key]), batch.header.next_offset):
            record = self._records[key].get(missed)
            if missed in got or (record and (record.value is None or self._latest[key, record.key] > missed)):
                continue
            raise Violation(f"I19: {where} at {offset} was given {base_offset}, and not what is at {missed}")

    def check_same(self, key: Key, copies: list[list[Batch]]) -> None:
        """After all faults: where two replicas in sync both hold something, they hold the same (I5)."""
        for other in copies[1:]:
            start = max(batches[0].header.base_offset if batches else 0 for batches in (copies[0], other))
            end = min(batches[-1].header.next_offset if batches else 0 for batches in (copies[0], other))
            mine, theirs = (
                {b.header.base_offset: b for b in batches if start <= b.header.base_offset < end}
                for batches in (copies[0], other)
            )
            both = mine.keys() & theirs.keys()
            if self._is_compacted(key):
                same = all(_agree(mine[offset], theirs[offset]) for offset in both)
            else:
                same = mine == theirs
            if not same:
                raise Violation(f"I5: replicas of {key[1]} differ in {start}..{end}")

    def check_whole(self, key: Key, batches: list[Batch], where: str) -> None:
        """After all faults: a replica in sync holds every acknowledged record where it was acknowledged (I1, I2)."""
        if self._is_compacted(key):
            self._check_compacted(key, batches, where)
            return
        held = {record.name: record.offset for batch in batches for record in records_of(*batch)}
        for value, offset in self.acked[key].items():
            if held.get(value) != offset and offset >= self.trimmed[key]:
                raise Violation(f"I1: {where} lacks {value!r}, acknowledged at {offset}; it has {held.get(value)}")

    def _check_compacted(self, key: Key, batches: list[Batch], where: str) -> None:
        """The latest of each key is there, nothing older came back, epochs and producers are known as before (C13)."""
        if (offset := self._lacking(key, batches)) is not None:
            raise Violation(f"I1: {where} lacks the latest of a key, at {key[1]}@{offset}, or has older ones")
        known = sorted(self.committed[key].items())
        headers = [batch.header for _, batch in known]
        lost = lost_marks(headers, {batch.header.base_offset for batch in batches})
        if lost and lost[-1] >= self.trimmed[key]:
            raise Violation(f"C13: {where} has dropped the batches at {lost} of {key[1]}")
        self.events["records compacted away"] += sum(header.record_count for header in headers) - sum(
            batch.header.record_count for batch in batches
        )


def _agree(one: Batch, other: Batch) -> bool:
    """Whether what is left of a batch in two places is the same, where both have it."""
    ours, theirs = ({record.offset: record for record in records_of(*batch)} for batch in (one, other))
    return all(ours[offset] == theirs[offset] for offset in ours.keys() & theirs.keys())
