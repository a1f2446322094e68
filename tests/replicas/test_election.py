"""Who leads after deaths, returns and power cuts: nobody ever leads without what was acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicas.election import (
    Chosen,
    Electorate,
    alter,
    choose,
    come_back,
    commit,
    forfeit,
    leave,
    settle,
)
from replicas.state import NO_LEADER, PartitionState
from tests.replicas.states import electorate, leaderless, machines, state


def died(before: PartitionState, gone: int, among: Electorate) -> tuple[PartitionState, Chosen | None]:
    return settle(leave(before, {gone}), among)


def test_the_next_in_sync_replica_leads_when_the_leader_dies() -> None:
    after, chosen = died(state(), 1, electorate(2, 3))
    assert (after.leader, after.isr, after.eligible) == (2, [2, 3], [])
    assert chosen == Chosen(2, "clean")


def test_a_dead_follower_leaves_the_in_sync_set_and_is_forgotten_while_enough_are_left() -> None:
    after, chosen = died(state(), 3, electorate(1, 2))
    assert (after.leader, after.isr, after.eligible, chosen) == (1, [1, 2], [], None)


def test_below_min_in_sync_who_leaves_stays_eligible() -> None:
    after, _ = died(state(isr=(1, 2)), 2, electorate(1))
    assert (after.isr, after.eligible) == ([1], [2])


def test_an_eligible_replica_leads_when_nobody_is_in_sync_and_the_others_keep_their_seats() -> None:
    after, chosen = settle(leaderless(eligible=[1, 2]), electorate(2))
    assert (after.leader, after.isr, after.eligible) == (2, [2], [1])
    assert chosen == Chosen(2, "eligible")


def test_a_leader_this_controller_has_not_heard_yet_keeps_the_lead() -> None:
    assert settle(state(), electorate(2, 3, expected={1})) == (state(), None)


def test_who_comes_back_from_a_kill_is_out_of_sync_until_it_has_caught_up() -> None:
    after, _ = settle(come_back(state(), 2, intact=True), electorate(1, 2, 3))
    assert (after.leader, after.isr, after.eligible) == (1, [1, 3], [])


def test_a_lone_replica_leads_again_after_any_start() -> None:
    for intact in (True, False):
        alone = state(replicas=(1,), leader_epoch=3)
        after, chosen = settle(come_back(alone, 1, intact=intact), electorate(1, ends={1: (3, 9)}))
        assert after.leader == 1
        assert commit(alone, after, chosen).leader_epoch == 4


def test_after_a_power_cut_of_all_the_greatest_log_leads_once_all_are_back() -> None:
    now, back = state(), set[int]()
    for broker in (1, 2):
        back.add(broker)
        among = electorate(*back, expected={1, 2, 3} - back, ends={1: (4, 90), 2: (4, 100)})
        now, _ = settle(come_back(now, broker, intact=False), among)
        assert now.leader == NO_LEADER, "the one that is missing may know more"
    ends = {1: (4, 90), 2: (4, 100), 3: (3, 200)}
    after, chosen = settle(come_back(now, 3, intact=False), electorate(1, 2, 3, ends=ends))
    assert chosen == Chosen(2, "greatest")
    assert (after.isr, after.eligible, after.recovering) == ([2], [1, 3], [1, 3]), (
        "needed once more, until enough caught up"
    )


def test_after_the_patience_enough_copies_decide_without_the_one_that_is_missing() -> None:
    now = leaderless(eligible=[1, 2, 3], recovering=[1, 2])
    ends = {1: (4, 90), 2: (4, 100)}
    assert choose(now, electorate(1, 2, ends=ends)) is None
    assert choose(now, electorate(1, 2, ends=ends, patience_over=True)) == Chosen(2, "greatest")
    assert choose(now, electorate(1, ends=ends, patience_over=True)) is None


def test_nobody_is_the_greatest_before_all_have_said_where_they_end() -> None:
    now = leaderless(eligible=[1, 2, 3], recovering=[1, 2, 3])
    assert choose(now, electorate(1, 2, 3, ends={1: (4, 90), 2: (4, 95)})) is None


def test_one_whole_log_needs_nobody_elses_word() -> None:
    now = leaderless(eligible=[1, 2, 3], recovering=[1, 2])
    assert choose(now, electorate(1, 2, 3)) == Chosen(3, "eligible")


def test_recovering_members_are_out_of_sync_with_a_whole_leader_and_forgotten_with_enough_of_those() -> None:
    one, voters = come_back(state(), 3, intact=False), electorate(1, 2, 3, min_in_sync=2)
    after, _ = settle(one, voters)
    assert (after.isr, after.eligible, after.recovering) == ([1, 2], [], [])
    after, _ = settle(come_back(one, 2, intact=False), voters)
    assert (after.isr, after.eligible, after.recovering) == ([1], [2, 3], [3, 2])


def test_an_emptied_disk_has_no_seat() -> None:
    after = forfeit(state(leader=1, eligible=[], isr=(1,)), 1)
    assert (after.leader, after.isr, after.eligible) == (NO_LEADER, [], [])
    assert choose(after, electorate(1, 2, 3, expected=set())) is None


def test_with_no_seat_left_the_greatest_of_all_replicas_leads_once_all_are_there() -> None:
    now = leaderless()
    ends = {1: (-1, 0), 2: (2, 7), 3: (2, 9)}
    assert choose(now, electorate(1, 2, ends=ends)) is None
    assert choose(now, electorate(1, 2, 3, ends=ends)) == Chosen(3, "unclean")


def test_an_unclean_election_is_only_held_where_it_is_allowed() -> None:
    now = leaderless(eligible=[1])
    assert choose(now, electorate(2, 3, ends={2: (1, 5), 3: (1, 6)})) is None
    assert choose(now, electorate(2, 3, ends={2: (1, 5), 3: (1, 6)}, unclean=True)) == Chosen(3, "unclean")


def test_a_new_leader_has_a_new_epoch_above_every_log() -> None:
    before = state(leader_epoch=4, partition_epoch=7)
    after, chosen = died(before, 1, electorate(2, 3))
    now = commit(before, after, chosen, epoch_min=9)
    assert (now.leader_epoch, now.partition_epoch, now.unclean_epoch) == (9, 8, -1)
    assert commit(before, before) is before
    assert commit(before, before, forced=True).partition_epoch == 8


def test_an_election_without_proof_is_marked_in_the_epoch() -> None:
    before = leaderless(eligible=[1, 2, 3], recovering=[1, 2, 3], leader_epoch=4)
    after, chosen = settle(before, electorate(1, 2, 3, ends={1: (4, 1), 2: (4, 2), 3: (4, 3)}))
    assert commit(before, after, chosen).unclean_epoch == 5


def test_copies_on_one_machine_do_not_clear_the_eligible() -> None:
    domains = machines((1, 2), (3,))
    after, _ = died(state(), 3, electorate(1, 2, min_in_sync=2, domains=domains))
    assert (after.isr, after.eligible) == ([1, 2], [3])


def test_a_leaders_proposal_keeps_who_leaves_below_min_in_sync() -> None:
    after = alter(state(isr=(1, 2)), [1], electorate(1, 2, 3, min_in_sync=2))
    assert (after.isr, after.eligible) == ([1], [2])
    after = alter(after, [1, 3], electorate(1, 2, 3, min_in_sync=2))
    assert (after.isr, after.eligible) == ([1, 3], [])


EVENTS = st.lists(
    st.tuples(st.sampled_from(["die", "kill", "power", "wipe", "join"]), st.integers(1, 3)), min_size=1, max_size=25
)


@given(EVENTS, st.sampled_from([0, 1, 2]))
def test_whatever_happens_a_state_stays_one_and_epochs_only_rise(events: list[tuple[str, int]], least: int) -> None:
    now, usable = state(), {1, 2, 3}
    for what, broker in events:
        ends = {b: (1, b) for b in (1, 2, 3)}
        if what == "die":
            usable.discard(broker)
            prepared = leave(now, {broker})
        elif what == "join" and broker in usable and now.leader in usable:
            prepared = alter(now, [*now.isr, broker] if broker not in now.isr else now.isr, Electorate(usable))
        else:
            usable.add(broker)
            prepared = come_back(now, broker, intact=what == "kill")
            if what == "wipe":
                prepared = forfeit(prepared, broker)
        after, chosen = settle(prepared, Electorate(frozenset(usable), min_in_sync=least, ends=ends))
        after = commit(now, after, chosen)
        after.check()
        assert after.leader_epoch >= now.leader_epoch
        assert (after == now) == (after.partition_epoch == now.partition_epoch)
        assert after.leader == NO_LEADER or after.leader in usable
        now = after
