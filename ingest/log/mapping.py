"""Read-only maps of files that grow. Views over them stay valid after the file is unlinked, for it never shrinks."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from ingest.log.names import LOG, file_name

_LOOK_BYTES = 1 << 16
_LOAD_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class GrowingMap:
    """One mapped file. When it has grown it is mapped anew; views over the older map keep that one alive.

    Attributes:
        view: The bytes mapped so far.
    """

    __slots__ = ("_fd", "path", "view")

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            OSError: there is no such file, or it may not be read.
        """
        self._fd = -1
        self.path = path
        self._fd = os.open(path, _READ)
        self.view = memoryview(b"")
        self.grow()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def grow(self) -> bool:
        """Map what the file has become larger by; tell whether it has."""
        size = os.fstat(self._fd).st_size
        if size <= len(self.view):
            return False
        self.view = memoryview(mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ))
        return True

    def is_current(self) -> bool:
        """Tell whether the file of that name is still the one that is mapped."""
        try:
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self._fd))
        except FileNotFoundError:
            return False


class SegmentMap(GrowingMap):
    """A segment file, by its base offset."""

    __slots__ = ("base_offset",)

    def __init__(self, directory: Path, base_offset: int) -> None:
        super().__init__(directory / file_name(base_offset, LOG))
        self.base_offset = base_offset

    def is_cached(self, position: int, size: int) -> bool:
        """Tell whether a part of the file is in memory, by a byte of every 64 KiB; True where that can't be known."""
        byte = bytearray(1)
        try:
            for at in range(position, min(position + size, len(self.view)), _LOOK_BYTES):
                os.preadv(self._fd, [byte], at, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def load(self, position: int, size: int) -> None:
        """Read a part of the file into memory. Thread: any; without the GIL while the disk works."""
        end = min(position + size, len(self.view))
        while position < end:
            position += len(os.pread(self._fd, min(_LOAD_BYTES, end - position), position)) or _LOAD_BYTES


class PageMap(GrowingMap):
    """The state page of a broker; it grows by rows."""

    __slots__ = ()
