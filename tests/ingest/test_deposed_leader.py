"""A leader that stands still: producers and readers go to whoever leads instead, long before anything times out."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest import Admin, Consumer, Producer
from tests.cluster import Cluster, running_cluster

GAP_S = 5.0  # the session time is 2.5 s, and requests wait for 30 s


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, brokers=3) as running:
        yield running


def leader_of(cluster: Cluster) -> int:
    with Admin(cluster.bootstrap) as admin:
        return admin.describe_topic("t").partitions[0].leader


@pytest.mark.parametrize("local", [True, False])
def test_what_a_stopped_leader_was_sent_goes_to_the_next_one_once(cluster: Cluster, local: bool) -> None:
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("t", 1, 3)
    values = [b"%d" % number for number in range(40)]
    with (
        Producer(cluster.bootstrap) as producer,
        Consumer(cluster.bootstrap, auto_offset_reset="earliest", local=local) as consumer,
    ):
        consumer.assign([("t", 0)])
        for value in values[:20]:
            producer.send("t", value)
        producer.flush(10)
        stopped = leader_of(cluster)
        os.kill(cluster.children[f"broker-{stopped}"].pid, signal.SIGSTOP)
        began = time.monotonic()
        for value in values[20:]:
            producer.send("t", value)
        producer.flush(20)
        assert time.monotonic() - began < GAP_S
        assert leader_of(cluster) != stopped
        os.kill(cluster.children[f"broker-{stopped}"].pid, signal.SIGCONT)
        read: list[bytes] = []
        deadline = time.monotonic() + 15
        while len(read) < len(values):
            read += [record.value for record in consumer.poll(timeout_ms=200)]
            assert time.monotonic() < deadline, read
    assert read == values


def test_an_admin_asks_another_broker_than_one_that_stands_still(cluster: Cluster) -> None:
    with Admin(cluster.bootstrap) as admin:
        for name in cluster.children:
            if name.startswith("broker-"):
                assert len(admin.brokers()) == 3
                pid = cluster.children[name].pid
                os.kill(pid, signal.SIGSTOP)
                began = time.monotonic()
                for _ in range(20):  # any broker is asked: one of these would be the one that was stopped
                    assert len(admin.brokers()) == 3
                assert time.monotonic() - began < GAP_S
                os.kill(pid, signal.SIGCONT)
