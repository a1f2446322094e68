"""A broker is killed or stopped under its clients: nothing acknowledged is lost, doubled or reordered."""

from __future__ import annotations

import shutil
import signal
import threading
import time

import pytest

from ingest import Admin, Consumer, Producer
from ingest.errors import BufferFull, LogTruncation, RequestTimedOut
from tests.cluster import Cluster


def read_all(cluster: Cluster, topic: str, *, local: bool) -> list[bytes]:
    values: list[bytes] = []
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest", local=local) as consumer:
        consumer.assign([(topic, 0)])
        end = consumer.end_offsets([(topic, 0)])[(topic, 0)]  # type: ignore[index]
        while consumer.position(topic, 0) < end:
            values += [record.value for record in consumer.poll(1000, 10_000)]
    return values


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_kills_under_load_lose_double_and_reorder_nothing(own_cluster: Cluster, durability: str) -> None:
    cluster = own_cluster
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("t", 1, configs={"durability": durability})
    sent = 0
    gaps: list[float] = []
    acked_at: list[float] = []
    with Producer(cluster.bootstrap) as producer:
        for _ in range(3):
            for _ in range(400):
                producer.send("t", b"%d" % sent, on_delivery=lambda _: acked_at.append(time.monotonic()))
                sent += 1
                if sent % 50 == 0:
                    time.sleep(0.001)
            cluster.kill("broker-1")
            killed = time.monotonic()
            cluster.start_broker(1)
            delivery = producer.send("t", b"%d" % sent)
            sent += 1
            delivery.result(30)
            gaps.append(time.monotonic() - killed)
        producer.flush(30)
    expected = [b"%d" % n for n in range(sent)]
    assert read_all(cluster, "t", local=True) == expected
    assert read_all(cluster, "t", local=False) == expected
    assert max(gaps) < 10


def test_a_mapped_reader_follows_its_leader_through_a_restart(own_cluster: Cluster) -> None:
    cluster = own_cluster
    with Producer(cluster.bootstrap) as producer, Consumer(cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        producer.send("t", b"0").result(10)
        consumer.assign([("t", 0)])
        assert [record.value for record in consumer.poll(5000)] == [b"0"]
        cluster.kill("broker-1")
        cluster.start_broker(1)
        producer.send("t", b"1").result(30)
        values: list[bytes] = []
        deadline = time.monotonic() + 20
        while not values and time.monotonic() < deadline:
            values += [record.value for record in consumer.poll(500)]
        assert values == [b"1"]


@pytest.mark.parametrize("local", [True, False], ids=["mapping", "fetch"])
@pytest.mark.parametrize("reset", ["earliest", "none"])
def test_a_log_cut_below_its_reader_that_grew_beyond_it_is_told(own_cluster: Cluster, local: bool, reset: str) -> None:
    cluster = own_cluster
    directory, saved = cluster.directory / "brokers" / "1", cluster.directory / "saved"

    def write(name: bytes, count: int) -> list[bytes]:
        values = [b"%s-%d" % (name, n) for n in range(count)]
        with Producer(cluster.bootstrap) as producer:
            for value in values:
                producer.send("t", value).result(20)
        return values

    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("t", 1, configs={"durability": "os"})
    kept = write(b"kept", 5)
    cluster.kill("broker-1")
    shutil.copytree(directory, saved)
    cluster.start_broker(1)
    cluster.await_ready()
    lost = write(b"lost", 5)
    with Consumer(cluster.bootstrap, auto_offset_reset=reset, local=local) as consumer:
        consumer.assign([("t", 0)])
        consumer.seek("t", 0, 0)
        values: list[bytes] = []
        while len(values) < 10:
            values += [record.value for record in consumer.poll(1000)]
        assert values == kept + lost
        cluster.kill("broker-1")
        shutil.rmtree(directory)
        saved.rename(directory)
        (cluster.run_dir / "broker-1.page").unlink()
        cluster.start_broker(1)
        cluster.await_ready()
        new = write(b"new", 10)
        for _ in range(2 if reset == "none" else 1):
            with pytest.raises(LogTruncation, match="diverged at 5, before 10"):
                consumer.poll(10_000)
        if reset == "none":
            consumer.seek("t", 0, 0)
        values = []
        while len(values) < 15:
            values += [record.value for record in consumer.poll(1000)]
        assert values == kept + new


def test_a_controller_killed_under_load_stops_no_one(own_cluster: Cluster) -> None:
    cluster = own_cluster
    with Producer(cluster.bootstrap) as producer:
        producer.send("t", b"before").result(10)
        cluster.kill("controller")
        assert producer.send("t", b"while").result(10).offset == 1
        cluster.start_controller()
        with Admin(cluster.bootstrap) as admin:
            admin.create_topic("after", 1)


def fill(producer: Producer) -> None:
    for _ in range(1000):
        producer.send("t", bytes(1000))


def test_a_full_buffer_blocks_and_then_says_so(own_cluster: Cluster) -> None:
    cluster = own_cluster
    with Producer(cluster.bootstrap, buffer_memory=100_000, max_block_ms=200) as producer:
        producer.send("t", b"before").result(10)
        broker = cluster.children["broker-1"]
        broker.send_signal(signal.SIGSTOP)
        try:
            start = time.monotonic()
            with pytest.raises(BufferFull, match="wait for acknowledgement"):
                fill(producer)
            assert time.monotonic() - start >= 0.199  # counted in whole milliseconds
        finally:
            broker.send_signal(signal.SIGCONT)
        producer.flush(30)


def test_a_record_that_no_broker_takes_in_time_fails_and_later_ones_follow(own_cluster: Cluster) -> None:
    cluster = own_cluster
    with Producer(cluster.bootstrap, delivery_timeout_ms=500) as producer:
        producer.send("t", b"before").result(10)
        cluster.kill("broker-1")
        late = producer.send("t", b"late")
        with pytest.raises(RequestTimedOut):
            late.result(10)
        cluster.start_broker(1)
        cluster.await_ready()
        assert producer.send("t", b"after").result(10).offset in (1, 2)


def test_threads_share_a_producer(own_cluster: Cluster) -> None:
    cluster = own_cluster
    with Producer(cluster.bootstrap) as producer:
        producer.send("t", b"first").result(10)

        def work(name: int) -> None:
            for n in range(500):
                producer.send("t", b"%d-%d" % (name, n))
                if n % 100 == 0:
                    producer.send("t", b"%d-flushed-%d" % (name, n)).result(10)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush(10)
    values = read_all(cluster, "t", local=True)
    for name in range(4):
        mine = [v for v in values if v.startswith(b"%d-" % name) and b"flushed" not in v]
        assert mine == [b"%d-%d" % (name, n) for n in range(500)]
