"""What records and groups keep between librdkafka and native clients; what each client can do is test_matrix's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from ingest import Admin, Consumer, Producer
from tests.cluster import Cluster

confluent = pytest.importorskip("confluent_kafka")

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
COUNT = 300
_names = itertools.count()


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"clients-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 3)
    return name


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline


def librdkafka_produces(address: str, topic: str, **options: Any) -> None:
    failures: list[Any] = []
    producer = confluent.Producer({"bootstrap.servers": address, "linger.ms": 5, **options})
    for number in range(COUNT):
        producer.produce(
            topic,
            b"%d" % number + b"x" * 100,
            key=b"%d" % number,
            headers=[("n", b"%d" % number), ("none", None)],
            timestamp=1_000_000 + number,
            on_delivery=lambda error, _: error is not None and failures.append(error),
        )
    assert producer.flush(20) == 0
    assert failures == []


def librdkafka_reads(address: str, topic: str, group: str, count: int) -> list[Any]:
    options = {"bootstrap.servers": address, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = confluent.Consumer(options)
    consumer.subscribe([topic])
    found: list[Any] = []

    def enough() -> bool:
        found.extend(consumer.consume(100, 0.2))
        return len(found) >= count

    until(enough)
    consumer.commit(asynchronous=False)
    consumer.close()
    assert [message.error() for message in found if message.error()] == []
    return found


def natively_read(cluster: Cluster, topic: str, count: int) -> list[Any]:
    found: list[Any] = []
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="earliest") as consumer:
        until(lambda: bool(found.extend(consumer.poll(100)) or len(found) >= count))
    return found


def test_records_keep_what_librdkafka_gave_them(cluster: Cluster, address: str, topic: str) -> None:
    librdkafka_produces(address, topic, **{"compression.type": "lz4", "enable.idempotence": True})
    for records in (natively_read(cluster, topic, COUNT), librdkafka_reads(address, topic, f"g-{topic}", COUNT)):
        assert len(records) == COUNT
    native = {record.key: record for record in natively_read(cluster, topic, COUNT)}
    assert native[b"7"].value == b"7" + b"x" * 100
    assert native[b"7"].headers == (("n", b"7"), ("none", None))
    assert native[b"7"].timestamp_ms == 1_000_007
    (message,) = [m for m in librdkafka_reads(address, topic, f"h-{topic}", COUNT) if m.key() == b"7"]
    assert message.value() == b"7" + b"x" * 100
    assert message.headers() == [("n", b"7"), ("none", None)]
    assert message.timestamp() == (confluent.TIMESTAMP_CREATE_TIME, 1_000_007)


@pytest.mark.parametrize("codec", CODECS)
def test_what_native_producers_write_librdkafka_reads(cluster: Cluster, address: str, topic: str, codec: str) -> None:
    with Producer(cluster.bootstrap, compression_type=codec) as producer:
        for number in range(COUNT):
            producer.send(topic, b"%d" % number, key=b"k", partition=0, headers=[("a", b"b")], timestamp_ms=number)
        producer.send(topic, None, key=b"gone", partition=1)
    found = librdkafka_reads(address, topic, f"g-{topic}", COUNT + 1)
    assert [int(m.value()) for m in found if m.partition() == 0] == list(range(COUNT))
    assert [m.offset() for m in found if m.partition() == 0] == list(range(COUNT))
    assert {m.timestamp()[1] for m in found if m.partition() == 0} == set(range(COUNT))
    (tombstone,) = [m for m in found if m.partition() == 1]
    assert (tombstone.key(), tombstone.value()) == (b"gone", None)


def test_members_of_both_protocols_share_a_group(cluster: Cluster, address: str, topic: str) -> None:
    group = f"g-{topic}"
    options = {
        "bootstrap.servers": address, "group.id": group, "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "range",
    }  # fmt: skip
    foreign = confluent.Consumer(options)
    foreign.subscribe([topic])
    with Consumer(
        cluster.bootstrap, [topic], group_id=group, partition_assignment_strategy="range", auto_offset_reset="earliest"
    ) as native:
        seen: list[bytes] = []

        def poll() -> None:
            seen.extend(record.value for record in native.poll(20))
            seen.extend(message.value() for message in foreign.consume(50, 0.02) if not message.error())

        def shared() -> bool:
            poll()
            return sorted((len(native.assignment()), len(foreign.assignment()))) == [1, 2]

        until(shared)
        with Producer(cluster.bootstrap) as producer:
            for number in range(COUNT):
                producer.send(topic, b"%d" % number, partition=number % 3)
        until(lambda: bool(poll() or len(seen) >= COUNT))
        assert sorted(map(int, seen)) == list(range(COUNT))
        with Admin(cluster.bootstrap) as admin:
            clients = {member.client_id for member in admin.describe_groups([group])[group].members}
        assert "rdkafka" in clients
        foreign.close()
        until(lambda: bool(native.poll(20) or len(native.assignment()) == 3))


def test_transactions_are_refused_at_once(address: str) -> None:
    producer = confluent.Producer({"bootstrap.servers": address, "transactional.id": "mine"})
    with pytest.raises(confluent.KafkaException) as refused:
        producer.init_transactions(20)
    assert refused.value.args[0].code() == confluent.KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_a_topic_is_made_by_who_first_writes_to_it_and_not_by_who_reads(cluster: Cluster, address: str) -> None:
    read, written = f"auto-{next(_names)}", f"auto-{next(_names)}"
    consumer = confluent.Consumer({"bootstrap.servers": address, "group.id": f"g-{read}"})
    consumer.subscribe([read])
    consumer.consume(1, 0.5)
    consumer.close()
    librdkafka_produces(address, written)
    with Admin(cluster.bootstrap) as admin:
        names = [topic.name for topic in admin.metadata().topics]
    assert written in names
    assert read not in names
