"""Groups as an administrator sees and changes them, and exact lag, against real brokers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest import Admin, Consumer, Producer
from ingest.client.groups.described import PartitionLag
from ingest.client.lag import Lag
from ingest.consumer import Committed, TopicPartition
from ingest.errors import RemoteError, RequestTimedOut, TransportError, UsageError
from ingest.machine import machine_id
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from tests.cluster import Cluster, running_cluster

_names = itertools.count()
PARTITIONS = 4
BATCH = 10  # records of one produce


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap) as found:
        yield found


@pytest.fixture
def topic(admin: Admin) -> str:
    name = f"measured-{next(_names)}"
    admin.create_topic(name, PARTITIONS)
    return name


@pytest.fixture
def group() -> str:
    return f"admin-group-{next(_names)}"


def fill(cluster: Cluster, topic: str, count: int, partition: int = 0) -> None:
    """Produce so many records, each batch of ten acknowledged before the next."""
    with Producer(cluster.bootstrap, linger_ms=1000) as producer:
        for start in range(0, count, BATCH):
            for index in range(start, start + BATCH):
                producer.send(topic, b"%d" % index, partition=partition)
            producer.flush()


def until(done: Callable[[], bool], *consumers: Consumer, timeout_s: float = 10.0) -> None:
    """Poll the consumers by turns until something holds."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        for consumer in consumers:
            consumer.poll(5)


def grow(admin: Admin, topic: str, count: int) -> None:
    """Give a topic more partitions, and wait until its brokers have made them and say so, whichever is asked."""
    admin.create_partitions(topic, count)
    until(lambda: all(len(admin.describe_topic(topic).partitions) == count for _ in range(10)), timeout_s=30.0)


def rows(found: list[PartitionLag]) -> dict[tuple[str, int], PartitionLag]:
    return {(row.topic, row.partition): row for row in found}


# ---- exact lag -------------------------------------------------------------------------------------------------------


def test_a_consumer_measures_what_it_has_not_handed_out(cluster: Cluster, topic: str) -> None:
    fill(cluster, topic, 30)
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0), (topic, 1)])
        found = consumer.measure_lag()
        first, empty = found[TopicPartition(topic, 0)], found[TopicPartition(topic, 1)]
        assert (first.records, empty) == (30, Lag(0, 0, 0.0))
        assert first.bytes > 3 * 96
        assert 0 <= first.seconds < 60
        assert len(consumer.poll(5000, 20)) == 20
        (later,) = consumer.measure_lag((topic, 0)).values()
        assert later.records == 10
        assert 0 < later.bytes < first.bytes
        until(lambda: consumer.position(topic, 0) == 30, consumer)
        assert consumer.measure_lag((topic, 0)) == {TopicPartition(topic, 0): Lag(0, 0, 0.0)}


def test_age_grows_while_nothing_is_read(cluster: Cluster, topic: str) -> None:
    fill(cluster, topic, 10)
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        (first,) = consumer.measure_lag().values()
        until(lambda: next(iter(consumer.measure_lag().values())).seconds >= first.seconds + 0.3)


def test_a_device_s_clock_has_no_say_in_the_age(cluster: Cluster, topic: str) -> None:
    with Producer(cluster.bootstrap) as producer:
        producer.send(topic, b"x", partition=0, timestamp_ms=1).result(10)
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        (found,) = consumer.measure_lag().values()
        assert found.seconds < 60


def test_partitions_that_are_not_read_are_not_measured(cluster: Cluster, topic: str) -> None:
    with Consumer(cluster.bootstrap) as consumer:
        consumer.assign([(topic, 0)])
        with pytest.raises(UsageError, match=f"{topic}-1 is not assigned"):
            consumer.measure_lag((topic, 1))


