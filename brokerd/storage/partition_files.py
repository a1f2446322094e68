"""What a partition's directory lists, before anything in it is read."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from brokerd.storage.errors import DamagedLog
from ingest.log.names import (
    CLEANED,
    COMPACTION,
    INDEX,
    LOG,
    SNAPSHOT,
    START,
    TIME_INDEX,
    parse_file_name,
    parse_lost_name,
)

_KNOWN = frozenset({LOG, INDEX, TIME_INDEX, SNAPSHOT, START})


class Files(msgspec.Struct):
    """What the directory lists. Offsets ascend."""

    segments: list[int]
    snapshots: list[int]
    start_offset: int
    lost: list[tuple[int, int]]


def list_files(directory: Path) -> Files:
    """List a partition directory, dropping what an interrupted replacement left.

    Raises:
        DamagedLog: a file that belongs to no log; it is named.
    """
    segments, snapshots, starts, lost = [], [], [0], []
    others: list[tuple[int, str]] = []
    for entry in os.scandir(directory):
        if entry.name.endswith((".tmp", CLEANED)):  # a compaction run's, whose process may still be about to notice
            os.unlink(entry.path)
            continue
        if entry.name == COMPACTION:
            continue
        pair = parse_lost_name(entry.name)
        if pair:
            lost.append(pair)
            continue
        parsed = parse_file_name(entry.name)
        if parsed is None or parsed[1] not in _KNOWN or not entry.is_file(follow_symlinks=False):
            raise DamagedLog(f"{entry.path}: a stray file in a log; move it away", path=entry.path)
        offset, suffix = parsed
        if suffix == LOG:
            segments.append(offset)
        elif suffix == SNAPSHOT:
            snapshots.append(offset)
        elif suffix == START:
            starts.append(offset)
        else:
            others.append((offset, entry.name))
    known = set(segments)
    for offset, name in others:
        if offset not in known:
            os.unlink(directory / name)  # retention died between the unlink of a segment and that of its index
    return Files(sorted(segments), sorted(snapshots), max(starts), sorted(lost))
