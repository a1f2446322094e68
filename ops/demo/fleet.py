"""The fleet: a process of its own that runs all devices and says on stdout, in JSON lines, how they fare.

`python -m ops.demo.fleet JSON`. The line "stop" on stdin ends the publishing: what is under way is waited for, the
last line tells everything. The end of stdin ends the process at once.
"""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import time

import msgspec
import numpy as np
import uvloop

from ops.demo.device import FAULTS, Device
from ops.demo.payload import encode_payload
from ops.demo.publisher import Message, Publisher
from ops.demo.tally import Published

TICK_S = 0.02
REPORT_S = 0.1
LATENCIES_MAX = 20_000  # kept for the percentiles; then a random one makes room
LATE_S = 1.0  # a device that is so far behind skips what it missed


class FleetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices, where to, how often each measures."""

    host: str
    port: int
    devices: int
    rate: float
    window: int = 20
    drain_s: float = 30.0
    seed: int = 1


class FleetReport(msgspec.Struct, kw_only=True):
    """How the fleet fares, all devices together. `published_by` is filled in the last report.

    Attributes:
        gap_max_ms: The longest time without a PUBACK between two of them.
    """

    published: int = 0
    acknowledged: int = 0
    in_flight: int = 0
    waiting: int = 0
    connected: int = 0
    reconnects: int = 0
    resent: int = 0
    skipped: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    gap_max_ms: float = 0.0
    faults: dict[str, int] = {}
    refused: str = ""
    published_by: list[Published] | None = None


class Latencies:
    """Seconds from PUBLISH to PUBACK: a fair sample and the greatest."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._kept: list[float] = []
        self._seen = 0
        self.max_s = 0.0

    def add(self, seconds: float) -> None:
        self._seen += 1
        self.max_s = max(self.max_s, seconds)
        if len(self._kept) < LATENCIES_MAX:
            self._kept.append(seconds)
        elif (at := self._dice.randrange(self._seen)) < LATENCIES_MAX:
            self._kept[at] = seconds

    def percentiles_ms(self) -> tuple[float, float]:
        if not self._kept:
            return 0.0, 0.0
        p50, p99 = np.percentile(np.asarray(self._kept), (50, 99))
        return float(p50) * 1000, float(p99) * 1000


class Fleet:
    """All devices and their sessions. Thread: the loop."""

    def __init__(self, config: FleetConfig) -> None:
        dice = random.Random(config.seed)
        self._config = config
        self._latencies = Latencies(random.Random(config.seed))
        self._devices = [Device(n, random.Random(dice.random()), config.rate) for n in range(config.devices)]
        self._publishers = [
            Publisher(config.host, config.port, f"dev-{n:05d}", config.window, self._acknowledged)
            for n in range(config.devices)
        ]
        interval = 1 / config.rate
        self._due_s = [interval * n / config.devices for n in range(config.devices)]
        self._skipped = 0
        self._acknowledged_s: float | None = None
        self._gap_max_s = 0.0

    def _acknowledged(self, message: Message, seconds: float) -> None:
        self._latencies.add(seconds)
        now_s = time.monotonic()
        if self._acknowledged_s is not None:
            self._gap_max_s = max(self._gap_max_s, now_s - self._acknowledged_s)
        self._acknowledged_s = now_s

    async def run(self) -> None:
        """Publish until told to stop, then wait for the last PUBACKs."""
        loop = asyncio.get_running_loop()
        orders = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        sessions = [asyncio.create_task(publisher.run()) for publisher in self._publishers]
        stop = asyncio.create_task(orders.readline())
        try:
            await self._publish_until(stop)
            if stop.result() == b"":
                return  # whoever started us has gone
            gone = asyncio.create_task(orders.readline())
            deadline = time.monotonic() + self._config.drain_s
            while time.monotonic() < deadline and not gone.done():
                if all(publisher.idle for publisher in self._publishers):
                    break
                self._report()
                await asyncio.sleep(TICK_S)
            gone.cancel()
            self._report(last=True)
        finally:
            for session in sessions:
                session.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)

    async def _publish_until(self, stop: asyncio.Task[bytes]) -> None:
        began = time.monotonic()
        report_s = 0.0
        while not stop.done():
            now_s = time.monotonic() - began
            self._measure(now_s)
            if now_s >= report_s:
                report_s = now_s + REPORT_S
                self._report()
                for publisher in self._publishers:
                    publisher.tick(time.monotonic())
            await asyncio.wait([stop], timeout=TICK_S)

    def _measure(self, now_s: float) -> None:
        """Let every device measure whose time it is."""
        interval = 1 / self._config.rate
        sent_us = time.time_ns() // 1000
        for number, due_s in enumerate(self._due_s):
            if due_s > now_s:
                continue
            if now_s - due_s > LATE_S:
                due_s = now_s
            while due_s <= now_s:
                self._measure_one(number, due_s, sent_us)
                due_s += interval
            self._due_s[number] = due_s

    def _measure_one(self, number: int, at_s: float, sent_us: int) -> None:
        publisher = self._publishers[number]
        reading = self._devices[number].read(at_s)
        if reading is None:
            return
        if publisher.full:
            self._skipped += 1
            return
        payload = encode_payload(number, publisher.published, reading.sensor, reading.value, sent_us)
        publisher.publish(f"plant/{number % 7}/dev-{number:05d}/{reading.sensor}".encode(), payload)

    def _report(self, *, last: bool = False) -> None:
        publishers = self._publishers
        p50_ms, p99_ms = self._latencies.percentiles_ms()
        report = FleetReport(
            published=sum(publisher.published for publisher in publishers),
            acknowledged=sum(publisher.acknowledged for publisher in publishers),
            in_flight=sum(publisher.in_flight for publisher in publishers),
            connected=sum(publisher.connected for publisher in publishers),
            reconnects=sum(max(0, publisher.connects - 1) for publisher in publishers),
            resent=sum(publisher.resent for publisher in publishers),
            skipped=self._skipped,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            max_ms=self._latencies.max_s * 1000,
            gap_max_ms=self._gap_max_s * 1000,
            faults={kind: sum(device.faults[kind] for device in self._devices) for kind in FAULTS},
            refused=next((publisher.refused for publisher in publishers if publisher.refused), ""),
        )
        report.waiting = report.published - report.acknowledged - report.in_flight
        if last:
            report.published_by = [
                Published(publisher.published, publisher.unacknowledged, publisher.transmissions)
                for publisher in publishers
            ]
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    """Run the fleet that the first argument describes."""
    config = msgspec.json.decode(sys.argv[1], type=FleetConfig)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, config.devices + 256) if hard != resource.RLIM_INFINITY else config.devices + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    uvloop.run(Fleet(config).run())


if __name__ == "__main__":
    main()
