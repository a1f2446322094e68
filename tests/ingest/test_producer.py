"""A producer's turns: interruptions, signal handlers, a blocked neighbour; what callers may not give it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from opcode import opname
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from ingest import Admin, Consumer, Producer
from ingest.errors import ConfigError, UsageError
from ingest.producer import Delivery
from tests.cluster import Cluster

REPOSITORY = Path(__file__).parents[2]
_names = itertools.count()


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"producer-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 1)
    return name


def read_all(cluster: Cluster, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    found: list[tuple[bytes | None, bytes | None]] = []
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        end = consumer.end_offsets([(topic, 0)])[(topic, 0)]  # type: ignore[index]
        while consumer.position(topic, 0) < end:
            found += [(record.key, record.value) for record in consumer.poll(1000, 10_000)]
    return found


class Interrupt:
    """Raise KeyboardInterrupt behind the n-th call that `Producer.send` makes: there the interpreter heeds signals."""

    def __init__(self, call: int) -> None:
        self.left = call
        self.raised = False
        self._called = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not Producer.send.__code__:
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, __: Any) -> Any:
        if event == "opcode":
            called, self._called = self._called, opname[frame.f_code.co_code[frame.f_lasti]].startswith("CALL")
            self.left -= called
            if called and self.left == 0:
                self.raised = True
                raise KeyboardInterrupt
        return self._step


def test_ctrl_c_anywhere_in_send_keeps_no_lock_and_leaves_no_half_record(cluster: Cluster, topic: str) -> None:
    good = []
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"0", b"0").result(10)
        for call in itertools.count(1):
            interrupt = Interrupt(call)
            sys.settrace(interrupt)
            try:
                producer.send(topic, b"i%d" % call, b"i%d" % call)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            good.append(b"g%d" % call)
            other = threading.Thread(target=producer.send, args=(topic, good[-1], good[-1]), daemon=True)
            other.start()
            other.join(10)
            assert not other.is_alive(), f"the lock is kept after an interruption behind call {call}"
            if not interrupt.raised:
                break
        producer.flush(10)
    found = read_all(cluster, topic)
    assert all(key == value for key, value in found)
    assert [value for _, value in found if value and value.startswith(b"g")] == good
    assert len(good) > 10


def test_signal_handler_that_sends_is_told_or_served_but_never_waits_for_itself(cluster: Cluster, topic: str) -> None:
    served, told = [], []
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"first", b"first").result(10)

        def handle(*_: object) -> None:
            try:
                producer.send(topic, b"handler", b"handler")
                served.append(1)
            except UsageError as error:
                told.append(str(error))

        before = signal.signal(signal.SIGVTALRM, handle)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
        sent = 0
        try:
            while not told or sent < 20_000:
                producer.send(topic, b"m%d" % sent, b"m%d" % sent)
                sent += 1
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        producer.flush(10)
    assert all("signal handler" in text for text in told)
    found = read_all(cluster, topic)
    assert all(key == value for key, value in found)
    assert [value for _, value in found if value and value.startswith(b"m")] == [b"m%d" % n for n in range(sent)]
    assert sum(value == b"handler" for _, value in found) == len(served)


def test_result_keeps_its_timeout_while_another_thread_waits_for_room(own_cluster: Cluster) -> None:
    cluster = own_cluster
    with Producer(cluster.bootstrap, buffer_memory=100_000, max_block_ms=30_000) as producer:
        producer.send("t", b"before").result(10)
        broker = cluster.children["broker-1"]
        broker.send_signal(signal.SIGSTOP)
        try:
            delivery = producer.send("t", b"mine")

            sent: list[int] = []

            def fill() -> None:
                for number in range(300):
                    producer.send("t", bytes(1000))
                    sent.append(number)

            blocked = threading.Thread(target=fill)
            blocked.start()
            before = -1
            while not sent or len(sent) != before:
                before = len(sent)
                time.sleep(0.3)
            assert len(sent) < 300
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                delivery.result(0.3)
            assert time.monotonic() - start < 3
        finally:
            broker.send_signal(signal.SIGCONT)
        blocked.join(30)
        assert delivery.result(10).offset == 1
        producer.flush(10)


@pytest.mark.parametrize("timestamp", [-1, 1 << 60, float("nan"), float("inf"), "now", b"5", None, [5]])
def test_bad_timestamp_is_refused_by_the_call_that_brings_it(cluster: Cluster, topic: str, timestamp: Any) -> None:
    with Producer(cluster.bootstrap) as producer:
        before = producer.send(topic, b"before", timestamp_ms=7)
        if timestamp is not None:
            with pytest.raises(UsageError, match="timestamp"):
                producer.send(topic, b"bad", timestamp_ms=timestamp)
        with pytest.raises(UsageError, match="timestamp"):
            producer.send_arrays(topic, timestamps=[1, timestamp], values=[b"a", b"b"])
        assert producer.send(topic, b"after", timestamp_ms=8).result(10).timestamp_ms == 8
        assert before.result(10).timestamp_ms == 7
    assert [value for _, value in read_all(cluster, topic)] == [b"before", b"after"]


def test_arrays_take_datetime64_as_what_it_means(cluster: Cluster, topic: str) -> None:
    times = np.array(["2026-01-02T03:04:05.678901234", "2026-01-02T03:04:06"], "datetime64[ns]")
    with Producer(cluster.bootstrap) as producer:
        producer.send_arrays(topic, times, values=np.arange(2)).result(10)
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="earliest") as consumer:
        (columns,) = consumer.poll_arrays(5000)
    assert columns.timestamps_ms.tolist() == [1767323045678, 1767323046000]


def test_program_that_ends_without_close_says_what_it_leaves_and_nothing_else(own_cluster: Cluster) -> None:
    program = (
        "import sys; from ingest import Producer; p = Producer(sys.argv[1]); p.send('t', b'1').result(10)\n"
        "for _ in range(50_000): p.send('t', bytes(100))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, own_cluster.bootstrap],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert all("ends without close()" in line for line in ended.stderr.splitlines()), ended.stderr


def test_close_in_an_exit_handler_finds_the_interpreter_ending_and_is_quiet(own_cluster: Cluster) -> None:
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: p.close())  # before the producer is made: it is called after the sockets are closed\n"
        "from ingest import Producer; p = Producer(sys.argv[1]); p.send('t', b'1').result(10)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, own_cluster.bootstrap],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert ended.stderr == ""


def test_clients_without_an_appliance_say_so_at_once(tmp_path: Path) -> None:
    for client in (Producer, Consumer, Admin):
        with pytest.raises(ConfigError, match="no appliance in"):
            client(str(tmp_path))


def test_record_that_was_taken_raises_nothing_whatever_happens_behind_it(own_cluster: Cluster) -> None:
    with Producer(own_cluster.bootstrap) as producer:
        (own_cluster.directory / "appliance.json").rename(own_cluster.directory / "away")
        delivery = producer.send("t", b"taken")
        (own_cluster.directory / "away").rename(own_cluster.directory / "appliance.json")
        assert delivery.result(10).offset == 0


def test_callbacks_that_send_are_called_one_after_the_other(cluster: Cluster, topic: str) -> None:
    depth, deepest, left = 0, 0, 3000
    done = threading.Event()

    def send_next(_: Delivery) -> None:
        nonlocal depth, deepest, left
        depth += 1
        deepest = max(deepest, depth)
        left -= 1
        if left > 0:
            producer.send(topic, b"next", on_delivery=send_next)
            producer.flush(10)
        else:
            done.set()
        depth -= 1

    with Producer(cluster.bootstrap, acks=0) as producer:
        producer.send(topic, b"first", on_delivery=send_next)
        producer.flush(10)
        assert done.wait(20)
    assert deepest == 1


@pytest.mark.parametrize("thread", ["the loop's", "another"])
def test_loop_drives_what_any_thread_sends(cluster: Cluster, topic: str, thread: str) -> None:
    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # refuses calls from other threads that do not wake the loop
        producer = Producer(cluster.bootstrap)
        producer.attach(loop)
        all_done, offsets = asyncio.Event(), []

        def delivered(delivery: Delivery) -> None:
            assert threading.current_thread() is threading.main_thread()
            offsets.append(delivery.result().offset)
            if len(offsets) == 500:
                all_done.set()

        def send() -> None:
            for _ in range(500):
                producer.send(topic, b"v", on_delivery=delivered)

        if thread == "another":
            await asyncio.to_thread(send)
        else:
            send()
        await asyncio.wait_for(all_done.wait(), 20)
        producer.close()
        return offsets

    assert asyncio.run(run()) == list(range(500))


def test_loop_goes_on_after_a_while_without_an_appliance(own_cluster: Cluster) -> None:
    away, there = own_cluster.directory / "away", own_cluster.directory / "appliance.json"

    async def run() -> int:
        producer = Producer(own_cluster.bootstrap)
        there.rename(away)
        producer.attach(asyncio.get_running_loop())
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        producer.send("t", b"v", on_delivery=lambda delivery: done.set_result(delivery.result().offset))
        await asyncio.sleep(0.05)
        away.rename(there)
        offset = await asyncio.wait_for(done, 20)
        producer.close()
        return offset

    assert asyncio.run(run()) == 0


def test_run_of_records_is_not_serialized_even_while_its_topic_is_new(cluster: Cluster) -> None:
    name = f"producer-{next(_names)}"
    with Producer(cluster.bootstrap, value_serializer="json", key_serializer="json") as producer:
        for run in ([b"a", b"b"], [b"c"]):
            assert sum(count for _, count in producer.send_run(name, run, b"key")) == len(run)
            producer.flush(20)
    assert read_all(cluster, name) == [(b"key", b"a"), (b"key", b"b"), (b"key", b"c")]


def test_flush_and_close_wait_for_what_was_sent_before_them_only(cluster: Cluster, topic: str) -> None:
    ended: list[UsageError] = []

    def send_on() -> None:
        try:
            while True:
                producer.send(topic, bytes(100))
        except UsageError as error:
            ended.append(error)

    producer = Producer(cluster.bootstrap)
    busy = threading.Thread(target=send_on, daemon=True)
    busy.start()
    for _ in range(3):
        delivery = producer.send(topic, b"mine")
        producer.flush(20)
        assert delivery.done()
    producer.close(20)
    busy.join(20)
    assert len(ended) == 1, "who sends to a closed producer is told"
    assert producer.buffer_available_bytes == 64 << 20


def test_arrays_of_unequal_records_are_cut_by_their_bytes(cluster: Cluster, topic: str) -> None:
    values = [bytes(size) for size in range(50, 450) for _ in range(30)]
    with Producer(cluster.bootstrap) as producer:
        producer.send_arrays(topic, values=values).result(20)
    with Producer(cluster.bootstrap, buffer_memory=200_000) as small:
        small.send_arrays(topic, values=np.arange(30_000)).result(20)
    found = read_all(cluster, topic)
    assert [value for _, value in found[: len(values)]] == values
    assert len(found) == len(values) + 30_000


def test_arrays_may_be_changed_once_the_call_has_returned(cluster: Cluster, topic: str) -> None:
    values = np.zeros(400_000, np.int64)
    with Producer(cluster.bootstrap) as producer:
        delivery = producer.send_arrays(topic, values=values)
        values[:] = 9
        delivery.result(20)
        producer.send_arrays(topic, values=np.array([b"a", b"bb", None], dtype=object)).result(20)
    found = [value for _, value in read_all(cluster, topic)]
    assert set(found[:-3]) == {bytes(8)}
    assert found[-3:] == [b"a", b"bb", None]


def test_partitioner_that_raises_costs_its_own_record_only(cluster: Cluster, topic: str) -> None:
    def choose(_: str, key: bytes | None, partitions: int) -> int:
        return {b"good": 0}[key or b""]

    with Producer(cluster.bootstrap, partitioner=choose) as producer:
        held = [producer.send(topic, b"v", key) for key in (b"good", b"bad", b"good")]
        assert held[0].result(10).offset == 0
        with pytest.raises(UsageError, match="partitioner"):
            held[1].result(10)
        assert held[2].result(10).offset == 1
        with pytest.raises(UsageError, match="partitioner"):
            producer.send(topic, b"v", b"bad")


def test_records_for_a_new_topic_keep_their_order_where_there_is_no_room(cluster: Cluster) -> None:
    with Producer(cluster.bootstrap, buffer_memory=100_000) as producer:
        for number in range(300):
            producer.send("held-without-room", b"%d" % number + bytes(1000))
    found = [value.rstrip(b"\0") for _, value in read_all(cluster, "held-without-room") if value]
    assert found == [b"%d" % number for number in range(300)]
