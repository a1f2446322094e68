"""A member's decisions, one promise a test; its coordinator is the test."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.client.groups.assignors import assignors_named
from ingest.client.groups.consumer_protocol import Assignment, decode_subscription, encode_assignment
from ingest.client.groups.member import IDLE_MS, Ask, Assign, Lose, Member, MemberConfig, Phase, Revoke
from ingest.client.positions import TopicPartition
from ingest.errors import RequestTimedOut
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinedMember,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
    decode_assignments,
)

ME = "me"


def parts(*numbers: int) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition("t", number) for number in numbers)


class Driven:
    """A member that subscribes to topic t of four partitions, and what it asks."""

    def __init__(self, strategy: str = "cooperative-sticky", **config: Any) -> None:
        self.member = Member(MemberConfig("g", assignors_named(strategy), **config))
        self.now_ms = 0
        self.member.polled(0)
        self.member.subscribe(["t"])
        self.generation = 0

    def ask(self) -> Ask:
        self.member.know({"t": 4})
        ask = self.member.step(self.now_ms, {"t"})
        assert ask is not None
        return ask

    def answer(self, ask: Ask, body: Any) -> bool:
        return self.member.answered(ask.number, body, None, self.now_ms)

    def join(self, leader: str = "other", members: list[JoinedMember] | None = None) -> Ask:
        """Answer the JoinGroup that is due; return it."""
        ask = self.ask()
        assert isinstance(ask.body, JoinGroupRequest)
        self.generation += 1
        protocol = ask.body.protocols[0]
        response = JoinGroupResponse(0, ME, self.generation, "consumer", protocol, leader, members or [])
        self.answer(ask, response)
        return ask

    def sync(self, *numbers: int) -> Ask:
        """Answer the SyncGroup that is due with an assignment; return it."""
        ask = self.ask()
        assert isinstance(ask.body, SyncGroupRequest)
        self.answer(ask, SyncGroupResponse(0, encode_assignment(Assignment(tuple(sorted(parts(*numbers)))))))
        return ask

    def beat(self, code: int) -> None:
        """Answer the Heartbeat that is due."""
        ask = self.ask()
        assert isinstance(ask.body, HeartbeatRequest)
        self.answer(ask, HeartbeatResponse(code))

    def take_up(self) -> None:
        """Do what is to be done, as a user does who polls."""
        while (change := self.member.change()) is not None:
            assert self.member.settled(change)

    def stable(self, *numbers: int) -> None:
        self.join()
        self.sync(*numbers)
        self.take_up()


def claims(ask: Ask) -> frozenset[TopicPartition]:
    return frozenset(decode_subscription(ask.payload[0]).owned)


def test_a_cooperative_member_joins_again_at_once_with_what_it_has() -> None:
    driven = Driven()
    driven.stable(0, 1)
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    assert driven.member.change() is None
    assert claims(driven.join()) == parts(0, 1)


def test_what_a_cooperative_member_gives_up_is_shared_out_in_a_second_round() -> None:
    driven = Driven()
    driven.stable(0, 1)
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    driven.join()
    driven.sync(0)
    assert driven.member.change() == Revoke(parts(1))
    driven.take_up()
    assert claims(driven.join()) == parts(0)
    driven.sync(0)
    driven.take_up()
    assert isinstance(driven.ask().body, HeartbeatRequest), "and no third one"


def test_what_is_given_up_while_the_group_goes_on_is_not_forgotten() -> None:
    """It had joined with it: the leader kept others from it, and waits for a round in which nobody claims it."""
    driven = Driven()
    driven.stable(0, 1)
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    driven.join()
    driven.sync(0)
    change = driven.member.change()
    assert change == Revoke(parts(1))
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    joined = driven.ask()
    assert claims(joined) == parts(0, 1)
    assert driven.member.settled(change)
    driven.generation += 1
    driven.answer(joined, JoinGroupResponse(0, ME, driven.generation, "consumer", "cooperative-sticky", "other"))
    driven.sync(0)
    driven.take_up()
    assert claims(driven.join()) == parts(0)


def test_what_comes_is_not_taken_up_once_the_group_has_gone_on() -> None:
    """A claim was sent without it: another member may get it in this round."""
    driven = Driven()
    driven.join()
    driven.sync(0, 1)
    change = driven.member.change()
    assert change == Assign(parts(0, 1))
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    assert claims(driven.ask()) == parts()
    assert not driven.member.settled(change)
    assert driven.member.owned == parts()


def test_an_eager_member_waits_for_its_user_and_stays_alive_meanwhile() -> None:
    driven = Driven("range")
    driven.stable(0, 1)
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    assert driven.member.change() == Revoke(parts(0, 1))
    assert driven.member.step(driven.now_ms, {"t"}) is None, "not at once"
    driven.now_ms += 3_000
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    assert driven.member.settled(Revoke(parts(0, 1)))
    assert claims(driven.join()) == parts()


@pytest.mark.parametrize("code", [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION])
def test_a_member_that_was_taken_for_gone_loses_what_it_has_and_joins_anew(code: ErrorCode) -> None:
    driven = Driven()
    driven.stable(0, 1)
    driven.beat(code)
    assert driven.member.change() == Lose(parts(0, 1))
    assert driven.member.generation == -1, "nothing can be committed"
    ask = driven.ask()
    assert isinstance(ask.body, JoinGroupRequest)
    assert claims(ask) == parts()


def test_a_leader_assigns_once_all_topics_are_known_and_sends_the_same_again() -> None:
    driven = Driven("range")
    ask = driven.ask()
    mine = JoinedMember(ME, None, ask.payload[0])
    driven.answer(ask, JoinGroupResponse(0, ME, 1, "consumer", "range", ME, [mine]))
    assert driven.member.step(0, ()) is None
    assert driven.member.topics_to_know == {"t"}
    first = driven.ask()
    assert [member for member, _ in decode_assignments(first.payload[0])] == [ME]
    driven.member.answered(first.number, None, RequestTimedOut("lost"), 0)
    driven.now_ms = 100
    assert driven.ask().payload == first.payload, "an empty one would leave everybody without"


def test_a_leader_whose_topics_grow_has_them_shared_out_anew() -> None:
    driven = Driven()
    ask = driven.ask()
    mine = JoinedMember(ME, None, ask.payload[0])
    driven.answer(ask, JoinGroupResponse(0, ME, 1, "consumer", "cooperative-sticky", ME, [mine]))
    driven.sync(0, 1, 2, 3)
    driven.take_up()
    assert isinstance(driven.ask().body, HeartbeatRequest)
    driven.member.know({"t": 6, "other": 9})
    again = driven.member.step(0, {"t"})
    assert again is not None
    assert isinstance(again.body, JoinGroupRequest)


def test_an_answer_to_an_older_question_changes_nothing() -> None:
    driven = Driven()
    driven.stable(0)
    heartbeat = driven.ask()
    driven.member.subscribe(["t", "u"])
    joined = driven.ask()
    assert isinstance(joined.body, JoinGroupRequest)
    assert driven.answer(heartbeat, HeartbeatResponse(ErrorCode.UNKNOWN_MEMBER_ID)) is False
    assert driven.member.phase is Phase.JOINING
    assert driven.member.owned == parts(0)


def test_without_progress_it_leaves_until_its_user_polls_again() -> None:
    driven = Driven(max_poll_interval_ms=5_000)
    driven.stable(0)
    driven.now_ms = 5_000
    ask = driven.ask()
    assert isinstance(ask.body, LeaveGroupRequest)
    driven.answer(ask, LeaveGroupResponse(0, [0]))
    assert driven.member.change() == Lose(parts(0))
    assert driven.member.step(6_000, {"t"}) is None
    driven.member.polled(7_000)
    driven.now_ms = 7_000
    assert isinstance(driven.ask().body, JoinGroupRequest)


@pytest.mark.parametrize(
    ("code", "looks_anew"),
    [
        (ErrorCode.NOT_COORDINATOR, True),
        (ErrorCode.COORDINATOR_NOT_AVAILABLE, True),
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, False),
    ],
)
def test_another_coordinator_is_asked_the_same(code: ErrorCode, looks_anew: bool) -> None:
    driven = Driven()
    driven.stable(0)
    ask = driven.ask()
    assert driven.answer(ask, HeartbeatResponse(code)) is looks_anew
    driven.now_ms += 20
    assert driven.ask().body == ask.body
    assert driven.member.change() is None


def test_a_member_that_is_not_wanted_says_why_and_asks_no_more() -> None:
    driven = Driven("range")
    driven.answer(driven.ask(), JoinGroupResponse(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
    assert "assignor in common with this one's range" in str(driven.member.failure)
    assert driven.member.step(99_999, {"t"}) is None


def test_a_static_member_that_was_kept_without_having_joined_has_lost_what_it_had() -> None:
    """The leader did not know of it: it may be others' by now."""
    driven = Driven(instance_id="i")
    driven.stable(0)
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    driven.generation += 1  # which began without it
    driven.join()
    assert driven.member.change() == Lose(parts(0))
    driven.sync(1)
    driven.take_up()
    assert driven.member.owned == parts(1)
    driven.join()
    driven.sync(1)
    driven.take_up()
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    driven.join()
    assert driven.member.change() is None


