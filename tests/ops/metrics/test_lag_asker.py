"""The lag of groups on a running cluster: what leaders say comes to /metrics, and nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest import Admin, Consumer, Producer
from ingest.client.lag import Place
from ingest.client.positions import TopicPartition
from ops.metrics.lag_asker import LagAsker
from tests.cluster import Cluster, running_cluster
from tests.ops.metrics.conftest import RunningMonitor
from tests.ops.metrics.test_monitor import until

AT = {"consumergroup": "dash", "topic": "t", "partition": "0"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster", brokers=2) as running:
        with Admin(running.bootstrap) as admin:
            admin.create_topic("t", 2, 1)
        with Producer(running.bootstrap) as producer:
            for number in range(20):
                producer.send("t", b"%d" % number, partition=0)
        yield running


def test_seconds_and_bytes_come_from_leaders_and_end_when_all_is_read(
    cluster: Cluster, start_monitor: Callable[..., RunningMonitor]
) -> None:
    with Admin(cluster.bootstrap) as admin:
        admin.alter_group_offsets("dash", {("t", 0): 5})
    monitor = start_monitor(run_dir=str(cluster.run_dir), bootstrap=cluster.bootstrap)
    until(lambda: monitor.value("forebay_consumer_lag_bytes", **AT) > 96, seconds=10)
    assert monitor.value("kafka_consumergroup_lag", **AT) == 15
    first = monitor.value("forebay_consumer_lag_seconds", **AT)
    assert 0 <= first < 60
    until(lambda: monitor.value("forebay_consumer_lag_seconds", **AT) > first)
    assert monitor.value("kafka_consumergroup_members", consumergroup="dash") == 0
    with Consumer(cluster.bootstrap, ["t"], group_id="dash", auto_commit_interval_ms=100) as consumer:

        def read() -> bool:
            consumer.poll(50)
            return monitor.value("forebay_consumer_lag_seconds", **AT) == 0

        until(read, seconds=15)
        assert monitor.value("kafka_consumergroup_members", consumergroup="dash") == 1
        assert monitor.value("kafka_consumergroup_lag", **AT) == 0
        assert monitor.value("forebay_consumergroup_rebalances_total", broker="1") >= 0


def test_a_leader_that_is_gone_holds_nobody_up(cluster: Cluster, start_monitor: Callable[..., RunningMonitor]) -> None:
    with Admin(cluster.bootstrap) as admin:
        names = [f"g{number}" for number in range(12)]
        for name in names:
            admin.alter_group_offsets(name, {("t", 0): 5})
        (leader,) = [item.leader for item in admin.describe_topic("t").partitions if item.partition == 0]
        name = next(item.group for item in admin.list_groups() if item.coordinator != leader)
    monitor = start_monitor(run_dir=str(cluster.run_dir), bootstrap=cluster.bootstrap)
    where = {"consumergroup": name, "topic": "t", "partition": "0"}
    until(lambda: monitor.value("forebay_consumer_lag_seconds", **where) >= 0, seconds=10)
    cluster.kill(f"broker-{leader}")
    for _ in range(20):
        begun = time.monotonic()
        assert monitor.value("kafka_consumergroup_current_offset", **where) == 5
        assert time.monotonic() - begun < 1.5, "one question to the silent broker, and none to leaders"
    assert monitor.value("forebay_consumer_lag_bytes", **where) > 96, "the last word stands"


def test_one_round_at_a_time_and_an_end_in_the_middle(cluster: Cluster) -> None:
    asker = LagAsker(cluster.bootstrap, round_ms=60_000)
    places = [Place(TopicPartition("t", 0), 5), Place(TopicPartition("t", 7), 0)]  # there is no partition 7: it waits
    assert not asker.ask([])
    assert asker.ask(places)
    assert not asker.ask(places)
    begun = time.monotonic()
    asker.close()
    assert time.monotonic() - begun < 3
    assert not asker.ask(places)


def test_answers_are_handed_out_once(cluster: Cluster) -> None:
    asker = LagAsker(cluster.bootstrap)
    place = Place(TopicPartition("t", 0), 5)
    try:
        assert asker.ask([place])
        answers = []
        until(lambda: bool(answers.extend(asker.take()) or answers))
        assert [(answer.place, answer.found.lag.records) for answer in answers] == [(place, 15)]
        assert asker.take() == []
    finally:
        asker.close()


def test_an_appliance_that_is_not_there_is_asked_again_later(tmp_path: Path) -> None:
    asker = LagAsker(str(tmp_path / "nothing"))
    place = Place(TopicPartition("t", 0), 5)
    try:
        assert asker.ask([place])
        until(lambda: asker.ask([place]))
        assert asker.take() == []
    finally:
        asker.close()
    assert not LagAsker("").ask([place])
