"""One log's compaction at its broker: what of it is dirty, what a run may do, and how what it wrote comes in place."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

from brokerd.storage.compaction.cleaned import CLEANED_BYTES_MAX, Cleaned, decode_cleaned, encode_cleaned
from brokerd.storage.compaction.job import Cleaned as CleanedSegment
from brokerd.storage.compaction.job import Done, Job
from brokerd.storage.compaction.swap import Swap, discard
from brokerd.storage.config import LogConfig
from brokerd.storage.disk import Disk
from brokerd.storage.errors import Uncleanable
from brokerd.storage.files import read_file
from brokerd.storage.log_reader import LogReader
from brokerd.storage.segment import Segment
from brokerd.storage.segments import Segments
from brokerd.storage.snapshots import Snapshots
from ingest.errors import StorageError
from ingest.log.names import COMPACTION, LOG, cleaned_name


class Dirt(NamedTuple):
    """What could be gained by a run now.

    Attributes:
        dirty_offset: Where what is dirty begins.
        end_offset: Where the last segment ends that may be rewritten.
        dirty_bytes, clean_bytes: Stored there, and below.
        oldest_ms: How long ago, in running time, the oldest of it was appended, at most; -1: nothing is dirty.
    """

    dirty_offset: int
    end_offset: int
    dirty_bytes: int
    clean_bytes: int
    oldest_ms: int

    @property
    def ratio(self) -> float:
        """What part of the sealed segments is dirty."""
        return self.dirty_bytes / max(1, self.dirty_bytes + self.clean_bytes)


class LogCompaction:
    """Thread: the log's owner's.

    Attributes:
        cleaned: What is clean.
        run: Which run's segments are taken; empty: none is under way.
    """

    def __init__(
        self, disk: Disk, directory: Path, segments: Segments, snapshots: Snapshots, reader: LogReader
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self._snapshots = snapshots
        self._reader = reader
        self.run = ""
        self._written: deque[CleanedSegment] = deque()
        self._swap: Swap | None = None
        self._done: Done | None = None
        self._failed = ""
        data = read_file(self._path, CLEANED_BYTES_MAX)
        cleaned = decode_cleaned(data) if data is not None else None
        # a log that ends lower has lost what was clean; what is appended there is not
        intact = cleaned is not None and cleaned.end_offset <= segments.end_offset
        self.cleaned = cleaned if cleaned is not None and intact else Cleaned()

    @property
    def _path(self) -> Path:
        return self._directory / COMPACTION

    # ---- what there is to do

    def dirt(self, config: LogConfig, *, log_start: int, end_max: int) -> Dirt:
        """Measure what is dirty.

        Args:
            end_max: Only what lies below counts: below the high watermark, and in segments that recovery does not read.
        Cost: one stat per sealed segment.
        """
        age_ms = self._disk.time.age_ms
        dirty_offset = max(self.cleaned.end_offset, log_start)
        clean_bytes = dirty_bytes = 0
        bases = self._segments.bases
        oldest_ms, end_offset = -1, bases[0]
        for segment, base, end in zip(self._segments.items, bases, bases[1:], strict=False):
            last_age_ms = self._snapshots.age_ms(end)
            if end > end_max or age_ms - last_age_ms < config.min_compaction_lag_ms:
                break
            end_offset = end
            size = segment.stored_bytes()
            if end <= dirty_offset:
                clean_bytes += size
                continue
            if base < dirty_offset:  # a run had no room for all of its keys
                part = size * (dirty_offset - base) // (end - base)
                clean_bytes, size = clean_bytes + part, size - part
            if oldest_ms < 0:
                since_age_ms = segment.since_age_ms
                if since_age_ms < 0:  # nobody has written down when it began
                    since_age_ms = self._snapshots.known_age_ms(base, default=last_age_ms)
                oldest_ms = age_ms - since_age_ms
            dirty_bytes += size
        return Dirt(dirty_offset, end_offset, dirty_bytes, clean_bytes, oldest_ms)

    def purge_end(self, config: LogConfig, dirt: Dirt, *, limit: int) -> int:
        """Return below which offset tombstones may be dropped now.

        Args:
            limit: Below it no replica needs them.
        """
        return min(self.cleaned.expired_end(self._disk.time.age_ms, config.delete_retention_ms), limit, dirt.end_offset)

    # ---- a run

    def begin(
        self,
        config: LogConfig,
        dirt: Dirt,
        run: str,
        *,
        log_start: int,
        purge_end: int,
        kept_batches: list[int],
        map_bytes_max: int,
        io_bytes_per_s: int,
    ) -> Job:
        """Return the job of a run, and take what it writes from now on.

        Raises:
            CorruptBatch, StorageError: where what is dirty begins can't be read.
        """
        assert not self.run, "one run at a time"
        bases = [base for base in self._segments.bases if base < dirt.end_offset]
        assert bases, "a run has something to read"
        hint = (dirt.dirty_offset, 0)
        if dirt.dirty_offset < dirt.end_offset:
            index = self._segments.index_at(dirt.dirty_offset)
            segment = self._segments.items[index]
            position, header = segment.locate(dirt.dirty_offset, self._segments.end_of(index))
            if segment.sealed and not self._reader.holds(segment):
                segment.forget()
            hint = (header.base_offset, position)
        job = Job(
            directory=str(self._directory),
            run=run,
            bases=bases,
            end_offset=dirt.end_offset,
            log_start=log_start,
            dirty_offset=dirt.dirty_offset,
            dirty_hint=hint,
            purge_end=purge_end,
            range_ends=[one.end_offset for one in self.cleaned.ranges],
            kept_batches=kept_batches,
            segment_bytes=config.segment_bytes,
            index_interval_bytes=config.index_interval_bytes,
            file_mode=self._disk.file_mode,
            map_bytes_max=map_bytes_max,
            io_bytes_per_s=io_bytes_per_s,
        )
        self.run, self._failed, self._done = run, "", None
        return job

    def take(self, run: str, report: CleanedSegment | Done) -> None:
        """Note what a run has done; `step` puts it in place."""
        if run != self.run:
            return
        if isinstance(report, Done):
            self._done = report
        else:
            self._written.append(report)

    def step(self, config: LogConfig) -> str | None:
        """Do what can be done without waiting; return how the run ended: "" well, else why not; None: it goes on.

        Raises:
            LogDirOffline: the directory failed.
        """
        if not self.run:
            return None
        if not self._failed:
            try:
                self._step(config)
            except Uncleanable as error:
                self._failed = str(error)
            except StorageError as error:
                self._disk.check_online()
                self._failed = str(error)
        if self._failed:
            failed = self._failed
            self.abandon()
            return failed
        if self._done is None or self._written or self._swap is not None:
            return None
        self._settle_cleaned(config, self._done)
        self.run, self._done = "", None
        return ""

    def _step(self, config: LogConfig) -> None:
        swap = self._swap
        if swap is None and self._written:
            written = self._written.popleft()
            if written.end_offset <= self._segments.bases[0]:
                return  # deleted meanwhile, all of it
            self._check(written)
            self._swap = Swap(self._disk, self._directory, written.base_offset, written.end_offset, self.run)
        elif swap is not None:
            if swap.due:
                self._replace(swap, config)
            swap.step()
            if swap.over:
                self._swap = None

    def _check(self, written: CleanedSegment) -> None:
        """Look at what a run says it wrote, and whether what it is to replace is still there."""
        self._found(written.base_offset, written.end_offset)
        path = self._directory / cleaned_name(written.base_offset, self.run, LOG)
        if not path.exists() or path.stat().st_size != written.size_bytes:
            raise Uncleanable(f"{path} does not hold {written.size_bytes} bytes", path=path)

    def _found(self, start: int, end: int) -> tuple[int, int]:
        """Return (index, count) of the segments in [start, end).

        Raises:
            Uncleanable: they are not those any more.
        """
        bases = self._segments.bases
        if start not in bases or end not in bases:
            raise Uncleanable(f"{self._directory}: the segments of {start}..{end} have changed", path=self._directory)
        first = bases.index(start)
        return first, bases.index(end) - first

    def _replace(self, swap: Swap, config: LogConfig) -> None:
        index, count = self._found(swap.start, swap.end)
        gone = self._segments.items[index : index + count]
        swap.replace(gone)
        fresh = Segment(self._disk, self._directory, swap.start, config.index_interval_bytes, has_holes=True)
        fresh.sealed = True
        fresh.since_age_ms = gone[0].since_age_ms
        self._segments.replace(index, count, fresh)
        self._reader.forget(gone)
        self._snapshots.drop_between(swap.start, swap.end)

    def _settle_cleaned(self, config: LogConfig, done: Done) -> None:
        """Take note of what is clean, all of it being in place."""
        self.cleaned = self.cleaned.after_run(
            done.cleaned_end,
            done.tombstones,
            age_ms=self._disk.time.age_ms,
            retention_ms=config.delete_retention_ms,
        )
        self._disk.replace(self._path, encode_cleaned(self.cleaned))

    # ---- what others do to the log

    @property
    def swapping(self) -> bool:
        """Whether segments are being replaced: nobody else may touch any before `settle`."""
        return self._swap is not None

    def settle(self) -> None:
        """Finish a swap under way, or give it up and the run with it.

        Raises:
            LogDirOffline: the directory failed.
        Cost: none, or up to two fsyncs.
        """
        swap, self._swap = self._swap, None
        if swap is not None:
            swap.settle()
            if not swap.replaced:
                self._failed = "the log's segments were changed meanwhile"

    def abandon(self) -> None:
        """Give up the run, if there is one: what it has not put in place goes.

        Raises:
            LogDirOffline: the directory failed.
        Cost: none, or up to two fsyncs.
        """
        self.settle()
        if self.run:
            discard(self._directory, self.run)
        self.run, self._failed, self._done = "", "", None
        self._written.clear()

    def cut(self, offset: int) -> None:
        """The log is about to be cut at `offset`: what comes there next is dirty, and a run has read what goes.

        Raises:
            LogDirOffline: the directory failed.
        Cost: none, or two fsyncs where what was clean is cut.
        """
        self.settle()
        self._failed = "the log was cut"
        if offset < self.cleaned.end_offset:
            self.cleaned = self.cleaned.cut(offset)
            if not self._disk.replace(self._path, encode_cleaned(self.cleaned), durable=True):
                self._disk.drop(self._path)
                self._disk.sync_names(self._directory)
