"""Batches between Kafka's wire and the log's, against aiokafka's codec as a judge of its own."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from edge.kafka.batches import Refused, from_kafka, to_kafka
from ingest.records.batch import decode_batch, encode_batch
from ingest.records.checksum import crc32c
from ingest.records.header import decode_header, encode_leader_half, verify_batch
from ingest.wire.codes import ErrorCode

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
RECORDS: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (1000, b"k", b"v" * 200, [("a", b"1"), ("b", None)]),
    (1005, None, b"v" * 200, []),
    (990, b"gone", None, []),
    (1005, b"", b"", []),
]


def built(
    codec: int = 0,
    records: Sequence[Any] = RECORDS,
    *,
    producer: tuple[int, int, int] = (-1, -1, -1),
    transactional: bool = False,
) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), *producer, 1 << 20)
    for number, (stamp, key, value, headers) in enumerate(records):
        builder.append(number, stamp, key, value, headers)
    return bytearray(builder.build())


def stored(batch: bytes, *, base_offset: int = 70, flags: int = 0) -> bytes:
    """As a leader stores it."""
    half = encode_leader_half(
        batch, base_offset=base_offset, leader_epoch=3, append_time_ms=5000, high_watermark=0, leader_flags=flags
    )
    return half + batch[len(half) :]


def read(batch: bytes) -> list[Any]:
    judge = DefaultRecordBatch(bytes(batch))
    assert judge.validate_crc()
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in judge]


def signed(batch: bytearray) -> bytearray:
    struct.pack_into(">I", batch, 17, crc32c(batch[21:]))
    return batch


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_what_a_client_sends_is_stored_as_it_is_and_comes_back_to_the_byte(codec: int) -> None:
    sent = built(codec, producer=(7, 2, 40))
    taken = from_kafka(sent)
    assert (taken.record_count, taken.producer_id) == (4, 7)
    assert bytes(taken.body) == bytes(sent[61:])
    native = stored(taken.header + bytes(taken.body))
    header = verify_batch(native)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 2, 40)
    assert header.max_timestamp_ms == 1005
    assert decode_batch(native, "t", 0).timestamps_ms.tolist() == [1000, 1005, 990, 1005]
    head, body = to_kafka(native, header)
    given = head + bytes(body)
    assert read(given) == [(70 + number, *record) for number, record in enumerate(RECORDS)]
    assert given[61:] == sent[61:]
    assert struct.unpack_from(">qiiB", given) == (70, len(given) - 12, 3, 2)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_columns_of_native_producers_are_converted(codec: int) -> None:
    stamps, keys, values, headers = zip(*RECORDS, strict=True)
    native = stored(encode_batch(stamps, keys, values, [tuple(one) for one in headers], codec=codec))
    head, body = to_kafka(native, decode_header(native))
    given = head + bytes(body)
    assert read(given) == [(70 + number, *record) for number, record in enumerate(RECORDS)]


def test_the_leaders_time_counts_for_every_record_where_it_is_the_topics() -> None:
    for batch in (from_kafka(built()), None):
        native = batch.header + bytes(batch.body) if batch else encode_batch([1, 2], None, [b"a", b"b"])
        native = stored(native, flags=1)
        head, body = to_kafka(native, decode_header(native))
        assert {stamp for _, stamp, *_ in read(head + bytes(body))} == {5000}


def test_numbers_as_columns_come_as_their_bytes() -> None:
    values = np.arange(3, dtype="<f8")
    native = stored(encode_batch([1, 2, 3], None, values.view(np.uint8).reshape(3, 8)))
    head, body = to_kafka(native, decode_header(native))
    assert [value for _, _, _, value, _ in read(head + bytes(body))] == [struct.pack("<d", n) for n in range(3)]


def refused(batch: bytes, **options: Any) -> ErrorCode:
    with pytest.raises(Refused) as error:
        from_kafka(batch, **options)
    assert str(error.value)
    return error.value.code


def test_what_no_broker_takes_is_refused_with_kafkas_codes() -> None:
    good = built()
    assert refused(b"") == ErrorCode.CORRUPT_MESSAGE
    assert refused(good[:60]) == ErrorCode.CORRUPT_MESSAGE
    assert refused(good[:-1]) == ErrorCode.CORRUPT_MESSAGE
    assert refused(good + good) == ErrorCode.INVALID_RECORD
    for magic in (0, 1, 3):
        assert refused(good[:16] + bytes([magic]) + good[17:]) == ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT
    assert refused(good[:16] + b"\0" + good[17:30]) == ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT
    flipped = bytearray(good)
    flipped[-1] ^= 1
    assert refused(flipped) == ErrorCode.CORRUPT_MESSAGE
    assert refused(good, keys_needed=True) == ErrorCode.INVALID_RECORD
    assert refused(built(transactional=True, producer=(1, 0, 0))) == ErrorCode.INVALID_TXN_STATE


@pytest.mark.parametrize(
    ("at", "form", "value", "code"),
    [
        (21, ">h", 0x20, ErrorCode.INVALID_RECORD),  # control
        (21, ">h", 0x08, ErrorCode.INVALID_TIMESTAMP),
        (21, ">h", 5, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        (21, ">h", 0x100, ErrorCode.CORRUPT_MESSAGE),
        (21, ">h", 1, ErrorCode.INVALID_RECORD),  # no gzip
        (23, ">i", 4, ErrorCode.INVALID_RECORD),
        (23, ">i", -1, ErrorCode.INVALID_RECORD),
        (27, ">q", -2, ErrorCode.INVALID_TIMESTAMP),
        (57, ">i", 0, ErrorCode.INVALID_RECORD),
        (57, ">i", 5, ErrorCode.INVALID_RECORD),
        (57, ">i", -1, ErrorCode.INVALID_RECORD),
        (61, ">b", 126, ErrorCode.INVALID_RECORD),  # a record longer than the batch
    ],
)
def test_a_header_or_record_that_lies_is_refused(at: int, form: str, value: int, code: ErrorCode) -> None:
    batch = built()
    struct.pack_into(form, batch, at, value)
    assert refused(signed(batch)) == code


def test_without_a_producer_id_epoch_and_sequence_say_nothing() -> None:
    """Sarama, in Telegraf and many others, leaves them 0 when it is not idempotent."""
    batch = built()
    struct.pack_into(">hi", batch, 51, 0, 0)
    taken = from_kafka(signed(batch))
    header = decode_header(taken.header)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (-1, -1, -1)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = built(4, [(1, None, bytes(80 << 20), [])])
    assert refused(bomb) == ErrorCode.MESSAGE_TOO_LARGE
