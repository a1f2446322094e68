"""Record batches between Kafka's wire and the log's: bodies pass through untouched, header and CRC are made anew.

    offset  size  Kafka's batch, version 2, big-endian
    ------  ----  ------------------------------------------------------------------
         0     8  base_offset         a producer's 0, the log's
         8     4  length              bytes that follow
        12     4  leader_epoch
        16     1  magic               2
        17     4  crc                 CRC-32C of bytes 21 to the end
        21     2  attributes          bits 0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon
        23     4  last_offset_delta
        27     8  base_timestamp
        35     8  max_timestamp
        43     8  producer_id
        51     2  producer_epoch
        53     4  base_sequence
        57     4  count
        61        records

Pure. Source: docs/format/batch.md, rows.md; Kafka's `DefaultRecordBatch`, `LogValidator`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ingest.errors import CorruptBatch, DecompressedTooLarge
from ingest.limits import LIMITS
from ingest.records.batch import decode_body, record_offsets
from ingest.records.checksum import crc32c
from ingest.records.compression import compress, decompress
from ingest.records.header import (
    HEADER_SIZE,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    BatchHeader,
    decode_header,
    encode_producer_half,
)
from ingest.records.rows import Row, check_rows, encode_rows
from ingest.wire.codes import ErrorCode

if TYPE_CHECKING:
    from typing_extensions import Buffer

KAFKA_HEADER_SIZE = 61
MAGIC = 2
CODEC_MASK = 0x07
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
_KNOWN_ATTRIBUTES = CODEC_MASK | LOG_APPEND_TIME | TRANSACTIONAL | CONTROL
_LENGTH_FROM = 12
_CRC_FROM = 21
_MAGIC_AT = 16
_CODEC_AT = 22
_PREFIX = struct.Struct(">qiiBI")
_REST = struct.Struct(">hiqqqhii")
assert _PREFIX.size == _CRC_FROM
assert _PREFIX.size + _REST.size == KAFKA_HEADER_SIZE


class Refused(Exception):
    """A producer's batch that is not taken.

    Attributes:
        code: Kafka's.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Produced(NamedTuple):
    """A producer's batch as the log takes it: header and body, the body a view of what was given."""

    header: bytes
    body: memoryview
    record_count: int
    producer_id: int


def is_compressed(records: memoryview) -> bool:
    """Tell whether what a producer sent says that it is compressed."""
    return records.nbytes > _CODEC_AT and bool(records[_CODEC_AT] & CODEC_MASK)


def from_kafka(records: Buffer, *, keys_needed: bool = False) -> Produced:
    """Check one batch of a producer, all its records too, and give it the log's header.

    Args:
        records: The records of one partition in a Produce request.
        keys_needed: The topic is compacted.
    Raises:
        Refused: with the code that Kafka answers.
    Cost: two CRC-32C passes, unpacking where it is compressed, 0.5 µs a record.
    """
    view = memoryview(records).cast("B")
    if view.nbytes > LIMITS.batch_bytes_max:
        raise Refused(ErrorCode.MESSAGE_TOO_LARGE, f"a batch of {view.nbytes} bytes > {LIMITS.batch_bytes_max}")
    if view.nbytes < KAFKA_HEADER_SIZE:
        if view.nbytes > _MAGIC_AT and view[_MAGIC_AT] < MAGIC:
            raise Refused(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, f"message format {view[_MAGIC_AT]}; this takes 2")
        raise Refused(ErrorCode.CORRUPT_MESSAGE, f"a batch of {view.nbytes} bytes")
    _, length, _, magic, crc = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise Refused(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, f"message format {magic}; this takes 2")
    end = _LENGTH_FROM + length
    if not KAFKA_HEADER_SIZE <= end <= view.nbytes:
        raise Refused(ErrorCode.CORRUPT_MESSAGE, f"a batch of {end} bytes in {view.nbytes}")
    if end < view.nbytes:
        raise Refused(ErrorCode.INVALID_RECORD, "more than one batch for a partition")
    if crc32c(view[_CRC_FROM:]) != crc:
        raise Refused(ErrorCode.CORRUPT_MESSAGE, "the CRC of the batch differs")
    attributes, last_delta, base_ms, max_ms, producer_id, producer_epoch, sequence, count = _REST.unpack_from(
        view, _CRC_FROM
    )
    _check_attributes(attributes)
    if count < 1 or last_delta != count - 1 or count > LIMITS.batch_records_max:
        raise Refused(ErrorCode.INVALID_RECORD, f"{count} records, last offset delta {last_delta}")
    if producer_id < 0:  # Sarama's epoch and sequence are 0 then, others' -1: they say nothing
        producer_id, producer_epoch, sequence = NO_PRODUCER_ID, -1, NO_SEQUENCE
    if base_ms < -1:
        raise Refused(ErrorCode.INVALID_TIMESTAMP, f"timestamp {base_ms}")
    body = view[KAFKA_HEADER_SIZE:]
    fields = {
        "attributes": attributes & CODEC_MASK,
        "base_timestamp_ms": base_ms,
        "record_count": count,
        "last_offset_delta": last_delta,
        "producer_id": producer_id,
        "producer_epoch": producer_epoch,
        "base_sequence": sequence,
    }
    header = decode_header(encode_producer_half(max_timestamp_ms=max_ms, uncompressed_size=0, **fields))
    try:
        plain = _plain(body, attributes & CODEC_MASK)
        checked = check_rows(plain, header)
    except DecompressedTooLarge as error:
        raise Refused(ErrorCode.MESSAGE_TOO_LARGE, str(error)) from None
    except CorruptBatch as error:
        raise Refused(ErrorCode.INVALID_RECORD, str(error)) from None
    if keys_needed and checked.keyless:
        raise Refused(ErrorCode.INVALID_RECORD, "a record without a key; the topic is compacted")
    size = memoryview(plain).nbytes if attributes & CODEC_MASK else body.nbytes
    made = encode_producer_half(body, max_timestamp_ms=checked.max_timestamp_ms, uncompressed_size=size, **fields)
    return Produced(made, body, count, producer_id)


