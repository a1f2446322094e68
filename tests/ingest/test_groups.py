"""Consumers in groups against real brokers: sharing, resuming, committing, and being lost."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest

from ingest import Admin, Consumer, Producer
from ingest.client.cluster import Cluster as RawCluster
from ingest.client.groups.coordinator import Coordinator
from ingest.client.groups.membership import this_process
from ingest.consumer import Committed, RebalanceListener, Record, TopicPartition
from ingest.errors import CommitFailed, ConfigError, NoOffset, RemoteError, RequestTimedOut, UsageError
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import LeaveGroupRequest, LeavingMember
from tests.cluster import Cluster

_names = itertools.count()
PARTITIONS = 6


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"shared-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, PARTITIONS)
    return name


@pytest.fixture
def group() -> str:
    return f"group-{next(_names)}"


def fill(cluster: Cluster, topic: str, count: int, start: int = 0) -> None:
    with Producer(cluster.bootstrap) as producer:
        for index in range(start, start + count):
            producer.send(topic, b"%d" % index, partition=index % PARTITIONS)


def until(done: Callable[[], bool], *consumers: Consumer, timeout_s: float = 10.0) -> None:
    """Poll the consumers by turns until something holds."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, [consumer.assignment() for consumer in consumers]
        for consumer in consumers:
            consumer.poll(5)


def shares(*consumers: Consumer) -> list[int]:
    return [len(consumer.assignment()) for consumer in consumers]


def read_all(consumer: Consumer, count: int) -> list[int]:
    values: list[int] = []
    deadline = time.monotonic() + 10
    while len(values) < count and time.monotonic() < deadline:
        values += [int(record.value) for record in consumer.poll(50)]
    return sorted(values)


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "sticky", "cooperative-sticky"])
def test_members_share_a_topic_and_each_record_comes_to_one_of_them(
    cluster: Cluster, topic: str, group: str, strategy: str
) -> None:
    options = {"group_id": group, "partition_assignment_strategy": strategy, "auto_offset_reset": "earliest"}
    with (
        Consumer(cluster.bootstrap, [topic], **options) as one,  # type: ignore[arg-type]
        Consumer(cluster.bootstrap, [topic], **options) as two,  # type: ignore[arg-type]
    ):
        until(lambda: shares(one, two) == [3, 3], one, two)
        assert not set(one.assignment()) & set(two.assignment())
        fill(cluster, topic, 60)
        found = [*read_all(one, 30), *read_all(two, 30)]
        assert sorted(found) == list(range(60))
        two.close()
        until(lambda: shares(one) == [PARTITIONS], one)


def test_a_group_goes_on_where_it_has_committed(cluster: Cluster, topic: str, group: str) -> None:
    fill(cluster, topic, 60)
    with Consumer(cluster.bootstrap, [topic], group_id=group, auto_offset_reset="earliest") as consumer:
        assert read_all(consumer, 60) == list(range(60))
    fill(cluster, topic, 30, start=60)
    with Consumer(cluster.bootstrap, [topic], group_id=group, auto_offset_reset="earliest") as consumer:
        assert read_all(consumer, 30) == list(range(60, 90))


