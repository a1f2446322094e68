"""The metadata store as the controller sees it: a handful of calls, whatever keeps the records.

`brokerd.control.embedded` is for one machine, `brokerd.control.zookeeper` for several: there campaign is an ephemeral
node, and the controller epoch a node every transaction checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from brokerd.control.image import ClusterImage
from brokerd.control.records import Change


class MetadataStore(Protocol):
    """Keep the cluster's records; let one controller at a time change them. Thread: the controller's."""

    def campaign(self, stop_fd: int, beat: Callable[[], None]) -> int | None:
        """Wait until this process is the controller and return its epoch, durable and above every earlier one.

        Args:
            stop_fd: Give up and return None once it is readable.
            beat: Called at least each half second while waiting.
        Raises:
            ForeignDirectory: another cluster's store, or one of a newer format; it was not changed.
            StorageError: it can't be read; the message names the file.
        """
        ...

    def load(self) -> ClusterImage:
        """Return everything committed so far.

        Raises:
            StorageError: a record is damaged; the message names it.
        """
        ...

    def commit(self, changes: Sequence[Change], *, controller_epoch: int) -> None:
        """Make all changes durable, or none.

        Raises:
            Fenced: another controller has won since; nothing was changed: stop.
            DiskFull: nothing was changed; later commits may succeed.
            StorageError: the outcome is unknown: forget all state and load again.
        """
        ...

    def check(self) -> None:
        """Make sure that this process may still act as the controller. Cost: a look at the clock.

        Raises:
            Fenced: it may not any more: stop.
        """
        ...

    def absent(self, broker_ids: Iterable[int]) -> set[int]:
        """Return those of the brokers whose machine does not reach the store.

        Raises:
            StorageError: it can't be told now, which says nothing about any broker.
        """
        ...

    def resign(self) -> None:
        """Let the next candidate win, now. Every commit after this raises."""
        ...

    def close(self) -> None:
        """Resign, and let go of everything."""
        ...
