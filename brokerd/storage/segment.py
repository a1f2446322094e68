"""One segment: its file, its index, and the way from an offset to a position in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from brokerd.storage.disk import Disk
from brokerd.storage.files import CREATE_NEW, READ, READ_WRITE, File, copy_prefix
from brokerd.storage.segment_index import SegmentIndex
from brokerd.storage.syscalls import punch_hole
from brokerd.storage.walk import find_magic, walk_batches, walk_headers
from ingest.errors import CorruptBatch, UnsupportedFormat
from ingest.failpoints import failpoint
from ingest.limits import KIB
from ingest.log.index import IndexDamaged
from ingest.log.names import LOG, file_name
from ingest.records.header import BatchHeader

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PAGE_BYTES = 4 * KIB
_VECTORS_MAX = 1000  # IOV_MAX is 1024


class Segment:
    """One segment. The last of a log is active: open for writing, its size known. The others are opened when read.

    Attributes:
        size: Where the next batch goes; of a sealed segment the size of its file, which ends in zeros.
        allocated: Size of the file.
        since_age_ms: The directory's running time at the first append; -1: empty or not known.
        has_holes: Compaction, here or at a leader, may have left holes between its offsets.
    """

    __slots__ = (
        "_data_end",
        "_disk",
        "allocated",
        "base_offset",
        "file",
        "has_holes",
        "index",
        "path",
        "sealed",
        "since_age_ms",
        "size",
    )

    def __init__(
        self, disk: Disk, directory: Path, base_offset: int, index_interval_bytes: int, *, has_holes: bool = False
    ) -> None:
        self._disk = disk
        self.has_holes = has_holes
        self.base_offset = base_offset
        self.path = directory / file_name(base_offset, LOG)
        self.index = SegmentIndex(disk, directory, base_offset, index_interval_bytes)
        self.file: File | None = None
        self.size = 0
        self.allocated = 0
        self.sealed = False
        self.since_age_ms = -1
        self._data_end = -1  # of a sealed segment, once it is known

    # ---- opening

    def create(self, *, uses_reserve: bool = False) -> None:
        """Make the file, with its first extent.

        Args:
            uses_reserve: As `Disk.extend`.
        Raises:
            DiskFull: no file is left behind.
        """
        try:
            file = File(self.path, CREATE_NEW, self._disk.file_mode)
        except OSError as error:
            raise self._disk.refused(error, f"creating {self.path}") from error
        try:
            self.allocated = self._disk.extend(file, 0, 1, _PAGE_BYTES, uses_reserve=uses_reserve)
        except BaseException:
            self.path.unlink()
            raise
        self.file = file

    def open_active(self) -> File:
        """Open for reading and writing; the caller finds the end and sets `size`."""
        self.file = File(self.path, READ_WRITE)
        self.allocated = self.file.size()
        return self.file

    def reader(self) -> File:
        """Return the open file; of a sealed segment it may be dropped again with `forget`."""
        if self.file is None:
            self.file = File(self.path, READ)
            self.size = self.allocated = self.file.size()
        return self.file

    def forget(self) -> None:
        """Close a sealed segment's file, unless a flush still holds it."""
        assert self.sealed
        self.file = None

    def seal(self) -> None:
        """Give back the space behind the last batch; the file keeps its size, for readers map it."""
        assert self.file is not None
        start = -(-self.size // _PAGE_BYTES) * _PAGE_BYTES
        if start < self.allocated:
            try:
                punch_hole(self.file.fd, start, self.allocated - start)
            except OSError:
                pass  # a filesystem without holes keeps the extent
        self.index.write_pending()
        self._data_end = self.size
        self.sealed = True

    # ---- walking

    def headers(self, position: int, offset: int) -> Iterator[tuple[int, BatchHeader]]:
        """Walk headers from `position`; see `walk_headers`."""
        file = self.reader()
        return walk_headers(file.fd, position, self.size, offset)

    def batches(self, position: int, offset: int, epoch: int = -1) -> Iterator[tuple[int, BatchHeader]]:
        """Walk whole batches from `position`; see `walk_batches`."""
        file = self.reader()
        return walk_batches(file.fd, position, self.size, offset, epoch)

    def good_headers(self, position: int, offset: int, end_offset: int) -> Iterator[tuple[int, BatchHeader]]:
        """Walk headers from `position`, stepping over damage to the next good batch."""
        while True:
            try:
                for position, header in self.headers(position, offset):  # noqa: B020
                    yield position, header
                    offset = header.next_offset
                    position += header.padded_size
            except (CorruptBatch, OSError) as error:
                at = error.position if isinstance(error, CorruptBatch) else position
                good = self.next_good(at, offset, end_offset)
                if good is None:
                    return
                offset, position = good
            else:
                return

    def locate(self, offset: int, end_offset: int) -> tuple[int, BatchHeader]:
        """Return position and header of the batch that holds `offset`, or of the next one if none does.

        Args:
            end_offset: Where the segment ends; an offset that only damage could hold raises.
        Raises:
            CorruptBatch: the bytes where it should be are damaged; `position` says where.
        Cost: log2(entries) small reads and a walk of about index.interval.bytes.
        """
        try:
            return self._locate(offset, end_offset)
        except IndexDamaged:
            self.rebuild_index(end_offset)
            return self._locate(offset, end_offset)

    def _locate(self, offset: int, end_offset: int) -> tuple[int, BatchHeader]:
        expected, position = hint = self.index.find_offset(offset)
        while True:
            try:
                for position, header in self.headers(position, expected):  # noqa: B020
                    if position == hint[1] and header.base_offset != hint[0] and position:
                        raise IndexDamaged(f"{self.index.path}: entry {hint[0]} at {position} hits another batch")
                    if header.last_offset >= offset:
                        return position, header
                    expected = header.next_offset
                    position += header.padded_size
            except IndexDamaged:
                raise
            except (CorruptBatch, OSError) as error:
                at = error.position if isinstance(error, CorruptBatch) else position
                good = self.next_good(at, expected, end_offset)
                if good is None or good[0] > offset:
                    raise CorruptBatch(f"{self.path}: {error}", position=at) from error
                expected, position = good
            else:
                raise CorruptBatch(f"{self.path} ends before offset {offset}", position=-1)

    def cut_at(self, offset: int, end_offset: int) -> tuple[int, int, int]:
        """Return where to cut so that nothing reaches `offset`: position, where what is before it ends, and the base
        offset of the first batch that goes.

        Raises:
            CorruptBatch: as `locate`, of which the cost is twice.
        """
        position, header = self.locate(offset, end_offset)
        end = header.base_offset if position else min(self.base_offset, header.base_offset)
        if position and self.has_holes:
            with suppress(CorruptBatch):  # also IndexDamaged: then the hole counts as being there still
                start, at = self.index.find_offset(end - 1)
                for at, before in self.headers(at, start):  # noqa: B020
                    if at >= position:
                        break
                    end = before.next_offset
        return position, end, header.base_offset

    def locate_time(self, timestamp_ms: int, end_offset: int) -> tuple[int, int]:
        """Return (offset, position) from where to walk for the first batch as late as `timestamp_ms`."""
        for last in (False, True):
            try:
                return self.index.find_offset(self.index.find_time(timestamp_ms))
            except IndexDamaged:
                if last:
                    raise
                self.rebuild_index(end_offset)
        raise AssertionError("unreachable")

    def rebuild_index(self, end_offset: int) -> None:
        """Write the index anew from the headers. Cost: a walk over the whole segment."""
        self.index.rebuild(self.good_headers(0, self.base_offset, end_offset))

    def next_good(self, position: int, offset: int, end_offset: int) -> tuple[int, int] | None:
        """Return (offset, position) of the next batch behind the damage at `position`; None if the segment has none.

        A body may hold bytes that look like a batch, so that a batch found by its magic counts only if the batches
        from there on lead exactly to the next index entry, or to the end of the data.
        """
        file = self.reader()
        try:
            _, header = next(iter(walk_headers(file.fd, position, self.size, offset)))
        except (CorruptBatch, OSError, StopIteration):
            pass
        else:  # only the body is damaged, its size can be trusted
            behind = position + header.padded_size
            return (header.next_offset, behind) if header.next_offset < end_offset else None
        anchor = self.index.next_anchor(position)
        limit = anchor[1] if anchor else self.size
        bound = anchor[0] if anchor else end_offset
        try:
            for candidate in find_magic(file.fd, position + 8, limit):
                first = self._chain(file, candidate, offset, limit, bound, exact=anchor is not None or not self.sealed)
                if first is not None:
                    return first, candidate
        except OSError:
            pass
        return anchor

    def _chain(self, file: File, position: int, offset: int, limit: int, bound: int, *, exact: bool) -> int | None:
        """Return the base offset of the batch at `position` if the batches from there lead to `limit` and `bound`.

        Offsets must be dense: a batch that a client hid in a body rarely fits its neighbours. Where compaction has left
        holes they only ascend, and the batches must lead to the very byte where the index has the next one.
        """
        first, at, following = -1, position, -1
        try:
            for at, header in walk_batches(file.fd, position, limit, offset):
                if first < 0:
                    first = header.base_offset
                elif header.base_offset != following and not self.has_holes:
                    return None
                following = header.next_offset
                at += header.padded_size
        except (CorruptBatch, OSError):
            return None
        if first < 0 or (exact and at != limit):
            return None
        fits = following == bound or (self.has_holes and exact and following < bound)
        return first if fits else None

    def next_marked(self, position: int, offset: int) -> tuple[int, int, int] | None:
        """Return (offset, position, greatest high watermark named from there on) of the next batch behind damage.

        For recovery, which knows no end yet. Bytes inside a body may look like a batch: one found by its magic must
        have been appended after the damaged one and name a high watermark in between, or it proves nothing.
        """
        file = self.reader()
        try:
            _, header = next(iter(walk_headers(file.fd, position, self.size, offset)))
        except (CorruptBatch, StopIteration):
            candidates = find_magic(file.fd, position + 8, self.size)
        else:
            candidates = iter([position + header.padded_size])
        for candidate in candidates:
            first, mark = -1, -1
            try:
                for _, header in walk_batches(file.fd, candidate, self.size, offset + 1):
                    if first < 0:
                        first = header.base_offset
                        if header.high_watermark > first:
                            break
                    mark = max(mark, header.high_watermark)
            except CorruptBatch:
                pass
            if first >= 0 and mark >= 0:
                return first, candidate, mark
        return None

    # ---- writing

    def write(self, vectors: list[Buffer], size_bytes: int, *, limit: int, uses_reserve: bool = False) -> None:
        """Put bytes behind the last batch, taking space first; the caller moves `size`.

        Args:
            limit: Size of a full segment: no space is taken ahead beyond it.
            uses_reserve: As `Disk.extend`.
        Raises:
            DiskFull: nothing was written.
            LogDirOffline: the system refused; what is there may come back after a crash.
        Cost: one pwritev, and an allocation now and then.
        """
        file = self.file
        assert file is not None
        needed = self.size + size_bytes
        if needed > self.allocated:
            limit = max(limit, needed)
            self.allocated = self._disk.extend(file, self.allocated, needed, limit, uses_reserve=uses_reserve)
        if len(vectors) > _VECTORS_MAX:
            vectors = [b"".join(vectors)]
        try:
            failpoint("storage.before_write")
            written = os.pwritev(file.fd, vectors, self.size)
            failpoint("storage.after_write")
        except OSError as error:
            raise self._disk.fail(error, f"appending to {self.path}") from error
        if written != size_bytes:
            short = OSError(f"only {written} of {size_bytes} bytes were written")
            raise self._disk.fail(short, f"appending to {self.path}")

    def truncate_tail(self, position: int) -> None:
        """Zero everything from `position` on, so that nothing of it can come back, and keep the file's size.

        Raises:
            LogDirOffline: the device refused.
        Cost: a hole, one write of less than a page and one fdatasync.
        """
        assert self.file is not None
        fd = self.file.fd
        page = -(-position // _PAGE_BYTES) * _PAGE_BYTES
        try:
            if page > position and position < self.allocated:
                os.pwrite(fd, bytes(min(page, self.allocated) - position), position)
            if page < self.allocated:
                self._zero(fd, page)
            os.fdatasync(fd)
        except OSError as error:
            raise self._disk.fail(error, f"zeroing the tail of {self.path}") from error
        self.size = position

    def reopen(self, position: int, *, replace: bool) -> None:
        """Make this the active segment again, cut at `position`; with `replace` in a new file under the same name.

        Raises:
            LogDirOffline: the device refused.
        """
        self.sealed = False
        self._data_end = -1
        self.index.truncate(position)
        try:
            file = self.open_active()
            if replace:
                self.file = copy_prefix(file, position, self._disk.file_mode)
                self.allocated = self.file.size()
        except OSError as error:
            raise self._disk.fail(error, f"cutting {self.path}") from error
        self.truncate_tail(position)

    def _zero(self, fd: int, position: int) -> None:
        size = self.allocated - position
        try:
            punch_hole(fd, position, size)
        except OSError:
            for start in range(position, self.allocated, 1 << 20):
                os.pwrite(fd, bytes(min(1 << 20, self.allocated - start)), start)
            return
        try:
            os.posix_fallocate(fd, position, size)
        except OSError as error:
            if not self._disk.is_full(error):
                raise
            self.allocated = position  # what lies behind is a hole; `extend` fills it before it is written

    def unlink(self) -> None:
        """Remove the files. Views of readers stay valid."""
        self.file = None
        try:
            self._disk.unlink(self.path)
            self.index.remove()
        except OSError as error:
            raise self._disk.fail(error, f"deleting {self.path}") from error

    @property
    def data_end_known(self) -> bool:
        """Whether `data_end` answers without looking."""
        return not self.sealed or self._data_end >= 0

    def data_end(self, end_offset: int) -> int:
        """Return where the last batch of the segment, which ends at `end_offset`, ends; its file must be open.

        Where damage hides it, about there.
        Cost: of a sealed segment that this process has not written a look into its index and a few headers, once.
        """
        if not self.sealed:
            return self.size
        if self._data_end < 0:
            end = -1
            try:
                expected, position = self.index.find_offset(end_offset - 1)
                for position, header in self.headers(position, expected):  # noqa: B020
                    end = position + header.padded_size
            except (CorruptBatch, UnsupportedFormat, OSError):
                end = -1
            if end < 0:
                return self.stored_bytes()
            self._data_end = end
        return self._data_end

    def stored_bytes(self) -> int:
        """Return about how many bytes the segment holds; of a sealed one, what its file takes."""
        if not self.sealed:
            return self.size
        try:
            status = os.stat(self.path)
        except FileNotFoundError:  # whoever reads it is told
            return self.size
        return min(status.st_size, status.st_blocks * 512)
