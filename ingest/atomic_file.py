"""A small file that is replaced in one step: a reader sees the old bytes or the new ones, also after a power cut."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(path: Path, data: Buffer, *, mode: int | None = None, durable: bool = True) -> None:
    """Put `data` in place of a file, which need not be there. Thread: one a process and file; processes do not collide.

    Args:
        mode: Of the new file, whatever the umask. Without one it is 0644, and the umask takes from it.
        durable: False for a hint, or for what dies with the machine anyway: no fsync.
    Raises:
        OSError: the old file is as it was, unless the fsync of the directory failed.
    Cost: with `durable` an fsync of the file and one of its directory.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # of a process that was killed and had our number
    try:
        fd = os.open(temporary, _NEW, 0o644 if mode is None else mode)
        with open(fd, "wb") as file:
            if mode is not None:
                os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
