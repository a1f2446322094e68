"""The log cleaner of one broker: one run at a time, the log that wants it most first, in a process that may die.

A worker that fails, dies or says nothing for a minute costs its run; its log is tried again later and later. Source:
Kafka's `LogCleaner` and `LogCleanerManager`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from brokerd.storage.compaction.choice import Urgency, urgency
from brokerd.storage.compaction.job import Cleaned, Done, Failed, Job, Progress, Report
from brokerd.storage.compaction.log_compaction import Dirt
from brokerd.storage.log import Log
from ingest.errors import CorruptBatch, LogDirOffline, StorageError

log = structlog.get_logger()

HUNG_MS = 60_000  # a worker reports twice a second, unless the disk keeps it waiting
BACKOFF_MS_MAX = 600_000
_MEASURED_AT_ONCE = 8  # logs, at one stat a segment: requests wait no longer than a millisecond

Key = tuple[bytes, int]


class CleanerSettings(msgspec.Struct, frozen=True):
    """What a broker's configuration says of compaction: `log.cleaner.…`."""

    enable: bool = True
    io_bytes_per_s: int = 0
    map_bytes_max: int = 64 << 20
    backoff_ms: int = 15_000

    @classmethod
    def of(cls, configs: Mapping[str, str]) -> CleanerSettings:
        """Return what broker configs that were checked say."""
        rate = float(configs.get("log.cleaner.io.max.bytes.per.second", 0))
        return cls(
            enable=configs.get("log.cleaner.enable", "true") == "true",
            io_bytes_per_s=int(rate) if rate < 2**62 else 0,
            map_bytes_max=int(configs.get("log.cleaner.dedupe.buffer.size", cls().map_bytes_max)),
            backoff_ms=int(configs.get("log.cleaner.backoff.ms", cls().backoff_ms)),
        )


class Worker(Protocol):
    """A worker process, as `WorkerProcess` is one."""

    @property
    def gone(self) -> bool: ...

    def poll(self) -> Sequence[Report]: ...

    def kill(self) -> None: ...


class Replica(Protocol):
    """A replica, as `brokerd.serving.partition.Partition` is one."""

    @property
    def log(self) -> Log: ...

    @property
    def purge_limit(self) -> int:
        """Below this offset no replica needs tombstones."""
        ...


class _Wanted(msgspec.Struct, frozen=True):
    """A run that a log wants."""

    urgency: Urgency
    dirt: Dirt
    purge_end: int


class _Run:
    """One run and its process."""

    def __init__(self, cleaned: Log, number: str, worker: Worker, now_ms: int) -> None:
        self.log = cleaned
        self.number = number
        self.worker = worker
        self.began_ms = self.heard_ms = now_ms
        self.over = False  # the log has what there was to have, or gave it up


class CleanerCounts(msgspec.Struct):
    """Since this process began; `last_ms` is how long the last run took, `last_…` what it read and wrote."""

    runs: int = 0
    failures: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    records_dropped: int = 0
    max_ms: int = 0


