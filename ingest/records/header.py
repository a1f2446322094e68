"""The batch header: 96 little-endian bytes in two halves with a CRC-32C each.

    offset  size  field                    written by
    ------  ----  -----------------------  ----------------------------------------------------------
         0     4  magic                    leader    b"FBY" and the format version, 1
         4     4  header_crc               leader    CRC-32C of bytes 8..96: the rest of the header
         8     8  base_offset              leader    offset of the first record
        16     8  append_time_ms           leader    wall clock of the append
        24     8  high_watermark           leader    the log's high watermark when this was appended
        32     4  leader_epoch             leader
        36     4  leader_flags             leader    bit 0: LogAppendTime, timestamps are append_time_ms
        40     4  batch_crc                producer  CRC-32C of bytes 44..96 and exactly the body
        44     4  body_size                producer  bytes of the body, padding not counted
        48     8  producer_id              producer  -1: not idempotent
        56     8  base_timestamp_ms        producer
        64     8  max_timestamp_ms         producer
        72     4  base_sequence            producer  -1: not idempotent
        76     4  record_count             producer
        80     4  last_offset_delta        producer  may exceed record_count - 1: compaction leaves holes
        84     2  producer_epoch           producer
        86     2  attributes               producer  bits 0-2 codec (Kafka's numbers), bit 8 columns
        88     4  uncompressed_size        producer  bytes of the body before compression
        92     4  reserved                 producer  zero

The leader's half is written at append and copied verbatim by followers. The producer's half and the body are
never touched after the producer. On disk a batch starts at a multiple of 8 and is padded with zeros to the next.

Source: docs/format/batch.md.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ingest.errors import CorruptBatch, UnsupportedFormat
from ingest.records.checksum import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

MAGIC = b"FBY\x01"
HEADER_SIZE = 96
LEADER_HALF_SIZE = 40
ALIGNMENT = 8
OFFSET_MAX = 2**63 - 2**32  # what lies behind the last record of any batch is an offset too
NO_PRODUCER_ID = -1
NO_SEQUENCE = -1

CODEC_MASK = 0x07
ATTRIBUTE_COLUMNS = 0x100
KNOWN_ATTRIBUTES = CODEC_MASK | ATTRIBUTE_COLUMNS
FLAG_LOG_APPEND_TIME = 0x1

HEADER_DTYPE = np.dtype(
    [
        ("magic", "S4"),
        ("header_crc", "<u4"),
        ("base_offset", "<i8"),
        ("append_time_ms", "<i8"),
        ("high_watermark", "<i8"),
        ("leader_epoch", "<i4"),
        ("leader_flags", "<u4"),
        ("batch_crc", "<u4"),
        ("body_size", "<u4"),
        ("producer_id", "<i8"),
        ("base_timestamp_ms", "<i8"),
        ("max_timestamp_ms", "<i8"),
        ("base_sequence", "<i4"),
        ("record_count", "<i4"),
        ("last_offset_delta", "<i4"),
        ("producer_epoch", "<i2"),
        ("attributes", "<u2"),
        ("uncompressed_size", "<u4"),
        ("reserved", "<u4"),
    ]
)
assert HEADER_DTYPE.itemsize == HEADER_SIZE

_HEADER = struct.Struct("<4sIqqqiIIIqqqiiihHII")
_LEADER_TAIL = struct.Struct("<qqqiI")  # base_offset .. leader_flags
_PRODUCER_TAIL = struct.Struct("<IqqqiiihHII")  # body_size .. reserved
assert _HEADER.size == HEADER_SIZE
assert 8 + _LEADER_TAIL.size == LEADER_HALF_SIZE
assert 44 + _PRODUCER_TAIL.size == HEADER_SIZE


class BatchHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One decoded batch header, its fields in the order of the bytes."""

    magic: bytes
    header_crc: int
    base_offset: int
    append_time_ms: int
    high_watermark: int
    leader_epoch: int
    leader_flags: int
    batch_crc: int
    body_size: int
    producer_id: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    base_sequence: int
    record_count: int
    last_offset_delta: int
    producer_epoch: int
    attributes: int
    uncompressed_size: int
    reserved: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; Kafka's sequences wrap from 2^31 - 1 to 0."""
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def size(self) -> int:
        """Bytes of the batch, header and body, without padding."""
        return HEADER_SIZE + self.body_size

    @property
    def padded_size(self) -> int:
        """Bytes the batch takes in a segment file."""
        return padded(HEADER_SIZE + self.body_size)

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_columns(self) -> bool:
        return bool(self.attributes & ATTRIBUTE_COLUMNS)

    @property
    def is_log_append_time(self) -> bool:
        return bool(self.leader_flags & FLAG_LOG_APPEND_TIME)

    @property
    def largest_timestamp_ms(self) -> int:
        """The timestamp the time index keeps: the leader's where LogAppendTime is set."""
        return self.append_time_ms if self.is_log_append_time else self.max_timestamp_ms


def nbytes(buffer: Buffer) -> int:
    """Return the size of a contiguous buffer in bytes."""
    return len(buffer) if type(buffer) is bytes else memoryview(buffer).nbytes


def padded(size: int) -> int:
    """Round `size` bytes up to the alignment of batches in a segment."""
    return (size + ALIGNMENT - 1) & -ALIGNMENT


