"""What the requests and answers of all connections may hold together. Pure.

What has come is held until it is answered: beyond the bound no socket is read, and it goes on as answers are sent.
What has come in part waits for its sender, who may never send the rest: beyond the bound whoever holds most is closed.
Of answers that are not views of maps only as much is made as others have not left unread: then they are small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from ingest.records.header import BatchHeader

Batch = tuple[BatchHeader, memoryview]


class Memory:
    """Bytes held, by a gateway's connections. Thread: the loop's.

    Args:
        bytes_max: Of whole requests, of parts of others, and of answers.
    Attributes:
        unsent: Bytes of answers that are being made, or that clients have not read yet.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._paused: dict[Callable[[], None], None] = {}
        self._parts: dict[Callable[[], None], int] = {}
        self.whole = 0
        self.partial = 0
        self.unsent = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read until something is answered."""
        return self.whole >= self._bytes_max

    def hold_part(self, close: Callable[[], None], size: int) -> None:
        """Take note of how much a connection holds of a request that is not whole; whoever holds most may be closed.

        Args:
            close: Ends that connection.
        """
        self.partial += size - self._parts.pop(close, 0)
        if size:
            self._parts[close] = size
        while self.partial > self._bytes_max:
            largest = max(self._parts, key=self._parts.__getitem__)
            self.partial -= self._parts.pop(largest)
            largest()

    @property
    def answer_room(self) -> int:
        """How many bytes more of answers may be made."""
        return max(0, self._bytes_max - self.unsent)

    def when_free(self, go_on: Callable[[], None]) -> None:
        """Have one called, once, when there is room again."""
        self._paused[go_on] = None

    def forget(self, go_on: Callable[[], None]) -> None:
        """Have one not called any more."""
        self._paused.pop(go_on, None)

    def release(self, size: int) -> None:
        """Take note that a whole request is held no longer."""
        self.whole -= size
        if self._paused and not self.is_full:
            paused, self._paused = self._paused, {}
            for go_on in paused:
                go_on()


class Making:
    """What is held of an answer while it is made. A context manager: afterwards it is its connection's, or given up."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._size = 0

    def fitting(self, batches: Sequence[Batch], *, all_copied: bool) -> Sequence[Batch]:
        """Return as many batches as there is room for, one at least of an answer, and count them.

        Columns are made anew; rows are views of maps, unless TLS wants a copy.
        """
        for index, (header, batch) in enumerate(batches):
            if header.is_columns or all_copied:
                if self._size and batch.nbytes > self._memory.answer_room:
                    return batches[:index]
                self._size += batch.nbytes
                self._memory.unsent += batch.nbytes
        return batches

    def __enter__(self) -> Making:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._memory.unsent -= self._size
