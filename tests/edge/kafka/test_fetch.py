"""Fetch: from maps and over ZeroMQ the same bytes, one request that waits for all connections, answers in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from edge.kafka import conversion
from edge.kafka.gateway import Gateway
from edge.kafka.local_logs import LocalLogs
from ingest import Admin, Producer
from ingest.log.mapping import SegmentMap
from ingest.wire.messages import FetchRequest
from tests.cluster import Cluster
from tests.edge.kafka.test_versions import Client, fields_of

Asked = list[FetchRequest]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    opened = Client(gateway.port)
    yield opened
    opened.close()


@pytest.fixture
def asked(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The Fetch requests that the gateway sends to brokers from now on."""
    sent: Asked = []
    ask = gateway._brokers.ask

    async def listened(broker_id: int, body: Any, **options: Any) -> Any:
        if isinstance(body, FetchRequest):
            sent.append(body)
        return await ask(broker_id, body, **options)

    monkeypatch.setattr(gateway._brokers, "ask", listened)
    return sent


def filled(cluster: Cluster, name: str, partitions: int = 1, records: int = 200) -> str:
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, partitions, 1)
    with Producer(cluster.bootstrap, batch_size=1000) as producer:
        for number in range(records):
            producer.send(name, b"value-%d" % number, b"key", partition=number % partitions)
        producer.flush()
    return name


def read(client: Client, topic: str, version: int = 11, **changes: Any) -> Any:
    """Fetch partition 0; changes are fields of the request or of its partition."""
    fields = fields_of(1, version, topic)
    (partition,) = fields["topics"][0].partitions
    for name, value in changes.items():
        if name in fields:
            fields[name] = value
        else:
            setattr(partition, name, value)
    (answered,) = client.ask(1, version, **fields).responses
    return answered.partitions[0]


def of_many(topic: str, partitions: Iterable[int], offset: int) -> dict[str, Any]:
    """Return a Fetch of several partitions."""
    fields = fields_of(1, 11, topic)
    (named,) = fields["topics"]
    kind = type(named.partitions[0])
    named.partitions = [
        kind(partition=number, fetch_offset=offset, partition_max_bytes=1 << 20, current_leader_epoch=-1)
        for number in partitions
    ]
    return fields


def test_the_map_gives_what_the_leader_gives(
    client: Client, cluster: Cluster, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = filled(cluster, "fetch-mapped")
    for offset in (0, 57, 199):
        with monkeypatch.context() as patch:
            patch.setattr(LocalLogs, "has", lambda *_: False)
            over_zeromq = read(client, topic, fetch_offset=offset, partition_max_bytes=3000)
        count = len(asked)
        mapped = read(client, topic, fetch_offset=offset, partition_max_bytes=3000)
        assert len(asked) == count, "nobody was asked"
        assert bytes(mapped.records) == bytes(over_zeromq.records)
        assert (mapped.high_watermark, mapped.log_start_offset) == (200, 0)
    assert (over_zeromq.high_watermark, over_zeromq.log_start_offset) == (200, 0)


def test_what_the_map_can_not_tell_the_leader_is_asked(client: Client, cluster: Cluster, asked: Asked) -> None:
    topic = filled(cluster, "fetch-asked")
    assert read(client, topic).error_code == 0
    assert read(client, topic, fetch_offset=201).error_code == 1
    assert read(client, topic, current_leader_epoch=99).error_code == 75
    count = len(asked)
    assert read(client, topic, version=12, last_fetched_epoch=7, fetch_offset=5).error_code in (0, 1)
    assert len(asked) > count


def test_a_topic_that_is_deleted_and_created_anew_is_not_read_from_the_old_map(
    client: Client, cluster: Cluster
) -> None:
    topic = filled(cluster, "fetch-anew", records=50)
    assert read(client, topic).high_watermark == 50
    with Admin(cluster.bootstrap) as admin:
        admin.delete_topics([topic])
    deadline = time.monotonic() + 10
    while read(client, topic).error_code == 0:
        assert time.monotonic() < deadline
    filled(cluster, topic, records=3)
    while (found := read(client, topic)).error_code:
        assert time.monotonic() < deadline
    assert (found.error_code, found.high_watermark) == (0, 3)


def test_many_that_wait_are_one_request_at_the_broker(gateway: Gateway, cluster: Cluster, asked: Asked) -> None:
    topic = filled(cluster, "fetch-waits", records=1)
    clients = [Client(gateway.port) for _ in range(20)]
    fields = fields_of(1, 11, topic) | {"max_wait_ms": 300}
    fields["topics"][0].partitions[0].fetch_offset = 1
    for client in clients:
        client.begin(1, 11, **fields)
    for client in clients:
        client.end(1, 11)
    first = len(asked)
    for _ in range(3):
        for client in clients:
            client.begin(1, 11, **fields)
        for client in clients:
            (answered,) = client.end(1, 11).responses
            assert (answered.partitions[0].error_code, bytes(answered.partitions[0].records or b"")) == (0, b"")
    assert len(asked) == first, "the request under way waits for them too"
    start = time.monotonic()
    for client in clients:
        client.begin(1, 11, **fields | {"max_wait_ms": 10_000})
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"news").result(10)
    for client in clients:
        (answered,) = client.end(1, 11).responses
        assert answered.partitions[0].records
        client.close()
    assert time.monotonic() - start < 5
    assert len(asked) - first <= 2


