"""One segment that takes the place of one or several: written beside them, its indexes too, flushed as it grows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from brokerd.storage.compaction.source import Batch, Source
from brokerd.storage.files import pwrite_all
from brokerd.storage.index_entries import IndexEntries
from ingest.limits import MIB
from ingest.log.names import INDEX, LOG, TIME_INDEX, cleaned_name
from ingest.records.header import BatchHeader, decode_header
from ingest.records.thinned import empty_batch

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FLUSH_BYTES = 16 * MIB  # a group commit of the broker's must not wait for a gigabyte of ours
_COPY_BYTES = MIB
_VECTORS_MAX = 1000  # IOV_MAX is 1024
_PADDING = bytes(8)


class Output:
    """One new segment. As long as nothing of its first source changes, nothing is written.

    Attributes:
        changes: It is another than its source.
        size: Of what it holds.
        end_offset: Where its last batch ends.
    """

    def __init__(
        self,
        directory_fd: int,
        source: Source,
        run: str,
        *,
        index_interval_bytes: int,
        file_mode: int,
        on_write: Callable[[int], None],
    ) -> None:
        self._directory_fd = directory_fd
        self._source = source
        self.base_offset = source.base_offset
        self._run = run
        self._mode = file_mode
        self._on_write = on_write
        self._entries = IndexEntries(source.base_offset, index_interval_bytes)
        self._fd = -1
        self.changes = False
        self.size = 0
        self.end_offset = source.base_offset
        self._written = self._flushed = 0
        self._vectors: list[Buffer] = []
        self._gone: Batch | None = None

    # ---- batches, in order

    def keep(self, batch: Batch, data: memoryview) -> None:
        """Take a batch as it is; `data` are its bytes with padding, valid until the next `flush`."""
        if self._gone is None and not self.changes:
            assert batch.position == self.size, "a source that did not change is its own copy"
        else:
            self.begin()
            self._vectors.append(data)
        self._add(batch.header)

    def put(self, parts: Sequence[Buffer]) -> None:
        """Take a new batch: header and body."""
        self.begin()
        header = decode_header(parts[0])
        self._vectors += parts
        if header.padded_size > header.size:
            self._vectors.append(_PADDING[: header.padded_size - header.size])
        self._add(header)

    def drop(self, batch: Batch) -> None:
        """Leave a batch out; should it turn out to be the last it stays without records, for the segment ends there."""
        self._gone = batch

    def _add(self, header: BatchHeader) -> None:
        self._gone = None
        following = self.size + header.padded_size
        stamp = header.largest_timestamp_ms
        self._entries.add(header.leader_epoch, header.base_offset, self.size, stamp, following)
        self.size = following
        self.end_offset = header.next_offset

    # ---- the files

    def _name(self, suffix: str) -> str:
        return cleaned_name(self.base_offset, self._run, suffix)

    def begin(self) -> None:
        """Make the file, if there is none yet, and copy what has stayed as it was."""
        if self.changes:
            return
        self._fd = os.open(self._name(LOG), _NEW, self._mode, dir_fd=self._directory_fd)
        self.changes = True
        os.fchmod(self._fd, self._mode)
        while self._written < self.size:
            data = os.pread(self._source.fd, min(_COPY_BYTES, self.size - self._written), self._written)
            assert data, "it was read before"
            self._write([data])

    def flush(self) -> None:
        """Write what was taken; views over a window may go."""
        for start in range(0, len(self._vectors), _VECTORS_MAX):
            self._write(self._vectors[start : start + _VECTORS_MAX])
        self._vectors.clear()

    def _write(self, vectors: Sequence[Buffer]) -> None:
        size = sum(memoryview(vector).nbytes for vector in vectors)
        written = os.pwritev(self._fd, vectors, self._written)
        if written < size:  # let the system say why
            pwrite_all(self._fd, b"".join(vectors)[written:], self._written + written)
        self._written += size
        if self._written - self._flushed >= _FLUSH_BYTES:
            os.fdatasync(self._fd)
            self._flushed = self._written
        self._on_write(size)

    def finish(self) -> bool:
        """Make the files durable, their names aside; False: there are none, for nothing changes."""
        if self._gone is not None:
            header = self._gone.header
            if self.changes or header.record_count or self._gone.position != self.size:
                self.put([empty_batch(header)])
            else:  # it had none before
                self._add(header)
        self.flush()
        if not self.changes:
            return False
        assert self._written == self.size
        os.fsync(self._fd)
        for suffix, entries in ((INDEX, self._entries.offsets), (TIME_INDEX, self._entries.times)):
            fd = os.open(self._name(suffix), _NEW, self._mode, dir_fd=self._directory_fd)
            try:
                os.fchmod(fd, self._mode)
                pwrite_all(fd, entries, 0)
                os.fdatasync(fd)
            finally:
                os.close(fd)
        self.close()
        return True

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """Remove what was written."""
        for suffix in (LOG, INDEX, TIME_INDEX):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name(suffix), dir_fd=self._directory_fd)
