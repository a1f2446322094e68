"""What a caller does wrong is said at once, in words, and before anything is done."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator

import numpy as np
import pytest

import forebay
from ingest import Admin, Consumer, Producer, errors
from ingest.errors import UsageError
from tests.cluster import Cluster

_names = itertools.count()


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"misuse-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 1)
    with Producer(cluster.bootstrap) as producer:
        for number in range(10):
            producer.send(name, b"%d" % number)
    return name


@pytest.fixture
def consumer(cluster: Cluster, topic: str) -> Iterator[Consumer]:
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="earliest") as opened:
        yield opened


def test_to_read_nothing_is_an_error_and_a_topic_that_is_missing_a_warning(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    missing = f"misuse-{next(_names)}"
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        for call in (consumer.poll, consumer.poll_arrays, lambda: next(iter(consumer))):
            with pytest.raises(UsageError, match="subscribe"):
                call()
        consumer.subscribe([missing])
        with caplog.at_level(logging.WARNING, "forebay.client"):
            for _ in range(20):
                consumer.poll(20)
        assert [record.message for record in caplog.records] == [
            f"topic {missing} does not exist; it is read once it does"
        ]
        with Admin(cluster.bootstrap) as admin:
            admin.create_topic(missing, 1)
        with Producer(cluster.bootstrap) as producer:
            producer.send(missing, b"now")
        assert consumer.subscription() == [missing]
        deadline = time.monotonic() + 10
        while not (records := consumer.poll(100)):
            assert time.monotonic() < deadline
        assert records[0].value == b"now"


def test_what_is_paused_and_subscribed_to_can_be_asked(consumer: Consumer, topic: str) -> None:
    assert consumer.subscription() == [topic]
    assert consumer.paused() == []
    consumer.pause((topic, 0))
    assert consumer.paused() == [(topic, 0)]
    consumer.resume((topic, 0))
    assert consumer.paused() == []
    with pytest.raises(UsageError, match=r"no \(topic, partition\)"):
        consumer.pause([(topic, 0)])  # type: ignore[arg-type]


def test_what_callers_name_can_be_imported_from_the_distributions_name() -> None:
    consuming_raises = {
        "CommitFailed",
        "CorruptBatch",
        "DeserializationError",
        "LogTruncation",
        "NoOffset",
        "RemoteError",
    }
    for name in forebay.__all__:
        assert getattr(forebay, name).__module__.startswith("ingest.")
    for name in vars(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and name in consuming_raises:
            assert getattr(forebay, name) is kind


def test_a_time_may_be_a_float_and_what_is_no_time_or_offset_is_refused(consumer: Consumer, topic: str) -> None:
    consumer.seek_to_time(time.time() * 1000 - 3_600_000)
    assert consumer.position(topic, 0) == 0
    assert consumer.offsets_for_times({(topic, 0): 1e3})[(topic, 0)] is not None  # type: ignore[index]
    for bad in (-1, float("nan"), float("inf"), 2.0**64, "now"):
        with pytest.raises(UsageError, match="no time"):
            consumer.seek_to_time(bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="whole number"):
        consumer.seek(topic, 0, 1.5)  # type: ignore[arg-type]
    consumer.seek(topic, 0, np.int64(3))  # type: ignore[arg-type]
    assert consumer.position(topic, 0) == 3


def test_a_partition_that_is_not_there_is_told_of(
    consumer: Consumer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "forebay.client"):
        consumer.assign([(topic, 77), ("misuse-nowhere", 0)])
        for _ in range(20):
            consumer.poll(20)
    told = {record.message for record in caplog.records}
    assert f"{topic} has no partition 77: it has 1, from 0 on" in told
    assert "topic misuse-nowhere does not exist; it is read once it does" in told


def test_one_name_instead_of_a_list_is_refused_before_anything_is_done(cluster: Cluster) -> None:
    with Admin(cluster.bootstrap) as admin:
        for call in (admin.delete_topics, admin.delete_groups, admin.describe_groups, admin.list_groups):
            with pytest.raises(UsageError, match="one string"):
                call("pq")
        with pytest.raises(UsageError, match=r"no \(topic, partition\)"):
            admin.delete_group_offsets("g", ("t", 0))  # type: ignore[arg-type]