def test_each_join_counts_one_more() -> None:
    driven = Driven()
    first = driven.ask()
    driven.member.answered(first.number, None, RequestTimedOut("no answer"), 0)
    driven.now_ms = 1_000
    second = driven.ask()
    assert isinstance(first.body, JoinGroupRequest)
    assert isinstance(second.body, JoinGroupRequest)
    assert [first.body.attempt, second.body.attempt] == [1, 2]


def test_a_member_with_nothing_to_do_lets_its_thread_sleep() -> None:
    driven = Driven(max_poll_interval_ms=5_000)
    driven.stable(0)
    driven.ask()
    assert driven.member.next_ms(0) == IDLE_MS
    driven.now_ms = 5_000
    driven.member.answered(driven.member._number, HeartbeatResponse(0), None, 5_000)
    driven.answer(driven.ask(), LeaveGroupResponse(0, [0]))
    assert driven.member.step(5_000) is None
    assert driven.member.next_ms(5_000) == 5_000 + IDLE_MS, "its user does not poll"
    assert driven.member.polled(6_000), "now there is something to do"


def test_a_leader_that_does_not_know_all_topics_lets_its_thread_sleep() -> None:
    driven = Driven()
    ask = driven.ask()
    mine = JoinedMember(ME, None, ask.payload[0])
    driven.answer(ask, JoinGroupResponse(0, ME, 1, "consumer", "cooperative-sticky", ME, [mine]))
    assert driven.member.step(0, ()) is None
    assert driven.member.next_ms(0) == IDLE_MS


