"""Clients that were written by others, unchanged: librdkafka by confluent-kafka, and aiokafka."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ingest import Admin, Consumer, Producer
from tests.cluster import Cluster

confluent = pytest.importorskip("confluent_kafka")
confluent_admin = pytest.importorskip("confluent_kafka.admin")

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


@pytest.mark.parametrize("codec", CODECS)
def test_librdkafka_writes_and_reads(cluster: Cluster, address: str, topic: str, codec: str) -> None:
    librdkafka_produces(address, topic, **{"compression.type": codec, "enable.idempotence": True})
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


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_aiokafka_writes_and_reads(address: str, topic: str, codec: str | None) -> None:
    async def run() -> list[Any]:
        async with AIOKafkaProducer(
            bootstrap_servers=address, compression_type=codec, enable_idempotence=True
        ) as producer:
            for number in range(COUNT):
                await producer.send(topic, b"%d" % number, partition=number % 3, headers=[("h", b"1")])
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=address, group_id=f"g-{topic}", auto_offset_reset="earliest"
        )
        async with consumer:
            found = [await asyncio.wait_for(anext(consumer), 20) for _ in range(COUNT)]
            await consumer.commit()
        return found

    found = asyncio.run(run())
    assert sorted(int(record.value) for record in found) == list(range(COUNT))
    assert {record.headers for record in found} == {(("h", b"1"),)}


def test_a_time_is_sought(cluster: Cluster, address: str, topic: str) -> None:
    with Producer(cluster.bootstrap) as producer:
        for number in range(100):
            producer.send(topic, b"%d" % number, partition=0, timestamp_ms=1000 + number)
    consumer = confluent.Consumer({"bootstrap.servers": address, "group.id": f"g-{topic}"})
    wanted = [confluent.TopicPartition(topic, 0, 1042), confluent.TopicPartition(topic, 0, 5000)]
    assert [consumer.offsets_for_times([one], 10)[0].offset for one in wanted] == [42, confluent.OFFSET_END]
    assert consumer.get_watermark_offsets(confluent.TopicPartition(topic, 0), 10) == (0, 100)
    consumer.close()


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


def test_administration_by_librdkafka(cluster: Cluster, address: str) -> None:
    name = f"admin-{next(_names)}"
    admin = confluent_admin.AdminClient({"bootstrap.servers": address})

    def done(futures: dict[Any, Any]) -> list[Any]:
        return [future.result(20) for future in futures.values()]

    done(admin.create_topics([confluent_admin.NewTopic(name, 2, 1, config={"retention.ms": "100000"})]))
    assert len(admin.list_topics(timeout=10).topics[name].partitions) == 2
    resource = confluent_admin.ConfigResource(confluent_admin.RESOURCE_TOPIC, name)
    (described,) = done(admin.describe_configs([resource]))
    assert described["retention.ms"].value == "100000"
    with pytest.raises(confluent.KafkaException) as refused:
        done(admin.create_topics([confluent_admin.NewTopic(name, 2, 1)]))
    assert refused.value.args[0].code() == confluent.KafkaError.TOPIC_ALREADY_EXISTS
    change = confluent_admin.ConfigEntry(
        "retention.ms", "5000", incremental_operation=confluent_admin.AlterConfigOpType.SET
    )
    resource = confluent_admin.ConfigResource(confluent_admin.RESOURCE_TOPIC, name, incremental_configs=[change])
    done(admin.incremental_alter_configs([resource]))
    done(admin.create_partitions([confluent_admin.NewPartitions(name, 4)]))
    until(lambda: len(admin.list_topics(timeout=10).topics[name].partitions) == 4)
    assert len(admin.describe_cluster().result(10).nodes) == 2
    librdkafka_produces(address, name)
    librdkafka_reads(address, name, f"g-{name}", COUNT)
    assert f"g-{name}" in [one.group_id for one in admin.list_consumer_groups().result(10).valid]
    (group,) = done(admin.describe_consumer_groups([f"g-{name}"]))
    assert group.state == confluent.ConsumerGroupState.EMPTY
    (offsets,) = done(admin.list_consumer_group_offsets([confluent.ConsumerGroupTopicPartitions(f"g-{name}")]))
    assert sum(one.offset for one in offsets.topic_partitions if one.offset > 0) == COUNT
    assert done(admin.delete_records([confluent.TopicPartition(name, 0, -1)]))[0].low_watermark > 0
    done(admin.delete_consumer_groups([f"g-{name}"]))
    done(admin.delete_topics([name]))
    until(lambda: name not in admin.list_topics(timeout=10).topics)


def test_administration_by_aiokafka(address: str) -> None:
    name = f"admin-{next(_names)}"

    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        try:
            created = await admin.create_topics([NewTopic(name, 2, 1)])
            assert [error for _, error, _ in created.topic_errors] == [0]
            assert name in await admin.list_topics()
            assert await admin.list_consumer_group_offsets("nobody") == {}
            deleted = await admin.delete_topics([name])
            assert deleted.topic_error_codes == [(name, 0)]
        finally:
            await admin.close()

    asyncio.run(run())


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
