"""What is a function of the log's prefix: producer state and leader epochs, read from headers again when needed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from brokerd.storage.checkpoint import NO_PRODUCERS, CheckpointRecord
from brokerd.storage.disk import Disk
from brokerd.storage.files import read_file
from brokerd.storage.producer_state import ProducerState
from brokerd.storage.segment import Segment
from brokerd.storage.segments import Segments
from brokerd.storage.snapshot import SNAPSHOT_BYTES_MAX, Snapshot, decode_snapshot
from ingest.log.index import IndexDamaged
from ingest.log.names import LOG, SNAPSHOT, file_name, parse_file_name


def load_snapshot(directory: Path, offset: int) -> Snapshot | None:
    """Return the producer snapshot at `offset` if it is there and whole."""
    data = read_file(directory / file_name(offset, SNAPSHOT), SNAPSHOT_BYTES_MAX)
    return decode_snapshot(data, offset) if data is not None else None


def rebuild_producers(
    disk: Disk,
    directory: Path,
    snapshots: list[int],
    segments: list[Segment],
    end_offset: int,
    checkpoint: CheckpointRecord | None = None,
) -> ProducerState:
    """Return the producer state of everything below `end_offset`. Cost: headers behind the newest valid snapshot."""
    state, offset = ProducerState(), segments[0].base_offset
    producer_id_max = checkpoint.producer_id_max if checkpoint else -1
    candidates = sorted(snapshots, reverse=True)
    if checkpoint and checkpoint.recovery_point <= end_offset and checkpoint.snapshot_offset == NO_PRODUCERS:
        state, offset = ProducerState(), max(offset, checkpoint.recovery_point)
        candidates = [candidate for candidate in candidates if candidate > offset]
    for candidate in candidates:
        if candidate > end_offset:
            continue
        snapshot = load_snapshot(directory, candidate)
        if snapshot is not None:
            state, offset = snapshot.state(), candidate
            break
    if checkpoint and checkpoint.snapshot_offset == offset and offset <= checkpoint.recovery_point <= end_offset:
        offset = checkpoint.recovery_point  # nobody with an id appended in between
    age_ms = disk.time.age_ms
    for index, segment in enumerate(segments):
        following = segments[index + 1].base_offset if index + 1 < len(segments) else end_offset
        if following <= offset:
            continue
        disk.beat()
        start_offset, position = segment.base_offset, 0
        if offset > start_offset:
            try:
                start_offset, position = segment.index.find_offset(offset)
            except IndexDamaged:
                segment.rebuild_index(following)
                start_offset, position = segment.index.find_offset(offset)
        for _, header in segment.good_headers(position, start_offset, following):
            if header.base_offset >= end_offset:
                break
            if header.base_offset >= offset:
                state.apply(header, header.base_offset, header.append_time_ms, age_ms)
        if segment.sealed:
            segment.forget()
    state.producer_id_max = max(state.producer_id_max, producer_id_max)
    return state


def last_epoch(segments: list[Segment], end_offset: int) -> int:
    """Return the leader epoch of the last batch below `end_offset`, -1 for an empty log."""
    epoch = -1
    for segment in reversed(segments):
        try:
            offset, position = segment.index.find_offset(min(end_offset, segment.base_offset + 2**32 - 1))
        except IndexDamaged:
            offset, position = segment.base_offset, 0
        for _, header in segment.good_headers(position, offset, 2**62):
            if header.base_offset >= end_offset:
                break
            epoch = max(epoch, header.leader_epoch)
        if epoch >= 0:
            break
    return epoch


def epoch_end(segments: Segments, start_offset: int, epoch: int) -> tuple[int, int]:
    """Return the greatest epoch up to `epoch` that the log has records of, and the offset where a greater one begins.

    (-1, offset): it has none that are so old. The offset is that of the first batch: below the log start where that
    lies amid it, above where compaction has left nothing in between.

    Raises:
        CorruptBatch: a header on the way is damaged.
    Cost: log2(offsets) looks into an index. Source: KIP-101, KIP-320.
    """
    low, high, found = start_offset, segments.end_offset, -1
    end = high
    while low < high:
        middle = (low + high) // 2
        index = segments.index_at(middle)
        _, header = segments.items[index].locate(middle, segments.end_of(index))
        if header.leader_epoch > epoch:
            # compaction may have left nothing right below, but it keeps the first batch of each epoch
            high, end = min(middle, header.base_offset), header.base_offset
        else:
            low, found = header.next_offset, header.leader_epoch
    return found, end


class Survey(msgspec.Struct, frozen=True):
    """What a partition directory holds, looked at from outside."""

    leader_epoch: int
    end_offset: int
    producer_id_max: int


def survey(disk: Disk, directory: Path, checkpoint: CheckpointRecord | None) -> Survey:
    """Look at a log without opening it: its last epoch, its end, and the greatest producer id. Nothing is changed.

    Cost: headers above the recovery point; without a checkpoint, all headers.
    """
    epoch, end, producer_id_max = -1, 0, -1
    start = 0
    if checkpoint is not None:
        epoch, end = checkpoint.leader_epoch, checkpoint.recovery_point
        producer_id_max, start = checkpoint.producer_id_max, checkpoint.recovery_segment
    names = [parse_file_name(entry.name) for entry in os.scandir(directory)]
    bases = sorted(name[0] for name in names if name is not None and name[1] == LOG)
    for base in [base for base in bases if base >= start]:
        segment = Segment(disk, directory, base, 4096)
        disk.beat()
        segment.sealed = True
        position, offset = 0, base
        if checkpoint is not None and base == start:
            position, offset = checkpoint.recovery_position, checkpoint.recovery_point
        end = max(end, base)
        for _, header in segment.good_headers(position, offset, 2**62):
            epoch, end = max(epoch, header.leader_epoch), max(end, header.next_offset)
            producer_id_max = max(producer_id_max, header.producer_id)
    return Survey(epoch, end, producer_id_max)