def test_more_partitions_than_a_request_can_name_are_all_waited_for(
    gateway: Gateway, client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = filled(cluster, "fetch-turns", partitions=6, records=6)
    monkeypatch.setattr("edge.kafka.doorbells.ITEMS_MAX", 1)
    monkeypatch.setattr(gateway._doorbells, "_bells", {})
    client.begin(1, 11, **of_many(topic, range(6), 1) | {"max_wait_ms": 10_000})
    time.sleep(0.2)
    start = time.monotonic()
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"news", partition=4).result(10)
    (answered,) = client.end(1, 11).responses
    assert [item.partition_index for item in answered.partitions if item.records] == [4]
    assert time.monotonic() - start < 5


def test_too_few_bytes_are_waited_for_without_asking_over_and_over(
    client: Client, cluster: Cluster, asked: Asked
) -> None:
    topic = filled(cluster, "fetch-min-bytes", records=1)
    read(client, topic)
    asked.clear()
    start = time.monotonic()
    found = read(client, topic, min_bytes=10_000, max_wait_ms=400)
    assert 0.35 < time.monotonic() - start < 5
    assert found.records
    assert len(asked) <= 1
    client.begin(1, 11, **fields_of(1, 11, topic) | {"min_bytes": 10_000, "max_wait_ms": 10_000})
    start = time.monotonic()
    with Producer(cluster.bootstrap) as producer:
        for _ in range(20):
            producer.send(topic, bytes(1000))
        producer.flush()
    (answered,) = client.end(1, 11).responses
    assert len(answered.partitions[0].records) >= 10_000
    assert time.monotonic() - start < 5


def test_the_bytes_of_an_answer_are_shared(client: Client, cluster: Cluster) -> None:
    topic = filled(cluster, "fetch-shared", partitions=4, records=2000)
    for _ in range(2):  # asked for, then mapped
        (answered,) = client.ask(1, 11, **of_many(topic, range(4), 0) | {"max_bytes": 10_000}).responses
        sizes = [len(item.records or b"") for item in answered.partitions]
        assert 0 < sum(sizes) < 16_000
        assert [item.high_watermark for item in answered.partitions] == [500] * 4


def test_answers_come_in_the_order_of_requests(client: Client, cluster: Cluster) -> None:
    topic = filled(cluster, "fetch-order", records=1)
    waits = fields_of(1, 11, topic) | {"max_wait_ms": 300}
    waits["topics"][0].partitions[0].fetch_offset = 1
    start = time.monotonic()
    client.begin(1, 11, **waits)
    client.begin(18, 0)
    client.begin(1, 11, **waits)
    client.begin(18, 0)
    for key, version in ((1, 11), (18, 0), (1, 11), (18, 0)):
        client.end(key, version)
    assert time.monotonic() - start > 0.55, "the second Fetch began when the first was answered"


