"""A megabyte of the same name over and over is answered soon, and in little."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID

import pytest

from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from ingest import Admin
from ingest.wire.codes import ErrorCode
from tests.cluster import Cluster
from tests.edge.kafka.test_versions import Client

SECONDS = 6


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    opened = Client(gateway.port)
    yield opened
    opened.close()


def test_metadata_tells_of_each_topic_once(client: Client, cluster: Cluster) -> None:
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("named-often", 20, 1)
        topic_id = admin.describe_topic("named-often").topic_id
    kind = APIS[3].request.MetadataRequestTopic
    for version, topic in ((1, kind(name="named-often")), (12, kind(name=None, topic_id=UUID(bytes=topic_id)))):
        start = time.monotonic()
        answer = client.ask(3, version, topics=[topic] * 50_000, allow_auto_topic_creation=False)
        assert [len(topic.partitions) for topic in answer.topics] == [20]
        assert time.monotonic() - start < SECONDS


def test_topics_to_create_that_are_named_twice_are_found_soon(client: Client) -> None:
    kind = APIS[19].request.CreatableTopic
    topics = [
        kind(name=f"twice-{number % 18_000}", num_partitions=1, replication_factor=1, assignments=[], configs=[])
        for number in range(36_000)
    ]
    start = time.monotonic()
    answer = client.ask(19, 2, topics=topics, timeout_ms=5_000, validate_only=True)
    assert [item.error_code for item in answer.topics] == [ErrorCode.INVALID_REQUEST] * 18_000
    assert time.monotonic() - start < SECONDS
