"""Group commit: one thread that makes durable what the owner's thread wrote."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from brokerd.storage.disk import NO_DESCRIPTORS, Disk
from brokerd.storage.files import File
from brokerd.storage.log import FlushTarget, Log
from brokerd.storage.syscalls import syncfs
from ingest.atomic_file import fsync_directory
from ingest.errors import LogDirOffline
from ingest.failpoints import failpoint
from ingest.latency import LatencyRecorder

_SYNCFS_FILES_MIN = 16  # from so many dirty files on one syncfs is cheaper than an fdatasync each


class Flusher:
    """Flush logs in the background, all that were asked for while the last flush ran in one go.

    The target is captured when the owner asks, never after the flush. A log's older files and the
    names of new ones are made durable with it. Any error fails the directory for good.

    Attributes:
        latency: Seconds per group commit.
    """

    def __init__(self, on_done: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            on_done: Called in the flusher's thread after each group commit; it wakes the owner, who calls `drain`.
        """
        self._on_done = on_done
        self._wanted: dict[int, FlushTarget] = {}
        self._done: list[tuple[Log, int | BaseException]] = []
        self._condition = threading.Condition(threading.Lock())
        self._closing = False
        self._busy = False
        self.latency = LatencyRecorder()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
        self._thread.start()

    def request(self, log: Log) -> None:
        """Flush everything `log` holds now. Thread: the log's owner."""
        target = log.flush_target()
        with self._condition:
            replaced = self._wanted.get(id(log))
            self._wanted[id(log)] = target
            if not self._busy:
                self._condition.notify()
        if replaced is not None:
            log.flush_dropped()

    def drain(self) -> list[tuple[Log, int | BaseException]]:
        """Return what is done, (log, end offset) or (log, why it failed). The owner applies `log.flushed`."""
        with self._condition:
            done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Finish what was asked for and end the thread; `drain` still gives what is done."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                while not self._wanted:
                    if self._closing:
                        return
                    self._condition.wait()
                self._busy = True
                targets, self._wanted = list(self._wanted.values()), {}
            started = time.monotonic_ns()
            done = flush(targets)
            self.latency.observe((time.monotonic_ns() - started) / 1e9)
            with self._condition:
                self._done += done
            self._on_done()


def flush(targets: list[FlushTarget]) -> list[tuple[Log, int | BaseException]]:
    """Make targets durable: files first, then the names of new ones. Thread: any; it touches no log."""
    by_disk: dict[int, tuple[Disk, list[FlushTarget]]] = {}
    for target in targets:
        by_disk.setdefault(id(target.disk), (target.disk, []))[1].append(target)
    done: list[tuple[Log, int | BaseException]] = []
    for disk, group in by_disk.values():
        try:
            disk.check_online()
            failpoint("storage.before_sync")
            _sync(disk, group)
            failpoint("storage.after_sync")
        except OSError as error:
            failure = disk.fail(error, "flushing")
            done += [(target.log, failure) for target in group]
        except LogDirOffline as error:
            done += [(target.log, error) for target in group]
        else:
            done += [(target.log, target.end_offset) for target in group]
    return done


def _sync(disk: Disk, targets: list[FlushTarget]) -> None:
    files: dict[int, File] = {id(file): file for target in targets for file in target.files}
    if len(files) >= _SYNCFS_FILES_MIN:
        syncfs(disk.directory_file.fd)
        return
    for file in files.values():
        os.fdatasync(file.fd)
    for directory in dict.fromkeys(directory for target in targets for directory in target.directories):
        try:
            fsync_directory(directory)
        except FileNotFoundError:
            if not all(target.log.closed for target in targets if directory in target.directories):
                raise
            # its partition was deleted meanwhile, and put aside under another name: nobody waits for it
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS:
                raise
            syncfs(disk.directory_file.fd)  # takes none, and more than what is wanted is not less
