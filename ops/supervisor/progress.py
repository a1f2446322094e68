"""The progress page: one counter a process, in a file on tmpfs, so that a beat is a store and a look is a load."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

NAME = "progress"
SLOTS = 256
_SLOT_BYTES = 64  # a cache line each: processes do not slow one another's stores
_WORDS = _SLOT_BYTES // 8


class ProgressPage:
    """The mapped page. It is never unlinked or replaced while a process of the appliance lives."""

    def __init__(self, path: Path) -> None:
        """Open it; create it if it is not there.

        Raises:
            OSError: it can't be made or mapped.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, SLOTS * _SLOT_BYTES)  # a full tmpfs is an errno now, not a SIGBUS later
            self._map = mmap.mmap(fd, SLOTS * _SLOT_BYTES)
        finally:
            os.close(fd)
        self._words = memoryview(self._map).cast("Q")

    def beats(self, slot: int) -> int:
        """Return how often the process of this slot has said that it makes progress."""
        return self._words[slot * _WORDS]

    def counter(self, slot: int) -> memoryview:
        """Return the one word that the process of this slot counts up."""
        assert 0 <= slot < SLOTS
        return self._words[slot * _WORDS : slot * _WORDS + 1]
