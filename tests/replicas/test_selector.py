"""Which replica a reader is sent to."""

from __future__ import annotations

from replicas.domains import Domains
from replicas.leader import Leadership, ReplicaEnd
from replicas.selector import nearest_replica
from tests.replicas.states import state

EPOCHS = {1: 10, 2: 20, 3: 30}


def led(ends: dict[int, int], isr: tuple[int, ...] = (1, 2, 3)) -> Leadership:
    leadership = Leadership(
        1, state(isr=isr), EPOCHS, end_offset=0, high_watermark=0, min_in_sync=1, domains=Domains(), now_ms=0
    )
    leadership.own(ReplicaEnd(9, 9), durable=True, now_ms=0)
    for broker, end in ends.items():
        leadership.fetched(broker, EPOCHS[broker], ReplicaEnd(end, end), durable=True, now_ms=0)
    return leadership


def test_a_replica_in_the_readers_rack_is_nearest_and_there_the_one_that_is_furthest() -> None:
    assert nearest_replica(led({2: 7, 3: 8}), "b", {1: "a", 2: "b", 3: "b"}, 5) == 3
    assert nearest_replica(led({2: 9, 3: 8}), "b", {1: "a", 2: "b", 3: "b"}, 5) == 2


def test_the_leader_goes_before_followers_in_its_rack() -> None:
    assert nearest_replica(led({2: 9, 3: 9}), "a", {1: "a", 2: "a", 3: "a"}, 5) == 1


def test_without_a_replica_that_is_there_in_sync_and_far_enough_it_is_the_leader() -> None:
    racks = {1: "a", 2: "b", 3: "c"}
    assert nearest_replica(led({2: 9}), "d", racks, 5) == 1
    assert nearest_replica(led({}), "b", racks, 5) == 1, "it has not fetched in this epoch"
    assert nearest_replica(led({2: 4}), "b", racks, 5) == 1
    assert nearest_replica(led({2: 9}, isr=(1, 3)), "b", racks, 5) == 1