def test_what_was_not_committed_is_read_again(cluster: Cluster, topic: str, group: str) -> None:
    fill(cluster, topic, 12)
    options = {"group_id": group, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    with Consumer(cluster.bootstrap, [topic], **options) as consumer:  # type: ignore[arg-type]
        records = []
        while len(records) < 12:
            records += consumer.poll(100)
        first = min(records, key=lambda record: (record.partition, record.offset))
        consumer.commit(first, metadata="the first alone")
        assert consumer.committed([(topic, 0), (topic, 1)]) == {
            TopicPartition(topic, 0): Committed(1, "the first alone", first.leader_epoch),
            TopicPartition(topic, 1): None,
        }
    with Consumer(cluster.bootstrap, [topic], **options) as consumer:  # type: ignore[arg-type]
        assert read_all(consumer, 11) == list(range(1, 12))


def test_what_a_break_leaves_is_given_to_the_next_one(cluster: Cluster, topic: str, group: str) -> None:
    fill(cluster, topic, 60)
    seen: list[int] = []
    for _ in range(6):
        with Consumer(cluster.bootstrap, [topic], group_id=group, auto_offset_reset="earliest") as consumer:
            for number, record in enumerate(consumer, 1):
                seen.append(int(record.value))
                if number == 10:
                    break
    assert sorted(seen) == list(range(60))


def test_a_commit_while_iterating_covers_what_was_given_and_no_more(cluster: Cluster, topic: str, group: str) -> None:
    fill(cluster, topic, 60)
    with Consumer(
        cluster.bootstrap, [topic], group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        seen = []
        for record in consumer:
            seen.append(record)
            consumer.commit()
            if len(seen) == 10:
                found = consumer.committed(consumer.assignment())
                break
    assert sum(item.offset for item in found.values() if item is not None) == 10
    for record in seen:
        item = found[TopicPartition(record.topic, record.partition)]
        assert item is not None
        assert item.offset > record.offset


def test_an_error_in_the_callers_work_commits_nothing_by_itself(cluster: Cluster, topic: str, group: str) -> None:
    fill(cluster, topic, 6)

    def work() -> None:
        with Consumer(cluster.bootstrap, [topic], group_id=group, auto_offset_reset="earliest") as consumer:
            assert read_all(consumer, 6)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    with Consumer(cluster.bootstrap, [topic], group_id=group, auto_offset_reset="earliest") as consumer:
        assert read_all(consumer, 6) == list(range(6))


def test_a_commit_without_waiting_tells_its_outcome(cluster: Cluster, topic: str, group: str) -> None:
    with Consumer(cluster.bootstrap, group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign([(topic, 0)])
        told: list[object] = []
        consumer.commit_async({(topic, 0): (7, "x")}, lambda offsets, error: told.append((offsets, error)))
        until(lambda: bool(told), consumer)
        assert told == [({TopicPartition(topic, 0): Committed(7, "x")}, None)]
        consumer.commit_async({(topic, 0): (8, "x" * 5000)}, lambda offsets, error: told.append(error))
        until(lambda: len(told) == 2, consumer)
        assert isinstance(told[1], RemoteError)
        assert told[1].code == ErrorCode.OFFSET_METADATA_TOO_LARGE
        assert consumer.committed([(topic, 0)])[TopicPartition(topic, 0)] == Committed(7, "x", -1)


def test_a_consumer_that_is_closed_when_it_hears_of_a_commit_says_so(cluster: Cluster, topic: str, group: str) -> None:
    consumer = Consumer(cluster.bootstrap, [topic], group_id=group)
    until(lambda: len(consumer.assignment()) == PARTITIONS, consumer)
    consumer.commit_async({(topic, 0): 7}, lambda offsets, error: consumer.close())
    with pytest.raises(UsageError, match="closed"):
        consumer.poll(10_000)


def test_a_commit_tells_the_epoch_of_what_was_read_before_it_and_ends_in_its_time(
    own_cluster: Cluster,
) -> None:
    with Admin(own_cluster.bootstrap) as admin:
        admin.create_topic("t", 1)
    with Producer(own_cluster.bootstrap) as producer:
        for _ in range(3):
            producer.send("t", b"v")
    name = TopicPartition("t", 0)
    with Consumer(own_cluster.bootstrap, group_id="g", auto_offset_reset="earliest") as consumer:
        consumer.assign([name])
        records: list[Record] = []
        until(lambda: bool(records.extend(consumer.poll(5)) or len(records) == 3))
        epoch = records[0].leader_epoch
        assert epoch >= 0
        for offsets in (records[2], {name: 3}):
            consumer.commit(offsets)  # type: ignore[arg-type]
            assert consumer.committed([name])[name] == Committed(3, "", epoch)
        consumer.commit({name: 1})
        assert consumer.committed([name])[name] == Committed(1, "", -1), "whose epoch is not known here any more"
        own_cluster.kill("broker-1")
        consumer.commit_async({name: 2})  # has a minute
        begun = time.monotonic()
        with pytest.raises(RequestTimedOut):
            consumer.commit({name: 3}, timeout_ms=300)
        assert time.monotonic() - begun < 5


def test_assigned_partitions_begin_where_the_group_has_committed(cluster: Cluster, topic: str, group: str) -> None:
    fill(cluster, topic, 60)
    with Consumer(cluster.bootstrap, group_id=group) as consumer:
        consumer.assign([(topic, 0), (topic, 1)])
        consumer.commit({(topic, 0): 4})
    with Consumer(cluster.bootstrap, group_id=group, auto_offset_reset="latest") as consumer:
        consumer.assign([(topic, 0), (topic, 1)])
        assert [consumer.position(topic, 0), consumer.position(topic, 1)] == [4, 10]


class Heard(RebalanceListener):
    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("assigned", len(partitions)))

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("revoked", len(partitions)))

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("lost", len(partitions)))


