"""One log directory's disk: its space, its reserve, its running time, and whether it has failed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from brokerd.storage.files import CREATE, READ, File, pwrite_all
from ingest.atomic_file import fsync_directory, replace_file
from ingest.errors import DiskFull, LogDirOffline, StorageError
from ingest.failpoints import failpoint
from ingest.limits import KIB, MIB

if TYPE_CHECKING:
    from typing_extensions import Buffer

EXTENT_BYTES_MIN = 64 * KIB
EXTENT_BYTES_MAX = 16 * MIB
RESERVE_BYTES = 8 * MIB  # half of it is room for some thousand index, snapshot and checkpoint writes
_SMALL_FILES_BYTES = 256 * KIB  # so much of it is given up at once for them
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})  # says nothing about the disk


class Space(NamedTuple):
    """The size of a file system, and what of it can be used."""

    total_bytes: int
    usable_bytes: int


class RunningTime:
    """How long this machine has run since the directory was made, ms: no step of the wall clock changes it.

    Ages for retention and rolling count in it. While the machine is off it stands still, so data is
    kept longer, never shorter.
    """

    __slots__ = ("_boot_ms", "age_ms")

    def __init__(self) -> None:
        self.age_ms = 0
        self._boot_ms: int | None = None

    def restore(self, age_ms: int, boot_ms: int | None) -> None:
        """Go on from a stored age; `boot_ms` is what the boot clock showed then, None after a reboot."""
        self.age_ms = max(self.age_ms, age_ms)
        self._boot_ms = boot_ms

    def tick(self, boot_ms: int) -> None:
        """Count on to the boot clock's `boot_ms`."""
        if self._boot_ms is not None and boot_ms > self._boot_ms:
            self.age_ms += boot_ms - self._boot_ms
        self._boot_ms = boot_ms


