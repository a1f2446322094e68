"""What the matrix asks of a client that others wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

HEARTBEAT_MS = 300  # a member hears of a rebalance with one
WAIT_S = 30.0


class Member(Protocol):
    """A member of a group that reads until it is closed, and leaves then."""

    def values(self) -> list[bytes]:
        """Return all it has read so far."""
        ...

    def close(self) -> None: ...


class ForeignClient(Protocol):
    """One client. What it has not stands in `lacks`, with the reason; those methods are not called.

    Attributes:
        needs: The capability of the machine that it is.
        lacks: By feature: produce, consume, group, time, admin.
    """

    name: ClassVar[str]
    needs: ClassVar[str | None]
    lacks: ClassVar[Mapping[str, str]]

    def produce(self, address: str, topic: str, codec: str, values: Sequence[bytes]) -> None:
        """Write values, and return when all are acknowledged."""

    def consume(self, address: str, topic: str, count: int) -> list[bytes]:
        """Read so many values from the start of all partitions."""
        ...

    def join(self, address: str, topic: str, group: str) -> Member:
        """Join a group, from the start where nothing is committed."""
        ...

    def offset_at(self, address: str, topic: str, partition: int, at_ms: int) -> int:
        """Return the offset of the first record at or after a time."""
        ...

    def administer(self, address: str, name: str) -> None:
        """Create a topic, see it, change it and delete it, and what else there is."""


class ThreadMember:
    """A member that reads in a thread, with the loop it is given."""

    def __init__(self, loop: Callable[[Callable[[], bool], list[bytes]], None]) -> None:
        """Args: loop: Reads into the list until the function says to stop, and leaves."""
        self._stopping = threading.Event()
        self._values: list[bytes] = []
        self._error: BaseException | None = None

        def run() -> None:
            try:
                loop(self._stopping.is_set, self._values)
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def values(self) -> list[bytes]:
        if self._error is not None:
            raise self._error
        return list(self._values)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


def until(done: Callable[[], object], seconds: float = WAIT_S) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