def encode_producer_half(
    *body: Buffer,
    attributes: int,
    base_timestamp_ms: int,
    max_timestamp_ms: int,
    record_count: int,
    last_offset_delta: int,
    uncompressed_size: int,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = NO_SEQUENCE,
) -> bytes:
    """Build the 96-byte header a producer sends, its leader half zero but for the magic.

    Args:
        body: The body, in one part or several.
    Cost: one CRC-32C pass over the body, no copy of it.
    """
    tail = _PRODUCER_TAIL.pack(
        sum(map(nbytes, body)),
        producer_id,
        base_timestamp_ms,
        max_timestamp_ms,
        base_sequence,
        record_count,
        last_offset_delta,
        producer_epoch,
        attributes,
        uncompressed_size,
        0,
    )
    crc = crc32c(tail)
    for part in body:
        crc = crc32c(part, crc)
    return b"%s%s%s%s" % (MAGIC, bytes(LEADER_HALF_SIZE - 4), crc.to_bytes(4, "little"), tail)


def encode_leader_half(
    header: Buffer,
    *,
    base_offset: int,
    leader_epoch: int,
    append_time_ms: int,
    high_watermark: int,
    leader_flags: int = 0,
) -> bytes:
    """Return the final 96-byte header: the leader's fields beside the producer's, both CRCs in place.

    Args:
        header: The producer's batch or its header, (>=96,) bytes; it is read, not changed.
    """
    rest = b"%s%s" % (
        _LEADER_TAIL.pack(base_offset, append_time_ms, high_watermark, leader_epoch, leader_flags),
        bytes(memoryview(header)[LEADER_HALF_SIZE:HEADER_SIZE]),
    )
    return b"%s%s%s" % (MAGIC, crc32c(rest).to_bytes(4, "little"), rest)


def decode_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """Decode the header at `position` without checking any CRC.

    Raises:
        CorruptBatch: too few bytes, no magic, or a field that no header can hold.
        UnsupportedFormat: the magic of a newer version.
    """
    try:
        fields = _HEADER.unpack_from(buffer, position)
    except struct.error:
        raise CorruptBatch(f"batch header cut short at byte {position}", position=position) from None
    header = BatchHeader(*fields)
    if header.magic != MAGIC:
        if header.magic[:3] == MAGIC[:3]:
            raise UnsupportedFormat(f"batch format version {header.magic[3]} at byte {position}; this is 1")
        raise CorruptBatch(f"no batch magic at byte {position}: {header.magic!r}", position=position)
    return header


def verify_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """Decode the header at `position` and check the leader's CRC over all of it; the body is not read.

    Raises:
        CorruptBatch: cut short, no magic, CRC mismatch, or impossible fields.
    """
    header = decode_header(buffer, position)
    found = crc32c(memoryview(buffer)[position + 8 : position + HEADER_SIZE])
    if found != header.header_crc:
        raise CorruptBatch(
            f"header CRC at byte {position}: expected {header.header_crc:#010x}, found {found:#010x}",
            position=position,
        )
    check_fields(header)
    return header


def verify_batch(batch: Buffer, header: BatchHeader | None = None) -> BatchHeader:
    """Check the producer's CRC over its half of the header and exactly the body.

    Args:
        batch: One whole batch, (header.size,) bytes or more (padding is ignored).
    Raises:
        CorruptBatch: cut short, no magic, CRC mismatch, or impossible fields.
    Cost: one CRC-32C pass over the batch.
    """
    view = memoryview(batch)
    if header is None:
        header = decode_header(view)
    if view.nbytes < header.size:
        raise CorruptBatch(f"batch of {header.size} bytes cut short at {view.nbytes}")
    found = crc32c(view[44 : header.size])
    if found != header.batch_crc:
        raise CorruptBatch(f"batch CRC: expected {header.batch_crc:#010x}, found {found:#010x}")
    check_fields(header)
    return header


def check_fields(header: BatchHeader) -> None:
    """Refuse a header whose fields contradict each other.

    Raises:
        CorruptBatch: naming the field.
    """
    if header.record_count < 0 or header.last_offset_delta < header.record_count - 1:
        raise CorruptBatch(f"{header.record_count} records in {header.last_offset_delta + 1} offsets")
    if header.attributes & ~KNOWN_ATTRIBUTES or header.codec > 4 or header.reserved:
        raise CorruptBatch(f"unknown attributes {header.attributes:#06x}")
    if header.last_offset_delta < 0:
        raise CorruptBatch(f"last offset delta {header.last_offset_delta}")
    if not 0 <= header.base_offset <= OFFSET_MAX:
        raise CorruptBatch(f"base offset {header.base_offset}")


def hop_headers(buffer: Buffer, position: int = 0, end: int | None = None) -> Iterator[tuple[int, BatchHeader]]:
    """Walk batches laid one after another, verifying headers only; yield (position, header).

    Raises:
        CorruptBatch: at the first header that does not verify or whose body passes `end`.
    """
    if end is None:
        end = memoryview(buffer).nbytes
    while position < end:
        header = verify_header(buffer, position)
        if position + header.size > end:
            raise CorruptBatch(f"batch at byte {position} passes the end {end}", position=position)
        yield position, header
        position += header.padded_size
