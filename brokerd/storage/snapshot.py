"""The producer snapshot, `<20 digits>.snapshot`: the producers of everything below that offset. A hint with a CRC.

    0   8   magic b"FBYSNAP" and the version 1
    8   4   crc, CRC-32C of what follows
   12   4   size of what follows
   16   …   msgpack [offset, age_ms, producer_id_max, {producer id: [epoch, last_age_ms, [[base_sequence, last_sequence,
            base_offset, last_offset, append_time_ms], …]]}]

`age_ms` is the directory's running time at the write; at a roll it is the age of the last append below the offset.
Source: docs/format/producer_snapshot.md.
"""

from __future__ import annotations

import struct

import msgspec

from brokerd.storage.producer_state import Producer, ProducerState
from ingest.records.checksum import crc32c

_HEAD = struct.Struct("<8sII")
_MAGIC = b"FBYSNAP\x01"
SNAPSHOT_BYTES_MAX = 256 * 1024 * 1024


class Snapshot(msgspec.Struct, array_like=True):
    """A decoded snapshot."""

    offset: int
    age_ms: int
    producer_id_max: int
    producers: dict[int, Producer]

    def state(self) -> ProducerState:
        """Return a state that starts from here."""
        state = ProducerState()
        state.producers = self.producers
        state.producer_id_max = self.producer_id_max
        return state


_decoder = msgspec.msgpack.Decoder(Snapshot)
_encoder = msgspec.msgpack.Encoder()


def encode_snapshot(offset: int, age_ms: int, state: ProducerState) -> bytes:
    """Encode the state of everything below `offset`."""
    body = _encoder.encode(Snapshot(offset, age_ms, state.producer_id_max, state.producers))
    return _HEAD.pack(_MAGIC, crc32c(body), len(body)) + body


def decode_snapshot(data: bytes, offset: int) -> Snapshot | None:
    """Return the snapshot, None if the bytes are not what was written or name another offset."""
    if len(data) < _HEAD.size:
        return None
    magic, crc, size = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if magic != _MAGIC or size != len(body) or crc32c(body) != crc:
        return None
    try:
        snapshot = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return snapshot if snapshot.offset == offset else None
