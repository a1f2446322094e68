"""Consumers that read in their rack: whom they ask, what that follower can't serve, and what happens when it goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest import Admin, Consumer, Producer
from ingest.wire.messages import ResourceType
from tests.cluster import Cluster, running_cluster

RACKS = {1: "a", 2: "b", 3: "c"}
SELECTOR: dict[str, str | None] = {"replica.selector.class": "RackAwareReplicaSelector"}
GAP_S = 8.0  # a fetch that is not answered is given up after 5.5 s


@pytest.fixture
def cluster(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """Three brokers in a rack each; the first, which leads, is on another machine, as far as anybody can tell."""
    endpoint, peer_endpoint = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    elsewhere = {
        "machine": "another",
        "tcp_endpoint": endpoint,
        "advertised_tcp_endpoint": endpoint,
        "peer_tcp_endpoint": peer_endpoint,
        "advertised_peer_tcp_endpoint": peer_endpoint,
    }
    options: dict[int, dict[str, Any]] = {broker: {"rack": rack} for broker, rack in RACKS.items()}
    options[1] |= elsewhere
    with running_cluster(tmp_path, 3, options) as running:
        with Admin(running.bootstrap) as admin:
            admin.alter_configs("", SELECTOR, ResourceType.BROKER)
            admin.create_topic("t", 1, 3)
            admin.reassign({("t", 0): [1, 2, 3]})
            until(lambda: admin.describe_topic("t").partitions[0].replicas == [1, 2, 3])
            admin.elect_leaders()
        yield running


def until(done: Callable[[], bool], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reader(cluster: Cluster, rack: str, *, local: bool = False) -> Consumer:
    consumer = Consumer(cluster.bootstrap, auto_offset_reset="earliest", local=local, client_rack=rack)
    consumer.assign([("t", 0)])
    return consumer


def read(consumer: Consumer, count: int, timeout_s: float = 20) -> list[bytes]:
    values: list[bytes] = []
    deadline = time.monotonic() + timeout_s
    while len(values) < count:
        values += [record.value for record in consumer.poll(timeout_ms=200)]
        assert time.monotonic() < deadline, f"{len(values)} of {count}"
    return values


def source(consumer: Consumer) -> int:
    (position,) = consumer._fetcher.positions.values()
    return position.source


def bytes_out(cluster: Cluster) -> dict[int, int]:
    return {broker: cluster.stats(broker).bytes_out_total.get("t", 0) for broker in RACKS}


def produce(producer: Producer, numbers: range) -> list[bytes]:
    values = [b"%d" % number for number in numbers]
    for value in values:
        producer.send("t", value)
    producer.flush(20)
    return values


def test_a_consumer_is_served_in_its_rack_and_what_it_reads_is_counted_there(cluster: Cluster) -> None:
    with Producer(cluster.bootstrap) as producer, reader(cluster, "b") as near, reader(cluster, "") as plain:
        values = produce(producer, range(100))
        assert read(near, 100) == values
        assert source(near) == 2
        counted = bytes_out(cluster)
        assert counted[2] > 0
        assert counted[1] == counted[3] == 0
        assert read(plain, 100) == values
        assert source(plain) == 1
        assert bytes_out(cluster)[1] > 0
        values = produce(producer, range(100, 200))
        assert read(near, 100) == values
        until(lambda: near.poll(20) == [] and near.lag() == {("t", 0): 0})
        near.seek("t", 0, 150)
        assert read(near, 50) == values[50:]
        assert source(near) == 2
    with reader(cluster, "nowhere") as far, reader(cluster, "a") as beside_the_leader:
        assert len(read(far, 200)) == len(read(beside_the_leader, 200)) == 200
        assert source(far) == source(beside_the_leader) == 1


def test_a_record_reaches_a_reader_at_a_follower_at_once_and_not_with_the_next_fetch(cluster: Cluster) -> None:
    with Producer(cluster.bootstrap) as producer, reader(cluster, "b") as near:
        produce(producer, range(1))
        read(near, 1)
        waits = []
        for number in range(1, 11):
            began = time.monotonic()
            produce(producer, range(number, number + 1))
            read(near, 1)
            waits.append(time.monotonic() - began)
        assert source(near) == 2
        assert sorted(waits)[5] < 0.25, "replica.fetch.wait.max.ms is 500"


def test_without_a_selector_everybody_reads_at_leaders(cluster: Cluster) -> None:
    with Admin(cluster.bootstrap) as admin:
        admin.alter_configs("", dict.fromkeys(SELECTOR), ResourceType.BROKER)
    with Producer(cluster.bootstrap) as producer, reader(cluster, "b") as near:
        values = produce(producer, range(10))
        assert read(near, 10) == values
        assert source(near) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_when_its_follower_dies_or_stands_still_a_consumer_goes_on_elsewhere(
    cluster: Cluster, how: signal.Signals
) -> None:
    with Producer(cluster.bootstrap) as producer, reader(cluster, "b") as near:
        values = produce(producer, range(10))
        assert read(near, 10) == values
        assert source(near) == 2
        os.kill(cluster.children["broker-2"].pid, how)
        began = time.monotonic()
        values = produce(producer, range(10, 20))
        assert read(near, 10) == values
        assert time.monotonic() - began < GAP_S
        assert source(near) == 1


def test_when_the_leader_dies_a_consumer_reads_on_in_its_rack(cluster: Cluster) -> None:
    with Producer(cluster.bootstrap) as producer, reader(cluster, "c") as near:
        values = produce(producer, range(10))
        assert read(near, 10) == values
        cluster.kill("broker-1")
        values = produce(producer, range(10, 20))
        assert read(near, 10) == values
        until(lambda: near.poll(20) == [] and source(near) == 3)


@pytest.mark.parametrize("reset", ["latest", "earliest"])
def test_an_offset_that_a_follower_lacks_resets_nobody_who_is_in_range(cluster: Cluster, reset: str) -> None:
    """C8: the follower stands still while the log goes on; a consumer that has read on is sent there and back."""
    with (
        Producer(cluster.bootstrap) as producer,
        Consumer(cluster.bootstrap, auto_offset_reset=reset, local=False, client_rack="b") as consumer,
    ):
        values = produce(producer, range(20))
        consumer.assign([("t", 0)])
        consumer.seek("t", 0, 10)
        assert read(consumer, 10) == values[10:]
        (position,) = consumer._fetcher.positions.values()
        os.kill(cluster.children["broker-2"].pid, signal.SIGSTOP)
        position.not_served(0, for_good=True)
        more = produce(producer, range(20, 40))
        assert read(consumer, 20) == more
        position.prefer(2, int(time.monotonic() * 1000))
        os.kill(cluster.children["broker-2"].pid, signal.SIGCONT)
        more = produce(producer, range(40, 60))
        assert read(consumer, 20) == more


def test_a_consumer_on_a_followers_machine_reads_its_mapped_segments(cluster: Cluster) -> None:
    with Producer(cluster.bootstrap) as producer, reader(cluster, "b", local=True) as near:
        values = produce(producer, range(100))
        assert read(near, 100) == values
        until(lambda: near.poll(20) == [] and source(near) == 2)
        before = bytes_out(cluster)
        values = produce(producer, range(100, 200))
        assert read(near, 100) == values
        assert bytes_out(cluster) == before, "they come through the map"
        assert near._fetcher._logs
        cluster.kill("broker-2")
        values = produce(producer, range(200, 300))
        assert read(near, 100) == values
        assert source(near) == 1
