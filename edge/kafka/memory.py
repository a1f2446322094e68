"""What the requests of all connections may hold together. Pure.

What has come is held until it is answered: beyond the bound no socket is read, and it goes on as answers are sent.
What has come in part waits for its sender, who may never send the rest: who takes that beyond the bound is closed.
"""

from __future__ import annotations

from collections.abc import Callable


class Memory:
    """Bytes held, by a gateway's connections. Thread: the loop's.

    Args:
        bytes_max: Of whole requests, and of parts of others.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._paused: dict[Callable[[], None], None] = {}
        self.whole = 0
        self.partial = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read until something is answered."""
        return self.whole >= self._bytes_max

    @property
    def is_clogged(self) -> bool:
        """Whether more is held of requests that are not whole than may be."""
        return self.partial > self._bytes_max

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
