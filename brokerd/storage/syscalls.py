"""Linux calls that Python's os module lacks, through ctypes."""

from __future__ import annotations

import ctypes
import ctypes.util
import os

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.syncfs.argtypes = (ctypes.c_int,)


def punch_hole(fd: int, position: int, size: int) -> None:
    """Give the blocks of a range back; it reads as zeros and the file keeps its size.

    Raises:
        OSError: EOPNOTSUPP where the filesystem can't.
    """
    _check(_libc.fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, position, size))


def syncfs(fd: int) -> None:
    """Write back everything of the filesystem `fd` lies on, errors since `fd` was opened included (Linux 5.8)."""
    _check(_libc.syncfs(fd))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
