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


class FlushTarget(msgspec.Struct, frozen=True):
    """What a flush must make durable for everything below `end_offset` of `log` to count. Captured by the owner."""

    log: Any  # the Log itself, which hands this out
    disk: Disk
    end_offset: int
    files: tuple[File, ...]
    directories: tuple[Path, ...]
