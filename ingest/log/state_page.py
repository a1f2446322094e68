"""The state page: one tmpfs file per broker that tells local readers how far each log may be read.

    bytes 0..128    page header: magic b"FBYPAGE" and the version 1, row_size u32, row_count u32, incarnation i64
    then rows of 128 bytes, each two copies of

        offset  size  field
             0     4  crc             CRC-32C of bytes 4..64
             4     4  sequence        of this write; the newer valid copy counts, wraps at 2^32
             8     4  leader_epoch
            12     4  generation      another one when visible bytes were replaced, or the row claimed anew
            16     8  tag             of topic id and partition; 0: the row is free
            24     8  incarnation     of the process that wrote it
            32     8  log_start
            40     8  high_watermark
            48     8  log_end
            56     8  active_segment  base offset

A write touches one copy, so that a torn write, a dead writer or another CPU's order of stores leaves the other. The
file is never unlinked, replaced or shortened. Source: docs/format/state_page.md.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

from ingest.records.checksum import crc32c

if TYPE_CHECKING:
    from typing_extensions import Buffer

PAGE_MAGIC = b"FBYPAGE\x01"
PAGE_HEADER_SIZE = 128
ROW_SIZE = 128
COPY_SIZE = 64

_PAGE_HEADER = struct.Struct("<8sIIq")
_COPY = struct.Struct("<IIiIQqqqqq")
_BODY = struct.Struct("<IiIQqqqqq")
_CRC = struct.Struct("<I")
assert _COPY.size == COPY_SIZE

_FREE = 0


class Marks(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a row says of a partition."""

    sequence: int
    leader_epoch: int
    generation: int
    tag: int
    incarnation: int
    log_start: int
    high_watermark: int
    log_end: int
    active_segment: int


def row_tag(topic_id: bytes, partition: int) -> int:
    """Return what tells the rows of two partitions apart; never 0."""
    half = int.from_bytes(topic_id[:8], "little") ^ int.from_bytes(topic_id[8:], "little")
    return ((half + partition * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF) or 1


def encode_page_header(row_count: int, incarnation: int) -> bytes:
    return _PAGE_HEADER.pack(PAGE_MAGIC, ROW_SIZE, row_count, incarnation).ljust(PAGE_HEADER_SIZE, b"\0")


def decode_page_header(page: Buffer) -> tuple[int, int] | None:
    """Return (row count, incarnation), None if this is no page of this version."""
    if memoryview(page).nbytes < PAGE_HEADER_SIZE:
        return None
    magic, row_size, row_count, incarnation = _PAGE_HEADER.unpack_from(page, 0)
    if magic != PAGE_MAGIC or row_size != ROW_SIZE:
        return None
    return row_count, incarnation


def encode_marks(
    sequence: int,
    leader_epoch: int,
    generation: int,
    tag: int,
    incarnation: int,
    log_start: int,
    high_watermark: int,
    log_end: int,
    active_segment: int,
) -> bytes:
    """Encode one copy of a row; the order of the arguments is that of the bytes."""
    body = _BODY.pack(
        sequence, leader_epoch, generation, tag, incarnation, log_start, high_watermark, log_end, active_segment
    )
    return _CRC.pack(crc32c(body)) + body


def decode_marks(page: Buffer, row: int) -> Marks | None:
    """Return the newer valid copy of a row, None if neither is valid or the row is free.

    Cost: two CRCs of 60 bytes.
    """
    position = PAGE_HEADER_SIZE + row * ROW_SIZE
    both = bytes(memoryview(page)[position : position + ROW_SIZE])
    best: tuple[int, ...] | None = None
    for start in (0, COPY_SIZE):
        fields = _COPY.unpack_from(both, start)
        if fields[0] != crc32c(both[start + 4 : start + COPY_SIZE]):
            continue
        if best is None or (fields[1] - best[1]) & 0xFFFFFFFF < 0x80000000:
            best = fields
    if best is None or best[4] == _FREE:
        return None
    return Marks(*best[1:])
