"""Produce without an answer."""

from __future__ import annotations

import time

from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from ingest.admin import Admin
from tests.cluster import Cluster
from tests.edge.kafka.test_versions import Client, fields_of

COUNT = 100


def test_what_was_sent_without_wanting_an_answer_outlives_its_connection(cluster: Cluster, gateway: Gateway) -> None:
    name = "acks-0"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, partitions=1)
    request = APIS[0].request(**fields_of(0, 8, name) | {"acks": 0})
    request.API_VERSION = 8
    request.with_header(correlation_id=1, client_id="test")
    before = gateway.counters.unanswered
    client = Client(gateway.port)
    client.ask(3, 8, topics=[], allow_auto_topic_creation=False)
    client.send(bytes(request.encode(header=True, framed=True)) * COUNT)
    client.close()

    reader = Client(gateway.port)
    kind = APIS[2].request.ListOffsetsTopic
    asked = [kind(name=name, partitions=[kind.ListOffsetsPartition(partition_index=0, timestamp=-1)])]
    deadline = time.monotonic() + 10
    end = -1
    while (end < COUNT or gateway.memory.whole) and time.monotonic() < deadline:
        (topic,) = reader.ask(2, 1, replica_id=-1, topics=asked).topics
        end = topic.partitions[0].offset
        time.sleep(0.02)
    reader.close()
    assert end >= COUNT
    assert gateway.counters.unanswered == before
    assert gateway.memory.whole == 0
