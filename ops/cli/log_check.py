"""Check partitions on disk: segments in order, what lies beside them, and which part was flushed. Reads alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from brokerd.storage.checkpoint import PARTITION, RECORD_SIZE, CheckpointRecord, decode_record
from brokerd.storage.compaction.cleaned import decode_cleaned
from brokerd.storage.snapshot import decode_snapshot
from ingest.errors import UsageError
from ingest.log.names import (
    COMPACTION,
    LOG,
    SNAPSHOT,
    START,
    file_name,
    parse_file_name,
    parse_lost_name,
    parse_partition_name,
)
from ops.cli.segment_check import RECHECK_SECONDS, RECHECKS, Finding, SegmentCheck, SegmentSummary, State


class PartitionSummary(msgspec.Struct):
    """What a partition directory, or a single segment of one, holds."""

    path: str
    log_start_offset: int = 0
    log_end_offset: int = 0
    segments: list[SegmentSummary] = []
    findings: list[Finding] = []

    @property
    def all_findings(self) -> list[Finding]:
        return [*self.findings, *(finding for segment in self.segments for finding in segment.findings)]


def find_logs(path: Path) -> list[Path]:
    """Return the segment file or the partition directories at `path`, a data directory and a broker's included.

    Raises:
        UsageError: there is no log.
    """
    if path.is_file():
        name = parse_file_name(path.name)
        if name is None or name[1] != LOG:
            raise UsageError(f"{path} is no segment: a segment is called like {file_name(0, LOG)}")
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist; a log is in DATA_DIR/brokers/<id>/<topic id>-<partition>")
    if parse_partition_name(path.name) or any(_is_segment(name) for name in os.listdir(path)):
        return [path]
    found = sorted(
        directory
        for pattern in ("*", "brokers/*/*")
        for directory in path.glob(pattern)
        if directory.is_dir() and parse_partition_name(directory.name)
    )
    if not found:
        raise UsageError(f"{path} holds no partition, and no brokers/<id>/<topic id>-<partition>")
    return found


def _is_segment(name: str) -> bool:
    parsed = parse_file_name(name)
    return parsed is not None and parsed[1] == LOG


def check_log(path: Path) -> Iterator[SegmentSummary | PartitionSummary]:
    """Check a partition directory or one segment file: yield each segment as it is done, and the whole at last.

    Raises:
        OSError: a file may not be read.
    """
    single = path.is_file()
    directory = path.parent if single else path
    summary = PartitionSummary(str(path))
    bases, starts, lost, snapshots = _list(directory)
    checkpoint = _checkpoint(directory)
    state = State(bases[0] if bases else 0, lost=lost)
    summary.log_start_offset = max([state.next_offset, *starts, checkpoint.log_start if checkpoint else 0])
    for base in bases:
        if single and path.name != file_name(base, LOG):
            continue
        if single:
            state.next_offset = base
        path_of = directory / file_name(base, LOG)
        if not _follows(summary, path_of, base, state):
            continue
        flushed = 0
        if checkpoint is not None and checkpoint.recovery_segment == base:
            flushed = checkpoint.recovery_position
        elif checkpoint is not None and checkpoint.recovery_segment > base:
            flushed = 1 << 62
        try:
            segment = _check_segment(path_of, base, state, active=base == bases[-1], flushed_position=flushed)
        except FileNotFoundError:  # retention or compaction was faster
            state.next_offset = -1
            continue
        summary.segments.append(segment)
        yield segment
    summary.log_end_offset = max(state.next_offset, 0)
    if not single:
        _check_snapshots(summary, directory, snapshots)
        _check_compaction(summary, directory)
        if checkpoint is not None and summary.log_end_offset < checkpoint.recovery_point:
            expected = f"flushed up to offset {checkpoint.recovery_point}"
            last = str(directory / file_name(bases[-1], LOG)) if bases else str(directory)
            summary.findings.append(
                Finding("damage", last, 0, "end of the log", expected, f"offset {summary.log_end_offset}")
            )
    yield summary


def _list(directory: Path) -> tuple[list[int], list[int], list[tuple[int, int]], list[int]]:
    bases: list[int] = []
    starts: list[int] = []
    lost: list[tuple[int, int]] = []
    snapshots: list[int] = []
    kinds = {LOG: bases, START: starts, SNAPSHOT: snapshots}
    for name in os.listdir(directory):
        pair = parse_lost_name(name)
        if pair:
            lost.append(pair)
        parsed = parse_file_name(name)
        if parsed is not None and parsed[1] in kinds:
            kinds[parsed[1]].append(parsed[0])
    return sorted(bases), starts, lost, sorted(snapshots)


def _follows(summary: PartitionSummary, path: Path, base: int, state: State) -> bool:
    """Report offsets missing before a segment, unless the broker has noted that the disk lost them.

    False: the segment is gone, for compaction has merged it into the one before while that was checked.
    """
    overlaps = 0 <= base < state.next_offset
    for _ in range(RECHECKS * overlaps):
        if not path.exists():
            return False
        time.sleep(RECHECK_SECONDS)
    if state.next_offset != -1 and not state.allows(base):
        what = "segments that overlap" if overlaps else "first offset of the segment"
        summary.findings.append(Finding("damage", str(path), 0, what, str(state.next_offset), str(base)))
    state.next_offset = base
    return True


def _check_segment(path: Path, base: int, state: State, *, active: bool, flushed_position: int) -> SegmentSummary:
    """Check a segment; again if compaction put another in its place meanwhile, which has other indexes.

    Raises:
        OSError: it may not be read.
    """
    for _ in range(RECHECKS):
        at = msgspec.structs.replace(state)
        file = os.stat(path)
        segment = SegmentCheck(path, base, active=active, flushed_position=flushed_position).run(at)
        if not segment.findings or os.path.samestat(file, os.stat(path)):
            break
    state.next_offset, state.leader_epoch = at.next_offset, at.leader_epoch
    return segment


def _checkpoint(directory: Path) -> CheckpointRecord | None:
    """Return the last checkpoint of the partition, from its broker's directory."""
    name = parse_partition_name(directory.resolve().name)
    if name is None:
        return None
    try:
        data = (directory.resolve().parent / "checkpoint").read_bytes()
    except OSError:
        return None
    last = None
    for position in range(0, len(data) - RECORD_SIZE + 1, RECORD_SIZE):
        record = decode_record(data, position)
        if record is not None and record.kind == PARTITION and (record.topic_id, record.partition) == name:
            last = record
    return last


def _check_snapshots(summary: PartitionSummary, directory: Path, snapshots: list[int]) -> None:
    for offset in snapshots:
        path = directory / file_name(offset, SNAPSHOT)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        if decode_snapshot(data, offset) is None:
            found = f"{len(data)} bytes that are not"
            summary.findings.append(Finding("hint", str(path), 0, "producer snapshot", "one that verifies", found))


def _check_compaction(summary: PartitionSummary, directory: Path) -> None:
    path = directory / COMPACTION
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    if decode_cleaned(data) is None:
        found = f"{len(data)} bytes that are not"
        summary.findings.append(Finding("hint", str(path), 0, "how far the log is compacted", "what verifies", found))
