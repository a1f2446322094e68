"""What a log hands out: where a batch landed, and what a flush must write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from brokerd.storage.disk import Disk
from brokerd.storage.files import File


class Appended(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a batch landed, or, for a duplicate, where the original is."""

    base_offset: int
    last_offset: int
    append_time_ms: int
    duplicate: bool = False


class Unread(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What lies between a reader's offset and an end.

    Attributes:
        records: Offsets; in a compacted log some of them may be holes.
        size_bytes: Of the stored batches that hold any of them, each whole.
        append_time_ms: When the oldest was appended, by the leader's wall clock; -1: nothing is unread.
    """

    records: int
    size_bytes: int
    append_time_ms: int


NOTHING_UNREAD = Unread(0, 0, -1)


class FlushTarget(msgspec.Struct, frozen=True):
    """What a flush must make durable for everything below `end_offset` of `log` to count. Captured by the owner."""

    log: Any  # the Log itself, which hands this out
    disk: Disk
    end_offset: int
    files: tuple[File, ...]
    directories: tuple[Path, ...]
