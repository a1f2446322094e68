"""Producer, consumer and admin against real brokers; a consumer gives the same over the mapping and over Fetch."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ingest import Admin, Consumer, Producer
from ingest.client.cluster import Answered
from ingest.client.cluster import Cluster as RawCluster
from ingest.consumer import TopicPartition
from ingest.errors import (
    ConfigError,
    CorruptBatch,
    DeserializationError,
    ForkedHandle,
    LogTruncation,
    RemoteError,
    UsageError,
)
from ingest.producer import Delivery
from ingest.records.header import ATTRIBUTE_COLUMNS, encode_producer_half
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import ProducePartition, ProduceRequest
from tests.cluster import Cluster

_names = itertools.count()


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"topic-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 1)
    return name


@pytest.fixture(params=[True, False], ids=["mapping", "fetch"])
def consumer(cluster: Cluster, topic: str, request: pytest.FixtureRequest) -> Iterator[Consumer]:
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="earliest", local=request.param) as opened:
        yield opened


def read(consumer: Consumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    for _ in range(100):
        values += [record.value for record in consumer.poll(100)]
        if len(values) >= count:
            break
    return values


def fill(cluster: Cluster, topic: str, count: int, **options: object) -> None:
    with Producer(cluster.bootstrap) as producer:
        for index in range(count):
            producer.send(topic, b"%d" % index, key=b"key", timestamp_ms=1000 + index, **options)  # type: ignore[arg-type]


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % index for index in range(start, count)]


def test_records_are_read_back_whole_and_in_order(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    with Producer(cluster.bootstrap) as producer:
        deliveries = [
            producer.send(topic, value, key=key, headers=headers, timestamp_ms=5)
            for value, key, headers in (
                (b"v", b"k", [("a", b"1"), ("b", None)]),
                (None, b"gone", None),
                (b"", None, None),
            )
        ]
        assert [delivery.result(10).offset for delivery in deliveries] == [0, 1, 2]
    records = consumer.poll(5000)
    assert [(r.offset, r.timestamp_ms, r.key, r.value, r.headers) for r in records] == [
        (0, 5, b"k", b"v", (("a", b"1"), ("b", None))),
        (1, 5, b"gone", None, ()),
        (2, 5, None, b"", ()),
    ]


def test_many_records_keep_their_order(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    fill(cluster, topic, 20_000)
    assert read(consumer, 20_000) == numbers(20_000)


def test_a_waiting_consumer_is_woken_by_the_next_record(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    assert consumer.poll(300) == []
    fill(cluster, topic, 1)
    assert [record.value for record in consumer.poll(5000)] == [b"0"]


def test_seek_goes_to_any_offset(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    fill(cluster, topic, 1000)
    assert read(consumer, 1000) == numbers(1000)
    consumer.seek(topic, 0, 990)
    assert read(consumer, 10) == numbers(1000, 990)
    consumer.seek_to_beginning((topic, 0))
    assert read(consumer, 1000)[:3] == numbers(3)


def test_seek_to_time_finds_the_first_record_at_or_after_it(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    fill(cluster, topic, 100)
    consumer.seek_to_time(1060, (topic, 0))
    assert consumer.position(topic, 0) == 60
    assert read(consumer, 40) == numbers(100, 60)


def test_offsets_for_times_answers_per_partition(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    fill(cluster, topic, 100)
    name = TopicPartition(topic, 0)
    assert consumer.offsets_for_times({name: 1000}) == {name: (0, 1000)}
    assert consumer.offsets_for_times({name: 99_999}) == {name: None}
    assert consumer.beginning_offsets([name]) == {name: 0}
    assert consumer.end_offsets([name]) == {name: 100}


def test_a_topic_that_was_missing_is_seen_once_it_is_created(cluster: Cluster) -> None:
    name = f"later-{next(_names)}"
    with Consumer(cluster.bootstrap) as consumer, Admin(cluster.bootstrap) as admin:
        assert consumer.partitions_for(name) == []
        admin.create_topic(name, 2)
        assert consumer.partitions_for(name) == [0, 1]


def test_a_batch_nobody_can_decode_is_told_once_and_stepped_over(
    cluster: Cluster, topic: str, consumer: Consumer
) -> None:
    fill(cluster, topic, 1)
    with Admin(cluster.bootstrap) as admin:
        described = admin.describe_topic(topic)
    half = encode_producer_half(
        b"no columns", attributes=ATTRIBUTE_COLUMNS, base_timestamp_ms=1, max_timestamp_ms=1, record_count=1,
        last_offset_delta=0, uncompressed_size=10,
    )  # fmt: skip
    raw = RawCluster(cluster.bootstrap)
    body = ProduceRequest(-1, [ProducePartition(described.topic_id, 0)])
    done: list[Answered] = []
    raw.want([topic])
    while described.partitions[0].leader not in raw.brokers or not raw.send(
        described.partitions[0].leader, body, done.append, timeout_ms=5000, payload=[half + b"no columns"]
    ):
        raw.poll()
        raw.wait(5)
    while not done:
        raw.poll()
        raw.wait(5)
    raw.close()
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"after").result(10)
    values, errors = [], 0
    while b"after" not in values:
        try:
            values += [record.value for record in consumer.poll(1000)]
        except CorruptBatch:
            errors += 1
    assert (values, errors) == ([b"0", b"after"], 1)
    assert consumer.position(topic, 0) == 3


def test_position_and_lag_follow_what_was_handed_out(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    fill(cluster, topic, 10)
    assert len(consumer.poll(5000, max_records=4)) == 4
    assert consumer.position(topic, 0) == 4
    assert consumer.lag() == {TopicPartition(topic, 0): 6}
    assert [record.value for record in consumer.poll(5000)] == numbers(10, 4)


def test_a_paused_partition_waits_and_then_goes_on_where_it_was(
    cluster: Cluster, topic: str, consumer: Consumer
) -> None:
    fill(cluster, topic, 10)
    assert len(consumer.poll(5000, max_records=4)) == 4
    consumer.pause((topic, 0))
    assert consumer.poll(200) == []
    consumer.resume((topic, 0))
    assert read(consumer, 6) == numbers(10, 4)


def test_deleted_records_are_out_of_range_and_reset_goes_to_the_new_start(
    cluster: Cluster, topic: str, consumer: Consumer
) -> None:
    fill(cluster, topic, 100)
    assert read(consumer, 100) == numbers(100)
    with Admin(cluster.bootstrap) as admin:
        assert admin.delete_records(topic, 0, 40) == 40
    consumer.seek(topic, 0, 10)
    assert read(consumer, 60) == numbers(100, 40)


def test_without_a_reset_an_offset_out_of_range_is_an_error(cluster: Cluster, topic: str) -> None:
    fill(cluster, topic, 3)
    with Consumer(cluster.bootstrap, auto_offset_reset="none") as consumer:
        consumer.assign([(topic, 0)])
        consumer.seek(topic, 0, 77)
        for _ in range(3):
            with pytest.raises(RemoteError, match="OFFSET_OUT_OF_RANGE"):
                consumer.poll(5000)
        consumer.seek(topic, 0, 1)
        assert [record.offset for record in consumer.poll(10_000)] == [1, 2]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_comes_back(cluster: Cluster, topic: str, consumer: Consumer, codec: str) -> None:
    with Producer(cluster.bootstrap, compression_type=codec, linger_ms=20) as producer:
        for index in range(300):
            producer.send(topic, b"%d" % index)
    assert read(consumer, 300) == numbers(300)


def test_arrays_go_in_and_come_out_without_an_object_for_each(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    values = np.arange(50_000, dtype="<f8")
    stamps = np.arange(50_000) + 7
    with Producer(cluster.bootstrap) as producer:
        placed = producer.send_arrays(topic, stamps, None, values).result(10)
    assert placed[0].offset == 0
    got: list[np.ndarray] = []
    times: list[np.ndarray] = []
    while sum(map(len, got)) < 50_000:
        for columns in consumer.poll_arrays(5000):
            got.append(columns.values.as_array("<f8"))
            times.append(columns.timestamps_ms)
    np.testing.assert_array_equal(np.concatenate(got), values)
    np.testing.assert_array_equal(np.concatenate(times), stamps)


def test_a_topic_with_a_value_dtype_gives_typed_arrays(cluster: Cluster) -> None:
    name = f"typed-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 1, configs={"value.dtype": "<f4"})
    with Producer(cluster.bootstrap) as producer:
        producer.send_arrays(name, None, None, np.array([1.5, 2.5], "<f4")).result(10)
    with Consumer(cluster.bootstrap, [name], auto_offset_reset="earliest") as consumer:
        (columns,) = consumer.poll_arrays(5000)
        assert columns.values.dtype == np.dtype("<f4")
        assert columns.values.tolist() == [1.5, 2.5]


def test_a_value_of_another_size_than_the_value_dtype_is_refused(cluster: Cluster) -> None:
    name = f"typed-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 1, configs={"value.dtype": "<f8"})
    with Producer(cluster.bootstrap) as producer:
        held = [producer.send(name, value) for value in (bytes(8), b"x", bytes(8))]
        assert held[0].result(10).offset == 0
        with pytest.raises(RemoteError, match="INVALID_RECORD: a value of 1 bytes"):
            held[1].result(10)
        assert held[2].result(10).offset == 1
        for bad in (b"x", None, bytes(9)):
            with pytest.raises(RemoteError, match="INVALID_RECORD"):
                producer.send(name, bad)
        with pytest.raises(RemoteError, match="INVALID_RECORD"):
            producer.send_run(name, [bytes(8), b"x"])
        for values in (np.zeros(3, "<f4"), [bytes(8), b"x"]):
            with pytest.raises(RemoteError, match="INVALID_RECORD"):
                producer.send_arrays(name, values=values)
        producer.send_arrays(name, values=np.arange(3.0)).result(10)
    with Consumer(cluster.bootstrap, topics=[name], auto_offset_reset="earliest") as consumer:
        values = []
        while len(values) < 5:
            values += [record.value for record in consumer.poll(10_000)]
    assert values == [0.0, 0.0, 0.0, 1.0, 2.0]


def test_keys_choose_the_partition_kafka_would(cluster: Cluster) -> None:
    name = f"keyed-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 4)
    with Producer(cluster.bootstrap) as producer:
        placed = {n: producer.send(name, b"v", key=b"key-%d" % n).result(10).partition for n in range(8)}
        arrays = producer.send_arrays(name, None, [b"key-%d" % n for n in range(8)], [b"v"] * 8).result(10)
    from ingest.client.partitioner import murmur2

    assert placed == {n: (murmur2(b"key-%d" % n) & 0x7FFFFFFF) % 4 for n in range(8)}
    assert {item.partition for item in arrays} == set(placed.values())


def test_serializers_by_name_and_callable(cluster: Cluster, topic: str) -> None:
    with Producer(cluster.bootstrap, key_serializer="string", value_serializer="json") as producer:
        producer.send(topic, {"t": 21.5}, key="dev-17").result(10)
    with Consumer(
        cluster.bootstrap, [topic], auto_offset_reset="earliest", key_deserializer="string", value_deserializer="json"
    ) as consumer:
        (record,) = consumer.poll(5000)
    assert (record.key, record.value) == ("dev-17", {"t": 21.5})


def test_a_record_its_deserializer_can_not_take_is_named_and_passed_by_seek(cluster: Cluster, topic: str) -> None:
    with Producer(cluster.bootstrap, linger_ms=50) as producer:
        for value in (b"1", b"2", b"{", b"4"):
            producer.send(topic, value)
    with Consumer(
        cluster.bootstrap, topics=[topic], auto_offset_reset="earliest", value_deserializer="json"
    ) as consumer:
        values: list[object] = []
        while len(values) < 2:
            values += [record.value for record in consumer.poll(10_000)]
        for _ in range(2):
            with pytest.raises(DeserializationError, match="record 2: the deserializer") as caught:
                consumer.poll(10_000)
        assert consumer.position(topic, 0) == caught.value.offset == 2
        consumer.seek(topic, 0, 3)
        values += [record.value for record in consumer.poll(10_000)]
    assert values == [1, 2, 4]


def test_an_unknown_topic_is_created_on_the_first_send(cluster: Cluster) -> None:
    name = f"fresh-{next(_names)}"
    with Producer(cluster.bootstrap) as producer:
        assert producer.send(name, b"v").result(10).offset == 0


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "x" * 300, "nul\0", "ü"])
def test_a_name_no_topic_can_have_is_refused_before_anything_is_sent(cluster: Cluster, name: str) -> None:
    with Producer(cluster.bootstrap) as producer, pytest.raises(RemoteError) as caught:
        producer.send(name, b"v")
    assert caught.value.code == ErrorCode.INVALID_TOPIC_EXCEPTION
    with Admin(cluster.bootstrap) as admin, pytest.raises(RemoteError):
        admin.create_topic(name)


def test_a_record_beyond_the_limit_is_refused_and_the_others_go_on(cluster: Cluster, topic: str) -> None:
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"before").result(10)
        with pytest.raises(RemoteError) as caught:
            producer.send(topic, bytes(2_000_000))
        assert caught.value.code == ErrorCode.MESSAGE_TOO_LARGE
        assert producer.send(topic, b"after").result(10).offset == 1


def test_acks_zero_and_one_are_served(cluster: Cluster, topic: str) -> None:
    with Producer(cluster.bootstrap, acks=0) as producer:
        assert producer.send(topic, b"0").result(10).offset == -1
    with Producer(cluster.bootstrap, acks=1) as producer:
        assert producer.send(topic, b"1").result(10).offset == 1


def test_callbacks_come_once_in_order_with_their_offsets(cluster: Cluster, topic: str) -> None:
    seen: list[int] = []
    with Producer(cluster.bootstrap) as producer:
        for _ in range(500):
            producer.send(topic, b"v", on_delivery=lambda delivery: seen.append(delivery.result(0).offset))
        producer.flush(10)
    assert seen == list(range(500))


def test_a_run_shares_key_headers_and_callback(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    settled: list[int] = []
    headers = (("site", b"A"),)
    with Producer(cluster.bootstrap) as producer:
        for start in (0, 3000):  # the first is held until the topic is known
            values = numbers(start + 3000, start)
            while values:
                taken = producer.send_run(
                    topic, values, b"dev", headers=headers, on_delivery=lambda d: settled.append(d.result(0).offset)
                )
                values = values[sum(count for _, count in taken) :]
        producer.send(topic, b"plain")
        producer.flush(10)
    records = [record for _ in range(20) for record in consumer.poll(500, 1000)]
    assert [record.value for record in records] == [*numbers(6000), b"plain"]
    assert {(record.key, record.headers) for record in records[:-1]} == {(b"dev", headers)}
    assert records[-1].headers == ()
    assert settled == sorted(settled)
    assert settled[-1] == 5999


def test_a_callback_that_raises_keeps_nobody_from_theirs(cluster: Cluster, topic: str) -> None:
    seen: list[int] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(delivery.result(0).offset)
        if len(seen) == 1:
            raise ValueError("mine")

    with Producer(cluster.bootstrap) as producer:
        for _ in range(3):
            producer.send(topic, b"v", on_delivery=on_delivery).result(10)
    assert seen == [0, 1, 2]


def test_a_topic_created_anew_with_fewer_partitions_takes_records_again(cluster: Cluster) -> None:
    name = f"anew-{next(_names)}"
    with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        admin.create_topic(name, 6)
        for n in range(60):
            producer.send(name, b"old", key=b"%d" % n)
        producer.flush(10)
        admin.delete_topics([name])
        admin.create_topic(name, 2)
        placed = []
        for n in range(60):
            try:
                placed.append(producer.send(name, b"new", key=b"%d" % n).result(20))
            except RemoteError:  # sent to a partition that is gone, before the producer heard of it
                continue
        assert len(placed) > 50
        assert {where.partition for where in placed} == {0, 1}


@pytest.mark.parametrize("reset", ["earliest", "latest", "none"])
@pytest.mark.parametrize("local", [True, False])
def test_a_topic_created_anew_under_a_consumer_is_told_and_read_from_its_start(
    cluster: Cluster, local: bool, reset: str
) -> None:
    name = f"anew-{next(_names)}"

    def send(*values: bytes) -> None:
        with Producer(cluster.bootstrap) as producer:  # one that lived on might create the topic anew itself
            for value in values:
                producer.send(name, value)

    with (
        Admin(cluster.bootstrap) as admin,
        Consumer(cluster.bootstrap, auto_offset_reset=reset, local=local) as consumer,
    ):
        admin.create_topic(name, 1)
        consumer.assign([(name, 0)])
        consumer.seek(name, 0, 0)
        values = []
        send(b"old-0", b"old-1")
        while len(values) < 2:
            values += [record.value for record in consumer.poll(10_000)]
        admin.delete_topics([name])
        admin.create_topic(name, 1)
        send(*(b"new-%d" % n for n in range(5)))  # past the old position
        for _ in range(2 if reset == "none" else 1):
            with pytest.raises(LogTruncation, match="created anew"):
                consumer.poll(20_000)
        if reset == "none":
            consumer.seek(name, 0, 0)
        while len(values) < 7:
            values += [record.value for record in consumer.poll(10_000)]
    assert values == [b"old-0", b"old-1", *(b"new-%d" % n for n in range(5))]


@pytest.mark.parametrize("bad", ["text", 5, {"a": 1}, [b"x"]])
def test_what_is_not_bytes_is_refused_by_the_call_that_brings_it(cluster: Cluster, topic: str, bad: object) -> None:
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"before")
        with pytest.raises(UsageError, match="value must be bytes"):
            producer.send(topic, bad)
        with pytest.raises(UsageError, match="key must be bytes"):
            producer.send(topic, b"v", key=bad)
        with pytest.raises(UsageError, match="value must be bytes"):
            producer.send_run(topic, [b"v", bad])  # type: ignore[list-item]
        with pytest.raises(UsageError, match="value must be bytes"):
            producer.send_arrays(topic, None, None, [b"v", bad])
        assert producer.send(topic, bytearray(b"after")).result(10).offset == 1


def test_offsets_by_time_start_where_the_log_does(cluster: Cluster, topic: str) -> None:
    with Producer(cluster.bootstrap, linger_ms=50) as producer:
        for n in range(4):
            producer.send(topic, b"%d" % n, timestamp_ms=1000 + n)
    with Admin(cluster.bootstrap) as admin:
        admin.delete_records(topic, 0, 2)
        assert admin.list_offset(topic, 0, 1000) == 2
        assert admin.list_offset(topic, 0, 1003) == 3
    with Consumer(cluster.bootstrap) as consumer:
        consumer.assign([(topic, 0)])
        consumer.seek_to_time(1000)
        assert [record.value for record in consumer.poll(5000)] == [b"2", b"3"]


def test_topics_are_created_grown_changed_and_deleted(cluster: Cluster) -> None:
    name = f"admin-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 2, configs={"retention.ms": "1000000"})
        with pytest.raises(RemoteError, match="TOPIC_ALREADY_EXISTS"):
            admin.create_topic(name)
        admin.create_partitions(name, 3)
        assert len(admin.describe_topic(name).partitions) == 3
        admin.alter_configs(name, {"retention.ms": "2000000"})
        entries = {entry.name: entry.value for entry in admin.describe_configs(name)}
        assert entries["retention.ms"] == "2000000"
        with pytest.raises((RemoteError, ConfigError)):
            admin.alter_configs(name, {"retention.sm": "1"})
        admin.delete_topics([name])
        with pytest.raises(RemoteError, match="UNKNOWN_TOPIC"):
            admin.describe_topic(name)


def test_partitions_are_spread_over_the_brokers_and_any_answers_for_all(cluster: Cluster) -> None:
    name = f"spread-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 4)
        leaders = {item.leader for item in admin.describe_topic(name).partitions}
    assert leaders == {1, 2}
    for broker_id in (1, 2):
        with Producer(cluster.endpoint(broker_id)) as producer:
            assert {producer.send(name, b"v", partition=n).result(10).partition for n in range(4)} == {0, 1, 2, 3}


def in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_parent_and_child_of_a_fork_both_send_and_nothing_is_lost_or_doubled(
    cluster: Cluster, topic: str, consumer: Consumer
) -> None:
    with Producer(cluster.bootstrap, linger_ms=50) as producer:
        producer.send(topic, b"first").result(10)
        gathered = [producer.send(topic, b"parent-%d" % n) for n in range(100)]

        def child() -> None:
            with pytest.raises(ForkedHandle):
                gathered[0].result(1)
            for n in range(100):
                producer.send(topic, b"child-%d" % n)
            producer.flush(10)

        assert in_child(child) == 0
        producer.flush(10)
    values = read(consumer, 201)
    assert sorted(values) == sorted(
        [b"first", *(b"%s-%d" % (who, n) for who in (b"parent", b"child") for n in range(100))]
    )


def test_a_consumer_goes_on_in_the_child_where_the_parent_was(cluster: Cluster, topic: str, consumer: Consumer) -> None:
    fill(cluster, topic, 10)
    assert len(consumer.poll(5000, max_records=4)) == 4

    def child() -> None:
        assert read(consumer, 6) == numbers(10, 4)

    assert in_child(child) == 0
    assert read(consumer, 6) == numbers(10, 4)


def test_settings_that_can_not_be_used_are_named(cluster: Cluster, tmp_path: str) -> None:
    with pytest.raises(ConfigError, match="acks"):
        Producer(cluster.bootstrap, acks="some")
    with pytest.raises(ConfigError, match="compression_type"):
        Producer(cluster.bootstrap, compression_type="rar")
    with pytest.raises(ConfigError, match="auto_offset_reset"):
        Consumer(cluster.bootstrap, auto_offset_reset="middle")
    with pytest.raises(ConfigError, match="forebay up"):
        Admin(str(tmp_path)).brokers()


def test_clients_that_are_dropped_without_close_hold_nobody_up(cluster: Cluster, topic: str) -> None:
    producer, consumer = Producer(cluster.bootstrap), Consumer(cluster.bootstrap, [topic])
    producer.send(topic, b"v").result(10)
    consumer.poll(100)
    del producer, consumer
    gc.collect()


def test_a_closed_producer_says_so(cluster: Cluster, topic: str) -> None:
    producer = Producer(cluster.bootstrap)
    producer.close()
    with pytest.raises(UsageError, match="closed"):
        producer.send(topic, b"v")


def test_hundreds_of_long_topic_names_are_served(cluster: Cluster) -> None:
    names = [f"{'n' * 220}-{next(_names)}" for _ in range(300)]
    with Producer(cluster.bootstrap) as producer:
        for name in names:
            producer.send(name, b"v")
        producer.flush(60)
    with Consumer(cluster.bootstrap, topics=names, auto_offset_reset="earliest") as consumer:
        seen: set[str] = set()
        deadline = time.monotonic() + 60
        while len(seen) < 300 and time.monotonic() < deadline:
            seen |= {record.topic for record in consumer.poll(1000)}
    with Admin(cluster.bootstrap) as admin:
        for at in range(0, 300, 100):
            admin.delete_topics(names[at : at + 100])
    assert seen == set(names)


@pytest.mark.parametrize("local", [True, False])
def test_more_partitions_than_one_fetch_can_name_are_read(cluster: Cluster, local: bool) -> None:
    name = f"wide-{next(_names)}"
    with Admin(cluster.bootstrap, timeout_ms=60_000) as admin:
        admin.create_topic(name, 2500)
        try:
            with (
                Consumer(cluster.bootstrap, topics=[name], auto_offset_reset="earliest", local=local) as consumer,
                Producer(cluster.bootstrap) as producer,
            ):
                wanted = set(range(0, 2500, 7))
                for partition in wanted:
                    producer.send(name, b"v", partition=partition)
                producer.flush(60)
                seen: set[int] = set()
                deadline = time.monotonic() + 60
                while seen != wanted and time.monotonic() < deadline:
                    seen |= {record.partition for record in consumer.poll(1000)}
            assert seen == wanted
        finally:
            admin.delete_topics([name])


def test_no_partition_waits_until_another_is_read_to_its_end(cluster: Cluster) -> None:
    name = f"beside-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 3)
        places = sorted(admin.describe_topic(name).partitions, key=lambda place: (place.leader, place.partition))
    pairs = itertools.pairwise(places)
    one, other = next((a.partition, b.partition) for a, b in pairs if a.leader == b.leader)
    batches = 2000
    with Producer(cluster.bootstrap) as producer:
        for _ in range(batches):
            producer.send_arrays(name, values=np.zeros(1), partition=one)
        producer.send_arrays(name, values=np.zeros(1), partition=other)
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest", fetch_max_bytes=1) as consumer:
        consumer.assign([(name, one)])
        assert consumer.poll_arrays(5000, 1)  # mapped from here on
        consumer.assign([(name, one), (name, other)])
        read = 0
        while not any(columns.partition == other for columns in consumer.poll_arrays(5000, 1)):
            read += 1
    assert read < batches - 1


def test_a_local_reader_that_is_behind_knows_by_how_much(cluster: Cluster, topic: str) -> None:
    with Consumer(cluster.bootstrap, topics=[topic], auto_offset_reset="earliest", fetch_max_bytes=1) as consumer:
        fill(cluster, topic, 3)
        assert consumer.poll(10_000, 1)
        for _ in range(3):
            fill(cluster, topic, 5)
        consumer.poll(10_000, 1)
        consumer.poll(10_000, 1)
        consumer.poll(10_000, 1)
        assert consumer.lag() == {(topic, 0): 18 - consumer.position(topic, 0)}


def test_an_offset_that_never_was_meets_reset(cluster: Cluster, topic: str) -> None:
    fill(cluster, topic, 3)
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        consumer.seek(topic, 0, 1000)
        assert [record.offset for record in consumer.poll(10_000)] == [0, 1, 2]
