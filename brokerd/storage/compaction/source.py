"""A sealed segment as compaction reads it: in large windows, each batch checked in full, nothing kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ingest.errors import CorruptBatch
from ingest.limits import LIMITS, MIB
from ingest.log.names import LOG, file_name
from ingest.records.header import HEADER_SIZE, BatchHeader, verify_batch, verify_header

WINDOW_BYTES = 4 * MIB


class Batch(NamedTuple):
    """One stored batch: its place in the file, its header, its bytes without padding (a view over the window)."""

    position: int
    header: BatchHeader
    data: memoryview


class Window(NamedTuple):
    """Whole batches that follow each other; `data` are their bytes, padding included. Valid until the next one."""

    position: int
    data: memoryview
    batches: list[Batch]


class Source:
    """One segment file, open for reading."""

    def __init__(self, directory_fd: int, base_offset: int, on_read: Callable[[int], None]) -> None:
        """Open it.

        Args:
            on_read: Told of bytes read; it may wait.
        Raises:
            FileNotFoundError: it was deleted.
        """
        self.base_offset = base_offset
        self.fd = os.open(file_name(base_offset, LOG), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
        status = os.fstat(self.fd)
        self._on_read = on_read
        self._size = status.st_size
        self.stored_bytes = min(status.st_size, status.st_blocks * 512)

    def close(self) -> None:
        os.close(self.fd)

    def windows(self, position: int = 0, offset: int | None = None) -> Iterator[Window]:
        """Read batches from a position on, where the first has `offset` or a higher one, to the last.

        Raises:
            CorruptBatch: bytes are not what was written.
        Cost: one read and one CRC pass; memory for a window or the largest batch.
        """
        buffer = bytearray(WINDOW_BYTES)
        expected = self.base_offset if offset is None else offset
        have = 0  # bytes in the buffer, from `position` on
        while position < self._size:
            with memoryview(buffer) as free:
                size = os.preadv(self.fd, [free[have : self._size - position]], position + have)
            self._on_read(size)
            have += size
            view = memoryview(buffer)[:have]
            batches, end = self._batches(view, position, expected)
            if batches:
                yield Window(position, view[:end], batches)
                position += end
                expected = batches[-1].header.next_offset
                have -= end
                view[:have] = bytes(view[end:])
                continue
            if have < HEADER_SIZE or not any(view[:HEADER_SIZE]):
                return
            needed = verify_header(view).padded_size
            if needed <= len(buffer) or needed > self._size - position or needed > LIMITS.batch_bytes_max + MIB:
                text = f"segment {self.base_offset} ends amid a batch at byte {position}"
                raise CorruptBatch(text, position=position)
            buffer = bytearray(needed)
            have = 0

    def _batches(self, view: memoryview, position: int, expected: int) -> tuple[list[Batch], int]:
        """Return the whole batches in a window and where they end."""
        batches: list[Batch] = []
        at = 0
        while at + HEADER_SIZE <= len(view):
            if not view[at] and not any(view[at : at + HEADER_SIZE]):
                break
            header = verify_header(view, at)
            if header.base_offset < expected:
                raise CorruptBatch(
                    f"batch {header.base_offset} at byte {position + at} of segment {self.base_offset} where"
                    f" offset {expected} was due",
                    position=position + at,
                )
            if at + header.padded_size > len(view):
                break
            data = view[at : at + header.size]
            verify_batch(data, header)
            batches.append(Batch(position + at, header, data))
            expected = header.next_offset
            at += header.padded_size
        return batches, at