def test_without_a_leader_the_measure_ends_in_time(own_cluster: Cluster) -> None:
    with Admin(own_cluster.bootstrap) as admin:
        admin.create_topic("t")
    with Consumer(own_cluster.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([("t", 0)])
        consumer.position("t", 0)
        own_cluster.kill("broker-1")
        begun = time.monotonic()
        with pytest.raises((TransportError, RemoteError)):
            consumer.measure_lag(timeout_ms=500)
        assert time.monotonic() - begun < 5


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_groups_of_all_brokers_are_listed_with_their_states(cluster: Cluster, admin: Admin, topic: str) -> None:
    names = [f"listed-{next(_names)}" for _ in range(12)]  # their hashes spread them over both brokers
    for name in names:
        admin.alter_group_offsets(name, {(topic, 0): 0})
    with Consumer(cluster.bootstrap, [topic], group_id=names[0], client_id="reader") as consumer:
        until(lambda: len(consumer.assignment()) == PARTITIONS, consumer)
        listed = {item.group: item for item in admin.list_groups() if item.group in names}
        assert sorted(listed) == sorted(names)
        assert {item.coordinator for item in listed.values()} == {1, 2}
        assert (listed[names[0]].state, listed[names[0]].protocol_type, listed[names[0]].members) == (
            "Stable",
            "consumer",
            1,
        )
        assert (listed[names[1]].state, listed[names[1]].members) == ("Empty", 0)
        assert names[0] not in [item.group for item in admin.list_groups(["empty"])]
        assert [item.group for item in admin.list_groups(["STABLE"]) if item.group in names] == names[:1]
    with pytest.raises(UsageError, match="'Alive' is not Empty, PreparingRebalance"):
        admin.list_groups(["Alive"])


def test_more_groups_than_an_answer_holds_are_listed_all_the_same(cluster: Cluster, admin: Admin, topic: str) -> None:
    names = [f"many-{number:04d}-{chr(0x1F600) * 230}" for number in range(2_500)]  # 1.2 MB of them at each broker
    for name in names:
        admin.alter_group_offsets(name, {(topic, 0): 0})
    listed = [item.group for item in admin.list_groups()]
    admin.delete_groups(names)
    assert [name for name in listed if name.startswith("many-")] == names
    assert len(listed) == len(set(listed))


def test_members_are_described_with_what_they_read_and_where_they_run(
    cluster: Cluster, admin: Admin, topic: str, group: str
) -> None:
    with (
        Consumer(cluster.bootstrap, [topic], group_id=group, client_id="one") as one,
        Consumer(cluster.bootstrap, [topic], group_id=group, client_id="two", group_instance_id="second") as two,
    ):
        until(lambda: [len(one.assignment()), len(two.assignment())] == [2, 2], one, two)
        described = admin.describe_groups([group])[group]
        assert (described.state, described.protocol) == ("Stable", "cooperative-sticky")
        assert described.coordinator in (1, 2)
        by_client = {member.client_id: member for member in described.members}
        assert sorted(by_client) == ["one", "two"]
        assert by_client["one"].assignment == tuple(sorted(one.assignment()))
        assert by_client["two"].instance_id == "second"
        for member in described.members:
            assert (member.pid, member.machine) == (os.getpid(), machine_id())
            assert member.topics == (topic,)
            assert member.host
            assert member.member_id.startswith(member.client_id)
        assert described.leader in [member.member_id for member in described.members]


def test_a_group_that_is_not_there_is_an_error_that_names_it(admin: Admin, topic: str, group: str) -> None:
    admin.alter_group_offsets(group, {(topic, 0): 3})
    for ask in (
        lambda: admin.describe_groups([group, "nobody"]),
        lambda: admin.group_lag("nobody"),
        lambda: admin.delete_groups(["nobody"]),
        lambda: admin.delete_group_offsets("nobody", [(topic, 0)]),
    ):
        with pytest.raises(RemoteError, match="group nobody does not exist") as refused:
            ask()
        assert refused.value.code == ErrorCode.GROUP_ID_NOT_FOUND
    assert admin.group_offsets("nobody") == {}
    with pytest.raises(RemoteError, match="INVALID_GROUP_ID"):
        admin.describe_groups([""])


def test_offsets_come_with_their_text(admin: Admin, topic: str, group: str) -> None:
    admin.alter_group_offsets(group, {(topic, 1): (7, "half way"), (topic, 0): 3, (topic, 2): Committed(4, "c", 9)})
    assert admin.group_offsets(group) == {
        TopicPartition(topic, 0): Committed(3),
        TopicPartition(topic, 1): Committed(7, "half way"),
        TopicPartition(topic, 2): Committed(4, "c", 9),
    }


def test_the_lag_of_a_group_covers_what_is_committed_and_what_is_assigned(
    cluster: Cluster, admin: Admin, topic: str, group: str
) -> None:
    other = f"{topic}-other"
    admin.create_topic(other, 1)
    fill(cluster, topic, 30, partition=0)
    fill(cluster, other, 10, partition=0)
    admin.alter_group_offsets(group, {(topic, 0): (12, "note"), (other, 0): 10})
    with Consumer(cluster.bootstrap, [topic], group_id=group, client_id="c", enable_auto_commit=False) as consumer:
        until(lambda: len(consumer.assignment()) == PARTITIONS, consumer)
        found = rows(admin.group_lag(group))
    assert list(found) == [*((topic, p) for p in range(PARTITIONS)), (other, 0)]
    first, second, elsewhere = found[topic, 0], found[topic, 1], found[other, 0]
    assert (first.current_offset, first.metadata, first.log_start_offset, first.log_end_offset) == (12, "note", 0, 30)
    assert first.lag is not None
    assert (first.lag.records, first.lag.bytes > 2 * 96) == (18, True)
    assert first.member is not None
    assert first.member.client_id == "c"
    assert (second.current_offset, second.log_end_offset, second.lag) == (None, 0, None)
    assert second.member == first.member
    assert (elsewhere.current_offset, elsewhere.lag, elsewhere.member) == (10, Lag(0, 0, 0.0), None)


def test_a_partition_whose_leader_is_gone_has_no_lag_and_the_others_do(tmp_path: Path) -> None:
    with running_cluster(tmp_path, brokers=2) as cluster, Admin(cluster.bootstrap) as admin:
        admin.create_topic("t", 2, 1)
        leaders = [item.leader for item in admin.describe_topic("t").partitions]
        assert sorted(leaders) == [1, 2]
        names = [f"g-{number}" for number in range(12)]
        for name in names:
            admin.alter_group_offsets(name, {("t", 0): 0, ("t", 1): 0})
        name = next(item.group for item in admin.list_groups() if item.coordinator == 1)
        cluster.kill("broker-2")
        found = {row.partition: row for row in admin.group_lag(name)}
        alive, dead = found[leaders.index(1)], found[leaders.index(2)]
        assert (alive.log_end_offset, alive.lag) == (0, Lag(0, 0, 0.0))
        assert (dead.current_offset, dead.log_end_offset, dead.lag) == (0, None, None)


# ---- changing --------------------------------------------------------------------------------------------------------


def test_offsets_are_moved_only_while_nobody_reads(cluster: Cluster, admin: Admin, topic: str, group: str) -> None:
    with Consumer(cluster.bootstrap, [topic], group_id=group, client_id="busy") as consumer:
        until(lambda: len(consumer.assignment()) == PARTITIONS, consumer)
        for change in (
            lambda: admin.alter_group_offsets(group, {(topic, 0): 0}),
            lambda: admin.delete_groups([group]),
        ):
            with pytest.raises(
                RemoteError, match=rf"group {group} has 1 member: busy-\S+ on .*pid {os.getpid()}"
            ) as no:
                change()
            assert no.value.code == ErrorCode.NON_EMPTY_GROUP
    admin.alter_group_offsets(group, {(topic, 0): 0})
    admin.delete_groups([group])
    assert group not in [item.group for item in admin.list_groups()]


@pytest.mark.parametrize(
    ("place", "offset", "said"),
    [(("no-such", 0), 1, "topic no-such does not exist"), (None, 1, "has no partition 9; it has 4")],
)
def test_offsets_of_what_does_not_exist_are_refused(
    admin: Admin, topic: str, group: str, place: tuple[str, int] | None, offset: int, said: str
) -> None:
    with pytest.raises(RemoteError, match=said):
        admin.alter_group_offsets(group, {(topic, 0): 1, (place or (topic, 9)): offset})
    assert admin.group_offsets(group) == {}, "nothing of it was committed"
    with pytest.raises(RemoteError, match=said):
        admin.delete_group_offsets(group, [place or (topic, 9)])


def test_values_that_can_not_be_offsets_are_refused(admin: Admin, topic: str, group: str) -> None:
    with pytest.raises(UsageError, match=f"{topic}-0: offset -1 is negative"):
        admin.alter_group_offsets(group, {(topic, 0): -1})
    with pytest.raises(RemoteError, match=f"OFFSET_METADATA_TOO_LARGE: {topic}-1"):
        admin.alter_group_offsets(group, {(topic, 0): 1, (topic, 1): (1, "x" * 5000)})
    assert admin.group_offsets(group) == {TopicPartition(topic, 0): Committed(1)}


def test_what_groups_have_committed_is_neither_cut_nor_left_to_retention(admin: Admin, topic: str, group: str) -> None:
    admin.alter_group_offsets(group, {(topic, 0): 5})
    partitions = admin.describe_topic(CONSUMER_OFFSETS).partitions
    for item in partitions:
        for offset in (0, -1):
            with pytest.raises(RemoteError, match=f"INVALID_TOPIC_EXCEPTION: {CONSUMER_OFFSETS} is the brokers' own"):
                admin.delete_records(CONSUMER_OFFSETS, item.partition, offset)
    with pytest.raises(RemoteError, match=f"INVALID_CONFIG: {CONSUMER_OFFSETS} is the brokers' own"):
        admin.alter_configs(CONSUMER_OFFSETS, {"cleanup.policy": "delete"})
    assert all(admin.list_offset(CONSUMER_OFFSETS, item.partition, -2) == 0 for item in partitions)


def test_many_offsets_with_long_texts_fit_into_requests(admin: Admin, topic: str, group: str) -> None:
    grow(admin, topic, 100)
    wanted = {(topic, partition): (partition, "ä" * 2000) for partition in range(100)}
    admin.alter_group_offsets(group, wanted)  # 400 kB of text, and a request takes 64 KiB
    assert {name: (found.offset, found.metadata) for name, found in admin.group_offsets(group).items()} == wanted


def test_more_than_an_answer_holds_is_fetched_all_the_same(admin: Admin, topic: str, group: str) -> None:
    count, text = 700, "€" * 4096  # 8.6 MB, and an answer takes 8 MiB
    grow(admin, topic, count)
    wanted = {(topic, partition): (0, text) for partition in range(count)}
    admin.alter_group_offsets(group, wanted)
    assert {name: (found.offset, found.metadata) for name, found in admin.group_offsets(group).items()} == wanted
    assert [row.log_end_offset for row in admin.group_lag(group)] == [0] * count


def test_offsets_of_topics_that_members_read_are_kept_and_others_go(
    cluster: Cluster, admin: Admin, topic: str, group: str
) -> None:
    other = f"{topic}-other"
    admin.create_topic(other, 2)
    admin.alter_group_offsets(group, {(topic, 0): 1, (other, 0): 1, (other, 1): 2})
    with Consumer(cluster.bootstrap, [topic], group_id=group, client_id="busy") as consumer:
        until(lambda: len(consumer.assignment()) == PARTITIONS, consumer)
        with pytest.raises(RemoteError, match=rf"members of group {group} read {topic}: busy-") as refused:
            admin.delete_group_offsets(group, [(topic, 0), (other, 0)])
        assert refused.value.code == ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
        left = admin.group_offsets(group)
        assert TopicPartition(other, 0) not in left
        assert {TopicPartition(topic, 0), TopicPartition(other, 1)} <= left.keys()
    admin.delete_group_offsets(group, [(topic, p) for p in range(PARTITIONS)])
    assert list(admin.group_offsets(group)) == [TopicPartition(other, 1)]


def test_of_several_groups_those_that_can_be_deleted_are(
    cluster: Cluster, admin: Admin, topic: str, group: str
) -> None:
    free = [f"free-{next(_names)}" for _ in range(2)]
    for name in free:
        admin.alter_group_offsets(name, {(topic, 0): 1})
    with Consumer(cluster.bootstrap, [topic], group_id=group) as consumer:
        until(lambda: len(consumer.assignment()) == PARTITIONS, consumer)
        with pytest.raises(RemoteError, match=f"group {group} has 1 member"):
            admin.delete_groups([free[0], group, free[1]])
    assert not {item.group for item in admin.list_groups()} & set(free)


# ---- the coordinator moves -------------------------------------------------------------------------------------------


def test_calls_outlast_a_coordinator_that_restarts(own_cluster: Cluster) -> None:
    with Admin(own_cluster.bootstrap) as admin:
        admin.create_topic("t", 2)
        admin.alter_group_offsets("g", {("t", 0): 5})
        calls: list[Callable[[], object]] = [
            lambda: admin.list_groups(),
            lambda: admin.describe_groups(["g"])["g"].state,
            lambda: admin.group_offsets("g"),
            lambda: admin.group_lag("g"),
            lambda: admin.alter_group_offsets("g", {("t", 1): 6}),
        ]
        before = [call() for call in calls[:3]]
        for index, call in enumerate(calls):
            own_cluster.kill("broker-1")
            own_cluster.start_broker(1)
            found = call()
            if index < len(before):
                assert found == before[index]
        assert admin.group_offsets("g") == {
            TopicPartition("t", 0): Committed(5),
            TopicPartition("t", 1): Committed(6),
        }


def test_a_coordinator_that_does_not_come_back_ends_calls_in_time(own_cluster: Cluster) -> None:
    with Admin(own_cluster.bootstrap, timeout_ms=1000) as admin:
        admin.create_topic("t")
        admin.alter_group_offsets("g", {("t", 0): 5})
        own_cluster.kill("broker-1")
        begun = time.monotonic()
        with pytest.raises(RequestTimedOut, match="coordinator of group g did not answer to DescribeGroups in time"):
            admin.describe_groups(["g"])
        assert time.monotonic() - begun < 5


def test_an_admin_of_topics_does_not_import_numpy() -> None:
    program = (
        "import sys, ingest.admin, ingest.client.groups.administration\n"
        "sys.exit('numpy' in sys.modules and 'numpy was imported' or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
