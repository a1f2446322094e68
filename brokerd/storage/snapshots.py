"""The producer snapshots of one log: written at each roll and checkpoint, and the clock of its sealed segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brokerd.storage.checkpoint import NO_PRODUCERS, UNKNOWN_PRODUCERS
from brokerd.storage.disk import Disk
from brokerd.storage.history import load_snapshot
from brokerd.storage.producer_state import ProducerState
from brokerd.storage.snapshot import encode_snapshot
from ingest.log.names import SNAPSHOT, file_name


class Snapshots:
    """The snapshot files. Thread: the owner's.

    Attributes:
        offsets: Of the files there are, ascending.
        newest: The offset written last, -1 for none.
        changes: The producer state's count of changes at that write, -1 if it is another process's.
    """

    def __init__(self, disk: Disk, directory: Path, offsets: list[int]) -> None:
        self._disk = disk
        self._directory = directory
        self._ages: dict[int, int] = {}
        self.offsets = sorted(offsets)
        self.newest = self.offsets[-1] if self.offsets else -1
        self.changes = -1

    def write(self, offset: int, last_append_age_ms: int, state: ProducerState) -> None:
        """Write the state of everything below `offset`; the last append there was at that running time, or is not
        known (-1): then it counts as now."""
        age_ms = last_append_age_ms if last_append_age_ms >= 0 else self._disk.time.age_ms
        self._ages[offset] = age_ms
        if self._disk.replace(self._path(offset), encode_snapshot(offset, age_ms, state)):
            self.offsets = sorted({*self.offsets, offset})
            self.newest = offset
            self.changes = state.changes

    def for_checkpoint(
        self, state: ProducerState, end_offset: int, flushed_end: int, last_append_age_ms: int, bases: Sequence[int]
    ) -> int:
        """Return the offset of the snapshot that holds at `flushed_end`, as a checkpoint names it.

        If there is news, write a snapshot at `end_offset` for the checkpoints to come, and remove those that are
        neither one of the two newest nor at the start of a segment.
        """
        if not state.producers and not state.changes:
            return NO_PRODUCERS
        if self.changes != state.changes:
            keep = {self.newest, *bases}
            self.write(end_offset, last_append_age_ms, state)
            self._drop([known for known in self.offsets if known not in keep and known != self.newest])
            return UNKNOWN_PRODUCERS
        return self.newest if self.newest <= flushed_end else UNKNOWN_PRODUCERS

    def age_ms(self, end_offset: int) -> int:
        """Return the running time of the last append below `end_offset`, the end of a sealed segment.

        Without its snapshot a segment is taken for as young as this look: kept longer, never shorter.
        """
        known = self._ages.get(end_offset)
        if known is None:
            snapshot = load_snapshot(self._directory, end_offset)
            known = self._ages[end_offset] = snapshot.age_ms if snapshot else self._disk.time.age_ms
        return known

    def known_age_ms(self, end_offset: int, *, default: int) -> int:
        """Return what `age_ms` does where there is a snapshot, else `default`."""
        return self.age_ms(end_offset) if end_offset in self._ages or end_offset in self.offsets else default

    def drop_between(self, start: int, end: int) -> None:
        """Remove those within a segment that took the place of several; the newest stays."""
        self._drop([known for known in self.offsets if start < known < end and known != self.newest])

    def drop_below(self, offset: int) -> None:
        """Remove those of deleted segments; the newest stays, for the state does not end with its segment."""
        self._drop([known for known in self.offsets if known < offset and known != self.newest])

    def drop_above(self, offset: int) -> None:
        """Remove those of a tail that was cut."""
        self._drop([known for known in self.offsets if known > offset])
        self.newest = self.offsets[-1] if self.offsets else -1
        self.changes = -1

    def _drop(self, offsets: list[int]) -> None:
        for offset in offsets:
            self._disk.drop(self._path(offset))
            self.offsets.remove(offset)
            self._ages.pop(offset, None)

    def _path(self, offset: int) -> Path:
        return self._directory / file_name(offset, SNAPSHOT)