def test_a_listener_hears_what_comes_and_goes_and_cooperative_members_keep_the_rest(
    cluster: Cluster, topic: str, group: str
) -> None:
    heard = Heard()
    with Consumer(cluster.bootstrap, group_id=group) as one, Consumer(cluster.bootstrap, group_id=group) as two:
        one.subscribe([topic], listener=heard)
        until(lambda: shares(one) == [PARTITIONS], one)
        kept = set(one.assignment())
        two.subscribe([topic])
        until(lambda: shares(one, two) == [3, 3], one, two)
        assert set(one.assignment()) < kept
        assert [call for call in heard.calls if call[1]] == [("assigned", 6), ("revoked", 3)]
        one.unsubscribe()
        assert heard.calls[-1] == ("revoked", 3)
        assert one.assignment() == []


def test_an_eager_member_gives_up_all_before_it_gets_its_share(cluster: Cluster, topic: str, group: str) -> None:
    heard = Heard()
    options = {"group_id": group, "partition_assignment_strategy": "range"}
    with (
        Consumer(cluster.bootstrap, **options) as one,  # type: ignore[arg-type]
        Consumer(cluster.bootstrap, **options) as two,  # type: ignore[arg-type]
    ):
        one.subscribe([topic], listener=heard)
        until(lambda: shares(one) == [PARTITIONS], one)
        two.subscribe([topic])
        until(lambda: shares(one, two) == [3, 3], one, two)
    assert heard.calls == [("assigned", 6), ("revoked", 6), ("assigned", 3), ("revoked", 3)]


def test_partitions_come_and_go_in_poll_alone(cluster: Cluster, topic: str, group: str) -> None:
    with Consumer(cluster.bootstrap, [topic], group_id=group) as one:
        until(lambda: shares(one) == [PARTITIONS], one)
        with Consumer(cluster.bootstrap, [topic], group_id=group) as two:
            deadline = time.monotonic() + 0.5
            for number in itertools.count():
                two.poll(20)
                assert one.partitions_for(f"nothing-{number}") == []  # waits for an answer
                assert [one.position(*name) for name in one.assignment()] == [0] * PARTITIONS
                if time.monotonic() > deadline:
                    break
            until(lambda: shares(one, two) == [3, 3], one, two)


def test_a_pattern_takes_in_topics_that_come_later(cluster: Cluster, group: str) -> None:
    prefix = f"match-{next(_names)}"
    with Admin(cluster.bootstrap) as admin, Consumer(cluster.bootstrap, group_id=group) as consumer:
        admin.create_topic(f"{prefix}-a", 1)
        consumer.subscribe(pattern=f"{prefix}-.*")
        until(lambda: shares(consumer) == [1], consumer)
        admin.create_topic(f"{prefix}-b", 2)
        until(lambda: shares(consumer) == [3], consumer)
        admin.create_partitions(f"{prefix}-a", 4)
        until(lambda: shares(consumer) == [6], consumer)


MEMBER = """
import sys, time
from ingest import Consumer
consumer = Consumer(sys.argv[1], [sys.argv[2]], group_id=sys.argv[3], auto_offset_reset="earliest")
while not consumer.assignment():
    consumer.poll(20)
print("assigned", flush=True)
while True:
    if len(sys.argv) > 4:
        time.sleep(float(sys.argv[4]))
    consumer.poll(20)
"""


