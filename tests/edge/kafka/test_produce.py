"""Produce: more than a broker takes at once, what is named twice, and what is too large."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge.kafka.apis import produce
from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from ingest import Admin
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import LATEST_TIMESTAMP
from tests.cluster import Cluster
from tests.edge.kafka.test_batches import built
from tests.edge.kafka.test_versions import Client

PARTITIONS = 3 * LIMITS.payload_frames_max


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    opened = Client(gateway.port)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def topic(cluster: Cluster) -> str:
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("produced", PARTITIONS, 1)
    return "produced"


def batches_for(topic: str, partitions: list[int], records: bytes = bytes(built())) -> dict[str, Any]:
    kind = APIS[0].request.TopicProduceData
    data = [kind.PartitionProduceData(index=number, records=records) for number in partitions]
    return {"acks": -1, "timeout_ms": 5_000, "topic_data": [kind(name=topic, partition_data=data)]}


def outcomes(answer: Any) -> list[tuple[int, int]]:
    (topic,) = answer.responses
    return [(item.index, item.error_code) for item in topic.partition_responses]


@pytest.mark.parametrize("portion_bytes", [produce.PORTION_BYTES, 1])
def test_one_request_may_name_more_partitions_than_a_broker_takes_at_once(
    client: Client, topic: str, monkeypatch: pytest.MonkeyPatch, portion_bytes: int
) -> None:
    monkeypatch.setattr(produce, "PORTION_BYTES", portion_bytes)
    everything = list(range(PARTITIONS))
    answer = client.ask(0, 8, **batches_for(topic, everything))
    assert outcomes(answer) == [(number, 0) for number in everything]


def test_two_batches_for_a_partition_are_refused_and_the_others_taken(
    client: Client, topic: str, cluster: Cluster
) -> None:
    with Admin(cluster.bootstrap) as admin:
        ends = [admin.list_offset(topic, number, LATEST_TIMESTAMP) for number in range(2)]
        answer = client.ask(0, 8, **batches_for(topic, [0, 1, 0]))
        twice = int(ErrorCode.INVALID_RECORD)
        assert outcomes(answer) == [(0, twice), (1, 0), (0, twice)]
        after = [admin.list_offset(topic, number, LATEST_TIMESTAMP) for number in range(2)]
    assert after[0] == ends[0]
    assert after[1] > ends[1]


def test_a_batch_that_no_topic_takes_is_not_looked_at(client: Client, topic: str) -> None:
    answer = client.ask(0, 8, **batches_for(topic, [2], bytes(LIMITS.batch_bytes_max + 1)))
    assert outcomes(answer) == [(2, int(ErrorCode.MESSAGE_TOO_LARGE))]


def test_others_have_their_turn_while_much_is_checked_and_the_order_stays(
    gateway: Gateway, client: Client, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = produce.from_kafka
    small = bytes(built(records=[(1, b"k", b"second", [])]))

    def slow(records: Any, **options: Any) -> Any:
        if bytes(records) != small:
            time.sleep(0.05)
        return checked(records, **options)

    monkeypatch.setattr(produce, "from_kafka", slow)
    other = Client(gateway.port)
    start = time.monotonic()
    client.begin(0, 8, **batches_for(topic, list(range(PARTITIONS))))
    client.begin(0, 8, **batches_for(topic, [7], small))
    longest = 0.0
    for _ in range(5):
        asked = time.monotonic()
        other.ask(18, 0)
        longest = max(longest, time.monotonic() - asked)
    first, second = client.end(0, 8), client.end(0, 8)
    assert time.monotonic() - start > 0.05 * PARTITIONS
    assert longest < 0.4
    (offset,) = [item.base_offset for item in first.responses[0].partition_responses if item.index == 7]
    assert second.responses[0].partition_responses[0].base_offset > offset
    other.close()


def test_more_than_connections_to_brokers_have_room_for_are_all_taken(gateway: Gateway, topic: str) -> None:
    clients = [Client(gateway.port) for _ in range(80)]
    for client in clients:
        for _ in range(20):
            client.begin(0, 8, **batches_for(topic, [3]))
    codes = {code for client in clients for _ in range(20) for _, code in outcomes(client.end(0, 8))}
    assert codes == {0}
    for client in clients:
        client.close()


def test_what_waits_for_room_goes_when_there_is_and_is_told_when_the_broker_is_gone(
    gateway: Gateway, client: Client, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = gateway._brokers._cluster
    send, full = cluster.send, [True]
    monkeypatch.setattr(cluster, "send", lambda *args, **options: not full[0] and send(*args, **options))
    for number in range(3):
        client.begin(0, 8, **batches_for(topic, [4 + 2 * number]))
    time.sleep(0.1)
    full[0] = False
    assert [outcomes(client.end(0, 8)) for _ in range(3)] == [[(4, 0)], [(6, 0)], [(8, 0)]]
    full[0] = True
    client.begin(0, 8, **batches_for(topic, [4]))
    time.sleep(0.1)
    monkeypatch.setattr(cluster, "is_connected", lambda _: False)
    assert outcomes(client.end(0, 8)) == [(4, int(ErrorCode.NOT_LEADER_OR_FOLLOWER))]