class Disk:
    """What all logs of a directory share. Thread: the owner's, but for `fail`, which any thread may call.

    Attributes:
        failed_marks: Where `fail` leaves a mark, the one that outlives a power cut last.
        beat: Called during what may take long, so that the owner can show that it makes progress.
        failed: Why the directory failed; empty while it works.
        full: Whether the last wish for space was refused.
    """

    def __init__(
        self, path: Path, failed_marks: Sequence[Path], *, directory_mode: int, file_mode: int, reserve_bytes: int
    ) -> None:
        self.path = path
        self.beat: Callable[[], None] = lambda: None
        self.failed_marks = failed_marks
        self.directory_mode = directory_mode
        self.file_mode = file_mode
        self.failed = ""
        self.full = False
        self.time = RunningTime()
        self._reserve_bytes = reserve_bytes
        self._reserved_bytes = 0
        self._failing = threading.Lock()
        self._background: list[threading.Thread] = []
        # Held open from the start: syncfs tells the errors since then.
        self.directory_file = File(path, READ | os.O_DIRECTORY)

    def check_online(self) -> None:
        """Raise LogDirOffline once the directory has failed."""
        if self.failed:
            raise LogDirOffline(f"{self.path} failed: {self.failed}", path=self.path)

    def fail(self, error: OSError, what: str) -> LogDirOffline:
        """Mark the directory as failed, outside of it, and return the error to raise.

        The next open then trusts only what the device returns. Any errno counts, ENOSPC of fdatasync
        too: a real I/O error may show itself as that first. One mark is left in memory beside the state page, for the
        page cache that deceives lives as long; the durable one is often on the very device that refuses.
        """
        with self._failing:
            reason = f"{what}: {error}"
            if not self.failed:
                self.failed = reason
                refused = [second for mark in self.failed_marks if (second := self._leave(mark, reason)) is not None]
                if refused:  # whatever is missing there, this process refuses all writes until it ends
                    self.failed = f"{reason}; and a mark could not be left: {'; '.join(map(str, refused))}"
        return LogDirOffline(f"{self.path} failed: {self.failed}", path=self.path)

    def _leave(self, mark: Path, reason: str) -> OSError | None:
        """Write a mark; return why it could not be written."""
        try:
            mark.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            replace_file(mark, reason.encode(), mode=self.file_mode)
        except OSError as error:
            return error
        return None

    def failed_before(self) -> str:
        """Return why an earlier owner called the directory failed, empty if none did."""
        for mark in self.failed_marks:
            try:
                if mark.exists():
                    return mark.read_text(errors="replace") or "no reason was noted"
            except OSError as error:
                return f"the mark can't be read: {error}"
        return ""

    def take_marks_away(self) -> None:
        """Let the directory count as sound again, durably; the mark in memory goes last."""
        for mark in reversed(self.failed_marks):
            if mark.exists():
                mark.unlink()
                fsync_directory(mark.parent)

    # ---- space

    @staticmethod
    def is_full(error: OSError) -> bool:
        """Whether a refused allocation or buffered write means that there is no room."""
        return error.errno in _FULL

    @property
    def _reserve_path(self) -> Path:
        return self.path / "reserve"

    def take_reserve(self) -> bool:
        """Hold the reserve file at its full size; False if there is no room for that: it stays as large as it is."""
        if self._reserved_bytes == self._reserve_bytes:
            return True
        file = None
        try:
            file = File(self._reserve_path, CREATE, self.file_mode)
            self._reserved_bytes = file.size()
            os.posix_fallocate(file.fd, 0, self._reserve_bytes)
        except OSError as error:
            if error.errno not in _FULL | NO_DESCRIPTORS:
                raise self.fail(error, "allocating the reserve") from error
            if file is not None:
                os.ftruncate(file.fd, self._reserved_bytes)
            return False
        self._reserved_bytes = self._reserve_bytes
        return True

    def look_for_room(self) -> None:
        """Take the reserve back if some was spent, and notice that the disk is no longer full."""
        if self.take_reserve() and self.full:
            self.full = self.space().usable_bytes < EXTENT_BYTES_MAX

    def space(self) -> Space:
        """Look at the file system. Cost: one call, without I/O."""
        found = os.statvfs(self.path)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def _spend_reserve(self, size_bytes: int) -> bool:
        """Give up so much of the reserve, or what is left of it; False: nothing is."""
        if not self._reserved_bytes:
            return False
        file = File(self._reserve_path, CREATE, self.file_mode)
        self._reserved_bytes = max(0, self._reserved_bytes - size_bytes)
        os.ftruncate(file.fd, self._reserved_bytes)
        return True

    def refused(self, error: OSError, what: str) -> StorageError:
        """Return the error to raise when the system refuses to create a file: no room, or the directory failed."""
        if error.errno in _FULL:
            self.full = True
            return DiskFull(f"{what}: the disk is full", path=self.path)
        if error.errno in NO_DESCRIPTORS:
            return StorageError(f"{what}: no file descriptors left; raise the limit (ulimit -n)", path=self.path)
        return self.fail(error, what)

    def extend(self, file: File, allocated: int, needed: int, limit: int, *, uses_reserve: bool = False) -> int:
        """Allocate space for a segment up to at least `needed` bytes and return what is allocated now.

        Extents start at 64 KiB and double to 16 MiB; beyond `limit`, the segment's full size, none is taken ahead.

        Args:
            uses_reserve: Without room take the least that will do, from half of the reserve.
        Raises:
            DiskFull: nothing was written; the log goes on once there is room.
            LogDirOffline: any other errno.
        """
        self.check_online()
        extent = min(max(allocated, EXTENT_BYTES_MIN), EXTENT_BYTES_MAX)
        least = -(-needed // EXTENT_BYTES_MIN) * EXTENT_BYTES_MIN
        if self.take_reserve():
            for target in (max(least, min(allocated + extent, limit)), least):
                if self._allocate(file, allocated, target):
                    self.full = False
                    return target
        self.full = True
        # What is free beside the reserve is for small files: whoever takes from the reserve takes from that alone.
        size = least - allocated
        while uses_reserve and self._reserved_bytes - size >= self._reserve_bytes // 2 and self._spend_reserve(size):
            if self._allocate(file, allocated, least):
                return least
        raise DiskFull(f"{self.path}: the disk is full", path=self.path)

    def _allocate(self, file: File, start: int, end: int) -> bool:
        """Allocate a range of a segment; False: there is no room."""
        try:
            os.posix_fallocate(file.fd, start, end - start)
        except OSError as error:
            if error.errno not in _FULL:
                raise self.fail(error, f"allocating {file.path}") from error
            return False
        return True

    # ---- removal: freeing 1 GiB takes 0.2 s on ext4, in which the owner's thread would serve nobody

    def unlink(self, path: Path) -> None:
        """Remove a file's name now, and free its space in the background."""
        try:
            file = File(path, READ)
        except OSError:
            path.unlink(missing_ok=True)
            return
        path.unlink(missing_ok=True)
        holder = [file]
        del file
        self.in_background(holder.clear)

    def drop(self, path: Path) -> None:
        """Remove a small file that nothing needs any more; without room or descriptors it stays until the next time."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in _FULL | NO_DESCRIPTORS:
                raise self.fail(error, f"deleting {path}") from error

    def in_background(self, act: Callable[[], object]) -> None:
        """Run something slow that nobody waits for in a thread of its own."""
        self._background = [thread for thread in self._background if thread.is_alive()]
        thread = threading.Thread(target=act, name="reaper", daemon=True)
        self._background.append(thread)
        thread.start()

    def join_background(self) -> None:
        """Wait for what runs in the background."""
        for thread in self._background:
            thread.join()

    def sync_names(self, directory: Path) -> None:
        """Make the names in a directory durable, removals included."""
        try:
            fsync_directory(directory)
        except OSError as error:
            raise self.fail(error, f"flushing {directory}") from error

    # ---- small files: they may eat into the reserve

    def append_hint(self, path: Path, data: Buffer, position: int) -> None:
        """Write `data` into a file of hints at `position`, making the file if needed."""
        while True:
            try:
                file = File(path, CREATE, self.file_mode)
                pwrite_all(file.fd, data, position)
            except OSError as error:
                if error.errno in _FULL and self._spend_reserve(_SMALL_FILES_BYTES):
                    continue
                if error.errno not in _FULL | NO_DESCRIPTORS:
                    raise self.fail(error, f"writing {path}") from error
            return

    def replace(self, path: Path, data: Buffer, *, durable: bool = False) -> bool:
        """Put `data` in place of a small file; False if there is no room, the reserve included, or no descriptor."""
        while True:
            try:
                failpoint("storage.before_replace")
                replace_file(path, data, mode=self.file_mode, durable=durable)
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    return False
                if error.errno not in _FULL:
                    raise self.fail(error, f"writing {path}") from error
                if not self._spend_reserve(_SMALL_FILES_BYTES):
                    return False
            else:
                return True

    def mark(self, path: Path) -> None:
        """Make an empty file durable: its name is what it says."""
        try:
            File(path, CREATE, self.file_mode)
            fsync_directory(path.parent)
        except OSError as error:
            if error.errno not in _FULL or not self._spend_reserve(_SMALL_FILES_BYTES):
                raise self.refused(error, f"creating {path}") from error
            self.mark(path)
