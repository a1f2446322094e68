"""Put a segment that compaction wrote in the place of several, so that a crash at any moment leaves the old or the new.

    1 mark     `<start>-<end>-<run>.swap`, empty, and its name on the disk: from here on recovery finishes it
    2 replace  `<start>-<run>.log.cleaned` is renamed to `<start>.log`, its indexes likewise, and the other segments
               below <end> are unlinked; readers find every offset at every moment
    3 done     the names are on the disk, the mark goes

Recovery that finds the mark does 2 again: what is renamed already stays, and of the others those go that the new
segment covers, so that even a mark that should have gone harms nothing. The waits for the disk are a thread's; whoever
changes segments meanwhile settles the swap first.

Source: docs/format/compaction.md.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from brokerd.storage.disk import Disk
from brokerd.storage.files import CREATE, READ, File
from brokerd.storage.segment import Segment
from brokerd.storage.walk import walk_headers
from ingest.atomic_file import fsync_directory
from ingest.errors import CorruptBatch
from ingest.failpoints import failpoint
from ingest.log.names import (
    INDEX,
    LOG,
    TIME_INDEX,
    cleaned_name,
    file_name,
    parse_file_name,
    parse_swap_name,
    swap_name,
)

_SUFFIXES = (LOG, INDEX, TIME_INDEX)  # the data first: an index that leads nowhere in it is a hint that is not used


class Swap:
    """One swap. Thread: the owner's; `step` does not wait for the disk, `settle` does.

    Attributes:
        start, end: The offsets of the segments that go.
        replaced: The new segment is in place.
        over: Nothing is left to be done; if not `replaced`, it was given up.
    """

    def __init__(self, disk: Disk, directory: Path, start: int, end: int, run: str) -> None:
        """Mark it.

        Raises:
            DiskFull, StorageError: it was not marked.
        """
        self._disk = disk
        self._directory = directory
        self.start, self.end = start, end
        self._run = run
        self.replaced = self.over = False
        self._mark = directory / swap_name(start, end, run)
        try:
            File(self._mark, CREATE, disk.file_mode)
        except OSError as error:
            raise disk.refused(error, f"creating {self._mark}") from error
        self._synced = threading.Event()
        self._sync()

    def _sync(self) -> None:
        self._synced.clear()
        self._disk.in_background(self._sync_names)

    def _sync_names(self) -> None:
        try:
            fsync_directory(self._directory)
        except FileNotFoundError:
            pass  # the partition was deleted meanwhile
        except OSError as error:
            self._disk.fail(error, f"flushing {self._directory}")
        finally:
            self._synced.set()

    @property
    def due(self) -> bool:
        """Whether the mark is on the disk and the new segment may take its place."""
        return self._synced.is_set() and not self.replaced and not self.over

    def replace(self, gone: Sequence[Segment]) -> None:
        """Put the new segment in place of these.

        Raises:
            LogDirOffline: the directory failed.
        """
        assert self.due
        self._disk.check_online()
        failpoint("compaction.marked")
        assert gone[0].base_offset == self.start
        try:
            holder: list[File] = []
            with contextlib.suppress(OSError):  # no descriptor left: its space is freed here and now
                holder.append(File(gone[0].path, READ))
            _adopt(self._directory, self.start, self._run)
            self._disk.in_background(holder.clear)
            failpoint("compaction.replaced")
            for segment in gone[1:]:
                segment.unlink()
                failpoint("compaction.unlinked")
        except OSError as error:
            raise self._disk.fail(error, f"replacing segments in {self._directory}") from error
        self.replaced = True
        self._sync()

    def step(self) -> None:
        """Remove the mark once the new names are on the disk."""
        if self.replaced and self._synced.is_set() and not self.over:
            self._disk.check_online()
            self._disk.drop(self._mark)
            self.over = True

    def settle(self) -> None:
        """Finish it if the new segment is in place, else give it up: nothing of it may come back.

        Raises:
            LogDirOffline: the directory failed.
        Cost: up to two fsyncs of the directory.
        """
        if self.over:
            return
        self._synced.wait()
        self._disk.check_online()
        self._disk.drop(self._mark)
        if not self.replaced:
            discard(self._directory, self._run)
            self._disk.sync_names(self._directory)  # the mark would have recovery finish it
        self.over = True


def _adopt(directory: Path, start: int, run: str) -> bool:
    """Rename what a run wrote to what it is to be; tell whether all of it was there."""
    whole = True
    for suffix in _SUFFIXES:
        try:
            os.rename(directory / cleaned_name(start, run, suffix), directory / file_name(start, suffix))
        except FileNotFoundError:
            whole = False
    return whole


def discard(directory: Path, run: str) -> None:
    """Remove what a run wrote and nobody wants."""
    with contextlib.suppress(FileNotFoundError):
        for path in directory.glob(f"*-{run}.*.cleaned"):
            path.unlink(missing_ok=True)


def finish_swaps(directory: Path) -> None:
    """Finish the swaps that a dead owner had marked. An index that is in doubt is removed, to be made anew.

    Raises:
        OSError: the system refused.
    Cost: none without marks; else the headers of the new segments.
    """
    names = os.listdir(directory)
    marks = [(found, name) for name in names if (found := parse_swap_name(name)) is not None]
    if not marks:
        return
    for (start, end, run), _ in marks:
        if not _adopt(directory, start, run):
            for suffix in (INDEX, TIME_INDEX):
                (directory / file_name(start, suffix)).unlink(missing_ok=True)
        failpoint("compaction.replaced")
        covered = _end_of(directory / file_name(start, LOG), start)
        for parsed in map(parse_file_name, names):
            if parsed is not None and parsed[1] == LOG and start < parsed[0] < min(end, covered):
                for suffix in _SUFFIXES:
                    (directory / file_name(parsed[0], suffix)).unlink(missing_ok=True)
    fsync_directory(directory)
    for _, name in marks:
        (directory / name).unlink()


def _end_of(path: Path, start: int) -> int:
    """Return where the batches of a segment end, as far as they are good."""
    try:
        file = File(path, READ)
    except FileNotFoundError:
        return start
    end = start
    with contextlib.suppress(CorruptBatch):
        for _, header in walk_headers(file.fd, 0, file.size(), start):
            end = header.next_offset
    return end
