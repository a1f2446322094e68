"""Quotas through the gateway: Kafka clients get their rate by throttle time, and are not read meanwhile (KIP-219)."""

from __future__ import annotations

import itertools
import json
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

confluent = pytest.importorskip("confluent_kafka")

RATE = 1_000_000
WINDOW_S = 10
SIZE = 50_000
COUNT = (WINDOW_S + 5) * RATE // SIZE
TOLERANCE = 0.2

_names = itertools.count()


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap) as opened:
        yield opened
        for client_id, rates in opened.client_quotas().items():
            opened.alter_client_quota(client_id, dict.fromkeys(rates))


@pytest.fixture
def topic(admin: Admin) -> str:
    name = f"kafka-quotas-{next(_names)}"
    admin.create_topic(name, configs={"durability": "os"})
    return name


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    opened = Client(gateway.port)
    yield opened
    opened.close()


def told(statistics: list[str], key: str = "throttle") -> int:
    """Return the longest throttle that librdkafka's statistics tell of, in ms."""
    found = [json.loads(text)["brokers"].values() for text in statistics]
    return max((broker[key]["max"] for brokers in found for broker in brokers), default=0)


def produce(address: str, topic: str, client_id: str, **options: Any) -> tuple[float, list[str]]:
    statistics: list[str] = []
    failures: list[Any] = []
    config = {"bootstrap.servers": address, "client.id": client_id, "statistics.interval.ms": 200, "batch.size": SIZE}
    producer = confluent.Producer({**config, "stats_cb": statistics.append, **options})
    began = time.monotonic()
    for _ in range(COUNT):
        producer.produce(topic, bytes(SIZE), on_delivery=lambda error, _: error and failures.append(error))
        producer.poll(0)
    assert producer.flush(60) == 0
    assert failures == []
    seconds = time.monotonic() - began
    producer.poll(0.3)
    return seconds, statistics


