"""Check one segment with its indexes, reading alone: every CRC, offset, epoch and index entry. Needs no broker.

It may run beside the broker that writes: what the broker appends meanwhile is read again, not reported.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import numpy as np

from brokerd.storage.walk import find_magic
from ingest.errors import CorruptBatch, ForebayError
from ingest.limits import LIMITS, MIB
from ingest.log.index import ENTRY_SIZE, crc_seed, decode_offset_entry, decode_time_entry
from ingest.log.names import INDEX, TIME_INDEX, file_name
from ingest.records.checksum import crc32c
from ingest.records.header import HEADER_SIZE, MAGIC, BatchHeader, decode_header, verify_batch, verify_header

WINDOW_BYTES = MIB
RECHECKS = 5
RECHECK_SECONDS = 0.02  # an append is one pwritev: it is over long before


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be.

    Attributes:
        kind: "damage": bytes that were stored are not what was written. "hint": an index, snapshot or other file that
            the broker makes anew. "torn": an append that was cut off; never acknowledged, dropped at the next start.
    """

    kind: str
    file: str
    position: int
    what: str
    expected: str
    found: str


class State(msgspec.Struct):
    """What one segment hands to the next: the offset that must follow and the least epoch.

    Attributes:
        lost: Offsets [start, end) that the disk lost, as the broker has noted.
    """

    next_offset: int
    leader_epoch: int = -1
    lost: list[tuple[int, int]] = []

    def allows(self, base_offset: int) -> bool:
        """Tell whether a batch may start here."""
        return base_offset == self.next_offset or any(
            start <= self.next_offset and base_offset <= end for start, end in self.lost
        )


class SegmentSummary(msgspec.Struct):
    """What a segment holds.

    Attributes:
        holes: Offsets without a record: compaction dropped it, or the disk lost it.
    """

    file: str
    base_offset: int
    next_offset: int = 0
    batches: int = 0
    records: int = 0
    holes: int = 0
    data_bytes: int = 0
    findings: list[Finding] = []