def test_what_is_not_in_memory_is_loaded_beside_the_loop(
    client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = filled(cluster, "fetch-cold")
    expected = bytes(read(client, topic, fetch_offset=10).records)
    loaded: list[str] = []
    monkeypatch.setattr(SegmentMap, "is_cached", lambda *_: bool(loaded))
    monkeypatch.setattr(SegmentMap, "load", lambda *_: loaded.append(threading.current_thread().name))
    assert bytes(read(client, topic, fetch_offset=10).records) == expected
    assert [name.startswith("kafka-load") for name in loaded] == [True]


def test_a_partition_that_is_named_often_is_answered_once(client: Client, cluster: Cluster) -> None:
    topic = filled(cluster, "fetch-named-often", partitions=2)
    for _ in range(2):  # asked for, then mapped
        (answered,) = client.ask(1, 11, **of_many(topic, [0, 1] * 500, 0)).responses
        assert [item.partition_index for item in answered.partitions] == [0, 1]
        assert all(item.records for item in answered.partitions)


def test_a_map_that_gives_way_while_the_disk_is_waited_for_is_the_leaders_to_replace(
    gateway: Gateway, client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = filled(cluster, "fetch-evicted", partitions=2)
    client.ask(1, 11, **of_many(topic, range(2), 0))
    (learned,) = {place[0] for place in list(gateway._logs._logs)[-2:]}
    gone: list[int] = []

    def others_come(*_: object) -> None:
        if not gone:
            gone.extend(gateway._logs._logs.pop((learned, number)).log._row for number in range(2))

    monkeypatch.setattr(SegmentMap, "is_cached", lambda *_: False)
    monkeypatch.setattr(SegmentMap, "load", others_come)
    (answered,) = client.ask(1, 11, **of_many(topic, range(2), 0)).responses
    assert gone
    assert all(item.records for item in answered.partitions)


def test_maps_that_nobody_reads_are_dropped(gateway: Gateway, client: Client, cluster: Cluster) -> None:
    read(client, filled(cluster, "fetch-idle"))
    logs = gateway._logs
    place = next(reversed(logs._logs))
    for read_before in (True, False):
        if read_before:
            read(client, "fetch-idle")
        gateway._loop.call_soon_threadsafe(logs.drop_unread)
        client.ask(18, 0)
        assert (place in logs._logs) is read_before


def test_others_have_their_turn_while_columns_are_made_rows(
    gateway: Gateway, client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = filled(cluster, "fetch-columns", records=1000)
    converted = conversion.to_kafka

    def slow(*args: Any) -> Any:
        time.sleep(0.05)
        return converted(*args)

    monkeypatch.setattr(conversion, "to_kafka", slow)
    monkeypatch.setattr(conversion, "INLINE_RECORDS_MAX", 1)
    other = Client(gateway.port)
    for _ in range(2):  # asked for, then mapped
        client.begin(1, 11, **fields_of(1, 11, topic))
        longest = 0.0
        for _ in range(5):
            start = time.monotonic()
            other.ask(18, 0)
            longest = max(longest, time.monotonic() - start)
        start = time.monotonic()
        client.end(1, 11)
        assert time.monotonic() - start > 0.1, "it was not over before"
        assert longest < 0.3
    other.close()


def test_a_doorbell_that_fails_tells_who_waits(
    gateway: Gateway, client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = filled(cluster, "fetch-failed-bell", records=1)
    read(client, topic)
    ask = gateway._brokers.ask

    async def broken(broker_id: int, body: Any, **options: Any) -> Any:
        if isinstance(body, FetchRequest) and body.max_bytes == 0:
            raise ValueError("not foreseen")
        return await ask(broker_id, body, **options)

    with monkeypatch.context() as patch:
        patch.setattr(gateway._brokers, "ask", broken)
        read(client, topic, fetch_offset=1, max_wait_ms=100)
    client.begin(1, 11, **fields_of(1, 11, topic) | {"max_wait_ms": 10_000})
    start = time.monotonic()
    client.end(1, 11)
    waits = fields_of(1, 11, topic) | {"max_wait_ms": 10_000}
    waits["topics"][0].partitions[0].fetch_offset = 1
    client.begin(1, 11, **waits)
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"news").result(10)
    (answered,) = client.end(1, 11).responses
    assert answered.partitions[0].records
    assert time.monotonic() - start < 5
