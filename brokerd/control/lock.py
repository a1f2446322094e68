"""The election on one machine: who holds the flock on <data-dir>/controller/lock is the controller.

The kernel frees the lock when the holder's last descriptor goes, however it dies. The file is never unlinked, else two
could hold "the" lock; the descriptor is O_CLOEXEC and no process is forked while it is open, for a child would hold it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from ingest.errors import StorageError

BEAT_MS = 500
IN_ZOOKEEPER = " in zookeeper "  # in the note of a machine of several, whose records are not here


class ControllerLock:
    """The lock file, waited for in a helper thread, since nothing can interrupt flock(). Thread: the controller's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def acquire(self, stop_fd: int, beat: Callable[[], None]) -> bool:
        """Wait for the lock; return False if `stop_fd` became readable first.

        Raises:
            StorageError: the file can't be opened or locked.
        """
        assert not self.held, "acquired twice"
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                os.close(fd)
                raise StorageError(f"{self._path}: can't lock: {error.strerror}", path=self._path) from None
            if not _Wait(fd).run(stop_fd, beat):
                return False
        self._fd = fd
        on_disk = os.stat(self._path)
        ours = os.fstat(fd)
        if (on_disk.st_dev, on_disk.st_ino) != (ours.st_dev, ours.st_ino):
            self.release()
            raise StorageError(f"{self._path} was replaced while it was waited for; start again", path=self._path)
        return True

    def note(self, text: str) -> None:
        """Leave a line in the file for people: who holds it. A full disk loses the line and nothing else."""
        try:
            os.pwrite(self._fd, text.encode().ljust(128)[:128] + b"\n", 0)
        except OSError:
            pass

    def noted(self) -> str:
        """Return what the last controller that worked in this directory left; "" if none ever did."""
        return os.pread(self._fd, 256, 0).decode(errors="replace").strip()

    def release(self) -> None:
        """Let the next candidate have it. Does nothing if it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}", path=self._path) from None


class _Wait:
    """One thread that blocks in flock(); it owns the descriptor until it hands it over."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._won_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._mutex = threading.Lock()
        self._abandoned = False
        self._won = False
        self._error: OSError | None = None

    def run(self, stop_fd: int, beat: Callable[[], None]) -> bool:
        # a daemon: a standby that is told to stop leaves this thread behind in flock()
        threading.Thread(target=self._block, name="controller-lock", daemon=True).start()
        poller = select.poll()
        poller.register(stop_fd, select.POLLIN)
        poller.register(self._won_fd, select.POLLIN)
        while True:
            beat()
            ready = [fd for fd, _ in poller.poll(BEAT_MS)]
            if stop_fd in ready:
                with self._mutex:
                    self._abandoned = True
                    if self._won:
                        self._close()
                return False
            if self._won_fd in ready:
                os.close(self._won_fd)
                if self._error is not None:
                    os.close(self._fd)
                    raise StorageError(f"waiting for the controller's lock: {self._error.strerror}")
                return True

    def _block(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        with self._mutex:
            self._won = True
            if self._abandoned:
                self._close()
            else:
                os.eventfd_write(self._won_fd, 1)

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._won_fd)
