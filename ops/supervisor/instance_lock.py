"""One appliance a data directory: an flock that the supervisor holds for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from ingest.errors import DirectoryLocked
from ingest.machine import machine_id, start_ticks

NAME = "supervisor.lock"
_TRIES = 25
_TRY_SECONDS = 0.02


class Owner(msgspec.Struct, frozen=True):
    """Who holds the lock, or held it last."""

    pid: int
    start_ticks: int
    boot_id: str

    def lives(self) -> bool:
        """Whether that very process still runs. A hint: holding the lock is the proof."""
        return self.boot_id == machine_id() and start_ticks(self.pid) == self.start_ticks


class InstanceLock:
    """The lock file. It is never unlinked, else two could hold "the" lock; its descriptor passes to no child."""

    def __init__(self, data_dir: Path) -> None:
        """Take it.

        Raises:
            DirectoryLocked: an appliance runs on this directory.
            OSError: the file can't be opened.
        """
        path = data_dir / NAME
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        if not self._take(data_dir):
            os.close(self._fd)
            owner = read_owner(data_dir)
            who = f" (supervisor {owner.pid})" if owner else ""
            raise DirectoryLocked(
                f"an appliance already runs on {data_dir}{who}; see `forebay status --data-dir {data_dir}`, "
                f"end it with `forebay down --data-dir {data_dir}`, or choose another --data-dir",
                path=data_dir,
            )
        ticks = start_ticks(os.getpid())
        assert ticks is not None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(Owner(os.getpid(), ticks, machine_id())) + b"\n", 0)

    def _take(self, data_dir: Path) -> bool:
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                owner = read_owner(data_dir)
                if owner is not None and owner.lives():
                    return False
            time.sleep(_TRY_SECONDS)  # it is dying, or somebody only looks: see is_locked
        return False

    def release(self) -> None:
        os.close(self._fd)


def read_owner(data_dir: Path) -> Owner | None:
    """Return who holds the lock or held it last; None if nobody ever did or the file can't be read."""
    try:
        return msgspec.json.decode((data_dir / NAME).read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def is_locked(data_dir: Path) -> bool:
    """Whether a supervisor runs on this directory."""
    try:
        fd = os.open(data_dir / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
