"""How records leave a consumer: deserialized up to the first bad one, or one by one, each counted when it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ingest.client.fetcher import Fetcher
from ingest.client.positions import TopicPartition
from ingest.errors import DeserializationError
from ingest.records.batch import Columns, Record
from ingest.serializers import Deserializer


def deserialize(
    columns: Columns, key: Deserializer | None, value: Deserializer | None
) -> tuple[list[Record], DeserializationError | None]:
    """Return the records up to the first whose deserializer raises, and that error."""
    try:
        return columns.to_records(key, value), None
    except Exception:  # whatever a deserializer of the caller's does; which record it is comes next
        records: list[Record] = []
        for row in range(len(columns)):
            try:
                records += columns[row : row + 1].to_records(key, value)
            except Exception as error:
                bad = DeserializationError(columns.topic, columns.partition, int(columns.offsets[row]), error)
                return records, bad
        return records, None  # it did not raise again


def one_by_one(fetcher: Fetcher, records: Sequence[Record], is_over: Callable[[], bool]) -> Iterator[Record]:
    """Give what was polled record by record, each handed out when it is given; what is left is polled again."""
    first: dict[tuple[str, int], int] = {}
    for record in records:
        first.setdefault((record.topic, record.partition), record.offset)
    held = {}
    for name, offset in first.items():
        position = fetcher.positions.get(TopicPartition(*name))
        if position is not None:
            held[name] = (position, position.generation, position.offset)
            position.offset = offset
    given = 0
    try:
        for record in records:
            if is_over():
                break
            given += 1
            found = held.get((record.topic, record.partition))
            if found is not None and found[0].generation == found[1]:  # else the caller has sought elsewhere
                found[0].offset = record.offset + 1
            yield record
    finally:
        left = {(record.topic, record.partition) for record in records[given:]}
        for name, (position, generation, end) in held.items():
            if position.generation != generation:
                continue
            if name in left:  # the next poll gives them again
                position.seek(position.offset)
                fetcher.void(position.name)
            else:
                position.offset = end
