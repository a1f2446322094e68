"""What no honest client sends: a request about very many things, or twice about one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from ingest import Admin
from ingest.wire.codes import ErrorCode
from tests.cluster import Cluster
from tests.edge.kafka.test_batches import built
from tests.edge.kafka.test_versions import Client, fields_of

PRODUCE, FETCH, FIND_COORDINATOR, DELETE_GROUPS, CREATE_TOPICS, API_VERSIONS = 0, 1, 10, 42, 19, 18
TOPICS, GROUPS = 20_000, 50_000
TURN_S = 1.0  # others wait no longer; a gateway that keeps them for six is taken for hung

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


def many_topics() -> dict[str, Any]:
    kind = APIS[CREATE_TOPICS].request.CreatableTopic
    assigned = [kind.CreatableReplicaAssignment(partition_index=0, broker_ids=[1])]  # is refused by the gateway alone
    topics = [
        kind(name=f"{number:06}", num_partitions=1, replication_factor=1, assignments=assigned, configs=[])
        for number in range(TOPICS)
    ]
    return {"topics": topics, "timeout_ms": 1000, "validate_only": True}


@pytest.mark.parametrize(
    ("key", "version", "fields"),
    [
        (CREATE_TOPICS, 4, many_topics()),
        (FIND_COORDINATOR, 4, {"key_type": 0, "coordinator_keys": [f"many-{number}" for number in range(GROUPS)]}),
        (DELETE_GROUPS, 0, {"groups_names": [f"many-{number}" for number in range(GROUPS)]}),
    ],
)
def test_others_have_their_turn_while_very_much_is_asked_for(
    gateway: Gateway, client: Client, key: int, version: int, fields: dict[str, Any]
) -> None:
    other = Client(gateway.port)
    try:
        client.begin(key, version, **fields)
        longest, begun = 0.0, time.monotonic()
        while time.monotonic() < begun + 3:
            asked = time.monotonic()
            other.ask(API_VERSIONS, 0)
            longest = max(longest, time.monotonic() - asked)
            time.sleep(0.01)
        client.socket.settimeout(60)
        client.end(key, version)
    finally:
        other.close()
    assert longest < TURN_S
