"""What no honest client sends: a request that says twice what it wants of one partition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from ingest import Admin
from ingest.wire.codes import ErrorCode
from tests.cluster import Cluster
from tests.edge.kafka.test_batches import built
from tests.edge.kafka.test_versions import Client, fields_of

PRODUCE, FETCH = 0, 1

_names = itertools.count()


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"hostile-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name)
    return name


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    opened = Client(gateway.port)
    yield opened
    opened.close()


def test_a_partition_that_a_produce_names_twice_is_refused(client: Client, topic: str) -> None:
    good, damaged = bytes(built()), bytearray(built())
    damaged[-1] ^= 1
    kind = APIS[PRODUCE].request.TopicProduceData
    parts = [kind.PartitionProduceData(index=0, records=records) for records in (bytes(damaged), good)]
    answer = client.ask(PRODUCE, 7, acks=-1, timeout_ms=5000, topic_data=[kind(name=topic, partition_data=parts)])
    codes = [part.error_code for part in answer.responses[0].partition_responses]
    assert codes == [ErrorCode.INVALID_RECORD] * 2


def test_a_partition_that_a_fetch_names_often_is_answered_once(client: Client, topic: str) -> None:
    client.ask(PRODUCE, 7, **fields_of(PRODUCE, 7, topic))
    fields = fields_of(FETCH, 7, topic)
    fields["topics"] = [fields["topics"][0]] * 3
    fields["topics"][0].partitions *= 3
    answer = client.ask(FETCH, 7, **fields)
    assert [(one.topic, len(one.partitions)) for one in answer.responses] == [(topic, 1)]
