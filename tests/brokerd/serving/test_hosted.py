"""Partitions that can't be opened or created: they alone are unavailable, and only until they can."""

from __future__ import annotations

import errno
from typing import Any

from brokerd.serving.hosted import Applied, HostedPartitions
from brokerd.serving.partition import Partition
from brokerd.storage.config import LogConfig
from brokerd.storage.errors import DamagedLog
from ingest.errors import DiskFull, StorageError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import DamagedReplica, MetadataResponse, PartitionMetadata, TopicMetadata

GOOD, BAD = b"g" * 16, b"b" * 16


class HandLog:
    def __init__(self, topic_id: bytes, partition: int, config: LogConfig) -> None:
        self.topic_id, self.partition, self.config = topic_id, partition, config
        self.leader_epoch = -1
        self.damage = ""
        self.high_watermark = self.end_offset = 0

    def alter_config(self, config: LogConfig) -> None:
        self.config = config

    def become_leader(self, leader_epoch: int) -> None:
        self.leader_epoch = leader_epoch

    become_follower = become_leader


class HandDirectory:
    def __init__(self) -> None:
        self.refuse: StorageError | None = DiskFull("no room")
        self.refills: set[tuple[bytes, int]] = set()
        self.begun: list[tuple[bytes, int]] = []
        self.damage = ""
        self.refuse_all: StorageError | None = None
        self.unlisted: OSError | None = None

    def found(self) -> list[tuple[bytes, int]]:
        if self.unlisted is not None:
            raise self.unlisted
        return []

    def partition(self, topic_id: bytes, partition: int, config: LogConfig) -> HandLog:
        if topic_id == BAD and self.refuse is not None:
            raise self.refuse
        if self.refuse_all is not None:
            raise self.refuse_all
        opened = HandLog(topic_id, partition, config)
        opened.damage, self.damage = self.damage, ""
        return opened

    def mark_for_refill(self, topic_id: bytes, partition: int, reason: str) -> bool:
        self.refills.add((topic_id, partition))
        return True

    def begin_anew(self, topic_id: bytes, partition: int) -> None:
        self.refills.remove((topic_id, partition))
        self.begun.append((topic_id, partition))


def snapshot(version: int, partitions: int = 1, **configs: str) -> MetadataResponse:
    places = [PartitionMetadata(index, 1, 5, [1], [1]) for index in range(partitions)]
    topics = [TopicMetadata(name, tid, places, configs) for name, tid in (("b", BAD), ("g", GOOD))]
    return MetadataResponse("c", version, 1, [], topics)


def test_one_partition_without_room_leaves_the_others_served_and_is_tried_again() -> None:
    directory: Any = HandDirectory()
    led = HostedPartitions(directory, 1)
    led.plan(snapshot(1))
    led.apply_some(0)
    led.apply_some(0)
    assert led.is_applied()
    assert led.find(BAD, 0) == ErrorCode.KAFKA_STORAGE_ERROR
    assert isinstance(led.find(GOOD, 0), Partition)
    assert led.unavailable == 1
    directory.refuse = None
    led.retry_unavailable()
    led.apply_some(0)
    assert isinstance(led.find(BAD, 0), Partition)
    assert led.unavailable == 0


def test_a_directory_that_can_not_be_listed_keeps_nobody_from_leading() -> None:
    directory: Any = HandDirectory()
    directory.refuse = None
    directory.unlisted = OSError(errno.EMFILE, "Too many open files")
    led = HostedPartitions(directory, 1)
    led.plan(snapshot(1))
    led.apply_some(0)
    assert isinstance(led.find(GOOD, 0), Partition)


def test_replicas_are_counted_while_the_loop_adds_others() -> None:
    directory: Any = HandDirectory()
    directory.refuse = None
    led = HostedPartitions(directory, 1)
    follow(led, led_by(1, 2, epoch=5, isr=[1, 2]))

    class Busy:
        @property
        def offline(self) -> str:
            led.pullers[len(led.pullers) + 5] = led.pullers[2]
            led.pullers[2].followed[bytes(16), len(led.pullers)] = led.pullers[2].followed[KEY]
            return "for a reason"

    busy: Any = Busy()
    led.pullers[2].followed[KEY] = busy
    assert led.offline == 1


