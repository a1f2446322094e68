"""Entries of the two index files of a segment: hints of 16 bytes, each with its own CRC.

    .index      relative_offset u32 | position u32, in units of 8 bytes | leader_epoch i32 | crc u32
    .timeindex  max_timestamp_ms i64 | relative_offset u32 | crc u32

An entry of `.index` says that the batch with that base offset starts at that position. One of `.timeindex` says that no
batch of the segment below that offset has a later timestamp. The CRC-32C covers the segment's base offset (i64) and
the bytes before the CRC, so a flipped bit, a hole or an entry of another segment is noticed where it is used. A file
that ends early costs a longer walk, never another answer.

Source: docs/format/segments.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ingest.errors import CorruptBatch
from ingest.records.checksum import crc32c

ENTRY_SIZE = 16
_OFFSET_ENTRY = struct.Struct("<IIi")
_TIME_ENTRY = struct.Struct("<qI")
_CRC = struct.Struct("<I")
_BASE = struct.Struct("<q")

ReadEntry = Callable[[int], bytes]


class IndexDamaged(CorruptBatch):
    """An index entry that is not what was written: rebuild that segment's indexes."""


def crc_seed(base_offset: int) -> int:
    """Return what the CRC of every entry of a segment starts from."""
    return crc32c(_BASE.pack(base_offset))


def encode_offset_entry(seed: int, relative_offset: int, position: int, leader_epoch: int) -> bytes:
    """Encode one entry of `.index`; `position` in bytes, a multiple of 8."""
    body = _OFFSET_ENTRY.pack(relative_offset, position >> 3, leader_epoch)
    return body + _CRC.pack(crc32c(body, seed))


def encode_time_entry(seed: int, max_timestamp_ms: int, relative_offset: int) -> bytes:
    """Encode one entry of `.timeindex`."""
    body = _TIME_ENTRY.pack(max_timestamp_ms, relative_offset)
    return body + _CRC.pack(crc32c(body, seed))


def _checked(seed: int, entry: bytes) -> bytes:
    if len(entry) != ENTRY_SIZE or crc32c(entry[:12], seed) != int.from_bytes(entry[12:], "little"):
        raise IndexDamaged(f"index entry {entry.hex()} fails its CRC")
    return entry


def decode_offset_entry(seed: int, entry: bytes) -> tuple[int, int, int]:
    """Return (relative offset, position in bytes, leader epoch).

    Raises:
        IndexDamaged: the CRC does not match.
    """
    relative, units, epoch = _OFFSET_ENTRY.unpack_from(_checked(seed, entry))
    return relative, units << 3, epoch


def decode_time_entry(seed: int, entry: bytes) -> tuple[int, int]:
    """Return (max timestamp in ms, relative offset).

    Raises:
        IndexDamaged: the CRC does not match.
    """
    timestamp_ms, relative = _TIME_ENTRY.unpack_from(_checked(seed, entry))
    return timestamp_ms, relative


def find_offset(seed: int, read: ReadEntry, count: int, relative_offset: int) -> tuple[int, int, int] | None:
    """Return the last entry at or below `relative_offset`, None if there is none.

    Args:
        read: Gives the bytes of entry i of `count`.
    Raises:
        IndexDamaged: an entry on the way fails its CRC, so the way can't be trusted.
    Cost: log2(count) reads.
    """
    low, high, found = 0, count, None
    while low < high:
        middle = (low + high) // 2
        entry = decode_offset_entry(seed, read(middle))
        if entry[0] <= relative_offset:
            low, found = middle + 1, entry
        else:
            high = middle
    return found


def find_time(seed: int, read: ReadEntry, count: int, timestamp_ms: int) -> int | None:
    """Return the highest relative offset below which everything is older than `timestamp_ms`, None if none is known.

    Raises:
        IndexDamaged: an entry on the way fails its CRC.
    """
    low, high, found = 0, count, None
    while low < high:
        middle = (low + high) // 2
        entry = decode_time_entry(seed, read(middle))
        if entry[0] < timestamp_ms:
            low, found = middle + 1, entry[1]
        else:
            high = middle
    return found
