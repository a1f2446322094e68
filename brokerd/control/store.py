"""The metadata store as the controller sees it: a handful of calls, whatever keeps the records.

`embedded` (one machine) is `brokerd.control.embedded`; a ZooKeeper ensemble can stand behind the same calls: campaign
is an ephemeral node, the controller epoch a node every transaction checks, a broker's presence an ephemeral node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def register_broker(self, broker_id: int, incarnation: int) -> None:
        """Make the presence of a broker known to other candidates, as long as its process lives."""
        ...

    def wait_for_change(self, timeout_ms: int) -> list[str]:
        """Wait for what others change (a broker's presence, controllership) and return the paths, [] after the time."""
        ...

    def resign(self) -> None:
        """Let the next candidate win, now. Every commit after this raises."""
        ...
