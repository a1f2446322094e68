"""The doorbells of all brokers: connections wait for records here, together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from edge.kafka.brokers import Brokers, leader_code
from edge.kafka.doorbell import Doorbell, Rung, Watched
from ingest.client.offsets import ITEMS_MAX
from ingest.errors import ForebayError
from ingest.wire.messages import FetchPartition, FetchRequest

WAIT_MS = 30_000
TURN_MS = 50  # where more is waited for than one request can name
GRACE_MS = 2_000
AGAIN_S = 0.02  # before a broker that is away is asked again

_log = structlog.get_logger("kafka")
News = asyncio.Future[bool]


class Doorbells:
    """Waits for records. Thread: the loop's."""

    def __init__(self, brokers: Brokers, loop: asyncio.AbstractEventLoop) -> None:
        self._brokers = brokers
        self._loop = loop
        self._bells: dict[int, Doorbell[News]] = {}
        self._due: set[int] = set()
        self._asking: set[asyncio.Task[None]] = set()

    async def wait(self, watched: Sequence[tuple[int, Watched]], timeout_s: float) -> bool:
        """Wait until one of some partitions has records beyond what is watched, or its leader says otherwise.

        Args:
            watched: Leaders, and what is watched there.
        Returns:
            False: the time is over.
        """
        news: News = self._loop.create_future()
        for leader, item in watched:
            bell = self._bells.get(leader)
            if bell is None:
                bell = self._bells[leader] = Doorbell(ITEMS_MAX)
            bell.watch(news, item)
            self._ask_soon(leader, bell)
        timer = self._loop.call_later(timeout_s, _tell, news, False)
        try:
            return await news
        finally:
            timer.cancel()
            for leader, item in watched:
                self._bells[leader].leave(news, item)

    def _ask_soon(self, leader: int, bell: Doorbell[News]) -> None:
        """Ask at the end of this turn of the loop, once for all that came to wait in it."""
        if bell.is_wanting and leader not in self._due:
            self._due.add(leader)
            self._loop.call_soon(self._ask, leader, bell)

    def _ask(self, leader: int, bell: Doorbell[News]) -> None:
        self._due.discard(leader)
        if bell.is_wanting:
            task = self._loop.create_task(self._ring(leader, bell))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ring(self, leader: int, bell: Doorbell[News]) -> None:
        wait_ms = TURN_MS if bell.in_turns else WAIT_MS
        number, asked = bell.ask()
        items = [FetchPartition(item.topic_id, item.partition, item.offset, 0, item.leader_epoch) for item in asked]
        request = FetchRequest(wait_ms, 1, 0, items)
        try:
            answer, _ = await self._brokers.ask(leader, request, timeout_ms=wait_ms + GRACE_MS)
        except Exception as error:  # whatever it is, who waits is told
            if not isinstance(error, ForebayError):
                _log.error("a doorbell failed", error=repr(error), exc_info=error)
            self._brokers.outdated(leader_code(error))
            await asyncio.sleep(AGAIN_S)
            told = bell.failed(number)
        else:
            rung = {}
            for item in answer.partitions:
                self._brokers.outdated(item.error_code)
                rung[item.topic_id, item.partition] = Rung(item.error_code, item.high_watermark)
            told = bell.answered(number, rung)
        for news in told:
            _tell(news, True)
        self._ask_soon(leader, bell)

    def close(self) -> None:
        for task in self._asking:
            task.cancel()


def _tell(news: News, rung: bool) -> None:
    if not news.done():
        news.set_result(rung)
