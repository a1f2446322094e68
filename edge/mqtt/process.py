"""The process around a gateway or a bridge: loop, log writer, lifeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog
import uvloop

from edge.mqtt.config import BridgeConfig, MqttConfig
from edge.mqtt.log_writer import LogWriter, open_log_writer
from ingest.lifeline import Lifeline

BEAT_S = 0.25

_log = structlog.get_logger("mqtt")


class Role(Protocol):
    """What runs in the process."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def stats(self) -> msgspec.Struct: ...


OnFailed = Callable[[BaseException], None]
Make = Callable[[LogWriter, asyncio.AbstractEventLoop, OnFailed], Role]


def run_role(make: Make, config: MqttConfig | BridgeConfig, lifeline: Lifeline, *, client_id: str) -> None:
    """Run a role until its lifeline says stop, or until it failed; then raise the reason."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(make, config, lifeline, loop, client_id))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _serve(
    make: Make,
    config: MqttConfig | BridgeConfig,
    lifeline: Lifeline,
    loop: asyncio.AbstractEventLoop,
    client_id: str,
) -> None:
    stop = asyncio.Event()
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    def on_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, AssertionError):
            fail(error)  # a broken invariant ends the process; what was not acknowledged is sent again
        _log.error("in the loop", problem=context.get("message"), error=repr(error))

    loop.set_exception_handler(on_exception)
    loop.add_reader(lifeline.stop_fd, stop.set)
    log = open_log_writer(
        config.bootstrap,
        loop,
        client_id=client_id,
        buffer_memory=config.buffer_memory,
        batch_size=config.batch_size,
        compression_type=config.compression_type,
    )
    beating = loop.create_task(_beat(lifeline))
    try:
        role = make(log, loop, fail)
        await role.start()
        lifeline.serve_stats(role.stats)
        lifeline.ready()
        await stop.wait()
        loop.remove_reader(lifeline.stop_fd)
        await role.stop()
    finally:
        beating.cancel()
        log.close(0)
    if failures:
        raise failures[0]


async def _beat(lifeline: Lifeline) -> None:
    while True:
        lifeline.beat()
        await asyncio.sleep(BEAT_S)