def _check_attributes(attributes: int) -> None:
    if attributes & CONTROL:
        raise Refused(ErrorCode.INVALID_RECORD, "a control batch from a client")
    if attributes & TRANSACTIONAL:
        raise Refused(ErrorCode.INVALID_TXN_STATE, "transactions are not served")
    if attributes & LOG_APPEND_TIME:
        raise Refused(ErrorCode.INVALID_TIMESTAMP, "LogAppendTime is the topic's to set")
    if attributes & CODEC_MASK > 4:
        raise Refused(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"codec {attributes & CODEC_MASK}")
    if attributes & ~_KNOWN_ATTRIBUTES:
        raise Refused(ErrorCode.CORRUPT_MESSAGE, f"unknown attributes {attributes:#06x}")


def _plain(body: memoryview, codec: int) -> Buffer:
    if not codec:
        return body
    return decompress(
        codec, body, size=None, size_max=LIMITS.decompressed_bytes_max, ratio_max=LIMITS.decompression_ratio_max
    )


def to_kafka(batch: Buffer, header: BatchHeader) -> tuple[bytes, Buffer]:
    """Return a stored batch as Kafka's clients read it: 61 bytes of header, and the records.

    Args:
        batch: One whole batch whose CRCs were checked.
    Raises:
        CorruptBatch: a body of columns that can't be read.
    Cost: rows: one CRC-32C pass; the records are a view of `batch`. Columns: 1 µs a record, and compressed anew.
    """
    view = memoryview(batch).cast("B")
    codec = header.codec
    body: Buffer = view[HEADER_SIZE : header.size]
    base_ms = header.base_timestamp_ms
    if header.is_columns and header.record_count:
        rows = _rows_of(view, header)
        base_ms = rows[0].timestamp_ms
        body = encode_rows(rows)
        if codec:
            body = compress(codec, body)
    attributes = codec | (LOG_APPEND_TIME if header.is_log_append_time else 0)
    rest = _REST.pack(
        attributes,
        header.last_offset_delta,
        base_ms,
        header.largest_timestamp_ms,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.record_count,
    )
    crc = crc32c(body, crc32c(rest))
    size = KAFKA_HEADER_SIZE - _LENGTH_FROM + memoryview(body).nbytes
    return _PREFIX.pack(header.base_offset, size, header.leader_epoch, MAGIC, crc) + rest, body


def _rows_of(batch: memoryview, header: BatchHeader) -> list[Row]:
    columns = decode_body(batch, header)
    deltas = (record_offsets(columns, header) - header.base_offset).tolist()
    keys, values = columns.keys.to_list(), columns.values.to_list()
    stamps = columns.timestamps_ms.tolist()
    if columns.header_ids is None:
        return list(map(Row, deltas, stamps, keys, values))
    headers = [columns.header_dictionary[index] for index in columns.header_ids.tolist()]
    return list(map(Row, deltas, stamps, keys, values, headers))