def test_a_static_leader_that_comes_back_keeps_the_assignment_until_a_topic_grows() -> None:
    driven = Driven(instance_id="i")
    ask = driven.ask()
    assert isinstance(ask.body, JoinGroupRequest)
    me = [JoinedMember(ME, "i", ask.payload[0])]
    protocol = ask.body.protocols[0]
    answer = JoinGroupResponse(0, ME, 5, "consumer", protocol, ME, me, skip_assignment=True)  # KIP-814
    driven.answer(ask, answer)
    driven.sync(0, 1, 2, 3)
    driven.take_up()
    for _ in range(2):
        driven.beat(0)
    driven.member.know({"t": 5})
    ask_again = driven.member.step(driven.now_ms, {"t"})
    assert ask_again is not None
    assert isinstance(ask_again.body, JoinGroupRequest)


def test_a_heartbeat_does_not_wait_beyond_the_time_for_the_next_poll() -> None:
    driven = Driven(max_poll_interval_ms=5_000)
    driven.stable(0)
    driven.now_ms = 4_000
    ask = driven.ask()
    assert isinstance(ask.body, HeartbeatRequest)
    assert ask.body.max_wait_ms == 1_000
    driven.now_ms = 5_000
    driven.answer(ask, HeartbeatResponse(0))
    assert isinstance(driven.ask().body, LeaveGroupRequest)
