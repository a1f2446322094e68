"""What a broker tells of the groups it coordinates."""

from __future__ import annotations

import msgspec

from brokerd.groups.records import Fact, OffsetKey, OffsetValue
from brokerd.serving.stats import GroupStats, group_stats
from tests.brokerd.groups.driver import GROUP, TOPIC, Driver

NAMES = {TOPIC: "sensors"}


def commit(driver: Driver, group: str, partitions: int, topic_id: bytes = TOPIC) -> None:
    for partition in range(partitions):
        fact = Fact(OffsetKey(group, topic_id, partition), OffsetValue(100 + partition, -1, "", 0, 0))
        driver.shard.replay(fact, driver.now_ms)


def test_groups_are_told_with_their_members_and_offsets_by_name() -> None:
    driver = Driver()
    (member,), generation = driver.stable(1)
    driver.commit(5, member, generation)
    commit(driver, "alone", 2)
    commit(driver, "alone", 1, b"u" * 16)  # its topic is not known here yet
    told, untold = group_stats([driver.shard], NAMES)
    assert untold == 0
    assert told == [
        GroupStats(GROUP, "Stable", 1, {"sensors": {0: 5}}),
        GroupStats("alone", "Empty", 0, {"sensors": {0: 100, 1: 101}}),
    ]
    assert msgspec.json.decode(msgspec.json.encode(told), type=list[GroupStats]) == told


def test_a_group_is_told_whole_or_counted() -> None:
    driver = Driver()
    for number, partitions in enumerate((3, 5, 2)):
        commit(driver, f"g{number}", partitions)
    told, untold = group_stats([driver.shard], NAMES, offsets_max=6)
    assert [one.group for one in told] == ["g0", "g2"]
    assert untold == 1
