"""One broker's disk fills up: its devices wait, nothing is lost, reads go on, and it recovers once there is room."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import msgspec
import pytest

from brokerd.serving.stats import BrokerStats
from brokerd.storage.disk import EXTENT_BYTES_MIN
from ingest import Admin, Consumer, Producer
from ingest.errors import ForebayError, RequestTimedOut
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import ResourceType
from ops.metrics.stats import MonitorStats
from tests.brokerd.storage.mounts import ext4, make_ext4, tmpfs
from tests.cluster import running_cluster
from tests.faults.appliance import TOPIC, ProcessTree, await_value
from tests.faults.copies import compare_copies
from tests.faults.disks import SIZE_BYTES, fill
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.native import FIRST_SOURCE, NativeProducer
from tests.faults.raw import RawProducer
from tests.faults.readers import MappedReader, read_back
from tests.faults.trial import Trial

FULL, ROOMY = 1, 2  # broker ids
PARTITIONS = 4


def on_tmpfs(target: Path, folder: Path) -> AbstractContextManager[Path]:
    return tmpfs(target, f"{SIZE_BYTES}")


def on_ext4(target: Path, folder: Path) -> AbstractContextManager[Path]:
    make_ext4(folder / "image", SIZE_BYTES)
    return ext4(folder / "image", target)


def broker_stats(tree: ProcessTree, broker: int) -> BrokerStats:
    return msgspec.json.decode(tree.identity(f"broker-{broker}").stats, type=BrokerStats)


def refusals(tree: ProcessTree) -> int:
    return broker_stats(tree, FULL).errors_total.get("KAFKA_STORAGE_ERROR", 0)


def reasons(tree: ProcessTree) -> list[str]:
    return msgspec.json.decode(tree.identity("monitor").stats, type=MonitorStats).reasons


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(on_tmpfs, marks=pytest.mark.needs("tmpfs_mount")),
        pytest.param(on_ext4, marks=pytest.mark.needs("loop_mounts")),
    ],
)
def test_a_full_disk_refuses_cleanly_and_recovers_by_itself(
    tmp_path: Path, make: Callable[[Path, Path], AbstractContextManager[Path]]
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    history = History(seed)
    tree = ProcessTree(tmp_path / "data", brokers=2)
    with ExitStack() as stack:
        mount = stack.enter_context(make(tree.data_dir / "brokers" / str(FULL), tmp_path))
        stack.callback(tree.end)
        tree.up()
        topic_id = tree.create_topic(TOPIC, PARTITIONS, segment_bytes="65536")
        leaders = tree.leaders(TOPIC)
        on_full = next(partition for partition, broker in leaders.items() if broker == FULL)
        mapped = stack.enter_context(MappedReader(tree.data_dir, seed=seed))
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, devices=30, messages=1_000_000, per_s=600, patience_s=2.0)
        )
        natives = [
            stack.enter_context(NativeProducer(history, tree.bootstrap, TOPIC, source=FIRST_SOURCE + number))
            for number in range(4)
        ]
        fleet.await_more(500)
        pid = tree.pid(f"broker-{FULL}")

        filler = fill(mount)
        await_value(lambda: refusals(tree) > 0, "a refusal", 30, tree.log_tail)
        with RawProducer(tree.run_dir / f"broker-{FULL}.sock") as raw:
            raw.send(topic_id, on_full, bytes(EXTENT_BYTES_MIN))
            _, code, message = raw.answer()
        assert code is ErrorCode.KAFKA_STORAGE_ERROR
        assert "disk full" in message
        await_value(lambda: any("disk is full" in reason for reason in reasons(tree)), "the monitor to tell", 10)
        fleet.await_more(300)  # of the other broker's devices
        for local in (True, False):
            acknowledged = history.acknowledged_so_far()
            values = read_back(tree.bootstrap, TOPIC, local=local)
            assert history.check(values, acknowledged) == [], (
                "an acknowledged record can't be read while the disk is full"
            )
        sources = {
            source for source, home in history.homes(values).items() if home == on_full and source < FIRST_SOURCE
        }
        held = {source: len(seqs) for source, seqs in history.acknowledged_so_far().items() if source in sources}
        await_value(lambda: fleet.reconnects > 0, "devices to lose their patience", 10)

        filler.unlink()
        freed = time.monotonic()
        await_value(
            lambda: all(
                len(seqs) > held.get(s, 0) for s, seqs in history.acknowledged_so_far().items() if s in sources
            ),
            "the held devices to go on",
            30,
            tree.log_tail,
        )
        print(f"going on {time.monotonic() - freed:.2f} s after there was room")
        assert tree.pid(f"broker-{FULL}") == pid, "it was restarted"
        await_value(lambda: not reasons(tree), "the monitor to be content", 10)
        fleet.finish()
        for native in natives:
            native.finish()
            assert native.failures == []
        by_map = read_back(tree.bootstrap, TOPIC, local=True)
        assert by_map == read_back(tree.bootstrap, TOPIC, local=False)
        assert history.check(by_map) == []
        assert mapped.problems == []
        assert not broker_stats(tree, FULL).directory_failed


@pytest.mark.needs("tmpfs_mount")
def test_an_appliance_starts_on_a_full_disk_and_serves_what_it_has(tmp_path: Path) -> None:
    history = History(1)
    tree = ProcessTree(tmp_path / "data", brokers=2)
    with ExitStack() as stack:
        mount = stack.enter_context(tmpfs(tree.data_dir / "brokers" / str(FULL), f"{SIZE_BYTES}"))
        stack.callback(tree.end)
        tree.up()
        tree.create_topic(TOPIC, PARTITIONS, segment_bytes="65536")
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, devices=20, messages=1_000_000, per_s=600, patience_s=2.0)
        )
        fleet.await_more(500)
        filler = fill(mount)
        await_value(lambda: refusals(tree) > 0, "a refusal", 30, tree.log_tail)
        tree.kill_everything()
        tree.up()
        acknowledged = history.acknowledged_so_far()
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert history.check(values, acknowledged) == []
        filler.unlink()
        fleet.finish()
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert values == read_back(tree.bootstrap, TOPIC, local=False)
        assert history.check(values) == []


@pytest.mark.timeout(200)
@pytest.mark.needs("tmpfs_mount")
def test_of_three_copies_one_on_a_full_disk_hands_over_and_all_goes_on(tmp_path: Path) -> None:
    tree = ProcessTree(tmp_path / "data")
    with ExitStack() as stack:
        mounts = {  # three disks: what is left when one is full is enough copies
            broker: stack.enter_context(tmpfs(tree.data_dir / "brokers" / str(broker), f"{4 * SIZE_BYTES}"))
            for broker in range(1, tree.brokers + 1)
        }
        stack.callback(tree.end)
        tree.up()
        trial = stack.enter_context(Trial(tree, random.randrange(10**9)))
        trial.fleet.await_more(500)
        assert any(item.leader == FULL for item in trial.partitions())
        pids = {name: tree.pid(name) for name in tree.names()}

        filler, began = fill(mounts[FULL]), time.monotonic()
        await_value(
            lambda: all(item.leader != FULL and FULL not in item.isr for item in trial.partitions()),
            "the full one to lead nothing and hold up nothing",
            30,
            tree.log_tail,
        )
        before = trial.history.acknowledged_so_far()

        def go_on() -> bool:
            now = trial.history.acknowledged_so_far()
            return all(len(now[source]) > len(before[source]) for source in before)

        await_value(go_on, "everything to go on", 10, tree.log_tail)
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert trial.history.check(values, before) == [], "an acknowledged record can't be read while the disk is full"

        gone_on_s = time.monotonic() - began
        filler.unlink()
        freed = time.monotonic()
        trial.await_in_sync()
        print(f"all goes on {gone_on_s:.1f} s after the disk was full", end=", ")
        print(f"whole {time.monotonic() - freed:.1f} s after there was room")
        trial.judge()
        assert {name: tree.pid(name) for name in tree.names()} == pids, "somebody was restarted"


@pytest.mark.needs("tmpfs_mount")
def test_a_leader_without_room_hands_over_and_leads_again_once_it_has_some(tmp_path: Path) -> None:
    mount = tmp_path / "brokers" / str(FULL)
    with tmpfs(mount, f"{SIZE_BYTES}"), running_cluster(tmp_path, brokers=3) as cluster:
        with Admin(cluster.bootstrap) as admin:
            admin.create_topic(TOPIC, 1, 2, configs={"segment.bytes": "65536", "min.insync.replicas": "1"})
            admin.alter_configs("", {"leader.imbalance.check.interval.seconds": "1"}, ResourceType.BROKER)
            admin.reassign({(TOPIC, 0): [FULL, ROOMY]})

        def leads(broker: int) -> bool:
            with Admin(cluster.bootstrap) as admin:
                (partition,) = admin.describe_topic(TOPIC).partitions
            return (partition.leader, partition.replicas, sorted(partition.isr)) == (broker, [FULL, ROOMY], [1, 2])

        await_value(lambda: leads(FULL), f"broker {FULL} to lead", 30, cluster.log_tail)
        with Producer(cluster.bootstrap) as producer:
            sent = [producer.send(TOPIC, b"%d" % number).result(30) for number in range(10)]
            filler = fill(mount)
            began = time.monotonic()
            deliveries = [producer.send(TOPIC, b"%d:" % number + bytes(20_000)) for number in range(100)]
            for delivery in deliveries:
                delivery.result(30)
            print(f"all acknowledged {time.monotonic() - began:.2f} s after the disk was full")
            with Admin(cluster.bootstrap) as admin:
                assert admin.describe_topic(TOPIC).partitions[0].leader == ROOMY
            filler.unlink()
            await_value(lambda: leads(FULL), f"broker {FULL} to lead again", 30, cluster.log_tail)
            assert producer.send(TOPIC, b"behind").result(30).offset == len(sent) + len(deliveries)
        (values,) = read_back(cluster.bootstrap, TOPIC, local=False).values()
        assert len(values) == len(sent) + len(deliveries) + 1
        assert compare_copies(cluster, TOPIC) == []


@pytest.mark.needs("tmpfs_mount")
def test_a_group_goes_on_with_its_commits_while_the_disk_is_full(tmp_path: Path) -> None:
    count = 200
    mount = tmp_path / "brokers" / "1"
    with tmpfs(mount, f"{SIZE_BYTES}"), running_cluster(tmp_path) as cluster:
        with Admin(cluster.bootstrap) as admin:
            admin.create_topic(TOPIC, configs={"segment.bytes": "65536"})
        with Producer(cluster.bootstrap, delivery_timeout_ms=1000) as producer:
            for number in range(count):
                producer.send(TOPIC, b"%d" % number)
            producer.flush()

            def reader() -> Consumer:
                return Consumer(
                    cluster.bootstrap, [TOPIC], group_id="g", auto_offset_reset="earliest", enable_auto_commit=False
                )

            with reader() as consumer:
                first = consumer.poll(10_000, 1)[0]
                consumer.commit(first)
            filler = fill(mount)
            await_value(lambda: not accepted(producer), "a refusal", 30, cluster.log_tail)
            with reader() as consumer:  # to join is to write too
                read = [first]
                while len(read) < count:
                    for record in consumer.poll(10_000, 1):
                        consumer.commit(record)
                        read.append(record)
                assert [record.value for record in read] == [b"%d" % number for number in range(count)]
            with Admin(cluster.bootstrap) as admin:
                assert admin.group_offsets("g")[TOPIC, 0].offset == count
            assert not accepted(producer)
            filler.unlink()
            await_value(lambda: accepted(producer), "producers to be served again", 10, cluster.log_tail)


@pytest.mark.needs("tmpfs_mount")
def test_commits_end_with_the_reserve_offsets_are_read_still_and_both_go_on_with_room(tmp_path: Path) -> None:
    with (
        tmpfs(mount := tmp_path / "brokers" / "1", f"{SIZE_BYTES}"),
        running_cluster(tmp_path) as cluster,
        Admin(cluster.bootstrap) as admin,
        Producer(cluster.bootstrap, delivery_timeout_ms=1000) as producer,
    ):
        admin.create_topic(TOPIC, configs={"segment.bytes": "65536"})
        admin.alter_group_offsets("g", {(TOPIC, 0): 0})
        filler = fill(mount)
        await_value(lambda: not accepted(producer), "a refusal", 30, cluster.log_tail)
        with Admin(cluster.bootstrap, timeout_ms=1000) as hasty:
            committed = commit_until_refused(hasty)
        assert 500 < committed < 5000, "some MiB"
        for _ in range(5):
            assert admin.group_offsets("g")[TOPIC, 0].offset == committed
        assert not accepted(producer)
        filler.unlink()
        await_value(lambda: accepted(producer), "producers to be served again", 10, cluster.log_tail)
        admin.alter_group_offsets("g", {(TOPIC, 0): 7})
        assert admin.group_offsets("g")[TOPIC, 0].offset == 7


def commit_until_refused(admin: Admin) -> int:
    """Commit 1, 2 and so on, with four thousand characters each; return the last that was taken."""
    for offset in itertools.count(1):
        try:
            admin.alter_group_offsets("g", {(TOPIC, 0): (offset, "x" * 4096)})
        except RequestTimedOut:
            return offset - 1
    raise AssertionError("unreachable")


def accepted(producer: Producer) -> bool:
    try:
        producer.send(TOPIC, bytes(20_000)).result(5)
    except ForebayError:
        return False
    return True
