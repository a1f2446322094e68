"""What a heartbeat complains of: damaged replicas lose their seats, leaders without space their leadership."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from brokerd.control.records import PartitionRecord
from ingest.wire.messages import BrokerHeartbeatRequest, DamagedReplica, NewTopic
from tests.brokerd.control.driver import Driver


@pytest.fixture
def driver() -> Driver:
    driver = Driver(broker_configs={"leader.imbalance.check.interval.seconds": "1"})
    for broker in (1, 2, 3):
        driver.register(broker, device=broker)
        driver.heartbeat(broker)
    driver.create(NewTopic("t", 1, 3))
    return driver


def record(driver: Driver) -> PartitionRecord:
    (found,) = driver.core.image.all_partitions()
    return found


def complain(driver: Driver, broker: int, **complaints: Any) -> None:
    request = BrokerHeartbeatRequest(broker, driver.epochs[broker], driver.core.image.version, 1000)
    driver.send(msgspec.structs.replace(request, **complaints), f"broker-{broker}".encode())


def damaged(driver: Driver) -> list[DamagedReplica]:
    now = record(driver)
    return [DamagedReplica(now.topic_id, now.partition, now.partition_epoch)]


def test_a_damaged_follower_leaves_in_one_commit_that_begins_a_leader_epoch(driver: Driver) -> None:
    before = record(driver)
    follower = next(b for b in before.replicas if b != before.leader)
    complain(driver, follower, damaged=damaged(driver))
    after = record(driver)
    assert after.leader == before.leader
    assert follower not in after.seats
    assert after.leader_epoch == before.leader_epoch + 1
    assert after.partition_epoch == before.partition_epoch + 1
    assert driver.core.elections == {"damage": 1}


def test_a_damaged_leader_hands_over_and_leaves(driver: Driver) -> None:
    before = record(driver)
    complain(driver, before.leader, damaged=damaged(driver))
    after = record(driver)
    assert after.leader == before.replicas[1]
    assert before.leader not in after.seats


def test_damage_that_is_named_twice_is_damage_named_once(driver: Driver) -> None:
    before = record(driver)
    follower = next(b for b in before.replicas if b != before.leader)
    complain(driver, follower, damaged=damaged(driver) * 2)
    assert record(driver).partition_epoch == before.partition_epoch + 1


def test_a_late_word_of_damage_that_was_refilled_since_changes_nothing(driver: Driver) -> None:
    late = damaged(driver)
    follower = record(driver).replicas[1]
    complain(driver, follower, damaged=late)
    after = record(driver)
    complain(driver, follower, damaged=late)
    assert record(driver) == after


def test_damage_of_partitions_that_are_not_there_changes_nothing(driver: Driver) -> None:
    before = record(driver)
    nowhere = [DamagedReplica(b"x" * 16, 0, 0), DamagedReplica(before.topic_id, 7, 0)]
    complain(driver, 1, damaged=[*nowhere, DamagedReplica(before.topic_id, -1, before.partition_epoch)])
    assert record(driver) == before


def test_a_leader_without_space_resigns_and_leads_again_once_there_is_some(driver: Driver) -> None:
    before = record(driver)
    complain(driver, before.leader, disk_full=True)
    after = record(driver)
    assert after.leader == before.replicas[1]
    assert after.isr == before.isr
    driver.later(3000)
    assert record(driver).leader == after.leader, "the preferred leader is still full"
    complain(driver, before.leader)
    driver.later(1500)
    assert record(driver).leader == before.leader


def test_a_leader_without_space_leads_on_where_all_are_full(driver: Driver) -> None:
    before = record(driver)
    for broker in before.replicas[::-1]:
        complain(driver, broker, disk_full=True)
    assert record(driver).leader == before.leader
