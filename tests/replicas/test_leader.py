"""The leader's view: the high watermark over the maximal in-sync set, and which set it asks for."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from replicas.domains import Domains
from replicas.leader import Leadership, Proposal, ReplicaEnd
from replicas.state import PartitionState
from tests.replicas.states import machines, state

EPOCHS = {1: 10, 2: 20, 3: 30}
LAG_MS = 1000


def both(end: int) -> ReplicaEnd:
    return ReplicaEnd(end, end)


def lead(
    over: PartitionState, *, end: int = 0, mark: int = 0, min_in_sync: int = 1, domains: Domains | None = None
) -> Leadership:
    return Leadership(
        1,
        over,
        EPOCHS,
        end_offset=end,
        high_watermark=mark,
        min_in_sync=min_in_sync,
        domains=domains or Domains(),
        now_ms=0,
    )


def own(leadership: Leadership, end: ReplicaEnd, *, durable: bool = True, now_ms: int = 0) -> int:
    return leadership.own(end, durable=durable, now_ms=now_ms)


def fetch(leadership: Leadership, broker: int, end: ReplicaEnd, *, epoch: int | None = None, now_ms: int = 0) -> int:
    return leadership.fetched(broker, EPOCHS[broker] if epoch is None else epoch, end, durable=True, now_ms=now_ms)


def propose(leadership: Leadership, now_ms: int = 0) -> list[int] | None:
    proposal = leadership.propose(durable=True, lag_max_ms=LAG_MS, now_ms=now_ms)
    return None if proposal is None else sorted(proposal.isr)


def update(leadership: Leadership, over: PartitionState, epochs: dict[int, int] = EPOCHS, min_in_sync: int = 1) -> None:
    leadership.update(over, epochs, min_in_sync=min_in_sync, domains=Domains())


def test_alone_the_leaders_own_flush_counts() -> None:
    leadership = lead(state(replicas=(1,)), mark=5)
    assert own(leadership, ReplicaEnd(20, 8)) == 8
    assert own(leadership, ReplicaEnd(20, 8), durable=False) == 20
    assert own(leadership, ReplicaEnd(20, 9)) == 20, "it never goes back, whatever durability becomes"


def test_the_slowest_in_sync_replica_decides_once_all_are_known() -> None:
    leadership = lead(state())
    assert own(leadership, both(10)) == 0
    assert fetch(leadership, 2, ReplicaEnd(9, 7)) == 0
    assert fetch(leadership, 3, both(10)) == 7


def test_one_who_is_alone_acknowledges_only_while_the_controller_knows_it() -> None:
    leadership = lead(state(isr=(1,)))
    leadership.confirmed = False
    assert own(leadership, both(10)) == 0
    assert not leadership.enough_in_sync
    leadership.confirmed = True
    assert own(leadership, both(10)) == 10


def test_who_has_others_in_sync_or_is_the_only_copy_needs_no_confirmation() -> None:
    shared, single = lead(state(isr=(1, 2))), lead(state(replicas=(1,)))
    shared.confirmed = single.confirmed = False
    own(shared, both(10))
    assert fetch(shared, 2, both(10)) == 10
    assert own(single, both(10)) == 10


def test_below_min_in_sync_it_stands_still() -> None:
    leadership = lead(state(isr=(1,)), mark=3, min_in_sync=2)
    assert own(leadership, both(10)) == 3
    assert not leadership.enough_in_sync


def test_by_default_half_of_the_replicas_rounded_up_are_enough() -> None:
    assert lead(state(isr=(1, 2)), min_in_sync=0).enough_in_sync
    assert not lead(state(isr=(1,)), min_in_sync=0).enough_in_sync
    assert lead(state(replicas=(1, 2), isr=(1,)), min_in_sync=0).enough_in_sync


def test_it_stands_still_while_somebody_is_remembered_as_eligible() -> None:
    leadership = lead(state(isr=(1,), eligible=[2]))
    assert own(leadership, both(10)) == 0
    update(leadership, state(isr=(1,), partition_epoch=1))
    assert own(leadership, both(10)) == 10


def test_copies_are_counted_by_machine() -> None:
    domains = machines((1, 2), (3,))
    assert not lead(state(isr=(1, 2)), min_in_sync=2, domains=domains).enough_in_sync
    assert lead(state(isr=(1, 3)), min_in_sync=2, domains=domains).enough_in_sync


def test_a_proposed_member_counts_before_it_is_confirmed() -> None:
    leadership = lead(state(isr=(1,)))
    own(leadership, both(10))
    fetch(leadership, 2, both(10))
    assert propose(leadership) == [1, 2]
    assert own(leadership, both(12)) == 10, "the controller may have accepted by now"
    assert propose(leadership) is None, "one proposal at a time"


def test_a_refused_member_counts_until_a_later_commit_makes_the_refusal_sure() -> None:
    leadership = lead(state(isr=(1,)))
    own(leadership, both(10))
    fetch(leadership, 2, both(10))
    proposal = leadership.propose(durable=True, lag_max_ms=LAG_MS, now_ms=0)
    assert proposal is not None
    leadership.refused(proposal)
    own(leadership, both(12))
    assert leadership.high_watermark == 10
    update(leadership, state(isr=(1,), partition_epoch=1), {**EPOCHS, 2: 21})
    assert own(leadership, both(12)) == 12


def test_a_member_taken_out_counts_until_that_is_committed() -> None:
    leadership = lead(state(replicas=(1, 2)))
    own(leadership, both(10))
    fetch(leadership, 2, both(4))
    assert propose(leadership, now_ms=LAG_MS + 1) == [1]
    assert own(leadership, both(11)) == 4
    update(leadership, state(replicas=(1, 2), isr=(1,), partition_epoch=1))
    assert own(leadership, both(11)) == 11


def test_a_follower_joins_once_it_has_the_mark_and_the_epochs_start_on_its_disk() -> None:
    leadership = lead(state(isr=(1,)), end=8, mark=5)
    own(leadership, both(8))
    fetch(leadership, 2, ReplicaEnd(8, 6))
    assert propose(leadership) is None
    fetch(leadership, 2, both(8))
    assert propose(leadership) == [1, 2]


def test_a_fetch_of_a_dead_incarnation_counts_for_nothing() -> None:
    leadership = lead(state(replicas=(1, 2)))
    own(leadership, both(10))
    assert fetch(leadership, 2, both(10), epoch=19) == 0
    fetch(leadership, 2, both(6))
    update(leadership, state(replicas=(1, 2)), {**EPOCHS, 2: 21})
    assert own(leadership, both(10)) == 6
    assert leadership.end_of(2) is None


def test_a_follower_that_keeps_up_does_not_lag_though_it_is_always_a_little_behind() -> None:
    leadership = lead(state(replicas=(1, 2)))
    for step in range(1, 50):
        own(leadership, both(step), now_ms=100 * step)
        fetch(leadership, 2, both(step - 1), now_ms=100 * step + 50)
        assert propose(leadership, now_ms=100 * step + 60) is None


def test_a_follower_that_stands_still_or_never_came_lags() -> None:
    leadership = lead(state())
    own(leadership, both(1), now_ms=10)
    fetch(leadership, 2, both(1), now_ms=20)
    assert propose(leadership, now_ms=LAG_MS) is None
    assert propose(leadership, now_ms=LAG_MS + 1) == [1, 2]
    update(leadership, state(isr=(1, 2), partition_epoch=1))
    own(leadership, both(2), now_ms=5000)
    assert propose(leadership, now_ms=5000 + LAG_MS + 1) == [1]


def test_one_that_fell_silent_at_the_mark_and_was_taken_out_does_not_hold_it_there() -> None:
    leadership = lead(state())
    own(leadership, both(5))
    for broker in (2, 3):
        fetch(leadership, broker, both(5))
    own(leadership, both(9), now_ms=10)
    fetch(leadership, 2, ReplicaEnd(9, 7), now_ms=20)
    later_ms = 20 + LAG_MS + 1
    update(leadership, state(isr=(1, 2), partition_epoch=1))  # broker 3 is dead; the mark is still where it stopped
    assert leadership.high_watermark == 5
    assert propose(leadership, later_ms) is None
    assert fetch(leadership, 2, both(9), now_ms=later_ms) == 9


def test_nothing_appended_is_nothing_to_lag_behind() -> None:
    leadership = lead(state(replicas=(1, 2)))
    own(leadership, both(1), now_ms=0)
    fetch(leadership, 2, both(1), now_ms=10)
    assert propose(leadership, now_ms=10**9) is None


def test_one_that_recovers_is_proposed_once_it_has_caught_up_and_nothing_before() -> None:
    leadership = lead(state(isr=(1,), eligible=[2], recovering=[2]), min_in_sync=2)
    own(leadership, both(3))
    assert propose(leadership) is None, "each proposal is a commit, and news for every broker"
    fetch(leadership, 2, both(3))
    assert propose(leadership) == [1, 2]


def test_a_proposal_carries_the_epochs_it_was_made_under() -> None:
    leadership = lead(state(isr=(1,), leader_epoch=4, partition_epoch=9))
    own(leadership, both(3))
    fetch(leadership, 3, both(3))
    assert leadership.propose(durable=True, lag_max_ms=LAG_MS, now_ms=0) == Proposal({1: 10, 3: 30}, 4, 9)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50), st.integers(0, 50)), max_size=30))
def test_it_never_goes_back_nor_beyond_what_all_hold(moves: list[tuple[int, int, int]]) -> None:
    leadership = lead(state())
    ends: dict[int, Any] = {}
    last = most = 0
    for replica, appended, flushed in moves:
        end = ReplicaEnd(max(appended, flushed), flushed)
        if replica == 1:
            most = max(most, end.appended_end)
            end = ReplicaEnd(most, end.flushed_end)
            now = own(leadership, end)
        else:
            end = ReplicaEnd(min(end.appended_end, most), min(end.flushed_end, most))
            now = fetch(leadership, replica, end)
        ends[replica] = max(ends.get(replica, 0), end.flushed_end)
        assert now >= last
        assert now == 0 or (len(ends) == 3 and now <= min(ends.values()))
        last = now


def test_tombstones_are_needed_as_long_as_one_assigned_replica_may_have_an_older_value() -> None:
    leadership = lead(state(isr=(1, 2)))  # of replicas 1, 2 and 3
    own(leadership, ReplicaEnd(100, 100, 90))
    fetch(leadership, 2, ReplicaEnd(100, 100, 80))
    assert leadership.cleaned_by_all() == 0, "the third is away, in sync or not"
    fetch(leadership, 3, ReplicaEnd(50, 50, 0))
    assert leadership.cleaned_by_all() == 0, "it is back, and has not cleaned its log"
    fetch(leadership, 3, ReplicaEnd(100, 100, 70))
    assert leadership.cleaned_by_all() == 70
    own(leadership, ReplicaEnd(120, 120, 60))
    assert leadership.cleaned_by_all() == 60
    update(leadership, state(isr=(1, 2)), {**EPOCHS, 3: 31})
    assert leadership.cleaned_by_all() == 0, "what an earlier incarnation said is not what this one has"
    fetch(leadership, 3, ReplicaEnd(120, 120, 110), epoch=31)
    update(leadership, state(isr=(1, 2)), {**EPOCHS, 3: 31})
    assert leadership.cleaned_by_all() == 0 or leadership.end_of(3) is not None


def test_a_replica_that_is_being_added_counts_for_tombstones_too() -> None:
    leadership = lead(state(replicas=(1,)))
    own(leadership, ReplicaEnd(100, 100, 90))
    assert leadership.cleaned_by_all() == 90
    update(leadership, msgspec.structs.replace(state(isr=(1,)), replicas=[1, 3], adding=[3]))
    assert leadership.cleaned_by_all() == 0
