"""Reopen a directory that failed: serve only what is on the device, on other blocks.

After an error of fdatasync the kernel calls the pages clean, and a new process reads from the cache what the disk never
got; its own fdatasync then succeeds. What the checkpoint vouches for was flushed before the failure and
stays where it is. The segments that reach above it are copied to new files and those are flushed: this is what makes
the result sound, for whatever a read returned, the device has it then.

Before that the cache is dropped, so that a read shows what the device holds and not what was meant for it. That is no
guarantee: FADV_DONTNEED leaves pages that are mapped, as by a local reader, and pages under write-back. Such a page may
be copied from the cache. Its batch was never acknowledged; if it is whole it is in the log from now on, as after a
kill. Whoever maps the old file keeps its pages and sees nothing of the new one until it opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from brokerd.storage.checkpoint import UNPROVEN, Checkpoint
from brokerd.storage.disk import Disk
from brokerd.storage.files import CREATE, READ, READ_WRITE, File, pwrite_all
from ingest.atomic_file import fsync_directory
from ingest.errors import LogDirOffline
from ingest.limits import KIB, MIB
from ingest.log.names import INDEX, LOG, SNAPSHOT, TIME_INDEX, file_name, parse_file_name, parse_partition_name

_BLOCK_BYTES = 4 * KIB


def salvage(disk: Disk) -> None:
    """Make a failed directory usable again, and take its marks away.

    Raises:
        LogDirOffline: the device still fails; a mark stays.
    Cost: reads and writes every segment that reaches above its recovery point.
    """
    reason = disk.failed_before()
    try:
        for path in sorted(disk.path.rglob("*")):
            if path.is_file() and not path.is_symlink():
                _drop_cache(path)
                disk.beat()
        checkpoint = Checkpoint(disk)
        for entry in sorted(disk.path.iterdir()):
            key = parse_partition_name(entry.name)
            if key is not None:
                record = checkpoint.partitions.get(key)
                _salvage_partition(disk, entry, record.recovery_segment if record else 0)
        fsync_directory(disk.path)
        if checkpoint.last is not None:  # without the marks nothing else would tell that something may be lost
            checkpoint.write([msgspec.structs.replace(checkpoint.last, partition=UNPROVEN)])
        disk.take_marks_away()
    except OSError as error:
        raise LogDirOffline(
            f"{disk.path} failed ({reason}) and still does: {error}; replace the disk", path=disk.path
        ) from error


def _drop_cache(path: Path) -> None:
    """Make the next reads of a file come from the device, save for pages that somebody maps."""
    file = File(path, READ_WRITE)
    try:
        os.fdatasync(file.fd)  # pages still dirty can't be dropped
    except OSError:
        pass  # now they are clean, over whatever the device holds
    os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _salvage_partition(disk: Disk, path: Path, recovery_segment: int) -> None:
    """Copy the segments at or above the recovery point to new files; recovery then judges what they hold."""
    names = [parse_file_name(entry.name) for entry in path.iterdir()]
    bases = sorted(name[0] for name in names if name is not None and name[1] == LOG)
    for base in [base for base in bases if base >= recovery_segment]:
        copy_readable(File(path / file_name(base, LOG), READ), disk.file_mode, disk.beat)
        for suffix in (INDEX, TIME_INDEX):
            (path / file_name(base, suffix)).unlink(missing_ok=True)
    for offset in [name[0] for name in names if name is not None and name[1] == SNAPSHOT]:
        if offset > recovery_segment:
            (path / file_name(offset, SNAPSHOT)).unlink(missing_ok=True)
    fsync_directory(path)


def copy_readable(file: File, mode: int, beat: Callable[[], None] = lambda: None) -> None:
    """Put a copy of what the device returns of a file in its place, on new blocks; what it refuses becomes zeros."""
    copy = File(file.path.with_name(file.path.name + ".tmp"), CREATE | os.O_TRUNC, mode)
    for position in range(0, file.size(), MIB):
        beat()
        data = _read(file.fd, position, MIB).rstrip(b"\0")
        if data:
            pwrite_all(copy.fd, data, position)
    os.ftruncate(copy.fd, file.size())  # a batch may end in zeros: they are part of it
    os.fsync(copy.fd)
    os.rename(copy.path, file.path)


def _read(fd: int, position: int, size: int) -> bytes:
    try:
        return os.pread(fd, size, position)
    except OSError:
        if size <= _BLOCK_BYTES:
            return bytes(size)
        half = size // 2
        return _read(fd, position, half) + _read(fd, position + half, half)
