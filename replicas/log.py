"""What replication needs of a log: `brokerd.storage.log.Log` is one, the simulator's is another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Log(Protocol):
    """One replica's log. Thread: its owner's."""

    @property
    def start_offset(self) -> int: ...

    @property
    def end_offset(self) -> int:
        """The offset the next record gets."""
        ...

    @property
    def flushed_end(self) -> int:
        """Everything below is on the disk."""
        ...

    @property
    def flush_under_way(self) -> bool:
        """Whether a flush was captured that is not done: nothing may be truncated meanwhile."""
        ...

    @property
    def high_watermark(self) -> int: ...

    @property
    def cleaned_end(self) -> int:
        """Below it compaction has left one record of each key, durably."""
        ...

    @property
    def last_epoch(self) -> int:
        """Leader epoch of the last batch, -1 for an empty log."""
        ...

    def epoch_end(self, epoch: int) -> tuple[int, int] | None:
        """Return the greatest epoch up to `epoch` with records here and where it ends; None: damage hides it.

        (-1, offset): no record is so old; the first batch begins there, below the log start or above it.
        """
        ...

    def append_replicated(self, batches: Buffer, *, wall_ms: int) -> int:
        """Append whole batches as the leader stored them, from the end on; return how many records came.

        Raises:
            CorruptBatch: they are damaged, or don't continue this log; nothing was written.
            DiskFull, LogDirOffline, StorageError: see `Log.append`.
        """
        ...

    def advance_high_watermark(self, offset: int) -> None: ...

    def truncate_to(self, offset: int) -> None:
        """Drop what reaches `offset` or lies above."""
        ...

    def restart_at(self, offset: int) -> None:
        """Drop everything, in new files, and go on from `offset`."""
        ...

    def delete_records(self, offset: int) -> None:
        """Raise the log start to `offset`."""
        ...
