"""Fetch responses, written by hand: records go out as they are, behind the fields of their partition.

    v4-v11  throttle_time_ms: int32, v7+: error_code: int16, session_id: int32,
            topics: array of (name: string, partitions: array of (index: int32, error_code: int16,
                high_watermark: int64, last_stable_offset: int64, v5+: log_start_offset: int64,
                aborted_transactions: nullable array, v11+: preferred_read_replica: int32, records: nullable bytes))
    v12     the same with compact strings, arrays and bytes, and tagged fields behind each structure,
            of a partition 0: diverging_epoch (epoch: int32, end_offset: int64, tags)

Pure. Source: Kafka's FetchResponse.json.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FLEXIBLE_FROM = 12


class FetchedRecords(NamedTuple):
    """The outcome for one partition.

    Attributes:
        records: Batches in Kafka's form, in parts.
        record_count: Of the records.
        diverging: Epoch and end offset where the log left what was read (KIP-595's field, used as in KIP-320).
    """

    partition: int
    error_code: int = 0
    high_watermark: int = -1
    log_start_offset: int = -1
    preferred_read_replica: int = -1
    records: Sequence[Buffer] = ()
    diverging: tuple[int, int] | None = None
    record_count: int = 0


def encode_fetch(
    topics: Iterable[tuple[str, Sequence[FetchedRecords]]],
    *,
    version: int,
    correlation_id: int,
    throttle_ms: int = 0,
    error_code: int = 0,
    session_id: int = 0,
) -> list[Buffer]:
    """Return a whole response with its size in front, in parts; the records are not copied."""
    flexible = version >= _FLEXIBLE_FROM
    parts: list[Buffer] = [b""]
    head = bytearray(struct.pack(">i", correlation_id))
    if flexible:
        head += b"\0"
    head += struct.pack(">i", throttle_ms)
    if version >= 7:
        head += struct.pack(">hi", error_code, session_id)
    answered = list(topics)
    head += _count(len(answered), flexible)
    for name, partitions in answered:
        head += _string(name, flexible) + _count(len(partitions), flexible)
        for item in partitions:
            head += struct.pack(">ihqq", item.partition, item.error_code, item.high_watermark, item.high_watermark)
            if version >= 5:
                head += struct.pack(">q", item.log_start_offset)
            head += _count(0, flexible)  # transactions that were aborted
            if version >= 11:
                head += struct.pack(">i", item.preferred_read_replica)
            head += _count(sum(memoryview(part).nbytes for part in item.records), flexible)
            if item.records:
                parts.append(bytes(head))
                parts.extend(item.records)
                head = bytearray()
            if flexible:
                head += _tags(item)
        if flexible:
            head += b"\0"
    if flexible:
        head += b"\0"
    parts.append(bytes(head))
    parts[0] = struct.pack(">i", sum(memoryview(part).nbytes for part in parts))
    return parts


def _tags(item: FetchedRecords) -> bytes:
    if item.diverging is None:
        return b"\0"
    return b"\x01\0\x0d" + struct.pack(">iq", *item.diverging) + b"\0"


def _count(count: int, flexible: bool) -> bytes:
    """Return the length of an array or of bytes."""
    return _varint(count + 1) if flexible else struct.pack(">i", count)


def _string(text: str, flexible: bool) -> bytes:
    data = text.encode()
    return (_varint(len(data) + 1) if flexible else struct.pack(">h", len(data))) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
