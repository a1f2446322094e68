"""A log in memory that behaves as a producer does towards a gateway: answers later, fails, fills up.

Shipped for tests of both sides; tests/edge/mqtt/test_log_writer.py holds it and the real producer to one contract.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from edge.mqtt.log_writer import Handle
from ingest.errors import BufferFull, ForebayError

RECORD_OVERHEAD_BYTES = 24


class FakeRecord:
    """One record that was sent, and its handle."""

    __slots__ = ("error", "headers", "key", "resolved", "size", "topic", "value")

    def __init__(self, topic: str, value: bytes, key: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        self.topic = topic
        self.value = value
        self.key = key
        self.headers = headers
        self.size = RECORD_OVERHEAD_BYTES + len(value) + len(key or b"")
        self.resolved = False
        self.error: ForebayError | None = None

    def done(self) -> bool:
        return self.resolved

    def exception(self) -> ForebayError | None:
        return self.error

    def header(self, name: str) -> bytes | None:
        """Return the first header of this name."""
        return dict(reversed(self.headers)).get(name)


class FakeLog:
    """Take records; acknowledge them in the next loop tick, or when told.

    Args:
        holds: Acknowledge only on `acknowledge` and `fail`.
        refuse: (topic, value) -> the error `send` raises, or None.
        reject: (topic, value) -> the error the record fails with later, or None.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        holds: bool = False,
        buffer_memory: int = 1 << 26,
        keep: bool = True,
        refuse: Callable[[str, bytes], ForebayError | None] | None = None,
        reject: Callable[[str, bytes], ForebayError | None] | None = None,
    ) -> None:
        self._loop = loop
        self._free_bytes = buffer_memory
        self._waiting: deque[tuple[FakeRecord, Callable[[Handle], None] | None]] = deque()
        self._due = False
        self._keep = keep
        self.holds = holds
        self.refuse = refuse
        self.reject = reject
        self.records: list[FakeRecord] = []
        self.sent = 0
        self.full_count = 0
        self.changed = asyncio.Event()

    def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        *,
        headers: Sequence[tuple[str, bytes]] | None = None,
        on_delivery: Callable[[Handle], None] | None = None,
    ) -> Handle:
        error = self.refuse(topic, value) if self.refuse is not None else None
        if error is not None:
            raise error
        record = FakeRecord(topic, value, key, headers or ())
        if record.size > self._free_bytes:
            self.full_count += 1
            raise BufferFull("the fake log is full")
        self._free_bytes -= record.size
        self._waiting.append((record, on_delivery))
        self.sent += 1
        self.changed.set()
        if not self.holds and not self._due:
            self._due = True
            self._loop.call_soon(self._acknowledge_due)
        return record

    def send_run(
        self,
        topic: str,
        values: Sequence[bytes],
        key: bytes | None = None,
        *,
        headers: Sequence[tuple[str, bytes]] | None = None,
        on_delivery: Callable[[Handle], None] | None = None,
    ) -> Sequence[tuple[Handle, int]]:
        taken: list[tuple[Handle, int]] = []
        for value in values:
            try:
                taken.append((self.send(topic, value, key, headers=headers, on_delivery=on_delivery), 1))
            except (BufferFull, ForebayError):
                if not taken:
                    raise
                break
        return taken

    @property
    def buffer_available_bytes(self) -> int:
        return self._free_bytes

    @property
    def waiting(self) -> int:
        """Records sent and not resolved."""
        return len(self._waiting)

    def acknowledge(self, count: int | None = None) -> None:
        """Append the oldest waiting records, all or `count`."""
        left = len(self._waiting) if count is None else count
        while self._waiting and left:
            left -= 1
            record, on_delivery = self._waiting.popleft()
            error = self.reject(record.topic, record.value) if self.reject is not None else None
            if error is None and self._keep:
                self.records.append(record)
            self._resolve(record, on_delivery, error)

    def fail(self, error: ForebayError) -> None:
        """Fail the oldest waiting record."""
        record, on_delivery = self._waiting.popleft()
        self._resolve(record, on_delivery, error)

    def close(self, timeout: float | None = None) -> None:
        self._waiting.clear()

    def _acknowledge_due(self) -> None:
        self._due = False
        if not self.holds:
            self.acknowledge()

    def _resolve(
        self, record: FakeRecord, on_delivery: Callable[[Handle], None] | None, error: ForebayError | None
    ) -> None:
        record.resolved, record.error = True, error
        self._free_bytes += record.size
        self.changed.set()
        if on_delivery is not None:
            on_delivery(record)
