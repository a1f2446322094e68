"""Column batches for Kafka clients: made beside the loop, and not more than an answer may hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edge.kafka import conversion
from edge.kafka.conversion import Batches, Conversion
from edge.kafka.gateway import Gateway
from ingest.errors import CorruptBatch
from ingest.records.batch import encode_batch
from ingest.records.header import decode_header
from tests.cluster import Cluster
from tests.edge.kafka.test_batches import built, from_kafka, read, stored
from tests.edge.kafka.test_fetch import filled
from tests.edge.kafka.test_fetch import read as fetch
from tests.edge.kafka.test_versions import Client

COUNT = 10  # records of a batch


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as opened:
        yield opened


def columns(batches: int, value: bytes = b"value") -> Batches:
    native = stored(encode_batch([1] * COUNT, None, [value] * COUNT))
    return [(decode_header(native), memoryview(native))] * batches


def rows(batches: int) -> Batches:
    made = from_kafka(built())
    native = stored(made.header + bytes(made.body))
    return [(decode_header(native), memoryview(native))] * batches


def test_columns_are_made_until_an_answer_has_enough_of_them(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "RECORDS_MAX", 3 * COUNT)
    made = Conversion(executor)
    parts, count = asyncio.run(made.to_kafka(columns(2)))
    assert (len(parts), count) == (4, 2 * COUNT)
    assert len(read(bytes(parts[0]) + bytes(parts[1]))) == COUNT
    assert asyncio.run(made.to_kafka(columns(5)))[1] == COUNT
    assert asyncio.run(made.to_kafka(columns(5)))[1] == 0
    assert asyncio.run(made.to_kafka(rows(5)))[1] == 5 * decoded_count()


def decoded_count() -> int:
    return rows(1)[0][0].record_count


def test_one_batch_is_made_however_large_it_is(executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "RECORDS_MAX", 1)
    assert asyncio.run(Conversion(executor).to_kafka(columns(2)))[1] == COUNT


def test_an_answer_holds_few_bytes_of_columns(executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "BYTES_MAX", 1000)
    assert asyncio.run(Conversion(executor).to_kafka(columns(5, bytes(50))))[1] == 2 * COUNT


def test_many_records_are_made_beside_the_loop(executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    to_kafka = conversion.to_kafka

    def listened(batch: Any, header: Any) -> Any:
        threads.append(threading.current_thread().name)
        return to_kafka(batch, header)

    monkeypatch.setattr(conversion, "to_kafka", listened)
    monkeypatch.setattr(conversion, "INLINE_RECORDS_MAX", COUNT)
    made = Conversion(executor)
    asyncio.run(made.to_kafka(columns(1)))
    asyncio.run(made.to_kafka(columns(1)))
    assert threads == [threading.main_thread().name, "beside_0"]


def test_columns_that_cannot_be_read_are_told_of(
    cluster: Cluster, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a map as from a leader's answer."""
    topic = filled(cluster, "conversion-damaged")

    def damaged(batch: Any, header: Any) -> Any:
        raise CorruptBatch("columns")

    client = Client(gateway.port)
    try:
        assert fetch(client, topic, fetch_offset=0).error_code == 0  # and its leader tells where the map is
        monkeypatch.setattr(conversion, "to_kafka", damaged)
        assert [fetch(client, topic, fetch_offset=0).error_code for _ in range(2)] == [2, 2]
    finally:
        client.close()
