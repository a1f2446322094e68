"""Clients that others wrote, unchanged, each with all that it can do.

    client           library, version                produce  consume  group  time  admin
    ---------------  ------------------------------  -------  -------  -----  ----  -----
    confluent-kafka  librdkafka of its wheel         all codecs        yes    yes   yes
    aiokafka         its own                         all codecs        yes    yes   yes
    kafka-python     its own                         all codecs        yes    yes   yes
    kcat             Debian's librdkafka, 2.0.2      all codecs        yes    yes   it has none
    rsyslog          the same: omkafka, imkafka      all codecs        yes    it has neither

`lacks` of each client tells the reason.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ingest import Admin, Consumer, Producer
from ingest.log.names import partition_name
from ingest.records.header import MAGIC, decode_header
from tests.cluster import Cluster
from tests.edge.kafka.clients.client import ForeignClient, until
from tests.edge.kafka.clients.libraries import Aiokafka, Confluent, KafkaPython
from tests.edge.kafka.clients.programs import Kcat, Rsyslog

CLIENTS: list[ForeignClient] = [Confluent(), Aiokafka(), KafkaPython(), Kcat(), Rsyslog()]
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
COUNT = 200
PARTITIONS = 3
TEXT = b"some text that compresses well " * 4
_names = itertools.count()


def cells(feature: str) -> pytest.MarkDecorator:
    """Parametrize a test by the clients that have a feature."""
    having = [client for client in CLIENTS if feature not in client.lacks]

    def cell(client: ForeignClient) -> Any:
        marks = [pytest.mark.needs(client.needs)] if client.needs else []
        return pytest.param(client, id=client.name, marks=marks)

    return pytest.mark.parametrize("client", [cell(client) for client in having])


def made_topic(cluster: Cluster, partitions: int = PARTITIONS) -> str:
    name = f"matrix-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, partitions)
    return name


def values_of(who: str, codec: str) -> list[bytes]:
    return [b"%s %s %d %s" % (who.encode(), codec.encode(), number, TEXT) for number in range(COUNT)]


def natively_read(cluster: Cluster, topic: str, count: int) -> list[bytes]:
    found: list[bytes] = []
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="earliest") as consumer:
        until(lambda: bool(found.extend(record.value for record in consumer.poll(100)) or len(found) >= count))
    return found


def stored_codecs(cluster: Cluster, topic: str) -> set[int]:
    with Admin(cluster.bootstrap) as admin:
        found = admin.describe_topic(topic)
    codecs = set()
    for broker, item in itertools.product((1, 2), found.partitions):
        folder = cluster.directory / "brokers" / str(broker) / partition_name(found.topic_id, item.partition)
        for path in folder.glob("*.log"):
            data, position = path.read_bytes(), 0
            while data[position : position + len(MAGIC)] == MAGIC:
                header = decode_header(data, position)
                codecs.add(header.codec)
                position += header.padded_size
    return codecs


@pytest.mark.parametrize("codec", CODECS)
@cells("produce")
def test_what_a_client_writes_is_stored_as_it_was_packed(
    cluster: Cluster, address: str, client: ForeignClient, codec: str
) -> None:
    topic, values = made_topic(cluster), values_of(client.name, codec)
    client.produce(address, topic, codec, values)
    assert sorted(natively_read(cluster, topic, COUNT)) == sorted(values)
    assert stored_codecs(cluster, topic) == {CODECS[codec]}


@pytest.fixture(scope="module")
def packed(cluster: Cluster) -> dict[str, str]:
    """Topics with records of a foreign client and of a native one, by codec."""
    return {}


@pytest.mark.parametrize("codec", CODECS)
@cells("consume")
def test_a_client_reads_what_others_wrote(
    cluster: Cluster, address: str, packed: dict[str, str], client: ForeignClient, codec: str
) -> None:
    if codec not in packed:
        packed[codec] = made_topic(cluster)
        Aiokafka().produce(address, packed[codec], codec, values_of("aiokafka", codec))
        with Producer(cluster.bootstrap, compression_type=codec) as producer:
            for value in values_of("native", codec):
                producer.send(packed[codec], value)
    expected = values_of("aiokafka", codec) + values_of("native", codec)
    assert sorted(client.consume(address, packed[codec], len(expected))) == sorted(expected)


@cells("group")
def test_members_share_a_group_and_take_over_from_each_other(
    cluster: Cluster, address: str, client: ForeignClient
) -> None:
    topic, group = made_topic(cluster), f"g-{next(_names)}"
    sent: list[bytes] = []
    rounds = itertools.count()

    with Producer(cluster.bootstrap) as producer:

        def send() -> set[bytes]:
            number = next(rounds)
            values = [b"%d-%d" % (number, partition) for partition in range(PARTITIONS)]
            for partition, value in enumerate(values):
                producer.send(topic, value, partition=partition).result(20)
            sent.extend(values)
            return set(values)

        first = client.join(address, topic, group)
        second = None
        try:
            begun = send()
            until(lambda: begun <= set(first.values()))
            second = client.join(address, topic, group)
            until(lambda: bool(send() and second.values()))
            until(lambda: set(sent) <= {*first.values(), *second.values()})
            seen = first.values()
            first.close()
            rest = send()
            until(lambda: rest <= set(second.values()))
            assert set(sent) == {*seen, *second.values()}
        finally:
            first.close()
            if second is not None:
                second.close()


@cells("time")
def test_a_time_is_sought(cluster: Cluster, address: str, client: ForeignClient) -> None:
    topic = made_topic(cluster)
    with Producer(cluster.bootstrap) as producer:
        for number in range(100):
            producer.send(topic, b"%d" % number, partition=1, timestamp_ms=1_000 + number)
    assert client.offset_at(address, topic, 1, 1_042) == 42


@cells("admin")
def test_administration(address: str, client: ForeignClient) -> None:
    client.administer(address, f"admin-{next(_names)}")
