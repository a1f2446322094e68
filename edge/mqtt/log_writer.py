"""What gateways need of a producer: ingest.producer.Producer attached to their loop, or the fake in fake_log.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from ingest.errors import ForebayError
from ingest.producer import Producer

DELIVERY_TIMEOUT_MS = 100 * 365 * 86_400_000  # hold the PUBACK for as long as it takes


class Handle(Protocol):
    """One record that was sent."""

    def done(self) -> bool: ...

    def exception(self) -> ForebayError | None: ...


class LogWriter(Protocol):
    """Append records; driven by an asyncio loop. Thread: the loop's."""

    def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        *,
        headers: Sequence[tuple[str, bytes]] | None = None,
        on_delivery: Callable[[Handle], None] | None = None,
    ) -> Handle:
        """Take one record; `on_delivery` is called once, later, in the loop.

        Raises:
            BufferFull: it was not taken; there is room again after some deliveries.
            RemoteError: code 10 or 17: it never can be.
        """
        ...

    def send_run(
        self,
        topic: str,
        values: Sequence[bytes],
        key: bytes | None = None,
        *,
        headers: Sequence[tuple[str, bytes]] | None = None,
        on_delivery: Callable[[Handle], None] | None = None,
    ) -> Sequence[tuple[Handle, int]]:
        """Take records that share key and headers; return handles, each with how many records it stands for.

        Fewer than given are taken where there is room for some only.

        Raises:
            BufferFull, RemoteError: as `send`; none was taken.
        """
        ...

    @property
    def buffer_available_bytes(self) -> int: ...

    def close(self, timeout: float | None = None) -> None: ...


def open_log_writer(
    bootstrap: str,
    loop: asyncio.AbstractEventLoop,
    *,
    client_id: str,
    buffer_memory: int,
    batch_size: int,
    compression_type: str,
) -> LogWriter:
    """Return a producer driven by `loop` that never gives up on a record.

    Raises:
        ConfigError: there is no appliance at `bootstrap`.
    """
    producer = Producer(
        bootstrap,
        acks="all",
        enable_idempotence=True,
        batch_size=batch_size,
        buffer_memory=buffer_memory,
        compression_type=compression_type,
        delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
        max_block_ms=0,
        client_id=client_id,
    )
    producer.attach(loop)
    return producer
