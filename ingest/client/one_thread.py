"""A client that one thread at a time may use: a second one is told, before it does harm."""

from __future__ import annotations

import threading
from types import TracebackType

from ingest.errors import UsageError


class OneThread:
    """Let a thread in, again while it is in, and no other meanwhile.

    Raises:
        UsageError: another thread is in.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise UsageError(f"another thread uses {self._what}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
