"""The lock that makes a process the owner of a directory; holding it is the only proof that the last owner is dead."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from brokerd.storage.files import CREATE, File
from ingest.errors import DirectoryLocked
from ingest.machine import start_ticks


class DirectoryLock:
    """An flock on `lock`, which is never unlinked, mapped or handed on."""

    def __init__(self, directory: Path, mode: int) -> None:
        """Take the lock.

        Raises:
            DirectoryLocked: another process holds it; the message says which.
        """
        self._file = File(directory / "lock", CREATE, mode)
        try:
            fcntl.flock(self._file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._file.fd, 100, 0).decode(errors="replace").strip()
            raise DirectoryLocked(
                f"{directory} is in use by another process ({owner or 'unknown'}); stop it, or use another directory",
                path=directory,
            ) from None
        os.ftruncate(self._file.fd, 0)
        os.pwrite(self._file.fd, f"pid {os.getpid()} started {start_ticks(os.getpid())}\n".encode(), 0)

    def release(self) -> None:
        """Let the next owner in."""
        fcntl.flock(self._file.fd, fcntl.LOCK_UN)
