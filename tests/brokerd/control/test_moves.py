"""Reassignments at the controller: what is kept with them, and what goes when they are over."""

from __future__ import annotations

import pytest

from brokerd.control.records import PartitionRecord
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AlterPartition,
    AlterPartitionReassignmentsRequest,
    AlterPartitionRequest,
    DrainBrokerRequest,
    InSyncReplica,
    NewTopic,
    Reassignment,
)
from tests.brokerd.control.driver import Driver


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    for broker in (1, 2, 3):
        driver.register(broker)
    driver.create(NewTopic("t", 1, 1))
    return driver


def partition(driver: Driver) -> PartitionRecord:
    (record,) = driver.core.image.all_partitions()
    return record


def move(driver: Driver, replicas: list[int] | None, throttle_bytes_per_s: int = 0) -> None:
    driver.send(AlterPartitionReassignmentsRequest([Reassignment("t", 0, replicas)], throttle_bytes_per_s))


def test_a_leader_epoch_begins_where_a_replica_goes(driver: Driver) -> None:
    (leader,) = partition(driver).replicas
    new = leader % 3 + 1
    before = partition(driver).leader_epoch
    move(driver, [leader, new])
    assert partition(driver).leader_epoch == before, "one that comes has said nothing yet"
    move(driver, [leader])
    assert (partition(driver).leader, partition(driver).leader_epoch) == (leader, before + 1)
    driver.heartbeat(new)
    move(driver, [leader, new])
    move(driver, None)
    assert (partition(driver).replicas, partition(driver).leader_epoch) == ([leader], before + 2)


def test_a_throttle_goes_with_the_commit_that_ends_the_move_over_a_change_of_controllers(driver: Driver) -> None:
    (leader,) = partition(driver).replicas
    new = leader % 3 + 1
    move(driver, [new], 1000)
    (topic,) = driver.metadata(leader).topics
    assert (topic.partitions[0].adding, topic.partitions[0].throttle_bytes_per_s) == ([new], 1000)
    driver.restart()
    assert partition(driver).throttle_bytes_per_s == 1000
    for broker in (1, 2, 3):
        driver.heartbeat(broker)
    moving = partition(driver)
    isr = [InSyncReplica(broker, driver.epochs[broker]) for broker in (leader, new)]
    proposal = AlterPartition(moving.topic_id, 0, moving.leader_epoch, moving.partition_epoch, isr)
    driver.send(AlterPartitionRequest(leader, driver.epochs[leader], [proposal]), b"broker-%d" % leader)
    assert (partition(driver).replicas, partition(driver).throttle_bytes_per_s) == ([new], 0)


def test_a_throttle_can_be_changed_and_goes_with_a_move_that_is_cancelled(driver: Driver) -> None:
    (leader,) = partition(driver).replicas
    new = leader % 3 + 1
    move(driver, [new], 1000)
    move(driver, [new], 2000)
    assert (partition(driver).adding, partition(driver).throttle_bytes_per_s) == ([new], 2000)
    move(driver, None)
    assert (partition(driver).adding, partition(driver).throttle_bytes_per_s) == ([], 0)


def test_a_throttle_below_zero_is_refused(driver: Driver) -> None:
    refused = driver.refusal(AlterPartitionReassignmentsRequest([Reassignment("t", 0, [2])], -1))
    assert refused == ErrorCode.INVALID_REQUEST


# ---- a replica that comes back ---------------------------------------------------------------------------------------


def test_a_broker_gets_a_replica_back_only_once_it_knows_that_it_had_lost_it(driver: Driver) -> None:
    """Else it goes on with its old copy: of a compacted topic that may hold keys whose tombstones are gone."""
    (leader,) = partition(driver).replicas
    new = leader % 3 + 1
    move(driver, [leader, new])
    driver.heartbeat(new)
    move(driver, [leader])
    taken = partition(driver)
    move(driver, [leader, new])
    assert partition(driver) == taken
    driver.heartbeat(new, driver.core.image.version - 1)
    move(driver, [leader, new])
    assert partition(driver) == taken
    driver.heartbeat(new)
    move(driver, [leader, new])
    assert partition(driver).adding == [new]


@pytest.mark.parametrize("registers", [False, True])
def test_a_new_controller_has_every_broker_hear_first_of_what_it_has(driver: Driver, registers: bool) -> None:
    (leader,) = partition(driver).replicas
    new = leader % 3 + 1
    move(driver, [leader, new])
    move(driver, [leader])
    driver.restart()
    if registers:
        driver.register(new, incarnation=2)
    move(driver, [leader, new])
    assert partition(driver).adding == []
    driver.heartbeat(new)
    move(driver, [leader, new])
    assert partition(driver).adding == [new]


def test_a_drain_gives_no_replica_to_a_broker_that_does_not_know_yet_that_it_lost_it(driver: Driver) -> None:
    (leader,) = partition(driver).replicas
    first, second = (broker for broker in (1, 2, 3) if broker != leader)
    move(driver, [leader, first])
    move(driver, [leader])
    driver.send(DrainBrokerRequest(leader, True))
    assert partition(driver).adding == [second]
