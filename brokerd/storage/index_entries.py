"""The entries of both index files of a segment, made as its batches are written in order. Pure."""

from __future__ import annotations

from ingest.log.index import crc_seed, encode_offset_entry, encode_time_entry

NO_TIMESTAMP = -(2**63)


class IndexEntries:
    """Gather entries until somebody writes them; every `interval_bytes` a batch becomes one.

    Attributes:
        offsets, times: Entries not taken yet, as many of each.
        max_timestamp_ms: The latest timestamp of the batches added.
    """

    __slots__ = ("_base", "_next_entry_at", "_seed", "interval_bytes", "max_timestamp_ms", "offsets", "times")

    def __init__(self, base_offset: int, interval_bytes: int) -> None:
        self._base = base_offset
        self._seed = crc_seed(base_offset)
        self.interval_bytes = interval_bytes
        self.reset()

    def reset(self) -> None:
        """Begin at the segment's start."""
        self.offsets = bytearray()
        self.times = bytearray()
        self.resume(NO_TIMESTAMP, 0)

    def resume(self, max_timestamp_ms: int, next_position: int) -> None:
        """Go on adding at `next_position`."""
        self.max_timestamp_ms = max_timestamp_ms
        self._next_entry_at = next_position

    def add(self, leader_epoch: int, base_offset: int, position: int, timestamp_ms: int, next_position: int) -> None:
        """Note a batch."""
        if position >= self._next_entry_at:
            relative = base_offset - self._base
            self.offsets += encode_offset_entry(self._seed, relative, position, leader_epoch)
            self.times += encode_time_entry(self._seed, self.max_timestamp_ms, relative)
            self._next_entry_at = next_position + self.interval_bytes if self.interval_bytes else 0
        if timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = timestamp_ms
