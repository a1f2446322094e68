"""What is read and written by hand, against the library that does the rest."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.consumer import FetchResponse
from kafka.protocol.producer import ProduceRequest

from edge.kafka.fetch_codec import FetchedRecords, encode_fetch
from edge.kafka.fields import Malformed
from edge.kafka.produce_codec import decode_produce

PRODUCE_VERSIONS, FETCH_VERSIONS = range(3, 11), range(4, 13)


@given(
    st.sampled_from(PRODUCE_VERSIONS),
    st.sampled_from([-1, 0, 1]),
    st.none() | st.text(max_size=5),
    st.lists(
        st.tuples(st.text(max_size=8), st.lists(st.tuples(st.integers(0, 9), st.none() | st.binary(max_size=300)))),
        max_size=4,
    ),
)
def test_a_produce_request_is_read_as_the_library_wrote_it(
    version: int, acks: int, transactional_id: str | None, topics: list[Any]
) -> None:
    kind = ProduceRequest[version]
    data = kind(
        transactional_id=transactional_id,
        acks=acks,
        timeout_ms=77,
        topic_data=[
            kind.TopicProduceData(
                name=name,
                partition_data=[kind.TopicProduceData.PartitionProduceData(index=i, records=r) for i, r in partitions],
            )
            for name, partitions in topics
        ],
    ).encode()
    body = decode_produce(memoryview(bytes(data)), version)
    assert body[:3] == (transactional_id, acks, 77)
    found = [(item.topic, item.partition, item.records) for item in body.records]
    assert found == [(name, index, records) for name, partitions in topics for index, records in partitions]


@pytest.mark.parametrize("version", PRODUCE_VERSIONS)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_produce_request_or_malformed(version: int, data: bytes) -> None:
    try:
        decode_produce(memoryview(data), version)
    except Malformed:
        pass


@pytest.mark.parametrize("count", [2**31 - 1, 1_000_000])
def test_counts_beyond_the_bytes_are_refused(count: int) -> None:
    plain = struct.pack(">hhii", -1, 1, 1000, count)
    with pytest.raises(Malformed, match="array"):
        decode_produce(memoryview(plain), 3)


@pytest.mark.parametrize("version", FETCH_VERSIONS)
def test_a_fetch_response_is_what_the_library_reads(version: int) -> None:
    first = [
        FetchedRecords(0, 0, 10, 2, -1, [b"abc", memoryview(bytes(300))]),
        FetchedRecords(1, 1, 10, 2, 3),
        FetchedRecords(2, 0, 10, 2, -1, (), (4, 7)),
    ]
    parts = encode_fetch(
        [("one", first), ("two", [FetchedRecords(5)])],
        version=version,
        correlation_id=9,
        throttle_ms=4,
        error_code=0,
        session_id=6,
    )
    data = b"".join(parts)
    assert struct.unpack_from(">ii", data) == (len(data) - 4, 9)
    body = FetchResponse.decode(data[8 + (version >= 12) :], version=version)
    assert body.throttle_time_ms == 4
    assert [topic.topic for topic in body.responses] == ["one", "two"]
    found = body.responses[0].partitions
    assert [bytes(item.records or b"") for item in found] == [b"abc" + bytes(300), b"", b""]
    assert [item.error_code for item in found] == [0, 1, 0]
    assert [item.high_watermark for item in found] == [10, 10, 10]
    if version >= 11:
        assert [item.preferred_read_replica for item in found] == [-1, 3, -1]
    if version >= 12:
        assert (found[2].diverging_epoch.epoch, found[2].diverging_epoch.end_offset) == (4, 7)
    assert body.responses[1].partitions[0].partition_index == 5