def member(cluster: Cluster, topic: str, group: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MEMBER, cluster.bootstrap, topic, group, *more], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_member_is_known_to_be_dead_long_before_its_session_ends(
    cluster: Cluster, topic: str, group: str
) -> None:
    process = member(cluster, topic, group)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "assigned\n"
        with Consumer(cluster.bootstrap, [topic], group_id=group) as consumer:
            until(lambda: shares(consumer) == [3], consumer)
            os.kill(process.pid, signal.SIGKILL)
            until(lambda: shares(consumer) == [PARTITIONS], consumer, timeout_s=5)
    finally:
        process.kill()
        process.wait()


def test_a_member_that_computes_for_long_holds_nobody_up_and_stays(cluster: Cluster, topic: str, group: str) -> None:
    """It keeps what it has; what others are to get of it they get when it polls again."""
    process = member(cluster, topic, group, "3600")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "assigned\n"
        with (
            Consumer(cluster.bootstrap, [topic], group_id=group) as one,
            Consumer(cluster.bootstrap, [topic], group_id=group) as two,
            Admin(cluster.bootstrap) as admin,
        ):
            admin.create_partitions(topic, 12)
            until(lambda: sum(shares(one, two)) == 6, one, two)
    finally:
        process.kill()
        process.wait()


def test_a_member_on_another_machine_stays_while_its_user_computes_for_longer_than_its_session(
    cluster: Cluster, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process can't be watched: its own thread has to be heard."""
    elsewhere = msgspec.structs.replace(this_process(), machine="elsewhere")
    monkeypatch.setattr("ingest.consumer.this_process", lambda: elsewhere)
    with Consumer(cluster.bootstrap, [topic], group_id=group, session_timeout_ms=6_000) as consumer:
        until(lambda: shares(consumer) == [PARTITIONS], consumer)
        before = consumer.group_metadata()
        deadline = time.monotonic() + 7
        numbers = np.arange(1_000_000.0)
        while time.monotonic() < deadline:
            numbers = np.sqrt(numbers * numbers + 1)
        consumer.poll(100)
        assert consumer.group_metadata() == before
        assert shares(consumer) == [PARTITIONS]


def test_a_member_without_progress_lets_others_read_and_its_late_commit_is_refused(
    cluster: Cluster, topic: str, group: str
) -> None:
    fill(cluster, topic, 12)
    heard = Heard()
    with (
        Consumer(
            cluster.bootstrap, group_id=group, max_poll_interval_ms=500, heartbeat_interval_ms=100,
            auto_offset_reset="earliest", enable_auto_commit=False,
        ) as slow,
        Consumer(cluster.bootstrap, group_id=group, auto_offset_reset="earliest") as other,
    ):  # fmt: skip
        slow.subscribe([topic], listener=heard)
        assert len(read_all(slow, 12)) == 12
        other.subscribe([topic])
        assert len(read_all(other, 12)) == 12, "nothing was committed: it is read again"
        with pytest.raises(CommitFailed):
            slow.commit()
        until(lambda: shares(slow, other) == [3, 3], slow, other)
        assert ("lost", PARTITIONS) in heard.calls


def test_a_member_again_does_not_commit_what_it_held_before_it_was_thrown_out(
    cluster: Cluster, topic: str, group: str
) -> None:
    """Its thread has joined again already, under a newer generation; its user does not know yet."""
    heard = Heard()
    with Consumer(cluster.bootstrap, group_id=group, enable_auto_commit=False) as consumer:
        consumer.subscribe([topic], listener=heard)
        until(lambda: shares(consumer) == [PARTITIONS], consumer)
        before = consumer.group_metadata()
        assert before is not None
        raw = RawCluster(cluster.bootstrap)
        try:
            Coordinator(raw, group).call(LeaveGroupRequest(group, [LeavingMember(before.member_id)]), timeout_ms=5000)
        finally:
            raw.close()
        deadline = time.monotonic() + 10
        while consumer.group_metadata() in (None, before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(CommitFailed):
            consumer.commit({(topic, 0): 5})
        told: list[object] = []
        consumer.commit_async({(topic, 0): 5}, lambda _, error: told.append(type(error)))
        assert told == [CommitFailed]
        until(lambda: heard.calls[-2:] == [("lost", PARTITIONS), ("assigned", PARTITIONS)], consumer)
        consumer.commit({(topic, 0): 5})


def test_a_member_that_waits_for_its_user_costs_no_time(cluster: Cluster, topic: str, group: str) -> None:
    options = {"group_id": group, "max_poll_interval_ms": 300, "heartbeat_interval_ms": 50}
    with (
        Consumer(cluster.bootstrap, [topic], **options) as slow,  # type: ignore[arg-type]
        Consumer(cluster.bootstrap, [topic], group_id=group) as other,
    ):
        until(lambda: shares(slow, other) == [3, 3], slow, other)
        until(lambda: shares(other) == [PARTITIONS], other)
        before = time.process_time()
        other.poll(1_000)
        assert time.process_time() - before < 0.3, "a thread spins"


def generation_of(cluster: Cluster, group: str) -> int:
    with Admin(cluster.bootstrap) as admin:
        return admin.describe_groups([group])[group].generation


def test_a_static_member_that_comes_back_moves_nothing(cluster: Cluster, topic: str, group: str) -> None:
    options = {"group_id": group, "group_instance_id": "a"}
    with Consumer(cluster.bootstrap, [topic], group_id=group, group_instance_id="b") as other:
        until(lambda: shares(other) == [PARTITIONS], other)  # it leads
        with Consumer(cluster.bootstrap, [topic], **options) as first:  # type: ignore[arg-type]
            until(lambda: shares(first, other) == [3, 3], first, other)
            had = first.assignment()
            generation = generation_of(cluster, group)
        with Consumer(cluster.bootstrap, [topic], **options) as second:  # type: ignore[arg-type]
            until(lambda: shares(second) == [3], second)
            assert sorted(second.assignment()) == sorted(had)
            assert shares(other) == [3]
            assert generation_of(cluster, group) == generation


def test_a_static_member_under_the_same_name_ends_the_older_one(cluster: Cluster, topic: str, group: str) -> None:
    options = {"group_id": group, "group_instance_id": "a"}
    with Consumer(cluster.bootstrap, [topic], **options) as first:  # type: ignore[arg-type]
        until(lambda: shares(first) == [PARTITIONS], first)
        with Consumer(cluster.bootstrap, [topic], **options) as second:  # type: ignore[arg-type]
            until(lambda: shares(second) == [PARTITIONS], second)
            with pytest.raises(RemoteError, match="taken over") as refused:
                until(lambda: False, first)
            assert refused.value.code == ErrorCode.FENCED_INSTANCE_ID


def test_members_without_a_common_assignor_are_told_so(cluster: Cluster, topic: str, group: str) -> None:
    with (
        Consumer(cluster.bootstrap, [topic], group_id=group, partition_assignment_strategy="range") as one,
        Consumer(cluster.bootstrap, group_id=group) as two,
    ):
        until(lambda: shares(one) == [PARTITIONS], one)
        two.subscribe([topic])
        with pytest.raises(RemoteError, match="assignor in common"):
            until(lambda: False, two)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition_assignment_strategy": "best"}, "cooperative-sticky"),
        ({"partition_assignment_strategy": ["range", "cooperative-sticky"]}, "mixes"),
        ({"group_id": None, "group_instance_id": "a"}, "group_id"),
        ({"group_id": ""}, "group_id=''"),
        ({"group_id": b"g"}, "group_id=b'g'"),
        ({"group_instance_id": ""}, "group_instance_id=''"),
        ({"session_timeout_ms": 0}, "session_timeout_ms=0"),
        ({"heartbeat_interval_ms": -1}, "heartbeat_interval_ms=-1"),
        ({"max_poll_interval_ms": -1}, "max_poll_interval_ms=-1"),
    ],
)
def test_settings_that_can_not_be_are_refused_at_once(cluster: Cluster, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Consumer(cluster.bootstrap, **{"group_id": "g", **options})  # type: ignore[arg-type]


def test_calls_that_need_a_group_or_none_say_so(cluster: Cluster, topic: str, group: str) -> None:
    with Consumer(cluster.bootstrap) as consumer:
        consumer.assign([(topic, 0)])
        with pytest.raises(UsageError, match="group_id"):
            consumer.commit()
        with pytest.raises(UsageError, match="pattern"):
            consumer.subscribe()
        with pytest.raises(ConfigError, match="regular expression"):
            consumer.subscribe(pattern="(")
        with pytest.raises(ConfigError, match="RebalanceListener"):
            consumer.subscribe([topic], listener=object())  # type: ignore[arg-type]
    with Consumer(cluster.bootstrap, [topic], group_id=group) as consumer:
        with pytest.raises(UsageError, match="unsubscribe"):
            consumer.assign([(topic, 0)])
        with pytest.raises(UsageError, match="negative"):
            consumer.commit({(topic, 0): -1})
        with pytest.raises(UsageError, match="no \\(topic, partition\\)"):
            consumer.committed((topic, 0))  # type: ignore[arg-type]
        for wrong in ({(topic, 0): "a"}, {(topic, 0): (1, 5)}, [(topic, 0)]):
            with pytest.raises(UsageError, match="offset"):
                consumer.commit(wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="text"):
            consumer.commit({(topic, 0): 1}, metadata=5)  # type: ignore[arg-type]


def test_who_takes_over_begins_where_the_first_one_did_though_that_read_nothing(
    cluster: Cluster, topic: str, group: str
) -> None:
    options = {"group_id": group, "auto_offset_reset": "latest"}
    fill(cluster, topic, 12)
    first = Consumer(cluster.bootstrap, [topic], **options)  # type: ignore[arg-type]
    until(lambda: shares(first) == [PARTITIONS] and len(first.lag()) == PARTITIONS, first)
    until(lambda: all(first.committed(first.assignment()).values()), first)
    fill(cluster, topic, 12, start=12)
    first.close(commit=False)
    with Consumer(cluster.bootstrap, [topic], **options) as second:  # type: ignore[arg-type]
        assert read_all(second, 12) == list(range(12, 24))


def test_without_commit_and_reset_the_lack_of_a_place_is_an_error_until_seek(
    cluster: Cluster, topic: str, group: str
) -> None:
    fill(cluster, topic, 12)
    with Consumer(cluster.bootstrap, group_id=group, auto_offset_reset="none") as consumer:
        consumer.assign([(topic, 0)])
        for _ in range(2):
            with pytest.raises(NoOffset, match=f"{topic}-0"):
                until(lambda: False, consumer)
        with pytest.raises(NoOffset, match=f"{topic}-0"):
            consumer.position(topic, 0)
        consumer.seek(topic, 0, 1)
        assert read_all(consumer, 1) == [PARTITIONS]
        consumer.commit()
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="none") as consumer, pytest.raises(NoOffset):
        until(lambda: False, consumer)
    with Consumer(cluster.bootstrap, group_id=group, auto_offset_reset="none") as consumer:
        consumer.assign([(topic, 0)])
        assert consumer.position(topic, 0) == 2