def consume(address: str, topic: str, client_id: str) -> tuple[float, list[int]]:
    throttles: list[int] = []
    config = {"bootstrap.servers": address, "client.id": client_id, "group.id": client_id}
    options = {"auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 45_000}
    consumer = confluent.Consumer(
        {**config, **options, "throttle_cb": lambda event: throttles.append(round(event.throttle_time * 1000))}
    )
    consumer.assign([confluent.TopicPartition(topic, 0, 0)])
    began = time.monotonic()
    found = 0
    while found < COUNT:
        messages = consumer.consume(100, 1.0)
        assert [message.error() for message in messages if message.error()] == []
        found += len(messages)
        assert time.monotonic() - began < 60
    seconds = time.monotonic() - began
    consumer.close()
    return seconds, throttles


def rate_of(seconds: float) -> float:
    return COUNT * SIZE / (seconds + WINDOW_S)


def test_librdkafka_gets_its_rate_and_is_told_why_and_others_are_not_held(
    admin: Admin, address: str, topic: str
) -> None:
    admin.alter_client_quota("held", {"producer_byte_rate": RATE, "consumer_byte_rate": RATE})
    free_s, statistics = produce(address, topic, "free")
    assert told(statistics) == 0
    held_s, statistics = produce(address, topic, "held")
    assert rate_of(held_s) == pytest.approx(RATE, rel=TOLERANCE)
    assert told(statistics) > 0
    assert free_s < held_s / 2
    held_s, throttles = consume(address, topic, "held")
    assert rate_of(held_s) == pytest.approx(RATE, rel=TOLERANCE)
    assert max(throttles) > 0
    free_s, throttles = consume(address, topic, "free")
    assert (throttles, free_s < held_s / 2) == ([], True)


def test_librdkafka_without_acknowledgements_gets_its_rate_too(admin: Admin, address: str, topic: str) -> None:
    admin.alter_client_quota("held-0", {"producer_byte_rate": RATE})
    began = time.monotonic()
    produce(address, topic, "held-0", acks=0, **{"batch.size": 1_000_000})
    deadline = began + 30
    while admin.list_offset(topic, 0, -1) < COUNT:
        assert time.monotonic() < deadline, "what has no answer is not dropped for its quota either"
        time.sleep(0.05)
    assert rate_of(time.monotonic() - began) == pytest.approx(RATE, rel=TOLERANCE)


def test_a_connection_is_not_read_until_its_throttle_is_over(
    admin: Admin, gateway: Gateway, client: Client, topic: str
) -> None:
    other = Client(gateway.port)
    size = len(bytes(built()))
    admin.alter_client_quota("test", {"producer_byte_rate": size // 11})  # what one produce has, in some 11 s
    began = time.monotonic()
    answer = client.ask(0, 8, **fields_of(0, 8, topic))
    assert 500 <= answer.throttle_time_ms <= 2000
    assert time.monotonic() - began < 0.4, "it is answered at once"
    other.ask(18, 0)
    assert time.monotonic() - began < 0.5
    client.ask(18, 0)
    assert time.monotonic() - began >= answer.throttle_time_ms / 1000 - 0.05
    other.close()


def alter(client: Client, *entries: tuple[dict[str, str | None], dict[str, float | None]]) -> list[tuple[int, str]]:
    kind = APIS[49].request.EntryData
    asked = [
        kind(
            entity=[kind.EntityData(entity_type=name, entity_name=value) for name, value in entity.items()],
            ops=[kind.OpData(key=key, value=rate or 0.0, remove=rate is None) for key, rate in rates.items()],
        )
        for entity, rates in entries
    ]
    answer = client.ask(49, 1, entries=asked, validate_only=False)
    return [(one.error_code, one.error_message or "") for one in answer.entries]


def describe(client: Client, *components: tuple[str, int, str | None], strict: bool = False) -> Any:
    kind = APIS[48].request.ComponentData
    asked = [kind(entity_type=name, match_type=how, match=match) for name, how, match in components]
    answer = client.ask(48, 1, components=asked, strict=strict)
    if answer.error_code:
        return answer.error_code
    return {entry.entity[0].entity_name: {value.key: value.value for value in entry.values} for entry in answer.entries}


def test_quotas_are_described_and_altered_as_kafkas_tools_do(admin: Admin, client: Client) -> None:
    entries = (
        ({"client-id": None}, {"producer_byte_rate": 1048576.0}),
        ({"client-id": "app"}, {"producer_byte_rate": 5.0, "consumer_byte_rate": 6.0}),
    )
    assert alter(client, *entries) == [(0, ""), (0, "")]
    assert admin.client_quotas() == {
        "": {"producer_byte_rate": 1048576},
        "app": {"producer_byte_rate": 5, "consumer_byte_rate": 6},
    }
    everything = {None: entries[0][1], "app": entries[1][1]}
    assert describe(client) == describe(client, ("client-id", 2, None)) == everything
    assert describe(client, ("client-id", 1, None), strict=True) == {None: entries[0][1]}
    assert describe(client, ("client-id", 0, "app")) == {"app": entries[1][1]}
    assert describe(client, ("client-id", 0, "nobody")) == {}
    assert describe(client, ("user", 2, None)) == {}
    assert describe(client, ("user", 2, None), ("client-id", 2, None)) == {}
    assert describe(client, strict=True) == {}
    assert alter(client, ({"client-id": "app"}, {"producer_byte_rate": None})) == [(0, "")]
    assert describe(client, ("client-id", 0, "app")) == {"app": {"consumer_byte_rate": 6.0}}


def test_quotas_that_there_are_none_of_are_refused_and_the_others_of_a_request_set(
    admin: Admin, client: Client
) -> None:
    rate = {"producer_byte_rate": 5.0}
    refused = alter(
        client,
        ({"user": "u"}, rate),
        ({"user": "u", "client-id": "c"}, rate),
        ({"ip": "127.0.0.1"}, {"connection_creation_rate": 5.0}),
        ({}, rate),
        ({"client-id": ""}, rate),
        ({"client-id": "good"}, rate),
        ({"client-id": "half"}, {"producer_byte_rate": 1.5}),
        ({"client-id": "none"}, {"producer_byte_rate": 0.0}),
        ({"client-id": "nan"}, {"producer_byte_rate": float("nan")}),
        ({"client-id": "infinite"}, {"producer_byte_rate": float("inf")}),
        ({"client-id": "other"}, {"request_percentage": 5.0}),
    )
    assert [code for code, _ in refused] == [0 if index == 5 else ErrorCode.INVALID_REQUEST for index in range(11)]
    assert "client-id here, not of user" in refused[0][1]
    assert "producer_byte_rate=1.5: expected a whole number" in refused[6][1]
    assert admin.client_quotas() == {"good": {"producer_byte_rate": 5}}


@pytest.mark.parametrize(
    "components",
    [
        [("client-id", 3, None)],
        [("client-id", 0, None)],
        [("client-id", 1, "x")],
        [("planet", 2, None)],
        [("client-id", 2, None), ("client-id", 2, None)],
    ],
)
def test_a_filter_that_is_none_is_refused(client: Client, components: list[tuple[str, int, str | None]]) -> None:
    assert describe(client, *components) == ErrorCode.INVALID_REQUEST
