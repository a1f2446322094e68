"""What replication needs of a log: `brokerd.storage.log.Log` is one. It grows with the follower that will use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Log(Protocol):
    """One replica's log, seen by the follower and by the leader's marks. Thread: its owner's."""

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
    def high_watermark(self) -> int: ...

    @property
    def last_epoch(self) -> int:
        """Leader epoch of the last batch, -1 for an empty log."""
        ...

    def read(self, offset: int, max_bytes: int, *, end: int) -> Buffer:
        """Return whole batches as they are stored, the first of which may start below `offset`."""
        ...

    def advance_high_watermark(self, offset: int) -> None: ...

    def truncate_to(self, offset: int) -> None:
        """Drop what reaches `offset` or lies above."""
        ...
