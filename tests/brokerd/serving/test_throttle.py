"""Replicas that catch up within a throttle, on real processes: it bounds them, and nobody else feels them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest

from ingest import Admin, Producer
from ingest.wire.messages import PartitionMetadata, ResourceType
from tests.cluster import Cluster, running_cluster

SIZE_BYTES = 40_000_000
RATE = 10_000_000
SAVED_S = 0.2  # what a throttle saves while nothing goes
ACK_S = 0.1  # some milliseconds, on a machine that does other things as well


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), 3) as running:
        yield running


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap) as made:
        yield made
        made.delete_topics(["t"])


def fill(cluster: Cluster, admin: Admin) -> tuple[list[int], int]:
    """Create a topic with two copies and put records into it; return who has them, and who has not."""
    admin.create_topic("t", 1, 2)
    with Producer(cluster.bootstrap) as producer:
        for _ in range(SIZE_BYTES // 100_000):
            producer.send("t", bytes(100_000))
        producer.flush(60)
    replicas = described(admin).replicas
    (third,) = {1, 2, 3} - set(replicas)
    return replicas, third


def described(admin: Admin) -> PartitionMetadata:
    return admin.describe_topic("t").partitions[0]


def produce_until_in_sync(cluster: Cluster, admin: Admin, broker: int, timeout_s: float = 60) -> tuple[float, float]:
    """Produce a record after the other until a replica is in sync; return how long that took, and a record's ack."""
    acks_s = []
    began = time.monotonic()
    with Producer(cluster.bootstrap) as producer:
        while broker not in described(admin).isr:
            sent = time.monotonic()
            producer.send("t", b"x").result(20)
            acks_s.append(time.monotonic() - sent)
            assert time.monotonic() - began < timeout_s
    return time.monotonic() - began, statistics.median(acks_s)


def test_a_throttled_move_takes_its_time_while_producers_do_not_wait(cluster: Cluster, admin: Admin) -> None:
    (leader, other), third = fill(cluster, admin)
    admin.reassign({("t", 0): [leader, third]}, throttle_bytes_per_s=RATE)
    took_s, ack_s = produce_until_in_sync(cluster, admin, third)
    assert took_s > SIZE_BYTES / RATE - SAVED_S
    assert ack_s < ACK_S
    after = described(admin)
    assert (after.replicas, after.adding, after.throttle_bytes_per_s) == ([leader, third], [], 0)
    admin.reassign({("t", 0): [leader, other]})
    assert produce_until_in_sync(cluster, admin, other)[0] < took_s, "the throttle went with the move"


def test_another_throttle_for_a_move_under_way_counts_at_once(cluster: Cluster, admin: Admin) -> None:
    (leader, _), third = fill(cluster, admin)
    admin.reassign({("t", 0): [leader, third]}, throttle_bytes_per_s=1000)
    admin.reassign({("t", 0): [leader, third]}, throttle_bytes_per_s=20 * RATE)
    assert produce_until_in_sync(cluster, admin, third)[0] < 30


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_listed_replicas_are_throttled_on_either_side(cluster: Cluster, admin: Admin, side: str) -> None:
    replicas, third = fill(cluster, admin)
    rate = f"{side}.replication.throttled.rate"
    admin.alter_configs("", {rate: str(RATE)}, ResourceType.BROKER)
    listed = "*" if side == "leader" else f"0:{third}"
    admin.alter_configs("t", {f"{side}.replication.throttled.replicas": listed})
    admin.reassign({("t", 0): [*replicas, third]})
    took_s, ack_s = produce_until_in_sync(cluster, admin, third)
    assert took_s > SIZE_BYTES / RATE - SAVED_S - 0.5, "a follower's answer may hold a mebibyte at once"
    assert ack_s < ACK_S
    admin.alter_configs("", {rate: None}, ResourceType.BROKER)
