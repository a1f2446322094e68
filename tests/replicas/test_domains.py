"""Failure domains, placement over them, moves, and preferred leaders."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from replicas.balance import can_return, imbalanced
from replicas.domains import Domains, Place
from replicas.placement import Load, default_replication_factor, place, replication_factor_max
from replicas.reassignment import begin, cancel, finish, target
from replicas.state import NO_LEADER
from tests.replicas.states import electorate, machines, state

ONE_DISK = Domains({b: Place("m", 1) for b in (1, 2, 3)})
THREE_DISKS = Domains({b: Place("m", b) for b in (1, 2, 3)})


def test_copies_count_by_machine_then_by_disk_then_by_broker() -> None:
    two = machines((1, 2), (3, 4))
    assert two.copies([1, 2], [1, 2, 3]) == 1
    assert two.copies([1, 3], [1, 2, 3]) == 2
    assert two.copies([1, 2], [1, 2]) == 2, "two disks, where nothing else was asked for"
    assert ONE_DISK.copies([1, 2, 3], [1, 2, 3]) == 3, "three processes, as asked for"
    assert THREE_DISKS.copies([1, 2], [1, 2, 3]) == 2


def test_the_default_is_a_copy_for_each_domain_up_to_three() -> None:
    assert default_replication_factor([1, 2, 3], ONE_DISK) == 1
    assert default_replication_factor([1, 2], THREE_DISKS) == 2
    assert default_replication_factor([1, 2, 3, 4], machines((1,), (2,), (3,), (4,))) == 3
    assert default_replication_factor([1, 2, 3, 4], machines((1, 2), (3, 4))) == 2
    assert default_replication_factor([], Domains()) == 1


def test_once_there_are_two_machines_each_keeps_one_copy_at_most() -> None:
    two = machines((1, 2), (3, 4))
    assert replication_factor_max([1, 2, 3, 4], two) == 2
    assert replication_factor_max([1, 2], two) == 1
    assert replication_factor_max([1, 2, 3], ONE_DISK) == 3


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(0, 20),
)
def test_placement_spreads_leaders_and_machines(sizes: list[int], count: int, start: int) -> None:
    groups, following = [], 1
    for size in sizes:
        groups.append(tuple(range(following, following + size)))
        following += size
    domains = machines(*groups)
    brokers = list(range(1, following))
    factor = replication_factor_max(brokers, domains)
    load = Load()
    placed = place(count, factor, brokers, domains=domains, leaders_in_topic={}, load=load, start=start)
    assert all(len(set(replicas)) == factor for replicas in placed)
    if len(groups) > 1:
        assert all(len({domains.site(b) for b in replicas}) == factor for replicas in placed)
    leaders = Counter(replicas[0] for replicas in placed)
    assert max(leaders.values()) - min(leaders[b] for b in brokers) <= 1
    assert load.leaders == leaders


def test_replicas_on_one_machine_go_to_different_disks_first() -> None:
    domains = Domains({1: Place("m", 1), 2: Place("m", 1), 3: Place("m", 2)})
    for replicas in place(6, 2, [1, 2, 3], domains=domains, leaders_in_topic={}, load=Load(), start=0):
        assert len({domains.disk(b) for b in replicas}) == 2


def test_racks_are_a_preference_and_machines_the_rule() -> None:
    in_racks = Domains({b: Place(f"m{(b + 1) // 2}", 1, "a" if b < 5 else "b") for b in range(1, 7)})
    brokers = [1, 2, 3, 4, 5, 6]  # two on each of three machines, two of which are in one rack
    assert default_replication_factor(brokers, in_racks) == replication_factor_max(brokers, in_racks) == 3
    for replicas in place(12, 2, brokers, domains=in_racks, leaders_in_topic={}, load=Load(), start=0):
        assert {in_racks.rack(b) for b in replicas} == {"a", "b"}
    in_one = Domains({b: Place(f"m{(b + 1) // 2}", 1, "a") for b in brokers})
    assert default_replication_factor(brokers, in_one) == 3
    for replicas in place(12, 2, brokers, domains=in_one, leaders_in_topic={}, load=Load(), start=0):
        assert len({in_one.site(b) for b in replicas}) == 2, "a rack is no reason to lose a machine's worth"
    assert in_one.copies([1, 2], [1, 3]) == 1


def test_a_throttle_lasts_as_long_as_what_it_is_for() -> None:
    among = electorate(1, 2, 3, 4)
    moving = begin(state(replicas=(1, 2, 3)), [4, 2, 3], among, throttle_bytes_per_s=7)
    assert moving.throttle_bytes_per_s == 7
    assert begin(moving, [4, 2, 3], among, throttle_bytes_per_s=9).throttle_bytes_per_s == 9
    assert begin(moving, [4, 2, 3], among).throttle_bytes_per_s == 0
    assert cancel(moving, among).throttle_bytes_per_s == 0
    in_sync = state(replicas=(4, 2, 3, 1), adding=[4], removing=[1], throttle_bytes_per_s=7)
    assert finish(in_sync, among).throttle_bytes_per_s == 0
    assert begin(state(replicas=(1, 2, 3)), [3, 2, 1], among, throttle_bytes_per_s=7).throttle_bytes_per_s == 0


def test_a_move_adds_first_and_removes_once_all_new_ones_are_in_sync() -> None:
    among = electorate(1, 2, 3, 4)
    moving = begin(state(replicas=(1, 2, 3)), [4, 2, 3], among)
    assert (moving.replicas, moving.adding, moving.removing) == ([4, 2, 3, 1], [4], [1])
    assert (moving.leader, target(moving)) == (1, [4, 2, 3])
    assert finish(moving, among) is moving
    done = finish(state(replicas=(4, 2, 3, 1), adding=[4], removing=[1]), among)
    assert (done.replicas, done.isr, done.adding, done.removing) == ([4, 2, 3], [4, 2, 3], [], [])
    assert done.leader == 4


def test_a_move_that_only_reorders_is_over_at_once() -> None:
    done = begin(state(replicas=(1, 2, 3)), [3, 1, 2], electorate(1, 2, 3))
    assert (done.replicas, done.leader, done.adding) == ([3, 1, 2], 1, [])


def test_a_move_is_cancelled_unless_only_the_new_ones_are_in_sync() -> None:
    among = electorate(1, 2, 3, 4)
    moving = state(replicas=(4, 2, 3, 1), isr=(1, 2), adding=[4], removing=[1])
    back = cancel(moving, among)
    assert (back.replicas, back.adding, back.removing) == ([2, 3, 1], [], [])
    stuck = state(leader=4, replicas=(4, 1), isr=(4,), adding=[4], removing=[1])
    assert cancel(stuck, among) is stuck


def test_leadership_goes_back_where_too_much_of_it_is_away() -> None:
    away = [state(leader=2), state(leader=2), state(leader=1)]
    assert imbalanced(away, {1, 2, 3}, 10) == away[:2]
    assert imbalanced(away, {1, 2, 3}, 70) == []
    assert imbalanced(away, {2, 3}, 10) == []
    assert not can_return(state(leader=2, isr=(2, 3)), {1, 2, 3})
    assert not can_return(state(NO_LEADER, isr=(), eligible=[1]), {1})