class _Starts:
    """Where batches start, to hold index entries against: (n,) position, base offset, epoch, running max time."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.offsets: list[int] = []
        self.epochs: list[int] = []
        self.times: list[int] = []

    def add(self, position: int, header: BatchHeader) -> None:
        self.positions.append(position)
        self.offsets.append(header.base_offset)
        self.epochs.append(header.leader_epoch)
        latest = self.times[-1] if self.times else -(2**63)
        self.times.append(max(latest, header.largest_timestamp_ms))


class SegmentCheck:
    """Check one segment file.

    Args:
        active: It is the last of its log: the broker may be writing behind its end.
        flushed_position: Below it nothing can be a torn append; from the checkpoint, 0 if not known.
    """

    def __init__(self, path: Path, base_offset: int, *, active: bool, flushed_position: int = 0) -> None:
        self._path = path
        self._base = base_offset
        self._active = active
        self._flushed = flushed_position
        self._starts = _Starts()
        self._torn_at = -1
        self.summary = SegmentSummary(str(path), base_offset, base_offset)

    def run(self, state: State) -> SegmentSummary:
        """Read everything, move `state` on and return what was found.

        Raises:
            OSError: the file may not be read.
        Cost: one pass over the file, two over its indexes.
        """
        hints = [self._read_hint(suffix) for suffix in (INDEX, TIME_INDEX)]  # first: they never lead the log
        fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._walk(fd, state)
        finally:
            os.close(fd)
        self.summary.next_offset = state.next_offset
        self._check_offsets(*hints[0])
        self._check_times(*hints[1])
        return self.summary

    # ---- the batches -------------------------------------------------------------------------------------------------

    def _walk(self, fd: int, state: State) -> None:
        position, rechecks = 0, RECHECKS
        window, start = b"", 0
        while True:
            if position - start + HEADER_SIZE > len(window):
                window, start = os.pread(fd, WINDOW_BYTES, position), position
            at = position - start
            if not any(window[at : at + HEADER_SIZE]):
                rest = self._first_nonzero(fd, position)
                if rest < 0:
                    return
                problem = self._finding(rest, "bytes behind the last batch", "zeros", "something else")
            else:
                try:
                    header = verify_header(window, at)
                    if at + header.padded_size > len(window) and len(window) < header.padded_size:
                        window, start, at = os.pread(fd, max(WINDOW_BYTES, header.padded_size), position), position, 0
                    elif at + header.padded_size > len(window):
                        window, start, at = os.pread(fd, WINDOW_BYTES, position), position, 0
                    verify_batch(memoryview(window)[at : at + header.size], header)
                    self._take(position, header, window[at + header.size : at + header.padded_size], state)
                    position += header.padded_size
                    rechecks = RECHECKS
                    continue
                except ForebayError:
                    problem = self._explain(window, at, position)
            if self._active and rechecks:
                rechecks -= 1
                time.sleep(RECHECK_SECONDS)
                window = b""
                continue
            following = self._resync(fd, position + 8, state)
            if following < 0 and self._active and position >= self._flushed:
                self._torn_at = position
                self.summary.findings.append(msgspec.structs.replace(problem, kind="torn"))
                return
            self.summary.findings.append(problem)
            if following < 0:
                return
            position, window = following, b""
            state.next_offset = decode_header(os.pread(fd, HEADER_SIZE, following)).base_offset

    def _take(self, position: int, header: BatchHeader, padding: bytes, state: State) -> None:
        self._check_order(position, header, state)
        if any(padding):
            self._report(position + header.size, "padding behind the batch", "zeros", padding.hex())
        self.summary.holes += max(0, header.next_offset - max(state.next_offset, 0) - header.record_count)
        state.next_offset, state.leader_epoch = header.next_offset, header.leader_epoch
        self._starts.add(position, header)
        summary = self.summary
        summary.batches += 1
        summary.records += header.record_count
        summary.data_bytes = position + header.padded_size

    def _check_order(self, position: int, header: BatchHeader, state: State) -> None:
        """Offsets ascend; compaction leaves holes, and no batch can be missing where the bytes have none."""
        if header.base_offset < state.next_offset:
            self._report(position, "base offset", f">= {state.next_offset}", str(header.base_offset))
        if header.leader_epoch < state.leader_epoch:
            self._report(position, "leader epoch", f">= {state.leader_epoch}", str(header.leader_epoch))
        if header.high_watermark > header.base_offset:
            what = "high watermark at append"
            self._report(position, what, f"<= base offset {header.base_offset}", str(header.high_watermark))

    def _explain(self, window: bytes, at: int, position: int) -> Finding:
        """Return what exactly is wrong with the batch at `position`."""
        view = memoryview(window)[at:]
        try:
            header = decode_header(view)
        except ForebayError:
            found = view[:4].tobytes()
            if len(view) < HEADER_SIZE:
                return self._finding(position, "batch header", f"{HEADER_SIZE} bytes", f"{len(view)} to the file's end")
            return self._finding(position, "batch magic", MAGIC.hex(), found.hex())
        crc = crc32c(view[8:HEADER_SIZE])
        if crc != header.header_crc:
            return self._finding(position, "header CRC", f"{header.header_crc:#010x}", f"{crc:#010x}")
        if len(view) < header.size:
            return self._finding(position, "batch size", f"{header.size} bytes", f"{len(view)} to the file's end")
        crc = crc32c(view[44 : header.size])
        if crc != header.batch_crc:
            return self._finding(position, "batch CRC", f"{header.batch_crc:#010x}", f"{crc:#010x}")
        try:
            verify_batch(view, header)
        except CorruptBatch as error:
            return self._finding(position, "header fields", "fields that agree", str(error))
        return self._finding(position, "batch", "one that verifies", "another at the second look")

    def _resync(self, fd: int, position: int, state: State) -> int:
        """Return where the next batch that verifies starts, -1 if there is none."""
        size = os.fstat(fd).st_size
        for candidate in find_magic(fd, position, size):
            try:
                header = verify_header(os.pread(fd, HEADER_SIZE, candidate))
                if header.base_offset < state.next_offset or header.body_size > LIMITS.batch_bytes_max:
                    continue
                verify_batch(os.pread(fd, header.size, candidate), header)
            except ForebayError:
                continue
            return candidate
        return -1

    def _first_nonzero(self, fd: int, position: int) -> int:
        while window := os.pread(fd, WINDOW_BYTES, position):
            rest = np.flatnonzero(np.frombuffer(window, np.uint8))
            if len(rest):
                return position + int(rest[0])
            position += len(window)
        return -1

    # ---- the indexes -------------------------------------------------------------------------------------------------

    def _read_hint(self, suffix: str) -> tuple[Path, bytes]:
        path = self._path.parent / file_name(self._base, suffix)
        try:
            return path, path.read_bytes()
        except FileNotFoundError:
            return path, b""

    def _check_offsets(self, path: Path, entries: bytes) -> None:
        starts = self._starts
        positions = np.asarray(starts.positions, np.int64)
        seed = crc_seed(self._base)
        for at in range(0, len(entries) - ENTRY_SIZE + 1, ENTRY_SIZE):
            try:
                relative, position, epoch = decode_offset_entry(seed, entries[at : at + ENTRY_SIZE])
            except CorruptBatch as error:
                self._hint(path, at, "entry CRC", "one that matches", str(error))
                continue
            if 0 <= self._torn_at <= position:
                continue  # the entry of an append that was cut off goes with it
            index = int(np.searchsorted(positions, position))
            if index == len(positions) or starts.positions[index] != position:
                self._hint(path, at, "position of a batch", "a batch's start", str(position))
                continue
            known = (starts.offsets[index], starts.epochs[index])
            if known != (self._base + relative, epoch):
                expected = f"offset {known[0]} epoch {known[1]}"
                self._hint(path, at, "entry", expected, f"offset {self._base + relative} epoch {epoch}")

    def _check_times(self, path: Path, entries: bytes) -> None:
        starts = self._starts
        offsets = np.asarray(starts.offsets, np.int64)
        seed = crc_seed(self._base)
        for at in range(0, len(entries) - ENTRY_SIZE + 1, ENTRY_SIZE):
            try:
                timestamp_ms, relative = decode_time_entry(seed, entries[at : at + ENTRY_SIZE])
            except CorruptBatch as error:
                self._hint(path, at, "entry CRC", "one that matches", str(error))
                continue
            below = int(np.searchsorted(offsets, self._base + relative))
            if below and starts.times[below - 1] > timestamp_ms:
                latest = f">= {starts.times[below - 1]} ms, the latest below offset {self._base + relative}"
                self._hint(path, at, "time entry", latest, str(timestamp_ms))

    # ---- findings ----------------------------------------------------------------------------------------------------

    def _finding(self, position: int, what: str, expected: str, found: str) -> Finding:
        return Finding("damage", str(self._path), position, what, expected, found)

    def _report(self, position: int, what: str, expected: str, found: str) -> None:
        self.summary.findings.append(self._finding(position, what, expected, found))

    def _hint(self, path: Path, position: int, what: str, expected: str, found: str) -> None:
        self.summary.findings.append(Finding("hint", str(path), position, what, expected, found))
