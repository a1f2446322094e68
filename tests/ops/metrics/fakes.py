"""An appliance made of canned stats: control sockets in a directory, and a lifeline for the process under test."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from brokerd.control.stats import ControllerStats
from brokerd.serving.stats import BrokerStats, PartitionStats
from ingest.latency import LatencyRecorder


def histogram(*seconds: float) -> Any:
    recorder = LatencyRecorder()
    for one in seconds:
        recorder.observe(one)
    return recorder.snapshot()


def partition(topic: str = "sensors", number: int = 0, **changes: Any) -> PartitionStats:
    stats = PartitionStats(
        topic=topic,
        partition=number,
        leader_epoch=1,
        log_start_offset=0,
        high_watermark=90,
        log_end_offset=100,
        flushed_end=90,
        size_bytes=4096,
        segments=1,
    )
    return msgspec.structs.replace(stats, **changes)


def broker(broker_id: int = 1, **changes: Any) -> BrokerStats:
    stats = BrokerStats(
        broker_id=broker_id,
        broker_epoch=3,
        metadata_version=7,
        registered=True,
        directory_id="d",
        directory_failed=False,
        disk_full=False,
        partitions=[partition(number=broker_id)],
        records_in_total={"sensors": 100},
        bytes_in_total={"sensors": 4096},
        bytes_out_total={"sensors": 2048},
        requests_total={"PRODUCE": 10, "LIST_OFFSETS": 1},
        errors_total={"MESSAGE_TOO_LARGE": 1},
        request_seconds={"PRODUCE": histogram(0.001, 0.002, 0.003), "LIST_OFFSETS": histogram()},
        flush_seconds=histogram(0.0004),
        malformed_total=2,
        unroutable_total=1,
        corrupt_total=0,
        parked_produces=1,
        unsent_bytes=10,
        unflushed_bytes=512,
        disk_free_bytes=10**10,
    )
    return msgspec.structs.replace(stats, **changes)


def controller(**changes: Any) -> ControllerStats:
    stats = ControllerStats(
        role="active", controller_epoch=4, version=7, topics=1, partitions=2, brokers=2, brokers_alive=2
    )
    return msgspec.structs.replace(stats, **changes)


def answer(name: str, role: str, stats: Any, *, incarnation: int = 1, state: str = "running", pid: int = 0) -> bytes:
    """Return the line a control socket gives."""
    fields = {
        "name": name,
        "role": role,
        "pid": pid or os.getpid(),
        "incarnation": incarnation,
        "state": state,
        "uptime_s": 12.5,
        "stats": stats,
    }
    return msgspec.json.encode(fields) + b"\n"


def kafka_gateway(flow: dict[str, Any], connections: int, seconds: Any, errors: int) -> dict[str, Any]:
    """Return the stats of one process of a Kafka gateway."""
    seen = {"seconds": seconds, "errors_total": {}}
    apis = {"Produce": {**seen, "errors_total": {"CORRUPT_MESSAGE": errors}}, "Metadata": seen, "Fetch": seen}
    sockets = {"bytes_in_total": 100, "bytes_out_total": 200, "connections": connections, "connections_opened_total": 9}
    return {**flow, **sockets, "apis": apis, "fetched_total": 50, "malformed_total": 1, "failed_total": 2}


class FakeAppliance:
    """Control sockets of processes that say what the test wants. Thread: a loop of its own."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.says: dict[str, bytes] = {}
        self._loop = asyncio.new_event_loop()
        self._servers: dict[str, asyncio.AbstractServer] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-appliance")
        self._thread.start()

    def say(self, name: str, line: bytes) -> None:
        """Let a process answer with this line from now on."""
        self.says[name] = line
        if name not in self._servers:
            asyncio.run_coroutine_threadsafe(self._serve(name), self._loop).result(5)

    def kill(self, name: str) -> None:
        """Leave the socket's file behind with nobody listening, as a killed process does."""
        server = self._servers.pop(name)
        self._loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(server.wait_closed(), self._loop).result(5)
        (self.run_dir / f"{name}.ctl").touch()

    def close(self) -> None:
        for name in list(self._servers):
            self.kill(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _serve(self, name: str) -> None:
        async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(self.says[name])
            await writer.drain()
            writer.close()

        path = self.run_dir / f"{name}.ctl"
        path.unlink(missing_ok=True)
        self._servers[name] = await asyncio.start_unix_server(tell, path)


class FakeLifeline:
    """A lifeline whose other end is the test."""

    def __init__(self) -> None:
        self.stop_fd, self._stop_end = os.pipe()
        self.beats = 0
        self.is_ready = threading.Event()
        self.stats: Callable[[], msgspec.Struct] | None = None

    def beat(self) -> None:
        self.beats += 1

    def ready(self) -> None:
        self.is_ready.set()

    def serve_stats(self, stats: Callable[[], msgspec.Struct]) -> None:
        self.stats = stats

    def stop(self) -> None:
        os.write(self._stop_end, b"x")

    def close(self) -> None:
        os.close(self.stop_fd)
        os.close(self._stop_end)
