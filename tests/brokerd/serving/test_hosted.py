"""Partitions that can't be opened or created: they alone are unavailable, and only until they can."""

from __future__ import annotations

from typing import Any

from brokerd.serving.hosted import HostedPartitions
from brokerd.serving.partition import Partition
from brokerd.storage.config import LogConfig
from ingest.errors import DiskFull, StorageError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import MetadataResponse, PartitionMetadata, TopicMetadata

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


class HandDirectory:
    def __init__(self) -> None:
        self.refuse: StorageError | None = DiskFull("no room")
        self.refills: set[tuple[bytes, int]] = set()

    def found(self) -> list[tuple[bytes, int]]:
        return []

    def partition(self, topic_id: bytes, partition: int, config: LogConfig) -> HandLog:
        if topic_id == BAD and self.refuse is not None:
            raise self.refuse
        return HandLog(topic_id, partition, config)


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
