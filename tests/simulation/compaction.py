"""Compaction of simulated logs: the product's cleaner, passes and decisions, without files and a worker process.

A batch counts as a segment when something is measured, and all that a run reads as one when it is written: but for the
last, all that are left without records may go.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from brokerd.storage.compaction.cleaned import decode_cleaned
from brokerd.storage.compaction.dirty_scan import DirtyScan
from brokerd.storage.compaction.job import Cleaned, Failed, Job, Report
from brokerd.storage.compaction.log_compaction import LogCompaction
from brokerd.storage.compaction.run import Run
from brokerd.storage.compaction.source import Batch as SourceBatch
from brokerd.storage.compaction.source import Window
from brokerd.storage.compaction.survivors import Survivors
from brokerd.storage.config import LogConfig
from ingest.records.header import BatchHeader, decode_header
from ingest.records.thinned import empty_batch

if TYPE_CHECKING:
    from tests.simulation.disk import Disk, Files
    from tests.simulation.storage import SimLog

Stored = tuple[BatchHeader, bytes]
_NOWHERE = Path("/nowhere")


class _Segment(NamedTuple):
    """A batch as a segment of its own."""

    header: BatchHeader
    size: int
    sealed = False  # no descriptor is open for it
    since_age_ms = 0

    def stored_bytes(self) -> int:
        return self.size

    def locate(self, offset: int, end_offset: int) -> tuple[int, BatchHeader]:
        return 0, self.header


class _Segments:
    """A log's batches as `Segments`; behind them comes one that is active and empty."""

    def __init__(self, log: SimLog) -> None:
        self._log = log

    @property
    def items(self) -> list[_Segment]:
        return [_Segment(header, len(data)) for header, data in self._log.files.cache]

    @property
    def bases(self) -> list[int]:
        cache = self._log.files.cache
        first = [min(header.base_offset, self._log.start_offset) for header, _ in cache[:1]]
        return [*first, *(header.next_offset for header, _ in cache)] or [self.end_offset]

    @property
    def end_offset(self) -> int:
        return self._log.end_offset

    def index_at(self, offset: int) -> int:
        return max(0, bisect_right(self.bases, offset) - 1)

    def end_of(self, index: int) -> int:
        return self.bases[index + 1]


class _Snapshots:
    """All segments are old enough."""

    def age_ms(self, offset: int) -> int:
        return 0


class _Hint:
    """The disk as far as it matters to `LogCompaction`: a small file, seldom flushed, and the time."""

    file_mode = 0o600

    def __init__(self, disk: Disk, files: Files) -> None:
        self._disk = disk
        self._files = files
        self.time = self

    @property
    def age_ms(self) -> int:
        return self._disk.age_ms()

    def replace(self, path: Path, data: bytes, *, durable: bool = False) -> bool:
        self._files.cleaned = data
        if durable:
            self._files.cleaned_on_device = data
        return True

    def check_online(self) -> None:
        pass


class SimCompaction(LogCompaction):
    """What `LogCompaction` is to a log.

    Attributes:
        output: What the run under way has written; nobody finds it after a crash.
    """

    def __init__(self, log: SimLog) -> None:
        parts: list[Any] = [_Hint(log.disk, log.files), _NOWHERE, _Segments(log), _Snapshots(), None]
        super().__init__(*parts)
        self._log = log
        self.output: list[Stored] = []
        known = decode_cleaned(log.files.cleaned)
        if known is not None and known.end_offset <= log.end_offset:
            self.cleaned = known

    def _step(self, config: LogConfig) -> None:
        while self._written:
            written = self._written.popleft()
            index, count = self._found(written.base_offset, written.end_offset)
            self._log.put_in_place(index, count, self.output)


class _Output:
    """What `Output` is to a run, in memory."""

    def __init__(self) -> None:
        self.written: list[Stored] = []
        self._gone: BatchHeader | None = None

    def keep(self, batch: SourceBatch, data: memoryview) -> None:
        self._add(bytes(data))

    def put(self, parts: Sequence[Any]) -> None:
        data = b"".join(bytes(part) for part in parts)
        self._add(data.ljust(decode_header(data).padded_size, b"\0"))

    def drop(self, batch: SourceBatch) -> None:
        self._gone = batch.header

    def _add(self, data: bytes) -> None:
        self._gone = None
        self.written.append((decode_header(data), data))

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        if self._gone is not None:
            self.put([empty_batch(self._gone)])


class _Run(Run):
    """A run over batches in memory.

    Attributes:
        written: What takes their place, empty if nothing changes.
    """

    def __init__(self, job: Job, batches: Sequence[Stored], report: Callable[[Report], None]) -> None:
        super().__init__(msgspec.structs.replace(job, directory="/"), b"simulated", report)
        self._batches = batches
        self.written: list[Stored] = []
        view, at = memoryview(b"".join(data for _, data in batches)), 0
        found = []
        for header, data in batches:
            found.append(SourceBatch(at, header, view[at : at + header.size]))
            at += len(data)
        self._window = Window(0, view, found)

    def _scan(self, scan: DirtyScan) -> None:
        for batch in self._window.batches:
            if not scan.take(batch):
                break
        scan.settle()

    def _rewrite(self, survivors: Survivors, end_offset: int) -> int:
        taken = [batch for batch in self._window.batches if batch.header.base_offset < end_offset]
        if not taken:
            return self._job.bases[0]
        output: Any = _Output()
        self._rewrite_window(self._window._replace(batches=taken), survivors.judge(taken), output)
        output.finish()
        covered = taken[-1].header.next_offset
        if output.written != list(self._batches[: len(taken)]):
            self.written = output.written
            self._report(Cleaned(self._job.bases[0], covered, sum(len(data) for _, data in self.written)))
        return covered


class SimWorker:
    """What `WorkerProcess` is to the cleaner: it reads at once, and is heard of later."""

    def __init__(self, log: SimLog, job: Job, due_ms: int, now_ms: Callable[[], int]) -> None:
        self._due_ms = due_ms
        self._now_ms = now_ms
        self._log = log
        self._reports: list[Report] = []
        batches = [(header, data) for header, data in log.files.cache if header.base_offset < job.end_offset]
        if any(header.base_offset in log.files.rotten for header, _ in batches):
            self._reports.append(Failed("damage", "the worker has met it"))
            return
        run = _Run(job, batches, self._reports.append)
        run.run()
        log.compaction.output = run.written

    @property
    def gone(self) -> bool:
        return not self._reports

    def poll(self) -> list[Report]:
        if self._now_ms() < self._due_ms:
            return []
        reports, self._reports = self._reports, []
        if any(isinstance(report, Failed) for report in reports):
            self._log.scrub(1)  # from now on the broker knows
        return reports

    def kill(self) -> None:
        self._reports = []
