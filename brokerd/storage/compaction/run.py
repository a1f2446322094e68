"""One compaction run over one log's sealed segments: find the latest records, then write what is left of the rest.

Pass 1 reads what is dirty, until the table of keys is full; pass 2 reads everything from the log's first segment to
there and writes new segments beside the old ones. Nothing of the old is touched: the broker puts what it is told of in
their place. Neighbours that have become small are merged, up to `segment.bytes`.

A batch all of whose records stay is copied byte for byte. One of which none do goes, unless it tells of a producer that
is still remembered, begins a leader epoch, or is the last of its segment: then its header stays.

Source: Kafka's `Cleaner`; docs/concepts/compaction.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from brokerd.storage.compaction.dirty_scan import DirtyScan
from brokerd.storage.compaction.job import Cleaned, Done, Job, Report
from brokerd.storage.compaction.key_hashes import KeyHasher
from brokerd.storage.compaction.output import Output
from brokerd.storage.compaction.source import Batch, Source, Window
from brokerd.storage.compaction.survivors import Survivors, Verdict
from brokerd.storage.errors import Uncleanable
from ingest.failpoints import failpoint
from ingest.records.header import BatchHeader
from ingest.records.thinned import empty_batch, thin_batch

_SPAN_MAX = 0xFFFFFFFF  # of offsets in a segment, whose index has 32 bits for them


class Run:
    """Carry out a job. Thread: one; it reads and writes files in the directory it opens, and no others.

    Args:
        seed: Random, for the hashes of keys.
        report: Told of what is done.
        on_read, on_write: Told of bytes read and written; they may wait.
    """

    def __init__(
        self,
        job: Job,
        seed: bytes,
        report: Callable[[Report], None],
        *,
        on_read: Callable[[int], None] = lambda size: None,
        on_write: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._job = job
        self._report = report
        self._on_read = on_read
        self._on_write = on_write
        self._hasher = KeyHasher(seed)
        self._kept_batches = frozenset(job.kept_batches)
        self._epoch = -1
        self._read = self._dropped = 0
        self._directory_fd = os.open(job.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def run(self) -> None:
        """Do it; the last report is `Done`.

        Raises:
            CorruptBatch, UnsupportedFormat: a segment is damaged.
            Uncleanable: a batch would become too large.
            FileNotFoundError: one is gone.
            OSError: the system refused; what was not reported is removed.
        Cost: reads what is dirty twice, the rest once, and writes what changes.
        """
        try:
            self._run()
        finally:
            os.close(self._directory_fd)

    def _ends(self) -> list[int]:
        return [*self._job.bases[1:], self._job.end_offset]

    def _run(self) -> None:
        job = self._job
        scan = DirtyScan(self._hasher, job.dirty_offset, job.map_bytes_max)
        self._scan(scan)
        survivors = Survivors(
            self._hasher,
            scan,
            log_start=job.log_start,
            dirty_offset=job.dirty_offset,
            purge_end=job.purge_end,
            range_ends=job.range_ends,
        )
        # without anything dirty there are only tombstones to look for
        end = scan.end_offset if scan.end_offset > job.dirty_offset else max(job.purge_end, job.log_start)
        covered = self._rewrite(survivors, end)
        counts = survivors.tombstones.tolist()
        counted = [count if at <= covered else -1 for count, at in zip(counts, job.range_ends, strict=True)]
        self._report(
            Done(scan.end_offset, [*counted, scan.tombstones], scan.map.count, self._read, self._dropped),
        )

    # ---- pass 1

    def _scan(self, scan: DirtyScan) -> None:
        job = self._job
        for base_offset, end in zip(job.bases, self._ends(), strict=True):
            if end <= job.dirty_offset:
                continue
            source = Source(self._directory_fd, base_offset, self._on_read)
            try:
                hint = job.dirty_hint if base_offset <= job.dirty_hint[0] < end else (base_offset, 0)
                for window in source.windows(hint[1], hint[0]):
                    for batch in window.batches:
                        if not scan.take(batch):
                            scan.settle()
                            return
                    scan.settle()
            finally:
                source.close()
            failpoint("compaction.scanned")

    # ---- pass 2

    def _rewrite(self, survivors: Survivors, end_offset: int) -> int:
        """Rewrite the segments that reach below `end_offset`; return where the last of them ends."""
        output: Output | None = None
        sources: list[Source] = []
        covered = self._job.bases[0]
        try:
            for base_offset, segment_end in zip(self._job.bases, self._ends(), strict=True):
                if base_offset >= end_offset:
                    break
                source = Source(self._directory_fd, base_offset, self._on_read)
                sources.append(source)
                if output is not None and not self._fits(output, source, segment_end):
                    self._close(output, base_offset)
                    output = None
                if output is not None:
                    output.begin()
                for done in sources[:-1]:
                    done.close()
                del sources[:-1]
                if output is None:
                    output = Output(
                        self._directory_fd,
                        source,
                        self._job.run,
                        index_interval_bytes=self._job.index_interval_bytes,
                        file_mode=self._job.file_mode,
                        on_write=self._on_write,
                    )
                for window in source.windows():
                    self._rewrite_window(window, survivors.judge(window.batches), output)
                covered = segment_end
                failpoint("compaction.rewritten")
            if output is not None:
                self._close(output, covered)
                output = None
        finally:
            if output is not None:
                output.close()
                output.discard()
            for source in sources:
                source.close()
        return covered

    def _fits(self, output: Output, source: Source, segment_end: int) -> bool:
        """Whether a segment is to be merged into the one that is written; a large one that does not change is left."""
        limit = self._job.segment_bytes if output.changes else self._job.segment_bytes // 2
        return output.size + source.stored_bytes <= limit and segment_end - output.base_offset <= _SPAN_MAX

    def _close(self, output: Output, end_offset: int) -> None:
        if output.finish():
            failpoint("compaction.written")
            self._report(Cleaned(output.base_offset, end_offset, output.size))

    def _rewrite_window(self, window: Window, verdicts: list[Verdict], output: Output) -> None:
        for batch, verdict in zip(window.batches, verdicts, strict=True):
            header = batch.header
            self._read += header.record_count
            if verdict.rows is None:
                output.keep(batch, self._bytes(window, batch))
            elif len(verdict.rows):
                assert verdict.columns is not None
                self._dropped += header.record_count - len(verdict.rows)
                parts = thin_batch(header, verdict.columns, np.asarray(verdict.rows))
                if parts is None:
                    raise Uncleanable(f"the batch at offset {header.base_offset} can't be written anew within limits")
                output.put(parts)
            else:
                self._dropped += header.record_count
                if not self._tells_more(header):
                    output.drop(batch)
                elif header.record_count:
                    output.put([empty_batch(header)])
                else:
                    output.keep(batch, self._bytes(window, batch))
            self._epoch = max(self._epoch, header.leader_epoch)
        output.flush()

    @staticmethod
    def _bytes(window: Window, batch: Batch) -> memoryview:
        at = batch.position - window.position
        return window.data[at : at + batch.header.padded_size]

    def _tells_more(self, header: BatchHeader) -> bool:
        """Whether a batch is of use without its records."""
        return header.leader_epoch > self._epoch or header.base_offset in self._kept_batches
