"""One contract for the fake log and the real producer, driven by a loop; and a gateway over a real broker, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from edge.mqtt.fake_log import FakeLog
from edge.mqtt.log_writer import Handle, LogWriter, open_log_writer
from ingest import Consumer
from ingest.errors import BufferFull, RemoteError
from tests.cluster import Cluster
from tests.edge.mqtt import client_packets as c
from tests.edge.mqtt.raw_device import RawDevice
from tests.processes import Processes

ROOT = Path(__file__).parents[3]
Open = Callable[[asyncio.AbstractEventLoop, int], LogWriter]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    processes = Processes()
    running = Cluster(processes, tmp_path_factory.mktemp("cluster"))
    try:
        running.start()
        yield running
    finally:
        processes.end()
        running.close()


@pytest.fixture(params=["fake", "producer"])
def open_log(request: pytest.FixtureRequest) -> Open:
    if request.param == "fake":
        return lambda loop, memory: FakeLog(loop, buffer_memory=memory)
    bootstrap = request.getfixturevalue("cluster").bootstrap

    def open_(loop: asyncio.AbstractEventLoop, memory: int) -> LogWriter:
        return open_log_writer(
            bootstrap, loop, client_id="t", buffer_memory=memory, batch_size=16384, compression_type="none"
        )

    return open_


def drive(open_log: Open, use: Callable[[LogWriter], Awaitable[None]], memory: int = 1 << 20) -> None:
    async def run() -> None:
        log = open_log(asyncio.get_running_loop(), memory)
        try:
            async with asyncio.timeout(20):
                await use(log)
        finally:
            log.close(0)

    uvloop.run(run())


def test_deliveries_are_told_later_once_and_in_order(open_log: Open) -> None:
    async def use(log: LogWriter) -> None:
        told: list[Handle] = []
        done = asyncio.Event()

        def on_delivery(handle: Handle) -> None:
            assert handle.done()
            assert handle.exception() is None
            told.append(handle)
            if len(told) == 100:
                done.set()

        sent = [
            log.send("order", b"%d" % n, b"k", headers=(("n", b"%d" % n),), on_delivery=on_delivery) for n in range(100)
        ]
        assert not told
        await done.wait()
        assert told == sent

    drive(open_log, use)


def test_a_full_buffer_raises_and_has_room_again_after_deliveries(open_log: Open) -> None:
    async def use(log: LogWriter) -> None:
        told: list[Handle] = []
        count = 0
        with pytest.raises(BufferFull):  # noqa: PT012
            for count in range(10_000):  # noqa: B007
                log.send("full", b"x" * 1000, on_delivery=told.append)
        assert count > 10
        while len(told) < count:
            await asyncio.sleep(0.001)
        room = log.buffer_available_bytes
        log.send("full", b"x" * 1000, on_delivery=told.append)
        while len(told) < count + 1:
            await asyncio.sleep(0.001)
        assert log.buffer_available_bytes >= room - 100

    drive(open_log, use, memory=200_000)


def test_the_producer_refuses_at_once_what_can_never_be_sent(cluster: Cluster) -> None:
    async def run() -> None:
        log = open_log_writer(
            cluster.bootstrap,
            asyncio.get_running_loop(),
            client_id="t",
            buffer_memory=1 << 26,
            batch_size=16384,
            compression_type="none",
        )
        try:
            with pytest.raises(RemoteError) as caught:
                log.send("../x", b"x")
            assert caught.value.code == 17
            told: list[Handle] = []
            log.send("large", b"x", on_delivery=told.append)
            while not told:
                await asyncio.sleep(0.001)
            with pytest.raises(RemoteError) as caught:
                log.send("large", b"x" * (20 << 20))
            assert caught.value.code == 10
        finally:
            log.close(0)

    uvloop.run(asyncio.wait_for(run(), 20))


def start_gateway(processes: Processes, bootstrap: str, port: int) -> subprocess.Popen[bytes]:
    config = json.dumps({"bootstrap": bootstrap, "port": port})
    gateway = processes.start(
        [sys.executable, "-m", "tests.edge.mqtt.role_process", "gateway", config], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert gateway.stdout is not None
    while not gateway.stdout.readline().startswith(b"ready"):
        assert gateway.poll() is None
    return gateway


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_acknowledged_before_a_kill_is_in_the_log(
    cluster: Cluster, processes: Processes, free_port: Callable[[], int], qos: int
) -> None:
    port = free_port()
    acknowledged: set[int] = set()
    count = 600
    pending = list(range(count))
    sent: set[int] = set()
    device_id = f"killed-{qos}"
    for kill_after in (150, 150, None):
        gateway = start_gateway(processes, cluster.bootstrap, port)
        with RawDevice(port) as device:
            assert device.connect(device_id, clean=False) == b"\0\0", "a session does not outlive its gateway"
            window = 0
            before = len(acknowledged)
            queue = list(pending)
            while len(acknowledged) < count:
                while queue and window < 20:
                    number = queue.pop(0)
                    with contextlib.suppress(ConnectionError):  # killed: what it said before is still to be read
                        device.send(c.publish("a", b"%d" % number, qos=qos, mid=number + 1, dup=number in sent))
                    sent.add(number)
                    window += 1
                packet = device.receive()
                if packet is None:
                    break
                if packet[0] == 0x70:
                    continue
                assert packet[0] == (0x40 if qos == 1 else 0x50)
                acknowledged.add(int.from_bytes(packet[1], "big") - 1)
                window -= 1
                if qos == 2:
                    with contextlib.suppress(ConnectionError):
                        device.send(c.pubrel(int.from_bytes(packet[1], "big")))
                if kill_after is not None and len(acknowledged) - before >= kill_after:
                    gateway.kill()
                    kill_after = None
        gateway.kill()
        gateway.wait()
        pending = [number for number in range(count) if number not in acknowledged]
    assert len(acknowledged) == count
    found: list[int] = []
    with Consumer(cluster.bootstrap, topics=["mqtt"], auto_offset_reset="earliest") as consumer:
        while len(set(found)) < count:
            records = consumer.poll(timeout_ms=10_000)
            assert records, f"{count - len(set(found))} acknowledged messages are not in the log"
            found += [int(r.value) for r in records if r.key == device_id.encode()]
    firsts = list(dict.fromkeys(found))
    assert firsts == sorted(firsts)
    assert len(found) <= count + 2 * 20
