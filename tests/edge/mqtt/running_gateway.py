"""A gateway or a bridge in a thread of its own, over the fake log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import uvloop

from edge.mqtt.bridge import Bridge
from edge.mqtt.config import BridgeConfig, MqttConfig
from edge.mqtt.fake_log import FakeLog, FakeRecord
from edge.mqtt.gateway import Gateway
from edge.mqtt.process import Role
from edge.mqtt.stats import BridgeStats, MqttStats

T = TypeVar("T")
SECONDS = 10


class Running:
    """Thread: the test's; what touches the role goes through `call`."""

    def __init__(self, log: dict[str, Any] | None) -> None:
        self.failures: list[BaseException] = []
        self._log_options = log or {}
        self._started: Future[None] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        assert not self.failures

    def stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(SECONDS)
            assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                self.failures.append(error)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(
            lambda _, context: self.failures.append(context.get("exception") or RuntimeError(context["message"]))
        )
        self.log = FakeLog(self.loop, **self._log_options)
        self.role = self.make()
        await self.role.start()
        self._started.set_result(None)
        await self._stop.wait()
        await self.role.stop()

    def make(self) -> Role:
        raise NotImplementedError

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in the role's thread and return what it returns."""

        async def run() -> T:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(SECONDS)

    def until(self, true: Callable[[], Any]) -> None:
        """Wait until something is true, looked at in the role's thread."""

        async def wait() -> None:
            async with asyncio.timeout(SECONDS):
                while not true():
                    await asyncio.sleep(0.002)

        asyncio.run_coroutine_threadsafe(wait(), self.loop).result(SECONDS + 1)

    def records(self, count: int) -> list[FakeRecord]:
        """Wait for so many records in the log and return them."""
        self.until(lambda: len(self.log.records) >= count)
        return list(self.log.records)

    def check_balance(self) -> None:
        stats: Any = self.role.stats()
        assert stats.received_total == stats.acknowledged_total + stats.refused_total + stats.in_flight
        assert stats.appended_total >= stats.acknowledged_total


class RunningGateway(Running):
    """A gateway on a free port."""

    def __init__(self, *, log: dict[str, Any] | None = None, **config: Any) -> None:
        super().__init__(log)
        self.config = MqttConfig(**{"bootstrap": "fake", "port": 0, "connections_max": 500, **config})

    def make(self) -> Gateway:
        self.gateway = Gateway(self.config, self.log, self.loop, on_failed=self.failures.append)
        return self.gateway

    @property
    def port(self) -> int:
        return self.gateway.port

    def stats(self) -> MqttStats:
        return self.gateway.stats()


class RunningBridge(Running):
    """A bridge of the broker on `port`."""

    def __init__(self, port: int, *, log: dict[str, Any] | None = None, **config: Any) -> None:
        super().__init__(log)
        self.config = BridgeConfig(**{"bootstrap": "fake", "port": port, **config})

    def make(self) -> Bridge:
        self.bridge = Bridge(self.config, self.log, self.loop, on_failed=self.failures.append)
        return self.bridge

    def __enter__(self) -> Self:
        super().__enter__()
        self.until(lambda: self.bridge.subscribed)
        return self

    def stats(self) -> BridgeStats:
        return self.bridge.stats()
