"""The metadata store as the controller sees it: a handful of calls, whatever keeps the records.

`brokerd.control.embedded` is for one machine, `brokerd.control.zookeeper` for several: there campaign is an ephemeral
node, the controller epoch a node every transaction checks, a broker's presence an ephemeral node.
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

    def check(self) -> None:
        """Make sure that this process may still act as the controller. Cost: a look at the clock.

        Raises:
            Fenced: it may not any more: stop.
        """
        ...

    def register_broker(self, broker_id: int, incarnation: int) -> None:
        """Make the presence of a broker of this machine known to all candidates, for as long as this process lives.

        A standby does so too, before its campaign. Calling again with another incarnation replaces it. Does not wait.
        """
        ...

    def present(self) -> dict[int, int]:
        """Return the brokers that are present on any machine: id -> incarnation.

        Raises:
            StorageError: it can't be told now, which says nothing about any broker.
        """
        ...

    def controller_endpoint(self) -> str:
        """Return where the active controller serves, as the campaign saw it last; "" if there is none. Thread: any."""
        ...

    def resign(self) -> None:
        """Let the next candidate win, now. Every commit after this raises. Brokers registered here stay present."""
        ...

    def close(self) -> None:
        """Resign, and take back the presence of all brokers registered here."""
        ...