def test_configs_that_a_newer_plan_overtook_are_applied_all_the_same() -> None:
    directory: Any = HandDirectory()
    directory.refuse = None
    led = HostedPartitions(directory, 1)
    for version, configs in ((1, {}), (2, {"retention_ms": "5"}), (3, {"retention_ms": "5"})):
        led.plan(snapshot(version, 30, **{name.replace("_", "."): value for name, value in configs.items()}))
        led.apply_some(0)
        while version != 2 and not led.is_applied():
            led.apply_some(0)
    assert {partition.log.config.retention_ms for partition in led.all()} == {5}


KEY = (GOOD, 0)


def led_by(
    version: int, leader: int, *, epoch: int, isr: list[int], replicas: tuple[int, ...] = (1, 2)
) -> MetadataResponse:
    place = PartitionMetadata(0, leader, epoch, list(replicas), isr, partition_epoch=version)
    return MetadataResponse("c", version, 1, [], [TopicMetadata("g", GOOD, [place], {})])


def follow(led: HostedPartitions, snapshot: MetadataResponse) -> Applied:
    led.plan(snapshot)
    return led.apply_some(0)


def test_a_damaged_follower_acts_on_until_it_is_without_a_seat_in_a_later_leader_epoch() -> None:
    directory: Any = HandDirectory()
    led = HostedPartitions(directory, 1)
    follow(led, led_by(1, 2, epoch=5, isr=[1, 2]))
    before = led.hosted(*KEY)
    led.damaged(KEY, "byte 7")
    led.damaged(KEY, "byte 7 again")
    assert led.damage_found == 1
    led.apply_some(0)
    assert led.damaged_replicas() == [DamagedReplica(*KEY, 1)]
    follow(led, led_by(2, 2, epoch=5, isr=[2]))
    assert led.damaged_replicas() == [DamagedReplica(*KEY, 2)], "it acted in that epoch"
    assert led.hosted(*KEY) is before
    assert directory.begun == []
    follow(led, led_by(3, 2, epoch=6, isr=[2]))
    assert directory.begun == [KEY]
    assert led.hosted(*KEY) is not before
    assert led.damaged_replicas() == []
    assert led.pullers[2].followed.keys() == {KEY}


def test_a_damaged_leader_leads_until_another_does_and_then_begins_anew() -> None:
    directory: Any = HandDirectory()
    led = HostedPartitions(directory, 1)
    follow(led, led_by(1, 1, epoch=5, isr=[1, 2]))
    before = led.hosted(*KEY)
    led.damaged(KEY, "byte 7")
    assert led.apply_some(0).ended == []
    assert led.led() == [before]
    assert follow(led, led_by(2, 2, epoch=6, isr=[2])).ended == [before]
    assert directory.begun == [KEY]
    assert led.led() == []


def test_a_replica_that_comes_back_damaged_is_not_followed_with_and_begins_at_once_where_it_has_no_seat() -> None:
    directory: Any = HandDirectory()
    directory.refills.add(KEY)
    led = HostedPartitions(directory, 1)
    follow(led, led_by(1, 2, epoch=5, isr=[1, 2]))
    assert led.damaged_replicas() == [DamagedReplica(*KEY, 1)]
    assert led.pullers == {}
    led = HostedPartitions(directory, 1)
    follow(led, led_by(1, 2, epoch=5, isr=[2]))
    assert directory.begun == [KEY]
    assert led.pullers[2].followed.keys() == {KEY}


def test_damage_met_at_recovery_is_refilled_and_one_copy_keeps_what_it_has() -> None:
    directory: Any = HandDirectory()
    directory.damage = "recovery found it"
    led = HostedPartitions(directory, 1)
    follow(led, led_by(1, 2, epoch=5, isr=[2]))
    assert directory.begun == [KEY], "nobody counted on it"
    directory.damage = "recovery found it"
    alone = HostedPartitions(directory, 1)
    follow(alone, led_by(1, 1, epoch=5, isr=[1], replicas=(1,)))
    alone.damaged(KEY, "a read found it")
    assert directory.refills == set()


def test_a_log_that_can_not_be_opened_gives_up_its_seat_and_begins_anew() -> None:
    directory: Any = HandDirectory()
    led = HostedPartitions(directory, 1)
    directory.refuse_all = DamagedLog("a segment is missing")
    follow(led, led_by(1, 1, epoch=5, isr=[1, 2]))
    assert led.find(*KEY) == ErrorCode.KAFKA_STORAGE_ERROR
    assert led.damaged_replicas() == [DamagedReplica(*KEY, 1)]
    led.plan(led_by(2, 2, epoch=6, isr=[2]))
    directory.refuse_all = None
    led.apply_some(0)
    assert directory.begun == [KEY]
    assert led.unavailable == 0
