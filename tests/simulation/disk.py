"""Disks with a cache apart from the device, and what a partition has on them.

A kill keeps the cache, a power cut drops it, a failed flush leaves the cache clean over a device that never got it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.records.header import BatchHeader

Key = tuple[bytes, int]
TOPIC_ID = b"simulated-topic!"  # that of the producers
GROUPS_ID = b"simulated-groups"  # that of committed offsets, in runs that have some


class Batch(NamedTuple):
    """One stored batch, padding included."""

    header: BatchHeader
    data: bytes


@dataclass(slots=True)
class Files:
    """What a partition's directory holds: as every process sees it, and as the device has it.

    Attributes:
        recovery_point: Of the checkpoint: flushed before it was written.
        checkpointed_mark: The high watermark in the checkpoint.
        page_mark: The one on the state page, in memory; -1 after a power cut.
        generation: Raised when bytes that had been visible were replaced.
        lost: Batches whose flush failed: the cache shows them, and no later flush writes them (by identity).
        rotten: Base offsets of batches whose bytes have changed on the disk.
        found_in: The leader epoch in which the broker met one of those; None: it has not.
        left: Whether the replica has been without a seat in a later one.
        deleted: Headers of batches below the log start: the snapshot beside the first segment knows their producers.
        cleaned: How far it is compacted, as `Cleaned` is stored; `cleaned_on_device`: what a power cut leaves of that.
    """

    cache: list[Batch] = field(default_factory=list)
    device: list[Batch] = field(default_factory=list)
    start_offset: int = 0
    recovery_point: int = 0
    checkpointed_mark: int = 0
    page_mark: int = -1
    generation: int = 0
    lost: set[int] = field(default_factory=set)
    rotten: set[int] = field(default_factory=set)
    found_in: int | None = None
    left: bool = False
    deleted: list[BatchHeader] = field(default_factory=list)
    cleaned: bytes = b""
    cleaned_on_device: bytes = b""

    def rot(self, draw: Callable[[int], int]) -> bool:
        """Have a batch below the checkpoint decay; False: there is none.

        Args:
            draw: Draws a number below n.
        """
        sealed = [b.header.base_offset for b in self.device if b.header.next_offset <= self.recovery_point]
        if sealed:
            self.rotten.add(sealed[draw(len(sealed))])
        return bool(sealed)


class Disk:
    """One broker's log directory.

    Attributes:
        page_incarnation: Of the last owner, on tmpfs; -1 after a power cut.
        checkpoint_incarnation: The same on the device.
        failing: The next flush fails.
        failed: A flush failed; the mark lies elsewhere.
        bad_sector: The next power cut shows that something flushed above the checkpoint is gone.
        refills: Partitions marked to begin anew.
        unflushed_marks: Those of them that a power cut would take back: none, unless they are planted to be.
        full: Appends find no room.
        age_ms: The running time.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self.directory_number = 0
        self.files: dict[Key, Files] = {}
        self.page_incarnation = -1
        self.checkpoint_incarnation = -1
        self.incarnations: list[int] = []
        self.closed = True
        self.unproven = False
        self.failing = False
        self.failed = False
        self.bad_sector = False
        self.refills: set[Key] = set()
        self.unflushed_marks: set[Key] = set()
        self.full = False
        self.on_truncation: Callable[[Key, int], None] = lambda key, offset: None
        self.on_refill: Callable[[Key], None] = lambda key: None
        self.dies: Callable[[str], bool] = lambda name: False
        self.age_ms: Callable[[], int] = lambda: 0

    def cut_power(self, prefix: Callable[[int], int]) -> None:
        """Lose the cache; of what was not flushed the device may have got some.

        Args:
            prefix: Draws how many of n batches it got.
        """
        self.page_incarnation = -1
        self.refills -= self.unflushed_marks
        self.unflushed_marks.clear()
        for files in self.files.values():
            common = 0
            while common < min(len(files.cache), len(files.device)) and files.cache[common] is files.device[common]:
                common += 1
            if common == len(files.device):
                files.device = files.cache[: common + prefix(len(files.cache) - common)]
            if self.bad_sector:
                above = [index for index, b in enumerate(files.device) if b.header.base_offset >= files.recovery_point]
                if above:
                    del files.device[above[0] + prefix(len(above) - 1) :]
                    self.bad_sector = False
            files.cache = list(files.device)
            files.cleaned = files.cleaned_on_device
            files.lost.clear()
            files.page_mark = -1

    def wipe(self) -> None:
        """Put an empty disk in its place."""
        self.files.clear()
        self.refills.clear()
        self.directory_number += 1
        self.page_incarnation = self.checkpoint_incarnation = -1
        self.incarnations.clear()
        self.closed = True
        self.failing = self.failed = self.unproven = False
