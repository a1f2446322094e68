"""The rows body is Kafka's: round trips, bytes pinned, and bodies that lie."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy, _DefaultRecordBatchPy
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import CorruptBatch
from ingest.limits import LIMITS, MIB
from ingest.records.header import BatchHeader, decode_header, encode_producer_half
from ingest.records.rows import KAFKA_HEADER_SIZE, Row, decode_rows, encode_rows

HEADERS = st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=8)), max_size=4).map(tuple)
ROW = st.tuples(
    st.integers(1, 2**20),  # distance from the offset before
    st.integers(-(2**62), 2**62),
    st.none() | st.binary(max_size=40),
    st.none() | st.binary(max_size=200),
    HEADERS,
)


def rows_of(fields: list[tuple[Any, ...]]) -> list[Row]:
    rows, delta = [], -1
    for distance, *rest in fields:
        delta += distance
        rows.append(Row(delta, *rest))
    return rows


def header_of(rows: list[Row], **changes: int) -> BatchHeader:
    stamps = [row.timestamp_ms for row in rows] or [0]
    header = decode_header(
        encode_producer_half(
            b"",
            attributes=0,
            base_timestamp_ms=stamps[0],
            max_timestamp_ms=max(stamps),
            record_count=len(rows),
            last_offset_delta=rows[-1].offset_delta if rows else 0,
            uncompressed_size=0,
        )
    )
    return msgspec.structs.replace(header, **changes)


def record(*fields: bytes) -> bytes:
    body = b"".join(fields)
    return varint(len(body)) + body


def varint(value: int) -> bytes:
    value = (value << 1 ^ value >> 63) & 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@given(st.lists(ROW, max_size=20))
def test_round_trip_keeps_nulls_headers_timestamps_and_holes(fields: list[tuple[Any, ...]]) -> None:
    rows = rows_of(fields)
    assert decode_rows(encode_rows(rows), header_of(rows)) == rows


@given(st.lists(ROW, min_size=1, max_size=8))
def test_bytes_are_those_of_another_implementation(fields: list[tuple[Any, ...]]) -> None:
    rows = rows_of(fields)
    other = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 2**31 - 1)
    for row in rows:
        other.append(row.offset_delta, row.timestamp_ms, row.key, row.value, list(row.headers))
    assert encode_rows(rows) == bytes(other.build()[KAFKA_HEADER_SIZE:])
    back = _DefaultRecordBatchPy(bytes(other.build()))
    assert [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in back] == [
        (r.offset_delta, r.timestamp_ms, r.key, r.value, r.headers) for r in rows
    ]


def test_a_tombstone_and_an_empty_value_differ() -> None:
    rows = [Row(0, 5, b"key", None), Row(1, 5, b"key", b""), Row(2, 5, None, b"v"), Row(3, 5, b"", b"v")]
    body = encode_rows(rows)
    assert body == b"".join(
        [
            bytes.fromhex(
                "12 000000 06 6b6579 01 00"
            ),  # length 9; attributes, deltas; key of 3; value null; no headers
            bytes.fromhex("12 000002 06 6b6579 00 00"),  # value of 0
            bytes.fromhex("0e 000004 01 02 76 00"),  # key null, value of 1
            bytes.fromhex("0e 000006 00 02 76 00"),  # key of 0
        ]
    )
    assert decode_rows(body, header_of(rows)) == rows


@given(st.lists(ROW, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_changed_body_raises_only_our_errors(fields: list[tuple[Any, ...]], random: Any) -> None:
    rows = rows_of(fields)
    body = bytearray(encode_rows(rows))
    for _ in range(random.randint(1, 4)):
        body[random.randrange(len(body))] = random.randrange(256)
    del body[random.randrange(len(body) + 1) :]
    try:
        decode_rows(body, header_of(rows))
    except CorruptBatch:
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"record_count": 3, "last_offset_delta": 9}, "rows body"),
        ({"record_count": 1}, "rows body"),
        ({"record_count": 10}, "10 records"),
        ({"record_count": LIMITS.batch_records_max + 1}, "records in a rows body"),
        ({"last_offset_delta": 0}, "beyond the last"),
    ],
)
def test_a_header_that_does_not_fit_the_records_is_corrupt(changes: dict[str, int], message: str) -> None:
    rows = [Row(0, 1, b"a", b"b"), Row(1, 1, b"a", b"b" * 20)]
    with pytest.raises(CorruptBatch, match=message):
        decode_rows(encode_rows(rows), header_of(rows, **changes))


def test_offsets_that_do_not_ascend_are_corrupt() -> None:
    rows = [Row(3, 1, b"a", b"b"), Row(3, 1, b"a", b"b")]
    with pytest.raises(CorruptBatch, match="offset delta 3 after 3"):
        decode_rows(encode_rows(rows), header_of(rows))


@pytest.mark.parametrize("header_count", [257, 2_000_000, 2**31 - 1])
def test_two_million_headers_are_refused_before_objects_are_made(header_count: int) -> None:
    one = record(b"\x00", varint(0), varint(0), varint(-1), varint(-1), varint(header_count), b"\x00\x01" * 2_000_000)
    assert len(one) > 2 * MIB
    with pytest.raises(CorruptBatch, match=f"{header_count} headers"):
        decode_rows(one, header_of([Row(0, 0, None, None)]))


def test_too_many_headers_in_a_small_body_are_refused() -> None:
    rows = [Row(0, 0, None, None, tuple(("", None) for _ in range(LIMITS.record_headers_max + 1)))]
    with pytest.raises(CorruptBatch, match="headers"):
        decode_rows(encode_rows(rows), header_of(rows))


@pytest.mark.parametrize(
    "body", [b"\xff" * (2 * MIB), b"\x80" * (2 * MIB), varint(-5) + bytes(2 * MIB), varint(2**40) + bytes(2 * MIB)]
)
def test_lengths_that_lie_in_a_large_body_are_corrupt(body: bytes) -> None:
    with pytest.raises(CorruptBatch):
        decode_rows(body, header_of([Row(0, 0, None, None)]))


def test_a_length_near_the_largest_integer_is_corrupt() -> None:
    for length in (2**62, 2**63 - 1, 2**63 - 8):
        one = record(b"\x00", varint(0), varint(0), varint(-1), varint(length), b"value", varint(0))
        with pytest.raises(CorruptBatch):
            decode_rows(one, header_of([Row(0, 0, None, None)]))


def test_a_large_honest_body_is_read() -> None:
    rows = [Row(index, 7, b"k" * 10, b"v" * 200_000, (("h", b"1"),)) for index in range(10)]
    assert decode_rows(memoryview(encode_rows(rows)), header_of(rows)) == rows


def test_the_header_built_around_a_body_has_kafkas_layout() -> None:
    from ingest.records.rows import _kafka_header

    built = _kafka_header(100, header_of([Row(0, 11, None, None), Row(4, 22, None, None)]))
    assert len(built) == 61
    at = {"q": 8, "i": 4, "b": 1, "h": 2}
    expected = {0: ("q", 0), 8: ("i", 149), 16: ("b", 2), 21: ("h", 0), 23: ("i", 4), 27: ("q", 11), 35: ("q", 22)}
    for position, (kind, value) in {**expected, 43: ("q", -1), 51: ("h", -1), 53: ("i", -1), 57: ("i", 2)}.items():
        assert struct.unpack_from(">" + kind, built, position) == (value,), f"{kind} of {at[kind]} bytes at {position}"