def test_a_member_that_nobody_holds_any_more_leaves(cluster: Cluster, topic: str, group: str) -> None:
    held = [Consumer(cluster.bootstrap, [topic], group_id=group)]
    until(lambda: shares(*held) == [PARTITIONS], *held)
    gc.disable()  # it hangs in no cycle
    try:
        held.clear()
        with Consumer(cluster.bootstrap, [topic], group_id=group) as other:
            until(lambda: shares(other) == [PARTITIONS], other)
    finally:
        gc.enable()


def test_a_coordinator_that_dies_and_comes_back_moves_nothing(own_cluster: Cluster) -> None:
    with Admin(own_cluster.bootstrap) as admin:
        admin.create_topic("t", PARTITIONS)
    fill(own_cluster, "t", 60)
    heard = Heard()
    with (
        Consumer(own_cluster.bootstrap, group_id="g", auto_offset_reset="earliest") as one,
        Consumer(own_cluster.bootstrap, ["t"], group_id="g", auto_offset_reset="earliest") as two,
    ):
        one.subscribe(["t"], listener=heard)
        until(lambda: shares(one, two) == [3, 3], one, two)
        before = one.group_metadata(), two.group_metadata()
        heard.calls.clear()
        one.commit({(name.topic, name.partition): 5 for name in one.assignment()})
        own_cluster.kill("broker-1")
        own_cluster.start_broker(1)
        found = one.committed(one.assignment())
        assert {item.offset for item in found.values() if item is not None} == {5}
        one.commit()
        two.commit()
        one.poll(500)
        two.poll(500)
        assert (one.group_metadata(), two.group_metadata()) == before
        assert heard.calls == []
