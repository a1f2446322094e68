"""A Kafka gateway in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import uvloop

from edge.kafka.config import KafkaConfig
from edge.kafka.gateway import Gateway

SECONDS = 10


@contextmanager
def running_gateway(bootstrap: str, **config: Any) -> Iterator[Gateway]:
    """Run a gateway on a free port, as its process does."""
    started: Future[tuple[Gateway, asyncio.AbstractEventLoop]] = Future()
    stopped = asyncio.Event()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        gateway = Gateway(KafkaConfig(**{"bootstrap": bootstrap, "port": 0, **config}), loop)
        try:
            await gateway.start()
            started.set_result((gateway, loop))
            await stopped.wait()
            await gateway.stop()
        finally:
            gateway.close()

    def run() -> None:
        try:
            uvloop.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    gateway, loop = started.result(SECONDS)
    try:
        yield gateway
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(SECONDS)
        assert not thread.is_alive()
