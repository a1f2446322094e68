"""The broker's side of the state page: rows are claimed and published here. Layout: ingest.log.state_page."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from brokerd.storage.files import CREATE, File
from ingest.failpoints import failpoint
from ingest.log.state_page import (
    COPY_SIZE,
    PAGE_HEADER_SIZE,
    ROW_SIZE,
    Marks,
    decode_marks,
    decode_page_header,
    encode_marks,
    encode_page_header,
)

_ROWS_AT_ONCE = 256  # 32 KiB of tmpfs
_NEWEST = struct.Struct("<I4xI")


class StatePage:
    """One tmpfs file, grown but never shortened, replaced or unlinked. Thread: the owner's, under its lock."""

    def __init__(self, path: Path, incarnation: int, mode: int) -> None:
        self.path = path
        self.incarnation = incarnation
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._file = File(path, CREATE, mode)
        self._rows = max(0, self._file.size() - PAGE_HEADER_SIZE) // ROW_SIZE
        if self._rows == 0:
            self._grow()
        else:
            self._map = mmap.mmap(self._file.fd, PAGE_HEADER_SIZE + self._rows * ROW_SIZE)
        found = decode_page_header(self._map)
        self.previous_incarnation = found[1] if found else -1
        self._tags: dict[int, int] = {}
        if found:
            for row in range(self._rows):
                marks = decode_marks(self._map, row)
                if marks is not None:
                    self._tags[marks.tag] = row
        else:
            self._map[PAGE_HEADER_SIZE:] = bytes(len(self._map) - PAGE_HEADER_SIZE)
        self._map[:PAGE_HEADER_SIZE] = encode_page_header(self._rows, incarnation)
        taken = set(self._tags.values())
        self._free = [row for row in range(self._rows - 1, -1, -1) if row not in taken]

    def _grow(self) -> None:
        rows = self._rows + _ROWS_AT_ONCE
        os.posix_fallocate(self._file.fd, 0, PAGE_HEADER_SIZE + rows * ROW_SIZE)  # never SIGBUS on a full tmpfs
        self._map = mmap.mmap(self._file.fd, PAGE_HEADER_SIZE + rows * ROW_SIZE)
        self._rows = rows

    def claim(self, tag: int) -> Row:
        """Return the row of a partition: the one it had under the last owner, or a free one."""
        row = self._tags.get(tag)
        if row is None:
            if not self._free:
                first = self._rows
                self._grow()
                self._map[:PAGE_HEADER_SIZE] = encode_page_header(self._rows, self.incarnation)
                self._free = list(range(self._rows - 1, first - 1, -1))
            row = self._free.pop()
            self._tags[tag] = row
        return Row(self, row, tag)

    def release(self, tag: int) -> None:
        """Say that the partition is gone; readers of its row, if it had one, learn that it moved."""
        row = self._tags.pop(tag, None)
        if row is not None:
            Row(self, row, tag).close()
            self._free.append(row)

    def write(self, position: int, copy: bytes) -> None:
        self._map[position : position + COPY_SIZE] = copy

    def read(self, row: int) -> Marks | None:
        return decode_marks(self._map, row)

    def newest(self, row: int) -> tuple[int, int]:
        """Return (sequence, generation) of the newest copy, whether the row is free or not."""
        position = PAGE_HEADER_SIZE + row * ROW_SIZE
        both = self._map[position : position + ROW_SIZE]
        first, second = (_NEWEST.unpack_from(both, start + 4) for start in (0, COPY_SIZE))
        return first if (first[0] - second[0]) & 0xFFFFFFFF < 0x80000000 else second


class Row:
    """One partition's row. Thread: the owner's.

    Attributes:
        inherited: What the last owner published, None if nothing.
        generation: Raise it when bytes that had been visible were replaced.
    """

    __slots__ = ("_page", "_position", "_sequence", "generation", "index", "inherited", "tag")

    def __init__(self, page: StatePage, index: int, tag: int) -> None:
        self._page = page
        self.index = index
        self.tag = tag
        self._position = PAGE_HEADER_SIZE + index * ROW_SIZE
        self._sequence, newest = page.newest(index)
        inherited = page.read(index)
        self.inherited = inherited if inherited is not None and inherited.tag == tag else None
        # A partition that went and came back may have its old row; to who looked away meanwhile that is another log.
        self.generation = self.inherited.generation if self.inherited else (newest + 1) & 0xFFFFFFFF

    def publish(
        self, leader_epoch: int, log_start: int, high_watermark: int, log_end: int, active_segment: int
    ) -> None:
        """Show new marks. Cost: one CRC of 60 bytes and a store of 64 to the map."""
        failpoint("storage.before_publish")
        self._write(self.tag, leader_epoch, log_start, high_watermark, log_end, active_segment)

    def close(self) -> None:
        self._write(0, 0, 0, 0, 0, 0)

    def _write(self, tag: int, epoch: int, log_start: int, high_watermark: int, log_end: int, active: int) -> None:
        sequence = self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        page = self._page
        copy = encode_marks(
            sequence, epoch, self.generation, tag, page.incarnation, log_start, high_watermark, log_end, active
        )
        page.write(self._position + (sequence & 1) * COPY_SIZE, copy)
        failpoint("storage.page_one_copy")
