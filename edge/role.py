"""The process around a gateway or a bridge: its loop, its lifeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec
import structlog
import uvloop

from ingest.lifeline import Lifeline

BEAT_S = 0.25

_log = structlog.get_logger("edge")


class Role(Protocol):
    """What runs in the process."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def stats(self) -> msgspec.Struct: ...


OnFailed = Callable[[BaseException], None]
Open = Callable[[asyncio.AbstractEventLoop, OnFailed], AbstractContextManager[Role]]


def run_role(open_role: Open, lifeline: Lifeline) -> None:
    """Run a role until its lifeline says stop, or until it failed; then raise the reason.

    Args:
        open_role: Make it within the loop; left when it has stopped.
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(open_role, lifeline, loop))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _serve(open_role: Open, lifeline: Lifeline, loop: asyncio.AbstractEventLoop) -> None:
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
    beating = loop.create_task(_beat(lifeline))
    try:
        with open_role(loop, fail) as role:
            await role.start()
            lifeline.serve_stats(role.stats)
            lifeline.ready()
            await stop.wait()
            loop.remove_reader(lifeline.stop_fd)
            await role.stop()
    finally:
        beating.cancel()
    if failures:
        raise failures[0]


async def _beat(lifeline: Lifeline) -> None:
    while True:
        lifeline.beat()
        await asyncio.sleep(BEAT_S)
