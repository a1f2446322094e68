"""What must be left of a compacted topic, and what must not come back; pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from ingest.records.batch import decode_batch
from ingest.records.header import BatchHeader


class SimRecord(NamedTuple):
    """A record of a simulated producer; `name` tells it from all others, also a tombstone, which has no value."""

    offset: int
    key: bytes | None
    value: bytes | None
    name: bytes


def records_of(header: BatchHeader, data: bytes) -> list[SimRecord]:
    """Return the records of a stored batch."""
    return _decoded(data[: header.size]) if header.record_count else []


@lru_cache(1 << 14)
def _decoded(data: bytes) -> list[SimRecord]:
    return [
        SimRecord(r.offset, r.key, r.value, bytes(r.value if r.value is not None else r.headers[0][1]))
        for r in decode_batch(data, "t", 0).to_records()
    ]


def is_left_of(left: tuple[BatchHeader, bytes], whole: tuple[BatchHeader, bytes]) -> bool:
    """Tell whether a batch may be what compaction has left of another: all that it has is there, unchanged."""
    return _identity(left[0]) == _identity(whole[0]) and set(records_of(*left)) <= set(records_of(*whole))


def _identity(header: BatchHeader) -> tuple[int, ...]:
    producer = (header.producer_id, header.producer_epoch, header.base_sequence)
    return (header.base_offset, header.next_offset, header.leader_epoch, header.append_time_ms, *producer)


def lacking(committed: Iterable[SimRecord], held: Iterable[SimRecord]) -> int | None:
    """Return the offset of a record that a replica lacks though it is the latest of its key, or that is older and back.

    Args:
        committed: All that were, ascending.
        held: Those of the replica, ascending; it may have others above.
    """
    latest = {record.key: record for record in committed}
    newest: dict[bytes | None, SimRecord] = {}
    for record in held:
        if record.key in latest and record.offset <= latest[record.key].offset:
            newest[record.key] = record
    for key, record in latest.items():
        found = newest.get(key)
        if found != record and (record.value is not None or found is not None):
            return record.offset
    return None


def lost_marks(committed: Iterable[BatchHeader], held: set[int]) -> list[int]:
    """Return the base offsets of batches that tell where an epoch begins or what a producer did last, and are gone.

    Args:
        committed: All that were, ascending.
        held: Base offsets of the replica's batches.
    """
    firsts: dict[int, int] = {}
    lasts: dict[int, int] = {}
    for header in committed:
        firsts.setdefault(header.leader_epoch, header.base_offset)
        lasts[header.producer_id] = header.base_offset
    return sorted({*firsts.values(), *lasts.values()} - held)
