"""Keep the picture of the appliance fresh: ask when somebody wants to know, and now and then when nobody does."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from ops.metrics.config import MonitorConfig
from ops.metrics.control_socket import Answer, ask_all
from ops.metrics.lag_asker import LagAsker
from ops.metrics.readiness import RUNNING, reasons
from ops.metrics.stats import MonitorStats
from ops.metrics.view import View, Watch

FRESH_MS = 20  # two who ask within this see one answer: a crowd of scrapers costs no more than one
_NOT_READY_MS = 250  # how often it looks while something is wrong: recovery is seen soon
_STATS_SECONDS = 0.5  # how long its own control socket waits for a fresh picture


class Observer:
    """Ask the processes and remember. Thread: the monitor's loop; `stats` may be called from any."""

    def __init__(self, config: MonitorConfig, *, own_name: str = "monitor") -> None:
        self._config = config
        self._own_name = own_name
        self._watch = Watch(topics_max=config.topics_max, groups_max=config.groups_max, expected=config.expected)
        self._lags = LagAsker(config.bootstrap)
        self._lags_asked_ms = -config.scrape_ms
        self._asking = asyncio.Lock()
        self._seen_ms = -FRESH_MS - 1
        self._scrapes = 0
        self._started_ms = _now_ms()
        self.view = View()
        self.reasons = ["no process was asked yet"]
        self.http_port = config.http_port
        self._loop: asyncio.AbstractEventLoop | None = None

    async def look(self, fresh_ms: int = FRESH_MS) -> View:
        """Return a picture at most `fresh_ms` old. Cost: one question to each process, if it is older."""
        async with self._asking:
            if _now_ms() - self._seen_ms > fresh_ms:
                answers = await ask_all(Path(self._config.run_dir), leave_out=self._own_name)
                answers.processes.append(self._myself())
                self.view = self._watch.step(answers, _now_ms(), self._lags.take())
                self._ask_lags(_now_ms())
                self.reasons = reasons(self.view, self._config.expected)
                self._seen_ms = _now_ms()
                self._scrapes += 1
        return self.view

    def _ask_lags(self, now_ms: int) -> None:
        """Have leaders asked about what lags, once every `scrape_ms`, however often somebody looks."""
        if now_ms - self._lags_asked_ms >= self._config.scrape_ms and self._lags.ask(self.view.groups.places):
            self._lags_asked_ms = now_ms

    def close(self) -> None:
        """Ask nobody any more."""
        self._lags.close()

    def _myself(self) -> Answer:
        up_s = (_now_ms() - self._started_ms) / 1000
        return Answer(self._own_name, "monitor", os.getpid(), self._started_ms, RUNNING, up_s)

    async def keep_looking(self) -> None:
        """Look every `scrape_ms`, so that little of what a process counted dies with it."""
        self._loop = asyncio.get_running_loop()
        while True:
            period_ms = min(self._config.scrape_ms, _NOT_READY_MS) if self.reasons else self._config.scrape_ms
            await self.look(period_ms // 2)
            await asyncio.sleep(period_ms / 1000)

    def stats(self) -> MonitorStats:
        """Return what its own control socket says: fresh, or what was seen last. Thread: any but the loop's."""
        if self._loop is not None:
            asking = self.look()
            try:
                asyncio.run_coroutine_threadsafe(asking, self._loop).result(_STATS_SECONDS)
            except TimeoutError:  # a process hangs, or too much is going on: what was seen last is still true enough
                pass
            except RuntimeError:  # the loop has ended
                asking.close()
        why = self.reasons
        return MonitorStats(self.http_port, not why, why, self.view.balance, self._scrapes)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
