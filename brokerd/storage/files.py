"""Open files: held while anything refers to them, written in full, copied to new blocks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.atomic_file import fsync_directory
from ingest.failpoints import failpoint

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | _SAFE
READ_WRITE = os.O_RDWR | _SAFE
CREATE = os.O_RDWR | os.O_CREAT | _SAFE
CREATE_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE


class File:
    """A descriptor that is closed when nobody refers to it any more.

    The log and a flush under way refer to the same file: it must not be closed under fdatasync, nor while it holds
    unflushed writes, since an error of write-back is told to the open file that wrote.
    """

    __slots__ = ("fd", "path")

    def __init__(self, path: Path, flags: int, mode: int = 0o640) -> None:
        self.fd = -1
        self.path = path
        self.fd = os.open(path, flags, mode)
        if flags & os.O_CREAT:
            os.fchmod(self.fd, mode)  # whatever the umask

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def size(self) -> int:
        return os.fstat(self.fd).st_size


def pwrite_all(fd: int, data: Buffer, position: int) -> None:
    """Write all of `data`, in several calls if the kernel wants that."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, position)
        view = view[written:]
        position += written


def read_file(path: Path, size_max: int) -> bytes | None:
    """Return a small file's bytes, None if there is none or it is larger than `size_max`."""
    try:
        file = File(path, READ)
    except FileNotFoundError:
        return None
    size = file.size()
    return os.pread(file.fd, size, 0) if size <= size_max else None


def copy_prefix(file: File, size: int, mode: int) -> File:
    """Put a durable copy of a file's first `size` bytes, on new blocks, in its place and return it."""
    temporary = file.path.with_name(file.path.name + ".tmp")
    copy = File(temporary, CREATE | os.O_TRUNC, mode)
    position = 0
    while position < size:
        data = os.pread(file.fd, min(1 << 20, size - position), position)
        if not data:
            raise OSError(f"{file.path} ends at {position}, {size} bytes were due")
        pwrite_all(copy.fd, data, position)
        position += len(data)
    os.fsync(copy.fd)
    failpoint("storage.before_replace")
    os.rename(temporary, file.path)
    fsync_directory(file.path.parent)
    copy.path = file.path
    return copy
