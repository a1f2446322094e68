"""Replicas that give up a role: a damaged one its seat before it begins anew, a leader without space its leadership."""

from __future__ import annotations

from replicas.domains import Domains, Place
from replicas.refill import RefillStep, leave_for_refill, leave_for_space, next_step
from replicas.state import NO_LEADER
from tests.replicas.states import electorate, leaderless, state


def test_a_damaged_replica_begins_anew_only_without_a_seat_and_in_a_later_leader_epoch() -> None:
    seated = state(leader_epoch=5)
    left = state(isr=(1, 3), leader_epoch=6)
    assert next_step(2, seated, 5) == RefillStep.LEAVE
    assert next_step(2, state(isr=(1,), eligible=[2, 3], leader_epoch=6), 5) == RefillStep.LEAVE
    assert next_step(2, left, 6) == RefillStep.LEAVE, "what it said in this epoch of its old log may still count"
    assert next_step(2, left, 5) == RefillStep.BEGIN
    assert next_step(2, left, -1) == RefillStep.BEGIN, "another incarnation: nothing of the last one counts"


def test_a_damaged_replica_keeps_what_it_has_while_there_is_nobody_to_refill_from() -> None:
    assert next_step(1, state(replicas=(1,)), 5) == RefillStep.WAIT
    assert next_step(1, state(isr=(1,)), 5) == RefillStep.WAIT
    assert next_step(1, leaderless(eligible=[2], leader_epoch=9), 5) == RefillStep.WAIT


def test_a_damaged_follower_gives_up_its_seat_and_the_leader_stays() -> None:
    left = leave_for_refill(state(), 3, electorate(1, 2, 3))
    assert left is not None
    assert (left.leader, left.isr, left.eligible) == (1, [1, 2], [])


def test_a_damaged_replica_is_not_even_eligible() -> None:
    left = leave_for_refill(state(isr=(1, 2), eligible=[3]), 2, electorate(1, 2, 3))
    assert left is not None
    assert (left.isr, left.eligible) == ([1], [3])
    left = leave_for_refill(state(isr=(1,), eligible=[2, 3]), 3, electorate(1, 2, 3))
    assert left is not None
    assert (left.isr, left.eligible) == ([1], [2])


def test_a_damaged_leader_hands_over_to_who_has_all_that_was_acknowledged() -> None:
    left = leave_for_refill(state(), 1, electorate(1, 2, 3))
    assert left is not None
    assert (left.leader, left.isr) == (2, [2, 3])
    left = leave_for_refill(state(isr=(1,), eligible=[3]), 1, electorate(1, 2, 3))
    assert left is not None
    assert (left.leader, left.isr, left.eligible) == (3, [3], [])


def test_a_damaged_replica_keeps_its_seat_while_nobody_surely_has_all_that_was_acknowledged() -> None:
    assert leave_for_refill(state(isr=(1,)), 1, electorate(1, 2, 3)) is None
    assert leave_for_refill(state(isr=(1, 2)), 1, electorate(1, 3)) is None, "the other one is dead"
    all_recover = leaderless(eligible=[1, 2], recovering=[1, 2])
    assert leave_for_refill(all_recover, 1, electorate(1, 2, ends={2: (1, 5)})) is None, "it may be the greatest"
    assert leave_for_refill(leaderless(eligible=[2]), 1, electorate(1)) is None


def test_after_an_unclean_start_a_damaged_leader_leaves_once_all_others_that_hold_what_was_acknowledged_can_vote() -> (
    None
):
    """What it has beyond them was not acknowledged, and perhaps nobody can read it: they would wait for ever."""
    alone = state(isr=(1,), eligible=[2, 3], recovering=[2, 3])
    assert leave_for_refill(alone, 1, electorate(1, 2, 3)) is None, "they may catch up yet"
    assert leave_for_refill(alone, 1, electorate(1, 2, patience_over=True)) is None
    left = leave_for_refill(alone, 1, electorate(1, 2, 3, patience_over=True))
    assert left is not None
    assert (left.leader, left.isr, left.eligible, left.recovering) == (NO_LEADER, [], [2, 3], [2, 3])


def test_a_leader_without_space_hands_over_to_an_in_sync_replica_on_another_disk() -> None:
    domains = Domains({1: Place("m", 7), 2: Place("m", 7), 3: Place("m", 8)})
    moved = leave_for_space(state(), {1, 2, 3}, domains)
    assert moved is not None
    assert (moved.leader, moved.isr) == (3, [1, 2, 3])
    assert leave_for_space(state(), {2}, domains) is None, "3 is full too, or dead"
    assert leave_for_space(state(isr=(1, 2)), {1, 2, 3}, domains) is None
    assert NO_LEADER not in (moved.leader, *moved.isr)
