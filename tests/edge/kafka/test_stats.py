"""What a gateway counts: the balance of records, and requests by API with their errors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from edge.kafka.codec import APIS, error_codes
from edge.kafka.gateway import Gateway
from edge.kafka.request_counts import RequestCounts
from edge.kafka.stats import Counters, KafkaStats
from edge.kafka.tally import Tally
from ingest import Admin
from ingest.wire.codes import ErrorCode
from tests.cluster import Cluster

kafka = pytest.importorskip("kafka")
_names = itertools.count()


def balance(counters: Counters) -> tuple[int, int, int, int, int, int]:
    found = counters.stats()
    assert found.received_total == found.acknowledged_total + found.refused_total + found.in_flight
    return (
        found.received_total,
        found.acknowledged_total,
        found.refused_total,
        found.unanswered_total,
        found.in_flight,
        found.appended_total,
    )


def test_every_record_is_acknowledged_refused_or_in_flight() -> None:
    counters = Counters()
    with Tally(counters) as tally:
        tally.came(("t", 0), 10)
        tally.came(("t", 1), 5)
        tally.came(("t", 2), 1)
        assert balance(counters) == (16, 0, 0, 0, 16, 0)
        tally.appended([("t", 0)])
        assert balance(counters) == (16, 10, 0, 0, 6, 10)
    assert balance(counters) == (16, 10, 6, 0, 0, 10)


def test_records_of_a_connection_that_ended_are_refused_and_told_nobody() -> None:
    counters = Counters()
    tally = Tally(counters)
    tally.came(("t", 0), 10)
    with pytest.raises(KeyError), tally:
        raise KeyError
    assert balance(counters) == (10, 0, 10, 10, 0, 0)


def test_errors_are_counted_wherever_they_stand_in_an_answer() -> None:
    response = APIS[0].response
    topic = response.TopicProduceResponse
    kind = topic.PartitionProduceResponse

    def partition(code: int) -> Any:
        return kind(index=0, error_code=code, base_offset=0, record_errors=[])

    topics = [topic(name=name, partition_responses=[partition(0), partition(2)]) for name in ("a", "b")]
    answer = response(responses=topics, throttle_time_ms=0)
    assert list(error_codes(answer)) == [2, 2]
    assert list(error_codes(APIS[12].response(throttle_time_ms=0, error_code=27))) == [27]

    counts = RequestCounts()
    assert counts.stats() == {}
    counts.answered(0, 0.002)
    counts.refused(0, [*error_codes(answer), 0, 1234])
    (name,) = counts.stats()
    assert name == "Produce"
    assert counts.stats()[name].errors_total == {ErrorCode.CORRUPT_MESSAGE.name: 2, "1234": 1}
    assert sum(counts.stats()[name].seconds.counts) == 1


def test_a_gateway_counts_what_goes_through_it(cluster: Cluster, gateway: Gateway, address: str) -> None:
    topic = f"counted-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(topic, 1)

    def since(before: KafkaStats, field: str) -> int:
        return int(getattr(gateway.stats(), field) - getattr(before, field))

    before = gateway.stats()
    producer = kafka.KafkaProducer(bootstrap_servers=address, acks="all")
    for number in range(10):
        producer.send(topic, b"%d" % number)
    producer.flush(20)
    producer.close()
    place = kafka.TopicPartition(topic, 0)
    consumer = kafka.KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign([place])
    consumer.seek(place, 10**12)  # out of range; it goes back to the beginning
    seen = 0
    while seen < 10:
        seen += sum(map(len, consumer.poll(1000).values()))
    assert gateway.stats().connections >= 1
    consumer.close()

    for field in ("received_total", "acknowledged_total", "appended_total", "fetched_total"):
        assert since(before, field) == 10, field
    assert since(before, "refused_total") == 0
    assert since(before, "connections_opened_total") >= 2
    assert since(before, "bytes_out_total") > 100
    apis = gateway.stats().apis
    assert {"ApiVersions", "Metadata", "Produce", "Fetch", "ListOffsets"} <= apis.keys()
    assert apis["Fetch"].errors_total["OFFSET_OUT_OF_RANGE"] >= 1
