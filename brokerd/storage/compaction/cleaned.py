"""How far a log is compacted, and since when: `compaction` beside its segments. A hint with a CRC.

    0   8   magic b"FBYCOMP" and the version 1
    8   4   crc, CRC-32C of what follows
   12   4   size of what follows
   16   …   msgpack [[[end_offset, since_age_ms, age_ms, tombstones], …]]

Ranges follow each other from the log's start. Below the last one's end each key has one record. Tombstones of a range
were first cleaned between two moments of the directory's running time; `tombstones` of them are left at most.
Losing the file, or being in doubt of it, costs work: everything is dirty then, and tombstones are kept as new ones are.

Source: docs/format/compaction.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from ingest.records.checksum import crc32c

_HEAD = struct.Struct("<8sII")
_MAGIC = b"FBYCOMP\x01"
CLEANED_BYTES_MAX = 1 << 20
_RANGES_PER_RETENTION = 4  # so that a tombstone stays for a quarter longer than it has to, at most


class CleanedRange(msgspec.Struct, frozen=True, array_like=True):
    """What runs between two moments cleaned for the first time: [the end of the range before, end_offset)."""

    end_offset: int
    since_age_ms: int
    age_ms: int
    tombstones: int


class Cleaned(msgspec.Struct, frozen=True, array_like=True):
    """What is clean. A value: each run makes another."""

    ranges: list[CleanedRange] = []

    @property
    def end_offset(self) -> int:
        """Below it each key has one record."""
        return self.ranges[-1].end_offset if self.ranges else 0

    def expired_end(self, age_ms: int, retention_ms: int) -> int:
        """Return below which offset tombstones were first cleaned `delete.retention.ms` ago, or longer."""
        ends = [one.end_offset for one in self.ranges if one.age_ms + retention_ms <= age_ms]
        return max(ends, default=0)

    def has_tombstones(self, start_offset: int, end_offset: int) -> bool:
        """Tell whether a range that ends within (start_offset, end_offset] has tombstones left."""
        return any(one.tombstones for one in self.ranges if start_offset < one.end_offset <= end_offset)

    def after_run(self, end_offset: int, tombstones: Sequence[int], *, age_ms: int, retention_ms: int) -> Cleaned:
        """Return what is clean once a run is in place.

        Args:
            tombstones: Left in each range, -1 where nobody looked, and in what was cleaned now.
        """
        *counts, fresh = tombstones
        assert len(counts) == len(self.ranges), "a run counts by the ranges there are"
        ranges = [
            one if count < 0 else msgspec.structs.replace(one, tombstones=count)
            for one, count in zip(self.ranges, counts, strict=True)
        ]
        if end_offset > self.end_offset:
            ranges.append(CleanedRange(end_offset, age_ms, age_ms, fresh))
        merged: list[CleanedRange] = []
        for one in ranges:
            last = merged[-1] if merged else None
            near = last is not None and one.age_ms - last.since_age_ms <= retention_ms // _RANGES_PER_RETENTION
            if last is not None and (near or one.age_ms + retention_ms <= age_ms):
                left = last.tombstones + one.tombstones
                one = CleanedRange(one.end_offset, last.since_age_ms, one.age_ms, left)
                merged.pop()
            merged.append(one)
        return Cleaned(merged)

    def cut(self, offset: int) -> Cleaned:
        """Return what is clean of a log that was cut at `offset`."""
        ranges = [one for one in self.ranges if one.end_offset < offset]
        if len(ranges) < len(self.ranges):
            ranges.append(msgspec.structs.replace(self.ranges[len(ranges)], end_offset=offset))
        return Cleaned([one for one in ranges if one.end_offset > 0])


_decoder = msgspec.msgpack.Decoder(Cleaned)
_encoder = msgspec.msgpack.Encoder()


def encode_cleaned(cleaned: Cleaned) -> bytes:
    """Encode the file."""
    body = _encoder.encode(cleaned)
    return _HEAD.pack(_MAGIC, crc32c(body), len(body)) + body


def decode_cleaned(data: bytes) -> Cleaned | None:
    """Return what the file says, None if it is not what was written."""
    if len(data) < _HEAD.size:
        return None
    magic, crc, size = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if magic != _MAGIC or size != len(body) or crc32c(body) != crc:
        return None
    try:
        cleaned = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    ends = [one.end_offset for one in cleaned.ranges]
    return cleaned if ends == sorted(set(ends)) and all(end > 0 for end in ends) else None
