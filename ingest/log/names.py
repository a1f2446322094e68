"""Names of files and directories of a log. No user input becomes a path: a partition is named by its topic's id.

    <topic uuid>-<partition>/            one partition
        <20 digits>.log                  segment, named by its base offset
        <20 digits>.index                offset -> position
        <20 digits>.timeindex            running maximum of time -> offset
        <20 digits>.snapshot             producer state of everything below that offset
        <20 digits>.start                empty; records below were deleted (DeleteRecords)
        <20 digits>-<20 digits>.lost     empty; the offsets in [first, second) were lost by the disk
        compaction                       how far the log is compacted
        <20 digits>-<16 hex>.log.cleaned     what the compaction run of that number writes, .index and .timeindex too
        <20 digits>-<20 digits>-<16 hex>.swap    empty; it takes the place of the segments in [first, second)
    <topic uuid>-<partition>.refill      text: why the partition beside it is to be copied anew from its leader

Source: docs/format/segments.md.
"""

from __future__ import annotations

import re
import uuid

LOG = ".log"
INDEX = ".index"
TIME_INDEX = ".timeindex"
SNAPSHOT = ".snapshot"
START = ".start"
LOST = ".lost"
COMPACTION = "compaction"
CLEANED = ".cleaned"
SWAP = ".swap"
REFILL = ".refill"

_PARTITION = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-(0|[1-9][0-9]{0,8})")
_OFFSET = re.compile(r"([0-9]{20})(\.[a-z]+)")
_LOST = re.compile(r"([0-9]{20})-([0-9]{20})\.lost")
_SWAP = re.compile(r"([0-9]{20})-([0-9]{20})-([0-9a-f]{16})\.swap")


def partition_name(topic_id: bytes, partition: int) -> str:
    """Return the directory name of a partition."""
    assert len(topic_id) == 16
    assert partition >= 0
    return f"{uuid.UUID(bytes=topic_id)}-{partition}"


def parse_partition_name(name: str) -> tuple[bytes, int] | None:
    """Return (topic id, partition) of a directory name, None if it is not one."""
    match = _PARTITION.fullmatch(name)
    return (uuid.UUID(match[1]).bytes, int(match[2])) if match else None


def file_name(offset: int, suffix: str) -> str:
    """Return the name of a file of a segment."""
    assert offset >= 0
    return f"{offset:020d}{suffix}"


def parse_file_name(name: str) -> tuple[int, str] | None:
    """Return (offset, suffix) of a file name, None if it has another shape."""
    match = _OFFSET.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def lost_name(start: int, end: int) -> str:
    """Return the name of the mark that offsets [start, end) were lost."""
    return f"{start:020d}-{end:020d}{LOST}"


def parse_lost_name(name: str) -> tuple[int, int] | None:
    """Return (start, end) of the mark's name, None if it is not one."""
    match = _LOST.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def cleaned_name(base_offset: int, run: str, suffix: str) -> str:
    """Return the name under which a compaction run writes a file of a segment."""
    assert len(run) == 16, "8 bytes in hex"
    return f"{base_offset:020d}-{run}{suffix}{CLEANED}"


def swap_name(start: int, end: int, run: str) -> str:
    """Return the name of the mark that what a run wrote at `start` takes the place of all segments below `end`."""
    assert len(run) == 16, "8 bytes in hex"
    return f"{start:020d}-{end:020d}-{run}{SWAP}"


def parse_swap_name(name: str) -> tuple[int, int, str] | None:
    """Return (start, end, run) of the mark's name, None if it is not one."""
    match = _SWAP.fullmatch(name)
    return (int(match[1]), int(match[2]), match[3]) if match else None