class Cleaner:
    """Thread: the broker loop.

    Attributes:
        settings: May be changed at any time.
        counts: What was done.
        dirt: What was dirty when each log was looked at last; a value that is replaced whole.
        uncleanable: Why a log can't be compacted; a value that is replaced whole.
        ended_ms: When the last run ended well, -1: none has.
        cleaned: Logs of which more is clean; the owner takes them.
        damaged: Logs in which damage was met, and where; the owner takes them.
    """

    def __init__(self, start: Callable[[Job], Worker]) -> None:
        self._start = start
        self.settings = CleanerSettings()
        self.counts = CleanerCounts()
        self.dirt: dict[Key, Dirt] = {}
        self.uncleanable: dict[Key, str] = {}
        self.ended_ms = -1
        self.cleaned: list[Key] = []
        self.damaged: dict[Key, str] = {}
        self._run: _Run | None = None
        self._measuring: list[Replica] = []
        self._best: tuple[Urgency, Replica] | None = None
        self._looked_ms: int | None = None
        self._retries: dict[Key, tuple[int, int]] = {}  # failures in a row, and when to try again

    def step(self, replicas: Callable[[], Sequence[Replica]], now_ms: int, *, may_start: bool = True) -> None:
        """Do what can be done without waiting; call it at least a few times a second.

        Args:
            replicas: All there are here.
            may_start: There is room on the disk.
        Raises:
            LogDirOffline: the directory failed.
        """
        if self._run is not None:
            self._watch(self._run, now_ms)
            return
        if not self.settings.enable or not may_start:
            self._measuring.clear()
            return
        if not self._measuring:
            if self._looked_ms is not None and now_ms - self._looked_ms < self.settings.backoff_ms:
                return
            self._looked_ms = now_ms
            self._best = None
            self._measuring = [replica for replica in replicas() if replica.log.config.compacts]
            self._forget({_key(replica.log) for replica in self._measuring})
        for replica in self._measuring[-_MEASURED_AT_ONCE:]:
            wanted = self._want(replica, now_ms)
            if wanted is not None and (self._best is None or wanted.urgency > self._best[0]):
                self._best = wanted.urgency, replica
        del self._measuring[-_MEASURED_AT_ONCE:]
        if not self._measuring and self._best is not None:
            self._begin(self._best[1], now_ms)

    # ---- what to do

    def _forget(self, known: set[Key]) -> None:
        """Drop what is known of logs that are compacted no longer, or not here."""
        self.dirt = {key: dirt for key, dirt in self.dirt.items() if key in known}
        self.uncleanable = {key: reason for key, reason in self.uncleanable.items() if key in known}
        self._retries = {key: retry for key, retry in self._retries.items() if key in known}

    def _want(self, replica: Replica, now_ms: int) -> _Wanted | None:
        """Measure a log and return the run it wants."""
        measured = replica.log
        if measured.closed or not measured.config.compacts:
            return None
        key, dirt = _key(measured), measured.dirt()
        self.dirt = {**self.dirt, key: dirt}
        if self._retries.get(key, (0, 0))[1] > now_ms:
            return None
        purge_end = measured.compaction.purge_end(measured.config, dirt, limit=replica.purge_limit)
        purges = measured.compaction.cleaned.has_tombstones(measured.start_offset, purge_end)
        wanted = urgency(measured.config, dirt, purges=purges)
        return None if wanted is None else _Wanted(wanted, dirt, purge_end)

    def _begin(self, replica: Replica, now_ms: int) -> None:
        wanted = self._want(replica, now_ms)  # others were measured since
        if wanted is None:
            return
        number, begun = secrets.token_hex(8), replica.log
        try:
            job = begun.begin_compaction(
                wanted.dirt,
                number,
                purge_end=wanted.purge_end,
                map_bytes_max=self.settings.map_bytes_max,
                io_bytes_per_s=self.settings.io_bytes_per_s,
            )
            worker = self._start(job)
        except LogDirOffline:
            raise
        except CorruptBatch as error:
            self._fail(begun, "damage", str(error), now_ms)
            return
        except StorageError as error:
            self._fail(begun, "error", str(error), now_ms)
            return
        self._run = _Run(begun, number, worker, now_ms)
        log.info(
            "compacting",
            log=str(begun.path),
            dirty_bytes=wanted.dirt.dirty_bytes,
            clean_bytes=wanted.dirt.clean_bytes,
            purges_below=wanted.purge_end,
        )

    # ---- a run

    def _watch(self, run: _Run, now_ms: int) -> None:
        for report in run.worker.poll():
            run.heard_ms = now_ms
            if isinstance(report, Progress):
                self.counts.read_bytes += report.read_bytes
                self.counts.written_bytes += report.written_bytes
            elif not run.over:
                self._take(run, report, now_ms)
        if not run.over:
            self._see_through(run, now_ms)
        if run.over and run.worker.gone:
            self._run = None
            self._looked_ms = None  # there may be more to do
        elif now_ms - run.heard_ms > HUNG_MS and not run.worker.gone:
            run.worker.kill()
            self._give_up(run, "error", f"the worker said nothing for {HUNG_MS // 1000} s", now_ms)

    def _take(self, run: _Run, report: Cleaned | Done | Failed | Progress, now_ms: int) -> None:
        if isinstance(report, Failed):
            self._give_up(run, report.kind, report.reason, now_ms)
            return
        if isinstance(report, Done):
            self.counts.records_dropped += report.records_dropped
        assert isinstance(report, Cleaned | Done)
        run.log.compaction.take(run.number, report)

    def _see_through(self, run: _Run, now_ms: int) -> None:
        compacted = run.log
        if compacted.closed or not compacted.config.compacts or not self.settings.enable:
            run.worker.kill()
            self._give_up(run, "gone", "it is not to be compacted any more", now_ms)
            return
        ended = compacted.compaction.step(compacted.config)
        if ended is None:
            return
        if ended:
            run.worker.kill()
            self._give_up(run, "gone", ended, now_ms)
            return
        run.over = True
        key = _key(compacted)
        self._retries.pop(key, None)
        self.uncleanable = {other: reason for other, reason in self.uncleanable.items() if other != key}
        self.counts.runs += 1
        self.counts.max_ms = max(self.counts.max_ms, now_ms - run.began_ms)
        self.ended_ms = now_ms
        self.cleaned.append(key)
        log.info("compacted", log=str(compacted.path), cleaned_end=compacted.cleaned_end, ms=now_ms - run.began_ms)

    def _give_up(self, run: _Run, kind: str, reason: str, now_ms: int) -> None:
        if run.over:
            return
        run.over = True
        self._fail(run.log, kind, reason, now_ms)

    def _fail(self, failed: Log, kind: str, reason: str, now_ms: int) -> None:
        """Note that a run came to nothing; it is tried again later, after failures later and later."""
        if not failed.closed:
            failed.compaction.abandon()
        key = _key(failed)
        times = self._retries.get(key, (0, 0))[0]
        if kind == "gone":  # nobody's fault
            self._retries[key] = times, now_ms + self.settings.backoff_ms
            log.info("a compaction run was given up", log=str(failed.path), reason=reason)
            return
        self.counts.failures += 1
        wait_ms = min(self.settings.backoff_ms << min(times, 16), BACKOFF_MS_MAX)
        self._retries[key] = times + 1, now_ms + wait_ms
        self.uncleanable = {**self.uncleanable, key: reason}
        if kind == "damage":
            self.damaged[key] = reason
        log.warning("a compaction run failed", log=str(failed.path), reason=reason, again_in_s=wait_ms // 1000)

    def close(self) -> None:
        """End the worker; what it had written is removed, now or at the next open."""
        if self._run is not None:
            self._run.worker.kill()


def _key(of: Log) -> Key:
    return of.topic_id, of.partition
