"""Quotas with real brokers and native clients: who has one gets its rate, nobody else is held up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ingest import Admin, Consumer, Producer
from ingest.client.sender import Sender
from tests.cluster import Cluster

RATE = 1_000_000
WINDOW_S = 10  # what a client that has rested may use at once
SIZE = 50_000
COUNT = (WINDOW_S + 5) * RATE // SIZE
TOLERANCE = 0.2

_names = itertools.count()


@pytest.fixture
def held(cluster: Cluster) -> Iterator[str]:
    """A client id that may produce and fetch RATE bytes a second."""
    client_id = f"held-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.alter_client_quota(client_id, {"producer_byte_rate": RATE, "consumer_byte_rate": RATE})
        assert admin.client_quotas()[client_id]["producer_byte_rate"] == RATE
        yield client_id
        admin.alter_client_quota(client_id, {"producer_byte_rate": None, "consumer_byte_rate": None})
        assert client_id not in admin.client_quotas()


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"quotas-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, configs={"durability": "os"})
    return name


def produce(cluster: Cluster, topic: str, client_id: str, count: int = COUNT, **options: Any) -> tuple[float, int]:
    """Return how long it took, in seconds, and for how long the producer was told to wait, in ms."""
    with Producer(cluster.bootstrap, client_id=client_id, **options) as producer:
        began = time.monotonic()
        for _ in range(count):
            producer.send(topic, bytes(SIZE))
        producer.flush()
        return time.monotonic() - began, producer.stats()["throttle_ms_total"]


def consume(cluster: Cluster, topic: str, client_id: str, *, local: bool = True) -> float:
    began = time.monotonic()
    found = 0
    with Consumer(
        cluster.bootstrap, [topic], client_id=client_id, auto_offset_reset="earliest", local=local
    ) as consumer:
        while found < COUNT:
            found += len(consumer.poll(1000))
            assert time.monotonic() - began < 60
    return time.monotonic() - began


def rate_of(seconds: float) -> float:
    return COUNT * SIZE / (seconds + WINDOW_S)


def test_a_producer_and_a_consumer_get_their_rates_and_others_are_not_held(
    cluster: Cluster, topic: str, held: str
) -> None:
    free_s, told_ms = produce(cluster, topic, "free", COUNT // 2)
    assert told_ms == 0
    held_s, told_ms = produce(cluster, topic, held, COUNT)
    assert rate_of(held_s) == pytest.approx(RATE, rel=TOLERANCE)
    assert told_ms > 3000
    assert free_s < held_s / 2
    assert rate_of(consume(cluster, topic, held)) == pytest.approx(RATE, rel=TOLERANCE)
    assert consume(cluster, topic, "free") < 4
    assert consume(cluster, topic, "free", local=False) < 4
    stats = [cluster.stats(broker) for broker in (1, 2)]
    assert sum(one.produce_quota.throttle_ms_total for one in stats) > 3000
    assert sum(one.fetch_quota.throttle_ms_total for one in stats) > 3000
    assert sum(one.produce_quota.bytes_total for one in stats) >= COUNT * SIZE


def test_a_producer_that_does_not_heed_its_quota_is_held_all_the_same(
    cluster: Cluster, topic: str, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sender, "on_throttled", lambda *_: None)
    held_s, _ = produce(cluster, topic, held)
    assert rate_of(held_s) == pytest.approx(RATE, rel=TOLERANCE)
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="earliest") as consumer:
        found = 0
        while found < COUNT:
            found += len(consumer.poll(1000))
        assert consumer.poll(100) == []


def test_a_producer_without_acknowledgements_gets_its_rate_and_loses_nothing(
    cluster: Cluster, topic: str, held: str
) -> None:
    wanted = 4 * RATE
    count = WINDOW_S * wanted // SIZE + 20_000_000 // SIZE  # beyond the window more than a broker holds
    with Admin(cluster.bootstrap) as admin:
        admin.alter_client_quota(held, {"producer_byte_rate": wanted})
        began = time.monotonic()
        _, told_ms = produce(cluster, topic, held, count, acks=0, enable_idempotence=False)
        while admin.list_offset(topic, 0, -1) < count:
            assert time.monotonic() - began < 30
            time.sleep(0.05)
        free_s, free_told_ms = produce(cluster, topic, "free", count, acks=0, enable_idempotence=False)
    rate = count * SIZE / (time.monotonic() - began - free_s + WINDOW_S)
    assert rate == pytest.approx(wanted, rel=TOLERANCE)
    assert told_ms > 0
    assert (free_told_ms, free_s < 2) == (0, True)


def test_a_consumer_reads_maps_again_once_its_quota_is_gone(cluster: Cluster, topic: str, held: str) -> None:
    with Consumer(cluster.bootstrap, [topic], client_id=held, auto_offset_reset="earliest") as consumer:
        produce(cluster, topic, "free", 10)
        found = 0
        while found < 10:
            found += len(consumer.poll(1000))
        with Admin(cluster.bootstrap) as admin:
            admin.alter_client_quota(held, {"consumer_byte_rate": None})
        consumer.poll(1200)  # a Fetch that waits tells of it
        before = fetched_bytes(cluster)
        produce(cluster, topic, "free", 10)
        while found < 20:
            found += len(consumer.poll(1000))
        assert fetched_bytes(cluster) == before


def fetched_bytes(cluster: Cluster) -> int:
    """Return how much brokers have sent to readers."""
    return sum(sum(cluster.stats(broker).bytes_out_total.values()) for broker in (1, 2))


def test_what_is_held_goes_on_at_once_when_the_quota_is_gone(
    cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sender, "on_throttled", lambda *_: None)
    client_id = f"changed-{next(_names)}"
    with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap, client_id=client_id) as producer:
        admin.alter_client_quota(client_id, {"producer_byte_rate": 1000})
        producer.send(topic, bytes(SIZE)).result(10)
        held = producer.send(topic, bytes(SIZE))
        with pytest.raises(TimeoutError):
            held.result(0.5)
        admin.alter_client_quota(client_id, {"producer_byte_rate": None})
        held.result(5)
